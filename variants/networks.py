"""
Networks other than the paper's, chosen by --generator, --discriminator and --attention.
"""

import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from models import Discriminator, GeneratorResNet, ResidualBlock, check_size, upsampling


class GeneratorResNetCheckpointed(GeneratorResNet):
    """GeneratorResNet that saves memory in training: the backward pass computes the activations inside each stage again
    instead of keeping them (Chen et al., 2016, arXiv:1604.06174)."""

    def forward(self, x):
        if not torch.is_grad_enabled():
            return super().forward(x)
        check_size(self, x)
        encoder, blocks, decoder = self.stages
        has_dropout = any(isinstance(layer, nn.Dropout) for layer in self.modules())  # the same elements again
        for stage in (nn.Sequential(*encoder), *blocks, nn.Sequential(*decoder)):
            x = checkpoint(stage, x, use_reentrant=False, preserve_rng_state=has_dropout)
        return x


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
