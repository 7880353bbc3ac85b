"""
Translating large images in little memory, with the same result as translating the whole image at once.

Tiling does not work for CycleGAN: instance norm uses the mean and variance of the whole feature map, so each tile would
get its own brightness and contrast. Blending hides the seams, but not the difference. Statistics of a downscaled copy
do not help either, because every layer amplifies the error.

Here the rows of the image go through the network in overlapping bands, up to the next instance norm. Its mean and
variance are computed over all bands before any band continues. The overlap covers the receptive field of the
convolutions in between, so nothing needs to be blended.
"""

import copy

import torch
from torch import nn

from models import GeneratorResNet
from variants.networks import AttentiveBlock
from variants.parts import Blur, add_input

# Rows beyond a band that its output depends on. Encoder: 3 + 1 + 2 pixels of padding. Block: one row of the feature map
# for each convolution. Decoder: 1 + 1/2 + 3/4 rows of the feature map, of 4 pixels each
ENCODER_OVERLAP, BLOCK_OVERLAP, DECODER_OVERLAP = 8, 1, 3


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

    x:           (1, channels, H, W) in [-1, 1], H and W divisible by 4
    band_pixels: approximate number of pixels in a band. A band has at least 64 rows
    -> (1, out_channels, H, W)
    """
    encoder, blocks, decoder = G.stages
    image, overlap = x, ENCODER_OVERLAP + 4 * any(isinstance(part, Blur) for part in G.modules())  # two blurs: 3 pixels
    rows = max(64, band_pixels // x.shape[3] // 4 * 4)
    # In encoder and decoder the feature maps are large and the layers cheap, so recompute them for each norm instead of
    # keeping them. This adds about a fifth to the time (9 blocks)
    x = through_bands(encoder, x, rows, overlap, keep=False)
    for block in blocks:
        x = through_bands(block.conv_block, x, rows // 4, BLOCK_OVERLAP, keep=True).add_(x)
    x = through_bands(decoder, x, rows // 4, DECODER_OVERLAP, keep=False)
    return add_input(G, [image], x) if getattr(G, "adds_input", False) else x  # --residual


def goes_in_bands(G):
    """True if translate_in_bands supports G: nothing but its norms may depend on the whole image, and its
    layers must not look further than the overlaps. The latter is tried out, because models.py may have been edited."""
    if not isinstance(G, GeneratorResNet) or any(isinstance(part, AttentiveBlock) for part in G.modules()):
        return False
    G = copy.deepcopy(G).float()
    device = next(G.parameters()).device
    x = torch.rand(1, G.channels, 160, 32, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    try:
        with torch.no_grad():
            return (translate_in_bands(G, x, 1) - G(x)).abs().max().item() < 0.01
    except (RuntimeError, AttributeError, TypeError):  # layers that cannot be taken apart
        return False


def through_bands(layers, x, rows, overlap, keep):
    """Applies layers to x in bands. Each instance or group norm uses the statistics of the whole feature map.

    keep: True stores the feature map before each norm, False recomputes it afterwards (less memory, more time)"""
    so_far = []
    for layer in layers:
        if isinstance(layer, nn.InstanceNorm2d | nn.GroupNorm):
            before, mean, var = in_bands(so_far, x, rows, overlap, keep, measure=True)
            if keep:
                x, so_far = before, []
            so_far.append(FixedNorm(layer, mean, var))
        else:
            so_far.append(layer)
    return in_bands(so_far, x, rows, overlap, keep=True, measure=False)[0]


@torch.no_grad()
def in_bands(layers, x, rows, overlap, keep, measure):
    """Applies layers to x, band by band -> (result or None, its mean or None, its variance or None).

    rows, overlap: height of a band and of its overlap, in rows of x. At the edges of x the layers' own padding applies
    keep:          return the result
    measure:       return mean and variance of each channel, both (C,)"""
    height, whole = x.shape[2], None
    means, variances, weights = [], [], []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start, stop = max(0, top - overlap), min(bottom + overlap, height)
        band = x[:, :, start:stop]
        for layer in layers:
            band = layer(band)
        scale = band.shape[2] / (stop - start)
        band = band[:, :, round((top - start) * scale) : round((bottom - start) * scale)]
        if measure:
            mean, var = moments(band[0])
            means.append(mean)
            variances.append(var)
            weights.append((bottom - top) / height)
        if keep:
            if whole is None:
                whole = band.new_empty(*band.shape[:2], round(height * scale), band.shape[3])
            whole[:, :, round(top * scale) : round(bottom * scale)] = band
    if not measure:
        return whole, None, None
    mean = sum(w * m for w, m in zip(weights, means))
    # total variance = variance within the bands + variance between their means
    var = sum(w * (v + (m - mean).square()) for w, v, m in zip(weights, variances, means))
    return whole, mean, var


def moments(x):
    """(C, H, W) -> mean and variance of each channel, both (C,), in float32. Processes a few channels at a time to save
    memory. On a CPU, torch.var_mean takes four times as long."""
    means, variances = [], []
    for part in x.split(16):
        values = part.float().flatten(1)
        means.append(values.mean(1))
        variances.append((values - means[-1][:, None]).square().mean(1))
    return torch.cat(means), torch.cat(variances)
