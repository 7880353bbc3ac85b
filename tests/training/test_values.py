"""--range_A, --range_B and --keep_aspect while a training runs: losses on test images, sample grids, notes, help."""

import argparse
import json
import shlex

import numpy as np
import pytest
import torch
from helpers import SMALL, load_networks
from PIL import Image

import cyclegan
from datasets import ImageDataset
from media.survey import merged
from training.data import fixed_images
from training.options import as_typed, read_options

DEPTH, CT = (500, 8000), (-1000, 2000)
WORDS = ["--channels", "1", "--range_A", "500", "8000", "--range_B", "-1000", "2000", "--keep_aspect"]


@pytest.fixture
def depth_set(tmp_path, monkeypatch):
    """data/tiny: depth in mm (16 bits) and Hounsfield units (int16), all wider than high -> its folder"""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, n in (("trainA", 4), ("trainB", 4), ("testA", 3), ("testB", 3)):
        (tmp_path / "data/tiny" / folder).mkdir(parents=True)
        for i in range(n):
            values = rng.integers(*(DEPTH if folder[-1] == "A" else CT), (40, 70))
            if folder[-1] == "A":
                Image.fromarray(values.astype(np.uint16)).save(f"data/tiny/{folder}/{i}.png")
            else:
                np.save(f"data/tiny/{folder}/{i}.npy", values.astype(np.int16)[..., None])
    return "data/tiny"


def test_losses_on_test_images_see_what_the_training_sees(depth_set, capsys):
    cyclegan.main([*SMALL, *WORDS, "--n_epochs", "1", "--val_interval", "1"])
    (logged,) = [r for r in map(json.loads, open("saved_models/tiny/log.jsonl")) if "val_cycle" in r]
    G = load_networks("saved_models/tiny/latest.pth")
    test = ImageDataset(depth_set, "test", img_size=(32, 32), channels=1, ranges=(DEPTH, CT), keep_aspect=True)
    cycle = identity = 0
    with torch.no_grad():
        for i in range(3):
            a, b = test[i]["A"][None], test[i]["B"][None]
            assert a.std() > 0.3 and b.std() > 0.3  # the whole range, not a tenth of it
            cycle += ((G["BA"](G["AB"](a)) - a).abs().mean() + (G["AB"](G["BA"](b)) - b).abs().mean()) / 6
            identity += ((G["BA"](a) - a).abs().mean() + (G["AB"](b) - b).abs().mean()) / 6
    assert logged["val_cycle"] == pytest.approx(cycle.item(), rel=1e-4)
    assert logged["val_identity"] == pytest.approx(identity.item(), rel=1e-4)
    assert "note: --val_interval" not in capsys.readouterr().out


def test_sample_grids_see_what_the_training_sees(depth_set):
    options = dict(img_size=(32, 32), load_size=(36, 36), channels=1, ranges=(DEPTH, CT), keep_aspect=True)
    dataset, test = ImageDataset(depth_set, **options), ImageDataset(depth_set, "test", **options)
    for domain in "AB":
        shown = fixed_images(dataset, depth_set, domain, 3)
        assert torch.equal(shown, torch.stack([test[i][domain] for i in range(3)]))
    square = np.load(f"{depth_set}/testB/0.npy")[4:36, 19:51, 0]
    np.save(f"{depth_set}/testB/0.npy", square[..., None])
    shown = fixed_images(dataset, depth_set, "B", 1)[0, 0]
    assert torch.allclose(shown, torch.from_numpy((square + 1000) / 1500 - 1).float(), atol=1e-6)


def test_a_range_is_two_words_in_help_and_in_the_first_lines(capsys):
    parser = cyclegan.get_parser()
    with pytest.raises(SystemExit):
        parser.parse_args(["--help_all"])
    said = capsys.readouterr().out
    assert "--range_A LOW HIGH " in said and "--range_B LOW HIGH " in said and "[HIGH" not in said
    opt, _ = read_options(parser, [*SMALL, *WORDS, "--run_name", "tiny"])
    assert (opt.range_A, opt.range_B) == ("500 8000", "-1000 2000")
    typed = as_typed(opt, vars(parser.parse_args([])))
    assert "--range_A 500 8000" in typed and "--range_B -1000 2000" in typed
    again = parser.parse_args(shlex.split(typed), argparse.Namespace())
    assert (again.range_A, again.range_B) == (opt.range_A, opt.range_B)


@pytest.mark.parametrize("words", [["5"], ["5", "6", "7"], ["5", "x"], ["6", "5"]])
def test_a_range_that_is_none(words, capsys):
    with pytest.raises(SystemExit) as error:
        cyclegan.get_parser().parse_args(["--range_A", *words])
    assert error.value.code == 2 and capsys.readouterr().err


@pytest.mark.parametrize("folders", ["trainA trainB", "train/A train/B"])
def test_the_note_on_16_bits_names_the_option_of_its_domain(tmp_path, folders):
    for folder in folders.split():
        (tmp_path / folder).mkdir(parents=True)
        values = np.linspace(500, 8000, 1600).reshape(40, 40).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / folder / "0.png")
    notes = ImageDataset(str(tmp_path), img_size=(32, 32), load_size=(36, 36), channels=1).notes
    for letter, note in zip("AB", notes, strict=True):
        assert note.endswith(f". --range_{letter} 500 8000 uses the whole range")


def test_what_is_the_same_for_both_domains_is_said_once():
    assert merged(["x/trainA: ignored 1 file", "x/trainB: ignored 1 file", "n images", "x/trainB: other"]) == [
        "x/trainA and x/trainB: ignored 1 file", "n images", "x/trainB: other",
    ]  # fmt: skip
    squashed = ["x/trainA: 2 are squashed, such as a.png. --keep_aspect crops",
                "x/trainB: 1 is squashed, such as b.png. --keep_aspect crops"]  # fmt: skip
    assert merged(squashed) == ["x/trainA: 2 are squashed, such as a.png", squashed[1]]
    assert merged(squashed[:1]) == squashed[:1] and merged([]) == []


def test_a_training_says_equal_notes_once(make_set, tmp_path, monkeypatch, capsys):
    root = make_set((40, 80), trainA=2, trainB=2)
    monkeypatch.chdir(tmp_path)
    for domain in "AB":
        open(f"{root}/train{domain}/notes.txt", "w").close()
    cyclegan.main([*SMALL, "--n_epochs", "1"])
    said = capsys.readouterr().out
    assert "trainA and data/tiny/trainB: ignored 1 other file, such as notes.txt" in said
    assert said.count("ignored") == 1 and said.count("are squashed") == 2 and said.count("--keep_aspect keeps") == 1
