"""
The two networks of CycleGAN: a ResNet generator and a 70x70 PatchGAN discriminator (Zhu et al., 2017,
arXiv:1703.10593, section 4 and appendix 7.2).

Modules have the same order as in the authors' `ResnetGenerator` and `NLayerDiscriminator`. State dicts therefore have
the same keys, and the published weights load unchanged.

Images are (N, channels, H, W) in [-1, 1]. Comments give the paper's name of each layer (c7s1-k: 7x7 convolution with
stride 1 and k filters; dk: 3x3, stride 2; Rk: residual block; uk: 3x3, stride 1/2; Ck: 4x4, stride 2; most are followed
by instance normalisation and a ReLU, in discriminators a LeakyReLU) and the shape of its output, C x H x W, for a
256x256 image and the defaults.
"""

import torch
from torch import nn


def weights_init_normal(module):
    """Draws the weights of convolutions from a normal distribution with standard deviation 0.02, and sets biases to 0
    (paper, section 7.1). For `network.apply`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


##############################
#          Generator
##############################


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection. The shape does not change."""

    def __init__(self, features):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            nn.InstanceNorm2d(features),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            nn.InstanceNorm2d(features),
        )

    def forward(self, x):
        return x + self.conv_block(x)


def upsampling(kind, n_in, n_out, kernel=3):
    """Layers that double height and width and map n_in channels to n_out. kind: see `upsample` in GeneratorResNet."""
    if kind == "transpose":
        return [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2, padding=1, output_padding=kernel % 2)]
    if kind != "nearest":
        raise ValueError(f"upsample must be 'transpose' or 'nearest', not {kind!r}")
    return [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1)]


class GeneratorResNet(nn.Module):
    """Translates images of one domain into the other: G_AB is the paper's G, G_BA its F.

    Input and output: (N, channels, H, W) in [-1, 1]. H and W must be divisible by 4 and at least 32, else ValueError.

    channels:          number of input channels: 1 for gray, 3 for RGB
    n_residual_blocks: 9 for 256x256 and larger, 6 for 128x128 (paper, section 7.2)
    ngf:               filters of the first convolution; the widths of the others are multiples of it
    upsample:          'transpose' as in the paper, or 'nearest': upsampling and a convolution, which avoids
                       checkerboard artifacts (Odena et al., 2016, distill.pub/2016/deconv-checkerboard)
    out_channels:      number of output channels, if different from the input
    """

    # Height and width must be multiples of `multiple` and at least `smallest`. Every generator needs these two, and
    # channels and out_channels
    multiple, smallest = 4, 32

    def __init__(self, channels=3, n_residual_blocks=9, ngf=64, upsample="transpose", out_channels=None):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels

        # c7s1-64. Reflection padding: zeros at the border would show as a frame around the image.
        model = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, ngf, 7),
            nn.InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),
        ]  # 64 x 256 x 256

        # d128, d256
        features = ngf
        for _ in range(2):
            model += [
                nn.Conv2d(features, features * 2, 3, stride=2, padding=1),
                nn.InstanceNorm2d(features * 2),
                nn.ReLU(inplace=True),
            ]
            features *= 2
        # 128 x 128 x 128, then 256 x 64 x 64

        # R256, nine times: most of the weights and of the computation are here
        model += [ResidualBlock(features) for _ in range(n_residual_blocks)]  # 256 x 64 x 64

        # u128, u64
        for _ in range(2):
            model += upsampling(upsample, features, features // 2)
            model += [nn.InstanceNorm2d(features // 2), nn.ReLU(inplace=True)]
            features //= 2
        # 128 x 128 x 128, then 64 x 256 x 256

        # c7s1-3
        model += [nn.ReflectionPad2d(3), nn.Conv2d(features, self.out_channels, 7), nn.Tanh()]  # 3 x 256 x 256

        self.model = nn.Sequential(*model)
        self.register_load_state_dict_pre_hook(drop_running_statistics)

    @property
    def stages(self):
        """Three lists: the layers before the residual blocks, the blocks, and the layers after them."""
        layers = list(self.model)
        is_block = [isinstance(layer, ResidualBlock) for layer in layers]
        first = is_block.index(True) if any(is_block) else 10
        return layers[:first], layers[first : first + sum(is_block)], layers[first + sum(is_block) :]

    def forward(self, x):
        check_size(self, x)
        return self.model(x)


##############################
#        Discriminator
##############################


class Discriminator(nn.Module):
    """Scores how real each 70x70 patch looks: 1 real, 0 translated. D_A is the paper's D_X, D_B its D_Y.

    Input: (N, channels, H, W) in [-1, 1]. Output: (N, 1, H // 8 - 2, W // 8 - 2), one score per patch: 30 x 30 for a
    256x256 image. There is no sigmoid; the least squares loss does not need one.

    ndf: filters of the first convolution
    """

    def __init__(self, channels=3, ndf=64):
        super().__init__()
        self.model = nn.Sequential(
            # C64: no normalisation in the first layer (paper, section 7.2)
            nn.Conv2d(channels, ndf, 4, stride=2, padding=1),  # 64 x 128 x 128
            nn.LeakyReLU(0.2, inplace=True),
            # C128
            nn.Conv2d(ndf, ndf * 2, 4, stride=2, padding=1),  # 128 x 64 x 64
            nn.InstanceNorm2d(ndf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            # C256
            nn.Conv2d(ndf * 2, ndf * 4, 4, stride=2, padding=1),  # 256 x 32 x 32
            nn.InstanceNorm2d(ndf * 4),
            nn.LeakyReLU(0.2, inplace=True),
            # C512, with stride 1 as in the authors' code: with 2, the receptive field would be 94
            nn.Conv2d(ndf * 4, ndf * 8, 4, stride=1, padding=1),  # 512 x 31 x 31
            nn.InstanceNorm2d(ndf * 8),
            nn.LeakyReLU(0.2, inplace=True),
            # one score for each patch
            nn.Conv2d(ndf * 8, 1, 4, stride=1, padding=1),  # 1 x 30 x 30
        )

    def forward(self, x):
        return self.model(x)


##############################
#           Details
##############################


def in_one_pass(network, *batches):
    """Returns network(batch) for each batch, computed in one pass, which is faster. The results are the same, because
    instance norm normalises each image on its own."""
    if hasattr(network, "batch_by_batch"):  # --norm batch: statistics depend on the whole batch
        return network.batch_by_batch(network, *batches)
    return network(torch.cat(batches)).split([len(batch) for batch in batches])


def drop_running_statistics(module, state_dict, prefix, *_):
    """Removes the running statistics of instance norms. The authors' older files contain them; they are unused."""
    if any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) for part in module.modules()):  # --norm batch uses them
        return
    for key in list(state_dict):
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            del state_dict[key]


def check_size(generator, x):
    """Raises ValueError if a generator cannot take images of this size."""
    sides, multiple, smallest = x.shape[2:], generator.multiple, generator.smallest  # three of a volume
    if any(side % multiple for side in sides) or min(sides) < smallest:
        names = "height and width" if len(sides) == 2 else "depth, height and width"
        size = " x ".join(map(str, sides))
        raise ValueError(f"{names} must be divisible by {multiple} and at least {smallest}, not {size}")
