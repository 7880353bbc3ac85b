"""
Loads images for measuring, as the training sees them: resized or cropped to one size, in the range of values of their
domain, not augmented. In batches of 8-bit tensors, or of float32 where files have more than 8 bits.
"""

import functools
import time

import numpy as np
import torch
from torch.utils.data import DataLoader

from command_line.progress import Progress
from media.arrays import is_array, load_array, load_pixels
from media.domain import centre
from media.images import load_image
from media.survey import covering
from training.loading import outlive_signals


class ResizedImages(torch.utils.data.Dataset):
    """Reads images and brings them to one size, without any other change. An item is (channels, height, width): uint8,
    or float32 in [-1, 1] if `deep`.

    paths:       image files
    size:        (height, width) in pixels
    deep:        keep what files have beyond 8 bits, see has_more_than_8_bits
    keep_aspect: keep the aspect ratio: resize images to cover `size`, and take their centre, as datasets.ImageDataset
                 in test mode does; False resizes to `size`
    value_range: (low, high), the values in the files that become -1 and 1; see arrays.to_unit_range
    """

    def __init__(self, paths, size, channels, deep=False, keep_aspect=False, value_range=None):
        self.paths, self.size, self.channels, self.deep = paths, size, channels, deep
        self.keep_aspect, self.value_range = keep_aspect, value_range

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        path, size = self.paths[i], resize_to(self.size, self.keep_aspect)
        if self.value_range or is_array(path, self.channels):
            pixels = load_pixels(path, self.channels, size, None, as_float=True, value_range=self.value_range)
            pixels = pixels * 2 - 1 if self.deep else (pixels * 255).round().astype(np.uint8)
        else:
            pixels = load_image(path, self.channels, size)
        image = torch.from_numpy(centre(pixels, self.size)).permute(2, 0, 1)
        return to_float(image) if self.deep else image


def resize_to(size, keep_aspect):
    """-> what images.load_image takes as `size` to resize an image to (height, width), or with keep_aspect to cover it"""
    return functools.partial(covering, size) if keep_aspect else size


def has_more_than_8_bits(paths, channels, n=8):
    """Whether any of `n` images, evenly spaced in a list, needs more than 8 bits. An array of 8-bit integers does not,
    nor does a 16-bit file with the values of an 8-bit one."""
    for path in paths[:: -(-len(paths) // n)]:
        if is_array(path, channels):
            values = load_array(path, channels) * 255
            if np.abs(values - values.round()).max() > 1e-3:  # 16-bit values are multiples of 1/257 here
                return True
    return False


def stack_images(paths, size, channels, deep=False, keep_aspect=False, value_range=None):
    """Loads a few images as one batch (N, channels, height, width) on the CPU, see ResizedImages."""
    return torch.stack(list(ResizedImages(paths, size, channels, deep, keep_aspect, value_range)))


def image_batches(paths, size, channels, device, *, deep=False, keep_aspect=False, value_range=None, batch_size=8,
                  n_cpu=0, label=""):  # fmt: skip
    """Yields the images in batches (N, channels, height, width) on `device`, see ResizedImages, and shows the progress.

    n_cpu: worker processes; short lists use fewer because a worker takes a while to start
    label: what the progress line calls these images
    """
    n_workers = min(n_cpu, len(paths) // 100)
    images = ResizedImages(paths, size, channels, deep, keep_aspect, value_range)
    loader = DataLoader(images, batch_size, num_workers=n_workers, worker_init_fn=outlive_signals)
    progress, started, done = Progress(), time.monotonic(), 0
    for images in loader:
        yield images.to(device)
        done += len(images)
        progress.tick(done, len(paths), "images", started, f"{label}: ")
    progress.end_line()


def to_uint8(x):
    """Rounds a float tensor in [-1, 1] to 8 bits, as saving an image does."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(x):
    """Scales a uint8 tensor to float32 in [-1, 1]."""
    return x.float() / 127.5 - 1


def to_float(x):
    """Returns a batch of image_batches as float32 in [-1, 1]."""
    return from_uint8(x) if x.dtype == torch.uint8 else x


def in_8_bits(x):
    """Returns a batch of image_batches, or a float tensor in [-1, 1], as uint8."""
    return x if x.dtype == torch.uint8 else to_uint8(x)
