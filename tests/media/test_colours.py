"""What goes into a network is what a person sees: profiles, transparency, and formats that not every Pillow opens."""

import os
import struct
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from datasets import ImageDataset
from inference import load_translator
from inference.detail import KeepSize, carry_over
from inference.translator import Translator
from media import hdr
from media.array_writer import write_array
from media.arrays import load_pixels, resize_array
from media.colours import ADOBE_RGB, D65, SRGB, convert_colours, deep_to_srgb, profile_transform
from media.images import load_image
from media.pictures import read_picture
from models import GeneratorResNet
from utils import InputError

P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)


def noise(*shape, top=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def profile(primaries, gamma):
    """The bytes of an ICC profile."""
    points = [value for i in (0, 2, 4) for value in (*primaries[i : i + 2], 1.0)]
    return imagecodecs.cms_profile("rgb", whitepoint=[*D65, 1.0], primaries=points, gamma=gamma)


def by_formula(pixels, primaries, gamma):
    return convert_colours(pixels / np.float32(255), D65, primaries, gamma) * 255


def difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).max()


@pytest.fixture
def both(tmp_path, monkeypatch):
    """both(name) -> the pixels that training sees, which are those that translation sees."""
    monkeypatch.chdir(tmp_path)

    def read(name, channels=3):
        trained, translated = load_image(name, channels), read_picture(name, channels).pixels[0]
        assert np.array_equal(trained, translated)
        return trained

    return read


# ----- colours


def test_the_formula_is_that_of_the_standards():
    white = np.ones((1, 3), np.float32)
    for primaries, gamma in ((SRGB, None), (ADOBE_RGB, 563 / 256), (P3, None), (P3, 1.8)):
        np.testing.assert_allclose(convert_colours(white, D65, primaries, gamma), 1, atol=1e-5)
        np.testing.assert_allclose(convert_colours(0 * white, D65, primaries, gamma), 0, atol=1e-6)
    values = noise(100, 3) / np.float32(255)
    np.testing.assert_allclose(convert_colours(values, D65, SRGB, None), values, atol=1e-5)
    # Adobe RGB (1998), section 4.3.5.3, and IEC 61966-2-1: a green that both can show
    green = convert_colours(np.array([[0.5649, 1.0, 0.2344]], np.float32) ** 1.0, D65, ADOBE_RGB, 563 / 256)
    assert green[0, 1] == pytest.approx(1, abs=0.01)
    # the white of D50 becomes the white of D65
    d50 = (0.3457, 0.3585)
    np.testing.assert_allclose(convert_colours(white, d50, SRGB, None), 1, atol=0.001)


@pytest.mark.parametrize("primaries, gamma", [(P3, 2.2), (ADOBE_RGB, 563 / 256), (SRGB, 1.8)])
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
def test_profiles(both, name, primaries, gamma):
    pixels = noise(34, 35, 3)
    Image.fromarray(pixels).save(name, icc_profile=profile(primaries, gamma), lossless=True)
    seen = both(name)
    assert difference(seen, by_formula(pixels, primaries, gamma)) < 1 and difference(seen, pixels) > 15


def test_a_profile_of_srgb_changes_nothing(both):
    pixels = noise(34, 35, 3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, data in (("x.png", srgb), ("y.png", b"not a profile"), ("z.png", imagecodecs.cms_profile("srgb"))):
        Image.fromarray(pixels).save(name, icc_profile=data)
        assert np.array_equal(both(name), pixels)
    assert read_picture("x.png", 3).info["icc_profile"] == srgb


def test_a_result_in_srgb_has_no_other_profile(translate):
    for name in ("x.png", "x.jpg", "x.tif"):
        Image.fromarray(noise(34, 35, 3)).save(name, icc_profile=profile(P3, 2.2))
        assert translate("--input", name, "--output", "out_" + name) == 0
        assert "icc_profile" not in Image.open("out_" + name).info


def test_profiles_of_gray_palettes_and_transparency(both):
    p3, gray = profile(P3, 2.2), noise(34, 35)
    Image.fromarray(gray).save("gray.png", icc_profile=profile(SRGB, 1.0))  # gray with a profile for RGB
    assert difference(both("gray.png", 1)[..., 0], by_formula(gray[..., None].repeat(3, 2), SRGB, 1.0)[..., 0]) <= 1
    image = Image.fromarray(noise(34, 35, 3)).quantize(50)
    image.save("palette.png", icc_profile=p3)
    assert difference(both("palette.png"), by_formula(np.asarray(image.convert("RGB")), P3, 2.2)) < 1
    rgba = noise(34, 35, 4)
    Image.fromarray(rgba).save("rgba.png", icc_profile=p3)
    alpha = rgba[..., 3:] / 255
    expected = by_formula(rgba[..., :3], P3, 2.2) * alpha + 255 * (1 - alpha)
    assert difference(both("rgba.png"), expected) < 2


def test_cmyk_goes_through_its_profile_in_training_too(both):
    cmyk = Image.fromarray(noise(34, 35, 4), "CMYK")
    cmyk.save("plain.jpg", quality=100, subsampling=0)
    assert np.array_equal(both("plain.jpg"), np.asarray(Image.open("plain.jpg").convert("RGB")))
    # RGB's profile is not for CMYK
    cmyk.save("wrong.jpg", quality=100, subsampling=0, icc_profile=profile(P3, 2.2))
    assert np.array_equal(both("wrong.jpg"), both("plain.jpg"))


def test_lab(both):
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    pixels = (noise(34, 35, 3) // 2 + 60).astype(np.uint8)
    ImageCms.applyTransform(Image.fromarray(pixels), to_lab).save("x.tif")
    assert Image.open("x.tif").mode == "LAB" and np.abs(both("x.tif").astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
def test_profiles_with_16_bits(both, channels):
    pixels = noise(34, 35, 3)
    if channels == 1:
        pixels[:] = pixels[..., :1]
    for name in ("x.tif", "x.png"):
        deep = pixels[..., :channels].astype(np.uint16) * 257
        write_array(name, {"x.tif": "TIFF", "x.png": "PNG"}[name], [(deep, None)], {"icc_profile": profile(P3, 1.8)})
        seen = read_picture(name, channels)
        expected = by_formula(pixels, P3, 1.8)[..., :channels]
        assert seen.pixels.dtype == np.uint16 and difference(seen.pixels[0] / 257, expected) < 0.5
        assert "icc_profile" not in seen.info


def test_16_bits_with_a_profile_need_imagecodecs(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    pixels = np.zeros((4, 4, 3), np.float32)
    assert deep_to_srgb(pixels, None) == (pixels, None)
    with pytest.raises(InputError, match="pip install imagecodecs"):
        deep_to_srgb(pixels, profile_of_p3)


profile_of_p3 = profile(P3, 2.2)


@pytest.mark.parametrize("gamma", [None, 1.0, 1 / 1.8])
@pytest.mark.parametrize("primaries", [None, P3])
def test_gamma_and_primaries_of_png(both, gamma, primaries):
    chunks = PngImagePlugin.PngInfo()
    if gamma:
        chunks.add(b"gAMA", round(gamma * 100000).to_bytes(4, "big"))
    if primaries:
        numbers = [round(value * 100000).to_bytes(4, "big") for value in (*D65, *primaries)]
        chunks.add(b"cHRM", b"".join(numbers))
    pixels = noise(34, 35, 3)
    Image.fromarray(pixels).save("x.png", pnginfo=chunks)
    expected = by_formula(pixels, primaries or SRGB, gamma and 1 / gamma)
    assert difference(both("x.png"), expected) < 1
    chunks.add(b"sRGB", b"\0")  # counts more
    Image.fromarray(pixels).save("y.png", pnginfo=chunks)
    assert np.array_equal(both("y.png"), pixels)


def with_chunk(path, name, content, after=33):
    """Adds a chunk to a PNG file, after IHDR."""
    data = open(path, "rb").read()
    chunk = name + content
    chunk = struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    open(path, "wb").write(data[:after] + chunk + data[after:])


@pytest.mark.parametrize(
    "primaries, transfer, expected", [(12, 13, (P3, None)), (1, 8, (SRGB, 1.0)), (9, 4, (BT2020, 2.2))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_coded_colours_of_png(both, primaries, transfer, expected, dtype):
    top = np.iinfo(dtype).max
    pixels = noise(9, 8, 3, top=top + 1, dtype=dtype)
    open("x.png", "wb").write(imagecodecs.png_encode(pixels))
    with_chunk("x.png", b"gAMA", struct.pack(">I", 100_000))
    with_chunk("x.png", b"sRGB", b"\0")
    with_chunk("x.png", b"cICP", bytes([primaries, transfer, 0, 1]))  # has precedence over both
    curve = convert_colours(pixels / np.float32(top), D65, *expected)
    if dtype == np.uint8:
        assert difference(both("x.png"), curve * 255) <= 0.51
    else:
        assert difference(load_pixels("x.png", 3, None, None, as_float=True), curve) < 1e-5


def test_coded_srgb_has_precedence(both):
    pixels = noise(9, 8, 3)
    Image.fromarray(pixels).save("x.png", icc_profile=profile(P3, 2.2))
    with_chunk("x.png", b"gAMA", struct.pack(">I", 100_000))
    with_chunk("x.png", b"cICP", bytes([1, 13, 0, 1]))
    assert np.array_equal(both("x.png"), pixels)


def test_hdr_pictures_are_as_hdr_videos(both):
    Image.fromarray(np.full((4, 4, 3), 148, np.uint8)).save("x.png")  # 203 cd/m2
    with_chunk("x.png", b"cICP", bytes([9, 16, 0, 1]))
    assert difference(both("x.png"), hdr.Converter(hdr.PQ, hdr.BT2020)(np.full((4, 4, 3), 148 * 257, np.uint16))) == 0
    assert 220 < both("x.png").mean() < 235


@pytest.mark.parametrize("chromaticities", [(0,) * 8, (0.3,) * 8, (0.3127, 0.329, 0, 0, 0, 0, 0, 0)])
def test_impossible_primaries_count_as_none(both, chromaticities):
    pixels = noise(9, 8, 3)
    Image.fromarray(pixels).save("x.png")
    with_chunk("x.png", b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in chromaticities)))
    assert np.array_equal(both("x.png"), pixels)


def test_coded_colours_of_avif(both):
    pixels = np.repeat(noise(4, 4, 3), 16, 0).repeat(16, 1)
    Image.fromarray(pixels).save("x.avif", quality=100, subsampling="4:4:4")
    plain = both("x.avif").copy()
    data = open("x.avif", "rb").read()
    start = data.index(b"colrnclx") + 8
    open("x.avif", "wb").write(data[:start] + struct.pack(">HH", 12, 13) + data[start + 4 :])
    assert difference(both("x.avif"), by_formula(plain, P3, None)) <= 0.51


def test_the_usual_gamma_of_png_changes_nothing(both):
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (45455).to_bytes(4, "big"))
    Image.fromarray(noise(34, 35, 3)).save("x.png", pnginfo=chunks)
    assert np.array_equal(both("x.png"), noise(34, 35, 3))


def camera_exif(mark):
    """EXIF as cameras write it: colour space "uncalibrated", and a mark of what it is in an interoperability directory,
    which Pillow reads but does not write."""

    def directory(start, *entries):
        rows = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
        return struct.pack("<H", len(entries)) + rows + b"\0\0\0\0"

    first, second = 8, 8 + 18
    third = second + 30
    return (
        b"Exif\0\0II*\0" + struct.pack("<I", first)
        + directory(first, (0x8769, 4, 1, struct.pack("<I", second)))
        + directory(second, (0xA001, 3, 1, struct.pack("<I", 0xFFFF)), (0xA005, 4, 1, struct.pack("<I", third)))
        + directory(third, (1, 2, 4, mark + b"\0"))
    )  # fmt: skip


def test_adobe_rgb_by_exif(both):
    for name, mark in (("x.png", b"R03"), ("y.png", b"R98")):
        Image.fromarray(noise(34, 35, 3)).save(name, exif=camera_exif(mark))
    assert difference(both("x.png"), by_formula(noise(34, 35, 3), ADOBE_RGB, 563 / 256)) < 1
    assert np.array_equal(both("y.png"), noise(34, 35, 3))  # sRGB


# ----- transparency


def test_colours_under_transparency_have_no_effect(translate, both):
    alpha = noise(40, 41)
    alpha[:15], alpha[15:30] = 0, 255
    results = []
    for hidden in ((0, 0, 0), (255, 255, 255), (255, 0, 255)):
        rgba = np.dstack([noise(40, 41, 3), alpha])
        rgba[:15, :, :3] = hidden
        Image.fromarray(rgba).save("x.png")
        both("x.png")
        assert translate("--input", "x.png", "--output", "y.png", "--overwrite") == 0
        results.append(np.asarray(Image.open("y.png")))
        assert np.array_equal(results[-1][..., 3], alpha)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_what_is_seen_on_white_is_the_translation(make_generator, translate):
    G = make_generator()
    rgba = noise(40, 44, 4)
    Image.fromarray(rgba).save("x.png")
    assert translate("--input", "x.png", "--output", "y.png") == 0
    seen = np.asarray(Image.alpha_composite(Image.new("RGBA", (44, 40), "white"), Image.fromarray(rgba)).convert("RGB"))
    with torch.no_grad():
        expected = (G(torch.from_numpy(seen.copy()).permute(2, 0, 1)[None] / 127.5 - 1)[0].permute(1, 2, 0) + 1) * 127.5
    result = np.asarray(Image.open("y.png"), float)
    alpha = result[..., 3:] / 255
    on_white = result[..., :3] * alpha + 255 * (1 - alpha)
    # a colour is at most 255, so that a pixel with little alpha cannot be as dark as any translation
    reachable = (expected.numpy() >= 255 * (1 - alpha)) & (alpha > 0)
    assert reachable.mean() > 0.3 and np.abs(on_white - expected.numpy())[reachable].max() < 1.6


# ----- formats


def test_heic(translate, capsys, monkeypatch, make_set):
    import pillow_heif

    pillow_heif.register_heif_opener()
    picture = Image.fromarray(resize_array(noise(6, 8, 3), (60, 80)))
    picture.save("photo.HEIC", quality=100)
    assert translate("--input", "photo.HEIC", "--output", "out", "--strength", "0") == 0
    assert np.abs(np.asarray(Image.open("out/photo.png"), float) - np.asarray(picture)).mean() < 6

    root = make_set(trainA=1, trainB=2)
    os.rename("photo.HEIC", f"{root}/trainA/photo.HEIC")
    assert len(ImageDataset(root, img_size=(32, 32), load_size=(40, 40)).A) == 2
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert translate("--input", f"{root}/trainA", "--output", "out2") == 1
    line = "photo.HEIC: reading .HEIC requires pillow-heif: pip install pillow-heif"
    assert line in capsys.readouterr().err and os.listdir("out2") == ["0.png"]
    with pytest.raises(InputError, match=line):
        ImageDataset(root, img_size=(32, 32), load_size=(40, 40))


def test_mpo_is_found_in_folders(translate):
    first, second = (Image.fromarray(noise(40, 41, 3, seed=i)) for i in range(2))
    os.mkdir("in")
    first.save("in/x.mpo", format="MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    assert translate("--input", "in", "--output", "out", "--strength", "0") == 0
    assert np.abs(np.asarray(Image.open("out/x.png"), float) - np.asarray(first)).mean() < 3


# ----- large and damaged images


def test_large_images_name_the_way_out(translate, capsys):
    Image.fromarray(noise(60, 70, 3)).save("x.png")
    Image.fromarray(resize_array(noise(5, 6, 3), (400, 480))).save("x.jpg")
    limit = ("--max_pixels", "4100")
    for name in ("x.png", "x.jpg"):
        assert translate("--input", name, *limit) == 1
        error = capsys.readouterr().err
        assert "more than the limit of 4100" in error and "raise the limit with --max_pixels" in error
    assert translate("--input", "x.png", "--max_pixels", "4200") == 0
    assert translate("--input", "x.jpg", "--size", "16", "--output", "y.png", "--strength", "0", *limit) == 0
    small = Image.open("x.jpg").resize((19, 16), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(Image.open("y.png"), float) - np.asarray(small)).mean() < 3
    assert translate("--input", "x.png", "--size", "32", "--output", "z.png", *limit) == 1  # only JPEG can


def test_truncated_images(translate, capsys):
    Image.fromarray(noise(64, 70, 3)).save("x.jpg", quality=90)
    data = open("x.jpg", "rb").read()
    open("x.jpg", "wb").write(data[: len(data) * 2 // 3])
    assert translate("--input", "x.jpg") == 1 and "--allow_truncated" in capsys.readouterr().err
    assert translate("--input", "x.jpg", "--allow_truncated") == 0 and not ImageFile.LOAD_TRUNCATED_IMAGES
    assert Image.open("x_translated.jpg").size == (70, 64)


# ----- the original size


def test_detail_is_exact_where_nothing_changes_and_follows_contrast():
    coarse = resize_array(noise(12, 16, 3), (96, 128))
    image = (
        (coarse.astype(int) + np.random.default_rng(0).integers(-12, 13, coarse.shape)).clip(0, 255).astype(np.uint8)
    )
    small, cpu = resize_array(image, (24, 32)), torch.device("cpu")
    assert difference(carry_over(image, small, small, cpu), image) < 1e-3
    darker = carry_over(image, small, (small // 2).astype(np.uint8), cpu)
    without = np.asarray(Image.fromarray(small // 2).resize((128, 96), Image.Resampling.BICUBIC), float)
    assert np.abs(darker - image / 2).mean() < 1.5 < 2 * 1.5 < np.abs(without - image / 2).mean()
    flat = carry_over(image, small, np.full_like(small, 90), cpu)  # nothing of the input is left
    assert np.abs(flat - 90).mean() < 3


def test_files_that_are_not_images_say_what_they_are(both):
    for content, reason in ((b"", "is empty"), (b"some text", "not an image of a format that is read")):
        open("x.png", "wb").write(content)
        with pytest.raises(InputError, match=f"^x.png: .*{reason}$"):
            load_image("x.png")


def test_a_constant_shift_is_carried_over_exactly():
    image = noise(90, 61, 3, top=50_000, dtype=np.uint16)
    small = resize_array(image, (12, 8))
    shifted = carry_over(image, small, small + np.uint16(9000), torch.device("cpu"))
    assert difference(shifted, image + 9000.0) < 0.5


def test_keep_size(translate):
    picture = resize_array(noise(12, 16, 3), (96, 128))
    Image.fromarray(np.dstack([picture, np.full((96, 128), 200, np.uint8)])).save("x.png")
    mask = np.zeros((96, 128), np.uint8)
    mask[:, 64:] = 255
    Image.fromarray(mask).save("mask.png")
    assert translate("--input", "x.png", "--size", "32", "--keep_size", "--output", "y.png", "--mask", "mask.png") == 0
    result = np.asarray(Image.open("y.png"))
    assert result.shape == (96, 128, 4) and (result[..., 3] == 200).all()
    assert np.array_equal(result[:, :64, :3], picture[:, :64]) and difference(result[:, 64:, :3], picture[:, 64:]) > 20
    assert translate("--input", "x.png", "--size", "32", "--output", "small.png") == 0
    from_python = load_translator("G.pth", size=32, keep_size=True, device="cpu", amp=False, mask="mask.png")
    assert np.array_equal(np.asarray(from_python(Image.open("x.png"))), result)
    assert from_python(noise(96, 128, 3)).shape == (96, 128, 3)
    small = Image.open("small.png").convert("RGB").resize((128, 96), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(small, float)[:, 72:] - result[:, 72:, :3]).mean() < 25
    with pytest.raises(InputError, match="--keep_size: requires --size"):
        translate("--input", "x.png", "--keep_size")
    with pytest.raises(InputError, match="--keep_size: 1 channels become 3"):
        KeepSize(Translator([GeneratorResNet(1, 1, 4, out_channels=3)], torch.device("cpu")), None)


# ----- digits


def test_16_bits_are_translated_in_float32_where_8_bits_are_in_bfloat16():
    torch.manual_seed(0)
    G = GeneratorResNet(n_residual_blocks=1, ngf=4).eval()
    pixels = noise(1, 64, 64, 3, top=65536, dtype=np.uint16)
    exact = Translator([G], torch.device("cpu"), amp=False)(pixels)
    for amp, same in ((None, True), (False, True), (True, False)):
        translator = Translator([G], torch.device("cpu"), amp=amp)
        translator.amp = amp is not False  # as on a device with bfloat16
        assert np.array_equal(translator(pixels), exact) == same
    assert translator.generators_for(pixels.astype(np.uint8))[1] == torch.bfloat16


def test_profiles_for_other_colours_are_ignored():
    assert profile_transform(profile_of_p3, "CMYK") == ("CMYK", None)
    assert profile_transform(b"", "RGB") == ("RGB", None)
    assert profile_transform(profile_of_p3, "RGB")[1] is not None
