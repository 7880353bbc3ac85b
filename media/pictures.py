"""
Pictures for translation. A `Picture` is an image together with everything else that its file holds: alpha, frames and
their timing, 16 bits, EXIF, colour profile. read_picture and write_picture keep all of it, so a translated file differs
from its source in nothing but the pixels.

To train and evaluate, 8-bit pixels are enough: see images.py.
"""

import contextlib
import dataclasses
import io
import os

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageSequence

from media.arrays import is_array, load_array, resize_array, to_unit_range, write_array
from media.images import apply_orientation, open_image, scale_to_8_bit
from utils import InputError, whole_file

# Formats that hold full colour at any size. Inputs in other formats (Photoshop, icons, ...) are written as PNG
WRITABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "AVIF")
ANIMATED = ("PNG", "WEBP", "TIFF", "GIF", "AVIF")
WITH_ALPHA = ("PNG", "WEBP", "TIFF", "GIF", "TGA", "JPEG2000", "AVIF")
SAVE_OPTIONS = {
    "JPEG": dict(quality=95, subsampling=0),  # the input was compressed once already; lose little more
    "WEBP": dict(quality=95),
    "AVIF": dict(quality=90),
    "TIFF": dict(compression="tiff_lzw"),
}
EXIF_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, maker, model, software, date, artist, copyright
LARGEST_ANIMATION = 2**30  # values in all frames together, because all are decoded at once


@dataclasses.dataclass
class Picture:
    """An image and everything else that its file holds.

    pixels: (frames, H, W, channels), EXIF orientation applied. uint8, or uint16 for 16-bit gray and for arrays
    alpha:  (frames, H, W) uint8, or None
    info:   metadata to write with it, as Pillow's keyword arguments: exif, icc_profile, dpi
    timing: for more than one frame: "duration", a list in ms, and "loop", the number of repetitions
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    info: dict
    timing: dict


def format_of(path):
    """The format that a file name's extension stands for, by Pillow's name, or "NPY". None if it cannot be written."""
    if path.lower().endswith(".npy"):
        return "NPY"
    kind = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    return kind if kind in WRITABLE and kind in Image.SAVE else None


##############################
#          Reading
##############################


def read_picture(path, channels, resize=None):
    """Decodes an image file -> Picture.

    channels: 1 for gray, 3 for RGB; other colours are converted, CMYK through its colour profile. For any other number
              the file must have as many channels, see arrays.py
    resize:   function (width, height) -> (width, height), or None
    Raises InputError, naming the path.
    """
    if is_array(path, channels, integers=False):
        pixels = load_array(path, channels)
        if resize:
            pixels = load_array(path, channels, resize(*pixels.shape[1::-1])[::-1])
        return Picture(to_16_bit(pixels)[None], None, {}, {})
    with open_image(path) as image:
        n_frames = image.n_frames if image.format in ANIMATED else 1  # in other formats, previews or layers
        if n_frames > 1 and n_frames * image.width * image.height * channels > LARGEST_ANIMATION:
            raise InputError(
                f"{path}: {n_frames} frames do not fit into memory at once. Translate it to a video: --output NAME.mp4"
            )
        sequence = ImageSequence.Iterator(image) if n_frames > 1 else [image]
        frames = [decode_frame(frame, channels, resize) for frame in sequence]
        if len({(frame.pixels.shape, frame.pixels.dtype) for frame in frames}) > 1:
            raise InputError(f"{path}: its {n_frames} pages differ in size or depth. Save each to a file of its own")
        return frames_to_picture(image, frames, channels)


def image_to_picture(image, channels, resize=None):
    """PIL image -> Picture, as read_picture reads it from a file. Of an animation, the current frame.

    channels: 1 for gray, 3 for RGB
    """
    if image.mode == "F" and channels == 1:  # Pillow cannot scale floats
        pixels = to_unit_range(np.asarray(apply_orientation(image)))[..., None]
        if resize:
            pixels = resize_array(pixels, resize(*pixels.shape[1::-1])[::-1])
        return Picture(to_16_bit(pixels)[None], None, {}, {})
    return frames_to_picture(image, [decode_frame(image, channels, resize)], channels)


def to_16_bit(pixels):
    """Floats in [0, 1] -> uint16"""
    return (pixels * 65535).round().astype(np.uint16)


@dataclasses.dataclass
class Frame:
    """pixels (H, W, channels), alpha as a PIL image or None, duration in ms, info as Pillow returns it"""

    pixels: np.ndarray
    alpha: Image.Image | None
    duration: float
    info: dict


def decode_frame(image, channels, resize):
    """The current frame of a PIL image -> Frame, EXIF orientation applied."""
    upright = apply_orientation(image)
    duration = image.info.get("duration", 0)  # WebP and AVIF know a frame's duration only after decoding it
    pixels, alpha = split_alpha(upright, channels)
    if resize:
        size = resize(*upright.size)
        pixels = pixels.resize(size, Image.Resampling.BICUBIC)
        alpha = alpha and alpha.resize(size, Image.Resampling.BICUBIC)
    pixels = np.array(pixels).reshape(pixels.height, pixels.width, channels)
    return Frame(pixels, alpha, duration, upright.info)


def split_alpha(image, channels):
    """PIL image of any mode -> (PIL image of mode L, I;16 or RGB, alpha channel of mode L or None)."""
    if image.mode[0] in "IF":
        values = np.asarray(image)
        if channels == 1 and image.mode != "F" and 0 <= values.min() and values.max() < 65536:
            return Image.fromarray(values.astype(np.uint16)), None
        image = scale_to_8_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # a broken profile: use Pillow's plain conversion
            profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
            image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert({1: "L", 3: "RGB"}[channels]), alpha


def frames_to_picture(image, frames, channels):
    """Decoded frames, and the PIL image that they come from -> Picture."""
    info = {key: frames[-1].info[key] for key in ("icc_profile", "dpi") if frames[-1].info.get(key)}
    if exif := exif_to_keep(image):
        info["exif"] = exif
    if image.mode == "CMYK" or (channels == 1) != (image.mode[0] in "1LIF"):
        info.pop("icc_profile", None)  # the profile describes the original channels
    timing = {}
    if len(frames) > 1:
        timing = dict(duration=[frame.duration for frame in frames])
        if "loop" in image.info:
            timing["loop"] = image.info["loop"]
    alpha = None
    if any(frame.alpha for frame in frames):
        opaque = Image.new("L", frames[0].pixels.shape[1::-1], 255)
        alpha = np.stack([np.array(frame.alpha or opaque) for frame in frames])
    return Picture(np.stack([frame.pixels for frame in frames]), alpha, info, timing)


def exif_to_keep(image):
    """The EXIF data that still holds after a translation, in bytes; b"" if there is none. Drops the thumbnail, which
    would show the input, and tags about the file's layout and orientation."""
    try:
        tags, exif = image.getexif(), Image.Exif()
        for tag in EXIF_TAGS:
            if tag in tags:
                exif[tag] = tags[tag]
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := tags.get_ifd(part):
                exif[part] = values
        return exif.tobytes() if exif else b""
    except Exception:  # some cameras write EXIF that Pillow cannot handle; the image itself is fine
        return b""


##############################
#          Writing
##############################


def replace_pixels(picture, pixels):
    """A Picture with other pixels, (frames, H, W, any number of channels), and everything else as before. Drops the
    colour profile if the number of channels changes."""
    info = dict(picture.info)
    if pixels.shape[3] != picture.pixels.shape[3]:
        info.pop("icc_profile", None)
    return dataclasses.replace(picture, pixels=pixels, info=info)


def write_picture(path, kind, picture):
    """Encodes a Picture in the format `kind`, see format_of. The file is either written completely or not at all.

    Formats drop what they cannot hold: 16 bits become 8, transparency is composited onto white, and of an animation
    only the first frame is kept.
    Raises InputError if the number of channels needs another format.
    """
    channels, is_deep = picture.pixels.shape[3], picture.pixels.dtype == np.uint16
    if kind == "NPY" or (kind == "TIFF" and (channels not in (1, 3) or (channels == 3 and is_deep))):
        write_array(path, picture.pixels[0])
        return
    images = picture_to_images(picture, kind)
    options = SAVE_OPTIONS.get(kind, {}) | picture.info
    if kind == "TIFF" and "exif" in options:
        del options["compression"]  # Pillow cannot write both: "Error setting from dictionary"
    if len(images) > 1 and kind in ANIMATED:
        options |= dict(save_all=True, append_images=images[1:]) | picture.timing
        if kind == "AVIF" and "duration" in options:  # PNG has fractions of a millisecond, AVIF does not
            options["duration"] = [round(duration) for duration in options["duration"]]
        if kind == "GIF" and picture.alpha is not None:
            options["disposal"] = 2  # clear each frame before the next, which may cover less
    with whole_file(path) as temporary:
        images[0].save(temporary, format=kind, **options)


def picture_to_images(picture, kind="PNG"):
    """Picture -> list of PIL images, one a frame, in a mode that the format `kind` can hold, see write_picture."""
    pixels = picture.pixels
    if pixels.shape[3] not in (1, 3):
        raise InputError(f"{pixels.shape[3]} channels fit into .npy and .tif only: --format npy")
    if pixels.dtype == np.uint16 and (kind not in ("PNG", "TIFF") or pixels.shape[3] == 3):
        pixels = (pixels / 257).round().astype(np.uint8)
    images = [Image.fromarray(frame.squeeze(2) if frame.shape[2] == 1 else frame) for frame in pixels]
    if picture.alpha is None or pixels.dtype != np.uint8:
        return images
    return [with_alpha(image, Image.fromarray(alpha), kind) for image, alpha in zip(images, picture.alpha)]


def with_alpha(image, alpha, kind):
    """A PIL image with an alpha channel -> RGBA, or composited onto white if the format `kind` has no transparency."""
    rgba = image.convert("RGBA")
    rgba.putalpha(alpha)
    if kind in WITH_ALPHA:
        return rgba
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(image.mode)
