"""
The volumes of one domain: what media.domain.Domain is for images. They are checked before training, and sub-volumes are
taken from them, which are never resized: a voxel has a size in the world.
"""

import math
import sys

import numpy as np

from media.arrays import to_unit_range
from media.folders import ImageFiles
from media.survey import check_all, without_bad
from media.volume_files import EXTENSIONS, open_volume
from utils import InputError


class VolumeFiles(ImageFiles):
    """A sequence of the paths of all volumes in a folder and its subfolders."""

    extensions = EXTENSIONS


class VolumeDomain:
    """A sequence of the volumes in one folder, see VolumeFiles. `sub_volume` takes a part of one.

    size:            (depth, height, width) of the parts
    channels:        values per voxel
    skip_bad_images: skip files that are broken or too small, instead of raising InputError
    max_images:      use only this many files, evenly spaced
    value_range:     (low, high), the values in the files that become 0 and 1, see media.arrays.to_unit_range

    The attribute `notes` lists messages for the user, `usable` the numbers of the files that can be used.
    """

    def __init__(self, folder, size, channels=1, skip_bad_images=False, max_images=None, value_range=None):
        self.files, self.cache = VolumeFiles(folder, max_images), None
        self.notes, self.usable = list(self.files.notes), range(len(self.files))
        self.size, self.channels, self.value_range = tuple(size), channels, value_range
        self.skip_bad_images = skip_bad_images

    def __len__(self):
        return len(self.usable)

    def open(self, i):
        """Opens file i -> media.volume_files.Volume. Raises InputError if it is smaller than `size`."""
        volume = open_volume(self.files[i], self.channels)
        if any(side < wanted for side, wanted in zip(volume.shape, self.size)):
            found, wanted = (" x ".join(map(str, sides[:3])) for sides in (volume.shape, self.size))
            raise InputError(
                f"{volume.path}: {found} voxels (depth x height x width), smaller than the crop of {wanted}. Use a smaller "
                "--img_depth (or --slices), --img_height or --img_width"
            )
        return volume

    def n_bytes(self):
        """The size in memory of all volumes, in bytes, by that of a few."""
        numbers = range(0, len(self.files), max(1, len(self.files) // 16))
        sizes = []
        for i in numbers:
            try:
                volume = open_volume(self.files[i], self.channels)
            except InputError:  # `check` reports it
                continue
            sizes.append(math.prod(volume.shape) * volume.dtype.itemsize)
        return len(self.files) * np.mean(sizes or [0])

    def check(self, cache):
        """Finds bad files before training. They are skipped, or raise InputError; see the class.

        cache: read all volumes and keep them in memory, as they are stored; otherwise only their headers are read
        """

        self.cache = {} if cache else None

        def check_one(i):
            volume = self.open(i)
            if cache:
                stored = volume.stored()
                for part in stored:  # slice by slice, because the result takes more memory
                    to_unit(volume, part, self.value_range)
                self.cache[i] = volume, stored

        bad = check_all(self.files.folder, len(self.files), check_one, "volume")
        if bad:
            self.usable = without_bad(self, bad, len(self.files), "volume")

    def sub_volume(self, i, place):
        """A part of usable volume i -> float32 (depth, height, width, channels) in [0, 1]

        place: three numbers from 0 to 1, where the part begins along each axis, of the possible beginnings"""
        for shift in range(len(self)):
            number = int(self.usable[(i + shift) % len(self)])
            try:
                volume, stored = self.cache[number] if self.cache else (self.open(number), None)
                starts = [int(at * (n - size + 1)) for at, n, size in zip(place, volume.shape, self.size)]
                box = tuple(slice(start, start + size) for start, size in zip(starts, self.size))
                return to_unit(volume, volume.stored(box) if stored is None else stored[box], self.value_range)
            except InputError as error:
                if not self.skip_bad_images:
                    raise InputError(f"{error}. Use --skip_bad_images to train without such files") from error
                print(f"skipped {error}", file=sys.stderr)
        raise InputError(f"{self.files.folder}: none of the volumes can be used")


def to_unit(volume, stored, value_range):
    """Stored values of a volume -> float32 in [0, 1], see media.arrays.to_unit_range. Raises InputError."""
    try:
        return to_unit_range(volume.scaled(stored), value_range)
    except ValueError as error:
        raise InputError(f"{volume.path}: {error}")


def unit_values(volume, value_range=None):
    """All of a volume -> float32 (D, H, W, channels) in [0, 1]. Raises InputError."""
    stored = volume.stored()
    result = np.empty(volume.shape, np.float32)
    for z in range(len(result)):
        result[z] = to_unit(volume, stored[z], value_range)
    return result
