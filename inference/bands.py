"""
A large picture through a generator, in little memory, and exactly: the result is that of the whole picture at once.

Every instance norm subtracts the mean of a whole feature map and divides by its deviation. Cut into tiles, a picture
gets as many brightnesses and contrasts as tiles, and blending hides the seams but not the difference; statistics taken
from a reduced picture are no way out, as each layer multiplies the error of the one before. So here the norms
see the whole picture: its rows are taken through the network in overlapping bands, as far as the next norm, whose mean
and variance are gathered over all bands before any goes on. The overlap is as wide as the convolutions look, so that
nothing has to be blended.
"""

import torch
from torch import nn

from models import GeneratorResNet
from variants.networks import AttentiveBlock

# Rows of input beyond a band on which its output may depend: pads of 3 + 1 + 2 pixels before the residual blocks; one
# feature map's row in each of their convolutions; 1 + 1/2 + 3/4 rows, of 4 pixels each, after them
ENCODER_OVERLAP, BLOCK_OVERLAP, DECODER_OVERLAP = 8, 1, 3


class FixedNorm(nn.Module):
    """Instance norm with a given mean and variance, both (C,)."""

    def __init__(self, mean, var, eps):
        super().__init__()
        self.mean, self.var, self.eps = mean, var, eps

    def forward(self, x):
        return nn.functional.batch_norm(x, self.mean, self.var, eps=self.eps)  # in float32, whatever x is


def translate_in_bands(G, x, band_pixels=2048 * 2048):
    """G(x) for a GeneratorResNet without a gradient, in less memory: what is kept of the whole picture is its feature
    maps between the residual blocks, at a quarter of its size; the rest is of one band.

    x:           (1, channels, H, W) in [-1, 1], H and W divisible by 4 -> the same
    band_pixels: a band has about that many pixels of the picture, but at least 64 rows
    """
    encoder, blocks, decoder = G.stages
    rows = max(64, band_pixels // x.shape[3] // 4 * 4)
    # Before and after the residual blocks the maps are large and the layers cheap: they are computed again for each
    # norm rather than kept, which costs about a fifth of a translation (9 blocks)
    x = through_bands(encoder, x, rows, ENCODER_OVERLAP, keep=False)
    for block in blocks:
        x = through_bands(block.conv_block, x, rows // 4, BLOCK_OVERLAP, keep=True).add_(x)
    return through_bands(decoder, x, rows // 4, DECODER_OVERLAP, keep=False)


def goes_in_bands(G):
    """Whether translate_in_bands can: not if a network looks at the whole picture anywhere but in an instance norm."""
    return isinstance(G, GeneratorResNet) and not any(isinstance(part, AttentiveBlock) for part in G.modules())


def through_bands(layers, x, rows, overlap, keep):
    """x through some layers, each InstanceNorm2d among them with the statistics of the whole of x.

    keep: True keeps the whole feature map before each norm; False keeps its statistics and computes it again"""
    so_far = []
    for layer in layers:
        if isinstance(layer, nn.InstanceNorm2d):
            before, mean, var = in_bands(so_far, x, rows, overlap, keep, measure=True)
            if keep:
                x, so_far = before, []
            so_far.append(FixedNorm(mean, var, layer.eps))
        else:
            so_far.append(layer)
    return in_bands(so_far, x, rows, overlap, keep=True, measure=False)[0]


@torch.no_grad()
def in_bands(layers, x, rows, overlap, keep, measure):
    """-> (result, its mean, its variance); the result is None unless `keep`, mean and variance are (C,), or None unless
    `measure`.

    rows, overlap: of x; where x ends, a band has no overlap and the layers pad it as they pad x"""
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
    # the variance within the bands and that between them
    var = sum(w * (v + (m - mean).square()) for w, v, m in zip(weights, variances, means))
    return whole, mean, var


def moments(x):
    """(C, H, W) -> mean and variance of each channel, (C,), in float32: a few channels at a time, to save memory. On a
    CPU torch.var_mean takes four times as long."""
    means, variances = [], []
    for part in x.split(16):
        values = part.float().flatten(1)
        means.append(values.mean(1))
        variances.append((values - means[-1][:, None]).square().mean(1))
    return torch.cat(means), torch.cat(variances)
