"""
Reading TIFF files at full precision, for arrays.py: pages, layouts, and the tags that still hold after a translation.
"""

import contextlib
import math

import numpy as np
from PIL import Image

from media.colours import is_converted
from media.decoded import Decoded
from media.depth import INSTALL, is_deep
from media.frames import is_reduced
from media.images import apply_orientation, as_seen
from media.limits import check_density, check_pixels, open_image_file, truncated_allowed
from media.metadata import (
    GEO_TAGS,
    IPTC,
    TEXT_TAGS,
    XMP,
    exif_to_keep,
    is_stale,
    metadata_to_keep,
    orientation_in_xmp,
    xmp_to_keep,
)
from utils import InputError

ORIENTATION, EXIF, GPS = 274, 34665, 34853


def decode_tiff(path, channels):
    """A TIFF file -> list of Decoded, one for each page, in their order. Smaller copies of an image (pyramids,
    thumbnails) are left out."""
    try:
        import tifffile
    except ImportError:
        return [decode_without_tifffile(path)]
    # not the other files that OME-TIFF, Micro-Manager and NDTiff name
    with tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False) as file:
        decoded = []  # (position in the file, whether it is a smaller copy, Decoded)
        for series in file.series:
            check_pixels(path, series.keyframe.imagewidth, series.keyframe.imagelength, math.prod(series.shape))
            check_density(path, series.keyframe.imagewidth * series.keyframe.imagelength)
            for page, values in pages_of(series, channels):
                decoded.append((page.index, is_reduced(page.tags.valueof), decode_page(path, page, values, channels)))
    decoded.sort(key=lambda entry: entry[0] if isinstance(entry[0], int) else entry[0][0])  # a tuple: in SubIFDs
    return [page for _, reduced, page in decoded if not reduced] or [page for *_, page in decoded]


def decode_without_tifffile(path):
    """Pillow decodes some kinds of TIFF at full depth -> Decoded"""
    with contextlib.suppress(OSError), open(path, "rb") as file, open_image_file(file, path) as image:
        is_whole = image.mode in ("L", "I;16", "I;16B", "F") or (image.mode in ("RGB", "RGBA") and not is_deep(image))
        if is_whole and image.n_frames == 1:
            values = np.asarray(image)  # newer versions of Pillow turn it upright here, and drop the tag
            return Decoded(values, image.mode == "RGBA", image.getexif().get(0x0112, 1))
    raise InputError(f"{path}: reading this kind of TIFF requires tifffile: {INSTALL}")


def pages_of(series, channels):
    """A series of tifffile -> list of (page with its own tags, its values). Series with other than 1 or 3 channels may
    have one band on each page; they count as one page."""
    pages = [page.aspage() if page else series.keyframe for page in series]
    shape = series.keyframe.shape
    try:
        values = series.asarray()
    except Exception:  # tifffile and imagecodecs raise many kinds of errors on damaged files
        if not truncated_allowed():
            raise
        values = np.stack([readable_values(page) for page in pages])
        values = values if len(pages) > 1 else values[0]
    if values.size == len(pages) * math.prod(shape) and values.ndim <= len(shape):  # axes of length 1 were dropped
        values = values.reshape(len(pages), *shape) if len(pages) > 1 else values.reshape(shape)
    # bands of one image, or images of one size?
    is_stack = channels in (1, 3) and len(pages) > 1 and (values.ndim == 4 or len(values) != channels)
    if not is_stack:
        return [(pages[0], values)]
    return [(pages[i * len(pages) // len(values)], one) for i, one in enumerate(values)]


def readable_values(page):
    """The values of a page of a damaged file. Strips and tiles that cannot be decoded stay 0."""
    file, key = page.parent.filehandle, page.keyframe
    values = np.zeros(key.shaped, key.dtype)
    for i, (offset, n_bytes) in enumerate(zip(page.dataoffsets, page.databytecounts)):
        if not offset or not n_bytes:
            continue
        file.seek(offset)
        data = file.read(min(n_bytes, max(0, file.size - offset)))
        if key.compression == 1:
            data = data.ljust(n_bytes, b"\0")
        with contextlib.suppress(Exception):
            segment, (sample, depth, row, column, _), (n_depth, n_rows, n_columns, _) = key.decode(data, i)[:3]
            target = values[sample, depth : depth + n_depth, row : row + n_rows, column : column + n_columns]
            target[:] = segment[: target.shape[0], : target.shape[1], : target.shape[2]]
    return values.reshape(key.shape)


def decode_page(path, page, values, channels):
    """-> Decoded"""
    photometric, info = int(page.photometric), page_info(path, page)
    if values.ndim == 3 and page.axes[:1] == "S" and values.shape == page.shape:  # one plane for each colour
        values = np.moveaxis(values, 0, 2)
    if channels in (1, 3) and photometric not in (0, 1, 2):
        return decode_with_pillow(path, page, channels)
    top, inverted, alpha = None, False, False
    if values.dtype == bool:
        values, top = values.astype(np.uint8), 1
    elif values.dtype.kind == "u" and isinstance(page.bitspersample, int) and page.bitspersample < 16:
        top = 2**page.bitspersample - 1
    if photometric == 0 and values.dtype.kind == "u":  # white is 0
        values = (top or np.iinfo(values.dtype).max) - values
    elif photometric == 0:
        inverted = True
    if page.extrasamples and channels in (1, 3) and values.ndim == 3 and values.shape[2] == page.samplesperpixel:
        values, alpha, n_left_out = without_extra(values, page.extrasamples, photometric == 2)
        if n_left_out:
            what, was = ("a channel that is", "was") if n_left_out == 1 else (f"{n_left_out} channels that are", "were")
            info["notes"] = [f"{path}: {what} neither colour nor transparency {was} left out"]
    orientation = page.tags.valueof(ORIENTATION) or orientation_in_xmp(page.tags.valueof(XMP)) or 1
    return Decoded(values, alpha, int(orientation), info, top=top, inverted=inverted)


def without_extra(values, extra, is_rgb):
    """Leaves out the extra channels that are not transparency, such as masks -> (values, Decoded.has_alpha, the number
    of channels left out)

    values: (H, W, colours and extra channels)
    extra:  what the extra channels are: 0 is unknown, 1 premultiplied alpha, 2 alpha (TIFF 6.0, section 18)
    """
    n_colours = values.shape[2] - len(extra)
    alpha = next((i for i, kind in enumerate(extra) if kind in (1, 2)), None)
    if alpha is None and not is_rgb and values.shape[2] != 2:  # colours, though their number does not say so
        return values, False, 0
    kept = [*range(n_colours)] + ([] if alpha is None else [n_colours + alpha])
    n_left_out = values.shape[2] - len(kept)
    has_alpha = False if alpha is None else {1: "premultiplied", 2: True}[int(extra[alpha])]
    return (values[..., kept] if n_left_out else values), has_alpha, n_left_out


def decode_with_pillow(path, page, channels):
    """A page with a palette, CMYK or the like, in a file that has pages of more than 8 bits -> Decoded, in sRGB"""
    error = InputError(f"{path}: its colours are {page.photometric.name}. Save it as RGB or gray")
    if not isinstance(page.index, int) or page.bitspersample != 8:
        raise error
    with open(path, "rb") as file, open_image_file(file, path) as image:
        try:
            image.seek(page.index)
        except EOFError:
            raise error
        check_pixels(path, *image.size, 0)
        upright = apply_orientation(image)
        seen, alpha, straight = as_seen(upright, channels)
        info = metadata_to_keep(image, upright.info, is_converted(image))
        values = np.asarray(seen if alpha is None else straight)
        values = values if alpha is None else np.dstack([values, np.asarray(alpha)])
    return Decoded(values, alpha is not None, 1, info)


##############################
#           Tags
##############################


def page_info(path, page):
    """Everything else that a page of a TIFF holds, as Decoded.info"""
    info = {"extratags": kept_tags(page)} | dpi_of(page)
    if page.iccprofile:
        info["icc_profile"] = page.iccprofile
    if xmp := xmp_to_keep({"xmp": page.tags.valueof(XMP)}):
        info["xmp"] = xmp
    if EXIF in page.tags or GPS in page.tags:
        with contextlib.suppress(Exception), open(path, "rb") as file:  # as in exif_to_keep
            exif = Image.Exif()
            exif.load_from_fp(file)  # for the byte order
            exif.load_from_fp(file, page.offset)
            info["exif"] = exif_to_keep(exif)
    return {key: value for key, value in info.items() if value or key == "extratags"}


def kept_tags(page):
    """The tags of a TIFF page that still hold after a translation, as tifffile's extratags"""
    kept = []
    for tag in page.tags.values():
        if tag.code in (*TEXT_TAGS, IPTC, *GEO_TAGS) and not is_stale(tag.code, tag.value):
            value = tag.value.encode() if isinstance(tag.value, str) else tag.value
            kept.append((tag.code, tag.dtype, tag.count if value is tag.value else 0, value, True))
    return kept


def dpi_of(page):
    """The resolution of a TIFF page -> {"dpi": (x, y)}, or {}"""
    unit = {2: 1.0, 3: 2.54}.get(int(page.tags.valueof(296, 2)))
    sides = [page.tags.valueof(tag) for tag in (282, 283)]
    if not unit or not all(sides) or not all(isinstance(side, tuple) and side[1] for side in sides):
        return {}
    return {"dpi": tuple(unit * side[0] / side[1] for side in sides)}
