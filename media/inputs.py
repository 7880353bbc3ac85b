"""
What to translate, and where to write it: files, folders with their tree, globs; nothing is written over by accident.
And what goes with a picture: its mask, its size.
"""

import glob
import os

import numpy as np
from PIL import Image

from media.images import IMAGE_EXTENSIONS, load_image, stem
from media.pictures import format_of
from media.video import FORMATS as VIDEO_FORMATS
from utils import InputError

VIDEO_EXTENSIONS = (*VIDEO_FORMATS, ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".3gp")  # FFmpeg reads more, if named


def find_inputs(patterns, without):
    """Files, folders and globs -> (list of (path, its name below the folder or glob it was found by), notes on what was
    left out, lines on folders that cannot be read). Folders are searched through, but for `without`, the output; what
    is hidden is left out."""
    found, notes, failures = [], [], []
    extensions = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS

    def search(folder, base):
        def unreadable(error):
            failures.append(f"{error.filename}: {error.strerror}")

        n_others = 0
        for path, folders, names in os.walk(folder, onerror=unreadable):
            folders[:] = sorted(
                f for f in folders if not f.startswith(".") and not same(os.path.join(path, f), without)
            )
            notes.extend(
                f"{os.path.join(path, f)}: a folder, in spite of its name"
                for f in folders
                if f.lower().endswith(extensions)
            )
            for name in sorted(names):
                if name.lower().endswith(extensions) and not name.startswith("."):
                    file = os.path.join(path, name)
                    found.append((file, os.path.relpath(file, base)))
                elif not name.startswith("."):
                    n_others, other = n_others + 1, os.path.join(path, name)
        if n_others:
            notes.append(f"{folder}: left out {n_others} that are neither pictures nor videos, such as {other}")

    for pattern in patterns:
        if os.path.isdir(pattern):
            search(pattern, pattern)
        elif os.path.lexists(pattern):
            found.append((pattern, os.path.basename(pattern)))
        elif is_glob(pattern):
            base = pattern
            while glob.has_magic(base):
                base = os.path.dirname(base)
            paths = sorted(glob.glob(pattern, recursive=True))
            if not paths:
                raise InputError(f"--input {pattern}: matches no file")
            output = os.path.join(os.path.realpath(without), "")
            found += [
                (path, os.path.relpath(path, base or "."))
                for path in paths
                if os.path.isfile(path) and not os.path.realpath(path).startswith(output)
            ]
        else:
            raise InputError(f"--input {pattern}: no such file or folder")
    if not found:
        raise InputError(f"--input {patterns[0]}: holds no picture and no video")
    return list(dict.fromkeys(found)), notes, failures


def same(a, b):
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


def is_glob(path):
    return glob.has_magic(path) and not os.path.lexists(path)  # "holiday [1].jpg" may be a name


def is_video(path):
    return path.lower().endswith(VIDEO_EXTENSIONS)


def written_as(name, kind):
    """A name whose extension says what can be written: `kind` if there is one, else as it is, else PNG or MP4."""
    stem, extension = os.path.splitext(name)
    if is_video(name):
        return name if extension.lower() in VIDEO_FORMATS else stem + ".mp4"
    return f"{stem}.{(kind or 'png').lower()}" if kind or not format_of(name) else name


def plan(opt):
    """-> (list of (source, target), file or folder that all go to, notes and failures as of find_inputs). Nothing is
    written over by accident."""
    patterns = opt.input
    one = len(patterns) == 1 and not os.path.isdir(patterns[0]) and not is_glob(patterns[0])
    output = opt.output
    if output is None:
        suffix = "_features" if opt.features else "_translated"
        if one:
            stem, extension = os.path.splitext(patterns[0])
            output = stem + (suffix + ".png" if opt.features else written_as(suffix + extension, opt.format))
        elif len(patterns) == 1 and os.path.isdir(patterns[0]):
            output = os.path.relpath(os.path.abspath(patterns[0]) + suffix)  # abspath: "." has a name, too
        else:
            output = suffix[1:]
    to_file = one and not os.path.isdir(output) and bool(format_of(output) or is_video(output))
    if not one and (os.path.isfile(output) or is_video(output) or (format_of(output) and not os.path.isdir(output))):
        raise InputError(f"--output {output}: is one file, for several inputs. Name a folder")

    found, notes, failures = find_inputs(patterns, without=output)
    jobs = {}
    for source, name in found:
        kind = "png" if opt.features and name.lower().endswith(".npy") else opt.format  # what is seen is a picture
        target = output if to_file else os.path.join(output, written_as(name, kind))
        if opt.features and is_video(source):
            raise InputError(f"--features: {source} is a video, not a picture")
        if is_video(source) and not is_video(target):
            raise InputError(f"--output {output}: a picture's name, but {source} is a video")
        if target in jobs:
            raise InputError(
                f"{jobs[target]} and {source} would both be written to {target}. Give each an --output of its own"
            )
        jobs[target] = source
    sources = {os.path.realpath(source) for source in jobs.values()}
    for target in jobs:
        if os.path.realpath(target) in sources:
            raise InputError(f"--output {output}: {target} is itself an input. Name another folder")
    there = [target for target in jobs if os.path.lexists(target)]
    if there and not opt.resume and not opt.overwrite:
        raise InputError(
            f"{there[0]}: is there already{f', and {len(there) - 1} more' if there[1:] else ''}. "
            "--resume leaves out what is there, --overwrite writes over it"
        )
    if opt.resume:
        if there:
            print(f"{len(there)} of {len(jobs)} are there already")
        for target in there:
            del jobs[target]
    return [(source, target) for target, source in jobs.items()], output, notes, failures


def resizer(size, step=1):
    """--size -> function (width, height) -> (width, height), multiples of `step` unless both are given; or None"""
    if size is None:
        return None
    if isinstance(size, tuple):
        return lambda width, height: size

    def resize(width, height):
        factor = size / min(width, height) / step
        return tuple(max(step, round(side * factor) * step) for side in (width, height))

    return resize


def mask_for(path, shape, opt):
    """The mask of a picture of `shape` (height, width) -> uint8 of that shape: 255 translates, 0 leaves as it is.

    opt.mask: a gray picture, or a folder that holds one of the same name (of any format)"""
    mask = opt.mask
    if os.path.isdir(mask):
        named = sorted(glob.glob(os.path.join(glob.escape(mask), glob.escape(stem(path)) + ".*")))
        named = [name for name in named if stem(name) == stem(path)]  # no x.y.png for x
        named = [name for name in named if name.lower().endswith(IMAGE_EXTENSIONS)]
        if not named:
            raise InputError(f"{path}: no mask named {stem(path)} in {mask}")
        mask = named[0]
    pixels = load_image(mask, channels=1)[..., 0]
    if pixels.shape != shape:
        height, width = pixels.shape
        distorted = abs(height * shape[1] - width * shape[0]) > max(shape)  # by more than a rounded pixel
        if distorted and not isinstance(opt.size, tuple):
            raise InputError(f"{mask}: {width} x {height} pixels do not fit {path} of {shape[1]} x {shape[0]}")
        pixels = np.array(Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BILINEAR))
    return pixels
