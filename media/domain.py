"""
The images of one domain. They are checked before training, decoded, resized, and optionally cached in memory.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from media.depth import is_array
from media.images import ImageFiles, load_image, open_image
from utils import InputError

CHECK_LIMIT = 100_000  # without a cache, only this many images per domain are checked before training


class Domain:
    """A sequence of the images in one folder, decoded and resized: tensors (height, width, channels).

    Images are uint8, or float32 from 0 to 1 if the first file is read at full precision; see depth.is_array.

    size:            (height, width) to resize images to
    channels:        1 for gray and 3 for RGB; TIFF and .npy files may have any number
    smallest:        minimum (height, width) of a file; None accepts all sizes
    skip_bad_images: skip corrupt images and images that are too small, instead of raising InputError

    The attribute `notes` lists messages for the user, such as the number of skipped files.
    """

    def __init__(self, folder, size, channels=3, smallest=None, skip_bad_images=False):
        self.files, self.cache, self.notes = ImageFiles(folder), None, []
        self.size, self.channels, self.smallest, self.skip_bad_images = size, channels, smallest, skip_bad_images
        self.is_float = is_array(self.files[0], channels)  # the first file decides for all
        self.usable = range(len(self.files))

    def __len__(self):
        return len(self.usable)

    def load(self, path, size, smallest=None):
        """Returns an image file as a tensor (H, W, channels): uint8, or float32 from 0 to 1. Raises InputError."""
        if self.is_float:
            from media.arrays import load_pixels  # imported here, because photos do not need it

            return torch.from_numpy(load_pixels(path, self.channels, size, smallest, as_float=True))
        return torch.from_numpy(load_image(path, self.channels, size, smallest))

    def n_bytes(self):
        """Returns the size in memory of all images, in bytes."""
        return len(self.files) * self.size[0] * self.size[1] * self.channels * (4 if self.is_float else 1)

    def check(self, cache):
        """Finds corrupt and small images before training. They are skipped, or raise InputError; see the class.

        cache: decode all images and keep them in memory; otherwise only the headers of 8-bit files are read
        """
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

        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # threads are enough: Pillow releases the GIL
            errors = pool.map(error_of, range(n if cache else min(n, CHECK_LIMIT)))
            bad = {i: error for i, error in enumerate(errors) if error}
        if not bad:
            return
        first = next(iter(bad.values()))
        if len(bad) == n:
            raise InputError(f"{first} (no image in this folder can be used)")
        if not self.skip_bad_images:
            others = [os.path.basename(self.files[i]) for i in list(bad)[1:6]] + ["..."] * (len(bad) > 6)
            more = f" ({len(bad)} of the {n} images in this folder cannot be used: also {', '.join(others)})"
            more = more if len(bad) > 1 else ""
            raise InputError(f"{first}{more}. Use --skip_bad_images to train without them")
        self.notes.append(f"{self.files.folder}: skipped {len(bad)} of {n} images. The first one: {first}")
        self.usable = np.array([i for i in range(n) if i not in bad])

    def __getitem__(self, i):
        """Returns image i, a tensor (height, width, channels).

        A bad image that `check` could not detect is replaced by the next good one with skip_bad_images, and raises
        InputError otherwise.
        """
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
        raise InputError(f"{self.files.folder}: none of the images can be used")
