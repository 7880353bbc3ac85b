"""
Translating an uploaded file: the same functions as translate.py calls, so the file that is written is the same, byte for
byte.
"""

import collections
import dataclasses
import io
import math
import os
import threading

import numpy as np
from PIL import Image

from inference.detail import KeepSize
from inference.jobs import check_jobs, is_too_large, translate_pictures, translate_video_file
from inference.load import load_generator
from inference.ranges import read_in_range
from inference.translator import Translator
from media.containers import is_video
from media.images import open_image
from media.limits import max_pixels, open_pil
from media.pictures import make_resize
from media.survey import orientation_of
from media.targets import default_output, plan_jobs
from page.models_found import Models, shown
from utils import InputError

LONGEST = 1280  # side of a preview in pixels
LARGEST_SIDE = 4096  # that can be asked for
N_KEPT = 4  # generators in memory


@dataclasses.dataclass(frozen=True)
class Settings:
    """What translate.py is asked for by options of these names. `run` and `checkpoint` are names of models_found.Models;
    those of the second checkpoint are for `mix`, and None without it."""

    run: str
    checkpoint: str
    direction: str = "AB"
    size: int | None = None
    keep_size: bool = False
    strength: float = 1.0
    mix_run: str | None = None
    mix_checkpoint: str | None = None
    mix: float | None = None


def read_settings(run, checkpoint, direction, size, keep_size, strength, mix_run=None, mix_checkpoint=None, mix=None):
    """The values of a form, of any type -> Settings. Raises InputError. Names are checked when they are used.

    size: 0 or None for the size of the upload, which keep_size does not change
    """
    size = number("size", size or 0, 0, LARGEST_SIDE)
    if size != int(size):
        raise InputError(f"size {shown(size)}: is not a whole number of pixels")
    strength = number("strength", strength, 0, 1)
    mix = number("share of the second checkpoint", mix, 0, 1) if mix_run else None
    return Settings(run, checkpoint, direction, int(size) or None, bool(keep_size and size), strength, mix_run or None,
                    mix_checkpoint if mix_run else None, mix)  # fmt: skip


def number(name, value, low, high):
    """A value that a browser has sent -> float. Raises InputError unless it is a number from low to high."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise InputError(f"{name} {shown(value)}: is not a number from {low} to {high}")
    return float(value)


class Translators:
    """Loads generators, and keeps the last few. One whose file has changed, because its training goes on, is loaded
    again.

    models: what can be loaded
    device: torch.device to translate on
    """

    def __init__(self, models: Models, device, n_kept=N_KEPT):
        self.models, self.device, self.n_kept = models, device, n_kept
        self.kept, self.lock = collections.OrderedDict(), threading.Lock()

    def generator(self, run, checkpoint, direction):
        """-> TrainedGenerator. Raises InputError."""
        path = self.models.file(run, checkpoint, direction)
        key, state = (path, direction), file_state(path)
        with self.lock:
            if self.kept.get(key, (None,))[0] != state:
                self.kept.pop(key, None)  # frees its memory first
                try:
                    self.kept[key] = state, load_generator(path, direction)
                except InputError as error:
                    raise InputError(without_folders(str(error), path))
            self.kept.move_to_end(key)
            while len(self.kept) > self.n_kept:
                self.kept.popitem(last=False)
            return self.kept[key][1]

    def open(self, settings):
        """-> (list of TrainedGenerator, Translator or KeepSize, size to resize inputs to), as in translate.py"""
        names = [(settings.run, settings.checkpoint)]
        names += [(settings.mix_run, settings.mix_checkpoint)] * (settings.mix is not None)
        trained = [self.generator(*name, settings.direction) for name in names]
        translator = Translator(
            [one.network for one in trained], self.device, mix=settings.mix, strength=settings.strength
        )
        if settings.keep_size:
            return trained, KeepSize(translator, make_resize(settings.size)), None
        return trained, translator, settings.size


def file_state(path):
    """What changes when a file is written again. None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def check_result(source, size):
    """Raises InputError if a picture would be enlarged to more pixels than an upload may have. size: of Settings"""
    try:
        with open_pil(source) as image:
            width, height = make_resize(size)(*image.size) if size else (0, 0)
    except Exception:  # no picture, or a broken one, which is said when it is decoded
        return
    if width * height > max_pixels():
        raise InputError(
            f"size {size}: the picture would have {width} x {height} pixels, more than {max_pixels() / 1e6:g} million. "
            "Choose a smaller size"
        )


class Outcome:
    """What is told of the translation of one file, see inference.jobs."""

    def __init__(self):
        self.notes, self.failures = [], []

    def written(self):
        pass

    def failed(self, message):
        self.failures.append(message)

    def note(self, message):
        self.notes.append(message)


def translate_file(source, settings, translators, folder, mask=None, smooth=0.0, progress=None):
    """Translates an uploaded picture or video -> (path of the file that translate.py would write, list of notes).

    folder:   to write it to
    mask:     path of a gray image; white is translated
    smooth:   of a video, see media.flicker
    progress: called with (frames done, frames in all or None) of a video
    Raises InputError, naming the file as its sender knows it.
    """
    outcome = Outcome()
    try:
        check_result(source, settings.size)
        trained, translator, size = translators.open(settings)
        if mask:
            translator.check_blending()
        name = os.path.basename(default_output([source], True, None, False))
        plan = plan_jobs([source], output=os.path.join(folder, name))
        check_jobs(plan.jobs, trained)
        ((_, target),) = plan.jobs
        if is_video(target):
            result = translate_video_file(
                source, target, translator, size=size, mask=mask, smooth=smooth, progress=progress
            )
            outcome.notes += result.describe(target)
            if result.broken:
                outcome.note(f"{source}: broken ({result.broken}); its first {result.frames} frames are here")
        else:
            if is_too_large(source, trained[-1], settings.size):
                outcome.note(
                    f"{source}: is much larger than the {trained[-1].options['img_height']} pixels that the generator was "
                    "trained at, so it may not recognise objects. A smaller size is faster and may look better"
                )
            translate_pictures(plan.jobs, translator, outcome, size=size, mask=mask)
        if outcome.failures:
            raise InputError(outcome.failures[0])
    except InputError as error:
        raise InputError(without_folders(str(error), source, mask, folder))
    return target, [without_folders(note, source, folder) for note in outcome.notes]


def without_folders(message, *paths):
    """A message without the folders of the server that uploads and results are in."""
    for path in filter(None, paths):
        message = message.replace(os.path.join(path, ""), "").replace(os.path.join(os.path.dirname(path), ""), "")
    return message


##############################
#   Previews and masks
##############################


def fits(width, height):
    """The size of a preview, as in make_resize: at most LONGEST pixels wide and high, and never enlarged"""
    scale = min(1, LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def preview(path, size=None):
    """What a browser can show of a picture in any format -> PIL image, RGB. size: (width, height), or None"""
    pixels = read_in_range(path, 3, fits, (None, None)).pixels[0]
    image = Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels / 257).round().astype(np.uint8))
    return image.resize(size, Image.Resampling.BICUBIC) if size and image.size != size else image


def before_and_after(source, target):
    """-> PIL images (source, target) of one size; None if they are not pictures that can be shown, such as arrays of 12
    channels"""
    try:
        after = preview(target)
        return preview(source, after.size), after
    except InputError:
        return None


def painted_mask(layers):
    """What was painted -> uint8 (H, W), 255 where there is paint; None without any. Raises InputError.

    layers: list of bytes, pictures with transparency
    """
    mask = None
    for data in layers:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG", "WEBP"]) as image:
                if max(image.size) > LARGEST_SIDE:
                    raise ValueError("too large")
                alpha = np.array(image.convert("RGBA").getchannel("A")) >= 64
        except Exception:  # Pillow raises many kinds of errors on broken files
            raise InputError("the painted mask: is broken. Clear it and paint again")
        if mask is not None and mask.shape != alpha.shape:
            raise InputError("the painted mask: its layers have different sizes. Clear it and paint again")
        mask = alpha if mask is None else mask | alpha
    return None if mask is None or not mask.any() else mask * np.uint8(255)


def write_mask(mask, source, path):
    """Writes a painted mask as translate.py --mask reads it: as large as the picture that it belongs to."""
    with open_image(source) as image:
        width, height = image.size
        if orientation_of(image) > 4:  # it swaps the axes
            width, height = height, width
    Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR).save(path)
    return path
