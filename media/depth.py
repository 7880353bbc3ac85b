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
    from media.limits import open_pil  # imported here, so that `import cyclegan` is fast

    try:
        with open_pil(path) as image:  # reads the header only
            return is_deep(image) and (image.format not in ("PNG", "JPEG2000") or has_imagecodecs(path))
    except Exception:  # tifffile may read what Pillow cannot, such as colour planes of 3 x 16 bits
        return name.endswith(TIFF)


def is_deep(image):
    """Whether the file of an open PIL image, not decoded yet, has more than 8 bits per channel. PNG animations have 8,
    because their frames are composited."""
    if image.mode[0] in "IF":
        return True
    if image.mode not in ("L", "LA", "RGB", "RGBA", "RGBX"):
        return False  # CMYK and the like
    if image.format == "JPEG2000":
        return depth_of_jpeg2000(image) > 8
    if image.format == "PPM":
        return any(tile.codec_name == "ppm" and tile.args[-1] > 255 for tile in image.tile)
    is_still = image.format != "PNG" or getattr(image, "n_frames", 1) == 1
    return image.format in ("PNG", "TIFF") and ";16" in str(image.tile) and is_still


def depth_of_jpeg2000(image):
    """Bits per channel, from the SIZ segment, which follows the start of the code stream (ISO 15444-1, annex A.5.1)."""
    position = image.fp.tell()
    image.fp.seek(0)
    header = image.fp.read(1 << 16)
    image.fp.seek(position)
    start = header.find(b"\xff\x4f\xff\x51")
    return (header[start + 42] & 0x7F) + 1 if start >= 0 and len(header) > start + 42 else 8


@functools.cache
def has_imagecodecs(path):
    """Whether imagecodecs is installed. If not, prints once that 16 bits are read as 8. path: an example"""
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        print(f"note: {path}: its 16 bits are read as 8. To keep them: {INSTALL}", file=sys.stderr)
        return False
    return True
