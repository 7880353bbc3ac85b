"""The folders of a data set: subfolders, results among the data, odd layouts, shapes, ranges of values."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from helpers import ROOT
from PIL import Image

from datasets import ImageDataset, find_folder
from get_data.split import split_data_set
from inference.ranges import read_in_range, write_in_range
from media import folders, survey
from media.arrays import load_array
from media.folders import ImageFiles, evenly_spaced, pair_by_stem, stems
from media.targets import plan_jobs
from training.data import fixed_images
from utils import InputError
from variants.pairs import read_pairs

TINY = {"img_size": (32, 32), "load_size": (36, 36)}


def picture(path, size=(40, 40), colour=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    rng = np.random.default_rng(len(path))
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[:] = pixels if colour is None else colour
    Image.fromarray(pixels).save(path)
    return path


# ----- listing


def test_subfolders_are_searched_and_sorted_by_path(tmp_path):
    for name in ("b/2.png", "a.png", "b/1.png", "a/z/9.png", ".hidden/0.png", "__MACOSX/._1.png"):
        picture(f"{tmp_path}/{name}")
    os.symlink(tmp_path, tmp_path / "b/up")  # a circle
    os.symlink("loop.png", tmp_path / "loop.png")
    files = ImageFiles(str(tmp_path))
    assert [os.path.relpath(path, tmp_path) for path in files] == ["a.png", "a/z/9.png", "b/1.png", "b/2.png"]
    assert stems(files) == ["a", "a/z/9", "b/1", "b/2"]
    assert files.notes == [f"{tmp_path}: ignored 1 other file, such as loop.png"]


def test_a_flat_folder_is_in_the_order_of_names(tmp_path):
    for name in ("10.png", "2.png", "a.png", "B.png", "ä.png"):
        picture(f"{tmp_path}/{name}")
    assert [os.path.basename(path) for path in ImageFiles(str(tmp_path))] == [
        "10.png",
        "2.png",
        "B.png",
        "a.png",
        "ä.png",
    ]


def test_max_images_are_evenly_spaced(make_set):
    root = make_set(trainA=10, trainB=3)
    dataset = ImageDataset(root, max_images=4, **TINY)
    assert [os.path.basename(path) for path in dataset.A.files] == ["0.png", "2.png", "5.png", "7.png"]
    assert len(dataset.B) == 3 and dataset.notes == [f"{root}/trainA: --max_images takes 4 of the 10 images"]


def test_results_of_translate_are_no_data_unless_there_is_nothing_else(tmp_path):
    for name in ("0.png", "0_translated.png", "s/1_features.jpg", "my_translated.v2.png"):
        picture(f"{tmp_path}/{name}")
    files = ImageFiles(str(tmp_path))
    assert stems(files) == ["0", "my_translated.v2"]
    assert files.notes == [f"{tmp_path}: left out 2 results of translate.py, such as 0_translated.png"]
    os.remove(tmp_path / "0.png")
    os.remove(tmp_path / "my_translated.v2.png")
    assert len(ImageFiles(str(tmp_path))) == 2


def test_results_are_not_written_into_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("x/testA", "x/train/B/city", "x/val/A", "holiday"):
        picture(f"{folder}/0.png")
        plan = plan_jobs([f"{folder}/0.png"])
        if folder == "holiday":
            assert plan.jobs == [("holiday/0.png", "holiday/0_translated.png")] and not plan.notes
        else:
            assert plan.jobs == [(f"{folder}/0.png", "0_translated.png")]
            assert "0_translated.png, because x/" in plan.notes[0] and "folder of a data set" in plan.notes[0]
    assert plan_jobs(["x/testA/0.png"], features=True).jobs == [("x/testA/0.png", "0_features.png")]
    assert plan_jobs(["x/testA"]).jobs == [("x/testA/0.png", "x/testA_translated/0.png")]


def test_earlier_results_are_not_translated_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0.jpg", "0_translated.jpg", "alone_translated.jpg", "0_features.png"):
        picture(f"holiday/{name}")
    plan = plan_jobs(["holiday"])
    assert [source for source, _ in plan.jobs] == ["holiday/0.jpg", "holiday/alone_translated.jpg"]
    assert "left out 2 earlier results" in plan.notes[0]


# ----- pairs


def test_pairs_in_subfolders_have_the_same_path(tmp_path):
    for domain, names in {"A": ("x/0.png", "y/0.png"), "B": ("x/0.jpg", "y/0.png", "y/1.png")}.items():
        for name in names:
            picture(f"{tmp_path}/{domain}/{name}")
    A, B = (ImageFiles(f"{tmp_path}/{domain}") for domain in "AB")
    assert pair_by_stem(A, B) == {0: 0, 1: 1}
    with open(
        tmp_path / "pairs.txt", "w", encoding="utf-8-sig"
    ) as file:  # with a byte order mark, as Windows writes it
        file.write("x/0.png\ty/1\r\ny/0\tx/0.jpg\n")
    assert read_pairs(str(tmp_path / "pairs.txt"), A, B) == {0: 2, 1: 0}
    for line in ("0.png\t1.png", "z/0\tx/0"):  # not unique, unknown
        (tmp_path / "pairs.txt").write_text(line)
        with pytest.raises(InputError, match="line 1: .*does not name an image of A and one of B"):
            read_pairs(str(tmp_path / "pairs.txt"), A, B)


def test_a_pipe_or_a_huge_file_is_no_list_of_pairs(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    for path, message in ((str(tmp_path / "fifo"), "not a regular file"), ("/dev/zero", "not a regular file")):
        with pytest.raises(InputError, match=message):
            read_pairs(path, [], [])
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="has more than 256 MiB"):
        read_pairs(str(tmp_path / "huge"), [], [])


# ----- layouts


@pytest.mark.parametrize(
    "there, command",
    [
        (("A", "B"), "mv 'my set/A' 'my set/trainA' && mv 'my set/B' 'my set/trainB'"),
        (("horses", "zebras"), "mv 'my set/horses' 'my set/trainA' && mv 'my set/zebras' 'my set/trainB'"),
        (("TrainA", "train_b"), "TrainA"),
        (("trainA", "trainb"), "trainb"),
        (("Train/a", "Train/b"), "Train/a"),
        (("my set/trainA", "my set/trainB"), "mv 'my set/my set'/* 'my set'/"),
    ],
)
def test_other_layouts_are_named_with_the_command_that_puts_them_right(tmp_path, monkeypatch, there, command):
    monkeypatch.chdir(tmp_path)
    for name in there:
        picture(f"my set/{name}/0.png")
    with pytest.raises(InputError) as error:
        ImageDataset("my set", **TINY)
    message = str(error.value)
    assert "trainA, my set/trainB" in message and "my set/train/A" in message and "\n" not in message
    assert command in message
    subprocess.run(message.split("To put it right: ")[1], shell=True, check=True)
    assert len(ImageDataset("my set", **TINY)) == 1


def test_side_by_side_pictures_can_be_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("train", "val"):
        path = picture(f"facades/{folder}/1.png", (40, 80))
        pixels = np.array(Image.open(path))
    with pytest.raises(InputError, match="python -m get_data.split facades facades_split"):
        ImageDataset("facades", **TINY)
    assert split_data_set("facades", "facades_split") == 2
    assert np.array_equal(np.array(Image.open("facades_split/testA/1.png")), pixels[:, :40])
    assert np.array_equal(np.array(Image.open("facades_split/testB/1.png")), pixels[:, 40:])
    assert len(ImageDataset("facades_split", **TINY)) == 1
    for source in ("facades", "nothing"):
        with pytest.raises(InputError, match="already exists|no such folder"):
            split_data_set(source, "facades_split" if source == "facades" else "new")


def test_an_empty_folder_says_what_it_holds(tmp_path):
    os.makedirs(tmp_path / "trainA/texts")
    with pytest.raises(InputError, match=r"trainA: holds no images, nor do its subfolders \(it holds texts/\)"):
        ImageFiles(find_folder(str(tmp_path), "train", "A"))


# ----- shapes


def wide_set(make_set):
    """A disc in the middle of pictures of 40 x 80."""
    root = make_set(trainA=2, trainB=2, testA=1, testB=1)
    y, x = np.mgrid[:40, :80]
    disc = ((y - 19.5) ** 2 + (x - 39.5) ** 2 < 12**2)[..., None] * np.full(3, 255, np.uint8)
    for folder in ("trainA", "testA"):
        for name in os.listdir(f"{root}/{folder}"):
            Image.fromarray(disc).save(f"{root}/{folder}/{name}")
    return root


def extent(image):
    """Height and width of what is bright in (C, H, W)"""
    rows, columns = torch.where(image[0] > 0)
    return int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)


@pytest.mark.parametrize("cache", [True, False])
def test_keep_aspect_keeps_circles_round(make_set, cache):
    root = wide_set(make_set)
    squashed = ImageDataset(root, cache=cache, img_size=(32, 32), load_size=(32, 32), enlarge=True)
    assert extent(squashed[0]["A"])[0] > 1.7 * extent(squashed[0]["A"])[1]
    assert (
        "2 of 2 images are squashed to the crop's shape" in squashed.notes[0] and "--keep_aspect" in squashed.notes[0]
    )
    kept = ImageDataset(root, cache=cache, img_size=(32, 32), load_size=(32, 32), keep_aspect=True)
    assert not kept.notes and kept.A[0].shape == (32, 64, 3) and kept.B[0].shape == (32, 32, 3)
    height, width = extent(fixed_images(kept, root, "A", 1)[0])
    assert abs(height - width) <= 1 and 18 <= height <= 20
    assert {kept[epoch, 0]["A"].shape for epoch in range(3)} == {(3, 32, 32)}
    test = ImageDataset(root, "test", img_size=(32, 32), keep_aspect=True)
    assert abs(np.subtract(*extent(test[0]["A"]))) <= 1


def test_keep_aspect_covers_a_wide_crop_with_a_high_picture(make_set):
    root = make_set((80, 40), trainA=1, trainB=1)
    dataset = ImageDataset(root, img_size=(32, 64), load_size=(36, 72), enlarge=True, keep_aspect=True)
    assert dataset.A[0].shape == (144, 72, 3) and dataset[0]["A"].shape == (3, 32, 64)
    assert dataset.A.n_bytes() == 144 * 72 * 3


def test_square_pictures_are_the_same_with_keep_aspect_and_no_note(make_set):
    root = make_set((40, 40))
    one, other = (ImageDataset(root, keep_aspect=keep, **TINY) for keep in (False, True))
    assert not one.notes and torch.equal(one[0]["A"], other[0]["A"])


def test_without_flip_nothing_is_mirrored(make_set):
    root = make_set((32, 32), trainA=1, trainB=1)
    size = dict(img_size=(32, 32), load_size=(32, 32))
    plain, mirrored = ImageDataset(root, flip=False, **size), ImageDataset(root, **size)
    image = plain[0]["A"]
    assert all(torch.equal(plain[epoch, 0]["A"], image) for epoch in range(20))
    seen = [mirrored[epoch, 0]["A"] for epoch in range(20)]
    assert any(torch.equal(one, image.flip(2)) for one in seen) and any(torch.equal(one, image) for one in seen)


# ----- bad images


@pytest.mark.parametrize("cache", [True, False])
def test_all_bad_images_are_named(make_set, cache, capsys):
    root = make_set(trainA=6, trainB=2)
    for i in (1, 3, 4):
        open(f"{root}/trainA/{i}.png", "wb").write(b"no image")
    with pytest.raises(InputError) as error:
        ImageDataset(root, cache=cache, **TINY)
    message = str(error.value)
    assert "trainA/1.png: broken" in message and "3 of the 6 images" in message and "also 3.png, 4.png)" in message
    dataset = ImageDataset(root, cache=cache, skip_bad_images=True, **TINY)
    assert len(dataset.A) == 3 and all(f"{i}.png" in dataset.notes[0] for i in (1, 3, 4))
    assert f"reading {root}/trainA: 6 images" in capsys.readouterr().out


def test_reading_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(survey.time, "monotonic", iter(range(100)).__next__)
    counter = survey.Counter("data/x/trainA", 3)
    for i in range(3):
        counter.count(i + 1)
    counter.finish()
    assert capsys.readouterr().out.startswith("reading data/x/trainA: 3 images\n") and counter.progress
    monkeypatch.setenv("RANK", "1")
    survey.Counter("data/x/trainA", 3).count(1)
    assert capsys.readouterr().out == ""


# ----- ranges of values


def save_values(path, values):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    np.save(path, values) if path.endswith(".npy") else Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[[500], [8000], [4250], [9000]]], np.uint16), [0, 1, 0.5, 1]),
        (np.array([[[500], [8000], [-100], [4250]]], np.int16), [0, 1, 0, 0.5]),
        (np.array([[[500], [8000], [1e6], [4250]]], np.float32), [0, 1, 1, 0.5]),
    ],
)
def test_a_range_becomes_0_to_1(tmp_path, values, expected):
    np.save(tmp_path / "x.npy", values)
    loaded = load_array(str(tmp_path / "x.npy"), 1, value_range=(500, 8000))
    assert loaded.dtype == np.float32 and loaded.ravel() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.array([[[-1000], [3000]]], np.int16), "negative values, int16 from -1000 to 3000.*--range_A -1000 3000"),
        (np.array([[[-1.0], [1.0]]], np.float32), "negative values, float32 from -1 to 1.*--range_A -1 1"),
        (np.array([[[0.0], [255.0]]], np.float32), "float32 from 0 to 255.*--range_A 0 255"),
        (np.array([[[0.0], [np.nan]]], np.float32), "NaN cannot be used"),
    ],
)
def test_the_message_names_sign_and_range_and_not_broken(tmp_path, values, message):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=message) as error:
        load_array(str(tmp_path / "x.npy"), 1)
    assert "broken" not in str(error.value)


def test_a_note_if_16_bits_use_little_of_their_range(tmp_path):
    rng = np.random.default_rng(0)
    for domain, top in (("A", 8000), ("B", 60000)):
        values = rng.integers(500, top, (40, 40)).astype(np.uint16)
        values[0, :2] = 500, top
        save_values(f"{tmp_path}/train{domain}/0.png", values)
    dataset = ImageDataset(str(tmp_path), channels=1, **TINY)
    assert len(dataset.notes) == 1
    assert "trainA: values from 500 to 8000 are less than a quarter of 0 to 65535" in dataset.notes[0]
    assert ". --range_A 500 8000 uses" in dataset.notes[0]
    dataset = ImageDataset(str(tmp_path), channels=1, ranges=((500, 8000), (0, 30000)), **TINY)
    assert dataset.A.cache.min() < 0.1 and dataset.A.cache.max() > 0.9
    assert dataset.notes == [f"{tmp_path}/trainB: values from 500 to 60000; those outside of 0 to 30000 are clipped"]


@pytest.mark.parametrize("extension", ["tif", "npy"])
@pytest.mark.parametrize(
    "dtype, value_range",
    [("uint16", (500, 8000)), ("int16", (-1000, 2000)), ("float32", (-1, 1)), ("float32", (0, 255))],
)
def test_values_of_a_range_are_written_as_they_were_read(tmp_path, extension, dtype, value_range):
    low, high = value_range
    values = np.random.default_rng(0).uniform(low, high, (9, 7, 1)).astype(dtype)
    source, target = str(tmp_path / f"x.{extension}"), str(tmp_path / f"y.{extension}")
    if extension == "npy":
        np.save(source, values)
    else:
        tifffile.imwrite(source, values[..., 0])
    picture = read_in_range(source, 1, None, (value_range, value_range))
    assert write_in_range(target, "NPY" if extension == "npy" else "TIFF", picture, value_range) == []
    written = np.load(target) if extension == "npy" else tifffile.imread(target)
    assert written.dtype == dtype
    tolerance = 0 if dtype != "float32" else (high - low) / 65535
    assert np.abs(written.astype(float).ravel() - values.astype(float).ravel()).max() <= tolerance


def test_8_bit_images_can_have_a_range(make_set):
    root = make_set(trainA=1, trainB=1)
    plain, half = ImageDataset(root, **TINY), ImageDataset(root, ranges=((0, 127.5), None), **TINY)
    expected = (plain.A[0].float() / 127.5).clamp(max=1)
    assert half.A.is_float and not half.B.is_float and torch.allclose(half.A[0], expected, atol=1e-6)


def test_flat_folders_have_no_system_call_per_file(tmp_path, monkeypatch):
    picture(f"{tmp_path}/0.png")
    monkeypatch.setattr(folders.os, "stat", None)
    assert len(ImageFiles(str(tmp_path))) == 1


def test_split_says_how_it_is_used(tmp_path):
    run = subprocess.run([sys.executable, "-m", "get_data.split"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "usage: python -m get_data.split" in run.stderr


def test_evenly_spaced():
    hundred = list(range(100))
    chosen = evenly_spaced(hundred, 24, with_last=True)
    assert chosen[:2] == [0, 4] and chosen[-1] == 99 and len(chosen) == 24
    assert evenly_spaced([1, 2], 24, with_last=True) == evenly_spaced([1, 2], 24) == [1, 2]
    assert evenly_spaced(hundred, 4) == [0, 25, 50, 75] and evenly_spaced(hundred, 1, with_last=True) == [0]
    assert evenly_spaced([], 3) == evenly_spaced([], 3, with_last=True) == []
