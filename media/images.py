"""
Decoding images for training and evaluation: one file -> 8-bit pixels with a fixed number of channels. Everything else
that the file holds is dropped. To keep it (alpha, 16 bits, frames, EXIF), see pictures.py, which translation uses.
"""

import contextlib
import os

import numpy as np
from PIL import Image, ImageOps

from media.reading import reading
from utils import InputError

HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")  # see limits.register_heif
# The formats that are opened, see limits.open_pil. Not those whose plugins start another program (EPS), open a file of
# any format inside of their own (IPTC), or only recognise a format (MPEG, GRIB)
READABLE = {*("AVIF BLP BMP CUR DCX DDS DIB FITS FLI FTEX GBR GIF HEIF ICNS ICO IM JPEG JPEG2000 MPO MSP PCX PIXAR PNG "
              "PPM PSD QOI SGI SPIDER SUN TGA TIFF WEBP XBM XPM").split()}  # fmt: skip
# .mpo is a JPEG with a second picture inside. Pillow opens it as JPEG and knows the extension, but does not connect both
IMAGE_EXTENSIONS = (
    *(e for e, kind in Image.registered_extensions().items() if kind in READABLE), ".mpo", ".npy", *HEIF,
)  # fmt: skip


@contextlib.contextmanager
def open_image(path, smallest=None, needed=None):
    """Opens an image file for a `with` block and checks its size. Only the header is read at first.

    smallest: minimum (height, width), or None
    needed:   function (width, height) -> the longest side that is needed, or None for all of the image. A JPEG is then
              decoded at a reduced size, at least twice that long, which is faster
    Raises InputError, naming the path, if anything goes wrong in the block, or if the image has more pixels than
    limits.max_pixels().
    """
    from media import limits  # imported here, so that `import cyclegan` is fast

    with reading(path), open(path, "rb") as file:  # Pillow 12 forgets the orientation of some TIFF files opened by name
        with limits.open_image_file(file, path) as image:
            check_image_size(path, image, smallest)
            if needed and (side := needed(*image.size)):
                image.draft(None, (2 * side, 2 * side))
            if image.width * image.height > limits.max_pixels():
                raise limits.too_large(path, image.size)
            yield image


def load_image(path, channels=3, size=None, smallest=None):
    """Decodes an image file -> uint8 array (H, W, channels), see image_to_array.

    channels: 1 for gray, 3 for RGB
    size:     (height, width) to resize to, bicubic, or a function (height, width) -> (height, width). None keeps it
    smallest: minimum (height, width) before resizing, or None
    Raises InputError, naming the path.
    """
    if path.lower().endswith(".npy"):
        raise InputError(
            f"{path}: is an .npy file among 8-bit images. The first file of a folder decides how all are read: put the two "
            "kinds into separate folders"
        )

    def needed(width, height):  # EXIF may swap the sides
        return size and max(*target_size(size, height, width), *target_size(size, width, height))

    with open_image(path, smallest, needed) as image:
        if image.format in ("PNG", "TIFF") and getattr(image, "is_animated", False):
            from media.frames import content_frames  # imported here, so that `import cyclegan` is fast

            image.seek(content_frames(image)[0])
        return image_to_array(image, channels, size)


def target_size(size, height, width):
    """The argument `size` of load_image, and the size of an image -> (height, width) to resize it to"""
    return size(height, width) if callable(size) else size


def image_to_array(image, channels=3, size=None):
    """PIL image -> uint8 array (H, W, channels), as a person sees the image, see as_seen. Takes the first frame of an
    animation.

    Arguments as in load_image."""
    image, *_ = as_seen(scale_to_8_bit(apply_orientation(image)), channels)
    if size:
        height, width = target_size(size, image.height, image.width)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image).reshape(image.height, image.width, channels)


def as_seen(image, channels):
    """What a person sees of a PIL image with 8 bits per channel -> PIL images (seen, alpha, straight).

    seen:     mode L or RGB, in sRGB, transparency composited onto white: colours that nobody sees have no effect
    alpha:    mode L, or None without transparency
    straight: `seen` before it was composited, or None without transparency
    Training, evaluation and translation use this function, so that networks see the same in each.
    """
    from media.colours import to_srgb  # imported here, so that `import cyclegan` is fast

    mode, colours = {1: "L", 3: "RGB"}[channels], to_srgb(image)
    if not image.has_transparency_data:
        return colours.convert(mode), None, None
    alpha = image.convert("RGBA").getchannel("A")
    seen = colours.convert("RGBA")
    seen.putalpha(alpha)
    seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return seen.convert(mode), alpha, colours.convert(mode)


def apply_orientation(image):
    """Decodes an image and rotates it as its EXIF orientation says. Invalid EXIF is ignored."""
    image.load()  # outside the try block: a broken image is an error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds of errors on invalid EXIF
        return image


def scale_to_8_bit(image):
    """Scales PIL images of integers (0 to 65535) and floats (0 to 1) to mode "L". Returns other modes unchanged.

    Raises ValueError if a value is out of range."""
    if image.mode[0] not in "IF":
        return image
    top = 1.0 if image.mode == "F" else 65535
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"mode {image.mode} with values from {values.min()} to {values.max()}, expected 0 to {top}")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def check_image_size(path, image, smallest):
    """Raises InputError if an open PIL image, with its orientation applied, is smaller than (height, width)."""
    width, height = image.size
    with contextlib.suppress(Exception):  # invalid EXIF, as in apply_orientation
        # Orientations 5 to 8 swap the axes. image.getexif() would decode all of a PNG; the base class does not
        if Image.Image.getexif(image).get(0x0112, 1) > 4:
            width, height = height, width
    check_smallest(path, height, width, smallest)


def check_smallest(path, height, width, smallest):
    """Raises InputError if an image is smaller than `smallest`, (height, width). None accepts every size."""
    if smallest and (height < smallest[0] or width < smallest[1]):
        raise InputError(
            f"{path}: {width} x {height} pixels, smaller than the crop of {smallest[1]} x {smallest[0]}. "
            "Train with a smaller --img_height and --img_width, or scale such images up with --enlarge"
        )


def stem(path):
    """'a/b.c.jpg' -> 'b.c'"""
    return os.path.splitext(os.path.basename(path))[0]
