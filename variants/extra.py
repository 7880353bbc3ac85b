"""
Computes the losses of variants/losses.py that have a weight.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from variants import distances
from variants.losses import EXTRA_LOSSES, names_in_use, needs_vgg


@dataclasses.dataclass
class Seen:
    """The inputs of an extra loss, for one domain. Images are (N, C, H, W) in [-1, 1]."""

    real: torch.Tensor
    fake: torch.Tensor  # translations into the domain
    source: torch.Tensor  # images of the other domain; fake = generator(source)
    recov: torch.Tensor | None  # reconstructions of `real`; None unless a loss of the cycle has a weight
    paired: torch.Tensor | None  # (N,), 1 where `real` is the true counterpart of `source`
    generator: nn.Module
    D: nn.Module  # the discriminator of the domain
    layers: Callable  # maps images to the activations of each hidden layer of D
    vgg: Callable | None  # the same for VGG-16


def compute(opt, gan, real_A, real_B, fake_A, fake_B, recov_A, recov_B, paired=None):
    """-> {name: loss} of the losses in EXTRA_LOSSES that have a weight, each the mean of both domains"""
    vgg = distances.load_vgg(opt.vgg_weights, real_A.device) if needs_vgg(opt) else None
    look_A, look_B = (distances.hidden_layers(D, opt.diffaugment) for D in (gan.D_A, gan.D_B))
    A = Seen(real_A, fake_A, real_B, recov_A, paired, gan.G_BA, gan.D_A, look_A, vgg)
    B = Seen(real_B, fake_B, real_A, recov_B, paired, gan.G_AB, gan.D_B, look_B, vgg)
    values = {name: [EXTRA_LOSSES[name].function(seen, distances) for seen in (A, B)] for name in names_in_use(opt)}
    return {name: (of_A + of_B) / 2 for name, (of_A, of_B) in values.items()}
