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
from media.limits import decoding
from utils import InputError, choose_device

LOCAL = ("127.0.0.1", "localhost", "::1")
CSS = """
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.curves figure { margin: 0; } .curves figcaption { font-weight: 600; font-size: .9rem; }
.curves div { font-size: .85rem; overflow-wrap: anywhere; }
.curves svg { width: 100%; height: auto; } .curves polyline { fill: none; stroke-width: 2; }
.curves text { fill: currentColor; font-size: 12px; opacity: .75; } .curves .grid { stroke: currentColor; opacity: .15; }
.grid-wrap { max-height: none !important; overflow: visible !important; }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) !important; }
.text p { margin: .25rem 0; overflow-wrap: anywhere; }
footer { display: none !important; }
"""


def get_parser():
    parser = argument_parser("Open a page to translate, watch and compare.", "python app.py [options]")
    add = parser.add_argument
    add("--checkpoint", nargs="+", default=[], metavar="FILE", help="offer these generators, too")
    add("--host", default="127.0.0.1", help="0.0.0.0 lets everyone in this network use the page")
    add("--port", type=between(1, 65535), help="port (default: 7860, or the next one that is free)")
    add("--share", action="store_true", help="let everyone who has the link use the page, by way of Gradio's servers")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--max_upload", type=between(1, 10**6), default=200, metavar="MB", help="refuse larger uploads")
    add("--max_pixels", type=between(1, 10**11), default=50_000_000, help="refuse larger images")
    return parser


def build_page(do):
    """The layout. do: page.handlers.Handlers, what the buttons do -> gr.Blocks"""
    import gradio as gr

    from page.handlers import Few

    # values are checked by the functions, and only the page calls them; the device does one thing at a time
    light = dict(preprocess=False, api_visibility="private", show_progress="hidden", concurrency_limit=8)
    heavy = dict(preprocess=False, api_visibility="private", concurrency_limit=1, concurrency_id="device")
    directions = [("A → B", "AB"), ("B → A", "BA")]
    with gr.Blocks(title="CycleGAN", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML("<h1>CycleGAN</h1>")
        with gr.Tab("Translate") as translate_tab:
            hint = gr.HTML(visible=False, elem_classes="text")
            with gr.Row():
                with gr.Column():
                    with gr.Row():
                        run = gr.Dropdown(label="Run", elem_id="run", min_width=240)
                        checkpoint = gr.Dropdown(label="Checkpoint", elem_id="checkpoint")
                    direction = gr.Radio(directions, value="AB", label="Direction")
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
                    size = gr.Number(256, label="Size: the shorter side in pixels, 0 for the full size", precision=0)
                    keep_size = gr.Checkbox(True, label="Enlarge the result to the size of the picture again")
                    strength = gr.Slider(0, 1, 1, step=0.05, label="Strength: 0 is the input, 1 the translation")
                    with gr.Accordion("Mix with a second checkpoint", open=False):
                        mix_run = gr.Dropdown(label="Second run")
                        mix_checkpoint = gr.Dropdown(label="Second checkpoint")
                        mix = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second checkpoint")
                with gr.Column():
                    result = gr.ImageSlider(
                        label="Before and after", elem_id="result", max_height=640, buttons=["fullscreen"]
                    )
                    moving = gr.Video(label="Translated video", visible=False)
                    said = gr.HTML(elem_classes="text", elem_id="said")
                    download = gr.DownloadButton("Download", interactive=False, elem_id="download")
            settings = [run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix]
        with gr.Tab("Watch") as watch_tab:
            watched = gr.Dropdown(label="Run", elem_id="watched")
            status = gr.HTML(elem_classes="text", elem_id="status")
            health = gr.HTML(elem_classes="text", elem_id="health")
            plots = gr.HTML(elem_id="plots")
            at = gr.Slider(0, 1, step=1, label="Sample grids over time", visible=False, elem_id="at")
            grid = gr.Image(
                interactive=False, visible=False, label="Sample grid", elem_id="grid", buttons=["fullscreen"]
            )
            gr.HTML("<p>Columns: real A, fake B, recovered A, real B, fake A, recovered B.</p>")
            before, timer = gr.State(), gr.Timer(3)
        with gr.Tab("Compare") as compare_tab:
            with gr.Row():
                with gr.Column():
                    one = gr.Image(label="Picture", elem_id="one", height=320, buttons=[])
                with gr.Column():
                    with gr.Row():
                        first = gr.Dropdown(label="Run", elem_id="first", min_width=240)
                        second = gr.Dropdown(label="Beside it", elem_id="second")
                    way = gr.Radio(directions, value="AB", label="Direction")
                    side = gr.Number(256, label="Size: the shorter side in pixels, 0 for the full size", precision=0)
                    keep = gr.Checkbox(True, label="Enlarge the result to the size of the picture again")
                    compare = gr.Button("Translate by every checkpoint", variant="primary", elem_id="compare")
                    told = gr.HTML(elem_classes="text", elem_id="told")
            with gr.Row():
                looks = dict(object_fit="contain", height="auto", buttons=["fullscreen"])
                left = gr.Gallery(label="Run", elem_id="left", **looks)
                right = gr.Gallery(label="Beside it", elem_id="right", visible=False, **looks)

        do.editor, editor.blob_storage = editor, Few()
        for begin in (page.load, translate_tab.select):
            begin(do.translators_listed, None, [run, hint], **light)
            begin(do.second_listed, None, mix_run, **light)
        run.change(do.checkpoints_of, run, checkpoint, **light)
        run.change(do.size_of, run, size, **light)
        mix_run.change(do.checkpoints_of, mix_run, mix_checkpoint, **light)
        picture.change(do.to_paint_on, picture, editor, **light)
        translating = go.click(do.picture, [picture, editor, *settings], [result, moving, said, download], **heavy)
        filming = go_clip.click(do.clip, [clip, smooth, *settings], [result, moving, said, download], **heavy)
        for done in (translating, filming):  # on a phone, the result is below the settings
            done.success(
                None, js="() => innerWidth < 768 && document.querySelector('#said').scrollIntoView({block: 'end'})"
            )
        stop.click(do.stop, None, None, cancels=[translating, filming], **light)
        page.unload(do.leave)

        seen = [before, status, plots, health, at, grid]
        watch_tab.select(do.watched_listed, watched, watched, **light)
        for now in (timer.tick, watched.change, watch_tab.select):
            now(do.watch, [watched, before, at], seen, **light)
        at.input(do.grid, [watched, at], grid, **light)

        compare_tab.select(do.translators_listed, None, [first, hint], **light)
        compare_tab.select(do.second_listed, None, second, **light)
        first.change(do.size_of, first, side, **light)
        compare.click(do.compare, [one, first, second, way, side, keep], [left, right, told], **heavy)
    return page.queue(max_size=20)


def exposure(opt):
    """-> lines on who can use the page"""
    lines = []
    if opt.share:
        lines.append(
            "note: --share: everyone who has the link can use the page and this machine's processor for a week. What is "
            "sent goes through Gradio's servers"
        )
    if opt.host not in LOCAL:
        lines.append(
            f"note: --host {opt.host}: everyone who can reach this machine can use the page, without a password and "
            "unencrypted"
        )
    if lines:
        lines.append("visitors see the runs and sample grids in saved_models and images, and can read no other file")
    return lines


def main(argv=None):
    opt = get_parser().parse_args(argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError("app.py: requires Gradio: pip install gradio")
    device = choose_device(opt.device)
    for path in opt.checkpoint:
        load_generator(path)  # raises InputError now rather than on the page
    print("\n".join(exposure(opt)), end="\n" * bool(exposure(opt)), flush=True)
    with tempfile.TemporaryDirectory(prefix="cyclegan_page_") as folder, decoding(opt.max_pixels):
        os.environ["GRADIO_TEMP_DIR"] = folder
        from page.serve import serve

        serve(build_page, opt, device, folder, CSS)


if __name__ == "__main__":
    run_script(main)
