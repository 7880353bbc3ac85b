"""
The images of one domain. They are checked before training, decoded, resized, and optionally cached in memory.
"""

import functools
import sys

import numpy as np
import torch

from media.depth import is_array
from media.images import load_image, open_image
from utils import InputError

CHECK_LIMIT = 100_000  # without a cache, only this many images per domain are checked before training


class Domain:
    """A sequence of the images in one folder, decoded and resized: tensors (height, width, channels).

    Images are uint8, or float32 from 0 to 1 if the first file is read at full precision; see depth.is_array.

    size:            (height, width) to resize images to
    channels:        1 for gray and 3 for RGB; TIFF and .npy files may have any number
    smallest:        minimum (height, width) of a file; None accepts all sizes
    skip_bad_images: skip corrupt images and images that are too small, instead of raising InputError
    keep_aspect:     keep the aspect ratio of images: they become at least as high and wide as `size`
    max_images:      use only this many images, evenly spaced
    value_range:     (low, high), the values in the files that become 0 and 1; see arrays.to_unit_range

    The attribute `notes` lists messages for the user, such as the number of skipped files.
    """

    def __init__(self, folder, size, channels=3, smallest=None, skip_bad_images=False, keep_aspect=False,
                 max_images=None, value_range=None):  # fmt: skip
        from media.folders import ImageFiles  # imported here, so that `import cyclegan` is fast

        self.files, self.cache = ImageFiles(folder, max_images), None
        self.notes = list(self.files.notes)
        self.size, self.channels, self.smallest, self.skip_bad_images = size, channels, smallest, skip_bad_images
        self.keep_aspect, self.value_range = keep_aspect, value_range
        # the first file decides for all
        self.is_float = value_range is not None or is_array(self.files[0], channels)
        self.usable = range(len(self.files))

    def __len__(self):
        return len(self.usable)

    def load(self, path, size, smallest=None):
        """Returns an image file as a tensor (H, W, channels): uint8, or float32 from 0 to 1. H and W are `size`, or at
        least that with keep_aspect. Raises InputError."""
        if self.keep_aspect:
            from media.survey import covering

            size = functools.partial(covering, size)
        if self.is_float:
            from media.arrays import load_pixels  # imported here, because photos do not need it

            pixels = load_pixels(path, self.channels, size, smallest, as_float=True, value_range=self.value_range)
            return torch.from_numpy(pixels)
        return torch.from_numpy(load_image(path, self.channels, size, smallest))

    @functools.cached_property
    def sample(self):
        """What a few of the files hold, see survey.look_at."""
        from media.survey import look_at

        return look_at(self.files, self.channels, self.is_float)

    def n_bytes(self):
        """Returns the size in memory of all images, in bytes. With keep_aspect, an estimate."""
        height, width = self.size
        pixels = height * width
        if self.keep_aspect and self.sample.shapes:
            from media.survey import covering

            pixels = np.mean([np.prod(covering(self.size, *shape)) for shape in self.sample.shapes])
        return len(self.files) * pixels * self.channels * (4 if self.is_float else 1)

    def check(self, cache):
        """Finds corrupt and small images before training. They are skipped, or raise InputError; see the class.

        cache: decode all images and keep them in memory; otherwise only the headers of 8-bit files are read
        """
        from media.survey import check_all, notes_on, without_bad

        n = len(self.files)
        if cache and self.keep_aspect:
            self.cache = [None] * n  # the sizes differ
        elif cache:
            dtype = torch.float32 if self.is_float else torch.uint8
            self.cache = torch.empty(n, *self.size, self.channels, dtype=dtype)

        def check_one(i):
            if cache:
                self.cache[i] = self.load(self.files[i], self.size, self.smallest)
            elif self.is_float:
                self.load(self.files[i], self.size, self.smallest)
            else:
                with open_image(self.files[i], self.smallest):
                    pass

        bad = check_all(self.files.folder, n if cache else min(n, CHECK_LIMIT), check_one)
        self.notes += notes_on(self)
        if bad:
            self.usable = without_bad(self, bad, n)

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


def centre(image, size):
    """The middle (height, width) of an image (H, W, C)"""
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
