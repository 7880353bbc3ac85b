"""
Writing TIFF files of any depth and number of channels, and the directories of EXIF, which neither tifffile nor Pillow
writes in all kinds of TIFF files.
"""

import struct

import numpy as np
from PIL import TiffImagePlugin

from media.depth import INSTALL
from media.metadata import TEXT_TAGS, XMP, tags_and_directories
from utils import InputError


def write_tiff(path, temporary, pages, infos):
    """Writes pages as they are, uncompressed.

    path:      name of the file, for messages; temporary: its name for now
    pages:     list of pairs (pixels (H, W, channels), alpha or None), of any type
    infos:     for each page, as in arrays.Array
    """
    try:
        import tifffile
    except ImportError:
        raise InputError(
            f"{path}: writing a TIFF of {pages[0][0].shape[2]} channels requires tifffile: {INSTALL}. Or use --format npy"
        )
    with tifffile.TiffWriter(temporary) as file:
        for (pixels, alpha), info in zip(pages, infos):
            channels = pixels.shape[2]
            pixels = np.ascontiguousarray(pixels if alpha is None else np.dstack([pixels, alpha]))
            options = dict(metadata=None, software=False, extratags=tags_to_write(info))
            options["photometric"] = "rgb" if channels == 3 else "minisblack"
            if alpha is not None:
                options["extrasamples"] = ["unassalpha"]
            if info.get("icc_profile"):
                options["iccprofile"] = info["icc_profile"]
            if info.get("dpi"):
                options |= dict(resolution=tuple(map(float, info["dpi"])), resolutionunit=2)
            is_flat = pixels.shape[2] == 1
            options["planarconfig"] = None if is_flat else "contig"
            file.write(pixels[..., 0] if is_flat else pixels, **options)
    with open(temporary, "r+b") as file:
        add_directories(file, infos)


def tags_to_write(info):
    """Everything that a page of a TIFF is written with, as tifffile's extratags"""
    tags = {tag[0]: tag for tag in info.get("extratags", [])}
    for code, value in tags_and_directories(info.get("exif", b""))[0].items():
        if isinstance(value, str) and code in TEXT_TAGS:
            tags.setdefault(code, (code, "s", 0, value.encode(), True))
    if info.get("xmp"):
        tags[XMP] = (XMP, "B", len(info["xmp"]), info["xmp"], True)
    return list(tags.values())


def add_directories(file, infos):
    """Adds the EXIF directories of each page to a TIFF file: those of the camera's settings and of its position.

    file:  open for reading and writing
    infos: for each page, as in arrays.Array
    """
    directories = [tags_and_directories(info.get("exif", b""))[1] for info in infos]
    file.seek(0)
    head, pointer = file.read(8), 4
    if not any(directories) or head[2:4] not in (b"*\0", b"\0*"):  # more than 4 GB
        return
    order = "<" if head[:2] == b"II" else ">"
    for parts in directories:  # the pages of a file are a linked list
        file.seek(pointer)
        (offset,) = struct.unpack(order + "I", file.read(4))
        file.seek(offset)
        (n_entries,) = struct.unpack(order + "H", file.read(2))
        entries, following = [file.read(12) for _ in range(n_entries)], file.read(4)
        if parts:
            entries = {struct.unpack(order + "H", entry[:2])[0]: entry for entry in entries}
            for tag, values in parts.items():
                directory = TiffImagePlugin.ImageFileDirectory_v2(head, group=tag)
                for code, value in values.items():
                    directory[code] = value
                offset = even_end(file)
                file.write(directory.tobytes(offset))
                entries[tag] = struct.pack(order + "HHII", tag, 4, 1, offset)
            offset, n_entries = even_end(file), len(entries)
            file.write(
                struct.pack(order + "H", n_entries) + b"".join(entries[tag] for tag in sorted(entries)) + following
            )
            file.seek(pointer)
            file.write(struct.pack(order + "I", offset))
        pointer = offset + 2 + 12 * n_entries


def even_end(file):
    """Goes to the end of a file, or one byte further, so that the position is even -> the position"""
    if file.seek(0, 2) % 2:
        file.write(b"\0")
    return file.tell()
