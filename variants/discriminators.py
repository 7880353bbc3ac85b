"""
Alternatives to the paper's discriminator, for --discriminator.
"""

import torch
from torch import nn

from models import Discriminator
from variants.networks import average_pool


class DiscriminatorMultiscale(nn.Module):
    """Several 70x70 PatchGAN discriminators at different resolutions, as in pix2pixHD (Wang et al., 2018,
    arXiv:1711.11585, section 3.2). Each one sees the image at half the resolution of the previous one, so a patch of
    the third covers 280x280 pixels of the input.

    Input:  (N, channels, H, W) in [-1, 1]; H and W at least 32 * 2 ** (n_scales - 1)
    Output: (N, scores), those of all scales in a row. `counts` (attribute) is the number of scores of each scale in the
            last pass; PerScale takes the loss of each and the mean of these

    ndf: filters of the first convolution at each scale
    """

    def __init__(self, channels=3, ndf=64, n_scales=3):
        super().__init__()
        self.scales = nn.ModuleList(Discriminator(channels, ndf) for _ in range(n_scales))
        self.counts = []

    def at_scales(self, x):
        """Returns a list with the input of each discriminator: `x` at full resolution, at half of it, and so on."""
        images = [x]
        for _ in self.scales[1:]:
            images.append(average_pool(images[-1], 3, stride=2, padding=1, count_include_pad=False))
        return images

    def forward(self, x):
        scores = [scale(image).flatten(1) for scale, image in zip(self.scales, self.at_scales(x))]
        self.counts = [score.shape[1] for score in scores]
        return torch.cat(scores, 1)


class PerScale:
    """The mean of a loss over the scales of a DiscriminatorMultiscale, each of which is a mean over its scores:
    the scales have the same weight, although the larger ones have more scores."""

    def __init__(self, criterion, discriminators):
        self.criterion, self.discriminators = criterion, discriminators

    def scales(self, scores):
        """(N, scores) -> list of (N, scores of a scale)"""
        counts = next(D.counts for D in self.discriminators if sum(D.counts) == scores.shape[1])
        return scores.split(counts, 1)

    def generator_loss(self, fake):
        losses = [self.criterion.generator_loss(scores) for scores in self.scales(fake)]
        return sum(losses) / len(losses)

    def discriminator_loss(self, real, fake):
        scales = zip(self.scales(real), self.scales(fake))
        losses = [self.criterion.discriminator_loss(*scores) for scores in scales]
        return sum(losses) / len(losses)


class DiscriminatorPixel(nn.Module):
    """PixelGAN: scores each pixel by its colour alone, with 1x1 convolutions (Isola et al., 2017, pix2pix,
    arXiv:1611.07004, section 4.4).

    Input: (N, channels, H, W) in [-1, 1]. Output: (N, 1, H, W)

    ndf: filters of the first convolution
    """

    def __init__(self, channels=3, ndf=64):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels, ndf, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, ndf * 2, 1),
            nn.InstanceNorm2d(ndf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 2, 1, 1),
        )

    def forward(self, x):
        return self.model(x)
