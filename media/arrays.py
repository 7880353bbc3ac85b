"""
Images with more than 8 bits or other than 1 or 3 channels: TIFF, .npy, and PNG, PPM and JPEG 2000 of 16 bits. They come
from satellites, scanners, microscopes and depth cameras. Skip this module if your images are photos.

Pillow reads such images only in part: it reduces colours of 16 bits to 8. tifffile reads all TIFF files, and imagecodecs
PNG and JPEG 2000 at full depth. array_writer.py writes them.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from media.colours import deep_to_srgb, described_colours
from media.depth import INSTALL, TIFF, is_array, is_deep
from media.files import reading
from media.images import check_smallest, load_image, target_size
from media.limits import check_density, check_pixels, open_image_file
from media.metadata import GEO_TAGS, IPTC, TEXT_TAGS, XMP, metadata_to_keep
from utils import InputError

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # as Pillow converts to gray


@dataclasses.dataclass
class Array:
    """An image at full precision, as a person sees it; compare images.as_seen.

    pixels:   float32 (H, W, channels) in [0, 1], upright, in sRGB, composited onto white
    alpha:    float32 (H, W) in [0, 1], or None
    straight: `pixels` without the white, or None
    info:     as of metadata.metadata_to_keep; from a TIFF file also "extratags", see kept_tags
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    straight: np.ndarray | None = None
    info: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Decoded:
    """What a decoder returns.

    values:      as stored: (H, W), (H, W, channels) or (channels, H, W)
    has_alpha:   whether the last channel is transparency; "premultiplied" if colours were multiplied by it
    orientation: as in EXIF, 1 to 8
    info:        as in Array
    colours:     function that converts them to sRGB, without a profile, see colours.described_colours
    """

    values: np.ndarray
    has_alpha: bool | str = False
    orientation: int = 1
    info: dict = dataclasses.field(default_factory=dict)
    colours: Callable | None = None


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
    """The values of an image as stored, without alpha -> array (H, W, channels), upright. Raises InputError."""
    with reading(path):
        page = decode(path, channels)[0]
        values = channels_last(page, path, channels)
        return upright(values[..., :-1] if page.has_alpha else values, page.orientation)


def decode(path, channels):
    """-> list of Decoded"""
    name = path.lower()
    if name.endswith(".npy"):
        return [Decoded(load_npy(path))]
    if name.endswith(TIFF):
        try:
            import tifffile
        except ImportError:
            return [decode_tiff_without_tifffile(path)]
        # not the other files that OME-TIFF, Micro-Manager and NDTiff name
        with tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False) as file:
            return decode_tiff(file, path, channels)
    with open(path, "rb") as file, open_image_file(file, path) as image:
        info, orientation = metadata_to_keep(image, image.info), image.getexif().get(0x0112, 1)
        values, has_alpha = decode_deep(path, image)
        key = image.info.get("transparency")
        if image.format == "PNG" and key is not None and not has_alpha:  # the one colour that is transparent
            alpha = (values.reshape(*image.size[::-1], -1) != np.array(key)).any(2) * np.iinfo(values.dtype).max
            values, has_alpha = np.dstack([values, alpha.astype(values.dtype)]), True
        colours = None if info.get("icc_profile") else described_colours(image)
    return [Decoded(values, has_alpha, orientation, info, colours)]


def load_npy(path):
    """An .npy file -> array. Never executes code from the file."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0}.get(version[0], np.lib.format.read_array_header_2_0)
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded: they may hold code")
        if dtype.itemsize * math.prod(map(int, shape)) > os.path.getsize(path) - file.tell():
            raise ValueError(f"truncated: the shape is {shape}")
    check_pixels(path, *sorted([1, 1, *shape])[-2:], math.prod(shape))
    return np.load(path, allow_pickle=False)


def decode_deep(path, image):
    """Pixels of a PNG, JPEG 2000 or PPM file, and of what Pillow decodes at full depth -> (array, whether the last
    channel is alpha)

    image: the open PIL image of the file"""
    if image.format in ("PNG", "JPEG2000") and image.mode[0] not in "IF":
        import imagecodecs

        with open(path, "rb") as file:
            data = file.read()
        values = (imagecodecs.png_decode if image.format == "PNG" else imagecodecs.jpeg2k_decode)(data)
        return values, values.ndim == 3 and values.shape[2] in (2, 4)
    if image.format == "PPM" and image.mode == "RGB":
        tile, (width, height) = image.tile[0], image.size
        with open(path, "rb") as file:
            file.seek(tile.offset)
            values = np.frombuffer(file.read(6 * width * height), ">u2").reshape(height, width, 3)
        return (values / np.float32(tile.args[-1])).clip(0, 1), False
    return np.asarray(image), False


def decode_tiff_without_tifffile(path):
    """Pillow decodes some kinds of TIFF at full depth -> Decoded"""
    with contextlib.suppress(OSError), open(path, "rb") as file, open_image_file(file, path) as image:
        is_whole = image.mode in ("L", "I;16", "I;16B", "F") or (image.mode in ("RGB", "RGBA") and not is_deep(image))
        if is_whole and image.n_frames == 1:
            values = np.asarray(image)  # newer versions of Pillow turn it upright here, and drop the tag
            return Decoded(values, image.mode == "RGBA", image.getexif().get(0x0112, 1))
    raise InputError(f"{path}: reading this kind of TIFF requires tifffile: {INSTALL}")


def decode_tiff(file, path, channels):
    """An open tifffile.TiffFile of the file `path` -> list of Decoded. Smaller copies of an image (pyramids, thumbnails) are left out."""
    decoded = []
    for series in file.series:
        page = series.keyframe
        check_pixels(path, page.imagewidth, page.imagelength, math.prod(series.shape))
        check_density(path, page.imagewidth * page.imagelength)
        values = series.asarray()
        if page.is_reduced and decoded:
            continue
        photometric = int(page.photometric)
        if channels in (1, 3) and photometric not in (0, 1, 2):
            raise InputError(f"{file.filename}: its colours are {page.photometric.name}. Save it as RGB or gray")
        if photometric == 0 and values.dtype.kind == "u":  # white is 0
            values = np.iinfo(values.dtype).max - values
        extra = int(page.extrasamples[0]) if page.extrasamples and channels in (1, 3) else 0
        info = (
            {"extratags": kept_tags(page)}
            | dpi_of(page)
            | ({"icc_profile": page.iccprofile} if page.iccprofile else {})
        )
        # bands of one image, or images of one size?
        is_stack = channels in (1, 3) and len(series.pages) > 1 and (values.ndim == 4 or len(values) != channels)
        for one in values if is_stack else [values]:
            alpha = {1: "premultiplied", 2: True}.get(extra, False)
            decoded.append(Decoded(one, alpha, int(page.tags.valueof(274, 1)), info))
    return decoded


def kept_tags(page):
    """The tags of a TIFF page that still hold after a translation, as tifffile's extratags"""
    names = (*TEXT_TAGS, XMP, IPTC, *GEO_TAGS)
    return [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in page.tags.values() if tag.code in names]


def dpi_of(page):
    """The resolution of a TIFF page -> {"dpi": (x, y)}, or {}"""
    unit = {2: 1.0, 3: 2.54}.get(int(page.tags.valueof(296, 2)))
    sides = [page.tags.valueof(tag) for tag in (282, 283)]
    if not unit or not all(sides) or not all(isinstance(side, tuple) and side[1] for side in sides):
        return {}
    return {"dpi": tuple(unit * side[0] / side[1] for side in sides)}


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
            scaled = to_unit_range(values[..., :-1], value_range), to_unit_range(values[..., -1:])
            values = np.concatenate(scaled, axis=2)
        else:
            values = to_unit_range(values, value_range)
    except ValueError as error:
        raise InputError(f"{path}: {error}")
    values = upright(values, page.orientation)
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


def to_unit_range(pixels, value_range=None):
    """Scales values to float32 in [0, 1]: 8-bit and 16-bit integers are divided by the largest value of their type,
    wider integers by 65535; floats must already be in that range.

    value_range: (low, high), the values that become 0 and 1, of any type; values beyond are clipped
    Raises ValueError for values out of range, for NaN, and for other types.
    """
    original = pixels
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"holds {pixels.dtype}, expected integers or floats")
    if value_range:
        low, high = value_range
        pixels = ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)
    elif pixels.dtype.kind in "iu":  # wider ones count as 16-bit values: Pillow returns those as 32-bit integers
        pixels = pixels.astype(np.float32) / (np.iinfo(pixels.dtype).max if pixels.dtype.itemsize <= 2 else 65535)
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
