"""
Palettes: the colours of the classes in label images. Cityscapes' is built in, others are read from a file or off the
label images themselves.
"""

import dataclasses
import os
import re

import numpy as np

from media.images import load_image
from utils import InputError

VOID = 255  # the class index of pixels that are not scored
MAX_CLASSES = 64
MAX_NOISE = 10  # JPEG changes colours by up to about this many gray levels where they are flat


@dataclasses.dataclass(frozen=True)
class Palette:
    """name:    as given to --palette
    classes: {name of a class: (R, G, B), 0 to 255}, at least two
    void:    colours whose pixels are not scored
    """

    name: str
    classes: dict
    void: tuple = ()

    def colours(self):
        """Returns all colours, those of classes first, as uint8 (n, 3)."""
        return np.array([*self.classes.values(), *self.void], np.uint8)


# The 19 classes that Cityscapes scores, in the colours of its label images
CITYSCAPES = Palette(
    "cityscapes",
    {
        "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
        "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152),
        "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142),
        "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
    # unlabeled, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan, trailer
    (
        (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
        (150, 120, 90), (0, 0, 90), (0, 0, 110),
    ),
)  # fmt: skip

LINE = re.compile(
    r"(?P<name>[^#].*?)[\s,:=]+(?:#(?P<hex>[0-9a-fA-F]{6})|(?P<rgb>\d{1,9}[\s,]+\d{1,9}[\s,]+\d{1,9}))\s*(?:#.*)?"
)


def read_palette(path):
    """Reads a palette from a text file -> Palette. Each line has the name of a class and its colour:

        # comment
        window   0 85 255
        door     #ffaa00    # comment
        void     0 0 0

    Pixels of colours named "void" are not scored; there may be several. Raises InputError, naming the line.
    """
    if not os.path.isfile(path):
        raise InputError(f"--palette {path}: no such file. Use cityscapes, auto, or a text file with a class per line")
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read(1 << 20).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--palette {path}: {getattr(error, 'strerror', None) or 'not a text file'}")
    classes, void, seen = {}, [], {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where, match = f"--palette {path}, line {number}", LINE.fullmatch(line)
        if not match:
            raise InputError(f"{where}: expected a name and a colour, such as 'door 255 170 0' or 'door #ffaa00'")
        name = match["name"].strip()
        colour = (
            tuple(bytes.fromhex(match["hex"])) if match["hex"] else tuple(map(int, re.findall(r"\d+", match["rgb"])))
        )
        if max(colour) > 255:
            raise InputError(f"{where}: {max(colour)} is not from 0 to 255")
        if colour in seen:
            raise InputError(f"{where}: the colour {colour} is also on line {seen[colour]}")
        if name in classes:
            raise InputError(f"{where}: there is already a class {name}")
        seen[colour] = number
        if name == "void":
            void.append(colour)
        else:
            classes[name] = colour
    if not 2 <= len(classes) < VOID:
        raise InputError(f"--palette {path}: has {len(classes)} classes, expected 2 to {VOID - 1}")
    return Palette(path, classes, tuple(void))


def palette_of_images(paths):
    """Finds the colours of label images -> Palette, or None if they are not label images with at most MAX_CLASSES
    colours. Classes are named by their colours, such as "#ffaa00", the most frequent first.

    Images from JPEG files have many more colours. Of these, the colours of flat areas are taken: where a pixel equals
    its neighbours on the right and below. They make up at least 1/10,000 of the flat areas, and differ from more
    frequent ones by more than 24 in a channel."""
    everywhere, flat = (np.zeros(1 << 24, np.int64) for _ in range(2))  # numbers of pixels of each colour
    for path in paths:
        codes = load_image(path).astype(np.int64) @ (1 << 16, 1 << 8, 1)
        here = codes[:-1, :-1]
        is_flat = (here == codes[1:, :-1]) & (here == codes[:-1, 1:])
        for counts, some in ((everywhere, codes), (flat, here[is_flat])):
            values, n = np.unique(some, return_counts=True)
            counts[values] += n
    if np.count_nonzero(everywhere) <= MAX_CLASSES:
        colours = by_frequency(everywhere)[0]
    else:
        if np.partition(everywhere, -MAX_CLASSES)[-MAX_CLASSES:].sum() < 0.25 * everywhere.sum():
            return None  # the share is 0.06 to 0.11 in photos, and 0.49 in the noisy labels of facades
        colours, (candidates, n) = [], by_frequency(flat)
        for colour in candidates[n >= flat.sum() / 10_000]:
            if not colours or np.abs(np.array(colours) - colour).max(1).min() > 24:
                colours.append(colour)
    if not 2 <= len(colours) <= MAX_CLASSES:
        return None
    return Palette("auto", {"#" + bytes(colour.tolist()).hex(): tuple(colour.tolist()) for colour in colours})


def by_frequency(counts):
    """Numbers of pixels of all 2^24 colours -> (colours that occur (n, 3), their numbers), the most frequent first."""
    codes = np.flatnonzero(counts)
    codes = codes[np.argsort(-counts[codes], kind="stable")]
    return np.stack((codes >> 16, codes >> 8 & 255, codes & 255), 1), counts[codes]


def share_of_palette(paths, palette, n=8):
    """Returns the share of pixels, 0 to 1, in the colours of a palette up to MAX_NOISE, in `n` evenly spaced images."""
    shares = []
    for path in paths[:: -(-len(paths) // n)]:
        pixels = load_image(path).reshape(-1, 3).astype(np.int16)
        near = np.zeros(len(pixels), bool)
        for colour in palette.colours().astype(np.int16):
            near |= (np.abs(pixels - colour) <= MAX_NOISE).all(1)
        shares.append(near.mean())
    return float(np.mean(shares))
