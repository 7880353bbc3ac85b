"""load_translator: the pixels are those that translate.py writes, and what goes in comes out as the same kind."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from inference import load_translator
from utils import InputError


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


@pytest.fixture
def open_G(tmp_path, monkeypatch, make_generator):
    """open_G(option=value, ...) loads G.pth (3 channels), or gray.pth or four.pth, on the CPU in float32."""
    monkeypatch.chdir(tmp_path)
    make_generator("gray.pth", 1, channels=1)
    make_generator("four.pth", 2, channels=4)
    make_generator("H.pth", 3, upsample="nearest")
    make_generator()
    return lambda checkpoint="G.pth", **options: load_translator(checkpoint, device="cpu", amp=False, **options)


def file_of(translate, name, *options, checkpoint="G.pth"):
    """The file that translate.py writes, as an array."""
    assert translate("--input", name, "--output", "file.png", "--overwrite", *options, checkpoint=checkpoint) == 0
    return np.asarray(Image.open("file.png"))


# ----- PIL images


@pytest.mark.parametrize("shape", [(33, 50, 3), (64, 64, 3), (35, 41, 4), (3, 40)])
def test_pixels_are_those_of_the_file(open_G, translate, shape):
    Image.fromarray(noise(*shape)).save("x.png")
    result = open_G()(Image.open("x.png"))
    expected = file_of(translate, "x.png")
    assert result.mode == ("RGBA" if shape[2:] == (4,) else "RGB")
    assert np.array_equal(result, expected) and expected.shape[:2] == shape[:2]


def test_gray_of_16_bits(open_G, translate):
    Image.fromarray(noise(40, 41, dtype=np.uint16)).save("x.png")
    result = open_G("gray.pth")(Image.open("x.png"))
    assert result.mode == "I;16" and np.array_equal(result, file_of(translate, "x.png", checkpoint="gray.pth"))
    colour = open_G()(Image.open("x.png"))
    assert colour.mode == "RGB"  # Pillow has no colours of 16 bits, a file may have
    deep = file_of(translate, "x.png").astype(float)  # Pillow shows the upper 8 of 16 bits
    assert np.abs(np.asarray(colour, float) - deep).max() <= 1


def test_gray_floats(open_G, translate):
    Image.fromarray(np.random.default_rng(0).random((40, 41), np.float32)).save("x.tif")
    for options in ({}, {"size": (30, 35)}):
        words = ["--size", "30x35"] if options else []
        result = open_G("gray.pth", **options)(Image.open("x.tif"))
        assert result.mode == "I;16"
        assert np.array_equal(result, file_of(translate, "x.tif", *words, checkpoint="gray.pth"))


def test_palette_black_and_white_and_cmyk(open_G, translate):
    photo = Image.fromarray(noise(34, 45, 3))
    photo.quantize(7).save("p.png", transparency=2)
    photo.convert("1").save("1.png")
    photo.convert("CMYK").save("c.tif")
    for name in ("p.png", "1.png", "c.tif"):
        assert np.array_equal(open_G()(Image.open(name)), file_of(translate, name))


def test_exif_is_applied_and_kept(open_G, translate):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(noise(40, 60, 3)).save("x.png", exif=exif, dpi=(300, 300))
    result = open_G()(Image.open("x.png"))
    assert result.size == (40, 60) and np.array_equal(result, file_of(translate, "x.png"))
    assert dict(result.getexif())[0x010F] == "Maker" and 0x0112 not in result.getexif()
    result.save("y.png", **result.info)
    assert Image.open("y.png").info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_of_an_animation_the_current_frame(open_G):
    first, *others = (Image.fromarray(noise(36, 40, 3, seed=i)) for i in range(3))
    first.save("x.png", save_all=True, append_images=others)
    with Image.open("x.png") as image:
        image.seek(1)
        assert np.array_equal(open_G()(image), open_G()(others[0]))


def test_the_input_is_not_changed(open_G):
    pixels = noise(40, 41, 4)
    image = Image.fromarray(pixels)
    open_G(size=32)(image)
    assert image.mode == "RGBA" and np.array_equal(image, pixels) and image.info == {}


# ----- arrays


def test_arrays_in_and_out(open_G, translate):
    Image.fromarray(noise(33, 50, 3)).save("x.png")
    expected = file_of(translate, "x.png")
    G = open_G()
    result = G(noise(33, 50, 3))
    assert result.dtype == np.uint8 and np.array_equal(result, expected)
    backward = noise(33, 50, 3)[:, ::-1]  # negative strides, and not writable
    backward.flags.writeable = False
    assert np.array_equal(G(backward[:, ::-1]), expected)
    assert np.array_equal(G(np.asfortranarray(noise(33, 50, 3))), expected)
    deep = G(noise(33, 50, 3) * np.uint16(257))
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - expected).max() <= 0.51


def test_gray_arrays(open_G):
    G, values = open_G("gray.pth"), noise(33, 50, dtype=np.uint16)
    flat, deep = G(values), G(values[..., None])
    assert flat.shape == (33, 50) and deep.shape == (33, 50, 1) and flat.dtype == np.uint16
    assert np.array_equal(flat, deep[..., 0]) and np.array_equal(flat, G(Image.fromarray(values)))


def test_any_number_of_channels(open_G, translate):
    values = noise(41, 37, 4, dtype=np.uint16)
    np.save("x.npy", values)
    assert translate("--input", "x.npy", checkpoint="four.pth") == 0
    expected = np.load("x_translated.npy")
    assert expected.dtype == np.uint16 and np.array_equal(open_G("four.pth")(values), expected)
    assert open_G("four.pth", size=20)(values).shape == (22, 20, 4)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_batches(open_G, batch_size):
    G, pixels = open_G(batch_size=batch_size), noise(3, 33, 50, 3)
    result = G(pixels)
    assert result.shape == pixels.shape and result.dtype == np.uint8
    for one, other in zip(result, pixels):
        assert np.abs(one.astype(int) - G(other)).max() <= 1  # batches may be computed in another order


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((40, 40, 3)), r"array of float64: expected uint8 \(0 to 255\) or uint16"),
        (np.zeros((40, 40, 3), bool), "array of bool: expected uint8"),
        (np.zeros((40, 40, 4), np.uint8), r"shape \(40, 40, 4\): expected \(H, W, 3\) or \(N, H, W, 3\)"),
        (np.zeros((40, 40), np.uint8), r"shape \(40, 40\): expected \(H, W, 3\)"),
        (np.zeros((3, 40, 40), np.uint8), r"shape \(3, 40, 40\): expected"),
        (np.zeros((0, 40, 40, 3), np.uint8), "not empty"),
        (np.zeros((1, 1, 40, 40, 3), np.uint8), "expected"),
    ],
)
def test_wrong_arrays(open_G, array, message):
    with pytest.raises(InputError, match=message):
        open_G()(array)


def test_what_is_no_image(open_G):
    with pytest.raises(TypeError, match="expected a PIL image or a NumPy array, not str"):
        open_G()("x.png")
    with pytest.raises(InputError, match="translates 4 channels to 4; pass an array"):
        open_G("four.pth")(Image.new("RGB", (40, 40)))
    with pytest.raises(InputError, match=r"expected \(H, W\), \(H, W, 1\)"):
        open_G("gray.pth")(np.zeros((40, 40, 3), np.uint8))


# ----- options


@pytest.mark.parametrize("size", [48, (70, 50), [70, 50]])
def test_size(open_G, translate, size):
    Image.fromarray(noise(60, 90, 4)).save("x.png")
    words = "48" if size == 48 else "70x50"
    expected = file_of(translate, "x.png", "--size", words)
    assert np.array_equal(open_G(size=size)(Image.open("x.png")), expected)
    Image.fromarray(noise(60, 90, 3)).save("x.png")
    expected = file_of(translate, "x.png", "--size", words)
    assert np.array_equal(open_G(size=size)(noise(60, 90, 3)), expected)
    assert np.array_equal(open_G(size=size)(noise(60, 90, 3)[None])[0], expected)


def test_mix_strength_and_tile(open_G, translate):
    Image.fromarray(noise(203, 66, 3)).save("x.png")
    expected = file_of(
        translate, "x.png", "--mix", "0.3", "--strength", "0.7", "--tile", "64", checkpoint="G.pth H.pth"
    )
    result = open_G(["G.pth", "H.pth"], mix=0.3, strength=0.7, tile=64)(Image.open("x.png"))
    assert np.array_equal(result, expected)


def test_masks(open_G, translate):
    mask = noise(45, 50, seed=2)
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(noise(45, 50, 3)).save("x.png")
    expected = file_of(translate, "x.png", "--mask", "mask.png")
    for given in ("mask.png", mask, Image.fromarray(mask)):
        assert np.array_equal(open_G(mask=given)(noise(45, 50, 3)), expected)
        assert np.array_equal(open_G()(Image.open("x.png"), mask=given), expected)
    both = np.stack([noise(45, 50, 3)] * 2)
    result = open_G()(both, mask=np.stack([mask, np.zeros_like(mask)]))
    assert np.array_equal(result[0], expected) and np.array_equal(result[1], noise(45, 50, 3))
    assert np.array_equal(open_G(mask=mask)(both), np.stack([expected] * 2))
    half = np.zeros((45, 50), bool)
    half[:20] = True
    assert np.array_equal(open_G(mask=half)(noise(45, 50, 3))[20:], noise(45, 50, 3)[20:])


@pytest.mark.parametrize(
    "mask, message",
    [
        (np.zeros((40, 40), np.uint8), "mask: 40 x 40 pixels do not fit an image of 60 x 40"),
        (np.zeros((3, 40, 60), np.uint8), "mask: 3 masks for 2 images"),
        (np.zeros((40, 60)), "mask: array of float64"),
        (np.zeros((40, 60, 3, 1), np.uint8), "mask: array of uint8"),
        ("none.png", "none.png: "),
    ],
)
def test_wrong_masks(open_G, mask, message):
    with pytest.raises(InputError, match=message):
        open_G()(noise(2, 40, 60, 3), mask=mask)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"checkpoint": "none.pth"}, "none.pth: no such checkpoint"),
        ({"checkpoint": ["G.pth", "H.pth"]}, "--mix requires two checkpoints"),
        ({"mix": 0.5}, "--mix requires two checkpoints"),
        ({"checkpoint": ["G.pth", "gray.pth"], "mix": 0.5}, "--mix: the two generators"),
        ({"checkpoint": ["G.pth", "H.pth"], "mix": 2}, "--mix 2: is not from 0 to 1"),
        ({"strength": -1}, "--strength -1: is not from 0 to 1"),
        ({"size": 0}, "--size 0: is not positive"),
    ],
)
def test_wrong_options(open_G, options, message):
    with pytest.raises(InputError, match=message):
        open_G(**options)


def test_the_direction_of_a_full_checkpoint(open_G, make_generator):
    import torch

    state = {name: make_generator("other.pth", seed=5 + i).state_dict() for i, name in enumerate(("G_AB", "G_BA"))}
    torch.save({"version": 1, "options": {}, "epoch": 1, **state}, "latest.pth")
    backward = open_G("latest.pth", direction="BA")(noise(40, 40, 3))
    assert np.array_equal(backward, open_G("other.pth")(noise(40, 40, 3)))
    assert not np.array_equal(backward, open_G("latest.pth")(noise(40, 40, 3)))


@pytest.mark.slow
def test_the_import_is_cheap():
    code = (
        "import sys, inference\n"
        "assert not {'torch', 'PIL', 'numpy'} & sys.modules.keys()\n"
        "import inference.image_translator\n"
        "assert not any(name.split('.')[0] in ('training', 'cyclegan', 'translate') for name in sys.modules)\n"
        # these take as long to import as torch
        "import app, compress, cyclegan, evaluate, export, prepare, translate\n"
        "assert not {'torchvision', 'torch._dynamo'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
