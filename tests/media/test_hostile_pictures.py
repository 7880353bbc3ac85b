"""Pictures at the edges of their formats: depths, planes, pages, damaged files, metadata, and disks that are full."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers import ROOT
from PIL import Image, ImageCms, PngImagePlugin

from datasets import ImageDataset
from inference.ranges import write_in_range
from media.array_writer import write_array
from media.arrays import load_array, raw_values
from media.depth import is_array
from media.images import load_image
from media.limits import decoding
from media.picture_writer import format_of, write_picture
from media.pictures import read_picture
from media.png import whole_png
from media.survey import notes_on_values
from utils import InputError, whole_file

RNG = np.random.default_rng(0)
PLAIN = dict(photometric="rgb", metadata=None)


def noise(*shape, top=65536, dtype=np.uint16):
    return RNG.integers(0, top, shape).astype(dtype)


def save_png(path, values):
    with open(path, "wb") as file:
        file.write(imagecodecs.png_encode(values))


def copy(source, target, kind):
    """Reads and writes a picture, without a network -> notes"""
    return write_picture(target, kind, read_picture(source, 3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ----- depth


def test_planes_of_16_bits_are_read_as_such(here):
    values = noise(17, 23, 3)
    tifffile.imwrite("x.tif", np.moveaxis(values, 2, 0).copy(), planarconfig="separate", **PLAIN)
    assert is_array("x.tif", 3) and np.array_equal(read_picture("x.tif", 3).pixels[0], values)
    for domain in "AB":
        os.makedirs(f"data/train{domain}")
        os.rename("x.tif", f"data/train{domain}/x.tif")
        tifffile.imwrite("x.tif", np.moveaxis(values, 2, 0).copy(), planarconfig="separate", **PLAIN)
    item = ImageDataset("data", img_size=(17, 23), load_size=(17, 23))[0]["A"].numpy()
    np.testing.assert_allclose(np.sort(item.ravel()), np.sort(values.ravel() / 32767.5 - 1), atol=1e-6)
    thin = noise(17, 3, 3)  # as wide as there are colours
    tifffile.imwrite("y.tif", np.moveaxis(thin, 2, 0).copy(), planarconfig="separate", **PLAIN)
    assert np.array_equal(read_picture("y.tif", 3).pixels[0], thin)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["tif", "jp2", "gray.jp2", "gray.tif"])
def test_white_is_white_at_any_depth(here, bits, kind):
    values = noise(16, 24, 3, top=2**bits)
    values[0, :2] = [[0] * 3, [2**bits - 1] * 3]
    values = values[..., 0] if "gray" in kind else values
    path = f"x.{kind}"
    if kind.endswith("jp2"):
        open(path, "wb").write(imagecodecs.jpeg2k_encode(values, bitspersample=bits, reversible=True))
    else:
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=photometric, bitspersample=bits, metadata=None)
    expected = values / (2**bits - 1)
    expected = expected if values.ndim == 3 else expected[..., None].repeat(3, 2)
    pixels = load_array(path, 3)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)
    assert pixels[0, 1].tolist() == [1, 1, 1]
    raw, top = raw_values(path, 3)
    assert raw.max() == top  # so that the survey before training does not call the images dark
    assert (
        notes_on_values(type("", (), {"files": type("", (), {"folder": "A"}), "value_range": None}), 0, raw.max(), top)
        == []
    )


def test_12_bits_where_white_is_zero(here):
    values = noise(16, 24, top=4096)
    tifffile.imwrite("x.tif", values, photometric="miniswhite", bitspersample=12, metadata=None)
    np.testing.assert_allclose(load_array("x.tif", 1)[..., 0], 1 - values / 4095, atol=1e-6)


def test_floats_where_white_is_zero(here):
    values = RNG.random((16, 24), dtype=np.float32)
    tifffile.imwrite("x.tif", values, photometric="miniswhite", metadata=None)
    np.testing.assert_allclose(load_array("x.tif", 1)[..., 0], 1 - values, atol=1e-6)


def test_plain_ppm_of_16_bits(here):
    values = noise(17, 23, 3)
    open("x.ppm", "w").write("P3\n# a comment\n23 17\n65535\n# another\n" + " ".join(map(str, values.ravel())))
    assert np.array_equal(read_picture("x.ppm", 3).pixels[0], values)
    open("y.pgm", "w").write("P2\n23 17\n65535\n" + " ".join(map(str, values[..., 0].ravel())))
    assert np.array_equal(read_picture("y.pgm", 1).pixels[0, ..., 0], values[..., 0])


def test_the_deepest_page_decides(here):
    shallow, deep, bits = noise(17, 23, 3, top=256, dtype=np.uint8), noise(17, 23, 3), noise(17, 23, top=2) > 0
    with tifffile.TiffWriter("x.tif") as file:
        file.write(shallow, **PLAIN)
        file.write(deep, **PLAIN)
        file.write(bits, photometric="minisblack", metadata=None)
        file.write(shallow, compression="jpeg", compressionargs={"level": 95}, **PLAIN)  # YCbCr
    assert copy("x.tif", "y.tif", "TIFF") == []
    with tifffile.TiffFile("y.tif") as result:
        first, second, third, fourth = [page.asarray() for page in result.pages]
    assert np.array_equal(first, shallow * np.uint16(257)) and np.array_equal(second, deep)
    assert np.array_equal(third, bits[..., None].repeat(3, 2) * np.uint16(65535))
    assert np.abs(fourth / 257 - np.asarray(load_page("x.tif", 3), float)).max() < 1


def load_page(path, number):
    with Image.open(path) as image:
        image.seek(number)
        return image.convert("RGB")


def test_an_8_bit_tiff_above_the_limit_is_refused(here):
    tifffile.imwrite("x.tif", np.zeros((200, 300, 3), np.uint8), compression="zlib", **PLAIN)
    with tifffile.TiffWriter("y.tif") as file:  # a small page first
        file.write(np.zeros((20, 30, 3), np.uint8), **PLAIN)
        file.write(np.zeros((200, 300, 3), np.uint8), **PLAIN)
    np.save("z.npy", np.zeros((200, 300, 3), np.uint8))
    with decoding(20_000):
        assert not is_array("x.tif", 3)
        for read, path in (
            (read_picture, "x.tif"),
            (load_image, "x.tif"),
            (read_picture, "y.tif"),
            (load_array, "z.npy"),
        ):
            with pytest.raises(InputError, match=f"{path}: .*, more than the limit of 20000 pixels"):
                read(path, 3)
    for domain in "AB":
        os.makedirs(f"train{domain}")
        Image.new("RGB", (40, 40)).save(f"train{domain}/0.png")
        tifffile.imwrite(f"train{domain}/x.tif", np.zeros((200, 300, 3), np.uint8), **PLAIN)
    with decoding(20_000), pytest.raises(InputError, match="x.tif: .*more than the limit of 20000 pixels"):
        ImageDataset(".", img_size=(32, 32), load_size=(32, 32), cache=True)


# ----- shapes and channels


@pytest.mark.parametrize("name, kind", [("x.png", "PNG"), ("x.jp2", "JPEG2000"), ("x.tif", "TIFF"), ("x.ppm", "PPM")])
@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("channels", [3, 4])
def test_one_pixel_wide_or_high(here, name, kind, size, channels):
    if kind == "PPM" and channels == 4:
        pytest.skip("PPM has no transparency")
    values = noise(*size, channels) | 1
    alpha = values[..., 3] if channels == 4 else None
    write_array(name, kind, [(values[..., :3], alpha)], {})
    with Image.open(name) as image:
        assert image.size == size[::-1]
    picture = read_picture(name, 3)
    written = picture.pixels if alpha is None else picture.straight
    assert written.shape == (1, *size, 3) and np.abs(written[0].astype(int) - values[..., :3]).max() == 0
    assert alpha is None or np.array_equal(picture.alpha[0], alpha)


def test_thin_gray(here):
    for size in ((1, 50), (50, 1)):
        values = noise(*size, 1)
        write_array("x.png", "PNG", [(values, None)], {})
        assert np.array_equal(read_picture("x.png", 1).pixels[0], values)


def test_pages_with_and_without_transparency(here):
    rgb, rgba = noise(17, 23, 3), noise(17, 23, 4) | 1
    for pages in ((rgba, rgb), (rgb, rgba), (rgb, rgba, rgb[::-1])):
        with tifffile.TiffWriter("x.tif") as file:
            for page in pages:
                file.write(page, **PLAIN, **({"extrasamples": ["unassalpha"]} if page.shape[2] == 4 else {}))
        assert copy("x.tif", "y.tif", "TIFF") == []
        with tifffile.TiffFile("y.tif") as result:
            for page, expected in zip(result.pages, pages, strict=True):
                assert np.array_equal(page.asarray(), expected)


def test_a_channel_that_is_neither_colour_nor_transparency(here):
    values = noise(17, 23, 5) | 1
    tifffile.imwrite("x.tif", values[..., :4], extrasamples=["unspecified"], **PLAIN)
    assert copy("x.tif", "y.tif", "TIFF") == ["x.tif: a channel that is neither colour nor transparency was left out"]
    assert np.array_equal(tifffile.imread("y.tif"), values[..., :3])
    tifffile.imwrite("x.tif", values, extrasamples=["unspecified", "unassalpha"], **PLAIN)
    assert len(copy("x.tif", "y.tif", "TIFF")) == 1
    assert np.array_equal(tifffile.imread("y.tif"), values[..., [0, 1, 2, 4]])


def test_smaller_copies_are_left_out(here):
    for dtype in (np.uint8, np.uint16):
        full = noise(40, 44, 3, top=np.iinfo(dtype).max + 1, dtype=dtype)
        small = full[::2, ::2].copy()
        for pages in (
            ((full, 0), (small, 1)),
            ((small, 1), (full, 0)),
            ((full, 0), (small, 1), (full[::-1].copy(), 0)),
        ):
            with tifffile.TiffWriter("x.tif") as file:
                for page, kind in pages:
                    file.write(page, subfiletype=kind, **PLAIN)
            copy("x.tif", "y.tif", "TIFF")
            with tifffile.TiffFile("y.tif") as result:
                expected = [page for page, kind in pages if not kind]
                for page, one in zip(result.pages, expected, strict=True):
                    assert np.array_equal(page.asarray(), one)
            if dtype == np.uint8:
                assert np.array_equal(load_image("x.tif"), full)


def test_the_hidden_default_image_of_an_animation(here):
    hidden, *shown = [Image.new("RGB", (20, 24), colour) for colour in ("red", "green", "blue")]
    hidden.save("x.png", save_all=True, default_image=True, append_images=shown, duration=[100, 200])
    picture = read_picture("x.png", 3)
    assert picture.pixels[:, 0, 0].tolist() == [[0, 128, 0], [0, 0, 255]] and picture.timing["duration"] == [100, 200]
    assert load_image("x.png")[0, 0].tolist() == [0, 128, 0]
    write_picture("y.png", "PNG", picture)
    with Image.open("y.png") as result:
        assert result.n_frames == 2 and not result.info.get("default_image")


def test_frames_that_do_not_fit_are_told(here):
    for dtype in (np.uint8, np.uint16):
        with tifffile.TiffWriter("x.tif") as file:
            for height in (20, 20, 24):
                file.write(noise(height, 24, 3, top=256, dtype=dtype), **PLAIN)
        for kind, count in (("GIF", "first 2"), ("WEBP", "first 2"), ("PNG", "first 2"), ("BMP", "first")):
            notes = copy("x.tif", "y." + kind.lower(), kind)
            assert any(f"only the {count} of 3 frames w" in note for note in notes), (kind, notes)


# ----- damaged files


def test_what_can_be_decoded_of_truncated_files(here):
    values = noise(40, 44, 3) | 1
    save_png("x.png", values)
    open("x.ppm", "wb").write(b"P6\n44 40\n65535\n" + values.astype(">u2").tobytes())
    open("p.ppm", "w").write("P3\n44 40\n65535\n" + " ".join(map(str, values.ravel())))
    tifffile.imwrite("x.tif", values, rowsperstrip=4, **PLAIN)
    tifffile.imwrite("z.tif", values, rowsperstrip=4, compression="zlib", **PLAIN)
    np.save("x.npy", values)
    for name in ("x.png", "x.ppm", "p.ppm", "x.tif", "z.tif", "x.npy"):
        data = open(name, "rb").read()
        open(name, "wb").write(data[: len(data) * 6 // 10])
        with pytest.raises(InputError):
            read_picture(name, 3)
        with decoding(10**8, allow_truncated=True):
            pixels = read_picture(name, 3).pixels[0]
        assert np.array_equal(pixels[:16], values[:16]) and (pixels[-8:] == 0).all(), name


def test_a_png_that_is_whole_stays_as_it_is():
    values = noise(13, 11, 3)
    assert np.array_equal(imagecodecs.png_decode(whole_png(imagecodecs.png_encode(values))), values)


def test_an_interlaced_png_is_completed(here):
    header = struct.pack(">IIBBBBB", 13, 11, 16, 2, 0, 0, 1)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert imagecodecs.png_decode(whole_png(data)).shape == (11, 13, 3)


# ----- metadata


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="Dusk"/></x:xmpmeta>'


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name, kind", [("x.png", "PNG"), ("x.tif", "TIFF")])
def test_pixels_are_turned_once(here, depth, name, kind):
    values = noise(20, 24, 3, top=2**depth, dtype=np.uint16 if depth == 16 else np.uint8)
    if kind == "TIFF":
        tifffile.imwrite(name, values, extratags=[(274, 3, 1, 6, True), (700, 1, len(XMP), XMP, True)], **PLAIN)
    else:
        write_array("plain.png", "PNG", [(values, None)], {"xmp": XMP}) if depth == 16 else None
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        Image.fromarray(values).save("plain.png", pnginfo=texts) if depth == 8 else None
        os.rename("plain.png", name)
    copy(name, "y" + name, kind)
    copy("y" + name, "z" + name, kind)
    expected = np.rot90(values, -1)
    for path in ("y" + name, "z" + name):
        assert np.array_equal(read_picture(path, 3).pixels[0], expected)
        data = open(path, "rb").read()
        assert b"Dusk" in data and b"tiff:Orientation" not in data


@pytest.mark.parametrize("depth", [8, 16])
def test_exif_in_texts_turns_pixels_once(here, depth):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    data = exif.tobytes()
    texts = {"Raw profile type exif": f"\nexif\n{len(data):8}\n{data.hex()}\n", "Author": "M"}
    values = noise(20, 24, 3, top=2**depth, dtype=np.uint16 if depth == 16 else np.uint8)
    if depth == 16:
        write_array("x.png", "PNG", [(values, None)], {"texts": texts})
    else:
        info = PngImagePlugin.PngInfo()
        for key, text in texts.items():
            info.add_text(key, text)
        Image.fromarray(values).save("x.png", pnginfo=info)
    copy("x.png", "y.png", "PNG")
    copy("y.png", "z.png", "PNG")
    assert np.array_equal(read_picture("z.png", 3).pixels[0], np.rot90(values, -1))
    with Image.open("z.png") as result:
        assert result.getexif()[0x010F] == "Maker" and result.text == {"Author": "M"}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_page_keeps_its_own_metadata(here, dtype, order):
    pages = [noise(20, 24, 3, top=np.iinfo(dtype).max + 1, dtype=dtype) for _ in range(3)]
    with tifffile.TiffWriter("x.tif", byteorder=order) as file:
        for i, page in enumerate(pages):
            file.write(
                page, description=f"page {i} ü".encode(), resolution=(100 + i, 100 + i), resolutionunit=2, **PLAIN
            )
    copy("x.tif", "y.tif", "TIFF")
    with tifffile.TiffFile("y.tif") as result:
        for i, page in enumerate(result.pages):
            assert np.array_equal(page.asarray(), pages[i]) and page.description.startswith(f"page {i}")
            assert page.tags[282].value[0] / page.tags[282].value[1] == pytest.approx(100 + i, abs=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n_pages", [1, 2])
def test_exif_and_position_of_a_tiff(here, dtype, n_pages):
    exif = Image.Exif()
    exif[0x010F], exif[0x8769], exif[0x8825] = "Maker", {0x9003: "2020:01:02 03:04:05"}, {1: "N", 2: (52.0, 30.0, 0.0)}
    values = noise(20, 24, 3, top=np.iinfo(dtype).max + 1, dtype=dtype)
    info = {"exif": exif.tobytes()}
    write_array("x.tif", "TIFF", [(values, None)] * n_pages, [info if i == n_pages - 1 else {} for i in range(n_pages)])
    copy("x.tif", "y.tif", "TIFF")
    for name in ("x.tif", "y.tif"):
        with Image.open(name) as image:
            image.seek(n_pages - 1)
            written = image.getexif()
            assert written[0x010F] == "Maker" and written.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
            assert written.get_ifd(0x8825)[1] == "N" and tuple(map(float, written.get_ifd(0x8825)[2])) == (52, 30, 0)
        with tifffile.TiffFile(name) as file:
            assert [np.array_equal(page.asarray(), values) for page in file.pages] == [True] * n_pages
            assert [34665 in page.tags for page in file.pages] == [i == n_pages - 1 for i in range(n_pages)]


def test_a_tiff_with_exif_is_compressed(here):
    exif = Image.Exif()
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05"}
    Image.new("RGB", (300, 200)).save("x.jpg", exif=exif)
    copy("x.jpg", "y.tif", "TIFF")
    with Image.open("y.tif") as image:
        assert image.info["compression"] == "tiff_lzw" and image.getexif().get_ifd(0x8769)[0x9003]
    assert os.path.getsize("y.tif") < 20_000


def test_a_description_of_the_old_layout_is_dropped(here):
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite("x.tif", noise(20, 24, 3, top=256, dtype=dtype), photometric="rgb")
        with tifffile.TiffFile("x.tif") as file:
            assert file.pages[0].description == '{"shape": [20, 24, 3]}'
        copy("x.tif", "y.tif", "TIFF")
        with tifffile.TiffFile("y.tif") as file:
            assert 270 not in file.pages[0].tags


def test_profiles_that_were_not_used_are_dropped(here):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, kept in ((lab, None), (b"broken" * 40, None), (srgb, srgb)):
        Image.fromarray(noise(20, 24, 3, top=256, dtype=np.uint8)).save("x.png", icc_profile=profile)
        write_array("d.png", "PNG", [(noise(20, 24, 3), None)], {"icc_profile": profile})
        tifffile.imwrite("x.tif", noise(20, 24, 3), iccprofile=profile, **PLAIN)
        for name, kind in (("x.png", "PNG"), ("d.png", "PNG"), ("x.tif", "TIFF")):
            copy(name, "y" + name, kind)
            with Image.open("y" + name) as result:
                assert result.info.get("icc_profile") == kept


@pytest.mark.parametrize(
    "chromaticity", [(0.3127, 0.329) + (0.3, 0.3) * 3, (0.9, 0.05, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)]
)
def test_primaries_that_make_no_sense_count_as_none(here, chromaticity):
    values = noise(20, 24, 3, top=256, dtype=np.uint8)
    content = struct.pack(">8I", *(round(100000 * x) for x in chromaticity))
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    chunk = struct.pack(">I", 32) + b"cHRM" + content + struct.pack(">I", zlib.crc32(b"cHRM" + content))
    open("x.png", "wb").write(data.getvalue()[:33] + chunk + data.getvalue()[33:])
    assert np.array_equal(read_picture("x.png", 3).pixels[0], values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_npy_keeps_its_type(here, dtype):
    values = noise(20, 24, 3, top=256, dtype=np.uint16)
    values = (values / 255).astype(dtype) if dtype == np.float32 else values.astype(dtype)
    np.save("x.npy", values)
    copy("x.npy", "y.npy", "NPY")
    result = np.load("y.npy")
    assert result.dtype == dtype and np.abs(result.astype(float) - values).max() <= (1e-5 if dtype == np.float32 else 0)
    write_in_range("z.npy", "NPY", read_picture("x.npy", 3), (0.0, 10.0))
    assert np.load("z.npy").dtype == np.float32


@pytest.mark.parametrize("name", ["x.avif", "x.heic"])
def test_10_bits_that_become_8_are_told(here, name):
    deep, shallow = noise(64, 64, 3, top=1024), noise(64, 64, 3, top=256, dtype=np.uint8)
    if name == "x.avif":
        if not format_of(name):
            pytest.skip("this Pillow does not read it")
        open(name, "wb").write(imagecodecs.avif_encode(deep, bitspersample=10))
        open("8" + name, "wb").write(imagecodecs.avif_encode(shallow))
    else:
        heif = pytest.importorskip("pillow_heif")
        heif.from_bytes("RGB;16", (64, 64), (deep * 64).tobytes()).save(name)
        heif.from_bytes("RGB", (64, 64), shallow.tobytes()).save("8" + name)
    assert copy(name, "y.png", "PNG") == [f"{name}: its 10 bits were read as 8"]
    assert copy("8" + name, "y.png", "PNG") == []


# ----- writing


@pytest.mark.parametrize("extension", ["jp2", "png", "tif", "npy", "bmp"])
def test_a_file_that_cannot_be_written_ends(here, extension):
    program = f"""
import resource, numpy as np
from media.picture_writer import format_of, write_picture
from media.pictures import Picture
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
pixels = np.random.default_rng(0).integers(0, 256, (1, 200, 300, 3)).astype(np.uint8)
try:
    write_picture("x.{extension}", format_of("x.{extension}"), Picture(pixels, None, {{}}, {{}}))
except OSError as error:
    print("told", error)
"""
    run = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
                         timeout=100, capture_output=True, text=True)  # fmt: skip
    assert run.stdout.startswith("told") and "None" not in run.stdout and os.listdir() == [], run


def test_16_bits_that_cannot_be_written(here):
    pages, before = [(noise(100, 100, 3), None)], resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, kind in (("x.npy", "NPY"), ("x.tif", "TIFF"), ("x.png", "PNG")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(OSError) as error:
                write_array(name, kind, pages, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "None" not in str(error.value) and os.listdir() == []


def test_no_file_of_the_temporary_name_is_replaced(here, monkeypatch):
    monkeypatch.setattr("utils.os.urandom", lambda n: bytes(n))
    open("x.png.00000000.tmp", "w").write("precious")
    open("x.png.tmp", "w").write("precious, too")
    with pytest.raises(FileExistsError), whole_file("x.png") as temporary:
        open(temporary, "w").write("lost")
    assert open("x.png.00000000.tmp").read() == "precious" and open("x.png.tmp").read() == "precious, too"


def test_a_file_where_a_folder_must_go_fails_alone(translate, capsys):
    os.makedirs("in/sub")
    os.makedirs("out")
    for name in ("in/a.png", "in/sub/b.png", "in/z.png"):
        Image.new("RGB", (40, 40)).save(name)
    open("out/sub", "w").write("in the way")
    assert translate("--input", "in", "--output", "out") == 1
    assert sorted(os.listdir("out")) == ["a.png", "sub", "z.png"] and open("out/sub").read() == "in the way"
    error = capsys.readouterr().err
    assert "out/sub/b.png: cannot be written, because out/sub is not a folder" in error and "stopped" not in error
    os.remove("out/a.png")
    assert translate("--input", "in", "--output", "out", "--features", "--overwrite") == 1
    assert "out/sub/b.png: cannot be written, because out/sub is not a folder" in capsys.readouterr().err
