"""
Looks at the images of a domain before training: reads or checks all of them, shows how far that is, and finds what a
user should know about them.
"""

import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from media.folders import count_of
from media.images import open_image
from utils import InputError

SQUASHED = 1.5  # an image whose aspect ratio differs more than this from the crop's is worth a note
MOST_NAMED = 50  # bad images that are named


##############################
#   All images
##############################


def check_all(folder, n, check_one, noun="image"):
    """Calls check_one(i) for the images 0 to n - 1 of a folder, in threads, and shows the progress -> {i: message} of
    those that raised InputError."""

    def errors_in(block):
        found = {}
        for i in block:
            try:
                check_one(i)
            except InputError as error:
                found[i] = str(error)
        return found

    bad, counter = {}, Counter(folder, n, noun)
    # several images a task: for headers alone, handing out tasks takes as long as reading. Progress is still fine
    size = max(1, min(64, n // 200))
    blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    # threads are enough: Pillow releases the GIL
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for block, found in zip(blocks, pool.map(errors_in, blocks)):
            bad |= found
            counter.count(block.stop)
    counter.finish()
    return bad


class Counter:
    """Says that the images of a folder are being read, and shows how many were, in the first of several processes."""

    def __init__(self, folder, n, noun="image"):
        self.n, self.noun, self.started, self.next = n, noun, time.monotonic(), 1.0
        self.quiet = os.environ.get("RANK", "0") != "0"
        self.text, self.progress = f"reading {folder}: ", None
        if not self.quiet:
            print(f"{self.text}{count_of(n, noun)}", flush=True)

    def count(self, done):
        seconds = time.monotonic() - self.started
        if self.quiet or seconds < self.next:
            return
        if self.progress is None:
            from command_line.progress import Progress

            self.progress = Progress()
        self.next = seconds + 0.2
        if done < self.n:
            self.progress.tick(done, self.n, f"{self.noun}s", self.started, self.text)

    def finish(self):
        if self.progress:
            self.progress.end_line()


def without_bad(domain, bad, n, noun="image"):
    """The numbers of the images of a domain without the bad ones, {i: message}, with a note on these. Raises InputError
    if they are not to be skipped, or if no other is left."""
    if len(bad) == n:
        raise InputError(f"{next(iter(bad.values()))} (no {noun} in this folder can be used)")
    if not domain.skip_bad_images:
        raise InputError(f"{describe_bad(domain, bad, noun)}. Use --skip_bad_images to train without them")
    domain.notes.append(
        f"{domain.files.folder}: skipped {len(bad)} of {count_of(n, noun)}. {describe_bad(domain, bad, noun)}"
    )
    return np.array([i for i in range(n) if i not in bad])


def describe_bad(domain, bad, noun="image"):
    """One line on the bad images of a domain, {i: message}: what is wrong with the first one, and the names of others."""
    first, *others = bad
    if not others:
        return bad[first]
    names = [os.path.relpath(domain.files[i], domain.files.folder) for i in others[:MOST_NAMED]]
    names += [f"{len(others) - MOST_NAMED} more"] if len(others) > MOST_NAMED else []
    of = f"{len(bad)} of the {count_of(len(domain.files), noun)} in this folder"
    return f"{bad[first]} ({of} cannot be used: also {', '.join(names)})"


##############################
#   Some images
##############################


@dataclasses.dataclass
class Sample:
    """What some of a domain's files hold.

    paths, shapes: of the files that could be read; their (height, width), upright
    values:        lowest and highest value, at full precision, and the value that counts as 1; None for 8-bit images
    """

    paths: list
    shapes: list
    values: tuple | None


def look_at(files, channels, is_float):
    """Reads the headers of up to 64 evenly spaced files, or all of 16 that are to be read at full precision -> Sample.
    Files that cannot be read are left out; the check of all images reports them."""
    n = min(len(files), 16 if is_float else 64)
    sample, lows, highs, tops = Sample([], [], None), [], [], []
    for i in np.arange(n) * len(files) // n:
        try:
            if is_float:
                from media.arrays import raw_values

                values, top = raw_values(files[i], channels)
                shape = values.shape[:2]
                lows.append(values.min())
                highs.append(values.max())
                tops.append(top)
            else:
                with open_image(files[i]) as image:
                    shape = upright_shape(image)
        except (InputError, ValueError):
            continue
        sample.paths.append(files[i])
        sample.shapes.append(shape)
    if lows:
        sample.values = min(lows), max(highs), max(tops)
    return sample


def orientation_of(image):
    """The EXIF orientation of an open PIL image, 1 to 8; 1 if there is none, or an invalid one. Decodes the image: a PNG
    may hold its EXIF data after its pixels."""
    image.load()  # outside the try block: a broken image is an error
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # invalid EXIF, as in images.apply_orientation
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright_shape(image):
    """(height, width) of an open PIL image, with its orientation applied"""
    try:
        turned = Image.Image.getexif(image).get(0x0112, 1) in range(5, 9)
    except Exception:  # invalid EXIF, as in images.apply_orientation
        turned = False
    return image.size if turned else image.size[::-1]


def notes_on(domain):
    """-> list of notes on shapes and values that the user may not expect"""
    notes, sample = [], domain.sample
    height, width = domain.size
    stretches = [(w / h) / (width / height) for h, w in sample.shapes]
    odd = [i for i, stretch in enumerate(stretches) if max(stretch, 1 / stretch) > SQUASHED]
    if odd and not domain.keep_aspect:
        (h, w), path = sample.shapes[odd[0]], sample.paths[odd[0]]
        share = f"{len(odd)} of {len(stretches)} images" + " looked at" * (len(stretches) < len(domain.files))
        notes.append(
            f"{domain.files.folder}: {share} are squashed to the crop's shape, such as {path} ({w} x {h}). "
            "--keep_aspect keeps their shape and crops"
        )
    if sample.values:
        notes += notes_on_values(domain, *sample.values)
    return notes


def notes_on_values(domain, low, high, top):
    folder = domain.files.folder
    found = f"values from {low:g} to {high:g}"
    if domain.value_range:
        a, b = domain.value_range
        outside = low < a or high > b
        return [f"{folder}: {found}; those outside of {a:g} to {b:g} are clipped"] if outside else []
    if top == 255 or high - low >= top / 4:
        return []
    letter = folder[-1:]  # of trainA or train/A
    flag = f"--range_{letter}" if letter in ("A", "B") else "--range_A or --range_B"
    return [
        f"{folder}: {found} are less than a quarter of 0 to {top}, so that images differ little for the networks. "
        f"{flag} {low:g} {high:g} uses the whole range"
    ]


def merged(notes):
    """Notes "FOLDER: TEXT" of both domains -> notes without repetition. Equal texts become one note with all the folders.
    Equal advice, a last sentence that begins with an option, is kept in the last note only."""
    folders = {}
    for note in notes:
        folder, colon, text = note.partition(": ")
        folders.setdefault(text if colon else folder, []).extend([folder] if colon else [])
    lines = [
        ": ".join([" and ".join(dict.fromkeys(names)), text] if names else [text]) for text, names in folders.items()
    ]
    advice = [line.rpartition(". --") for line in lines]
    return [
        start if start and any(end == later for *_, later in advice[i + 1 :]) else line
        for i, (line, (start, _, end)) in enumerate(zip(lines, advice))
    ]


def covering(size, height, width):
    """The smallest size that has the aspect ratio of height x width and covers `size` -> (height, width)"""
    scale = max(size[0] / height, size[1] / width)
    return max(size[0], round(height * scale)), max(size[1], round(width * scale))
