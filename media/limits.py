"""
Images so large that they may be made to fill the memory: how many pixels are accepted, and the way out.
"""

import contextlib
import re
import warnings

from PIL import Image, ImageFile, JpegImagePlugin

from utils import InputError


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


def max_pixels():
    """The number of pixels above which Pillow refuses an image, which may be made to fill the memory."""
    return int(2 * (Image.MAX_IMAGE_PIXELS or 1e18))


def too_large(path, size):
    return InputError(f"{path}: {size[0]} x {size[1]} pixels, {advice()}")


def advice():
    return (
        f"more than the limit of {max_pixels()} pixels. If you trust the file, raise the limit with --max_pixels of "
        "translate.py; a JPEG can also be translated with --size. To train on it, make it smaller"
    )
