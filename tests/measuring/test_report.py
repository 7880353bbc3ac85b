"""measuring/report.py: one HTML file, with what is known of a run and nothing from elsewhere."""

import base64
import html.parser
import io
import json
import os
import re
import shutil

import pytest
from helpers import SMALL
from PIL import Image

import cyclegan
from measuring import logs, report
from utils import InputError


class Page(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], []
        self.feed(open(path, encoding="utf-8").read())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.inside[-1:] not in (["script"], ["style"]) and data.strip():
            self.texts.append(data.strip())

    def pictures(self):
        """-> PIL images of all <img>"""
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        assert all(re.match("data:image/(jpeg|png);base64,", source) for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


@pytest.fixture
def run(make_set, tmp_path, monkeypatch):
    """A run of two epochs on 4 + 5 images, with sample grids -> function that writes a report and reads it."""
    make_set(size=(40, 40))
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--n_epochs", "2", "--sample_interval", "4"])

    def write(*words):
        report.main(["tiny", *words])
        return Page(words[words.index("--output") + 1] if "--output" in words else "images/tiny/report.html")

    return write


@pytest.mark.slow
def test_a_report(run, capsys):
    page = run()
    for words in ("data/tiny: 4 images of A, 5 of B", "32 × 32 pixels", "10", "No problem was found."):
        assert words in page.texts, words
    assert any("--ngf 4" in text for text in page.texts)
    n_grids = len([name for name in os.listdir("images/tiny") if name[:-4].isdecimal()])
    pictures = page.pictures()
    # 2 test images of each direction before and after, and the grids; the curves are text
    assert len(pictures) == 8 + n_grids
    assert (
        len([tag for tag, _ in page.tags if tag == "svg"]) == 7 and "discriminator and adversarial loss" in page.texts
    )
    assert "A → B: move the slider. On the left is the test image, on the right its translation." in page.texts
    assert page.texts[0] == "tiny: training report" and not any("A -> B" in text for text in page.texts)
    assert pictures[0].size == pictures[1].size == (32, 32)
    hidden = [a for tag, a in page.tags if tag == "img" and "data-step" in a and "hidden" in a]
    assert len(hidden) == n_grids - 1  # one is seen before anything is moved
    assert not any(
        a.get(name, "").startswith(("http", "//")) for _, a in page.tags for name in ("src", "href", "action")
    )
    assert "MB, opens in any browser" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_not_there_is_left_out_and_two_runs_are_side_by_side(run, monkeypatch, capsys):
    os.rename("saved_models/tiny/latest.pth", "latest.pth")
    os.remove("saved_models/tiny/options.json")
    os.makedirs("saved_models/other")
    with open("saved_models/other/log.jsonl", "w") as file:
        file.write(json.dumps({"step": 100, "loss_D": 0.1, "images_per_s": 10.0, "memory_gib": 1.5}) + "\n")
        file.write(json.dumps({"step": 100, "conditions": ["D too strong"], "tells": 1.0}) + "\n")
    page = run("other")
    out = capsys.readouterr().out
    assert "note: saved_models/tiny/options.json cannot be used" in out
    assert page.texts.count("There are no test images.") == 2
    assert "D too strong, at step 100" in page.texts
    assert "20 s" in page.texts or "0:20" in page.texts  # 2 * 100 images at 10 a second
    assert "1.5 GiB" in page.texts and page.texts.count("tiny") >= 5


@pytest.mark.slow
def test_the_results_of_evaluate(run):
    with open("saved_models/tiny/metrics.jsonl", "w") as file:
        more = {"size": [32, 48], "counts": {"testA": 3}, "missing": {"FID, KID": "x"}, "time": "2026-01-02T03:04:05"}
        file.write(json.dumps({"epoch": 2, "results": {"BA": {"cycle_l1": 77.0}}, "size": [64, 64]}) + "\n")
        for epoch, value in ((1, 20.0), (2, 12.5)):
            results = {"AB": {"cycle_l1": value, "unknown": 1.0}, "XX": {"cycle_l1": 0.0}}
            file.write(json.dumps({"epoch": epoch, "results": results} | more) + "\n")
        for more in (
            {"checkpoint": "saved_models/tiny/G_AB_2_int8.onnx"},
            {"data": "data/others"},
        ):  # of something else
            file.write(json.dumps({"epoch": 2, "results": {"AB": {"cycle_l1": 99.0}}} | more) + "\n")
        file.write('{"epoch": 3, "results": 7}\n{"epoch"\n')
    page = run()
    assert "cycle reconstruction, L1, of 255 (lower is better)" in page.texts
    assert "12.50" in page.texts and "20.00" not in page.texts and "77.00" not in page.texts  # at another size
    assert "epoch 2; 3 of testA; 48 × 32 pixels; 2026-01-02; not measured: FID, KID" in page.texts
    assert any("epoch     2" in text for text in page.texts)


@pytest.mark.slow
def test_what_a_file_says_is_text_and_no_page(run):
    script = "<script>alert(1)</script>"
    record = json.load(open("saved_models/tiny/options.json"))
    record["commands"], record["version"], record["data"]["folder"] = [script], script, script
    record["options"]["data_dir"] = script
    json.dump(record, open("saved_models/tiny/options.json", "w"))
    page = run()
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert script in page.texts


WHOLE_WORDS = """() => [...document.querySelectorAll('th')].filter((th) => {
    const words = document.createRange();
    words.selectNodeContents(th);
    const lines = new Set([...words.getClientRects()].map((box) => Math.round(box.top)));
    return th.innerText && lines.size > th.innerText.trim().split(/\\s+/).length;
}).map((th) => th.innerText)"""


@pytest.mark.slow
@pytest.mark.chromium
def test_no_word_of_a_heading_is_broken(run, browser):
    with open("saved_models/tiny/metrics.jsonl", "w") as file:
        file.write(json.dumps({"epoch": 2, "results": {"AB": {"cycle_l1": 12.0}, "BA": {"cycle_l1": 120.3}}}) + "\n")
    shutil.copytree("saved_models/tiny", "saved_models/other")
    for names, width in (([], 390), (["other"], 390), (["other"], 1280)):
        run(*names)
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme="dark")
        page.goto(f"file://{os.path.abspath('images/tiny/report.html')}")
        assert page.evaluate(WHOLE_WORDS) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        columns = page.evaluate(
            "getComputedStyle(document.querySelector('.curves')).gridTemplateColumns.split(' ').length"
        )
        assert columns == (1 if width == 390 else 3)
        page.close()


@pytest.mark.slow
def test_large_pictures_make_no_larger_file(run, monkeypatch):
    Image.effect_noise((1500, 1500), 100).convert("RGB").save("images/tiny/000001.png")
    monkeypatch.setattr(report, "LIMIT", 700_000)
    run()
    assert os.path.getsize("images/tiny/report.html") <= 700_000


@pytest.mark.parametrize("name, words", [("../x", "must be the name of a folder"), ("nothere", "no such file")])
def test_names_that_are_no_runs(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        report.main([name])
    assert os.listdir() == []


@pytest.mark.slow
def test_options_of_a_file_choose_no_folder_and_break_nothing(run, tmp_path, capsys):
    """A report shows test images, so options.json must not name a folder to take them from."""
    os.rename("data", "elsewhere")
    record = json.load(open("saved_models/tiny/options.json"))
    path = "saved_models/tiny/options.json"
    for name, value, words in (("data_dir", str(tmp_path / "elsewhere"), "which is outside of data"),
                               ("dataset_name", "../elsewhere/tiny", "is not the name of a folder"),
                               ("batch_size", "many", "damaged, its option batch_size is 'many'")):  # fmt: skip
        json.dump(record | {"options": record["options"] | {name: value}}, open(path, "w"))
        page = run()
        assert "There are no test images." in page.texts
        assert words in capsys.readouterr().out
    json.dump(record, open(path, "w"))
    assert len([a for tag, a in run("--data_dir", "elsewhere").tags if tag == "img" and "alt" in a]) >= 8
    json.dump(record | {"commands": 7}, open(path, "w"))
    assert "data/tiny: 4 images of A, 5 of B" in run().texts


@pytest.mark.slow
def test_a_report_at_the_end_of_a_training(make_set, tmp_path, monkeypatch):
    make_set(size=(40, 40))
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--n_epochs", "1"])
    assert not os.path.exists("images/tiny/report.html")
    cyclegan.main([*SMALL, "--n_epochs", "1", "--run_name", "other", "--report"])
    assert "data/tiny: 4 images of A, 5 of B" in Page("images/other/report.html").texts


def test_sample_grids_are_in_the_order_of_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("images/long")
    for name in ("999000", "1000000", "000500", "²"):
        Image.new("RGB", (8, 8)).save(f"images/long/{name}.png")
    with open("images/long/000700.png", "wb") as file:  # named, and left out
        file.write(open("images/long/000500.png", "rb").read()[:40])
    assert [step for step, _ in report.sample_grids("long")] == [500, 999000, 1000000]


def test_the_training_time_counts_all_images_of_a_step():
    """40 images of A, 20 of B; batches of 2, over which gradients are summed twice: 10 steps an epoch. At 8 images a second,
    a step of 8 images takes 1 s; with two processes, an epoch has 5 steps of 16 images, 2 s each."""
    run = {"options": {"batch_size": 2, "accumulate": 2, "n_epochs": 4}, "data": {"A": 40, "B": 20}}
    records = [{"step": step, "epoch": float((step - 1) // 10), "images_per_s": 8.0} for step in (1, 10, 20, 40)]
    assert logs.seconds_taken(run, records) == 40.0
    records = [{"step": step, "epoch": float((step - 1) // 5), "images_per_s": 8.0} for step in (1, 5, 10, 20)]
    assert logs.seconds_taken(run, records) == 40.0
    half_of_A = run | {"options": run["options"] | {"ratio_A": "0.5"}}  # 2 + 4 images
    records = [{"step": step, "epoch": float((step - 1) // 10), "images_per_s": 6.0} for step in (1, 10, 20, 40)]
    assert logs.seconds_taken(half_of_A, records) == 40.0
    assert logs.seconds_left(half_of_A, records[:3]) == 20.0
    nothing_known = {"options": {"ratio_A": ["x"], "batch_size": "many"}}
    assert (
        logs.seconds_taken(nothing_known, [{"step": 100, "images_per_s": 10.0}, {"step": 200, "images_per_s": 1e-300}])
        == 20
    )
