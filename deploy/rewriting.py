"""
Rewrites a generator into an equivalent network that loses less accuracy in INT8 and runs faster there.
"""

import copy
import itertools

import torch
from torch import nn

from models import GeneratorResNet


class Subpixel(nn.Module):
    """Computes a 3x3 transposed convolution of stride 2 as a 2x2 convolution with four outputs per pixel, followed by a
    pixel shuffle: (N, n_in, H, W) -> (N, 4 n_out, H, W) -> (N, n_out, 2H, 2W). ONNX Runtime cannot run transposed
    convolutions in INT8."""

    def __init__(self, transposed):
        super().__init__()
        n_in, n_out = transposed.weight.shape[:2]
        # An input row produces two output rows. The first sees it through the middle row of the kernel. The second
        # sees it through the last row, and the next input row through the first. The same holds for columns.
        taps = {0: [(0, 1)], 1: [(0, 2), (1, 0)]}
        weight = torch.zeros(n_out, 2, 2, n_in, 2, 2)
        for row, column in itertools.product((0, 1), repeat=2):
            for (i, k), (j, m) in itertools.product(taps[row], taps[column]):
                weight[:, row, column, :, i, j] = transposed.weight[:, :, k, m].T
        self.conv = nn.Conv2d(n_in, 4 * n_out, 2)
        self.conv.weight = nn.Parameter(weight.reshape(4 * n_out, n_in, 2, 2))
        self.conv.bias = nn.Parameter(transposed.bias.repeat_interleave(4))

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(nn.functional.pad(x, (0, 1, 0, 1))), 2)


class FourPixels(nn.Module):
    """Computes a convolution with few output channels, such as the last one, with stride 2 and four pixels per output:
    (N, n_in, H + k - 1, W + k - 1) -> (N, 4 n_out, H / 2, W / 2) -> (N, n_out, H, W), with even H and W. Processors
    multiply bytes for 16 channels at a time; with 3 channels they would waste most of that."""

    def __init__(self, conv):
        super().__init__()
        n_out, n_in, height, width = conv.weight.shape
        weight = torch.zeros(n_out, 2, 2, n_in, height + 1, width + 1)
        for row, column in itertools.product((0, 1), repeat=2):
            weight[:, row, column, :, row : row + height, column : column + width] = conv.weight
        self.conv = nn.Conv2d(n_in, 4 * n_out, (height + 1, width + 1), stride=2)
        self.conv.weight = nn.Parameter(weight.flatten(0, 2))
        self.conv.bias = nn.Parameter(conv.bias.repeat_interleave(4))

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class Shift(nn.Module):
    """Adds a constant to the input of a layer."""

    def __init__(self, layer, by):
        super().__init__()
        self.layer, self.by = layer, by

    def forward(self, x):
        return self.layer(x + self.by)


@torch.no_grad()
def rewrite(G, images, in_float=()):
    """Returns a network equivalent to G, up to rounding, that loses less accuracy when it is quantised.

    images:   list of (1, channels, H, W) to measure ranges on
    in_float: names of layers that are not quantised and stay unchanged
    """
    G = copy.deepcopy(G).eval()
    replace_layers(G, kept=[G.get_submodule(name) for name in in_float])
    if isinstance(G, GeneratorResNet):
        shift_input(G)
    normalise_ranges(G, images)
    return G


def replace_layers(G, kept):
    """Replaces layers by equivalents that ONNX Runtime supports in INT8 or runs faster, except those in `kept`."""
    last = [layer for layer in G.modules() if isinstance(layer, nn.Conv2d)][-1]
    for parent, name, layer in [(p, n, c) for p in G.modules() for n, c in p.named_children()]:
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer in kept:
            continue
        shape = layer.kernel_size, layer.stride, layer.padding
        if isinstance(layer, nn.ConvTranspose2d) and shape == ((3, 3), (2, 2), (1, 1)):
            setattr(parent, name, Subpixel(layer))
        elif layer is last and shape == ((7, 7), (1, 1), (0, 0)) and layer.out_channels <= 4:
            setattr(parent, name, FourPixels(layer))


def shift_input(G):
    """Makes quantisation of the input lossless. 8-bit images have the values k / 127.5 - 1. INT8 has multiples of a
    scale, which are half a gray level apart from those. Shifting the input by half a level aligns the two grids, and
    the bias of the first convolution compensates for the shift."""
    first = G.model[1]
    G.model[0] = Shift(G.model[0], 1 / 255)
    first.bias -= first.weight.sum((1, 2, 3)) / 255


def normalise_ranges(G, images):
    """Scales the channels of every convolution before an instance norm to [-1, 1], measured on the images, so that each
    channel uses all 255 steps. The norm removes scale and offset, so the output does not change."""
    measured = {}

    def measure(layer, inputs, output):
        current = output.amin((0, 2, 3)), output.amax((0, 2, 3)), output.var((2, 3)).amin(0)
        low, high, var = measured.get(layer, current)
        measured[layer] = low.minimum(current[0]), high.maximum(current[1]), var.minimum(current[2])

    sequences = [list(part) for part in G.modules() if isinstance(part, nn.Sequential)]
    followed_by = {a: b for s in sequences for a, b in zip(s, s[1:]) if isinstance(a, (nn.Conv2d, Subpixel))}
    norms = {a: b for a, b in followed_by.items() if isinstance(b, nn.InstanceNorm2d)}
    hooks = [layer.register_forward_hook(measure) for layer in norms]
    for image in images:
        G(image)
    for hook in hooks:
        hook.remove()
    for layer, norm in norms.items():
        low, high, var = measured[layer]
        middle, half = (low + high) / 2, (high - low) / 2
        # The norm's epsilon damps a channel with almost no variance; a scale of its own would amplify it. Such a channel
        # gets the median scale, and epsilon is divided by the square of that. In the other channels the variance is
        # more than 100 times epsilon, so the change there is negligible.
        usual = half.median().clamp(min=1e-6)
        half = torch.where(var > 100 * norm.eps, half, usual)
        norm.eps /= usual.item() ** 2
        if isinstance(layer, Subpixel):  # the norm treats the four outputs as one channel
            layer, middle, half = layer.conv, middle.repeat_interleave(4), half.repeat_interleave(4)
        layer.weight /= half.view(-1, 1, 1, 1)
        layer.bias.copy_((layer.bias - middle) / half)
