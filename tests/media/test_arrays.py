"""More channels, more bits: TIFF and .npy, from the folder to the translated file."""

import os
import sys

import numpy as np
import pytest
import tifffile
import torch
from helpers import SMALL, assert_same, load, load_networks
from PIL import Image

import cyclegan
import evaluate
import translate
from datasets import ImageDataset
from media.arrays import load_array
from utils import InputError

RNG = np.random.default_rng(0)


def array(channels, size=(40, 44), dtype=np.uint16):
    top = np.iinfo(dtype).max + 1 if np.dtype(dtype).kind == "u" else 1
    values = RNG.random((*size, channels)) * top
    return values.astype(dtype)


def write(path, values):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    if path.endswith(".npy"):
        np.save(path, values)
    elif path.endswith(".tif"):
        kind = "rgb" if values.shape[2] == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=kind, planarconfig="contig" if 1 < values.shape[2] < 9 else None)
    else:
        Image.fromarray(values.squeeze()).save(path)


@pytest.fixture
def spectral(tmp_path, monkeypatch):
    """data/tiny: A of 4 channels and 16 bits as TIFF, B of RGB as PNG -> train(option, ...)"""
    monkeypatch.chdir(tmp_path)
    for part, n in (("train", 4), ("test", 2)):
        for i in range(n):
            write(f"data/tiny/{part}A/{i}.tif", array(4))
            write(f"data/tiny/{part}B/{i}.png", array(3, dtype=np.uint8))
    return lambda *options: cyclegan.main([*SMALL, "--channels_A", "4", "--channels_B", "3", *options])


# ----- one image


@pytest.mark.parametrize("extension", [".npy", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_values_keep_their_digits(tmp_path, extension, dtype):
    if extension == ".tif" and dtype == np.float64:
        pytest.skip("not usual")
    values, path = array(5, dtype=dtype), str(tmp_path / ("x" + extension))
    write(path, values)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    loaded = load_array(path, 5)
    assert loaded.dtype == np.float32 and loaded.shape == (40, 44, 5)
    np.testing.assert_allclose(loaded, values / top, atol=1e-7)
    write(path, np.moveaxis(values, 2, 0))  # channels first
    np.testing.assert_allclose(load_array(path, 5), values / top, atol=1e-7)
    half = load_array(path, 5, (20, 22))
    assert half.shape == (20, 22, 5) and abs(half.mean() - loaded.mean()) < 0.02 and 0 <= half.min() and half.max() <= 1


def test_gray_of_16_bits_is_trained_with_all_of_them(tmp_path):
    values = array(1) // 64 + 30000  # in 8 bits that would be 5 gray levels
    for domain in "AB":
        write(str(tmp_path / f"train{domain}/0.png"), values)
    item = ImageDataset(str(tmp_path), channels=1, img_size=(32, 36), load_size=(40, 44))[0]["A"]
    assert item.dtype == torch.float32 and len(item.unique()) > 500
    expected = set(np.float32(values.ravel() / np.float32(65535) * 2 - 1).round(5))
    assert set(item.numpy().ravel().round(5)) <= expected
    coloured = ImageDataset(str(tmp_path), channels=3, img_size=(32, 36), load_size=(40, 44))[0]["A"]
    assert coloured.shape[0] == 3 and len(coloured.unique()) > 500


def test_rgb_tiffs_of_16_bits(tmp_path):
    values = array(3)
    for domain in "AB":
        write(str(tmp_path / f"train{domain}/0.tif"), values)
    item = ImageDataset(str(tmp_path), img_size=(40, 44), load_size=(40, 44))[0]["A"]
    assert item.shape == (3, 40, 44) and len(item.unique()) > 3000


def test_integers_by_the_largest_that_they_hold(tmp_path):
    for dtype, top in ((np.int8, 127), (np.int16, 32767), (np.int32, 65535), (np.int64, 65535), (np.uint32, 65535)):
        np.save(tmp_path / "x.npy", np.full((4, 4, 2), top // 3, dtype))
        assert load_array(str(tmp_path / "x.npy"), 2).mean() == pytest.approx(1 / 3, abs=0.01)
    np.save(tmp_path / "x.npy", np.full((4, 4, 2), 70000))
    with pytest.raises(InputError, match="int64 from 70000 to 70000"):
        load_array(str(tmp_path / "x.npy"), 2)


def test_other_kinds_of_files_among_deep_ones(tmp_path):
    """The first file says that the folder is read with all digits; 8 bits, palettes and colours are still read."""
    for domain in "AB":
        write(str(tmp_path / f"train{domain}/0.png"), array(1))
        palette = Image.new("RGB", (44, 40), (200, 200, 200))
        palette.quantize(4).save(tmp_path / f"train{domain}/1.png")
        palette.save(tmp_path / f"train{domain}/2.png")
    for cache in (True, False):
        dataset = ImageDataset(str(tmp_path), channels=1, img_size=(32, 36), load_size=(40, 44), cache=cache)
        for i in (1, 2):
            assert dataset[i]["A"].mean().item() == pytest.approx(200 / 127.5 - 1, abs=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gray_floats_are_translated_with_all_digits(tmp_path, monkeypatch, make_generator, dtype):
    monkeypatch.chdir(tmp_path)
    make_generator("G_AB_1.pth", channels=1)
    values = (0.4 + 0.01 * RNG.random((40, 44, 1))).astype(dtype)
    write("x.tif", values)
    arguments = ["--checkpoint", "G_AB_1.pth", "--input", "x.tif", "--device", "cpu", "--no-amp", "--strength", "0"]
    assert translate.main(arguments) == 0
    np.testing.assert_allclose(load_array("x_translated.tif", 1), values, atol=2e-5)


def test_features_of_arrays_are_pictures(spectral, capsys):
    spectral("--n_epochs", "1")
    arguments = ["--checkpoint", "saved_models/tiny/latest.pth", "--device", "cpu", "--features"]
    np.save("x.npy", array(4))
    assert translate.main([*arguments, "--input", "x.npy"]) == 0 and Image.open("x_features.png").width == 1024
    os.makedirs("many")
    np.save("many/y.npy", array(4))
    assert translate.main([*arguments, "--input", "many"]) == 0 and os.path.exists("many_features/y.png")
    with pytest.raises(InputError, match="--features: writes an image, not .npy"):
        translate.main([*arguments, "--input", "x.npy", "--output", "z.npy"])


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("n_cpu", [0, 1])
def test_samples_are_the_same_from_cache_and_file(spectral, cache, n_cpu):
    dataset = ImageDataset("data/tiny", channels=(4, 3), img_size=(32, 32), load_size=(36, 36), cache=cache)
    loader = torch.utils.data.DataLoader(dataset, num_workers=n_cpu)
    samples = [torch.cat([batch[d].flatten() for batch in loader]) for d in "AB"]
    plain = ImageDataset("data/tiny", channels=(4, 3), img_size=(32, 32), load_size=(36, 36), cache=False)
    for domain, values in zip("AB", samples):
        assert torch.equal(values, torch.cat([plain[i][domain].flatten() for i in range(4)]))
    assert samples[0].min() >= -1 and samples[0].max() <= 1


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros((40, 40, 3), np.uint16), "shape is 40 x 40 x 3, expected height x width x 4"),
        (np.zeros((40, 40), np.uint16), "expected height x width x 4"),
        (np.zeros((2, 40, 40, 4), np.uint16), "shape is 2 x 40 x 40 x 4"),
        (np.zeros((0, 40, 4), np.uint16), "shape is 0 x 40 x 4"),
        (
            np.full((40, 40, 4), 1.5, np.float32),
            "float32 from 1.5 to 1.5; expected 8 or 16 bits, or floats from 0 to 1",
        ),
        (np.full((40, 40, 4), np.nan, np.float32), "expected 8 or 16 bits"),
        (np.full((40, 40, 4), -3, np.int16), "int16 from -3 to -3"),
        (np.full((40, 40, 4), 1j), "complex128"),
        (np.array(["a"]), "shape is 1"),
        (np.array([{}]), "Object arrays cannot be loaded"),
        (np.zeros((20, 40, 4), np.uint16), "40 x 20 pixels, smaller than the crop of 32 x 32"),
        (b"\x93NUMPY no", "broken, or not an image"),
    ],
)
def test_what_cannot_be_used_is_one_line(spectral, values, message):
    os.remove("data/tiny/trainA/1.tif")
    if isinstance(values, bytes):
        open("data/tiny/trainA/1.npy", "wb").write(values)
    else:
        np.save("data/tiny/trainA/1.npy", values, allow_pickle=True)
    for options in (["--cache"], ["--no-cache"]):
        with pytest.raises(InputError) as error:
            spectral("--n_epochs", "1", *options)
        assert "data/tiny/trainA/1.npy: " in str(error.value) and message in str(error.value)
        assert "\n" not in str(error.value) and os.listdir() == ["data"]
    spectral("--n_epochs", "1", "--skip_bad_images")


def test_without_tifffile_a_hint_says_so(spectral, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError, match="trainA/0.tif: .*pip install tifffile imagecodecs"):
        spectral("--n_epochs", "1")


# ----- the whole way


def test_four_channels_become_three_and_back(spectral, capsys):
    spectral("--n_epochs", "2", "--sample_interval", "4", "--val_interval", "1", "--lambda_ssim", "1")
    out = capsys.readouterr().out
    assert out.startswith("note: no identity loss, because images of A have 4 channels and those of B 3\n")
    state = load()
    assert state["options"]["lambda_id"] == 0 and state["G_AB"]["model.1.weight"].shape[1] == 4
    assert state["D_A"]["model.0.weight"].shape[1] == 4 and state["G_BA"]["model.1.weight"].shape[1] == 3
    assert Image.open("images/tiny/000004.png").size == (6 * 34 + 2, 2 * 34 + 2 + 14)  # with captions
    whole = load()
    spectral("--n_epochs", "1", "--run_name", "part", "--lambda_ssim", "1", "--decay_epoch", "1")
    cyclegan.main(["--dataset_name", "tiny", "--run_name", "part", "--resume", "--n_epochs", "2", "--device", "cpu"])
    assert_same(whole["G_AB"], load("saved_models/part/latest.pth")["G_AB"])
    G = load_networks("saved_models/tiny/G_AB_2.pth")
    assert {d: (g.channels, g.out_channels) for d, g in G.items()} == {"AB": (4, 3), "BA": (3, 4)}

    deep = array(4, (41, 37))
    write("deep.tif", deep)
    write("deep.npy", deep / np.float32(65535))
    with torch.no_grad():
        x = torch.from_numpy(deep.astype(np.float32)).permute(2, 0, 1)[None] / 32767.5 - 1
        padded = torch.nn.functional.pad(x, (0, 3, 0, 3), "reflect")
        expected = ((G["AB"](padded)[0, :, :41, :37].permute(1, 2, 0) + 1) / 2).numpy()
    for options, name in (
        (["--input", "deep.tif", "--output", "a.tif"], "a.tif"),
        (["--input", "deep.npy"], "deep_translated.npy"),
        (["--input", "deep.npy", "--output", "a.png"], "a.png"),
    ):
        path = ["--checkpoint", "saved_models/tiny/G_AB_2.pth", "--device", "cpu", "--no-amp"]
        assert translate.main([*path, *options]) == 0
        result = load_array(name, 3)
        np.testing.assert_allclose(result, expected, atol=3e-5 if name != "a.png" else 0.003)

    photo = array(3, (41, 37), np.uint8)
    write("photo.png", photo)
    back = [
        "--checkpoint",
        "saved_models/tiny/latest.pth",
        "--direction",
        "BA",
        "--device",
        "cpu",
        "--input",
        "photo.png",
    ]
    assert translate.main([*back, "--format", "npy"]) == 0 and translate.main([*back, "--format", "tif"]) == 0
    assert np.load("photo_translated.npy").shape == (41, 37, 4)
    assert tifffile.imread("photo_translated.tif").shape == (41, 37, 4)
    with pytest.raises(InputError, match="photo_translated.png: 4 channels fit into .npy and .tif only: --format"):
        translate.main(back)
    with pytest.raises(InputError, match="--mask, --strength: 3 channels become 4"):
        translate.main([*back, "--strength", "0.5", "--output", "b.npy"])


def test_other_networks_know_their_channels_in_both_directions(spectral):
    spectral("--n_epochs", "1", "--attention")
    for path in ("saved_models/tiny/latest.pth", "saved_models/tiny/G_BA_1.pth"):
        G = load_networks(path)
        assert {d: (g.channels, g.out_channels) for d, g in G.items()} == {"AB": (4, 3), "BA": (3, 4)}


def test_measured_where_it_can_be(spectral, capsys):
    spectral("--n_epochs", "1")
    capsys.readouterr()
    evaluate.main(["--checkpoint", "saved_models/tiny/latest.pth", "--device", "cpu", "--no-amp"])
    out = capsys.readouterr().out
    assert "cycle reconstruction" in out and "note: no identity: images of A and B differ in channels" in out
    assert "identity mapping" not in out
    evaluate.main(["--checkpoint", "saved_models/tiny/latest.pth", "--device", "cpu", "--paired"])
    assert "paired ground truth, L1" in capsys.readouterr().out
    assert Image.open("images/tiny/evaluate_latest_AB.png").width >= 500


def test_gray_becomes_colour(tmp_path, monkeypatch, make_set):
    make_set()
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--channels_A", "1", "--channels_B", "3", "--n_epochs", "1"])
    Image.effect_noise((50, 40), 80).save("x.png")
    arguments = ["--checkpoint", "saved_models/tiny/latest.pth", "--input", "x.png", "--device", "cpu"]
    assert translate.main(arguments) == 0
    assert Image.open("x_translated.png").mode == "RGB"
