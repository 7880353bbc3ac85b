# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2", "gradio>=6.31"]
# ///
"""
A page for a browser: translate pictures and videos, watch a training run, compare its checkpoints.

    python app.py                                   # http://127.0.0.1:7860, the runs in saved_models
    python app.py --checkpoint latest_net_G_A.pth   # and a generator from elsewhere
    python app.py --host 0.0.0.0                    # for everyone in this network

Requires Gradio: pip install gradio. The folder page/ holds what the buttons do; the layout is below.
"""

import os
import tempfile

from command_line.parser import argument_parser, between
from command_line.run import run_script
from inference.load import load_generator
from inference.weights import model_file
from media.limits import decoding
from media.sheets import GRID
from utils import InputError, choose_device


def get_parser():
    parser = argument_parser("Open a page to translate, watch and compare.", "python app.py [options]")
    add = parser.add_argument
    add("--checkpoint", nargs="+", default=[], metavar="FILE", help="offer these generators, too")
    add("--host", default="127.0.0.1", help="0.0.0.0 lets everyone in this network use the page")
    add("--port", type=between(1, 65535), help="port (default: 7860, or the next one that is free)")
    add("--share", action="store_true", help="let everyone who has the link use the page, by way of Gradio's servers")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--max_upload", type=between(1, 10**6), default=200, metavar="MIB", help="refuse larger uploads")
    add("--max_pixels", type=between(1, 10**11), default=50_000_000, help="refuse larger images")
    return parser


# values are checked by the functions, and only the page calls them; the device does one thing at a time
LIGHT = dict(preprocess=False, api_visibility="private", show_progress="hidden", concurrency_limit=8)
HEAVY = dict(preprocess=False, api_visibility="private", concurrency_limit=1, concurrency_id="device")
DIRECTIONS = [("A → B", "AB"), ("B → A", "BA")]
SIZE = "Size: the shorter side in pixels, 0 for the full size"
KEEP_SIZE = "Enlarge the result to the size of the picture again"
# On a phone, the result is below the settings. A picture that is drawn, and words, move it a little later
SHOW_RESULT = """() => {
    const said = document.querySelector('#said'), show = () => said.scrollIntoView({block: 'end'});
    if (innerWidth >= 768) return;
    const changes = new ResizeObserver(show);
    for (const part of [said, document.querySelector('#result')]) changes.observe(part);
    setTimeout(() => changes.disconnect(), 3000);
    show();
}"""


##############################
#   Layout
##############################


def build_page(do):
    """do: page.handlers.Handlers, what the buttons do -> gr.Blocks"""
    import gradio as gr

    from page.watch_handlers import WatchHandlers

    with gr.Blocks(title="CycleGAN", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML("<h1>CycleGAN</h1>")
        with gr.Tab("Translate") as tab:
            translate_tab(gr, do, page, tab)
        with gr.Tab("Watch") as tab:
            watch_tab(gr, WatchHandlers(do.models), tab)
        with gr.Tab("Compare") as tab:
            compare_tab(gr, do, tab)
    return page.queue(max_size=20)


def translate_tab(gr, do, page, tab):
    """A picture or a video -> its translation. gr: the module gradio"""
    from page.handlers import Few

    hint = gr.HTML(visible=False, elem_classes="text")
    with gr.Row():
        with gr.Column():
            with gr.Row():
                run = gr.Dropdown(label="Run", elem_id="run", min_width=240)
                checkpoint = gr.Dropdown(label="Checkpoint", elem_id="checkpoint")
            direction = gr.Radio(DIRECTIONS, value="AB", label="Direction")
            with gr.Tab("Picture"):
                picture = gr.Image(label="Picture", elem_id="picture", height=320, buttons=[])
                with gr.Accordion("Translate only a part: paint over it", open=False):
                    brush = gr.Brush(default_size=40, colors=[("#ff3030", 0.5)], color_mode="fixed")
                    editor = gr.ImageEditor(
                        sources=(), transforms=(), layers=False, brush=brush, show_label=False, format="png"
                    )
                go = gr.Button("Translate", variant="primary", elem_id="go")
            with gr.Tab("Video or other file"):
                clip = gr.File(label="Video, or a picture in another format", elem_id="clip")
                smooth = gr.Slider(0, 1, 0, step=0.1, label="Reduce the flicker of a video")
                with gr.Row():
                    go_clip = gr.Button("Translate the file", variant="primary", elem_id="go_clip")
                    stop = gr.Button("Stop")
            size, keep_size = gr.Number(256, label=SIZE, precision=0), gr.Checkbox(True, label=KEEP_SIZE)
            strength = gr.Slider(0, 1, 1, step=0.05, label="Strength: 0 is the input, 1 the translation")
            with gr.Accordion("Mix with a second checkpoint", open=False):
                mix_run = gr.Dropdown(label="Second run")
                mix_checkpoint = gr.Dropdown(label="Second checkpoint")
                mix = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second checkpoint")
        with gr.Column():
            result = gr.ImageSlider(label="Before and after", elem_id="result", max_height=640, buttons=["fullscreen"])
            moving = gr.Video(label="Translated video", visible=False)
            said = gr.HTML(elem_classes="text", elem_id="said")
            download = gr.DownloadButton("Download", interactive=False, elem_id="download")

    do.editor, editor.blob_storage = editor, Few()
    settings = [run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix]
    results = [result, moving, said, download]
    page.load(do.translators_listed, run, [run, hint], **LIGHT)
    page.load(do.second_listed, mix_run, mix_run, **LIGHT)
    tab.select(do.translators_listed, run, [run, hint], **LIGHT)
    tab.select(do.checkpoints_of, [run, checkpoint], checkpoint, **LIGHT)
    tab.select(do.second_listed, mix_run, mix_run, **LIGHT)
    run.change(do.checkpoints_of, run, checkpoint, **LIGHT)
    run.change(do.size_of, run, size, **LIGHT)
    mix_run.change(do.checkpoints_of, mix_run, mix_checkpoint, **LIGHT)
    picture.change(do.to_paint_on, picture, editor, **LIGHT)
    jobs = [
        go.click(do.picture, [picture, editor, *settings], results, **HEAVY),
        go_clip.click(do.clip, [clip, smooth, *settings], results, **HEAVY),
    ]
    for event in (go.click, go_clip.click, *(job.then for job in jobs)):
        event(None, js=SHOW_RESULT)
    stop.click(do.stop, None, said, cancels=jobs, **LIGHT)
    page.unload(do.leave)


def watch_tab(gr, do, tab):
    """Curves, health and sample grids of a run, which follow its training."""
    run = gr.Dropdown(label="Run", elem_id="watched")
    status = gr.HTML(elem_classes="text", elem_id="status")
    health = gr.HTML(elem_classes="text", elem_id="health")
    plots = gr.HTML(elem_id="plots")
    at = gr.Slider(0, 1, step=1, label="Sample grid", visible=False, elem_id="at")
    looks = dict(show_label=False, elem_id="grid", buttons=["fullscreen"])
    grid = gr.Image(interactive=False, visible=False, label="Sample grid", **looks)
    gr.HTML(f"<p>Columns: {', '.join(GRID)}.</p>")
    before, timer = gr.State(), gr.Timer(3)

    tab.select(do.runs_listed, run, run, **LIGHT)
    for now in (timer.tick, run.change, tab.select):
        now(do.watch, [run, before, at], [before, status, plots, health, at, grid], **LIGHT)
    at.input(do.grid, [run, at], [at, grid], **LIGHT)


def compare_tab(gr, do, tab):
    """One picture through every kept checkpoint of a run, and of another one beside it."""
    hint = gr.HTML(visible=False, elem_classes="text")
    with gr.Row():
        with gr.Column():
            picture = gr.Image(label="Picture", elem_id="one", height=320, buttons=[])
        with gr.Column():
            with gr.Row():
                run = gr.Dropdown(label="Run", elem_id="first", min_width=240)
                other = gr.Dropdown(label="Beside it", elem_id="second")
            direction = gr.Radio(DIRECTIONS, value="AB", label="Direction")
            size, keep_size = gr.Number(256, label=SIZE, precision=0), gr.Checkbox(True, label=KEEP_SIZE)
            go = gr.Button("Translate by every checkpoint", variant="primary", elem_id="compare")
            said = gr.HTML(elem_classes="text", elem_id="told")
    with gr.Row():
        looks = dict(object_fit="contain", height="auto", buttons=["fullscreen"])
        left = gr.Gallery(label="Run", elem_id="left", **looks)
        right = gr.Gallery(label="Beside it", elem_id="right", visible=False, **looks)

    tab.select(do.translators_listed, run, [run, hint], **LIGHT)
    tab.select(do.second_listed, other, other, **LIGHT)
    run.change(do.size_of, run, size, **LIGHT)
    go.click(do.compare, [picture, run, other, direction, size, keep_size], [left, right, said], **HEAVY)


##############################
#   Command
##############################


def main(argv=None):
    opt = get_parser().parse_args(argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError("app.py: requires Gradio: pip install gradio")
    device = choose_device(opt.device)
    opt.checkpoint = [model_file(path) for path in opt.checkpoint]
    for path in opt.checkpoint:
        load_generator(path)  # raises InputError now rather than on the page
    with tempfile.TemporaryDirectory(prefix="cyclegan_page_") as folder, decoding(opt.max_pixels):
        os.environ["GRADIO_TEMP_DIR"] = folder
        from page.serve import serve

        serve(build_page, opt, device, folder)


if __name__ == "__main__":
    run_script(main)
