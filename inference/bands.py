"""
Translating large images in little memory, with the same result as translating the whole image at once.

Tiling does not work for CycleGAN: instance norm uses the mean and variance of the whole feature map, so each tile would
get its own brightness and contrast. Blending hides the seams, but not the difference. Statistics of a downscaled copy
do not help either, because every layer amplifies the error.

Here the rows of the image go through the network in overlapping bands, up to the next instance norm. Its mean and
variance are computed over all bands before any band continues. The overlap covers the receptive field of the
convolutions in between, so nothing needs to be blended. Volumes (--dims 3) are cut into blocks along all three axes.
"""

import copy
import itertools
import math

import torch
from torch import nn

from models import GeneratorResNet
from variants.networks import AttentiveBlock
from variants.parts import Blur, add_input

# Rows beyond a band that its output depends on. Encoder: 3 + 1 + 2 pixels of padding. Block: one row of the feature map
# for each convolution. Decoder: 1 + 1/2 + 3/4 rows of the feature map, of 4 pixels each
ENCODER_OVERLAP, BLOCK_OVERLAP, DECODER_OVERLAP = 8, 1, 3
NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm)


class FixedNorm(nn.Module):
    """An instance or group norm with fixed statistics: mean and variance of each channel, both (C,)."""

    def __init__(self, norm, mean, var):
        super().__init__()
        self.eps = norm.eps
        self.weight, self.bias = (None if value is None else value.float() for value in (norm.weight, norm.bias))
        if isinstance(norm, nn.GroupNorm):  # the channels of a group have one mean and variance
            means, variances = mean.view(norm.num_groups, -1), var.view(norm.num_groups, -1)
            mean = means.mean(1, keepdim=True).expand_as(means).flatten()
            var = variances + (means - mean.view_as(means)).square()  # within the channels, and between them
            var = var.mean(1, keepdim=True).expand_as(means).flatten()
        self.mean, self.var = mean, var

    def forward(self, x):
        return nn.functional.batch_norm(
            x, self.mean, self.var, self.weight, self.bias, eps=self.eps
        )  # float32 statistics


def translate_in_bands(G, x, band_pixels=2048 * 2048):
    """Computes G(x) without gradients for a GeneratorResNet, in less memory. Of the whole image, only the feature maps
    between the residual blocks are kept, at a quarter of its resolution; everything else is one band at a time.

    x:           (1, channels, H, W) in [-1, 1], H and W divisible by 4; or a volume (1, channels, D, H, W)
    band_pixels: approximate number of pixels in a band, or voxels in a block, without the overlap. A band has at least
                 64 rows, a block sides of at least 32
    -> (1, out_channels, H, W), or (1, out_channels, D, H, W)
    """
    encoder, blocks, decoder = G.stages
    image, overlap = x, ENCODER_OVERLAP + 4 * any(isinstance(part, Blur) for part in G.modules())  # two blurs: 3 pixels
    size = band_size(x.shape[2:], band_pixels)
    quarter = tuple(side // 4 for side in size)
    # In encoder and decoder the feature maps are large and the layers cheap, so recompute them for each norm instead of
    # keeping them. This adds about a fifth to the time (9 blocks)
    x = through_bands(encoder, x, size, overlap, keep=False)
    for block in blocks:
        x = through_bands(block.conv_block, x, quarter, BLOCK_OVERLAP, keep=True).add_(x)
    x = through_bands(decoder, x, quarter, DECODER_OVERLAP, keep=False)
    return add_input(G, [image], x) if getattr(G, "adds_input", False) else x  # --residual


def band_size(sides, n_pixels):
    """The size of a band or block of an image or volume of this size, divisible by 4 or the whole side -> one length for
    each dimension. Bands have the width of the image; of a block, the longest side is halved until it is small enough."""
    if len(sides) == 2:
        return max(64, n_pixels // sides[1] // 4 * 4), sides[1]
    size = list(sides)
    while math.prod(size) > n_pixels and max(size) > 32:
        i = size.index(max(size))
        size[i] = max(32, -(-size[i] // 8) * 4)
    return tuple(size)


def goes_in_bands(G):
    """True if translate_in_bands supports G: nothing but its norms may depend on the whole image, and its
    layers must not look further than the overlaps. The latter is tried out, because models.py may have been edited."""
    if not isinstance(G, GeneratorResNet) or any(isinstance(part, AttentiveBlock) for part in G.modules()):
        return False
    G = copy.deepcopy(G).float()
    device = next(G.parameters()).device
    shape = (64, 32, 32) if getattr(G, "dims", 2) == 3 else (160, 32)
    x = torch.rand(1, G.channels, *shape, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    try:
        with torch.no_grad():
            return (translate_in_bands(G, x, 1) - G(x)).abs().max().item() < 0.01
    except (RuntimeError, AttributeError, TypeError):  # layers that cannot be taken apart
        return False


def through_bands(layers, x, size, overlap, keep):
    """Applies layers to x in bands. Each instance or group norm uses the statistics of the whole feature map.

    keep: True stores the feature map before each norm, False recomputes it afterwards (less memory, more time)"""
    so_far = []
    for layer in layers:
        if isinstance(layer, NORMS):
            before, mean, var = in_bands(so_far, x, size, overlap, keep, measure=True)
            if keep:
                x, so_far = before, []
            so_far.append(FixedNorm(layer, mean, var))
        else:
            so_far.append(layer)
    return in_bands(so_far, x, size, overlap, keep=True, measure=False)[0]


@torch.no_grad()
def in_bands(layers, x, size, overlap, keep, measure):
    """Applies layers to x, band by band -> (result or None, its mean or None, its variance or None).

    size, overlap: sides of a band and of its overlap, in rows of x. At the edges of x the layers' own padding applies
    keep:          return the result
    measure:       return mean and variance of each channel, both (C,)"""
    sides, whole = x.shape[2:], None
    means, variances, weights = [], [], []
    for starts in itertools.product(*(range(0, side, step) for side, step in zip(sides, size))):
        inner = [(start, min(start + step, side)) for start, step, side in zip(starts, size, sides)]
        outer = [(max(0, start - overlap), min(stop + overlap, side)) for (start, stop), side in zip(inner, sides)]
        band = x[cut(outer)]
        for layer in layers:
            band = layer(band)
        scale = band.shape[2] / (outer[0][1] - outer[0][0])
        band = band[cut([(start - begin, stop - begin) for (start, stop), (begin, _) in zip(inner, outer)], scale)]
        if measure:
            mean, var = moments(band[0])
            means.append(mean)
            variances.append(var)
            weights.append(math.prod((stop - start) / side for (start, stop), side in zip(inner, sides)))
        if keep:
            if whole is None:
                whole = band.new_empty(*band.shape[:2], *(round(side * scale) for side in sides))
            whole[cut(inner, scale)] = band
    if not measure:
        return whole, None, None
    mean = sum(w * m for w, m in zip(weights, means))
    # total variance = variance within the bands + variance between their means
    var = sum(w * (v + (m - mean).square()) for w, v, m in zip(weights, variances, means))
    return whole, mean, var


def cut(ranges, scale=1):
    """[(start, stop)] of each dimension of places -> index of a tensor (N, C, ...), of a feature map `scale` times as
    large"""
    return (slice(None), slice(None), *(slice(round(start * scale), round(stop * scale)) for start, stop in ranges))


def moments(x):
    """(C, H, W) or (C, D, H, W) -> mean and variance of each channel, both (C,), in float32. Processes a few channels at a
    time to save memory. On a CPU, torch.var_mean takes four times as long."""
    means, variances = [], []
    for part in x.split(16):
        values = part.float().flatten(1)
        means.append(values.mean(1))
        variances.append((values - means[-1][:, None]).square().mean(1))
    return torch.cat(means), torch.cat(variances)
