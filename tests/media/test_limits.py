"""Pictures, arrays and videos that mean harm: nothing is executed, no other file is read, and memory is bounded."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from media import picture_writer, pictures
from media.arrays import read_arrays
from media.containers import open_file
from media.depth import is_array
from media.folders import ImageFiles
from media.images import IMAGE_EXTENSIONS, READABLE, load_image
from media.limits import PIXELS, decoding
from media.masks import load_mask
from media.picture_writer import write_picture
from media.pictures import read_picture
from utils import InputError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(x) show\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program gs that leaves a file when Pillow starts it."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("bin")
    with open("bin/gs", "w") as file:
        file.write(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    os.chmod("bin/gs", 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)


@pytest.mark.parametrize("name", ["x.eps", "x.ps", "x.png", "x.jpg", "x.tif", "x.gif", "x.unknown"])
def test_no_program_is_started(ghostscript, name):
    for head in (b"", struct.pack("<7I", 0xC6D3D0C5, 32, len(EPS), 0, 0, 0, 0) + b"\xff\xff\0\0"):
        with open(name, "wb") as file:
            file.write(head + EPS)
        with pytest.raises(InputError, match=f"{name}: is EPS or PostScript, a program and not an image"):
            load_image(name)
        for read in (lambda: read_picture(name, 3), lambda: load_mask(name, "y.png", (40, 40))):
            with pytest.raises(InputError, match=name):
                read()
        is_array(name, 3)
    assert not os.path.exists("executed")


def test_formats_that_are_opened():
    assert not READABLE & {"EPS", "WMF", "IPTC", "GRIB", "BUFR", "HDF5", "MPEG"}
    assert {".jpg", ".png", ".tif", ".webp", ".psd", ".mpo", ".npy", ".heic"} <= {*IMAGE_EXTENSIONS}
    assert not {".eps", ".ps", ".wmf", ".emf", ".grib", ".h5"} & {*IMAGE_EXTENSIONS}


def test_eps_files_are_no_images_of_a_folder(tmp_path):
    for name in ("a.png", "b.eps", "c.ps"):
        (tmp_path / name).write_bytes(EPS)
    assert [os.path.basename(path) for path in ImageFiles(str(tmp_path))] == ["a.png"]


def test_an_image_inside_of_another_is_not_opened(ghostscript):
    """Pillow's plugin for IPTC opens what it holds, of any format."""
    with open("x.png", "wb") as file:
        file.write(
            b"\x1c\x03\x3c\0\2\x01\0" + b"\x1c\x03\x14\0\1\x28" + b"\x1c\x08\x0a" + struct.pack(">H", len(EPS)) + EPS
        )
    with pytest.raises(InputError):
        load_image("x.png")
    assert not os.path.exists("executed")


def white_png(path, side):
    """A white PNG of one bit per pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress((b"\0" + b"\xff" * -(-side // 8)) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_a_large_picture_in_a_small_file(tmp_path):
    path = tmp_path / "x.png"
    white_png(path, 6000)  # 36 megapixels
    assert path.stat().st_size < 12_000
    for read in (load_image, lambda name: read_picture(name, 3)):
        with pytest.raises(InputError, match="x.png: 36 megapixels in a file of 11 KB.* use --max_pixels 178956972"):
            read(str(path))
    with decoding(PIXELS + 2):
        assert load_image(str(path), channels=1, size=(60, 60)).mean() == 255
    white_png(path, 5000)  # not that large
    assert load_image(str(path), channels=1, size=(50, 50)).shape == (50, 50, 1)


def test_animations_of_many_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_FRAMES", 20)
    frames = [Image.new("L", (8, 8), i * 9) for i in range(21)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="x.gif: 21 frames, more than 20. Translate it to a video: --output NAME.mp4"):
        read_picture(str(tmp_path / "x.gif"), 3)
    assert load_image(str(tmp_path / "x.gif")).shape == (8, 8, 3)  # training takes the first frame
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:20])
    assert len(read_picture(str(tmp_path / "x.gif"), 3).pixels) == 20


def test_jpegs_of_many_scans(tmp_path):
    data = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(data, "JPEG", progressive=True)
    data = data.getvalue()
    (tmp_path / "good.jpg").write_bytes(data)
    assert load_image(str(tmp_path / "good.jpg")).shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(data[:last] + data[last:-2] * 300 + data[-2:])
    with pytest.raises(InputError, match="x.jpg: a JPEG of 3.. scans, more than 200"):
        load_image(str(tmp_path / "x.jpg"))


@pytest.mark.parametrize("shape", ["(10**9,)", "(100000000000, 3)", "(-1, 4, 3)", "(99999, 99999, 3)"])
def test_arrays_that_are_smaller_than_they_say(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(48))
    with pytest.raises(InputError, match="x.npy: broken") as error:
        read_arrays(str(tmp_path / "x.npy"), 3)
    assert "\n" not in str(error.value)


def test_arrays_of_too_many_pixels(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((30, 40, 3), np.uint8))
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((30, 40), np.uint16))
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((10, 10, 81), np.uint16), photometric="minisblack")
    with decoding(1199):
        for name, channels in (("x.npy", 3), ("x.tif", 1)):
            with pytest.raises(InputError, match="0 x .0 pixels, more than the limit of 1199 pixels.* --max_pixels"):
                read_arrays(str(tmp_path / name), channels)
    with decoding(1000), pytest.raises(InputError, match="8100 values, more than 8 .* --max_pixels"):
        read_arrays(str(tmp_path / "deep.tif"), 81)
    with decoding(1200):
        assert read_arrays(str(tmp_path / "x.npy"), 3)[0].pixels.shape == (30, 40, 3)


def test_tiff_files_do_not_read_others(tmp_path, monkeypatch):
    """The metadata of OME-TIFF may say that a plane is in another file."""
    tifffile.imwrite(tmp_path / "secret.tif", np.full((4, 4), 40000, np.uint16))
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<Image ID="Image:0"><Pixels DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="1" SizeX="4" SizeY="4" '
        'SizeZ="1" Type="uint16"><TiffData IFD="0"><UUID FileName="../secret.tif">urn:uuid:2</UUID></TiffData></Pixels>'
        "</Image></OME>"
    )
    os.mkdir(tmp_path / "in")
    with tifffile.TiffWriter(tmp_path / "in/x.tif") as file:
        file.write(np.zeros((4, 4), np.uint16), description=ome, metadata=None)
    opened, original = [], tifffile.FileHandle.open
    monkeypatch.setattr(tifffile.FileHandle, "open", lambda self: original(self) or opened.append(self.name))
    with tifffile.TiffFile(tmp_path / "in/x.tif") as file:
        file.asarray()
    assert "secret.tif" in opened  # tifffile itself does
    opened.clear()
    assert all((page.pixels == 0).all() for page in read_arrays(str(tmp_path / "in/x.tif"), 1))
    assert {*opened} == {"x.tif"}


def test_pages_are_written_as_pillow_writes_them(tmp_path):
    images = [Image.effect_noise((16, 12 + i), 80).convert("RGB") for i in range(4)]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:], compression="tiff_lzw")
    with open(tmp_path / "b.tif", "w+b") as file:
        picture_writer.save_pages(images, file, [dict(compression="tiff_lzw")] * 4)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_time_is_proportional_to_the_number_of_pages(tmp_path, monkeypatch):
    """Counts what Pillow reads while it looks for the last page."""
    reads = [0]
    skip = picture_writer.PageWriter._read

    def count(self, size):
        reads[0] += 1
        return skip(self, size)

    monkeypatch.setattr(picture_writer.PageWriter, "_read", count)
    counts = []
    for n in (20, 40):
        tifffile.imwrite(tmp_path / "x.tif", np.zeros((n, 8, 8, 3), np.uint8), photometric="rgb", metadata=None)
        picture, reads[0] = read_picture(str(tmp_path / "x.tif"), 3), 0
        assert picture.pixels.shape == (n, 8, 8, 3)
        assert write_picture(str(tmp_path / "y.tif"), "TIFF", picture) == []
        counts.append(reads[0])
    assert counts[1] < 2.2 * counts[0]


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{secret}\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
def test_playlists_are_no_videos(tmp_path, text):
    import av

    path = tmp_path / "x.mp4"
    path.write_text(text.format(secret=tmp_path / "secret.mp4"))
    with pytest.raises(av.FFmpegError):
        open_file(str(path))


def test_pipes_are_no_videos(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(InputError, match="x.mp4: not a regular file"):
        open_file(str(tmp_path / "x.mp4"))
