"""
Volumes instead of images: --dims 3 and --slices.

With --dims 3 the networks are those of models.py and variants/networks.py with each layer exchanged for its relative in
3-D, such as Conv2d for Conv3d. Volumes are (N, channels, D, H, W). With --slices N, which is 2.5-D, networks stay in 2-D
and take N neighbouring slices of a volume as the channels of an image, (N, slices, H, W).
"""

import torch
from torch import nn

from utils import InputError
from variants.losses import needs_vgg
from variants.parts import Blur

SMALLEST = {"patch": 24, "multiscale": 24, "pixel": 8}  # side that leaves a discriminator, or a scale of it, a score


def is_volumetric(options):
    """Whether a training, or a generator, takes volumes. options: {name: value}, of a generator its attributes"""
    return options.get("dims", 2) == 3 or options.get("slices", 0) > 0


def adapt(network, options):
    """The last step of variants.build: `network` for volumes if `options` say so, else as it is."""
    if options.get("slices"):
        network.slices = options["slices"]
    if options.get("dims", 2) == 3:
        use_3d(network)
        network.dims = 3
        if hasattr(network, "smallest"):  # a generator. Its reflection padding needs no more
            network.smallest = max(network.multiple, min(network.smallest, 2 * network.multiple))
    return network


##############################
#   Layers
##############################


class Blur3d(Blur):
    """variants.parts.Blur for (N, C, D, H, W), along depth too."""

    def __init__(self, channels):
        super().__init__(channels)
        row = self.weight[:1, 0].sum(1)[0]
        cube = row.view(-1, 1, 1) * row.view(-1, 1) * row
        self.register_buffer("weight", cube.expand(channels, 1, 3, 3, 3).clone(), persistent=False)

    def forward(self, x):
        x = nn.functional.pad(x, (1,) * 6, "reflect")
        return nn.functional.conv3d(x, self.weight.to(x.dtype), groups=x.shape[1])


def cube(sides):
    """(height, width) of a kernel, stride or padding -> (depth, height, width). The depth is that of the height."""
    return sides[0], *sides


def convolution(part):
    """A 2-D convolution, transposed or not -> one in 3-D with new weights."""
    kind, more = nn.Conv3d, {}
    if isinstance(part, nn.ConvTranspose2d):
        kind, more = nn.ConvTranspose3d, {"output_padding": cube(part.output_padding)}
    return kind(part.in_channels, part.out_channels, cube(part.kernel_size), stride=cube(part.stride),
                padding=cube(part.padding), dilation=cube(part.dilation), groups=part.groups,
                bias=part.bias is not None, padding_mode=part.padding_mode, **more)  # fmt: skip


def normalisation(part, kind):
    """An instance or batch norm in 2-D -> the same one in 3-D, with its weights and statistics."""
    norm = kind(part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
    norm.load_state_dict(part.state_dict())
    return norm


RELATIVES = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: convolution,
    nn.InstanceNorm2d: lambda part: normalisation(part, nn.InstanceNorm3d),
    nn.BatchNorm2d: lambda part: normalisation(part, nn.BatchNorm3d),
    nn.ReflectionPad2d: lambda part: nn.ReflectionPad3d((*part.padding, *part.padding[2:])),
    Blur: lambda part: Blur3d(len(part.weight)),
}


def use_3d(network):
    """Exchanges all layers of a network for their relatives in 3-D, in place. Convolutions get PyTorch's initial weights.
    Others work for any number of dimensions: activations, GroupNorm, Upsample, Dropout, and the attention of
    variants/networks.py. The projections of --lambda_nce see vectors, not volumes, and stay."""
    for name, part in network.named_children():
        if type(part) in RELATIVES:
            setattr(network, name, RELATIVES[type(part)](part))
        elif name != "projections":
            use_3d(part)


def by_slices(translate, volume, n, batch_size=1):
    """Translates a volume with a network that takes `n` neighbouring slices as channels: each slice is the middle one of a
    translation. The outermost slices have themselves as further neighbours.

    translate: function (N, n, H, W) -> the same
    volume:    (1, 1, D, H, W) -> the same
    """
    depth, half = volume.shape[2], n // 2
    numbers = (torch.arange(depth)[:, None] + torch.arange(-half, half + 1)).clamp(0, depth - 1)  # (D, n)
    slices = [translate(volume[0, 0, part.to(volume.device)])[:, half] for part in numbers.split(batch_size)]
    return torch.cat(slices)[None, None]


##############################
#   Options
##############################

# Options that are for images alone, with the values that switch them off
FOR_IMAGES = dict(color_jitter=0.0, rotate=0.0, keep_aspect=False, enlarge=False, load_size=None, progressive=None)


def check_volumes(opt):
    """Raises InputError for options that cannot be used with --dims 3 or --slices."""
    which = "--dims 3" if opt.dims == 3 else f"--slices {opt.slices}"
    if opt.dims == 3 and opt.slices:
        raise InputError("--dims 3 --slices: networks are in 3-D or see slices as channels; give only one of these")
    for name, off in FOR_IMAGES.items():
        if getattr(opt, name) != off:
            reason = ": volumes are not resized" if name in ("load_size", "keep_aspect", "enlarge") else ""
            raise InputError(f"--{name}: is for images and cannot be used with {which}{reason}")
    if opt.slices and (opt.slices % 2 == 0 or opt.channels_A or opt.channels_B):
        raise InputError(
            f"{which}: takes an odd number of slices, of volumes with one value per voxel: omit --channels_A, _B"
        )
    if opt.dims == 3:
        check_3d(opt)


def check_3d(opt):
    if opt.generator == "pretrained" or needs_vgg(opt):
        what = "--generator pretrained" if opt.generator == "pretrained" else "--lambda_perceptual, --vgg_weights"
        raise InputError(f"{what}: pretrained networks take images, and cannot be used with --dims 3")
    multiple = {"unet": 2**opt.num_downs, "multiscale": 8}.get(opt.generator, 4)
    smallest = SMALLEST[opt.discriminator] * 2 ** ((opt.n_scales - 1) * (opt.discriminator == "multiscale"))
    smallest = max(smallest, multiple if opt.generator == "unet" else 2 * multiple)
    if opt.lambda_ssim:
        smallest = max(smallest, 11)  # its window
    if opt.img_depth % multiple or opt.img_depth < smallest:
        smaller = "a smaller --num_downs" if opt.generator == "unet" else "--discriminator pixel"
        raise InputError(
            f"--img_depth {opt.img_depth}: must be divisible by {multiple} and at least {smallest} for these networks. For "
            f"thinner volumes, use {smaller}, or --slices 3 without --dims 3"
        )


def crop_of(opt):
    """-> (depth, height, width) of the sub-volumes that a training sees"""
    return opt.slices or opt.img_depth, opt.img_height, opt.img_width


def refuse_volumes(network, path):
    """Raises InputError if a generator takes volumes. path: its file"""
    if is_volumetric(vars(network)):
        raise InputError(
            f"{path}: a generator of volumes (--dims 3 or --slices). translate.py and evaluate.py take it; all else is for "
            "generators of images"
        )
