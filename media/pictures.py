"""
Picture files in and out of a translation: transparency, animation, 16 bits, EXIF and colour profile come out as they
went in, and no file is ever half-written.
"""

import contextlib
import dataclasses
import io
import os

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageSequence

from media.arrays import is_array, load_array, write_array
from media.images import open_image, to_8_bit, upright
from utils import InputError, whole_file

# Formats that hold full colour at any size; what comes in another one (Photoshop, icons …) goes out as PNG
WRITABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")
ANIMATED = ("PNG", "WEBP", "TIFF", "GIF", "AVIF")
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "GIF", "TGA", "JPEG2000", "AVIF")
SAVE_OPTIONS = {
    "JPEG": dict(quality=95, subsampling=0),  # nearly no loss: it was compressed once already
    "WEBP": dict(quality=95),
    "AVIF": dict(quality=90),
    "TIFF": dict(compression="tiff_lzw"),
}
EXIF_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, maker, model, software, date, artist, copyright
LARGEST_ANIMATION = 2**30  # values of all frames; it is decoded as a whole


@dataclasses.dataclass
class Picture:
    """pixels: (frames, H, W, channels), upright, uint8, or uint16 if the file has one channel of 16 bits, or arrays
    alpha:     (frames, H, W) uint8, or None
    info:      what Pillow is to write along: EXIF, colour profile, resolution
    timing:    for more than one frame: how long each one is shown, in ms, and how often the whole
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    info: dict
    timing: dict


def format_of(path):
    """Pillow's name of the format that a file name's extension stands for, "NPY", or None if we write no such files."""
    if path.lower().endswith(".npy"):
        return "NPY"
    kind = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    return kind if kind in WRITABLE and kind in Image.SAVE else None


def read_picture(path, channels, resize=None):
    """Decodes a picture file -> Picture.

    channels: 1 gray, 3 RGB; other colours are converted. CMYK goes through its colour profile. Any other number: see
              arrays.py
    resize:   function (width, height) -> (width, height)
    Raises InputError, naming the path.
    """
    if is_array(path, channels, integers=False):
        pixels = load_array(path, channels)
        if resize:
            pixels = load_array(path, channels, resize(*pixels.shape[1::-1])[::-1])
        return Picture((pixels[None] * 65535).round().astype(np.uint16), None, {}, {})
    with open_image(path) as image:
        n_frames = image.n_frames if image.format in ANIMATED else 1  # elsewhere these are previews, or layers
        if n_frames > 1 and n_frames * image.width * image.height * channels > LARGEST_ANIMATION:
            raise InputError(
                f"{path}: {n_frames} frames are too much at once. Translate it as a video: --output NAME.mp4"
            )
        frames, durations, alphas = [], [], []
        for frame in ImageSequence.Iterator(image) if n_frames > 1 else [image]:
            turned = upright(frame)
            durations.append(frame.info.get("duration", 0))  # of WebP and AVIF, only now that of this frame
            pixels, alpha = convert(turned, channels)
            if resize:
                size = resize(*turned.size)
                pixels = pixels.resize(size, Image.Resampling.BICUBIC)
                alpha = alpha and alpha.resize(size, Image.Resampling.BICUBIC)
            frames.append(np.array(pixels).reshape(pixels.height, pixels.width, channels))
            alphas.append(alpha)
        if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
            raise InputError(f"{path}: its {n_frames} pages differ in size or depth. Save them as files of their own")
        info = {key: turned.info[key] for key in ("icc_profile", "dpi") if turned.info.get(key)}
        if exif := exif_of(image):
            info["exif"] = exif
        if image.mode == "CMYK" or (channels == 1) != (image.mode[0] in "1LIF"):
            info.pop("icc_profile", None)  # it describes other channels
        timing = {}
        if n_frames > 1:
            timing = dict(duration=durations) | {key: image.info[key] for key in ("loop",) if key in image.info}
    opaque = Image.new("L", frames[0].shape[1::-1], 255)
    alphas = np.stack([np.array(alpha or opaque) for alpha in alphas]) if any(alphas) else None
    return Picture(np.stack(frames), alphas, info, timing)


def exif_of(image):
    """What EXIF says about the picture -> bytes, empty if nothing. Left out are the thumbnail, which would show the
    input, and tags about the layout of a file."""
    try:
        tags, exif = image.getexif(), Image.Exif()
        for tag in EXIF_TAGS:
            if tag in tags:
                exif[tag] = tags[tag]
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := tags.get_ifd(part):
                exif[part] = values
        return exif.tobytes() if exif else b""
    except Exception:  # cameras write EXIF that Pillow cannot; the picture itself is fine
        return b""


def convert(image, channels):
    """A decoded picture -> (one of mode L, I;16 or RGB, its alpha channel or None)."""
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if channels == 1 and image.mode != "F" and 0 <= values.min() and values.max() < 65536:
            return Image.fromarray(values.astype(np.uint16)), None
        image = to_8_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a broken profile; then the plain formula has to do
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert({1: "L", 3: "RGB"}[channels]), alpha


def write_picture(path, kind, picture):
    """Encodes a Picture into a file of Pillow's format `kind`, through a temporary one. What a format cannot hold is
    left out: 16 bits become 8, transparency is laid over white, of an animation the first frame is taken."""
    pixels = picture.pixels
    channels = pixels.shape[3]
    if kind == "NPY" or (kind == "TIFF" and (channels not in (1, 3) or (channels == 3 and pixels.dtype == np.uint16))):
        write_array(path, pixels[0])
        return
    if channels not in (1, 3):
        raise InputError(f"{channels} channels, which only .npy and .tif hold: --format npy")
    if pixels.dtype == np.uint16 and (kind not in ("PNG", "TIFF") or channels == 3):
        pixels = (pixels / 257).round().astype(np.uint8)
    images = [Image.fromarray(frame.squeeze(2) if frame.shape[2] == 1 else frame) for frame in pixels]
    if picture.alpha is not None and pixels.dtype == np.uint8:
        for i, alpha in enumerate(map(Image.fromarray, picture.alpha)):
            rgba = images[i].convert("RGBA")
            rgba.putalpha(alpha)
            white = Image.new("RGBA", rgba.size, "white")
            images[i] = rgba if kind in WITH_ALPHA else Image.alpha_composite(white, rgba).convert(images[i].mode)
    options = SAVE_OPTIONS.get(kind, {}) | picture.info
    if kind == "TIFF" and "exif" in options:
        del options["compression"]  # Pillow cannot write both (its encoder fails with "Error setting from dictionary")
    if len(images) > 1 and kind in ANIMATED:
        options |= dict(save_all=True, append_images=images[1:]) | picture.timing
        if kind == "AVIF" and "duration" in options:  # a PNG has fractions of a millisecond
            options["duration"] = [round(duration) for duration in options["duration"]]
        if kind == "GIF" and picture.alpha is not None:
            options["disposal"] = 2  # clear each frame before the next: it may show less
    with whole_file(path) as temporary:
        images[0].save(temporary, format=kind, **options)
