"""
Builds networks and data from options. With the defaults: GeneratorResNet, Discriminator and ImageDataset, unchanged.
"""

import functools

from models import Discriminator, GeneratorResNet

# The options that determine the shape of a generator and of a discriminator, and their defaults
GENERATOR_OPTIONS = dict(generator="resnet", n_residual_blocks=9, ngf=64, upsample="transpose", num_downs=8,
                         norm="instance", attention=False, separable=False, dropout=0.0, antialias=False,
                         residual=False, noise_channels=0, dims=2, slices=0)  # fmt: skip
DISCRIMINATOR_OPTIONS = dict(discriminator="patch", ndf=64, n_scales=3, spectral_norm=False, antialias=False,
                             batch_deviation=False)  # fmt: skip


def channels_of(options):
    """-> (channels of domain A, channels of domain B); options: a dict"""
    return tuple(options.get("slices") or options.get(f"channels_{d}") or options["channels"] for d in "AB")


def make_generator(options, channels, out_channels):
    """-> a generator with PyTorch's initial weights

    options: {name: value}; those in GENERATOR_OPTIONS are used, with their defaults where missing
    """
    from variants import networks, noise, parts, volumes

    o = {name: options.get(name, value) for name, value in GENERATOR_OPTIONS.items()}
    n_blocks, ngf, upsample = o["n_residual_blocks"], o["ngf"], o["upsample"]
    if o["generator"] == "resnet":
        kind = networks.GeneratorResNetCheckpointed if options.get("checkpoint_activations") else GeneratorResNet
        network = kind(channels, n_blocks, ngf, upsample, out_channels)
    elif o["generator"] == "unet":
        network = networks.GeneratorUNet(channels, o["num_downs"], ngf, upsample, out_channels, o["dropout"])
    elif o["generator"] == "multiscale":
        network = networks.GeneratorMultiscale(channels, n_blocks, ngf, upsample, out_channels)
    elif o["generator"] == "pretrained":
        network = networks.GeneratorPretrained(channels, ngf, upsample, out_channels)
    else:
        raise ValueError(f"generator must be resnet, unet, multiscale or pretrained, not {o['generator']!r}")
    if options.get("lambda_nce"):
        parts.add_projections(network)  # not part of the generator that is kept, see weights_of
    if o["attention"]:
        parts.use_attention(network)
    if o["separable"]:
        parts.use_separable(network)
    if o["dropout"]:
        parts.use_dropout(network, o["dropout"])
    if o["antialias"]:
        parts.use_antialiasing(network)
    if o["residual"]:
        parts.use_residual(network)
    parts.use_norm(network, o["norm"])
    if o["noise_channels"]:
        noise.use_noise(network, o["noise_channels"])
    return volumes.adapt(network, options)


def make_discriminator(options, channels):
    """-> a discriminator with PyTorch's initial weights; options as for make_generator, of DISCRIMINATOR_OPTIONS, and
    "norm" unless "norm_D" is given"""
    from variants import discriminators, parts, volumes

    o = {name: options.get(name, value) for name, value in DISCRIMINATOR_OPTIONS.items()}
    if o["discriminator"] == "patch":
        network = Discriminator(channels, o["ndf"])
    elif o["discriminator"] == "multiscale":
        network = discriminators.DiscriminatorMultiscale(channels, o["ndf"], o["n_scales"])
    elif o["discriminator"] == "pixel":
        network = discriminators.DiscriminatorPixel(channels, o["ndf"])
    else:
        raise ValueError(f"discriminator must be patch, multiscale or pixel, not {o['discriminator']!r}")
    if o["antialias"]:
        parts.use_antialiasing(network)
    if o["batch_deviation"]:
        parts.use_batch_deviation(network)
    parts.use_norm(network, options.get("norm_D") or options.get("norm", "instance"))
    return volumes.adapt(network, options)


def apply_variants(opt, discriminators, device):
    """Prepares --spectral_norm, --freeze_D, --diffaugment and the VGG losses, after the weights have been initialised."""
    from variants import augment, distances, losses, parts

    for D in discriminators:
        if opt.spectral_norm:
            parts.use_spectral_norm(D)
        if opt.freeze_D:
            parts.freeze_first(D, opt.freeze_D)
        if opt.diffaugment:
            D.register_forward_pre_hook(lambda D, images: augment.diff_augment(*images) if D.training else None)
    if losses.needs_vgg(opt):
        distances.load_vgg(opt.vgg_weights, device)  # now, because it may fail


def dataset_options(opt):
    """-> {name: value} for datasets.ImageDataset"""
    from variants.ranges import parse_range

    names = ("cache", "skip_bad_images", "enlarge", "flip", "keep_aspect", "max_images")
    options = {name: getattr(opt, name) for name in names} | {
        "ranges": (parse_range(opt.range_A), parse_range(opt.range_B))
    }
    if opt.color_jitter or opt.rotate:
        from variants.augment import ImageAugmentation

        options["augment"] = ImageAugmentation(opt.color_jitter, opt.rotate)
    if opt.lambda_paired:
        from variants.pairs import read_pairs

        options["pairs"] = functools.partial(read_pairs, opt.pairs)
    return options


def generator_file(state, direction):
    """The contents of G_AB_N.pth, made from those of a full checkpoint: the state dict of the generator, from which the
    paper's ResNets can be rebuilt, and for other networks also the options to build them."""
    if is_papers(state["options"]):
        return weights_of(state, direction)
    return described_generator(state, direction)


def described_generator(state, direction):
    """A generator of a full checkpoint, with the options to build it -> {"generator": options, "weights": state dict}"""
    options = state["options"]
    known = {name: options[name] for name in GENERATOR_OPTIONS if name in options}
    n_in, n_out = channels_of(options) if direction == "AB" else channels_of(options)[::-1]
    known |= {"channels": n_in, "out_channels": n_out}
    for name, domain in zip(("range_in", "range_out"), direction):
        if options.get(f"range_{domain}"):
            known[name] = options[f"range_{domain}"]
    return {"generator": known, "weights": weights_of(state, direction)}


def weights_of(state, direction):
    """The state dict of a generator in a full checkpoint; with --ema, of the average. Without what only the training
    needs."""
    weights = state.get(f"ema_G_{direction}", state[f"G_{direction}"])
    return {key: value for key, value in weights.items() if not key.startswith("projections.")}


def with_projections(weights, network):
    """`weights` of weights_of, completed by the new projections of `network` if it has any, see parts.add_projections"""
    return {key: value for key, value in network.state_dict().items() if key.startswith("projections.")} | weights


def is_papers(options):
    """Whether the generators are the paper's, which can be rebuilt from the keys and shapes of their state dicts, and
    translate values of the usual range. (Dropout does nothing in a finished network.)"""
    names = ("generator", "norm", "attention", "separable", "antialias", "residual", "noise_channels", "dims", "slices")
    if options.get("range_A") or options.get("range_B"):
        return False
    return all(options.get(name, GENERATOR_OPTIONS[name]) == GENERATOR_OPTIONS[name] for name in names)
