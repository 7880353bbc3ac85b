"""app.py: the page in a real browser, and what a hostile visitor gets."""

import concurrent.futures
import contextlib
import io
import json
import os
import re
import shutil
import struct
import sys
import time
import types
import zlib

import numpy as np
import pytest

import app
import translate
from utils import InputError

gradio = pytest.importorskip("gradio", reason="pip install gradio")
httpx = pytest.importorskip("httpx")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of other packages
SCRIPT = "<img src=x onerror=alert(1)>"


class Site:
    """The page on a port of this machine, and a client that speaks to it as its own script does."""

    def __init__(self, page, folder):
        self.page, self.folder, self.url = page, folder, page.local_url.rstrip("/")
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.numbers = {fn.name: number for number, fn in page.fns.items()}

    def get(self, path, **options):
        return self.client.get(path, **options)

    def upload(self, name, data):
        """-> what a call says of an uploaded file"""
        (path,) = self.client.post("/gradio_api/upload", files={"files": (name, data)}).json()
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def join(self, name, data, session):
        number = self.numbers[name] if isinstance(name, str) else name
        body = {"data": data, "fn_index": number, "session_hash": session, "event_data": None, "trigger_id": None}
        text = json.dumps(body)
        return self.client.post("/gradio_api/queue/join", content=text, headers={"content-type": "application/json"})

    def call(self, name, data, session=None):
        """-> (True, outputs), (False, error) or (HTTP status, text)"""
        session = session or os.urandom(5).hex()
        joined = self.join(name, data, session)
        if joined.status_code != 200:
            return joined.status_code, joined.text
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed":
                    output = message["output"]
                    return message["success"], output["data"] if message["success"] else output.get("error")
                if message.get("msg") in ("unexpected_error", "close_stream"):
                    return False, message.get("message")

    def translate(self, picture, painted=None, session=None, **changes):
        values = dict(run="tiny", checkpoint="latest", direction="AB", size=32, keep_size=False, strength=1, mix_run="",
                      mix_checkpoint=None, mix=0.5)  # fmt: skip
        return refusal(*self.call("picture", [picture, painted, *(values | changes).values()], session))


def refusal(ok, output):
    """An answer that leaves everything as it was, besides what it says -> (False, that); others as they are"""
    if ok is not True or 'class="failed"' not in output[2]:
        return ok, output
    assert all(output[i] == {"__type__": "update"} for i in (0, 1, 3))
    (text,) = re.fullmatch(r'<p class="failed" role="alert">(.*)</p>', output[2]).groups()
    return False, text


@pytest.fixture(scope="module")
def site(trained, tmp_path_factory):
    from page.serve import start

    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        opt = app.get_parser().parse_args(["--device", "cpu", "--max_upload", "2"])
        page = start(app.build_page, opt, app.choose_device("cpu"), str(folder))
        try:
            yield Site(page, folder)
        finally:
            page.close(verbose=False)


@pytest.fixture
def visit(browser, site):
    """visit(width) opens the page -> playwright's page; it may ask no other host, and its scripts may not fail."""
    with contextlib.ExitStack() as stack:
        problems = []

        def open_page(width=1280):
            page = stack.enter_context(contextlib.closing(browser.new_page(viewport={"width": width, "height": 900})))
            page.set_default_timeout(45_000)
            page.on("request", lambda r: r.url.startswith((site.url, "data:", "blob:")) or problems.append(r.url))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
            page.goto(site.url)
            page.wait_for_function("document.querySelector('#checkpoint input')?.value == 'latest'")
            return page

        yield open_page
        assert problems == []


def by_command(source, *options):
    name = f"expected{os.path.splitext(source)[1]}"
    words = ["--checkpoint", "saved_models/tiny/latest.pth", "--input", source, "--output", name, "--overwrite"]
    assert translate.main([*words, "--device", "cpu", *options]) == 0
    return open(name, "rb").read()


IN_VIEW = """() => {
    const image = document.querySelector('#result img'), said = document.querySelector('#said').getBoundingClientRect();
    const box = image?.getBoundingClientRect();
    return image?.complete && box.height > 50 && box.top >= 0 && said.height > 0 && said.bottom <= innerHeight + 1;
}"""


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


##############################
#   In a browser
##############################


@pytest.mark.chromium
def test_a_picture_goes_in_and_its_translation_comes_out(visit, site, tmp_path):
    page = visit(390)  # a phone
    assert fits(page) and page.input_value("#run input") == "tiny"
    page.set_input_files("#picture input[type=file]", "photo.jpg")
    page.wait_for_selector("#picture img")
    page.click("#go")
    page.wait_for_function("document.querySelector('#said').innerText.includes('Translated in')")
    page.wait_for_function(IN_VIEW)
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "result.jpg")
    assert download.value.suggested_filename == "photo_translated.jpg"
    assert open(tmp_path / "result.jpg", "rb").read() == by_command("photo.jpg", "--size", "32", "--keep_size")
    assert fits(page)
    handle = page.locator("#result [data-testid=slider]")
    handle.focus()
    before = handle.get_attribute("style")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "document.querySelector('#result [data-testid=slider]').style.cssText != " + json.dumps(before)
    )
    # a broken upload is one sentence
    page.click("#picture [aria-label='Remove Image']")
    page.set_input_files(
        "#picture input[type=file]", {"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.wait_for_timeout(500)
    page.click("#go")
    text = page.locator("[data-testid=toast-body]").inner_text()
    assert "b.png: broken, or not an image of a format that is read" in text
    assert "Traceback" not in text and str(site.folder) not in text
    assert page.inner_text("#said").strip() in text  # stays after the pop-up is gone
    assert page.locator("#result img").count() == 2 and page.inner_text("#download") == "Download photo_translated.jpg"
    assert page.get_by_text("Error", exact=True).count() <= 1  # the title of the pop-up
    button = page.locator("#download")
    button.evaluate("button => { button.textContent = 'Download ' + 'x'.repeat(80) + '_translated.jpg'; }")
    assert button.evaluate("button => button.scrollWidth <= button.clientWidth") and fits(page)


@pytest.mark.chromium
def test_a_run_that_is_training_is_watched(visit):
    os.makedirs(f"saved_models/{SCRIPT.replace('/', '')}", exist_ok=True)
    os.makedirs("saved_models/growing")

    def log(*steps, run="growing"):
        with open(f"saved_models/{run}/log.jsonl", "a") as file:
            for step in steps:
                record = {"step": step, "epoch": 0, "loss_D": 0.2, "images_per_s": 0.5}
                file.write(json.dumps(record) + "\n")

    log(1, 10, run=SCRIPT)
    time.sleep(0.02)
    log(1, 10, 20)
    with open("saved_models/growing/options.json", "w") as file:
        options = {"n_epochs": 2, "batch_size": 1, "img_height": 32, "img_width": 32}
        json.dump({"options": options, "data": {"A": 100, "B": 60}}, file)
    try:
        page = visit(390)
        page.get_by_role("tab", name="Watch").click()
        page.wait_for_function("document.querySelector('#status').innerText.includes('step 20 of 200')")
        assert page.inner_text("#status").startswith("growing: training, step 20 of 200, about 12 minutes left")
        curve = page.locator("#plots polyline").first
        assert len(curve.get_attribute("points").split()) == 3
        log(30, 40)
        page.wait_for_function("document.querySelector('#status').innerText.includes('step 40 of 200')")
        page.wait_for_function(
            "document.querySelector('#plots polyline').getAttribute('points').split(' ').length == 5"
        )
        assert fits(page)
        for name in (SCRIPT, "tiny"):  # the name of a run is text
            page.click("#watched input")
            page.get_by_role("option", name=name).click()
            page.wait_for_function(f"document.querySelector('#status').innerText.startsWith({json.dumps(name)})")
        page.wait_for_selector("#grid img")
        page.wait_for_function("document.querySelector('#at').innerText.includes('Sample grid of step 10')")
        assert page.locator("#at").inner_text().split() == "Sample grid of step 10".split()  # no positions
        assert not page.locator("#at input[type=number]").is_visible()
        labels = page.locator("#grid label").evaluate_all("all => all.map((label) => label.offsetWidth)")
        assert all(width <= 1 for width in labels)  # for screen readers only
        slider = page.locator("#at input[type=range]")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("document.querySelector('#at').innerText.includes('Sample grid of step 8')")
        assert slider.evaluate("input => getComputedStyle(input).outlineStyle") == "solid"
        assert "health at step 10" in page.inner_text("#health")
    finally:
        for name in ("growing", SCRIPT):
            shutil.rmtree(f"saved_models/{name}")


@pytest.mark.chromium
def test_one_picture_through_every_checkpoint(visit):
    page = visit(390)
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("document.querySelector('#first input')?.value == 'tiny'")
    page.set_input_files("#one input[type=file]", "photo.jpg")
    page.wait_for_selector("#one img")
    page.click("#compare")
    page.wait_for_function("document.querySelector('#told').innerText.startsWith('2 translations')")
    page.wait_for_function("document.querySelectorAll('#left .thumbnail-item').length == 3")
    captions = page.locator("#left .caption-label").all_inner_texts()
    assert [caption.strip() for caption in captions] == ["the picture", "epoch 1", "epoch 2"] and fits(page)


##############################
#   A hostile visitor
##############################


def png(width, height):
    """A PNG that claims to have this size, and is small"""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(1000))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def photo(site):
    return site.upload("photo.jpg", open("photo.jpg", "rb").read())


def test_a_call_as_the_page_makes_it(site, photo):
    ok, (_, _, text, download) = site.translate(photo)
    assert ok and "Translated" in json.dumps(text)
    got = site.get(f"/gradio_api/file={download['value']['path']}")
    assert got.content == by_command("photo.jpg", "--size", "32")
    assert "default-src 'self'" in got.headers["content-security-policy"]


def test_files_that_are_not_served(site, photo, trained):
    inside = os.path.dirname(photo["path"])
    paths = ["/etc/passwd", "saved_models/tiny/latest.pth", f"{trained}/saved_models/tiny/options.json",
             f"{inside}/../../../../../../etc/passwd", f"{inside}/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "https://example.com/",
             "http://127.0.0.1/", "file:///etc/passwd"]  # fmt: skip
    for path in paths:
        for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/proxy="):
            got = site.get(prefix + path)
            assert got.status_code in (403, 404) and "root:" not in got.text, path
    for path in (
        "/gradio_api/deep_link?session_hash=x",
        "/monitoring",
        "/gradio_api/info",
        "/gradio_api/run-history/buckets",
    ):
        assert site.get(path).status_code == 404
    for path in ("/gradio_api/run/picture", "/gradio_api/call/picture", "/gradio_api/process_recording"):
        assert site.client.post(path, json={"data": []}).status_code == 404
    assert site.get("/", headers={"host": "evil.example"}).status_code == 403


def test_uploads_that_are_none(site, photo, trained):
    for path in ("/etc/passwd", f"{trained}/saved_models/tiny/options.json", "https://example.com/x.png", "../x.png",
                 None, 7, {"path": "/etc/passwd"}):  # fmt: skip
        assert site.translate(photo | {"path": path})[0] == 400, path
    missing = photo | {"path": os.path.join(site.folder, "missing.png")}
    for what in (missing, "photo.jpg", 5, [photo], {}, None):
        assert site.translate(what)[0] is False, what
    # the address of an upload is not looked at
    assert site.translate(photo | {"url": "http://169.254.169.254/latest/meta-data"})[0] is True
    escaping = site.upload("../../../../escaped.png", b"x")
    assert os.path.realpath(escaping["path"]).startswith(os.path.realpath(site.folder))


@pytest.mark.parametrize("change", [
    {"run": "../.."}, {"run": "saved_models/../saved_models/tiny"}, {"run": {"a": 1}}, {"run": ["tiny"]}, {"run": None},
    {"checkpoint": "../../../etc/passwd"}, {"checkpoint": "latest.pth"}, {"direction": "XX"}, {"direction": None},
    {"size": -5}, {"size": 10**9}, {"size": "32"}, {"size": 1e-3}, {"strength": float("nan")}, {"strength": -1},
    {"mix_run": "/etc", "mix_checkpoint": "passwd"}, {"mix_run": "tiny", "mix": "x"}, {"run": SCRIPT},
], ids=str)  # fmt: skip
def test_values_that_are_refused_in_a_sentence(site, photo, trained, change):
    ok, error = site.translate(photo, **change)
    if "strength" in change and ok == 422:  # JSON has no NaN
        return
    assert ok is False and error and "\n" not in error and "<" not in error, error
    assert str(trained) not in error and str(site.folder) not in error


UPLOADS = {
    "text": ("a.png", b"not a picture", "a.png: broken"),
    "empty": ("a.png", b"", "a.png: is empty"),
    "bomb": ("a.png", png(60_000, 60_000), "more than the limit of"),
    "truncated": ("a.png", png(64, 64), "a.png: broken"),
    "program": ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "a program and not an image"),
    "svg": (
        "a.svg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "a.svg: broken",
    ),
    "script in the name": (SCRIPT + ".png", b"x", "broken"),
    "playlist": ("a.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.mp4"),
}


@pytest.mark.parametrize("case", UPLOADS)
def test_broken_uploads_are_one_sentence(site, case):
    name, data, words = UPLOADS[case]
    ok, error = site.translate(site.upload(name, data))
    assert ok is False and words in error, error
    assert "<" not in error and "\n" not in error and str(site.folder) not in error


def test_large_uploads_and_calls(site):
    assert site.get("/config").json()["max_file_size"] == 2 * 2**20  # browsers are told 2 MB, as Gradio counts them
    assert site.client.post("/gradio_api/upload", files={"files": ("a.png", bytes(3_000_000))}).status_code == 413
    assert site.join("picture", ["x" * 3_000_000], "abc").status_code == 413


def test_unknown_functions_and_too_few_values(site, photo):
    for number, data in ((9999, []), (-1, []), (site.numbers["picture"], [photo]), (site.numbers["grid"], None)):
        assert site.call(number, data)[0] == 400
    for at in (-1, 1e300, "x", None):
        assert site.call("grid", ["tiny", at])[0] is False
    assert site.call("grid", ["../tiny", 0])[0] is False
    for name in ({"a": 1}, "../tiny", SCRIPT):
        ok, (before, status, *_) = site.call("watch", [name, None, 0])
        assert ok and before is None and "there is no such run" in status and "<img" not in status


@pytest.mark.parametrize("message, said", [
    ("a.png: more than the limit of 9 pixels. If you trust the file, raise the limit with --max_pixels of translate.py. "
     "To train on it, make it smaller; a JPEG can also be translated with --size", "a.png: more than the limit of 9 pixels"),
    ("a.jpg: broken, or not an image (OSError: truncated). translate.py --allow_truncated takes what can be decoded",
     "a.jpg: broken, or not an image (OSError: truncated)"),
    ("a.png: out of memory. Try a smaller --tile, --batch_size or --size", "a.png: out of memory. Try a smaller size"),
    ("the painted mask: is broken. Clear it and paint again", "the painted mask: is broken. Clear it and paint again"),
    ("a--b. c.png: is empty", "a--b. c.png: is empty"),
])  # fmt: skip
def test_a_visitor_is_not_sent_to_the_command_line(message, said):
    from page.messages import in_words

    assert in_words(InputError(message)) == said


def test_a_comparison_that_cannot_be_made_leaves_the_earlier_one(site, photo):
    for values, words in (([None, "tiny", "", "AB", 32, False], "there is no picture yet"),
                          ([photo, "tiny", "", "AB", -1, False], "size -1: is not a number from 0 to 4096")):  # fmt: skip
        ok, (left, right, text) = site.call("compare", values)
        assert ok and f'<p class="failed" role="alert">{words}' in text, text
        assert left == right == {"__type__": "update"}


def test_masks_of_a_visitor(site, photo):
    for painted in ({"layers": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "background": None},):
        assert site.translate(photo, painted)[0] == 400
    eps = site.upload("layer.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    ok, error = site.translate(photo, {"background": None, "layers": [eps], "composite": None, "id": None})
    assert ok is False and "the painted mask" in error
    unknown = {"background": None, "layers": [], "composite": None, "id": "nothing"}
    assert site.translate(photo, unknown)[0] is True  # nothing was painted


def test_ten_at_once_wait_for_each_other(site, photo):
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda i: site.translate(photo, strength=i / 10), range(10)))
    assert all(ok is True for ok, _ in results)
    paths = [output[3]["value"]["path"] for _, output in results]
    contents = [site.get(f"/gradio_api/file={path}").content for path in paths]
    assert len(set(contents)) == 10  # nobody gets the picture of another
    assert contents[3] == by_command("photo.jpg", "--size", "32", "--strength", "0.3")


##############################
#   The command
##############################


def test_what_a_host_or_a_link_exposes_is_said():
    from page.serve import exposure

    def lines(*words):
        return " ".join(exposure(app.get_parser().parse_args(words)))

    assert lines() == lines("--host", "localhost") == ""
    assert "everyone who can reach this machine" in lines("--host", "0.0.0.0")
    assert "everyone who has the link" in lines("--share") and "saved_models" in lines("--share")


def test_checkpoints_of_the_command_line_are_checked_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such checkpoint"):
        app.main(["--checkpoint", "missing.pth"])


def test_without_gradio_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match="pip install gradio"):
        app.main([])


def test_without_a_run_it_says_how_to_make_one(tmp_path, monkeypatch):
    from page.handlers import Handlers
    from page.models_found import Models
    from page.translate import Translators
    from page.watch_handlers import WatchHandlers

    monkeypatch.chdir(tmp_path)
    do = Handlers(Translators(Models(), app.choose_device("cpu")), tmp_path)
    _, hint = do.translators_listed()
    assert "python cyclegan.py" in hint.value and hint.visible
    assert "python cyclegan.py" in WatchHandlers(do.models).watch(None, None, 0)[1]


def clip_of(n):
    """-> bytes of an .mp4 file of n frames of 32 x 32 pixels"""
    av = pytest.importorskip("av")
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * i % 256, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return data.getvalue()


@pytest.mark.chromium
def test_a_stopped_video_says_how_far_it_came(visit):
    page = visit()
    page.get_by_role("tab", name="Video or other file").click()
    page.set_input_files("#clip input[type=file]", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": clip_of(400)})
    page.wait_for_selector("#clip :text('a.mp4')")
    page.get_by_label("Size: the shorter side").first.fill("512")
    page.click("#go_clip")
    page.get_by_text(re.compile(r"[1-9]\d*/400")).first.wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_function("document.querySelector('#said').innerText.startsWith('Stopped')")
    assert re.fullmatch(r"Stopped after [1-9]\d* of 400 frames\.", page.inner_text("#said").strip())
    page.wait_for_timeout(1500)
    assert page.get_by_text(re.compile("/400")).count() == 0 and page.get_by_text("Error", exact=True).count() == 0


def test_stopping_a_video(site):
    clip = site.upload("clip.mp4", clip_of(9))
    values = ["tiny", "latest", "AB", 0, False, 1, "", None, 0.5]
    ok, (_, video, text, download) = site.call("clip", [clip, 0, *values])
    assert ok and download["label"] == "Download clip_translated.mp4" and "9 frames" in json.dumps(text)
    assert refusal(*site.call("clip", [clip, 2, *values])) == (False, "smooth 2: is not a number from 0 to 1")
    do = site.page.fns[site.numbers["clip"]].fn.__self__
    request = types.SimpleNamespace(session_hash="s")

    said = []

    def progress(*_, unit=None, **__):
        if unit == "frames":  # after the first ones
            said.append(do.stop(request))

    assert "stopped" in do.clip(clip, 0, *values, progress=progress, request=request)[2]
    (n,) = re.fullmatch("<p>Stopped after ([1-8]) of 9 frames.</p>", said[0]).groups()
    assert len(said) == 1 and do.stop(request) == "<p>Stopped.</p>"  # nothing is translated any longer


def test_a_thousand_other_sessions_do_not_undo_a_stop(site):
    do = site.page.fns[site.numbers["clip"]].fn.__self__
    for i in range(2000):
        do.stop(types.SimpleNamespace(session_hash=f"other {i}"))
        do.stop(types.SimpleNamespace(session_hash="mine")) if i == 1001 else None
        assert i < 1001 or "mine" in do.stopped
    assert len(do.stopped) == 1000


def test_a_damaged_grid_or_a_missing_run_is_said_once_and_shown_in_the_page(tmp_path, monkeypatch):
    """An error would come up again with each look, every three seconds, and nothing would be shown."""
    from page.models_found import Models
    from page.watch_handlers import WatchHandlers

    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models/a")
    with open("saved_models/a/log.jsonl", "w") as file:
        file.writelines(json.dumps({"step": step, "epoch": 0, "loss_D": 0.2}) + "\n" for step in (1, 20))
    os.makedirs("images/a")
    with open("images/a/000250.png", "w") as file:
        file.write("not a picture")
    do = WatchHandlers(Models())
    before, status, plots, health, slider, grid = do.watch("a", None, 0)
    assert before[4] == 1 and "a: training, step 20" in status and "<svg" in plots
    assert "images/a/000250.png: broken" in health and not grid.visible
    os.utime("saved_models/a/log.jsonl", (1000, 1000))
    before = do.watch("a", None, 0)[0]
    assert all(value == {"__type__": "update"} for value in do.watch("a", before, 0))  # nothing is new
    os.rename("saved_models/a", "saved_models/b")
    before, status, plots, health, slider, grid = do.watch("a", before, 0)
    assert before is None and "&#x27;a&#x27;: there is no such run" in status and plots == health == ""
    assert not slider.visible and not grid.visible
