"""
Decodes an image of any format for prepare.py, as a person sees it, and says what is special about its file.
"""

import calendar
import dataclasses
import time

import numpy as np
from PIL import ExifTags, Image

from media.arrays import decode, upright
from media.depth import is_array
from media.frames import content_frames
from media.images import apply_orientation, as_seen, open_image, scale_to_8_bit
from media.reading import reading
from media.survey import orientation_of


@dataclasses.dataclass
class Seen:
    """A decoded image.

    image:         PIL image, mode L or RGB, upright, in sRGB, on white: what a person sees. Of an array, a preview
    width, height: as in the file, upright
    format:        Pillow's name of the file's format; of arrays, "array"
    is_plain:      whether it is an 8-bit JPEG or PNG that is upright, so that the file can be used as it is
    turned, channels, values, taken: as in looking.Facts
    """

    image: Image.Image
    width: int
    height: int
    format: str
    is_plain: bool = False
    turned: bool = False
    channels: int = 3
    values: list | None = None
    taken: list | None = None


def see(path, size):
    """Decodes an image file -> Seen. A JPEG is decoded at a reduced size, at least twice as large as `size`, the length of
    the shorter side that is needed. Raises InputError."""
    if is_array(path, 3):
        return see_array(path)
    before = []

    def needed(width, height):
        before.append((width, height))
        shorter, longer = sorted((width, height))
        return -(-longer * size // shorter) if shorter > size else None

    with open_image(path, needed=needed) as image:
        plain = image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")
        is_single = getattr(image, "n_frames", 1) == 1
        if not is_single and image.format in ("PNG", "TIFF"):
            image.seek(content_frames(image)[0])
        turned = orientation_of(image) > 1
        whole = apply_orientation(image)
        is_plain = plain and is_single and not turned and not image.has_transparency_data
        channels = 1 if whole.mode in ("1", "L", "LA", "La") or whole.mode[0] in "IF" else 3
        seen = as_seen(scale_to_8_bit(whole), channels)[0]
        is_lying = (whole.width > whole.height) != (image.width > image.height)
        width, height = before[0][::-1] if is_lying else before[0]
        return Seen(seen, width, height, image.format, is_plain, turned, channels, taken=time_of(image))


def time_of(image):
    """When a photo was taken, by its EXIF data -> [camera, seconds], or None if that does not say"""
    try:
        exif = image.getexif()
        taken = str(exif.get_ifd(ExifTags.IFD.Exif)[0x9003])  # DateTimeOriginal
        seconds = calendar.timegm(time.strptime(taken[:19], "%Y:%m:%d %H:%M:%S"))
        return [f"{exif.get(0x010F, '')} {exif.get(0x0110, '')}"[:80], seconds]  # make and model
    except Exception:  # invalid EXIF
        return None


def see_array(path):
    """An image of more than 8 bits or any number of channels -> Seen, whose image is an 8-bit preview of its first one or
    three channels. Raises InputError."""
    with reading(path):
        page = decode(path, 1 if path.lower().endswith(".npy") else 3)[0]
        values = page.values[..., None] if page.values.ndim == 2 else page.values
        if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "iuf":
            raise ValueError(f"shape {values.shape} of {values.dtype}, expected height x width x channels")
        if values.shape[0] < min(values.shape[1:]):  # channels come first
            values = values.transpose(1, 2, 0)
        values = upright(values[..., :-1] if page.has_alpha else values, page.orientation)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("holds NaN or infinite values")
        top = page.top or (np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1)
        start, end = (0, top) if 0 <= low and high <= top and high > top / 16 else (low, max(high, low + 1e-12))
        first = values[..., :3] if values.shape[2] >= 3 else values[..., :1].repeat(3, 2)
        step = -(-min(first.shape[:2]) // 512)  # a preview need not be larger
        scaled = (first[::step, ::step].astype(np.float64) - start) * (255 / (end - start))
        image = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
        height, width, channels = values.shape
        return Seen(image, width, height, "array", channels=channels, values=[low, high, float(top)])
