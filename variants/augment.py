"""
More variety from few images: random changes of the training images beyond crop and flip (--color_jitter, --rotate), and
of what the discriminators see (--diffaugment).
"""

import math

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
    # shift: gather each pixel from its source; beyond the border it is gray
    from_row = rows + (dice(-1, 1) * height / 8).round().long()
    from_column = columns + (dice(-1, 1) * width / 8).round().long()
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    x = x.gather(2, from_row.clamp(0, height - 1).expand(-1, channels, -1, width))
    x = x.gather(3, from_column.clamp(0, width - 1).expand(-1, channels, height, -1)) * inside
    # cutout, with its centre anywhere
    hole = (rows - dice(0, 1) * height).abs() < height / 4
    hole = hole & ((columns - dice(0, 1) * width).abs() < width / 4)
    return x * ~hole
