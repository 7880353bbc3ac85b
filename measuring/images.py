"""
Loads images for measuring: resized, not augmented, in batches of 8-bit tensors, or of float32 where files have more
than 8 bits.
"""

import time

import numpy as np
import torch
from torch.utils.data import DataLoader

from command_line.progress import Progress
from media.arrays import is_array, load_array
from media.images import load_image
from training.loading import outlive_signals


class ResizedImages(torch.utils.data.Dataset):
    """Reads images and resizes them, without any other change. An item is (channels, height, width): uint8, or float32
    in [-1, 1] if `deep`.

    paths: image files
    size:  (height, width) in pixels
    deep:  keep what files have beyond 8 bits, see has_more_than_8_bits
    """

    def __init__(self, paths, size, channels, deep=False):
        self.paths, self.size, self.channels, self.deep = paths, size, channels, deep

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        path = self.paths[i]
        if is_array(path, self.channels):
            pixels = load_array(path, self.channels, self.size)
            pixels = pixels * 2 - 1 if self.deep else (pixels * 255).round().astype(np.uint8)
        else:
            pixels = load_image(path, self.channels, self.size)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return to_float(image) if self.deep else image


def has_more_than_8_bits(paths, channels, n=8):
    """Whether any of `n` images, evenly spaced in a list, needs more than 8 bits. An array of 8-bit integers does not,
    nor does a 16-bit file with the values of an 8-bit one."""
    for path in paths[:: -(-len(paths) // n)]:
        if is_array(path, channels):
            values = load_array(path, channels) * 255
            if np.abs(values - values.round()).max() > 1e-3:  # 16-bit values are multiples of 1/257 here
                return True
    return False


def stack_images(paths, size, channels, deep=False):
    """Loads a few images as one batch (N, channels, height, width) on the CPU, see ResizedImages."""
    return torch.stack(list(ResizedImages(paths, size, channels, deep)))


def image_batches(paths, size, channels, device, *, deep=False, batch_size=8, n_cpu=0, label=""):
    """Yields the images in batches (N, channels, height, width) on `device`, see ResizedImages, and shows the progress.

    n_cpu: worker processes; short lists use fewer because a worker takes a while to start
    label: what the progress line calls these images
    """
    n_workers = min(n_cpu, len(paths) // 100)
    images = ResizedImages(paths, size, channels, deep)
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
