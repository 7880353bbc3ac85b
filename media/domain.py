"""
The images of one domain: checked before training, decoded, resized, and kept in memory if they fit.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from media.arrays import is_array, load_pixels
from media.images import ImageFiles, open_image
from utils import InputError

CHECK_LIMIT = 100_000  # number of images of each domain that are checked before training


class Domain:
    """The images of one folder, decoded and resized.

    size:            (height, width) that images are resized to
    channels:        of the images: 1 gray, 3 RGB, other numbers for TIFF and .npy files
    smallest:        (height, width) that a file must have at least; None accepts all
    skip_bad_images: leave out corrupt and small images; otherwise they raise InputError
    notes:           (attribute) what the user should know about the folder
    """

    def __init__(self, folder, size, channels=3, smallest=None, skip_bad_images=False):
        self.files, self.cache, self.notes = ImageFiles(folder), None, []
        self.size, self.channels, self.smallest, self.skip_bad_images = size, channels, smallest, skip_bad_images
        self.is_float = is_array(self.files[0], channels)  # the first file decides: 8 bits, or floats
        self.usable = range(len(self.files))

    def __len__(self):
        return len(self.usable)

    def load(self, path, size, smallest=None):
        """-> uint8 (H, W, channels), or float32 from 0 to 1"""
        return torch.from_numpy(load_pixels(path, self.channels, size, smallest, self.is_float))

    def n_bytes(self):
        return len(self.files) * self.size[0] * self.size[1] * self.channels * (4 if self.is_float else 1)

    def check(self, cache):
        """Reads the header of every file, or decodes it into the cache, and finds the bad ones before training."""
        n = len(self.files)
        if self.files.n_others:
            self.notes.append(
                f"{self.files.folder}: ignored {self.files.n_others} other files, such as {self.files.other}"
            )
        if cache:
            dtype = torch.float32 if self.is_float else torch.uint8
            self.cache = torch.empty(n, *self.size, self.channels, dtype=dtype)

        def error_of(i):
            try:
                if cache:
                    self.cache[i] = self.load(self.files[i], self.size, self.smallest)
                elif self.is_float:
                    self.load(self.files[i], self.size, self.smallest)
                else:
                    with open_image(self.files[i], self.smallest):
                        pass
            except InputError as error:
                return str(error)

        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # Pillow decodes without Python's global lock
            errors = pool.map(error_of, range(n if cache else min(n, CHECK_LIMIT)))
            bad = {i: error for i, error in enumerate(errors) if error}
        if not bad:
            return
        first = next(iter(bad.values()))
        if len(bad) == n:
            raise InputError(f"{first} (and so for all {n} images of this folder)")
        if not self.skip_bad_images:
            more = f" ({len(bad)} of the {n} images of this folder)" if len(bad) > 1 else ""
            raise InputError(f"{first}{more}. Use --skip_bad_images to train without them")
        self.notes.append(f"{self.files.folder}: skipped {len(bad)} bad images of {n}, the first: {first}")
        self.usable = np.array([i for i in range(n) if i not in bad])

    def __getitem__(self, i):
        """Image i -> tensor (height, width, channels). If bad images are skipped, the next one replaces a bad one."""
        if self.cache is not None:
            return self.cache[self.usable[i]]
        for shift in range(len(self)):
            path = self.files[self.usable[(i + shift) % len(self)]]
            try:
                return self.load(path, self.size, self.smallest)
            except InputError as error:
                if not self.skip_bad_images:
                    raise InputError(f"{error}. Use --skip_bad_images to train without such images") from error
                print(f"skipped {error}", file=sys.stderr)
        raise InputError(f"{self.files.folder}: none of its images can be used")
