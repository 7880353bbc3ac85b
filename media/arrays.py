"""
Images with more than 8 bits or other than 1 or 3 channels, in TIFF and .npy files: from satellites, microscopes and
depth cameras. Skip this module if your images are photos.
"""

import contextlib
import os

import numpy as np
from PIL import Image

from media.files import reading
from media.images import check_smallest, load_image
from utils import InputError, whole_file

TIFF = (".tif", ".tiff")
INSTALL_TIFFFILE = "pip install tifffile imagecodecs"


def is_array(path, channels, integers=True):
    """True if an image must be read with load_array: it is an .npy file, has more than 8 bits, or `channels` is neither
    1 nor 3.

    integers: False if 16-bit gray does not count, because the caller reads it with Pillow (which truncates floats)"""
    if path.lower().endswith(".npy") or channels not in (1, 3):
        return True
    if channels == 3 and not path.lower().endswith(TIFF):  # 8 bits in any case, so save opening the file twice
        return False
    if not os.path.isfile(path):  # opening a pipe would block
        return False
    try:
        with Image.open(path) as image:  # reads the header only
            # Pillow reduces 16-bit RGB TIFFs to 8 bits
            deep = image.format == "TIFF" and image.mode == "RGB" and ";16" in str(image.tile)
            return image.mode[0] in ("IF" if integers else "F") if channels == 1 else deep
    except Exception:  # tifffile may read what Pillow cannot, such as RGB of 3 x 16 bits
        return path.lower().endswith(TIFF)


def load_array(path, channels, size=None, smallest=None):
    """Reads an image at full precision -> float32 array (H, W, channels) in [0, 1].

    8-bit and 16-bit integers are divided by the largest value of their type, wider integers by 65535. Floats must
    already be in [0, 1]. Negative values are an error. Channels may come first or last in the file.

    channels: any number of channels; the file must have as many
    size:     (height, width) to resize to, bicubic. None keeps the size
    smallest: minimum (height, width) before resizing, or None
    Raises InputError, naming the path.
    """
    with reading(path):
        pixels = read_array(path)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim == 3 and pixels.shape[2] != channels and pixels.shape[0] == channels:
            pixels = pixels.transpose(1, 2, 0)  # (channels, H, W), the usual order in remote sensing
        if pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
            shape = " x ".join(map(str, pixels.shape))
            raise InputError(f"{path}: shape is {shape}, expected height x width x {channels} (--channels_A, _B)")
        pixels = to_unit_range(pixels)
    height, width = pixels.shape[:2]
    check_smallest(path, height, width, smallest)
    if size and size != (height, width):
        pixels = resize_array(pixels, size)
    return np.ascontiguousarray(pixels)


def load_pixels(path, channels, size, smallest, as_float):
    """Decodes a photo or an array -> uint8 (H, W, channels), or float32 from 0 to 1 if `as_float`. Arguments as for
    load_array and images.load_image."""
    if as_float and is_array(path, channels):
        return load_array(path, channels, size, smallest)
    image = load_image(path, channels, size, smallest)
    return image.astype(np.float32) / 255 if as_float else image


def read_array(path):
    """The values in a file, unchanged -> array (H, W), (H, W, channels) or (channels, H, W)."""
    if path.lower().endswith(".npy"):
        return np.load(path, allow_pickle=False)
    if path.lower().endswith(TIFF):
        try:
            import tifffile
        except ImportError:  # some kinds of TIFF can be read with Pillow
            with contextlib.suppress(OSError), Image.open(path) as image:
                if image.mode in ("L", "I;16", "I;16B", "F", "RGB", "RGBA") and image.n_frames == 1:
                    return np.asarray(image)
            raise InputError(f"{path}: reading this kind of TIFF requires tifffile: {INSTALL_TIFFFILE}")
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


def to_unit_range(pixels):
    """Scales integers to float32 in [0, 1], see load_array. Floats must already be in that range.

    Raises ValueError for values out of range and for other types."""
    original = pixels
    if pixels.dtype.kind in "iu":  # wider ones count as 16-bit values, because Pillow returns those as 32-bit integers
        pixels = pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if pixels.dtype.itemsize <= 2 else 65535)
    elif pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    if pixels.dtype != np.float32 or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"{original.dtype} from {original.min()} to {original.max()}; expected 8 or 16 bits, or floats from 0 to 1"
        )
    return pixels


def resize_array(pixels, size):
    """uint8, uint16, or float32 in [0, 1], (H, W, channels) -> resized to `size`, (height, width), bicubic."""
    planes = map(Image.fromarray, np.moveaxis(pixels, 2, 0))
    resized = [plane.resize(size[::-1], Image.Resampling.BICUBIC) for plane in planes]
    resized = np.stack(resized, 2)
    return resized.clip(0, 1) if pixels.dtype == np.float32 else resized  # bicubic interpolation overshoots


def write_array(path, pixels):
    """Writes a uint8 or uint16 array (H, W, channels): to .npy as float32 in [0, 1], to TIFF as these integers."""
    with whole_file(path) as temporary:
        if path.lower().endswith(".npy"):
            with open(temporary, "wb") as file:
                np.save(file, to_unit_range(pixels))
            return
        try:
            import tifffile
        except ImportError:
            raise InputError(
                f"{path}: writing a TIFF of {pixels.shape[2]} channels requires tifffile: {INSTALL_TIFFFILE}. "
                "Or use --format npy"
            )
        photometric = "rgb" if pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(temporary, pixels, photometric=photometric, planarconfig="contig")
