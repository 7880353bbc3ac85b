"""
Images with more than 8 bits or other than 1 or 3 channels: TIFF, .npy, and PNG, PPM and JPEG 2000 of 16 bits. They come
from satellites, scanners, microscopes and depth cameras. Skip this module if your images are photos.

Pillow reads such images only in part: it reduces colours of 16 bits to 8. tifffile reads all TIFF files, and imagecodecs
PNG and JPEG 2000 at full depth. tiff.py decodes TIFF files, array_writer.py writes all of them.
"""

import dataclasses
import math
import os
import re

import numpy as np
from PIL import Image

from media.colours import deep_to_srgb, described_colours, is_converted
from media.decoded import Decoded
from media.depth import TIFF, depth_of_jpeg2000, is_array
from media.images import check_smallest, load_image, target_size
from media.limits import check_pixels, open_image_file, truncated_allowed
from media.metadata import metadata_to_keep
from media.png import whole_png
from media.reading import reading
from media.tiff import decode_tiff
from utils import InputError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow converts to gray


@dataclasses.dataclass
class Array:
    """An image at full precision, as a person sees it; compare images.as_seen.

    pixels:   float32 (H, W, channels) in [0, 1], upright, in sRGB, composited onto white
    alpha:    float32 (H, W) in [0, 1], or None
    straight: `pixels` without the white, or None
    info:     as of metadata.metadata_to_keep; from a TIFF file also "extratags", see tiff.kept_tags; from an .npy file of
              unsigned integers "dtype"; "notes" is a list of lines on what was left out
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    straight: np.ndarray | None = None
    info: dict = dataclasses.field(default_factory=dict)


def load_array(path, channels, size=None, smallest=None, value_range=None):
    """Reads an image at full precision -> float32 array (H, W, channels) in [0, 1], as read_arrays does; of several
    pages, the first.

    channels:    any number of channels; the file must have as many
    size:        (height, width) to resize to, bicubic, or a function (height, width) -> (height, width). None keeps it
    smallest:    minimum (height, width) before resizing, or None
    value_range: see to_unit_range
    Raises InputError, naming the path.
    """
    pixels = read_arrays(path, channels, value_range)[0].pixels
    height, width = pixels.shape[:2]
    check_smallest(path, height, width, smallest)
    size = target_size(size, height, width)
    if size and size != (height, width):
        pixels = resize_array(pixels, size)
    return np.ascontiguousarray(pixels)


def load_pixels(path, channels, size, smallest, as_float, value_range=None):
    """Decodes a photo or an array -> uint8 (H, W, channels), or float32 from 0 to 1 if `as_float`. Arguments as for
    load_array and images.load_image."""
    if as_float and is_array(path, channels):
        return load_array(path, channels, size, smallest, value_range)
    image = load_image(path, channels, size, smallest)
    if value_range:
        return to_unit_range(image, value_range)
    return image.astype(np.float32) / 255 if as_float else image


def read_arrays(path, channels, value_range=None):
    """Reads an image at full precision -> list of Array, one for each page of a TIFF.

    Values are scaled to [0, 1], see to_unit_range. Channels may come first or last in the file. With 1 or 3
    channels, gray and RGB are converted to each other, except in .npy files.

    Raises InputError, naming the path.
    """
    with reading(path):
        pages = [finish(page, path, channels, value_range) for page in decode(path, channels)]
        if not pages:
            raise InputError(f"{path}: broken, it holds no image")
        return pages


def raw_values(path, channels):
    """The values of an image as stored, without alpha -> (array (H, W, channels), upright; the value that counts as 1).
    Raises InputError."""
    with reading(path):
        page = decode(path, channels)[0]
        values = channels_last(page, path, channels)
        values = upright(values[..., :-1] if page.has_alpha else values, page.orientation)
        return values, page.top or largest(values.dtype)


def decode(path, channels):
    """-> list of Decoded"""
    name = path.lower()
    if name.endswith(".npy"):
        values = load_npy(path)
        return [Decoded(values, info={"dtype": values.dtype.name} if values.dtype in (np.uint8, np.uint16) else {})]
    if name.endswith(TIFF):
        return decode_tiff(path, channels)
    with open(path, "rb") as file, open_image_file(file, path) as image:
        orientation = image.getexif().get(0x0112, 1)
        info = metadata_to_keep(image, image.info, is_converted(image))
        if image.info.get("icc_profile"):
            info["icc_profile"] = image.info["icc_profile"]  # needed to convert the pixels, see finish
        top = top_of_jpeg2000(image)  # before its pixels are decoded, which closes the file
        values, has_alpha = decode_deep(path, image)
        key = image.info.get("transparency")
        if image.format == "PNG" and key is not None and not has_alpha:  # the one colour that is transparent
            alpha = (values.reshape(*image.size[::-1], -1) != np.array(key)).any(2) * np.iinfo(values.dtype).max
            values, has_alpha = np.dstack([values, alpha.astype(values.dtype)]), True
        colours = None if info.get("icc_profile") else described_colours(image)
        return [Decoded(values, has_alpha, orientation, info, colours, top)]


def load_npy(path):
    """An .npy file -> array. Never executes code from the file."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0}.get(version[0], np.lib.format.read_array_header_2_0)
        shape, is_fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded: they may hold code")
        n_bytes = dtype.itemsize * math.prod(map(int, shape))
        is_truncated = n_bytes > os.path.getsize(path) - file.tell()
        if is_truncated and not truncated_allowed():
            raise ValueError(f"truncated: the shape is {shape}")
        check_pixels(path, *sorted([1, 1, *shape])[-2:], math.prod(shape))
        if is_truncated:
            return np.frombuffer(file.read().ljust(n_bytes, b"\0"), dtype).reshape(shape, order="CF"[is_fortran])
    return np.load(path, allow_pickle=False)


def decode_deep(path, image):
    """Pixels of a PNG, JPEG 2000 or PPM file, and of what Pillow decodes at full depth -> (array, whether the last
    channel is alpha)

    image: the open PIL image of the file"""
    if image.format in ("PNG", "JPEG2000") and image.mode[0] not in "IF":
        import imagecodecs

        with open(path, "rb") as file:
            data = file.read()
        if image.format == "JPEG2000":
            values = imagecodecs.jpeg2k_decode(data)
        else:
            values = imagecodecs.png_decode(whole_png(data) if truncated_allowed() else data)
        return values, values.ndim == 3 and values.shape[2] in (2, 4)
    if image.format == "PPM" and image.mode == "RGB":
        return decode_ppm(path, image), False
    return np.asarray(image), False


def decode_ppm(path, image):
    """A PPM file of more than 8 bits -> float32 (H, W, 3) in [0, 1]. Of a truncated one, the rest is black, if allowed.

    image: the open PIL image of the file"""
    tile, n_values = image.tile[0], 3 * image.width * image.height
    with open(path, "rb") as file:
        file.seek(tile.offset)
        if tile.codec_name == "ppm_plain":  # decimal numbers
            numbers = re.sub(rb"#[^\r\n]*", b"", file.read()).split(maxsplit=n_values)[:n_values]
            values = np.array(list(map(int, numbers)), np.float32)
        else:
            data = file.read(2 * n_values)
            values = np.frombuffer(data[: len(data) // 2 * 2], ">u2")
    if len(values) < n_values:
        if not truncated_allowed():
            raise ValueError(f"truncated: {len(values)} of {n_values} values")
        values = np.pad(values, (0, n_values - len(values)))
    return (values.reshape(image.height, image.width, 3) / np.float32(tile.args[-1])).clip(0, 1)


def top_of_jpeg2000(image):
    """The largest value in the array that decode_deep returns for a JPEG 2000 file of 9 to 15 bits; None for others"""
    bits = depth_of_jpeg2000(image) if image.format == "JPEG2000" else 16
    if not 8 < bits < 16:
        return None
    return (2**bits - 1) << (16 - bits if image.mode[0] == "I" else 0)  # Pillow shifts gray to 16 bits


def channels_last(page, path, channels):
    """The values of a Decoded -> (H, W, channels), and alpha if there is one. Raises InputError for another shape."""
    values = page.values[:, :, None] if page.values.ndim == 2 else page.values
    has_alpha, is_npy = bool(page.has_alpha), path.lower().endswith(".npy")
    fitting = {channels} if is_npy or channels not in (1, 3) else {1 + has_alpha, 3 + has_alpha}
    if values.ndim == 3 and values.shape[2] not in fitting and values.shape[0] in fitting:
        values = values.transpose(1, 2, 0)  # (channels, H, W), the usual order in remote sensing
    if values.ndim != 3 or values.shape[2] not in fitting or 0 in values.shape:
        shape = " x ".join(map(str, page.values.shape))
        raise InputError(f"{path}: shape is {shape}, expected height x width x {channels} (--channels_A, _B)")
    return values


def finish(page, path, channels, value_range=None):
    """Decoded -> Array: scaled, upright, in sRGB, with as many channels as needed, and composited onto white"""
    values = channels_last(page, path, channels)
    try:
        if page.has_alpha and value_range:  # alpha has no other range than that of its type
            scaled = to_unit_range(values[..., :-1], value_range), to_unit_range(values[..., -1:], top=page.top)
            values = np.concatenate(scaled, axis=2)
        else:
            values = to_unit_range(values, value_range, page.top)
    except ValueError as error:
        raise InputError(f"{path}: {error}")
    values = upright(values, page.orientation)
    if page.inverted and not value_range:
        n_colours = values.shape[2] - bool(page.has_alpha)
        values = np.concatenate([1 - values[..., :n_colours], values[..., n_colours:]], axis=2)
    if value_range:
        page.info["dtype"] = page.values.dtype.name
    if not page.has_alpha:
        pixels, profile = deep_to_srgb(values, page.info.get("icc_profile"), page.colours)
        return Array(to_channels(pixels, channels), info=page.info | {"icc_profile": profile})
    alpha, colours = values[..., -1], values[..., :-1]
    if page.has_alpha == "premultiplied":
        colours = (colours / alpha[..., None].clip(1e-6)).clip(0, 1)
    colours, profile = deep_to_srgb(colours, page.info.get("icc_profile"), page.colours)
    colours = to_channels(colours, channels)
    pixels = colours * alpha[..., None] + (1 - alpha[..., None])
    return Array(pixels, alpha, colours, page.info | {"icc_profile": profile})


def to_channels(pixels, channels):
    """(H, W, 1 or 3) -> (H, W, channels): gray to RGB, or RGB to gray; others unchanged"""
    if pixels.shape[2] == channels:
        return pixels
    return pixels.repeat(3, axis=2) if channels == 3 else (pixels @ LUMA)[..., None]


def upright(values, orientation):
    """(H, W, channels) as stored -> as displayed, by the orientation of EXIF and TIFF"""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    # rows and columns to reverse, after the transposition
    rows, columns = {2: (0, 1), 3: (1, 1), 4: (1, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}.get(orientation, (0, 0))
    return values[:: -1 if rows else 1, :: -1 if columns else 1]


def largest(dtype):
    """The value that counts as 1. Integers of more than 16 bits count as 16-bit values: Pillow returns those as 32-bit
    integers."""
    return 1 if dtype.kind == "f" else np.iinfo(dtype).max if dtype.kind in "iu" and dtype.itemsize <= 2 else 65535


def to_unit_range(pixels, value_range=None, top=None):
    """Scales values to float32 in [0, 1]: 8-bit and 16-bit integers are divided by the largest value of their type,
    wider integers by 65535; floats must already be in that range.

    value_range: (low, high), the values that become 0 and 1, of any type; values beyond are clipped
    top:         the largest value of integers, if it is not that of their type: 4095 for 12 bits
    Raises ValueError for values out of range, for NaN, and for other types.
    """
    original = pixels
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"holds {pixels.dtype}, expected integers or floats")
    if value_range:
        low, high = value_range
        pixels = ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    elif pixels.dtype.kind in "iu":
        pixels = pixels.astype(np.float32) / (top or largest(pixels.dtype))
    else:
        pixels = pixels.astype(np.float32)
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(out_of_range(original))
    return pixels


def out_of_range(pixels):
    """A message on values that cannot be scaled without a range."""
    low, high = pixels.min(), pixels.max()
    sign = "negative values, " if low < 0 else ""
    found = f"{sign}{pixels.dtype} from {low:g} to {high:g}; expected 8 or 16 bits, or floats from 0 to 1"
    if np.isnan(low):
        return f"{found}. NaN cannot be used"
    example = f"{low:g} {high:g}" if low < high else "LOW HIGH"
    return f"{found}. To train with other values, name their range: --range_A {example}, or --range_B for domain B"


def resize_array(pixels, size):
    """uint8, uint16, or float32 in [0, 1], (H, W, channels) -> resized to `size`, (height, width), bicubic."""
    planes = map(Image.fromarray, np.moveaxis(pixels, 2, 0))
    resized = [plane.resize(size[::-1], Image.Resampling.BICUBIC) for plane in planes]
    resized = np.stack(resized, 2)
    return resized.clip(0, 1) if pixels.dtype == np.float32 else resized  # bicubic interpolation overshoots
