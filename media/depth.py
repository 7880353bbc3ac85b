"""
Whether an image file has more than 8 bits per channel, so that arrays.py must read it. Only headers are read.
"""

import functools
import os
import sys

TIFF, PNG, JPEG2000 = (".tif", ".tiff"), (".png", ".apng"), (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")
ALWAYS_8_BIT = (".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp")  # need not be opened to know
INSTALL = "pip install tifffile imagecodecs"


def is_array(path, channels):
    """True if an image must be read with load_array: it is an .npy file, has more than 8 bits, or `channels` is neither
    1 nor 3."""
    name = path.lower()
    if name.endswith(".npy") or channels not in (1, 3):
        return True
    if name.endswith(ALWAYS_8_BIT) or not os.path.isfile(path):  # opening a pipe would block
        return False
    from PIL import Image  # both imported here, so that `import cyclegan` is fast

    from media.limits import open_pil

    try:
        with open_pil(path) as image:  # reads the header only
            needs_package = image.format in ("PNG", "JPEG2000") and image.mode[0] not in "IF"
            return is_deep(image) and (not needs_package or has_imagecodecs(path))
    except Image.DecompressionBombError:  # load_image refuses it
        return False
    except Exception:  # tifffile may read what Pillow cannot, such as colour planes of 3 x 16 bits
        return name.endswith(TIFF)


def is_deep(image):
    """Whether the file of an open PIL image, not decoded yet, has more than 8 bits per channel. PNG animations have 8,
    because their frames are composited."""
    if image.mode[0] in "IF":
        return True
    if image.format == "TIFF":
        return depth_of_tiff(image) > 8
    if image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX"):
        return False  # CMYK and the like
    if image.format == "JPEG2000":
        return depth_of_jpeg2000(image) > 8
    if image.format == "PPM":
        return any(tile.codec_name in ("ppm", "ppm_plain") and tile.args[-1] > 255 for tile in image.tile)
    return image.format == "PNG" and ";16" in str(image.tile) and getattr(image, "n_frames", 1) == 1


def depth_of_tiff(image):
    """Bits per channel of the deepest page, from BitsPerSample. CMYK and the like count as 8, because Pillow reduces them
    to that; with one plane for each colour it does not."""
    from media.frames import content_frames

    depth = 0
    for number in content_frames(image):
        if number != image.tell():
            image.seek(number)
        is_planar = image.tag_v2.get(284) == 2
        if is_planar or image.mode in ("L", "LA", "RGB", "RGBA", "RGBX") or image.mode[0] in "IF":
            depth = max(depth, *image.tag_v2.get(258, (1,)))
    if image.tell():
        image.seek(0)
    return depth


def depth_of_jpeg2000(image):
    """Bits per channel, from the SIZ segment, which follows the start of the code stream (ISO 15444-1, annex A.5.1)."""
    position = image.fp.tell()
    image.fp.seek(0)
    header = image.fp.read(1 << 16)
    image.fp.seek(position)
    start = header.find(b"\xff\x4f\xff\x51")
    return (header[start + 42] & 0x7F) + 1 if start >= 0 and len(header) > start + 42 else 8


def depth_of_heif(path):
    """Bits per channel of a HEIC or AVIF file, if more than 8, from the property "pixi" (ISO 23008-12, 6.5.6); else 0"""
    if not path.lower().endswith((".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif")):
        return 0
    with open(path, "rb") as file:
        header = file.read(1 << 16)
    start, bits = header.find(b"pixi"), []
    while start >= 0:
        bits += header[start + 9 : start + 9 + int.from_bytes(header[start + 8 : start + 9])]
        start = header.find(b"pixi", start + 4)
    return max(bits) if bits and 8 < max(bits) <= 16 else 0


@functools.cache
def has_imagecodecs(path):
    """Whether imagecodecs is installed. If not, prints once that 16 bits are read as 8. path: an example"""
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        print(f"note: {path}: its 16 bits are read as 8. To keep them: {INSTALL}", file=sys.stderr)
        return False
    return True
