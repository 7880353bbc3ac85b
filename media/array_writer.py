"""
Writes images that arrays.py reads, at full depth: TIFF, .npy, and PNG, PPM and JPEG 2000 of 16 bits.
"""

import io

import numpy as np

from media.arrays import to_unit_range
from media.png import with_chunks
from media.tiff_writer import write_tiff
from utils import whole_file


def can_write(kind, dtype, n_channels):
    """Whether write_array can write pixels of this type and number of channels, alpha included, in a format."""
    if kind == "NPY" or kind == "TIFF":
        return True
    if kind == "PPM":
        return dtype == np.uint16 and n_channels == 3
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return kind in ("PNG", "JPEG2000") and dtype == np.uint16 and n_channels <= 4


def write_array(path, kind, pages, info):
    """Writes uint8 or uint16 arrays (H, W, channels) at full depth: to .npy as float32 in [0, 1], or in the type that
    `info` names as "dtype"; otherwise as integers. TIFF and .npy also take arrays of int16 and float32, and write them as
    they are.

    kind:  "NPY", "TIFF", "PNG", "PPM" or "JPEG2000"
    pages: list of pairs (pixels, alpha or None); formats other than TIFF take one
    info:  as in Array; or a list of these, one for each page
    Raises InputError if a package that is needed is not installed.
    """
    infos = info if isinstance(info, list) else [info] * len(pages)
    if kind == "TIFF":
        with whole_file(path) as temporary:
            return write_tiff(path, temporary, pages, infos)
    pixels, alpha = pages[0]
    if kind == "NPY":
        dtype = infos[0].get("dtype", "float32")
        values = np.ascontiguousarray(in_type(pixels, dtype) if pixels.dtype.kind == "u" else pixels)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(values))
        parts = [header.getvalue(), values]  # np.save would not say why it fails, such as on a full disk
    else:
        parts = encode(pixels if alpha is None else np.dstack([pixels, alpha]), kind, infos[0])
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        for part in parts:
            file.write(part)


def encode(pixels, kind, info):
    """uint16 (H, W, channels) -> list of bytes, the contents of a file"""
    if kind == "PPM":
        height, width = pixels.shape[:2]
        return [b"P6\n%d %d\n65535\n" % (width, height), pixels.astype(">u2").tobytes()]
    import imagecodecs

    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if kind == "PNG":
        return [with_chunks(imagecodecs.png_encode(pixels), info)]
    return [imagecodecs.jpeg2k_encode(pixels, reversible=True)]


def in_type(pixels, dtype):
    """uint8 or uint16 -> the same in another type: "uint8", "uint16", or "float32" in [0, 1]"""
    if pixels.dtype == dtype:
        return pixels
    values = to_unit_range(pixels)
    return values if dtype == "float32" else (values * np.iinfo(dtype).max).round().astype(dtype)
