"""
Which images are opened: the formats that are safe to open, and how many pixels are accepted. A file can be made to start
a program, or to fill the memory.
"""

import contextlib
import os
import re
import warnings

from PIL import Image, ImageFile, JpegImagePlugin

from media.colours import note_coded_colours
from media.images import HEIF, READABLE
from utils import InputError

PIXELS = 178_956_970  # the default limit, Pillow's own
# The limits for images that are mostly repetition, such as a white page of 177 megapixels in 22 KB. No photo is
DENSE, PIXELS_PER_BYTE = 2**25, 1000
WAY_OUT = "If you trust the file, raise the limit with --max_pixels of translate.py. To train on it, make it smaller"
SCANS = 200  # of a progressive JPEG; encoders write about 10. Each takes as long as the whole image


def open_pil(file):
    """PIL.Image.open, for formats of READABLE alone: the only place where this project opens images with Pillow.

    file: path or open file"""
    Image.init()
    return Image.open(file, formats=[kind for kind in Image.ID if kind in READABLE])


def open_image_file(file, path):
    """Opens an image and checks its size -> PIL image. The caller closes it.

    file: the open file; path: its name
    Raises InputError if the image may fill the memory, or is a program."""
    if os.path.getsize(path) >= 4 and file.read(4) in (b"%!PS", b"\xc5\xd0\xd3\xc6"):
        raise InputError(f"{path}: is EPS or PostScript, a program and not an image. Convert it to PNG")
    register_heif(path)
    file.seek(0)
    try:
        image = open_pil(file)
    except Image.DecompressionBombError as error:
        image = open_jpeg(file, path, error)
    check_density(path, image.width * image.height)
    if image.format in ("PNG", "HEIF", "AVIF"):
        note_coded_colours(image, file)
    if image.info.get("progressive"):
        check_scans(file, path)
    return image


def register_heif(path):
    """Lets Pillow open HEIC and HEIF, the formats of iPhones, if `path` is such a file. Raises InputError if that
    requires a package."""
    if not path.lower().endswith(HEIF):
        return
    try:
        import pillow_heif  # Pillow has no decoder of its own
    except ImportError:
        raise InputError(f"{path}: reading {os.path.splitext(path)[1]} requires pillow-heif: pip install pillow-heif")
    pillow_heif.register_heif_opener()


def open_jpeg(file, path, error):
    """Opens a JPEG above the limit, because it can be decoded at a reduced size -> PIL image

    error: what Pillow said about the file; an InputError repeats its number of pixels, for files of other formats
    """
    file.seek(0)
    try:
        return JpegImagePlugin.JpegImageFile(file)
    except SyntaxError:  # Pillow's error for other formats
        raise InputError(f"{path}: {re.search(r'[0-9]+', str(error))[0]} pixels, {advice()}")


@contextlib.contextmanager
def decoding(pixels, allow_truncated=False):
    """Sets for a `with` block how many pixels an image may have, and whether the part of a truncated image that can be
    decoded is used. Both are settings of Pillow, for all threads."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = pixels / 2, allow_truncated
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # at half of the limit
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def truncated_allowed():
    """Whether `decoding` was asked to use what can be decoded of a truncated image"""
    return ImageFile.LOAD_TRUNCATED_IMAGES


def max_pixels():
    """The number of pixels above which Pillow refuses an image, which may be made to fill the memory."""
    return int(2 * (Image.MAX_IMAGE_PIXELS or 1e18))


def check_pixels(path, width, height, n_values):
    """Raises InputError if an array has too many pixels, or too many values in all its channels and pages."""
    if width * height > max_pixels():
        raise too_large(path, (width, height))
    if n_values > 8 * max_pixels():
        raise InputError(
            f"{path}: {n_values} values, more than 8 channels or pages of {max_pixels()} pixels. {WAY_OUT}"
        )


def check_density(path, pixels):
    """Raises InputError for a large image in a very small file, unless the user has raised the limit of pixels."""
    n_bytes = os.path.getsize(path)
    if pixels > DENSE and pixels > PIXELS_PER_BYTE * n_bytes and max_pixels() <= PIXELS:
        raise InputError(
            f"{path}: {pixels // 10**6} megapixels in a file of {n_bytes // 1000} KB, which may be made to fill the memory. "
            f"If you trust the file, use --max_pixels {PIXELS + 2} of translate.py. To train on it, make it smaller"
        )


def check_scans(file, path):
    """Raises InputError for a JPEG of so many scans that decoding takes forever."""
    position = file.tell()
    file.seek(0)
    n_scans = file.read().count(b"\xff\xda")
    file.seek(position)
    if n_scans > SCANS:
        raise InputError(f"{path}: a JPEG of {n_scans} scans, more than {SCANS}. Save it again, not progressive")


def too_large(path, size):
    return InputError(f"{path}: {size[0]} x {size[1]} pixels, {advice()}")


def advice():
    return f"more than the limit of {max_pixels()} pixels. {WAY_OUT}; a JPEG can also be translated with --size"
