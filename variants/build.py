"""
From options to networks: which one is built, and which of its parts are exchanged (--norm, --attention, --separable,
--dropout, --spectral_norm). Without any of them: GeneratorResNet and Discriminator as they stand in models.py.
"""

import contextlib

from torch import nn

from models import Discriminator, GeneratorResNet, ResidualBlock
from variants.networks import (
    AttentiveBlock,
    DiscriminatorMultiscale,
    DiscriminatorPixel,
    GeneratorMultiscale,
    GeneratorPretrained,
    GeneratorUNet,
)

##############################
#   Exchanged parts
##############################


def exchange(network, kind, make):
    """Replaces each part of a class `kind` by make(part), in place."""
    for name, part in network.named_children():
        if isinstance(part, kind):
            setattr(network, name, make(part))
        else:
            exchange(part, kind, make)


def use_norm(network, norm):
    """'instance' as it is; 'batch': statistics of the whole batch, and running ones for translation; 'none'."""
    if norm == "batch":
        exchange(network, nn.InstanceNorm2d, lambda part: nn.BatchNorm2d(part.num_features))
        network.batch_by_batch = batch_by_batch
    elif norm == "none":
        exchange(network, nn.InstanceNorm2d, lambda part: nn.Identity())


def use_separable(network):
    """Each 3x3 convolution of the residual blocks becomes one of 3x3 per channel and one of 1x1 across channels
    (MobileNets, arXiv:1704.04861): a ninth of the weights and of the work."""

    def separable(conv):
        n_in, n_out = conv.in_channels, conv.out_channels
        return nn.Sequential(nn.Conv2d(n_in, n_in, 3, groups=n_in, bias=False), nn.Conv2d(n_in, n_out, 1))

    for block in residual_blocks(network):
        exchange(block.conv_block, nn.Conv2d, separable)


def use_attention(network):
    """Self-attention behind the residual block in the middle."""
    blocks = residual_blocks(network.coarse if isinstance(network, GeneratorMultiscale) else network)
    middle = blocks[len(blocks) // 2]
    exchange(network, ResidualBlock, lambda b: AttentiveBlock(b.conv_block[1].in_channels) if b is middle else b)


def use_dropout(network, p):
    """Dropout between the two convolutions of each residual block, where the authors' code has it."""
    for block in residual_blocks(network):
        layers = list(block.conv_block)
        block.conv_block = nn.Sequential(*layers[:4], nn.Dropout(p), *layers[4:])


def use_spectral_norm(network):
    """Divides each weight by its largest singular value, so that the scores cannot become steep (arXiv:1802.05957).
    After the weights were drawn, as they are something computed from then on."""
    for part in list(network.modules()):
        if isinstance(part, nn.Conv2d):
            nn.utils.parametrizations.spectral_norm(part)


@contextlib.contextmanager
def statistics_kept(network):
    """Meanwhile, running statistics of batch norms stay as they are."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before):
            norm.momentum = momentum


def batch_by_batch(network, *batches):
    """models.in_one_pass for batch norm: each batch is normalised by itself; only the first moves the running
    statistics."""
    first = network(batches[0])
    with statistics_kept(network):
        return first, *map(network, batches[1:])


def residual_blocks(network):
    return [part for part in network.modules() if isinstance(part, ResidualBlock)]


##############################
#   What the options choose
##############################


# The options that a generator's and a discriminator's shape depends on, and what they are where nothing is said
GENERATOR_OPTIONS = dict(generator="resnet", n_residual_blocks=9, ngf=64, upsample="transpose", num_downs=8,
                         norm="instance", attention=False, separable=False, dropout=0.0)  # fmt: skip
DISCRIMINATOR_OPTIONS = dict(discriminator="patch", ndf=64, n_scales=3, spectral_norm=False)


def channels_of(options):
    """-> (channels of A, of B), of the options of a training."""
    return tuple(options.get(name) or options["channels"] for name in ("channels_A", "channels_B"))


def make_generator(options, channels, out_channels):
    """A generator, its weights not yet drawn.

    options: {name: value}, of GENERATOR_OPTIONS; what is missing is as there, what else is in it is left aside
    """
    o = {name: options.get(name, value) for name, value in GENERATOR_OPTIONS.items()}
    n_blocks, ngf, upsample = o["n_residual_blocks"], o["ngf"], o["upsample"]
    if o["generator"] == "resnet":
        network = GeneratorResNet(channels, n_blocks, ngf, upsample, out_channels)
    elif o["generator"] == "unet":
        network = GeneratorUNet(channels, o["num_downs"], ngf, upsample, out_channels, o["dropout"])
    elif o["generator"] == "multiscale":
        network = GeneratorMultiscale(channels, n_blocks, ngf, upsample, out_channels)
    elif o["generator"] == "pretrained":
        network = GeneratorPretrained(channels, ngf, upsample, out_channels)
    else:
        raise ValueError(f"generator must be resnet, unet, multiscale or pretrained, not {o['generator']!r}")
    if o["attention"]:
        use_attention(network)
    if o["separable"]:
        use_separable(network)
    if o["dropout"]:
        use_dropout(network, o["dropout"])
    use_norm(network, o["norm"])
    return network


def make_discriminator(options, channels):
    """A discriminator, its weights not yet drawn; options as of make_generator, of DISCRIMINATOR_OPTIONS and "norm"."""
    o = {name: options.get(name, value) for name, value in DISCRIMINATOR_OPTIONS.items()}
    if o["discriminator"] == "patch":
        network = Discriminator(channels, o["ndf"])
    elif o["discriminator"] == "multiscale":
        network = DiscriminatorMultiscale(channels, o["ndf"], o["n_scales"])
    elif o["discriminator"] == "pixel":
        network = DiscriminatorPixel(channels, o["ndf"])
    else:
        raise ValueError(f"discriminator must be patch, multiscale or pixel, not {o['discriminator']!r}")
    use_norm(network, options.get("norm", "instance"))
    return network


def generator_file(state, direction):
    """What is kept of one generator of a full checkpoint: its state dict, from which the ResNets of the paper can be
    rebuilt; of other networks also the options that they were built by. With --ema it is the average."""
    weights, options = state.get(f"ema_G_{direction}", state[f"G_{direction}"]), state["options"]
    if is_papers(options):
        return weights
    known = {name: options[name] for name in GENERATOR_OPTIONS if name in options}
    n_in, n_out = channels_of(options) if direction == "AB" else channels_of(options)[::-1]
    return {"generator": known | {"channels": n_in, "out_channels": n_out}, "weights": weights}


def is_papers(options):
    """Whether generators are the paper's, which keys and shapes tell all about (dropout does nothing in a finished
    one)."""
    names = ("generator", "norm", "attention", "separable")
    return all(options.get(name, GENERATOR_OPTIONS[name]) == GENERATOR_OPTIONS[name] for name in names)
