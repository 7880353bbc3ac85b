"""The pages of examples/: their commands run, in order, with tiny networks."""

import importlib
import os
import re
import shlex

import numpy as np
import pytest
from commands import EXAMPLES, anchors_of, blocks, commands_in, links_in, plain, read
from helpers import ROOT
from PIL import Image

import cyclegan
from benchmarks import few_images
from get_data import demo as demo_data
from get_data import embedded, pairs

# A command of a page runs with these options added; the last of two equal options counts
NETWORK = "--ngf 4 --ndf 4 --n_residual_blocks 1 --n_iters 1 --max_images 4 --device cpu --no-amp --sample_interval 0"
TINY = {
    "cyclegan.py": f"{NETWORK} --enlarge",
    "evaluate.py": "--n_cpu 0 --device cpu",
    "translate.py": "--device cpu",
    "examples.low_dose": "--size 64 --views 8",
    "examples.errors": "--device cpu",
    "examples.clip": "--seconds 0.2",
    "measuring.attribution": "--square 32",
}


def fenced(page):
    """The commands in the fenced blocks of a page, in order"""
    return [plain(line) for block in blocks(read(page)) for line in block.splitlines() if line.startswith("python")]


def words_of(command):
    """'python -m examples.clip x.mp4' -> ('examples.clip', ['x.mp4'])"""
    words = shlex.split(command)[1:]
    words = words[1:] if words[0] == "-m" else words
    return words[0], words[1:]


@pytest.fixture
def workplace(tmp_path, monkeypatch, no_downloads):
    """What the pages take for granted: a photo, a mask, slices, and the data sets that would be downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_data, "N_TRAIN", 4)
    monkeypatch.setattr(demo_data, "N_TEST", 2)
    monkeypatch.setattr(pairs, "MEASURES", {"L1": (pairs.l1, 1)})
    rng = np.random.default_rng(0)
    for name in ("monet2photo", "vangogh2photo"):
        for folder in ("trainA", "trainB", "testA", "testB"):
            os.makedirs(f"data/{name}/{folder}")
            for i in range(2):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(f"data/{name}/{folder}/{i}.png")
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save("photo.jpg")
    Image.new("L", (40, 40), 255).save("mask.png")
    os.makedirs("scans")
    for i in range(12):
        np.save(f"scans/{i}.npy", rng.integers(-1000, 800, (40, 40)).astype(np.int16))
    return tmp_path


def run(command, capsys):
    """Runs a command of a page at tiny size -> what it printed"""
    script, words = words_of(command)
    module = importlib.import_module(script.removesuffix(".py"))
    more = shlex.split(TINY[script])
    if script == "cyclegan.py" and "2photo" in command:
        more += ["--img_height", "32", "--img_width", "32"]
    capsys.readouterr()
    assert not module.main([*words, *more]), command
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES)
def test_commands_run(page, workplace, capsys):
    for command in fenced(page):
        script, words = words_of(command)
        if script == "benchmarks.few_images":  # tests/measuring/test_few_images.py runs it
            few_images.get_parser().parse_args(words)
            continue
        out = run(command, capsys)
        if "--output" in words:
            target = words[words.index("--output") + 1]
            assert os.path.isfile(target) or os.listdir(target), command
        if script == "cyclegan.py" and words and words[1] in embedded.SETS:
            assert "compared with the true counterparts: L1" in out
        if script == "translate.py" and "--smooth" in words:
            assert re.search(r"flicker, .*: input [\d.]+, translated [\d.]+, smoothed [\d.]+", out)
        if script == "examples.errors":
            assert "translated" in out and ("angle" in out) == ("landsat" in command)


def test_pages_have_what_they_promise():
    """A picture or a table, numbers, and what to change for one's own case."""
    assert len(EXAMPLES) == 8
    for page in EXAMPLES:
        text, headings = read(page), anchors_of(read(page))
        assert {"run-it", "the-numbers"} <= headings or page == "examples/seeing.md"
        assert [h for h in headings if h.startswith(("for-your-own", "your-own", "what-it-is-good"))], page
        assert fenced(page) and not re.search(r"[A-Z]+_(TIME|TABLE|READING|NUMBERS|TEXT)", text), page
        for command in commands_in(text):
            if words_of(command)[0] == "cyclegan.py":
                cyclegan.get_parser().parse_args(words_of(command)[1])
    assert "no medical device" in read("examples/ct.md") and "credit: NASA" in read("examples/earth.md")


def test_pictures_are_small_and_shown():
    shown = {os.path.normpath(f"examples/{link}") for page in EXAMPLES for link in links_in(read(page))}
    for name in os.listdir(f"{ROOT}/examples"):
        if name.endswith((".jpg", ".png")):
            assert f"examples/{name}" in shown and os.path.getsize(f"{ROOT}/examples/{name}") <= 150_000, name


def test_the_overview_lists_every_page():
    overview = read("docs/applications.md")
    assert {f"../{page}" for page in EXAMPLES} <= {*links_in(overview)}
