"""
More images out of few: the training images changed at random, beyond the crop and the flip that all get
(--color_jitter, --rotate), and what a discriminator sees (--diffaugment).
"""

import math

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms


def rotated(image, angle):
    """(H, W, C) turned by `angle` degrees around its middle; the corners are filled by reflection."""
    height, width = image.shape[:2]
    # no more is needed: the diagonal, turned into a side. numpy's padding, as it reflects to and fro
    rows, columns = (math.ceil((math.hypot(height, width) - side) / 2) for side in (height, width))
    larger = np.pad(image.numpy(), ((rows, rows), (columns, columns), (0, 0)), "reflect")
    larger = torch.from_numpy(larger).permute(2, 0, 1)
    turned = transforms.rotate(larger, angle, InterpolationMode.BILINEAR)
    return transforms.center_crop(turned, [height, width]).permute(1, 2, 0)


def jittered(image, factors):
    """(C, H, W) in [-1, 1] with brightness, contrast and, if it is RGB, saturation times `factors`."""
    brightness, contrast, saturation = factors
    image = (image + 1) / 2
    image = (image * brightness).clamp(0, 1)
    image = (image.mean() + (image - image.mean()) * contrast).clamp(0, 1)
    if len(image) == 3:
        image = transforms.adjust_saturation(image, saturation)
    return image * 2 - 1


def diff_augment(x):
    """Changes colours, shifts by up to an eighth, and cuts out a square of half the size, for each image anew (Zhao et
    al., 2020, arXiv:2006.10738): with few images D cannot learn them by heart, and, as real images and translations are
    treated alike and gradients flow through, the translations do not learn these changes."""
    n, channels, height, width = x.shape

    def dice(low, high):
        return torch.rand(n, 1, 1, 1, device=x.device) * (high - low) + low

    x = x + dice(-0.5, 0.5)  # brightness, of [-1, 1]
    middle = x.mean(1, keepdim=True)
    x = (x - middle) * dice(0, 2) + middle  # saturation
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * dice(0.5, 1.5) + middle  # contrast

    rows = torch.arange(height, device=x.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, 1, -1)
    # a shift: each pixel is fetched from elsewhere; what comes from beyond the border is gray
    from_row = rows + (dice(-1, 1) * height / 8).round().long()
    from_column = columns + (dice(-1, 1) * width / 8).round().long()
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    x = x.gather(2, from_row.clamp(0, height - 1).expand(-1, channels, -1, width))
    x = x.gather(3, from_column.clamp(0, width - 1).expand(-1, channels, height, -1)) * inside
    # a hole, whose centre may lie anywhere
    hole = (rows - dice(0, 1) * height).abs() < height / 4
    hole = hole & ((columns - dice(0, 1) * width).abs() < width / 4)
    return x * ~hole
