"""
Loads images for measuring: resized, not augmented, in batches of 8-bit tensors.
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
    """Reads images and resizes them, without any other change. An item is uint8, (channels, height, width).

    paths: image files
    size:  (height, width) in pixels
    """

    def __init__(self, paths, size, channels):
        self.paths, self.size, self.channels = paths, size, channels

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        path = self.paths[i]
        if is_array(path, self.channels):
            pixels = (load_array(path, self.channels, self.size) * 255).round().astype(np.uint8)
        else:
            pixels = load_image(path, self.channels, self.size)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def stack_images(paths, size, channels):
    """Loads a few images as one batch, uint8 (N, channels, height, width), on the CPU."""
    return torch.stack(list(ResizedImages(paths, size, channels)))


def image_batches(paths, size, channels, device, *, batch_size=8, n_cpu=0, label=""):
    """Yields the images in batches, uint8 (N, channels, height, width) on `device`, and shows the progress.

    n_cpu: worker processes; short lists use fewer because a worker takes a while to start
    label: what the progress line calls these images
    """
    n_workers = min(n_cpu, len(paths) // 100)
    loader = DataLoader(
        ResizedImages(paths, size, channels), batch_size, num_workers=n_workers, worker_init_fn=outlive_signals
    )
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
