"""
The two networks of CycleGAN: a ResNet generator and a 70x70 PatchGAN discriminator (Zhu et al., 2017,
arXiv:1703.10593, section 4 and appendix 7.2).

Module order, and so the keys of a state dict, are those of the authors' `ResnetGenerator` and
`NLayerDiscriminator`: their published weights load unchanged.

Images are (N, channels, H, W) in [-1, 1]. The comments give the paper's name of each layer (c7s1-k: 7x7 convolution,
stride 1, k filters; dk: 3x3, stride 2; Rk: residual block; uk: 3x3, stride 1/2; Ck: 4x4, stride 2; most are followed by
instance normalisation and a ReLU) and the shape of its output, C x H x W, for a 256x256 image at the defaults.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def weights_init_normal(module):
    """Convolutions start at N(0, 0.02), biases at 0 (paper, section 7.1). Use as `net.apply(weights_init_normal)`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


##############################
#          Generator
##############################


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection; the shape stays as it is."""

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
    """Layers that double height and width, with n_in filters before and n_out after; see GeneratorResNet."""
    if kind == "transpose":
        return [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2, padding=1, output_padding=kernel % 2)]
    if kind != "nearest":
        raise ValueError(f"upsample must be 'transpose' or 'nearest', not {kind!r}")
    return [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, n_out, 3, padding=1)]


class GeneratorResNet(nn.Module):
    """Translates images of one domain into the other: G_AB is the paper's G, G_BA its F.

    In and out: (N, channels, H, W) in [-1, 1]; H and W divisible by 4 and at least 32, otherwise ValueError.

    channels:          of the images, in and out (1 gray, 3 RGB)
    n_residual_blocks: 9 for 256x256 and larger, 6 for 128x128 (paper, section 7.2)
    ngf:               filters of the first convolution; all others are multiples of it
    upsample:          'transpose' as in the paper, or 'nearest': upsampling followed by a convolution, which
                       leaves no checkerboard pattern (Odena et al., 2016, distill.pub/2016/deconv-checkerboard)
    out_channels:      of the translation, where that has more or fewer than the input
    """

    multiple, smallest = 4, 32  # what height and width must be divisible by, and at least

    def __init__(self, channels=3, n_residual_blocks=9, ngf=64, upsample="transpose", out_channels=None):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels

        # c7s1-64. Reflection padding: zeros at the border would show as a frame in the picture.
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

        # R256, nine times: most of the weights and of the work are here
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
        # True: the backward pass computes what happens inside each stage once more, rather than keep it in memory
        # (Chen et al., 2016, arXiv:1604.06174)
        self.checkpoint_activations = False
        self.register_load_state_dict_pre_hook(drop_running_statistics)

    @property
    def stages(self):
        """(layers up to the residual blocks, these blocks, layers after them), three lists."""
        layers = list(self.model)
        n_blocks = sum(isinstance(layer, ResidualBlock) for layer in layers)
        return layers[:10], layers[10 : 10 + n_blocks], layers[10 + n_blocks :]

    def forward(self, x):
        check_size(self, x)
        if self.checkpoint_activations and torch.is_grad_enabled():
            encoder, blocks, decoder = self.stages
            dropout = any(isinstance(layer, nn.Dropout) for layer in self.modules())  # the same dice once more
            for stage in (nn.Sequential(*encoder), *blocks, nn.Sequential(*decoder)):
                x = checkpoint(stage, x, use_reentrant=False, preserve_rng_state=dropout)
            return x
        return self.model(x)


##############################
#        Discriminator
##############################


class Discriminator(nn.Module):
    """Scores how real each 70x70 patch looks: 1 real, 0 translated. D_A is the paper's D_X, D_B its D_Y.

    In: (N, channels, H, W) in [-1, 1]. Out: (N, 1, H // 8 - 2, W // 8 - 2), a score for each patch, of any value (least
    squares need no sigmoid): 30 x 30 for a 256x256 image.

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
            # C512, stride 1: with stride 2 the receptive field would be 94
            nn.Conv2d(ndf * 4, ndf * 8, 4, stride=1, padding=1),  # 512 x 31 x 31
            nn.InstanceNorm2d(ndf * 8),
            nn.LeakyReLU(0.2, inplace=True),
            # one score a patch
            nn.Conv2d(ndf * 8, 1, 4, stride=1, padding=1),  # 1 x 30 x 30
        )

    def forward(self, x):
        return self.model(x)


##############################
#   Small print
##############################


def drop_running_statistics(module, state_dict, prefix, *_):
    """The authors' older files hold running statistics of instance norms, which nothing uses: left out on loading."""
    if any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):  # --norm batch: these are used
        return
    for key in list(state_dict):
        if key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            del state_dict[key]


def check_size(generator, x):
    """Raises ValueError for images that a generator cannot take."""
    height, width = x.shape[-2:]
    multiple, smallest = generator.multiple, generator.smallest
    if height % multiple or width % multiple or min(height, width) < smallest:
        raise ValueError(
            f"height and width must be divisible by {multiple} and at least {smallest}, not {height} x {width}"
        )


##########################################################################################################
#   Skip the rest on first reading: other networks, chosen by --generator, --discriminator, --norm …
#
#   Each is made of the parts above. variants.py builds them, and exchanges parts of them, so that they combine.
##########################################################################################################


def in_one_pass(network, *batches):
    """Each network(batch), computed as one larger batch, which is faster. The results are the same, as instance norm
    normalises each image on its own."""
    if hasattr(network, "batch_by_batch"):  # --norm batch: there it matters what is normalised together
        return network.batch_by_batch(network, *batches)
    return network(torch.cat(batches)).split([len(batch) for batch in batches])
