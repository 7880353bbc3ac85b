"""The data sets that come with the project: their archives, licences, presets and scores."""

import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image

import cyclegan
from get_data import embedded, pairs, prepare_dataset
from training import presets
from training.score import pairs_and_colours
from utils import InputError

SHA256 = {
    "icons": "71426cd05a5406ab36a427676d9eee0523d48e0c1a67b70b17b9ba523bfaa20a",
    "earth": "9984e76de2dd854523cce5a25037e467cb921c69bdecbcc3e923c0e659dfdaff",
    "landsat": "396ddf27b11543e7724ff501e416926713f93249381b334a484b71f0965f9ab9",
}
COUNTS = {
    "icons": dict(trainA=693, trainB=708, testA=85, testB=85),
    "earth": dict(trainA=361, trainB=330, testA=62, testB=62),
    "landsat": dict(trainA=100, trainB=100, testA=9, testB=9),
}
NOTICES = {  # what each licence asks to be kept, and the credit that NASA asks for
    "icons": ["MIT License", "Copyright (c) Microsoft Corporation", "Permission is hereby granted, free of charge"],
    "earth": ["Copyright (c) 2011 Jeffrey Whitaker", "Permission is hereby granted, free of charge", "Credit: NASA"],
    "landsat": ["Copyright 2016-2018 Edzer Pebesma", "Apache License", "Version 2.0, January 2004", "Changes:"],
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with all three sets, unpacked without a network."""
    folder = str(tmp_path_factory.mktemp("embedded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("uses the network"))
        for name in embedded.SETS:
            assert prepare_dataset(name, folder) == f"{folder}/{name}"
    assert sorted(os.listdir(folder)) == sorted(embedded.SETS)  # no lock and no part is left
    return folder


@pytest.mark.parametrize("name", embedded.SETS)
def test_archives_are_those_that_were_checked(name):
    path = f"{ROOT}/get_data/sets/{name}.zip"
    with open(path, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == SHA256[name]
    with open(f"{ROOT}/get_data/sets/{name}.txt", encoding="utf-8") as file:
        licence = file.read()
    assert all(notice in licence for notice in NOTICES[name])
    with zipfile.ZipFile(path) as archive:
        assert archive.read("LICENSE.txt").decode() == licence
        assert all(not entry.startswith("/") and ".." not in entry for entry in archive.namelist())
    assert os.path.getsize(path) < 2.5e6


@pytest.mark.parametrize("name", embedded.SETS)
def test_sets_are_complete_and_unpaired(name, data_dir):
    folders = {
        folder: {os.path.splitext(f)[0] for f in os.listdir(f"{data_dir}/{name}/{folder}")} for folder in COUNTS[name]
    }
    assert {folder: len(files) for folder, files in folders.items()} == COUNTS[name]
    assert sorted(os.listdir(f"{data_dir}/{name}")) == ["LICENSE.txt", "testA", "testB", "trainA", "trainB"]
    assert folders["testA"] == folders["testB"]
    assert not folders["trainA"] & folders["trainB"] and not folders["trainA"] & folders["testA"]
    if name != "landsat":
        for folder in COUNTS[name]:
            for file in os.listdir(f"{data_dir}/{name}/{folder}"):
                with Image.open(f"{data_dir}/{name}/{folder}/{file}") as image:
                    assert (image.size, image.mode) == ((64, 64), "RGB")


def test_landsat_tiles_are_parts_of_the_scene(data_dir):
    with zipfile.ZipFile(f"{ROOT}/get_data/sets/landsat.zip") as archive, archive.open("scene.npy") as file:
        scene = np.load(file)
    assert scene.shape == (6, 352, 349) and scene.dtype == np.uint8
    three = np.asarray(Image.open(f"{data_dir}/landsat/testA/142_026.png"))
    six = np.load(f"{data_dir}/landsat/testB/142_026.npy")
    assert np.array_equal(six, scene[:, 142:206, 26:90].transpose(1, 2, 0))
    assert np.array_equal(three, six[..., [2, 1, 0]])  # the bands 3 2 1: red, green, blue
    covered = {"A": np.zeros(scene.shape[1:], bool), "B": np.zeros(scene.shape[1:], bool)}
    for folder, row, column in embedded.tiles():
        if folder.startswith("train"):
            covered[folder[-1]][row : row + 64, column : column + 64] = True
    assert covered["A"].sum() == covered["B"].sum() == 4 * 116**2 and not (covered["A"] & covered["B"]).any()


def test_a_folder_of_the_user_is_kept(tmp_path, make_set, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make_set(name="icons")
    before = sorted(os.listdir(root))
    assert prepare_dataset("icons", "data") == "data/icons" and sorted(os.listdir(root)) == before
    opt, _ = cyclegan.get_options(["--dataset_name", "icons"])  # it is trained with the paper's options
    assert (opt.img_height, opt.ngf, opt.n_iters, opt.lambda_id) == (256, 64, None, 5.0)
    (tmp_path / "data/earth.zip").write_bytes(b"the user's")
    with pytest.raises(InputError, match="data/earth.zip: earth is also a data set that comes with the project"):
        prepare_dataset("earth", "data")
    assert (tmp_path / "data/earth.zip").read_bytes() == b"the user's" and not os.path.exists("data/earth")


@pytest.mark.parametrize("name", ["icons", "landsat"])
def test_a_damaged_archive_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "FOLDER", str(tmp_path))
    for content in (None, b"", b"version https://git-lfs.github.com/spec/v1"):  # missing, or a pointer
        if content is not None:
            (tmp_path / f"{name}.zip").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.zip: missing or damaged .*Get it again") as error:
            prepare_dataset(name, str(tmp_path / "data"))
        assert "\n" not in str(error.value) and os.listdir(tmp_path / "data") == []


def test_each_set_has_its_preset(data_dir):
    for name in embedded.SETS:
        for where in (data_dir, "nowhere"):  # unpacked, and not yet
            opt, _ = cyclegan.get_options(["--dataset_name", name, "--data_dir", where])
            expected = presets.OWN[name]
            assert {key: getattr(opt, key) for key in expected} == expected
        opt, _ = cyclegan.get_options(["--dataset_name", name, "--preset", "laptop"])
        assert opt.img_height == 128 and opt.channels_B is None
    opt, _ = cyclegan.get_options(["--dataset_name", "icons", "--ngf", "8"])
    assert (opt.ngf, opt.img_height) == (8, 64)


def test_the_score_of_known_answers(data_dir):
    """Translators that know the answer, and that return their input or one colour."""
    opt, _ = cyclegan.get_options(["--dataset_name", "earth", "--data_dir", data_dir])
    tests, colours = pairs_and_colours(opt, f"{data_dir}/earth")
    found = [(pair["A"], pair["B"]) for pair in tests]
    answers = {a.numpy().tobytes(): b for a, b in found}
    assert len(answers) == 62
    wanted = np.median(
        np.stack([np.asarray(Image.open(e.path)) for e in os.scandir(f"{data_dir}/earth/trainB")]), (0, 1, 2)
    )
    assert ((colours["B"] + 1) * 127.5).tolist() == pytest.approx(wanted.tolist(), abs=0.5)

    def one_colour(x):
        return colours["A"][None, :, None, None].expand_as(x)

    rows = pairs.score(lambda x: answers[x[0].numpy().tobytes()][None], one_colour, found, colours, torch.device("cpu"))
    assert rows["A->B"]["translated"] == {"L1": 0, "SSIM": pytest.approx(1), "PSNR": pytest.approx(100)}
    assert rows["B->A"]["translated"] == pytest.approx(rows["B->A"]["one colour"], abs=1e-3)
    a, b = (torch.stack(images) for images in zip(*found))
    l1 = (a - b).abs().mean().item() * 127.5
    assert rows["A->B"]["untranslated"]["L1"] == pytest.approx(l1, rel=1e-5)
    assert rows["A->B"]["untranslated"] == pytest.approx(rows["B->A"]["untranslated"])


@pytest.mark.slow
def test_a_training_ends_with_the_score_that_evaluate_measures(data_dir, tmp_path, monkeypatch, capsys, no_downloads):
    import evaluate

    monkeypatch.chdir(tmp_path)
    small = [
        "--data_dir",
        data_dir,
        "--ngf",
        "4",
        "--ndf",
        "4",
        "--n_iters",
        "2",
        "--max_images",
        "4",
        "--device",
        "cpu",
    ]
    for name in ("icons", "landsat"):
        cyclegan.main(["--dataset_name", name, *small])
        *_, first, second = capsys.readouterr().out.splitlines()
        evaluate.main(["--checkpoint", f"saved_models/{name}/latest.pth", "--data_dir", data_dir, "--paired", "--no-amp",
                       "--n_cpu", "0"])  # fmt: skip
        measured = json.loads(open(f"saved_models/{name}/metrics.jsonl").readlines()[-1])["results"]
        for line, direction, arrow in ((first, "AB", "A->B"), (second, "BA", "B->A")):
            assert line.split()[:2] == [arrow, "translated"]
            l1, ssim, psnr = map(float, line.split("translated ")[1].split("   ")[0].split(" | "))
            found = measured[direction]
            assert l1 == pytest.approx(found["paired_l1"], abs=0.06)
            assert ssim == pytest.approx(found["paired_ssim"], abs=0.0006)
            assert psnr == pytest.approx(found["paired_psnr"], abs=0.006)
            assert ("untranslated" in line) == (name == "icons") and "one colour" in line
        capsys.readouterr()


def test_other_data_sets_have_no_score(tmp_path, make_set, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_set(name="earth")
    cyclegan.main(["--dataset_name", "earth", "--img_height", "32", "--img_width", "32", "--ngf", "4", "--ndf", "4",
                   "--n_residual_blocks", "1", "--n_iters", "1", "--device", "cpu"])  # fmt: skip
    assert "true counterparts" not in capsys.readouterr().out
