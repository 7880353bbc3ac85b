"""With --strength 0 the pixels that come out are those that went in, in whatever file they are."""

import os
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, IptcImagePlugin, PngImagePlugin

from media.array_writer import write_array
from media.arrays import decode_deep
from media.depth import has_imagecodecs
from media.images import load_image
from media.metadata import iptc_segment
from media.picture_writer import format_of
from media.pictures import read_picture


@pytest.fixture
def unchanged(translate):
    """unchanged(name) -> the path of the translation with strength 0"""

    def run(name, *options, target=None, **others):
        target = target or "out_" + name
        assert translate("--input", name, "--output", target, "--strength", "0", *options, **others) == 0
        return target

    return run


@pytest.fixture
def gray(make_generator):
    make_generator("gray.pth", channels=1)
    return {"checkpoint": "gray.pth"}


def noise(*shape, top=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def smooth(height=40, width=52):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 5, 255 - x - y], -1).astype(np.uint8)


def difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).max()


# ----- formats


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff", "x.bmp", "x.ppm", "x.tga", "x.jp2"])
def test_lossless_formats(unchanged, name):
    Image.fromarray(noise(37, 45, 3)).save(name)
    result = Image.open(unchanged(name))
    assert result.format == Image.open(name).format and result.mode == "RGB"
    assert np.array_equal(np.asarray(result), noise(37, 45, 3))


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x.avif", "x.JPEG"])
def test_lossy_formats_lose_little(unchanged, name):
    if not format_of(name):
        pytest.skip("this Pillow does not write it")
    Image.fromarray(smooth()).save(name, quality=90)
    result = Image.open(unchanged(name))
    assert result.format == Image.open(name).format and result.size == (52, 40)
    assert np.abs(np.asarray(result, float) - np.asarray(Image.open(name).convert("RGB"))).mean() < 2


def test_a_format_that_is_not_written_becomes_png(unchanged, translate):
    Image.fromarray(noise(32, 32, 3)).save("x.ico", sizes=[(32, 32)])
    assert translate("--input", "x.ico", "--output", "out", "--strength", "0") == 0
    assert np.array_equal(np.asarray(Image.open("out/x.png").convert("RGB")), noise(32, 32, 3))


# ----- modes


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_gray_stays_what_it_is_in_both_kinds_of_generators(unchanged, gray, name):
    Image.fromarray(noise(33, 40)).save(name)
    assert np.array_equal(np.asarray(Image.open(unchanged(name))), noise(33, 40)[..., None].repeat(3, 2))
    result = Image.open(unchanged(name, target="gray_" + name, **gray))
    assert result.mode == "L" and np.array_equal(np.asarray(result), noise(33, 40))


def test_colour_through_a_gray_generator_is_its_luminance(unchanged, gray):
    Image.fromarray(noise(33, 40, 3)).save("x.png")
    assert np.array_equal(np.asarray(Image.open(unchanged("x.png", **gray))), Image.open("x.png").convert("L"))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tga"])
def test_transparency_is_kept(unchanged, name):
    rgba = noise(35, 41, 4)
    rgba[:5, ..., 3], rgba[5:9, ..., 3] = 0, 255
    Image.fromarray(rgba).save(name)
    result = Image.open(unchanged(name))
    assert result.mode == "RGBA"
    assert np.array_equal(np.asarray(result), np.where(rgba[..., 3:] > 0, rgba, [255, 255, 255, 0]))


def test_alpha_is_exactly_kept_by_a_translation(translate):
    rgba = noise(35, 41, 4)
    Image.fromarray(rgba).save("x.png")
    assert translate("--input", "x.png", "--output", "y.png") == 0
    result = np.asarray(Image.open("y.png"))
    assert np.array_equal(result[..., 3], rgba[..., 3]) and difference(result[..., :3], rgba[..., :3]) > 20


def test_transparency_of_webp(unchanged):
    alpha = noise(40, 52)
    Image.fromarray(np.dstack([smooth(), alpha])).save("x.webp", lossless=True, exact=True)
    assert np.array_equal(np.asarray(Image.open(unchanged("x.webp")))[..., 3], alpha)


@pytest.mark.parametrize("target", ["y.jpg", "y.bmp", "y.ppm"])
def test_transparency_is_laid_over_white_where_there_is_none(unchanged, gray, target):
    rgba = np.dstack([np.full((40, 40, 3), 60, np.uint8), np.full((40, 40), 255, np.uint8)])
    rgba[:, 20:, 3] = 0
    Image.fromarray(rgba).save("x.png")
    for options in ({}, gray):
        result = Image.open(unchanged("x.png", "--overwrite", target=target, **options))
        assert result.mode == ("L" if options else "RGB")
        assert difference(np.asarray(result)[:, :12], 60) < 3 and difference(np.asarray(result)[:, 28:], 255) < 3


def test_gray_with_transparency(unchanged, gray):
    la = noise(35, 41, 2)
    Image.fromarray(la).save("x.png")
    for target, options in (("y.png", {}), ("z.png", gray)):
        result = np.asarray(Image.open(unchanged("x.png", target=target, **options)).convert("RGBA"))
        assert np.array_equal(result, np.where(la[..., 1:] > 0, la[..., [0, 0, 0, 1]], [255, 255, 255, 0]))


def palette_image():
    image = Image.frombytes("P", (34, 33), noise(33, 34, top=3).tobytes())
    image.putpalette([200, 100, 50, 0, 0, 255, 20, 250, 10])
    return image


def test_palette(unchanged):
    palette_image().save("x.png")
    result = Image.open(unchanged("x.png"))
    assert result.mode == "RGB" and np.array_equal(np.asarray(result), np.asarray(palette_image().convert("RGB")))


@pytest.mark.parametrize("transparency", [1, bytes([255, 100, 0])])
def test_palette_with_transparency(unchanged, transparency):
    palette_image().save("x.png", transparency=transparency)
    result = np.asarray(Image.open(unchanged("x.png")))
    expected = np.array([255, 0, 255] if transparency == 1 else [255, 100, 0])[noise(33, 34, top=3)]
    assert np.array_equal(result[..., 3], expected)
    colours = np.asarray(palette_image().convert("RGB"))
    assert np.array_equal(result[..., :3], np.where(result[..., 3:] > 0, colours, 255))


def test_black_and_white(unchanged, gray):
    bits = noise(33, 40, top=2)
    Image.fromarray(bits * 255).convert("1").save("x.png")
    assert np.array_equal(np.asarray(Image.open(unchanged("x.png"))), (bits * 255)[..., None].repeat(3, 2))
    assert np.array_equal(np.asarray(Image.open(unchanged("x.png", target="y.png", **gray))), bits * 255)


def test_cmyk(unchanged):
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save("x.jpg", quality=95)
    result = Image.open(unchanged("x.jpg"))
    assert result.mode == "RGB" and np.asarray(result)[20, 20] == pytest.approx([255, 0, 0], abs=8)


def test_float(unchanged, gray):
    levels = noise(33, 40)
    Image.fromarray((levels / 255).astype(np.float32)).save("x.tif")
    assert np.array_equal(np.asarray(Image.open(unchanged("x.tif"))), levels[..., None].repeat(3, 2))
    gray_levels = np.asarray(Image.open(unchanged("x.tif", target="y.tif", **gray)))
    assert gray_levels.dtype == np.uint16 and np.array_equal(gray_levels, levels * np.uint16(257))  # more than 8 bits


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bits_of_gray(unchanged, gray, name):
    values = noise(40, 41, top=65536, dtype=np.uint16)
    values[0, :3] = 0, 32768, 65535
    Image.fromarray(values).save(name)
    assert np.array_equal(deep(unchanged(name)), values[..., None].repeat(3, 2))
    result = Image.open(unchanged(name, target="gray_" + name, **gray))
    assert result.mode == "I;16" and np.array_equal(np.asarray(result), values)
    result = Image.open(unchanged(name, "--size", "20x30", target="small_" + name, **gray))
    assert result.mode == "I;16" and result.size == (20, 30)
    result = Image.open(unchanged(name, target="y.webp", **gray)).convert("L")  # 8 bits: scaled, not clipped
    assert np.abs(np.asarray(result, float) - values / 257).mean() < 12


def deep(path):
    """All digits of an image in colour, which Pillow would cut to 8 bits."""
    if path.endswith(".ppm"):
        return np.frombuffer(open(path, "rb").read()[-40 * 41 * 6 :], ">u2").reshape(40, 41, 3)
    if path.endswith((".tif", ".npy")):
        return tifffile.imread(path)
    return decode_deep(path, Image.open(path))[0]


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jp2", "x.ppm"])
def test_16_bits_of_colour(unchanged, gray, name, channels):
    if name == "x.ppm" and channels == 4:
        pytest.skip("PPM has no transparency")
    values = noise(40, 41, channels, top=65536, dtype=np.uint16)
    values[..., 3:] |= 1  # colours under an alpha of 0 are not kept
    write_array(name, format_of(name), [(values[..., :3], values[..., 3] if channels == 4 else None)], {})
    difference = np.abs(deep(unchanged(name)).astype(int) - values)
    assert difference[..., 3:].max(initial=0) == 0 and difference.max() <= (0 if channels == 3 else 1)
    in_gray = read_picture(unchanged(name, target="gray.tif", **gray), 1).pixels
    assert in_gray.dtype == np.uint16 and len(np.unique(in_gray)) > 1000


def test_formats_of_8_bits_say_what_they_lose(unchanged, capsys):
    values = noise(40, 41, 3, top=65536, dtype=np.uint16)
    write_array("x.png", "PNG", [(values, None)], {})
    result = Image.open(unchanged("x.png", target="y.bmp"))
    assert np.array_equal(np.asarray(result), (values / 257).round())
    assert "note: y.bmp: 16 bits became 8; BMP holds no more" in capsys.readouterr().out
    Image.fromarray(frames()[0]).save("x.gif", save_all=True, append_images=[Image.fromarray(frames()[1])])
    unchanged("x.gif", target="z.bmp")
    assert "note: z.bmp: only the first of 2 frames was written; BMP holds one" in capsys.readouterr().out


def test_without_imagecodecs_16_bits_are_8_and_said_to_be(unchanged, capsys, monkeypatch):
    values = noise(40, 41, 3, top=65536, dtype=np.uint16)
    write_array("x.png", "PNG", [(values, None)], {})
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    has_imagecodecs.cache_clear()
    assert np.abs(np.asarray(Image.open(unchanged("x.png"))) - values / 257.0).max() <= 1
    has_imagecodecs.cache_clear()
    assert "x.png: its 16 bits are read as 8. To keep them: pip install tifffile" in capsys.readouterr().err


# ----- what goes along with the pixels


UPRIGHT = {  # orientation: stored -> upright
    1: lambda s: s,
    2: lambda s: s[:, ::-1],
    3: lambda s: s[::-1, ::-1],
    4: lambda s: s[::-1],
    5: lambda s: s.transpose(1, 0, 2),
    6: lambda s: np.rot90(s, -1),
    7: lambda s: s[::-1, ::-1].transpose(1, 0, 2),
    8: lambda s: np.rot90(s),
}


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied_and_the_rest_kept(unchanged, name, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    stored = smooth()
    Image.fromarray(stored).save(name, exif=exif.tobytes())
    result = Image.open(unchanged(name))
    pixels = np.asarray(result.convert("RGB"))
    assert pixels.shape == UPRIGHT[orientation](stored).shape
    loss = np.abs(pixels.astype(float) - UPRIGHT[orientation](stored)).mean()
    assert loss < (3 if name in ("x.jpg", "x.webp") else 1e-9)
    written = result.getexif()
    assert written.get(0x0112, 1) == 1  # or it would be turned once more
    assert written.get(0x010F) == "Maker"
    assert written.get_ifd(0x8769).get(0x9003) == "2020:01:02 03:04:05"


def test_a_photo_with_exif_becomes_a_tiff(unchanged):
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8769)[0x9003], exif.get_ifd(0x8825)[1] = "Maker", "2020:01:02 03:04:05", "N"
    Image.fromarray(smooth()).save("x.jpg", exif=exif)
    written = Image.open(unchanged("x.jpg", target="y.tif")).getexif()
    assert (written[0x010F], written.get_ifd(0x8769)[0x9003], written.get_ifd(0x8825)[1]) == (
        "Maker",
        "2020:01:02 03:04:05",
        "N",
    )


def test_colour_profile_and_resolution_are_kept(unchanged, gray):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("x.png", "x.jpg", "x.tif"):
        Image.fromarray(smooth()).save(name, icc_profile=profile, dpi=(300, 300))
        info = Image.open(unchanged(name)).info
        assert info["icc_profile"] == profile and [round(float(x)) for x in info["dpi"]] == [300, 300]
    # it describes three channels
    assert "icc_profile" not in Image.open(unchanged("x.png", target="gray.png", **gray)).info
    Image.fromarray(smooth()).convert("CMYK").save("c.jpg", quality=95, dpi=(72, 72))
    assert "icc_profile" not in Image.open(unchanged("c.jpg")).info


# ----- animations


def frames():
    """Four pictures that differ, of few colours, so that a GIF holds them exactly."""
    pictures = np.full((4, 36, 40, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        picture[4 * i : 4 * i + 12, 6 * i : 6 * i + 10] = (250, 40 * i, 0)
    return pictures


@pytest.mark.parametrize(
    "name, options", [("x.gif", {}), ("x.webp", {"lossless": True}), ("x.png", {}), ("x.avif", {"quality": 100})]
)
def test_animations_keep_their_frames_and_durations(unchanged, name, options):
    if not format_of(name):
        pytest.skip("this Pillow does not write it")
    first, *others = map(Image.fromarray, frames())
    durations = [100, 250, 30, 400]
    first.save(name, save_all=True, append_images=others, duration=durations, loop=3, **options)
    with Image.open(unchanged(name)) as result:
        assert result.n_frames == 4
        if name != "x.avif":  # which knows no such number
            assert result.info["loop"] == 3
        for i, duration in enumerate(durations):
            result.seek(i)
            result.load()
            assert result.info["duration"] == pytest.approx(duration, abs=1)
            assert np.abs(np.asarray(result.convert("RGB"), float) - frames()[i]).mean() < 3


def test_transparent_gif_keeps_its_holes(unchanged):
    pictures = [Image.fromarray(np.dstack([f, 255 - 255 * (f[..., 2] > 0)]).astype(np.uint8)) for f in frames()]
    pictures[0].save("x.gif", save_all=True, append_images=pictures[1:], duration=50, disposal=2)
    with Image.open(unchanged("x.gif")) as result:
        assert result.n_frames == 4
        for i, picture in enumerate(pictures):
            result.seek(i)
            assert np.array_equal(np.asarray(result.convert("RGBA"))[..., 3], np.asarray(picture)[..., 3])


def test_of_an_animation_a_still_format_holds_the_first_frame(unchanged):
    first, *others = map(Image.fromarray, frames())
    first.save("x.gif", save_all=True, append_images=others)
    result = Image.open(unchanged("x.gif", target="y.bmp"))
    assert np.array_equal(np.asarray(result), frames()[0])


def test_pages_of_a_tiff(unchanged):
    first, *others = map(Image.fromarray, frames())
    first.save("x.tif", save_all=True, append_images=others)
    with Image.open(unchanged("x.tif")) as result:
        assert result.n_frames == 4
        result.seek(2)
        assert np.array_equal(np.asarray(result), frames()[2])


def test_pages_that_differ(unchanged, gray):
    gray_page, deep_page = noise(40, 41), noise(40, 41, top=65536, dtype=np.uint16)
    page = Image.fromarray(gray_page)
    others = [page.resize((41, 39)), page.resize((50, 33)), page]
    page.save("size.tif", save_all=True, append_images=others)
    Image.fromarray(deep_page).save("depth.tif", save_all=True, append_images=[page])
    for options in ({}, gray):
        with Image.open(unchanged("size.tif", "--overwrite", **options)) as result:
            assert result.n_frames == 4
            for i, expected in enumerate([page, *others]):
                result.seek(i)
                assert np.array_equal(np.asarray(result.convert("L")), np.asarray(expected))
    with tifffile.TiffFile(unchanged("depth.tif", **gray)) as result:
        assert [np.array_equal(page.asarray(), deep_page) for page in result.pages] == [True, False]
        assert np.abs(result.pages[1].asarray() / 257.0 - gray_page).max() == 0


def test_pages_of_16_bits_in_colour(unchanged):
    first, second = (noise(h, 41, 3, top=65536, dtype=np.uint16) for h in (40, 36))
    write_array("x.tif", "TIFF", [(first, None), (first[::-1], None), (second, None)], {})
    with tifffile.TiffFile(unchanged("x.tif")) as result:
        for page, expected in zip(result.pages, (first, first[::-1], second), strict=True):
            assert np.array_equal(page.asarray(), expected)


def test_a_pyramid_is_its_largest_image(unchanged):
    image = noise(80, 96, 3, top=65536, dtype=np.uint16)
    with tifffile.TiffWriter("x.tif") as file:
        file.write(image, photometric="rgb", subifds=1)
        file.write(image[::2, ::2], photometric="rgb", subfiletype=1)
    with tifffile.TiffFile("x.tif") as file:
        assert len(file.pages[0].pages) == 1
    assert np.array_equal(tifffile.imread(unchanged("x.tif")), image)


@pytest.mark.parametrize("source, target", [("x.png", "y.avif"), ("x.gif", "y.png"), ("x.avif", "y.webp")])
def test_an_animation_in_another_format(unchanged, source, target):
    if not format_of("x.avif"):
        pytest.skip("this Pillow does not write it")
    first, *others = map(Image.fromarray, frames())
    first.save(source, save_all=True, append_images=others, duration=[100, 250, 30, 400])
    with Image.open(unchanged(source, target=target)) as result:
        assert result.n_frames == 4
        result.seek(1)
        result.load()
        assert result.info["duration"] == pytest.approx(250, abs=1)


def test_an_animation_that_fills_the_memory_is_refused(translate, capsys, monkeypatch):
    monkeypatch.setattr("media.pictures.LARGEST_ANIMATION", 4 * 36 * 40 * 3 - 1)
    first, *others = map(Image.fromarray, frames())
    first.save("x.gif", save_all=True, append_images=others)
    assert translate("--input", "x.gif") == 1
    assert "x.gif: 4 frames do not fit into memory at once. Translate it to a video" in capsys.readouterr().err


# ----- reading alone


def test_resize_sees_the_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([smooth(), smooth()[..., 0]])).save(tmp_path / "x.png", exif=exif)
    seen = []
    picture = read_picture(str(tmp_path / "x.png"), 3, lambda *size: seen.append(size) or (20, 30))
    assert seen == [(40, 52)] and picture.pixels.shape == (1, 30, 20, 3) and picture.alpha.shape == (1, 30, 20)


def test_formats():
    assert [format_of(f"a/b.{e}") for e in ("png", "JPG", "tif", "webp", "gif")] == "PNG JPEG TIFF WEBP GIF".split()
    assert [format_of(name) for name in ("x.psd", "x.mp4", "x", "x.txt", ".png", "x.pdf", "x.ico")] == [None] * 7
    assert format_of("x.tar.png") == "PNG"


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0x\0\0\0\0\0\0\0"]
)
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp"])
def test_exif_that_makes_no_sense_does_not_spoil_the_picture(tmp_path, name, exif):
    path = str(tmp_path / name)
    Image.effect_noise((40, 30), 50).convert("RGB").save(path, exif=exif)
    assert read_picture(path, 3).pixels.shape == (1, 30, 40, 3)
    assert load_image(path, smallest=(30, 40)).shape == (30, 40, 3)


# ----- other metadata


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><xmp:Thumbnails>secret</xmp:Thumbnails><dc:title>Dusk</dc:title></x:xmpmeta>'
)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif", "x.avif"])
def test_xmp_is_kept_without_its_thumbnails(unchanged, name):
    if not format_of(name):
        pytest.skip("this Pillow does not write it")
    options = {"xmp": XMP}
    if name == "x.png":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    if name == "x.tif":
        options = {"tiffinfo": {700: XMP}}
    Image.fromarray(smooth()).save(name, **options)
    info = Image.open(unchanged(name)).info
    xmp = info.get("xmp") or info["XML:com.adobe.xmp"].encode()
    assert b"<dc:title>Dusk</dc:title>" in xmp and b"secret" not in xmp


def test_iptc_is_kept(unchanged):
    caption = b"\x1c\x02\x78\0\x05Zebra"  # record 2, data set 120
    for name, options in (("x.jpg", {"extra": iptc_segment(caption)}), ("x.tif", {"tiffinfo": {33723: caption}})):
        Image.fromarray(smooth()).save(name, **options)
        assert IptcImagePlugin.getiptcinfo(Image.open(name)) == {(2, 120): b"Zebra"}
        assert IptcImagePlugin.getiptcinfo(Image.open(unchanged(name))) == {(2, 120): b"Zebra"}


@pytest.mark.parametrize("depth", [8, 16])
def test_texts_of_png_are_kept(unchanged, depth):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "M. Müller")
    texts.add_itxt("Title", "縞馬", lang="ja")
    if depth == 8:
        Image.fromarray(smooth()).save("x.png", pnginfo=texts, dpi=(300, 300))
    else:
        values = noise(40, 41, 3, top=65536, dtype=np.uint16)
        info = {"texts": {"Author": "M. Müller", "Title": "縞馬"}, "dpi": (300, 300)}
        write_array("x.png", "PNG", [(values, None)], info)
    result = Image.open(unchanged("x.png"))
    assert result.text == {"Author": "M. Müller", "Title": "縞馬"}
    assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_comment_is_kept(unchanged):
    Image.fromarray(smooth()).save("x.jpg", comment=b"by hand")
    assert Image.open(unchanged("x.jpg")).info["comment"] == b"by hand"


GEO = [  # a scale of half a meter, and where the upper left corner is
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 356000.0, 5645000.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 25832), True),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_tags_of_geotiff_and_others(unchanged, gray, dtype, channels):
    values = noise(40, 44, channels, top=np.iinfo(dtype).max + 1, dtype=dtype)
    more = [(270, "s", 0, "a field", True), (274, "H", 1, 6, True)]
    kind = dict(photometric="rgb" if channels == 3 else "minisblack", metadata=None)
    tifffile.imwrite("x.tif", values.squeeze(), extratags=[*GEO, *more], resolution=(118.11, 118.11),
                     resolutionunit=3, **kind)  # fmt: skip
    with tifffile.TiffFile(unchanged("x.tif", **(gray if channels == 1 else {}))) as result:
        tags = result.pages[0].tags
        for code, _, _, value, _ in GEO:
            assert tags[code].value == value
        assert tags[270].value == "a field" and tags.valueof(274, 1) == 1
        assert [value[0] / value[1] for value in (tags[282].value, tags[283].value)] == pytest.approx(
            [300, 300], abs=0.1
        )
        assert np.array_equal(result.asarray(), np.rot90(values, -1).squeeze())
    with tifffile.TiffFile(unchanged("x.tif", "--size", "32", target="y.tif")) as result:
        assert 33550 not in result.pages[0].tags and 270 in result.pages[0].tags  # its pixels have another size


def test_profile_of_a_16_bit_tiff(unchanged):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    values = noise(40, 44, 3, top=65536, dtype=np.uint16)
    tifffile.imwrite("x.tif", values, photometric="rgb", iccprofile=profile)
    with tifffile.TiffFile(unchanged("x.tif")) as result:
        assert result.pages[0].iccprofile == profile and np.array_equal(result.asarray(), values)


def test_a_tiff_of_16_bits_with_premultiplied_alpha(tmp_path):
    alpha = np.full((40, 44, 1), 32768, np.uint16)
    colours = noise(40, 44, 3, top=65536, dtype=np.uint16)
    premultiplied = (colours * (alpha / 65535)).round().astype(np.uint16)
    path = str(tmp_path / "x.tif")
    tifffile.imwrite(path, np.dstack([premultiplied, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    picture = read_picture(path, 3)
    assert difference(picture.straight[0], colours) <= 2 and (picture.alpha == 32768).all()
    assert difference(picture.pixels[0], premultiplied + 32767.0) <= 1


def test_avif_is_not_subsampled(unchanged):
    if not format_of("x.avif"):
        pytest.skip("this Pillow does not write it")
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    Image.fromarray(stripes).save("x.png")
    result = np.asarray(Image.open(unchanged("x.png", target="y.avif")), float)
    assert np.abs(result - stripes).mean() < 12


def test_long_names(unchanged):
    name = "ü" * 125 + ".png"  # 254 bytes
    Image.fromarray(noise(33, 35, 3)).save(name)
    assert unchanged(name, target="out/" + name) and os.listdir("out") == [name]
