"""
Several translations of one image: generators that take noise besides the image (--noise_channels). A black drawing has
many colourings, and a generator without noise can learn only one of them.

The noise z is a vector of `noise_channels` numbers from N(0, 1) for each image. After each normalisation, a linear map
of z scales and shifts the channels, as in Augmented CycleGAN (Almahairi et al., 2018, arXiv:1802.10151, conditional
instance norm) and MUNIT (Huang et al., 2018, arXiv:1804.04732). Further input channels would have no effect: instance
norm removes whatever is the same at all positions, and noise for each pixel says nothing about the image as a whole.

The map has no bias, so z = 0 leaves the network as it would be without noise. That is the translation in eval mode,
unless another z is given: the mean of the noise, the same for every image, size, batch, device and file format. It is
the middle of the answers rather than one of them, since vectors of N(0, 1) are rarely near 0.
"""

import contextlib

import torch
from torch import nn

NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d, nn.GroupNorm)


class Modulation(nn.Module):
    """x * (1 + scale) + shift, with a scale and a shift for each channel that are linear in the noise. Returns x itself
    while `noise` is None.

    Input and output: (N, features, H, W). noise: (N or 1, noise_channels)
    """

    def __init__(self, features, noise_channels):
        super().__init__()
        self.linear = nn.Linear(noise_channels, 2 * features, bias=False)
        self.noise = None

    def forward(self, x):
        if self.noise is None:
            return x
        both = self.linear(self.noise.to(self.linear.weight.dtype))
        scale, shift = both[(..., *[None] * (x.ndim - 2))].to(x.dtype).chunk(2, 1)
        return x * (1 + scale) + shift


def use_noise(network, noise_channels):
    """Adds a Modulation after each normalisation of a generator, in place. The generator then draws its noise itself in
    train mode. `generator(x, noise=z)` sets it in both modes; z is (N or 1, noise_channels)."""
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential):
            for i in reversed(range(len(part))):
                if isinstance(part[i], NORMS):
                    n_channels = part[i].num_channels if isinstance(part[i], nn.GroupNorm) else part[i].num_features
                    part.insert(i + 1, Modulation(n_channels, noise_channels))
    network.noise_channels, network.fixed_noise = noise_channels, None
    network.register_forward_pre_hook(choose_noise, with_kwargs=True)


def choose_noise(network, arguments, named):
    """A forward pre-hook: the noise that was given, else `fixed_noise`, else in train mode a new draw."""
    noise = named.pop("noise", network.fixed_noise)
    if noise is None and network.training:
        noise = torch.randn(len(arguments[0]), network.noise_channels, device=arguments[0].device)
    set_noise(network, noise)
    return arguments, named


def set_noise(network, noise):
    for part in network.modules():
        if isinstance(part, Modulation):
            part.noise = noise


@contextlib.contextmanager
def with_noise(network, noise):
    """Fixes the noise of a generator in a `with` block, also for its layers if they are called one by one."""
    network.fixed_noise = noise
    set_noise(network, noise)
    try:
        yield
    finally:
        network.fixed_noise = None
        set_noise(network, None)


def remembering_noise(stage):
    """-> function like `stage`, with the noise of this moment whenever it is called. For torch.utils.checkpoint, which
    calls a stage again in the backward pass, when the generator has had other noise in between."""
    noise = next((part.noise for part in stage.modules() if isinstance(part, Modulation)), None)

    def run(x):
        set_noise(stage, noise)
        return stage(x)

    return run


def without_noise(network):
    """Removes what use_noise has added, in place -> the network, which computes the translation for noise 0."""
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential):
            for i in reversed(range(len(part))):
                if isinstance(part[i], Modulation):
                    del part[i]
    network.noise_channels = 0  # the hook stays, and has nothing to set
    return network
