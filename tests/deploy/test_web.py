"""export.py --format web: what the folder contains, and the page in a real browser."""

import contextlib
import functools
import http.server
import json
import os
import pathlib
import re
import shutil
import threading

import numpy as np
import onnx
import pytest
import torch
from helpers import ROOT
from PIL import Image

import export
import translate
from deploy import web
from inference.load import load_generator
from media.files import save_file
from media.pictures import make_resize
from models import weights_init_normal
from utils import InputError
from variants.build import make_generator

NODE_MODULES = os.environ.get("NODE_MODULES") or os.path.join(ROOT, "node_modules")
OURS = sorted(os.listdir(web.PAGE))
URL = re.compile(rb"""\b(?:https?|wss?|ftp):|["'(=\s]//\w""")


def picture(width, height, seed=0, mode="RGB"):
    """A smooth picture with noise, as a PIL image"""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(colours).astype(int) + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def save_checkpoint(name="horse2zebra", channels=3, **more):
    """Writes a full checkpoint of small networks, and pictures of its data set, into the current folder -> its path"""
    options = dict(dataset_name=name, img_height=48, img_width=64, channels=channels, ngf=8, n_residual_blocks=1) | more
    state = dict(version=1, options=options, epoch=3, provenance={"commands": ["python /home/jane/cyclegan.py"]})
    for seed, direction in enumerate(("AB", "BA")):
        torch.manual_seed(seed)
        G = make_generator(options, channels, channels).apply(weights_init_normal)
        with torch.no_grad():
            for part in G.modules():  # as after training, so that the epsilon of norms is negligible
                if isinstance(part, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                    part.weight *= 3
        state[f"G_{direction}"] = G.state_dict()
    os.makedirs(f"saved_models/{name}")
    save_file(state, f"saved_models/{name}/latest.pth")
    for domain in "AB":
        os.makedirs(f"data/{name}/test{domain}")
        picture(64, 48, mode="L" if channels == 1 else "RGB").save(f"data/{name}/test{domain}/0.png")
    return f"saved_models/{name}/latest.pth"


def stand_in(folder="."):
    """Small files in the place of onnxruntime-web"""
    dist = pathlib.Path(folder, web.PACKAGE, "dist")
    dist.mkdir(parents=True)
    for names in web.RUNTIMES.values():
        for i, name in enumerate(names):
            (dist / name).write_bytes(b"x" * (100 + i))
    (dist / "ort.all.min.js").write_text("not needed")
    (dist.parent / "package.json").write_text('{"version": "1.2.3"}')


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_checkpoint()


@pytest.fixture
def quick(monkeypatch):
    """Exports are ONNX files of a few bytes, which are not compared: seconds instead of half a minute."""

    def write(kind, path, trained, images, compared, int8, size=None, public=None):
        assert (kind, size, public) == ("onnx", None, {})
        pathlib.Path(path).write_bytes(b"network " + trained.direction.encode())

    monkeypatch.setattr(web, "export_file", write)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


RUNTIME = ["LICENSE.txt", "ort-wasm-simd-threaded.asyncify.wasm", "ort-wasm-simd-threaded.wasm",
           "ort.wasm.bundle.min.js", "ort.webgpu.bundle.min.js"]  # fmt: skip


##############################
#   The folder
##############################


def test_what_the_folder_contains(checkpoint, quick, capsys):
    stand_in()
    export.main(["--checkpoint", checkpoint, "--format", "web"])
    folder = "saved_models/horse2zebra/web"
    networks = ["G_AB_3.onnx", "G_BA_3.onnx", "networks.json"]
    assert files_in(folder) == sorted([*OURS, *networks, *(f"runtime/{name}" for name in RUNTIME)])
    for name in OURS:
        assert open(f"{folder}/{name}").read() == open(f"{web.PAGE}/{name}").read()
    for name in files_in(folder):
        data = open(f"{folder}/{name}", "rb").read()
        assert not URL.search(data) and ROOT.encode() not in data and os.getcwd().encode() not in data, name
    facts = json.load(open(f"{folder}/networks.json"))
    assert facts["name"] == "horse2zebra"
    # three times the largest layer: 8 channels of float32 are padded by 3 pixels at 64 x 64: 4 * 8 * (1 + 70**2 / 64**2)
    shape = {"bytes": 10, "channels": 3, "out_channels": 3, "size": 48, "bytes_per_pixel": 3 * 71}
    assert facts["networks"] == [{"label": "horse → zebra", "file": "G_AB_3.onnx"} | shape,
                                 {"label": "zebra → horse", "file": "G_BA_3.onnx"} | shape]  # fmt: skip
    assert facts["runtimes"]["wasm"] == {
        "script": "runtime/ort.wasm.bundle.min.js", "binary": "runtime/ort-wasm-simd-threaded.wasm", "bytes": 101
    }  # fmt: skip
    licence = open(f"{folder}/runtime/LICENSE.txt").read()
    assert "1.2.3" in licence and "Microsoft" in licence and "MIT License" in licence
    said = capsys.readouterr().out
    assert "complete, with onnxruntime-web 1.2.3" in said and "npm" not in said
    assert f"python -m http.server --directory {folder}\n" in said


def test_without_the_package_the_rest_is_written_and_the_command_said(checkpoint, quick, capsys):
    export.main(["--checkpoint", checkpoint, "--format", "web", "--direction", "BA", "--output", "page"])
    assert files_in("page") == sorted([*OURS, "G_BA_3.onnx", "networks.json"])
    assert "also holds" not in (said := capsys.readouterr().out)
    facts = json.load(open("page/networks.json"))
    assert facts["runtimes"] is None and [network["label"] for network in facts["networks"]] == ["zebra → horse"]
    (line,) = [line for line in said.splitlines() if "npm" in line]
    assert line == "note: page lacks onnxruntime-web. Run this, then export again: npm install onnxruntime-web"
    # once it is there, it is used, and later exports keep it
    stand_in()
    for _ in range(2):
        export.main(["--checkpoint", checkpoint, "--format", "web", "--direction", "BA", "--output", "page"])
        assert json.load(open("page/networks.json"))["runtimes"]["webgpu"]["bytes"] == 101
        assert sorted(os.listdir("page/runtime")) == RUNTIME
        shutil.rmtree("node_modules", ignore_errors=True)


def test_networks_of_an_earlier_export_are_named(checkpoint, quick, capsys):
    for direction in ("BA", "AB"):
        export.main(["--checkpoint", checkpoint, "--format", "web", "--direction", direction, "--output", "page"])
    said = capsys.readouterr().out
    assert "note: page also holds G_BA_3.onnx, which this page does not use. Delete them before you publish it" in said
    assert os.path.exists("page/G_BA_3.onnx")


@pytest.mark.slow
def test_nothing_names_this_machine_or_another(checkpoint, monkeypatch, capsys):
    """Neither do the networks, which are public: the metadata of other exports holds commands."""
    stand_in()
    path = os.path.abspath(checkpoint)
    monkeypatch.setattr("sys.argv", [f"{ROOT}/export.py", "--checkpoint", path, "--format", "web"])
    export.main(["--checkpoint", path, "--format", "web", "--direction", "AB", "--output", "page"])
    for name in files_in("page"):
        data = open(f"page/{name}", "rb").read()
        for foreign in (ROOT, os.getcwd(), "/home/", "jane", os.path.dirname(torch.__file__)):
            assert foreign.encode() not in data, name
        if not name.endswith(".onnx"):
            assert not URL.search(data), name
    model = onnx.load("page/G_AB_3.onnx")
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert not {"exported_by", "trained_by"} & known.keys() and known["direction"] == "AB"
    assert not [text for entry in known.values() for text in URL.findall(entry.encode())]
    assert "onnx, compared with PyTorch on 1 image" in capsys.readouterr().out
    assert load_generator("page/G_AB_3.onnx").options["img_height"] == 48  # translate.py takes it


def test_the_policy_of_the_page():
    page = open(f"{web.PAGE}/index.html").read()
    policy = re.search(r'"Content-Security-Policy" content="([^"]*)"', page)[1]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.pop("default-src") == "'self'" and allowed.pop("script-src") == "'self' 'wasm-unsafe-eval'"
    assert {word for words in allowed.values() for word in words.split()} <= {"'self'", "'none'", "data:", "blob:"}
    assert "connect-src" not in allowed  # that of default-src
    assert web.MARK.decode() in page
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page)


@pytest.mark.parametrize("options, message", [
    (["--format", "web", "onnx"], "--format web: writes a folder of its own; give it alone, without --size and --benchmark"),
    (["--format", "web", "--size", "64x64"], "--format web: writes a folder of its own"),
    (["--format", "web", "--benchmark"], "--format web: writes a folder of its own"),
    (["--format", "web", "--output", "file"], "--output file: is a file. Name a folder"),
    (["--format", "web", "--output", "other"], "--output other: contains another index.html. Name another folder"),
    (["--format", "web", "--output", "site"], "--output site: contains another style.css. Name another folder"),
])  # fmt: skip
def test_options_that_are_refused(checkpoint, quick, options, message):
    os.mkdir("other")
    os.mkdir("site")
    for path in ("file", "other/index.html", "site/style.css"):
        pathlib.Path(path).write_text("mine")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        export.main(["--checkpoint", checkpoint, *options])
    assert "\n" not in str(error.value)
    assert pathlib.Path("other/index.html").read_text() == pathlib.Path("file").read_text() == "mine"
    assert pathlib.Path("site/style.css").read_text() == "mine" and os.listdir("site") == ["style.css"]
    assert os.listdir("other") == ["index.html"] and not os.path.exists("saved_models/horse2zebra/web")


def test_generators_that_are_refused(checkpoint, quick):
    for more, message in (
        ({"channels": 4}, "translates 4 channels to 4; browsers read gray and RGB pictures only"),
        ({"range_in": "0 500", "channels": 1}, "was trained with --range_A or --range_B; browsers read pictures of 8"),
    ):
        options = {"n_residual_blocks": 1, "ngf": 8, "channels": 3} | more
        options["out_channels"] = options["channels"]
        G = make_generator(options, options["channels"], options["channels"])
        save_file({"generator": options, "weights": G.state_dict()}, "G_AB_4.pth")
        with pytest.raises(InputError, match=f"^--format web: G_AB_4.pth {message}") as error:
            export.main(["--checkpoint", "G_AB_4.pth", "--format", "web", "--output", "page"])
        assert "\n" not in str(error.value)
    pathlib.Path("g.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="--checkpoint g.onnx: is already exported"):
        export.main(["--checkpoint", "g.onnx", "--format", "web"])
    assert not os.path.exists("page")


##############################
#   In a browser
##############################


class Site:
    """The page, served from loopback. changes: {name of a file: function of its bytes, in the place of these}"""

    def __init__(self, folder):
        self.folder, self.changes = folder, {}

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *words):
                pass

            def do_GET(handler):  # noqa: N805
                name = handler.path.strip("/")
                if name not in self.changes:
                    return super().do_GET()
                data = self.changes[name](pathlib.Path(folder, name).read_bytes())
                handler.send_response(200)
                handler.send_header("content-type", handler.guess_type(name))
                handler.send_header("content-length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data)

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a checkpoint and "page", exported with onnxruntime-web"""
    if not os.path.isfile(os.path.join(NODE_MODULES, "onnxruntime-web", "dist", web.RUNTIMES["wasm"][1])):
        pytest.skip(f"no onnxruntime-web in {NODE_MODULES}: npm install onnxruntime-web, or NODE_MODULES=FOLDER")
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        os.symlink(os.path.abspath(NODE_MODULES), "node_modules")
        export.main(["--checkpoint", save_checkpoint(), "--format", "web", "--output", "page"])
        exif = Image.Exif()
        exif[0x0112] = 6
        picture(72, 48, seed=1).save("same size.png")
        picture(211, 150, seed=2).save("large.png")
        picture(31, 40, seed=3).save("small.png")
        picture(90, 70, seed=4, mode="L").save("gray.png")
        picture(150, 100, seed=5).save("turned.jpg", exif=exif, quality=95)
        clear = picture(100, 80, seed=6, mode="RGBA")
        clear.putalpha(Image.linear_gradient("L").resize(clear.size))
        clear.save("clear.png")
    return folder


@pytest.fixture
def site(exported, monkeypatch):
    monkeypatch.chdir(exported)
    made = Site(exported / "page")
    yield made
    made.server.shutdown()
    made.server.server_close()


@contextlib.contextmanager
def visiting(browser, site, width=1280):
    """Opens the page -> playwright's page. Nobody else may be asked, and no script may fail."""
    context = browser.new_context(
        viewport={"width": width, "height": 844}, has_touch=width < 500, is_mobile=width < 500
    )
    context.set_default_timeout(50_000)
    page, problems = context.new_page(), []
    context.on("request", lambda r: r.url.startswith((site.url, f"blob:{site.url}")) or problems.append(r.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(site.url)
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def visit(browser, site):
    with contextlib.ExitStack() as stack:
        yield lambda width=1280: stack.enter_context(visiting(browser, site, width))


def result(page):
    """Waits for the translation, and downloads it -> (name, pixels)"""
    page.wait_for_selector("#result:not([hidden]), #error:not(:empty)")
    assert page.inner_text("#error") == ""
    page.wait_for_selector("#stop", state="hidden")
    with page.expect_download() as download:
        page.click("#download")
    with Image.open(download.value.path()) as image:
        assert image.format == "PNG"
        return download.value.suggested_filename, np.asarray(image.convert("RGB")).astype(int)


def by_command(source, size, direction="AB"):
    """What translate.py writes for this picture, without its transparency"""
    with Image.open(source) as image:
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            Image.alpha_composite(white, image).convert("RGB").save("on white.png")
            source = "on white.png"
    words = ["--checkpoint", "saved_models/horse2zebra/latest.pth", "--direction", direction, "--input", source]
    words += ["--size", str(size), "--output", "expected.png", "--overwrite", "--device", "cpu", "--no-amp"]
    assert translate.main(words) == 0
    return np.asarray(Image.open("expected.png").convert("RGB")).astype(int)


@pytest.mark.slow
@pytest.mark.chromium
def test_a_picture_that_cannot_be_written_is_said(visit):
    page = visit()
    page.set_input_files("#file", "small.png")
    result(page)
    page.evaluate("() => { HTMLCanvasElement.prototype.toBlob = (done) => done(null); }")
    page.click("#download")
    page.wait_for_selector("#error:has-text('There is not enough memory to write the picture')")


@pytest.mark.slow
@pytest.mark.chromium
def test_a_network_that_cannot_be_released_does_not_block_the_next_one(visit, site):
    """As after the GPU was lost."""
    was = b"release: () => created.release()"
    site.changes["worker.js"] = lambda data: data.replace(was, b'release: () => Promise.reject(new Error("lost"))')
    assert was in pathlib.Path(web.PAGE, "worker.js").read_bytes()
    page = visit()
    page.set_input_files("#file", "same size.png")
    result(page)
    page.select_option("#direction", "1")
    assert np.abs(result(page)[1] - by_command("same size.png", 48, "BA")).max() <= 2


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.parametrize("source", ["same size.png", "large.png", "small.png", "gray.png", "turned.jpg", "clear.png"])
def test_the_translation_is_that_of_translate(visit, source):
    page = visit()
    page.set_input_files("#file", source)
    name, made = result(page)
    wanted = by_command(source, 48)
    assert name == source.rpartition(".")[0] + "_translated.png"
    assert made.shape == wanted.shape and np.abs(made - wanted).max() <= 2 and wanted.std() > 20


@pytest.mark.slow
@pytest.mark.chromium
def test_another_size_and_direction_on_a_phone(visit):
    page = visit(390)
    assert fits(page) and page.is_visible("#camera")
    page.set_input_files("#photo", "large.png")
    first = result(page)[1]
    assert np.abs(first - by_command("large.png", 48)).max() <= 2
    larger = "The network was trained at this size. Enter a larger one for more pixels."
    assert page.inner_text("#facts").startswith("68 × 48 pixels, ") and page.inner_text("#facts").endswith(larger)
    page.fill("#size", "75")  # not a multiple of what the network needs
    page.click("#translate")
    page.wait_for_selector("#facts:has-text('106 × 75')")
    assert larger not in page.inner_text("#facts")
    assert np.abs(result(page)[1] - by_command("large.png", 75)).max() <= 2
    page.select_option("#direction", label="zebra → horse")
    page.wait_for_selector("#facts:has-text('68 × 48')")  # the trained size again
    other = result(page)[1]
    assert np.abs(other - by_command("large.png", 48, "BA")).max() <= 2 and np.abs(other - first).max() > 50
    assert fits(page)


@pytest.mark.slow
@pytest.mark.chromium
def test_any_file_name(visit, site):
    name = "a #1 100%?.onnx"
    shutil.copy("page/G_BA_3.onnx", f"page/{name}")
    site.changes["networks.json"] = lambda data: data.replace(b"G_AB_3.onnx", name.encode())
    page = visit()
    page.set_input_files("#file", "same size.png")
    assert np.abs(result(page)[1] - by_command("same size.png", 48, "BA")).max() <= 2


@pytest.mark.slow
@pytest.mark.chromium
def test_dropped_and_pasted_pictures_and_the_slider(visit, site):
    page = visit()
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        send = f"""bytes => {{
            const data = new DataTransfer();
            if (bytes) data.items.add(new File([new Uint8Array(bytes)], "{event}.png", {{ type: "image/png" }}));
            const event = new Event("{event}", {{ bubbles: true, cancelable: true }});
            Object.defineProperty(event, "{field}", {{ value: data }});
            document.body.dispatchEvent(event);
        }}"""
        page.evaluate(send, list(pathlib.Path("same size.png").read_bytes()))
        page.wait_for_selector(f"#hint:has-text('{event}.png')")
        name, made = result(page)
        assert name == f"{event}_translated.png" and np.abs(made - by_command("same size.png", 48)).max() <= 2
        page.evaluate(send, None)
        assert "picture" in page.inner_text("#error")
    page.focus("#slider")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("getComputedStyle(document.querySelector('#before')).clipPath") == "inset(0px 10% 0px 0px)"
    assert not page.is_visible("#right") and page.is_visible("#left")


@pytest.mark.slow
@pytest.mark.chromium
def test_what_cannot_be_done_is_one_sentence(visit, site):
    page = visit(390)

    def said():
        page.wait_for_selector("#error:not(:empty)")
        return page.inner_text("#error")

    upload = {"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.set_input_files("#file", upload)
    assert said() == "b.png: broken, or not a picture that this browser can read."
    whole = pathlib.Path("large.png").read_bytes()
    page.set_input_files("#file", upload | {"buffer": b""})
    assert said() == "b.png: broken, or not a picture that this browser can read."
    page.fill("#size", "-3")
    page.set_input_files("#file", "large.png")
    assert said() == "The size is a whole number of pixels, at least 1."
    page.fill("#size", "48")
    site.changes["G_AB_3.onnx"] = lambda data: data[:1000]
    page.click("#translate")
    assert said() == "The network could not be loaded from this server. Check the connection, and try again."
    site.changes["G_AB_3.onnx"] = lambda data: bytes(len(data))
    page.click("#translate")
    page.wait_for_selector("#error:has-text('in this browser')")
    assert said() == "The network cannot translate this picture in this browser."
    site.changes.clear()
    page.click("#translate")  # and now it can
    assert np.abs(result(page)[1] - by_command("large.png", 48)).max() <= 2 and len(whole) > 1000
    site.changes["networks.json"] = lambda data: json.dumps(json.loads(data) | {"runtimes": None}).encode()
    page = visit()
    page.set_input_files("#file", "large.png")
    assert said() == "This page is not complete: its runtime, onnxruntime-web, is missing."


@pytest.mark.slow
@pytest.mark.chromium
def test_too_large_a_size_is_reduced_and_a_translation_can_be_stopped(visit, site):
    def with_little_memory(data):  # 100 x 100 pixels: MEMORY of a phone, or of a computer, for each of them
        facts = json.loads(data)
        for network in facts["networks"]:
            network["bytes_per_pixel"] = 0.75e9 / 10_000
        return json.dumps(facts).encode()

    site.changes["networks.json"] = with_little_memory
    page = visit(390)
    page.fill("#size", "400")
    page.set_input_files("#file", "large.png")
    made = result(page)[1]
    assert made.shape[0] * made.shape[1] <= 10_000 < (made.shape[0] + 1) * (made.shape[1] + 2)
    assert np.abs(made - by_command("large.png", made.shape[0])).max() <= 2
    assert "400 pixels would take too much memory here" in page.inner_text("#facts")
    site.changes.clear()
    page = visit()
    page.fill("#size", "1200")
    page.set_input_files("#file", "large.png")
    page.wait_for_selector("#status:has-text('Translating with WebAssembly')")
    page.click("#stop")
    assert page.inner_text("#status") == "" and page.is_enabled("#translate") and not page.is_visible("#result")
    page.fill("#size", "48")
    page.click("#translate")
    assert np.abs(result(page)[1] - by_command("large.png", 48)).max() <= 2


@pytest.mark.slow
@pytest.mark.chromium
def test_resizing_is_pillows(visit, site):
    """To the last bit, for every ratio."""
    page = visit()
    source = picture(97, 61, seed=7)
    source.save("page/source.png")
    for size in ((97, 61), (50, 61), (97, 200), (24, 15), (7, 5), (300, 33), (1, 1)):
        for channels, mode in ((3, "RGB"), (1, "L")):
            made = page.evaluate(
                """async ([width, height, channels]) => {
                    const { decode, read } = await import("/picture.js");
                    const bitmap = await decode(await (await fetch("/source.png")).blob());
                    return Array.from(read(bitmap, width, height, channels));
                }""",
                [*size, channels],
            )
            wanted = source.convert(mode).resize(size, Image.Resampling.BICUBIC)
            assert made == np.asarray(wanted).flatten().tolist(), (size, mode)
    for width, height, size in ((211, 150, 75), (150, 100, 33), (7, 5, 2), (5, 5, 2), (1000, 3, 1), (75, 50, 25)):
        code = "async (args) => { const m = await import('/picture.js'); return m.scaledSize(...args); }"
        assert tuple(page.evaluate(code, [width, height, size])) == make_resize(size)(width, height)


@pytest.mark.slow
@pytest.mark.chromium
def test_the_worker_can_ask_nobody_else(visit, site):
    """Because it inherits the policy of the page. Without it, this request would arrive."""
    other = Site(site.folder)
    try:
        page = visit()
        page.set_input_files("#file", "small.png")
        result(page)
        code = "url => fetch(url, { mode: 'no-cors' }).then(() => 'arrived', (error) => error.name)"
        (worker,) = page.workers
        assert worker.evaluate(code, site.url) == "arrived"
        assert worker.evaluate(code, other.url) == page.evaluate(code, other.url) == "TypeError"
    finally:
        other.server.shutdown()
        other.server.server_close()


@pytest.mark.slow
@pytest.mark.chromium
def test_on_webgpu(chromium, site):
    """With WebGPU in software, which is slow, so that the page does not use it by itself."""
    site.changes["gpu.js"] = lambda data: data.replace(b"isFallbackAdapter", b"no")
    flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
    with chromium(*flags) as browser, visiting(browser, site) as page:
        if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
            pytest.skip("this chromium has no WebGPU")
        page.set_input_files("#file", "same size.png")
        made = result(page)[1]
        assert "with WebGPU" in page.inner_text("#facts")
        assert np.abs(made - by_command("same size.png", 48)).max() <= 2
