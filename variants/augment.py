"""
More variety from few images: random changes of the training images beyond crop and flip (--color_jitter, --rotate), and
of what the discriminators see (--diffaugment).
"""

import functools
import math
import operator

import numpy as np
import torch


class ImageAugmentation:
    """For datasets.ImageDataset: its `augment`.

    color_jitter: strength of random changes of brightness, contrast and saturation, 0 to 1
    rotate:       largest random rotation, in degrees
    """

    def __init__(self, color_jitter, rotate):
        import torchvision.transforms  # noqa: F401  takes seconds, so before processes that load images are started

        self.color_jitter, self.rotate = color_jitter, rotate

    def before_crop(self, image, dice):
        """(H, W, C); dice: random numbers from 0 to 1, three for the crop, three for colours, one for the angle"""
        return rotated(image, (2 * dice[6] - 1) * self.rotate) if self.rotate else image

    def after_crop(self, image, dice):
        """(C, H, W) in [-1, 1]"""
        return jittered(image, 1 + (2 * dice[3:6] - 1) * self.color_jitter) if self.color_jitter else image


def rotated(image, angle):
    """Rotates (H, W, C) by `angle` degrees about its centre and fills the corners by reflection."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as transforms

    height, width = image.shape[:2]
    # the diagonal may become a side. Padding by numpy, which can reflect more than once
    rows, columns = (math.ceil((math.hypot(height, width) - side) / 2) for side in (height, width))
    larger = np.pad(image.numpy(), ((rows, rows), (columns, columns), (0, 0)), "reflect")
    larger = torch.from_numpy(larger).permute(2, 0, 1)
    turned = transforms.rotate(larger, angle, InterpolationMode.BILINEAR)
    return transforms.center_crop(turned, [height, width]).permute(1, 2, 0)


def jittered(image, factors):
    """Multiplies brightness, contrast and, for RGB, saturation of (C, H, W) in [-1, 1] by three `factors`."""
    brightness, contrast, saturation = factors
    image = (image + 1) / 2
    image = (image * brightness).clamp(0, 1)
    image = (image.mean() + (image - image.mean()) * contrast).clamp(0, 1)
    if len(image) == 3:
        from torchvision.transforms import functional as transforms

        image = transforms.adjust_saturation(image, saturation)
    return image * 2 - 1


def diff_augment(x):
    """DiffAugment (Zhao et al., 2020, arXiv:2006.10738): randomly changes the colours of each image, shifts it by up to
    an eighth and cuts out a square of half its size. The discriminators then cannot memorise a small data set. Real
    images and translations are changed alike and gradients flow through, so translations do not learn these changes."""
    n, sides = len(x), x.shape[2:]  # height and width; of volumes the depth first

    def dice(low, high):
        return torch.rand(n, *[1] * (x.ndim - 1), device=x.device) * (high - low) + low

    x = x + dice(-0.5, 0.5)  # brightness, of [-1, 1]
    middle = x.mean(1, keepdim=True)
    x = (x - middle) * dice(0, 2) + middle  # saturation
    middle = x.mean(tuple(range(1, x.ndim)), keepdim=True)
    x = (x - middle) * dice(0.5, 1.5) + middle  # contrast

    shapes = [[-1 if i == dim else 1 for i in range(x.ndim)] for dim in range(2, x.ndim)]
    places = [torch.arange(side, device=x.device).view(shape) for side, shape in zip(sides, shapes)]
    # shift: gather each pixel from its source; beyond the border it is gray
    sources = [place + (dice(-1, 1) * side / 8).round().long() for place, side in zip(places, sides)]
    inside = functools.reduce(operator.and_, [(0 <= at) & (at < side) for at, side in zip(sources, sides)])
    for dim, (source, side) in enumerate(zip(sources, sides), 2):
        x = x.gather(dim, source.clamp(0, side - 1).expand(x.shape))
    x = x * inside
    # cutout, with its centre anywhere
    holes = [(place - dice(0, 1) * side).abs() < side / 4 for place, side in zip(places, sides)]
    return x * ~functools.reduce(operator.and_, holes)
