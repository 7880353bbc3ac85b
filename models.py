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
import torchvision
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


class GeneratorUNet(nn.Module):
    """Halves the image `num_downs` times, doubles it as often, and hands each size over to its counterpart: details
    have a way past the bottleneck, and the bottleneck sees the whole picture (pix2pix, arXiv:1611.07004, section 3.2).

    In and out as GeneratorResNet; height and width divisible by 2 ** num_downs: 256 for 8, 64 for 6.

    dropout: of the three up-sampling layers next to the innermost
    """

    def __init__(self, channels=3, num_downs=8, ngf=64, upsample="transpose", out_channels=None, dropout=0.0):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        self.multiple = self.smallest = 2**num_downs
        widths = [ngf * min(8, 2**i) for i in range(num_downs)]  # 64, 128, 256, 512, 512 ...
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            down = [nn.LeakyReLU(0.2)] if i else []
            down.append(nn.Conv2d(widths[i - 1] if i else channels, width, 4, stride=2, padding=1))
            if 0 < i < num_downs - 1:  # the first as in the paper; the last may be 1 x 1 and have no deviation
                down.append(nn.InstanceNorm2d(width))
            self.down.append(nn.Sequential(*down))
        for i in reversed(range(num_downs)):
            n_in = widths[i] * (1 if i == num_downs - 1 else 2)  # from below, and from its counterpart
            up = [nn.ReLU(), *upsampling(upsample, n_in, widths[i - 1] if i else self.out_channels, kernel=4)]
            up += [nn.InstanceNorm2d(widths[i - 1])] if i else [nn.Tanh()]
            if dropout and max(1, num_downs - 4) <= i < num_downs - 1:
                up.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*up))

    def forward(self, x):
        check_size(self, x)
        seen = []
        for down in self.down:
            x = down(x)
            seen.append(x)
        seen.pop()
        for up in self.up:
            x = up(x)
            if seen:
                x = torch.cat((seen.pop(), x), 1)
        return x


class GeneratorMultiscale(nn.Module):
    """Two branches: a whole ResNet generator at half the size, which sees more of the picture with the same filters and
    so decides on its style, and a shallow one at full size for the detail. The coarse one's last features are added
    to those of the fine one (pix2pixHD, arXiv:1711.11585, section 3.2, trained in one go).

    In and out as GeneratorResNet; height and width divisible by 8 and at least 64.
    """

    multiple, smallest = 8, 64

    def __init__(self, channels=3, n_residual_blocks=9, ngf=64, upsample="transpose", out_channels=None):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        half = max(1, ngf // 2)
        resnet = GeneratorResNet(channels, n_residual_blocks, ngf, upsample)
        self.coarse = nn.Sequential(*list(resnet.model)[:-3])  # all but c7s1-3: 64 x 128 x 128
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels, half, 7),
            nn.InstanceNorm2d(half),
            nn.ReLU(inplace=True),  # 32 x 256 x 256
            nn.Conv2d(half, ngf, 3, stride=2, padding=1),
            nn.InstanceNorm2d(ngf),
            nn.ReLU(inplace=True),  # 64 x 128 x 128
        )
        self.decoder = nn.Sequential(
            *(ResidualBlock(ngf) for _ in range(3)),
            *upsampling(upsample, ngf, half),
            nn.InstanceNorm2d(half),
            nn.ReLU(inplace=True),  # 32 x 256 x 256
            nn.ReflectionPad2d(3),
            nn.Conv2d(half, self.out_channels, 7),
            nn.Tanh(),
        )

    def forward(self, x):
        check_size(self, x)
        return self.decoder(self.encoder(x) + self.coarse(nn.functional.avg_pool2d(x, 2)))


class ForImageNet(nn.Module):
    """Images in [-1, 1], 1 or 3 channels -> 3 channels, as torchvision's networks with weights of ImageNet expect."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        return ((x + 1) / 2 - self.mean) / self.std


class GeneratorPretrained(nn.Module):
    """torchvision's ResNet-18 as the encoder, with the weights of ImageNet (see load_encoder), and a decoder that is
    handed each size: edges, textures and objects are known from the first step on.

    In and out as GeneratorResNet; 1 or 3 channels, height and width divisible by 16 and at least 64. The encoder is
    trained on, but for its batch norms, which keep the statistics of ImageNet: batches here are too small to tell.
    """

    multiple, smallest = 16, 64

    def __init__(self, channels=3, ngf=64, upsample="transpose", out_channels=None):
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"a pretrained encoder knows pictures of 1 or 3 channels, not {channels}")
        self.channels, self.out_channels = channels, out_channels or channels
        resnet = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
        self.encoder = nn.ModuleDict(
            {name: getattr(resnet, name) for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")}
        )
        self.up = nn.ModuleList(
            nn.Sequential(*upsampling(upsample, n_in, n_out), nn.InstanceNorm2d(n_out), nn.ReLU(inplace=True))
            for n_in, n_out in ((256, 128), (128 + 128, 64), (64 + 64, 64), (64 + 64, ngf))
        )
        self.output = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(ngf, self.out_channels, 7), nn.Tanh())
        self.normalise = ForImageNet()

    def forward(self, x):
        check_size(self, x)
        e = self.encoder
        x = self.normalise(x)
        half = e["relu"](e["bn1"](e["conv1"](x)))  # 64 x 128 x 128
        quarter = e["layer1"](e["maxpool"](half))  # 64 x 64 x 64
        eighth = e["layer2"](quarter)  # 128 x 32 x 32
        x = e["layer3"](eighth)  # 256 x 16 x 16
        for up, seen in zip(self.up, (eighth, quarter, half, None)):
            x = up(x)
            if seen is not None:
                x = torch.cat((seen, x), 1)
        return self.output(x)

    def load_encoder(self, weights):
        """weights: state dict of torchvision's resnet18. Raises ValueError if it is another one's."""
        names = self.encoder.state_dict()
        missing = [name for name in names if name not in weights or weights[name].shape != names[name].shape]
        if missing:
            raise ValueError(f"no ResNet-18 of torchvision: {missing[0]} is missing or of another shape")
        self.encoder.load_state_dict({name: weights[name] for name in names})


class SelfAttention(nn.Module):
    """Each place looks at all others: x + gain * attention(x), as in SAGAN (arXiv:1805.08318). The gain starts at 0, so
    the network starts as without. No matrix of all pairs of places is ever kept."""

    def __init__(self, features):
        super().__init__()
        inner = max(1, features // 2)
        self.qkv = nn.Conv2d(features, 3 * inner, 1)
        self.out = nn.Conv2d(inner, features, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        # (N, 1, H * W, inner) each; contiguous, as what keeps no matrix asks for it
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).contiguous()[:, None].chunk(3, dim=-1)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.gain * self.out(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


class AttentiveBlock(ResidualBlock):
    """A residual block with self-attention behind it."""

    def __init__(self, features):
        super().__init__(features)
        self.attention = SelfAttention(features)

    def forward(self, x):
        return self.attention(super().forward(x))


class DiscriminatorMultiscale(nn.Module):
    """`n_scales` discriminators of 70x70 patches, each on an image of half the size of the one before: the third sees
    280x280 pixels of the original (pix2pixHD, arXiv:1711.11585, section 3.2).

    Out: (N, n_scales, H // 8 - 2, W // 8 - 2); the coarser maps are enlarged, so that each scale has the same weight in
    a mean. Height and width at least 32 * 2 ** (n_scales - 1).
    """

    def __init__(self, channels=3, ndf=64, n_scales=3):
        super().__init__()
        self.scales = nn.ModuleList(Discriminator(channels, ndf) for _ in range(n_scales))

    def at_scales(self, x):
        """The image at full size, half the size …, as many as there are discriminators."""
        images = [x]
        for _ in self.scales[1:]:
            images.append(nn.functional.avg_pool2d(images[-1], 3, stride=2, padding=1, count_include_pad=False))
        return images

    def forward(self, x):
        scores = [scale(image) for scale, image in zip(self.scales, self.at_scales(x))]
        size = scores[0].shape[2:]
        return torch.cat([nn.functional.interpolate(score, size, mode="nearest-exact") for score in scores], 1)


class DiscriminatorPixel(nn.Module):
    """Scores each pixel by its colour alone (pix2pix, arXiv:1611.07004, section 3.4). Out: (N, 1, H, W)."""

    def __init__(self, channels=3, ndf=64):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(channels, ndf, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, ndf * 2, 1),
            nn.InstanceNorm2d(ndf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 2, 1, 1),
        )

    def forward(self, x):
        return self.model(x)
