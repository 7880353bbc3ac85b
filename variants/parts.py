"""
Changes to the layers of a network, in place: normalisation, separable convolutions, attention, dropout, antialiasing and
others.
"""

import contextlib

import torch
from torch import nn

from models import ResidualBlock
from utils import InputError
from variants.networks import AttentiveBlock, GeneratorMultiscale


def exchange(network, kind, make):
    """Replaces each submodule of class `kind` by make(submodule), in place."""
    for name, part in network.named_children():
        if isinstance(part, kind):
            setattr(network, name, make(part))
        else:
            exchange(part, kind, make)


def use_norm(network, norm):
    """Replaces the instance norms of a network.

    norm: 'instance' (no change), 'batch', 'layer' or 'none' (no normalisation). Batch norm uses running statistics in
          eval mode, and normalises the batches given to models.in_one_pass separately. Its gains are drawn from
          N(1, 0.02), as in the authors' code. Layer norm normalises all channels of an image by one mean and standard
          deviation, so that an image of one colour still has that colour (MUNIT, arXiv:1804.04732, in its decoder)
    """
    if norm == "batch":

        def batch_norm(part):
            layer = nn.BatchNorm2d(part.num_features)
            nn.init.normal_(layer.weight, 1.0, 0.02)
            return layer

        exchange(network, nn.InstanceNorm2d, batch_norm)
        network.batch_by_batch = batch_by_batch
    elif norm == "layer":
        exchange(network, nn.InstanceNorm2d, lambda part: nn.GroupNorm(1, part.num_features))
    elif norm == "none":
        exchange(network, nn.InstanceNorm2d, lambda part: nn.Identity())


def use_separable(network):
    """Replaces each 3x3 convolution in the residual blocks by a depthwise separable one: a 3x3 convolution of each
    channel, then a 1x1 convolution across channels (Howard et al., 2017, MobileNets, arXiv:1704.04861). This takes
    about a ninth of the weights and multiplications.
    """

    def separable(conv):
        n_in, n_out = conv.in_channels, conv.out_channels
        return nn.Sequential(nn.Conv2d(n_in, n_in, 3, groups=n_in, bias=False), nn.Conv2d(n_in, n_out, 1))

    for block in residual_blocks(network):
        exchange(block.conv_block, nn.Conv2d, separable)


def use_attention(network):
    """Adds self-attention after the middle residual block, in the coarse branch of a GeneratorMultiscale."""
    blocks = residual_blocks(network.coarse if isinstance(network, GeneratorMultiscale) else network)
    middle = blocks[len(blocks) // 2]
    exchange(network, ResidualBlock, lambda b: AttentiveBlock(b.conv_block[1].in_channels) if b is middle else b)


def use_dropout(network, p):
    """Adds dropout with probability `p` between the two convolutions of each residual block, as the authors' code
    does."""
    for block in residual_blocks(network):
        layers = list(block.conv_block)
        block.conv_block = nn.Sequential(*layers[:4], nn.Dropout(p), *layers[4:])


def use_spectral_norm(network):
    """Divides the weight of each convolution by its largest singular value, which limits how fast the scores of a
    discriminator can change (Miyato et al., 2018, arXiv:1802.05957). Call it after the weights have been initialised.
    """
    for part in list(network.modules()):
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            nn.utils.parametrizations.spectral_norm(part)


class Blur(nn.Module):
    """Blurs (N, C, H, W) with the binomial filter 1 2 1 / 4 along rows and columns. The borders are reflected."""

    def __init__(self, channels):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("weight", torch.outer(row, row).expand(channels, 1, 3, 3).clone(), persistent=False)

    def forward(self, x):
        x = nn.functional.pad(x, (1, 1, 1, 1), "reflect")
        return nn.functional.conv2d(x, self.weight.to(x.dtype), groups=x.shape[1])


def use_antialiasing(network):
    """Blurs the input of each convolution with stride 2, so that what is finer than the new grid does not turn into
    false patterns (Zhang, 2019, arXiv:1904.11486). There, the output of a convolution with stride 1 is blurred and every
    second value is kept. Convolutions commute, so up to the borders the result is the same, for a quarter of the work."""
    exchange(network, nn.Conv2d, lambda c: nn.Sequential(Blur(c.in_channels), c) if c.stride == (2, 2) else c)


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def use_residual(network):
    """Makes a generator compute the change of its input: x + 2 * network(x). The last layer is scaled down, so that its
    output is close to the input in the first step. In training, values may be outside [-1, 1] and are not cut off, since
    that would stop their gradients."""
    exchange(network, nn.Tanh, lambda tanh: nn.Sequential(Scale(0.1), tanh))
    network.register_forward_hook(add_input)
    network.adds_input = True


def add_input(network, inputs, output):
    return inputs[0] + 2 * output  # 2: black can become white


class BatchDeviation(nn.Module):
    """Adds a channel with the standard deviation over the batch, mean over channels and positions: a discriminator then
    sees whether translations vary as much as real images do (Karras et al., 2018, arXiv:1710.10196, section 3).

    Input: (N, C, H, W). Output: (N, C + 1, H, W)
    """

    def forward(self, x):
        deviation = (x.float().var(0, correction=0) + 1e-6).sqrt().mean().to(x.dtype)
        return torch.cat((x, deviation.expand(len(x), 1, *x.shape[2:])), 1)


def use_batch_deviation(D):
    """Inserts BatchDeviation before the last convolution of a discriminator, of each scale if it has several."""
    for network in getattr(D, "scales", [D]):
        last = network.model[-1]
        wider = nn.Conv2d(last.in_channels + 1, 1, last.kernel_size, padding=last.padding)
        network.model[-1] = nn.Sequential(BatchDeviation(), wider)
    D.batch_by_batch = batch_by_batch


def add_projections(generator, n_out=256):
    """Adds the networks that distances.patch_nce needs, one for each layer that it looks at. They are trained and saved
    with the generator, and take no part in translation."""
    widths = [
        generator.channels,
        *(layer.out_channels for layer in generator.stages[0] if isinstance(layer, nn.Conv2d)),
    ]
    widths += [block.conv_block[1].out_channels for block in generator.stages[1]][:2]
    generator.projections = nn.ModuleList(
        nn.Sequential(nn.Conv2d(width, n_out, 1), nn.ReLU(), nn.Conv2d(n_out, n_out, 1)) for width in widths
    )


FREEZABLE = (nn.Conv2d, nn.BatchNorm2d, nn.Conv3d, nn.BatchNorm3d, nn.GroupNorm)


def freeze_first(discriminator, n):
    """Keeps the first n convolutions of a discriminator fixed, of a DiscriminatorMultiscale those of each scale, and the
    gains of their norms (Mo et al., 2020, Freeze-D, arXiv:2002.10964). No gradients are computed for their
    weights, and optimizers do not change them. With --spectral_norm, the estimate of the singular value that these
    weights are divided by is still updated.
    """
    for scale in getattr(discriminator, "scales", [discriminator]):
        n_seen = 0
        for part in scale.modules():
            n_seen += isinstance(part, nn.Conv2d | nn.Conv3d)
            if n_seen <= n and isinstance(part, FREEZABLE):
                part.requires_grad_(False)


def check_freezing(opt):
    """Raises InputError if --freeze_D leaves no convolution of a discriminator to train."""
    from variants.build import make_discriminator

    with torch.device("meta"):
        D = make_discriminator(vars(opt), 1)
    scale = D.scales[0] if hasattr(D, "scales") else D
    n_convolutions = sum(isinstance(part, nn.Conv2d | nn.Conv3d) for part in scale.modules())
    if opt.freeze_D >= n_convolutions:
        raise InputError(
            f"--freeze_D {opt.freeze_D}: leaves nothing to train, because the discriminators have {n_convolutions} "
            f"convolutions. Use at most {n_convolutions - 1}"
        )


@contextlib.contextmanager
def statistics_kept(network):
    """Keeps the running statistics of batch norms unchanged in a `with` block."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before):
            norm.momentum = momentum


def batch_by_batch(network, *batches):
    """Replaces models.in_one_pass for networks with batch norm. Each batch is normalised separately, and only the first
    one updates the running statistics.
    """
    first = network(batches[0])
    with statistics_kept(network):
        return first, *map(network, batches[1:])


def residual_blocks(network):
    """Returns a list of the residual blocks in a network, in order."""
    return [part for part in network.modules() if isinstance(part, ResidualBlock)]
