"""
Writes images that arrays.py reads, at full depth: TIFF, .npy, and PNG, PPM and JPEG 2000 of 16 bits.
"""

import io

import numpy as np
from PIL import Image

from media.arrays import to_unit_range
from media.depth import INSTALL
from media.metadata import save_options
from utils import InputError, whole_file


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
    """Writes uint8 or uint16 arrays (H, W, channels) at full depth: to .npy as float32 in [0, 1], otherwise as integers.
    TIFF and .npy also take arrays of int16 and float32, and write them as they are.

    kind:  "NPY", "TIFF", "PNG", "PPM" or "JPEG2000"
    pages: list of pairs (pixels, alpha or None); formats other than TIFF take one
    info:  as in Array
    Raises InputError if a package that is needed is not installed.
    """
    stacked = [np.ascontiguousarray(pixels if a is None else np.dstack([pixels, a])) for pixels, a in pages]
    with whole_file(path) as temporary:
        if kind == "TIFF":
            write_tiff(path, temporary, stacked, pages[0][1] is not None, info)
            return
        with open(temporary, "wb") as file:
            if kind == "NPY":
                values = pages[0][0]
                np.save(file, to_unit_range(values) if values.dtype.kind == "u" else values)
            elif kind == "PPM":
                height, width = stacked[0].shape[:2]
                file.write(b"P6\n%d %d\n65535\n" % (width, height) + stacked[0].astype(">u2").tobytes())
            else:
                import imagecodecs

                if kind == "PNG":
                    file.write(with_chunks(imagecodecs.png_encode(stacked[0].squeeze()), info))
                else:
                    file.write(imagecodecs.jpeg2k_encode(stacked[0].squeeze(), reversible=True))


def write_tiff(path, temporary, stacked, has_alpha, info):
    try:
        import tifffile
    except ImportError:
        raise InputError(
            f"{path}: writing a TIFF of {stacked[0].shape[2]} channels requires tifffile: {INSTALL}. "
            "Or use --format npy"
        )
    options = dict(metadata=None, software=False, extratags=info.get("extratags", []))
    if has_alpha:
        options["extrasamples"] = ["unassalpha"]
    if info.get("icc_profile"):
        options["iccprofile"] = info["icc_profile"]
    if info.get("dpi"):
        options |= dict(resolution=tuple(map(float, info["dpi"])), resolutionunit=2)
    with tifffile.TiffWriter(temporary) as file:
        for pixels in stacked:
            is_rgb, is_flat = pixels.shape[2] - has_alpha == 3, pixels.shape[2] == 1
            options["planarconfig"] = None if is_flat else "contig"
            options["photometric"] = "rgb" if is_rgb else "minisblack"
            file.write(pixels[..., 0] if is_flat else pixels, **options)


def with_chunks(png, info):
    """Adds metadata to an encoded PNG, in bytes: the chunks of a small image that Pillow writes with `info`."""
    small = io.BytesIO()
    Image.new("L", (1, 1)).save(small, "PNG", **save_options(info, "PNG"))
    data, position, chunks = small.getvalue(), 8, b""
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big") + 12
        if data[position + 4 : position + 8] not in (b"IHDR", b"IDAT", b"IEND"):
            chunks += data[position : position + length]
        position += length
    return png[:33] + chunks + png[33:]  # after the signature, 8 bytes, and IHDR, 25
