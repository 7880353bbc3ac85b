"""
Pictures for translation. A `Picture` is an image together with everything else that its file holds: alpha, frames and
their timing, pages, 16 bits, EXIF and other metadata. read_picture, and write_picture in picture_writer.py, keep all that
still holds after a translation; docs/translating.md says what that is.

To train and evaluate, 8-bit pixels are enough: see images.py. Both see the same, see images.as_seen.
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image

from media.arrays import is_array, read_arrays, resize_array, to_channels, to_unit_range
from media.colours import is_converted
from media.depth import depth_of_heif
from media.frames import content_frames
from media.images import apply_orientation, as_seen, open_image
from media.limits import check_pixels, max_pixels
from media.metadata import GEO_TAGS, metadata_to_keep
from utils import InputError

ANIMATED = ("PNG", "WEBP", "TIFF", "GIF", "AVIF")
LARGEST_ANIMATION = 2**30  # values in all frames together, because all are decoded at once
MOST_FRAMES = 2000  # of an animation, more than a minute. Pages of a TIFF are not limited


@dataclasses.dataclass
class Picture:
    """An image and everything else that its file holds.

    pixels:   (frames, H, W, channels), as a person sees them, see images.as_seen. uint8; uint16 for more than 8 bits
    alpha:    (frames, H, W) of the same type, or None
    straight: `pixels` before they were composited onto white, to be written with alpha; None without alpha
    info:     metadata to write with it, see metadata.metadata_to_keep
    timing:   for more than one frame: "duration", a list in ms, and "loop", the number of repetitions
    pages:    list of Picture: further pages of a TIFF, whose size or type differs from that of the pages before
    infos:    `info` of each frame, where they differ: of the pages of a TIFF; else an empty list
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    info: dict
    timing: dict
    straight: np.ndarray | None = None
    pages: list = dataclasses.field(default_factory=list)
    infos: list = dataclasses.field(default_factory=list)

    def pages_to_write(self, with_alpha=True):
        """-> list of (pixels, alpha or None, info), one for each frame and page"""
        found = []
        for one in (self, *self.pages):
            has_alpha = one.alpha is not None and with_alpha
            for i, frame in enumerate(one.straight if has_alpha else one.pixels):
                found.append((frame, one.alpha[i] if has_alpha else None, one.infos[i] if one.infos else one.info))
        return found


def make_resize(size, step=1):
    """The option --size -> function (width, height) -> (width, height) to resize to, or None.

    size: length of the shorter side, (width, height), or None
    step: for a single length, both sides become multiples of it
    """
    if size is None:
        return None
    if isinstance(size, tuple):
        return lambda width, height: size

    def resize(width, height):
        factor = size / min(width, height) / step
        return tuple(max(step, round(side * factor) * step) for side in (width, height))

    return resize


##############################
#          Reading
##############################


def read_picture(path, channels, resize=None):
    """Decodes an image file -> Picture.

    channels: 1 for gray, 3 for RGB; other colours are converted. For any other number the file must have as many
              channels, see arrays.py
    resize:   function (width, height) -> (width, height), or None. A JPEG above the limit of pixels, see
              images.open_image, is decoded at a reduced size first
    Raises InputError, naming the path.
    """
    if is_array(path, channels):
        return join([array_to_picture(array, resize) for array in read_arrays(path, channels)])

    def needed(width, height):
        return max(resize(width, height)) if resize and width * height > max_pixels() else None

    with open_image(path, needed=needed) as image:
        numbers = content_frames(image) if image.format in ANIMATED else [0]  # in other formats, previews or layers
        check_frames(path, image, len(numbers), channels)
        frames = []
        for number in numbers:
            if number or len(numbers) > 1:
                seek(image, number)
            if image.format == "TIFF":
                check_pixels(path, *image.size, 0)
            frames.append(decode_frame(image, channels, resize))
        picture = frames_to_picture(image, frames)
    if bits := depth_of_heif(path):
        picture.info["notes"] = [f"{path}: its {bits} bits were read as 8"]
    return picture


def seek(image, number):
    """Goes to a frame of an open PIL image. Pillow keeps what a page of a TIFF said until another page says otherwise."""
    if image.format == "TIFF" and number != image.tell():
        for key in ("icc_profile", "dpi", "resolution", "xmp"):
            image.info.pop(key, None)
    image.seek(number)


def check_frames(path, image, n_frames, channels):
    """Raises InputError if an open PIL image has too many frames to decode all of them."""
    too_many = n_frames > MOST_FRAMES and image.format != "TIFF"
    if too_many or n_frames > 1 and n_frames * image.width * image.height * channels > LARGEST_ANIMATION:
        why = f", more than {MOST_FRAMES}" if too_many else " do not fit into memory at once"
        way_out = "Split the file" if image.format == "TIFF" else "Translate it to a video: --output NAME.mp4"
        raise InputError(f"{path}: {n_frames} frames{why}. {way_out}")


def image_to_picture(image, channels, resize=None):
    """PIL image -> Picture, as read_picture reads it from a file. Of an animation, the current frame.

    channels: 1 for gray, 3 for RGB
    """
    return frames_to_picture(image, [decode_frame(image, channels, resize)])


def array_to_picture(array, resize):
    """arrays.Array -> Picture of type uint16"""
    planes = [array.pixels, array.straight, None if array.alpha is None else array.alpha[..., None]]
    info = {key: value for key, value in array.info.items() if value}
    if resize:
        size = resize(*array.pixels.shape[1::-1])[::-1]
        if size != array.pixels.shape[:2]:
            info["extratags"] = [tag for tag in info.get("extratags", []) if tag[0] not in GEO_TAGS]
        planes = [None if plane is None else resize_array(plane, size) for plane in planes]
    pixels, straight, alpha = (None if p is None else (p * 65535).round().astype(np.uint16)[None] for p in planes)
    return Picture(pixels, None if alpha is None else alpha[..., 0], info, {}, straight)


def join(pictures):
    """Pictures of one page each -> one Picture. Neighbours of one size and type become frames of one array."""

    def kind(picture):
        return picture.pixels.shape[1:], picture.pixels.dtype.str, picture.alpha is None

    joined = []
    for _, group in itertools.groupby(pictures, kind):
        alike = list(group)
        for name in ("pixels", "alpha", "straight") if len(alike) > 1 else ():
            if getattr(alike[0], name) is not None:
                setattr(alike[0], name, np.concatenate([getattr(picture, name) for picture in alike]))
        if any(picture.info != alike[0].info for picture in alike):
            alike[0].infos = [picture.info for picture in alike]
        joined.append(alike[0])
    joined[0].pages = joined[1:]
    return joined[0]


@dataclasses.dataclass
class Frame:
    """pixels (H, W, channels) as seen, alpha (H, W) or None, straight as in Picture, duration in ms, info as Pillow
    returns it, kept: what Picture.info keeps of it, for a page of a TIFF"""

    pixels: np.ndarray
    alpha: np.ndarray | None
    straight: np.ndarray | None
    duration: float
    info: dict
    kept: dict | None = None


def decode_frame(image, channels, resize):
    """The current frame of a PIL image -> Frame, EXIF orientation applied."""
    upright = apply_orientation(image)
    frame = decode_upright(image, upright, channels, resize)
    if image.format == "TIFF":  # each page has its own
        frame.kept = info_to_keep(image, frame)
    return frame


def decode_upright(image, upright, channels, resize):
    """decode_frame without metadata. upright: the frame with its orientation applied"""
    duration = image.info.get("duration", 0)  # WebP and AVIF know a frame's duration only after decoding it
    if upright.mode[0] in "IF":
        pixels = to_channels(to_unit_range(np.asarray(upright))[..., None], channels)
        if resize:
            pixels = resize_array(pixels, resize(*upright.size)[::-1])
        return Frame((pixels * 65535).round().astype(np.uint16), None, None, duration, upright.info)
    seen, alpha, straight = as_seen(upright, channels)
    planes = [seen, straight, alpha]
    if resize:
        size = resize(*upright.size)
        planes = [plane and plane.resize(size, Image.Resampling.BICUBIC) for plane in planes]
    pixels, straight, alpha = (None if plane is None else np.array(plane) for plane in planes)
    pixels, straight = (None if p is None else p.reshape(*p.shape[:2], channels) for p in (pixels, straight))
    return Frame(pixels, alpha, straight, duration, upright.info)


def frames_to_picture(image, frames):
    """Decoded frames, and the PIL image that they come from -> Picture."""
    info, timing = None if frames[-1].kept else info_to_keep(image, frames[-1]), {}
    if len(frames) > 1 and image.format != "TIFF":
        timing = dict(duration=[frame.duration for frame in frames])
        if "loop" in image.info:
            timing["loop"] = image.info["loop"]
    has_alpha = any(frame.alpha is not None for frame in frames)
    pictures = []
    for frame in frames:
        alpha, straight = frame.alpha, frame.straight
        if has_alpha and alpha is None:
            alpha, straight = np.full(frame.pixels.shape[:2], 255, np.uint8), frame.pixels
        in_one = (None if plane is None else plane[None] for plane in (frame.pixels, alpha, straight))
        pixels, alpha, straight = in_one
        pictures.append(Picture(pixels, alpha, frame.kept or dict(info or {}), timing, straight))
    return join(pictures)


def info_to_keep(image, frame):
    """The current Frame of an open PIL image -> Picture.info"""
    shape = frame.pixels.shape
    is_resized = shape[:2] not in (image.size, image.size[::-1])
    info = metadata_to_keep(image, frame.info, is_converted(image), is_resized)
    if (shape[2] == 1) != (image.mode[0] in "1LIF"):
        info.pop("icc_profile", None)  # it describes another number of channels
    return info


##############################
#     With other pixels
##############################


def replace_pixels(picture, pixels):
    """A Picture with other pixels, (frames, H, W, any number of channels), as seen, and everything else as before.
    Drops the colour profile if the number of channels changes."""
    info, *infos = map(dict, (picture.info, *picture.infos))
    straight = None if picture.alpha is None else without_white(picture, pixels)
    if pixels.shape[3] != picture.pixels.shape[3]:
        for one in (info, *infos):
            one.pop("icc_profile", None)
    return dataclasses.replace(picture, pixels=pixels, info=info, straight=straight, infos=infos)


def without_white(picture, pixels):
    """New pixels as seen on white -> the colours that look so with the alpha of a Picture.

    seen = alpha * straight + (1 - alpha) * white, so a change of what is seen is divided by alpha. Where nothing
    changed, the colours stay exactly what they were. Where alpha is 0, any colour will do, and it takes the seen one.
    """
    top = np.iinfo(picture.pixels.dtype).max
    share = picture.alpha[..., None].astype(np.float32) / top
    safe = share.clip(1 / top)
    if pixels.shape == picture.straight.shape:
        straight = picture.straight + (pixels.astype(np.float32) - picture.pixels) / safe
    else:  # another number of channels
        straight = top + (pixels.astype(np.float32) - top) / safe
    return np.where(share > 0, straight.round().clip(0, top), pixels).astype(pixels.dtype)
