"""
Looks at one image or video, and keeps less than 2 KB on it for prepare.py: size, colours, and fingerprints to find
duplicates by. Writes it as training needs it, if asked to.
"""

import dataclasses
import os
import shutil

import numpy as np
from PIL import Image

from get_data.seeing import Seen, see
from media.containers import is_video
from media.files import sha256_of
from media.reading import reading
from utils import InputError, whole_file

BINS = 16  # of the histograms of brightness, red, green and blue
THUMB = 8  # side of the thumbnail that near duplicates are confirmed by
FLAT, FLAT_SHARE = 6, 0.99  # an image is nearly empty if this share of it is within so many levels of its median colour
GRAY = 3  # an image is gray if its channels differ by at most this, on average over 1/64 of its width and height
LOSSY = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF")  # formats whose images are written as JPEG again, others as PNG
INSTALL_HASH = "pip install imagehash"


@dataclasses.dataclass(slots=True)
class Facts:
    """What is kept of an image.

    side:          "A" or "B"
    path, name:    of its file, see collecting.Source; of a frame, the time in seconds is added to both
    clip:          path of the video that it is a frame of, or ""
    width, height: as in the file, upright
    kind:          "gray", "colour", or "array": .npy files, and more than 8 bits or other than 1 or 3 channels
    channels:      number of channels of an array; of others 1 or 3
    values:        lowest and highest value of an array, and that which counts as 1
    sha:           SHA-256 of the file; of the first frame of a video, that of the video; of others, ""
    print:         perceptual hash of 64 bits
    thumb:         8 x 8 x 3 thumbnail, RGB
    levels:        4 x 16 histogram of brightness, red, green and blue: shares in 1/65535, uint16
    traits:        numbers on brightness, colours and sharpness, see traits_of
    clipped:       largest share of pixels that one channel has at 0 or 255
    turned:        whether the file says that it is to be rotated or mirrored
    taken:         [camera, seconds] by the EXIF data, or None
    made:          the file that was written, "" if none; n_bytes: its size
    split:         "train" or "test"
    """

    side: str
    path: str
    name: str
    width: int
    height: int
    kind: str
    channels: int
    print: int
    thumb: bytes
    levels: bytes
    traits: list
    clipped: float
    clip: str = ""
    values: list | None = None
    sha: str = ""
    turned: bool = False
    taken: list | None = None
    made: str = ""
    n_bytes: int = 0
    split: str = "train"

    def to_json(self):
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values):
        return cls(**values | {name: bytes.fromhex(values[name]) for name in ("thumb", "levels")})


class Unused(Exception):
    """Raised for an image that is not used. args: the reason, one of collecting.REASONS; what is wrong, as a text; of small
    images the shorter side"""


##############################
#   Measuring
##############################


def facts_of(source, seen, small):
    """-> Facts of an image. seen: Seen; small: its image at the size of training"""
    from imagehash import phash  # optional, see require_imagehash

    bits = np.packbits(phash(small).hash.ravel())
    rgb = small.convert("RGB")
    if seen.format == "array":
        kind = "array"
    else:
        planes = planes_of(rgb).astype(np.int16)
        kind = "gray" if (planes.max(0) - planes.min(0)).max() <= GRAY else "colour"
    return Facts(
        source.side, source.path, source.name, seen.width, seen.height, kind, seen.channels,
        print=int(bits.view(">u8")[0]),
        thumb=rgb.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes(),
        levels=levels_of(rgb),
        traits=traits_of(rgb),
        clipped=clipped_share(seen.image),
        values=seen.values,
        turned=seen.turned,
        taken=seen.taken,
    )  # fmt: skip


def require_imagehash():
    """Raises InputError without the package that compares images."""
    try:
        import imagehash  # noqa: F401
    except ImportError:
        raise InputError(f"prepare.py: finding near duplicates requires imagehash: {INSTALL_HASH}")


def levels_of(rgb):
    """PIL image, RGB -> Facts.levels"""
    counts = [rgb.convert("L").histogram(), *np.reshape(rgb.histogram(), (3, 256))]
    bins = np.reshape(counts, (4, BINS, -1)).sum(2)
    return (bins * 65535 / (rgb.width * rgb.height)).round().astype("<u2").tobytes()


def clipped_share(image):
    """The largest share of pixels, 0 to 1, that one channel of a PIL image has at 0 or 255"""
    counts = np.reshape(image.histogram(), (-1, 256))
    return round(float((counts[:, 0] + counts[:, -1]).max() / counts[0].sum()), 4)


def traits_of(rgb):
    """PIL image, RGB -> 14 numbers that tell domains apart: the mean and deviation of each channel and of the saturation,
    and the logarithm of the mean slope of the brightness, across and down, at three scales"""
    planes = planes_of(rgb).astype(np.float32) / 255
    saturation = planes.max(0) - planes.min(0)
    numbers = [*planes.mean((1, 2)), *planes.std((1, 2)), saturation.mean(), saturation.std()]
    gray = planes.mean(0)
    for _ in range(3):
        numbers += [np.log(1e-3 + np.abs(np.diff(gray, axis=axis)).mean()) for axis in (0, 1)]
        gray = (gray[::2] + gray[1::2])[:, ::2] / 4 + (gray[::2] + gray[1::2])[:, 1::2] / 4
    return [round(float(number), 4) for number in numbers]


def planes_of(image):
    """PIL image, RGB -> uint8 (3, 64, 64), means over parts of it. Channels first, which NumPy reduces faster"""
    return np.moveaxis(np.asarray(image.resize((64, 64), Image.Resampling.BOX)), 2, 0).copy()


def is_flat(image):
    """Whether a PIL image is nearly of one colour: 99% of a 64 x 64 version differ from its median by at most 6 levels"""
    planes = planes_of(image.convert("RGB")).reshape(3, -1).astype(np.int16)
    middle = np.sort(planes, axis=1)[:, planes.shape[1] // 2, None]
    return (np.abs(planes - middle).max(0) <= FLAT).mean() >= FLAT_SHARE


##############################
#   One file
##############################


@dataclasses.dataclass
class How:
    """How images are prepared. size: longest that the shorter side may be; smallest: shortest; every: seconds between two
    frames of a video; folder: to write images to, or None to only look at them"""

    size: int
    smallest: int
    every: float = 1.0
    folder: str | None = None


def look_at_source(source, how, key=""):
    """Looks at a file, and writes its images to how.folder under names that begin with `key`
    -> (list of Facts, (reason, why) or None). Of a video that is damaged, both."""
    try:
        if is_video(source.path):
            return look_at_clip(source, how, key)
        return [look_at_image(source, how, key)], None
    except Unused as error:
        return [], error.args
    except InputError as error:
        return [], ("broken", without_path(error, source.path))


def without_path(error, path):
    """The message of an InputError, without the path that it begins with and advice on other commands"""
    text = str(error).removeprefix(f"{path}: ").replace("\n", " ")
    return text.split(". translate.py --allow")[0].split(". If you trust")[0][:300]


def look_at_image(source, how, key):
    """-> Facts. Raises Unused and InputError."""
    with reading(source.path):
        sha = sha256_of(source.path)
    seen = see(source.path, how.size)
    check_worth(seen, how)
    fits = min(seen.width, seen.height) <= how.size
    small = shrunk(seen.image, how.size)
    facts = facts_of(source, seen, small)
    facts.sha = sha
    if how.folder:
        if seen.format == "array" or fits and seen.is_plain:
            extension = {"JPEG": ".jpg", "PNG": ".png"}.get(seen.format, os.path.splitext(source.path)[1].lower())
            facts.made = key + extension
            with whole_file(os.path.join(how.folder, facts.made)) as temporary:
                shutil.copyfile(source.path, temporary)
        else:
            facts.made = key + (".jpg" if seen.format in LOSSY else ".png")
            write_image(small, os.path.join(how.folder, facts.made))
        facts.n_bytes = os.path.getsize(os.path.join(how.folder, facts.made))
    return facts


def look_at_clip(source, how, key):
    """Looks at a frame of a video every how.every seconds -> (list of Facts, what is wrong with it). Raises InputError."""
    found, problem = [], None
    frames = frames_of(source.path, how)
    while True:
        with reading(source.path):
            taken = next(frames, None)
        if taken is None:
            break
        seconds, seen, broken = taken
        if broken:
            problem = ("broken", f"after {seconds:.1f} s: {broken}; the frames before are used")
            break
        try:
            check_worth(seen, how)
        except Unused as error:
            problem = (error.args[0], f"frames, such as that at {seconds:.1f} s: {error.args[1]}")
            continue
        facts = facts_of(source, seen, seen.image)
        facts.clip, facts.path = source.path, f"{source.path} at {seconds:.1f} s"
        facts.name = f"{os.path.splitext(source.name)[0]}_{round(seconds * 1000):08d}.jpg"
        if how.folder:
            facts.made = f"{key}_{len(found):06d}.jpg"
            write_image(seen.image, os.path.join(how.folder, facts.made))
            facts.n_bytes = os.path.getsize(os.path.join(how.folder, facts.made))
        found.append(facts)
    if found:
        with reading(source.path):
            found[0].sha = sha256_of(source.path)  # tells copies of the video apart, see preparing.choose
    return found, problem


def frames_of(path, how):
    """Yields (time in seconds, Seen, ""), shrunk, and at last (time, None, what is wrong) of a damaged video."""
    from media.video_files import VideoReader  # needs PyAV, an optional package

    sizes, due, end = [], 0.0, 0.0

    def resize(width, height):
        sizes.append((width, height))
        scale = min(1, how.size / min(width, height))
        return round(width * scale), round(height * scale)

    try:
        reader = VideoReader(path, resize)
    except ImportError:
        raise InputError(f"{path}: reading a video requires PyAV: pip install av")
    with reader:
        for batch in reader.frame_batches(4):
            for pixels, (start, _) in zip(batch.frames, batch.times):
                end = float(start)
                if end >= due - 1e-6:
                    due = end + how.every
                    yield end, Seen(Image.fromarray(np.ascontiguousarray(pixels)), *sizes[0], "video"), ""
        if reader.broken:
            yield end, None, reader.broken


def check_worth(seen, how):
    """Raises Unused if an image is too small, or nearly of one colour."""
    if min(seen.width, seen.height) < how.smallest:
        crop = f"{how.smallest} x {how.smallest}"
        raise Unused(
            "small",
            f"{seen.width} x {seen.height} pixels, smaller than the crop of {crop}",
            min(seen.width, seen.height),
        )
    if seen.format != "array" and is_flat(seen.image):
        raise Unused("empty", "99% of it has nearly the same colour")


def shrunk(image, size):
    """A PIL image whose shorter side is at most `size`, in its aspect ratio"""
    scale = size / min(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def write_image(image, path):
    """Writes a PIL image as JPEG of high quality or as PNG, by the extension, completely or not at all."""
    kind = "JPEG" if path.endswith(".jpg") else "PNG"
    with whole_file(path) as temporary:
        image.save(temporary, kind, **(dict(quality=95, subsampling=0) if kind == "JPEG" else {}))
