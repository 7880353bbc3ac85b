"""
Writes Pictures, see pictures.py, in the formats that Pillow and array_writer.py can write.
"""

import io
import os

import numpy as np
from PIL import Image, TiffImagePlugin

from media.array_writer import can_write, write_array
from media.metadata import save_options
from media.pictures import ANIMATED
from media.tiff_writer import add_directories
from utils import InputError, whole_file

# Formats that hold full colour at any size. Inputs in other formats (Photoshop, icons, ...) are written as PNG
WRITABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "GIF", "TGA", "JPEG2000", "AVIF")
SAVE_OPTIONS = {
    "JPEG": dict(quality=95, subsampling=0),  # the input was compressed once already; lose little more
    "WEBP": dict(quality=95),
    "AVIF": dict(quality=90, subsampling="4:4:4"),
    "TIFF": dict(compression="tiff_lzw"),
}


def format_of(path):
    """The format that a file name's extension stands for, by Pillow's name, or "NPY". None if it cannot be written."""
    if path.lower().endswith(".npy"):
        return "NPY"
    kind = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    return kind if kind in WRITABLE and kind in Image.SAVE else None


def write_picture(path, kind, picture):
    """Encodes a Picture in the format `kind`, see format_of. The file is either written completely or not at all.

    Formats drop what they cannot hold: 16 bits become 8, transparency is composited onto white, and of an animation
    only the first frame is kept.
    Returns a list of notes on what was dropped. Raises InputError if the number of channels needs another format.
    """
    channels, pages = picture.pixels.shape[3], picture.pages_to_write(kind in WITH_ALPHA)
    n_written = len(pages) if kind == "TIFF" else len(picture.pixels) if kind in ANIMATED else 1
    notes = list(dict.fromkeys(note for *_, info in pages for note in info.get("notes", [])))
    if n_written < len(pages):
        first = "first of" if n_written == 1 else f"first {n_written} of"
        holds = "frames of one size and type" if kind in ANIMATED else "one"
        was = "was" if n_written == 1 else "were"
        notes.append(f"{path}: only the {first} {len(pages)} frames {was} written; {kind} holds {holds}")
    if needs_array(picture, kind):
        pages = pages if kind == "TIFF" else pages[:1]
        write_array(path, kind, [page[:2] for page in pages], [info for *_, info in pages])
        return notes
    if picture.pixels.dtype == np.uint16 and not is_deep_gray(picture, kind) and channels in (1, 3):
        notes.append(f"{path}: 16 bits became 8; {kind} holds no more here")
    images = picture_to_images(picture, kind)
    for page in picture.pages if kind == "TIFF" else []:
        images += picture_to_images(page, kind)
    with whole_file(path) as temporary, open(temporary, "w+b") as file:
        if kind == "TIFF" and len(images) > 1:
            save_pages(images, file, [page_options(info) for *_, info in pages])
        elif kind == "JPEG2000":  # its encoder never ends if a file cannot be written
            encoded = io.BytesIO()
            images[0].save(encoded, format=kind, **options_for(picture, kind, images))
            file.write(encoded.getbuffer())
        else:
            images[0].save(file, format=kind, **options_for(picture, kind, images))
        if kind == "TIFF":
            add_directories(file, [info for *_, info in pages])
    return notes


def page_options(info):
    """-> keyword arguments for Pillow's `save` of a page of a TIFF"""
    return SAVE_OPTIONS["TIFF"] | save_options(info, "TIFF")


def options_for(picture, kind, images):
    """-> keyword arguments for Pillow's `save` of a list of PIL images"""
    options = SAVE_OPTIONS.get(kind, {}) | save_options(picture.infos[0] if picture.infos else picture.info, kind)
    if len(images) > 1 and kind in ANIMATED:
        options |= dict(save_all=True, append_images=images[1:]) | picture.timing
        if kind == "AVIF" and "duration" in options:  # PNG has fractions of a millisecond, AVIF does not
            options["duration"] = [round(duration) for duration in options["duration"]]
        if kind == "GIF" and picture.alpha is not None:
            options["disposal"] = 2  # clear each frame before the next, which may cover less
    return options


class PageWriter(TiffImagePlugin.AppendingTiffWriter):
    """Pillow's writer of TIFF pages, which looks for the last page from the first one on before it appends another. This
    one looks from where it found the last: 10,000 pages take seconds, not minutes."""

    found = None

    def skipIFDs(self):
        if self.found:
            self.f.seek(self.found)
        super().skipIFDs()
        self.found = self.whereToWriteNewIFDOffset


def save_pages(images, file, options):
    """Writes PIL images as the pages of a TIFF file.

    file:    open for reading and writing
    options: for each image, keyword arguments for its `save`
    """
    with PageWriter(file) as writer:
        for image, one in zip(images, options):
            image.save(writer, format="TIFF", **one)
            writer.newFrame()


def is_deep_gray(picture, kind):
    """Whether Pillow can write a Picture at full depth: 16-bit gray without transparency"""
    is_gray = picture.pixels.dtype == np.uint16 and picture.pixels.shape[3] == 1
    return is_gray and picture.alpha is None and kind in ("PNG", "TIFF", "PPM", "JPEG2000")


def needs_array(picture, kind):
    """Whether a Picture must be written with array_writer.write_array, and can be"""
    channels = picture.pixels.shape[3]
    if kind == "NPY" or (kind == "TIFF" and channels not in (1, 3)):
        return True
    is_deep = picture.pixels.dtype == np.uint16 and channels in (1, 3)
    has_more = any(info.get("extratags") for info in (picture.info, *picture.infos)) or picture.pages
    if not is_deep or (is_deep_gray(picture, kind) and not (kind == "TIFF" and has_more)):
        return False
    n_frames = len(picture.pixels)
    n_channels = channels + (picture.alpha is not None and kind in WITH_ALPHA)
    return (n_frames == 1 or kind == "TIFF") and can_write(kind, picture.pixels.dtype, n_channels)


def picture_to_images(picture, kind="PNG"):
    """Picture -> list of PIL images, one a frame, in a mode that the format `kind` can hold, see write_picture."""
    if picture.pixels.shape[3] not in (1, 3):
        raise InputError(f"{picture.pixels.shape[3]} channels fit into .npy and .tif only: --format npy")
    has_alpha = picture.alpha is not None and kind in WITH_ALPHA
    planes = [picture.straight, picture.alpha] if has_alpha else [picture.pixels]
    if picture.pixels.dtype == np.uint16 and not is_deep_gray(picture, kind):
        planes = [(plane / 257).round().astype(np.uint8) for plane in planes]
    images = [Image.fromarray(frame.squeeze(2) if frame.shape[2] == 1 else frame) for frame in planes[0]]
    if has_alpha:
        images = [image.convert("RGBA") for image in images]
        for image, alpha in zip(images, planes[1]):
            image.putalpha(Image.fromarray(alpha))
    return images
