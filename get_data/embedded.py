"""
Real data sets that come with the project, as archives in get_data/sets: nothing is downloaded. Each archive has its
licence beside it, and a copy of it inside, which becomes LICENSE.txt in the data set.

    icons    black icons <-> coloured icons, 693 + 708 of 64 x 64 pixels, 85 test pairs
    earth    satellite images <-> relief maps, 361 + 330 of 64 x 64 pixels, 62 test pairs
    landsat  three bands <-> six bands of a satellite image, 100 + 100 of 64 x 64 pixels, 9 test pairs

Training images of A and B are unpaired: they show different icons or places. Test images of the same name are pairs.
"""

import os
import zipfile

import numpy as np
from PIL import Image

from command_line.terminal import say
from get_data.official import BadArchive, unpack
from get_data.part import complete_folder
from utils import InputError

SETS = {
    "icons": "black icons (A) and coloured icons (B), Microsoft Fluent Emoji",
    "earth": "satellite images (A, NASA) and relief maps (B) of the earth",
    "landsat": "three bands (A) and six bands (B) of a Landsat 7 scene",
}
FOLDER, LICENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sets"), "LICENSE.txt"

# The Landsat scene is cut into nine places of 116 x 116 pixels, by row and column, so that tiles of different places do
# not overlap. Tiles of the same place do
PLACES = ["ABA", "tAB", "BBA"]  # t: for the test
PLACE, TILE = 116, 64


def is_ours(name, data_dir):
    """Whether data_dir/name is one of SETS, or would become one, and not a folder of the user's with such a name."""
    root = os.path.join(data_dir, name)
    if name not in SETS:
        return False
    if not os.path.lexists(root):
        return True
    try:
        with open(os.path.join(FOLDER, f"{name}.txt"), "rb") as ours, open(os.path.join(root, LICENCE), "rb") as found:
            wanted = ours.read()
            return found.read(len(wanted) + 1) == wanted
    except OSError:
        return False


def write_embedded(name, data_dir):
    """Unpacks one of SETS into data_dir/name, which only appears once it is complete. Raises InputError if the archive is
    damaged, or if data_dir holds an archive of the user's with that name."""
    root, archive = os.path.join(data_dir, name), os.path.join(FOLDER, f"{name}.zip")
    if os.path.lexists(f"{root}.zip"):
        raise InputError(
            f"{root}.zip: {name} is also a data set that comes with the project. Unpack your archive into {root}, or rename it"
        )
    say(f"unpacking {root}: {SETS[name]}. The licence is in {root}/{LICENCE}")
    try:
        if name == "landsat":
            write_landsat(root, archive)
        else:
            unpack(archive, root, name)
    except (BadArchive, OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # a full disk, for example
        raise InputError(f"{archive}: missing or damaged ({error}). Get it again with the project") from error


def write_landsat(root, archive):
    """Cuts the scene into tiles: RGB pictures in trainA and testA, arrays (64, 64, 6) in trainB and testB."""
    with zipfile.ZipFile(archive) as file, file.open("scene.npy") as scene:
        bands = np.load(scene, allow_pickle=False)  # (6, H, W): the bands 1 2 3 4 5 7
        licence = file.read(LICENCE)
    with complete_folder(root) as temporary:
        for folder, row, column in tiles():
            tile = bands[:, row : row + TILE, column : column + TILE]
            path = os.path.join(temporary, folder, f"{row:03d}_{column:03d}")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if folder.endswith("A"):
                Image.fromarray(np.ascontiguousarray(tile[[2, 1, 0]].transpose(1, 2, 0))).save(path + ".png")
            else:
                np.save(path + ".npy", tile.transpose(1, 2, 0))
        with open(os.path.join(temporary, LICENCE), "wb") as file:
            file.write(licence)


def tiles():
    """Yields the tiles of the Landsat scene: (folder, row, column). 25 of each training place, 9 pairs of the other."""
    for i, line in enumerate(PLACES):
        for j, kind in enumerate(line):
            step = 26 if kind == "t" else 13
            for row in range(i * PLACE, i * PLACE + PLACE - TILE + 1, step):
                for column in range(j * PLACE, j * PLACE + PLACE - TILE + 1, step):
                    for folder in ("testA", "testB") if kind == "t" else (f"train{kind}",):
                        yield folder, row, column
