"""
Generators trained with --range_A or --range_B: files with values of another range, such as depth in mm or Hounsfield
units. They are scaled on reading, and results are written in the range of their domain.
"""

import dataclasses

import numpy as np

from media.array_writer import write_array
from media.arrays import Array, load_pixels, read_arrays, to_unit_range
from media.depth import is_array
from media.picture_writer import format_of, write_picture
from media.pictures import array_to_picture, join, read_picture
from utils import InputError

INTEGERS = (np.uint16, np.int16)
DEEP_FORMATS = ("PNG", "PPM", "JPEG2000")  # hold integers from 0 to 65535; TIFF and .npy hold all values


def read_in_range(path, channels, resize, ranges):
    """As media.pictures.read_picture. ranges: of a Translator; the result has 16 bits if there are any."""
    value_range, range_out = ranges
    if value_range and is_array(path, channels):
        return join([array_to_picture(array, resize) for array in read_arrays(path, channels, value_range)])
    if value_range or range_out:
        pixels = load_pixels(path, channels, None, None, as_float=True, value_range=value_range)
        return array_to_picture(Array(pixels), resize)
    return read_picture(path, channels, resize)


def write_in_range(path, kind, picture, value_range):
    """As media.picture_writer.write_picture. value_range: (low, high), what 0 and 65535 stand for, or None"""
    if value_range is None:
        return write_picture(path, kind, picture)
    if not fits(kind, value_range):
        raise InputError(f"{path}: {misfit(kind, value_range)}")
    pages = picture.pages_to_write(with_alpha=False)
    is_float = kind in ("NPY", "TIFF") and any("float" in info.get("dtype", "") for *_, info in pages)
    values = [from_unit_range(page / np.float32(65535), value_range, is_float) for page, *_ in pages]
    notes = [] if picture.alpha is None else [f"{path}: written without transparency, as values of a range"]
    if kind in ("NPY", "TIFF"):
        infos = [info | {"dtype": page.dtype.name} for page, (*_, info) in zip(values, pages)]
        write_array(path, kind, [(page, None) for page in values], infos)
        return notes
    plain = dataclasses.replace(picture, pixels=np.stack(values[:1]), alpha=None, straight=None, pages=[])
    return notes + write_picture(path, kind, plain)


def from_unit_range(pixels, value_range, is_float=False):
    """float32 (H, W, channels) in [0, 1] -> values of the range: uint16 or int16 if it consists of such integers, else
    float32. is_float: float32 in any case, as the input holds floats"""
    low, high = value_range
    values = low + pixels.astype(np.float64) * (high - low)
    dtype = None if is_float else integer_type(value_range)
    return values.astype(np.float32) if dtype is None else values.round().astype(dtype)


def integer_type(value_range):
    low, high = value_range
    if low != round(low) or high != round(high) or high - low < 255:
        return None
    return next((t for t in INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max), None)


def fits(kind, value_range):
    return kind in ("NPY", "TIFF") or (kind in DEEP_FORMATS and integer_type(value_range) == np.uint16)


def misfit(kind, value_range):
    low, high = value_range
    return f"values from {low:g} to {high:g} do not fit into {kind}: --format tif or npy"


def check_ranges(targets, ranges):
    """Raises InputError if a target's format cannot hold the values of the range of the results."""
    for target in targets if ranges[1] else ():
        kind = format_of(target)
        if kind is None or not fits(kind, ranges[1]):
            raise InputError(f"{target}: {misfit(kind or 'a video', ranges[1])}")


def scale_input(array, value_range):
    """An array of values of a range -> uint16"""
    return (to_unit_range(array, value_range) * 65535).round().astype(np.uint16)
