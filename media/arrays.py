"""
Images that are more than a picture on a screen: 16 bits or floats, any number of channels, in TIFF and .npy files; for
satellites, microscopes and depth cameras. Skip this if your images are photos.
"""

import contextlib
import os

import numpy as np
from PIL import Image

from media.files import reading
from media.images import check_smallest, load_image
from utils import InputError, whole_file

TIFF = (".tif", ".tiff")
NO_TIFFFILE = "pip install tifffile imagecodecs"


def is_array(path, channels, integers=True):
    """Whether an image has to be read by load_array: it is .npy, has more than 8 bits, or is to have other than 1 or 3
    channels.

    integers: whether gray of 16 bits counts, too; Pillow keeps those digits, but not those of floats"""
    if path.lower().endswith(".npy") or channels not in (1, 3):
        return True
    if channels == 3 and not path.lower().endswith(TIFF):  # nothing to look for, so the file is opened once only
        return False
    if not os.path.isfile(path):  # to open a pipe would wait for ever
        return False
    try:
        with Image.open(path) as image:  # its header is all that is read
            # of colours of 16 bits Pillow keeps 8; TIFFs have another reader
            deep = image.format == "TIFF" and image.mode == "RGB" and ";16" in str(image.tile)
            return image.mode[0] in ("IF" if integers else "F") if channels == 1 else deep
    except Exception:  # Pillow raises nearly anything; what it cannot read, such as a TIFF of 3 x 16 bits, tifffile may
        return path.lower().endswith(TIFF)


def load_array(path, channels, size=None, smallest=None):
    """Decodes one image -> float32 array (H, W, channels) from 0 to 1, with all its digits.

    Integers of 8 and 16 bits are divided by the largest number that they can hold, wider ones by 65535; floats must be
    from 0 to 1. None may be negative.
    Arguments as those of load_image. Raises InputError, naming the path."""
    with reading(path):
        pixels = read_array(path)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim == 3 and pixels.shape[2] != channels and pixels.shape[0] == channels:
            pixels = pixels.transpose(1, 2, 0)  # (channels, H, W), as remote sensing likes it
        if pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
            shape = " x ".join(map(str, pixels.shape))
            raise InputError(
                f"{path}: of shape {shape}, expected height x width x {channels}, as --channels_A or _B say"
            )
        pixels = scaled(pixels)
    height, width = pixels.shape[:2]
    check_smallest(path, height, width, smallest)
    if size and size != (height, width):
        resized = [
            Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC) for plane in np.moveaxis(pixels, 2, 0)
        ]
        pixels = np.stack(resized, 2).clip(0, 1)  # cubic curves overshoot
    return np.ascontiguousarray(pixels)


def load_pixels(path, channels, size, smallest, as_float):
    """Decodes a photo or an array -> uint8 (H, W, channels), or float32 from 0 to 1 if `as_float`. Arguments as for
    load_array and images.load_image."""
    if as_float and is_array(path, channels):
        return load_array(path, channels, size, smallest)
    image = load_image(path, channels, size, smallest)
    return image.astype(np.float32) / 255 if as_float else image


def read_array(path):
    """The numbers in a file as they are: numpy array, (H, W), (H, W, channels) or (channels, H, W)."""
    if path.lower().endswith(".npy"):
        return np.load(path, allow_pickle=False)
    if path.lower().endswith(TIFF):
        try:
            import tifffile
        except ImportError:  # what Pillow can
            with contextlib.suppress(OSError), Image.open(path) as image:
                if image.mode in ("L", "I;16", "I;16B", "F", "RGB", "RGBA") and image.n_frames == 1:
                    return np.asarray(image)
            raise InputError(f"{path}: a TIFF of this kind needs another package: {NO_TIFFFILE}")
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


def scaled(pixels):
    """Numbers of a known range -> float32 from 0 to 1."""
    original = pixels
    if pixels.dtype.kind in "iu":  # Pillow hands out 16 bits as 32
        pixels = pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if pixels.dtype.itemsize <= 2 else 65535)
    elif pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    if pixels.dtype != np.float32 or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(
            f"{original.dtype} from {original.min()} to {original.max()}; expected 8 or 16 bits, or floats from 0 to 1"
        )
    return pixels


def write_array(path, pixels):
    """uint8 or uint16 (H, W, channels) -> an .npy file, floats from 0 to 1, or a TIFF of these integers."""
    with whole_file(path) as temporary:
        if path.lower().endswith(".npy"):
            with open(temporary, "wb") as file:
                np.save(file, scaled(pixels))
            return
        try:
            import tifffile
        except ImportError:
            raise InputError(
                f"{path}: to write TIFFs of {pixels.shape[2]} channels: {NO_TIFFFILE}; or use --format npy"
            )
        tifffile.imwrite(
            temporary, pixels, photometric="rgb" if pixels.shape[2] == 3 else "minisblack", planarconfig="contig"
        )
