"""
Alternatives to the paper's generator, for --generator, --attention and --checkpoint_activations.

All of them map images (N, channels, H, W) in [-1, 1] to images (N, out_channels, H, W) in [-1, 1], as
models.GeneratorResNet does. They raise ValueError unless H and W are divisible by `multiple` and at least `smallest`.
Shapes in comments are for 3 x 256 x 256 images and the default widths.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from models import GeneratorResNet, ResidualBlock, check_size, upsampling
from variants.noise import remembering_noise


class GeneratorResNetCheckpointed(GeneratorResNet):
    """A GeneratorResNet that needs less memory for training. It keeps only the inputs of the encoder, of each
    residual block and of the decoder, and recomputes all other activations in the backward pass (Chen et al., 2016,
    arXiv:1604.06174). Parameters, shapes and results are those of GeneratorResNet.
    """

    def forward(self, x):
        if not torch.is_grad_enabled():
            return super().forward(x)
        check_size(self, x)
        encoder, blocks, decoder = self.stages
        # with dropout, the second forward pass must drop the same elements
        has_dropout = any(isinstance(layer, nn.Dropout) for layer in self.modules())
        for stage in (nn.Sequential(*encoder), *blocks, nn.Sequential(*decoder)):
            stage = remembering_noise(stage) if getattr(self, "noise_channels", 0) else stage
            x = checkpoint(stage, x, use_reentrant=False, preserve_rng_state=has_dropout)
        return x


class GeneratorUNet(nn.Module):
    """U-Net: an encoder and a decoder with skip connections between layers of the same resolution. The skip connections
    preserve details, and the bottleneck sees the whole image (Isola et al., 2017, pix2pix, arXiv:1611.07004,
    section 3.2.1).

    H and W must be divisible by 2 ** num_downs: by 256 for the default of 8, by 64 for 6.

    channels:     of the input
    num_downs:    number of convolutions with stride 2, and of upsampling layers
    ngf:          filters of the first convolution; the number doubles with each layer, up to 8 * ngf
    upsample:     'transpose' or 'nearest', see models.GeneratorResNet
    out_channels: of the output, if different from the input
    dropout:      probability, in the num_downs - 5 upsampling layers after the innermost one, as in the authors' code,
                  or one
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
            if 0 < i < num_downs - 1:  # not the first, as in the paper; not the last, which may be 1 x 1
                down.append(nn.InstanceNorm2d(width))
            self.down.append(nn.Sequential(*down))
        for i in reversed(range(num_downs)):
            n_in = widths[i] * (1 if i == num_downs - 1 else 2)  # the previous layer and the skip connection
            up = [nn.ReLU(), *upsampling(upsample, n_in, widths[i - 1] if i else self.out_channels, kernel=4)]
            up += [nn.InstanceNorm2d(widths[i - 1])] if i else [nn.Tanh()]
            if dropout and min(4, num_downs - 2) <= i < num_downs - 1:
                up.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*up))

    def forward(self, x):
        check_size(self, x)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()  # the innermost features are x itself
        for up in self.up:
            x = up(x)
            if skips:
                x = torch.cat((skips.pop(), x), 1)
        return x


def average_pool(x, size, **options):
    """Average pooling of images (N, C, H, W), or of volumes (N, C, D, H, W)"""
    pool = nn.functional.avg_pool3d if x.ndim == 5 else nn.functional.avg_pool2d
    return pool(x, size, **options)


class GeneratorMultiscale(nn.Module):
    """A coarse and a fine generator, as in pix2pixHD (Wang et al., 2018, arXiv:1711.11585, section 3.2).

    The coarse branch is a ResNet generator at half the resolution. Its filters cover a larger area of the image, so it
    determines the style. The fine branch is shallow and adds detail at full resolution. The last features of the coarse
    branch are added to those of the fine encoder. Unlike in pix2pixHD, both branches are trained together.

    H and W must be divisible by 8 and at least 64.

    channels:          of the input
    n_residual_blocks: of the coarse branch; the fine branch always has 3
    ngf:               filters of the first convolution of the coarse branch; the fine branch has half as many
    upsample:          'transpose' or 'nearest', see models.GeneratorResNet
    out_channels:      of the output, if different from the input
    """

    multiple, smallest = 8, 64

    def __init__(self, channels=3, n_residual_blocks=9, ngf=64, upsample="transpose", out_channels=None):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        half = max(1, ngf // 2)
        resnet = GeneratorResNet(channels, n_residual_blocks, ngf, upsample)
        self.coarse = nn.Sequential(*list(resnet.model)[:-3])  # without the output layer: 64 x 128 x 128
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
        return self.decoder(self.encoder(x) + self.coarse(average_pool(x, 2)))


class ForImageNet(nn.Module):
    """Normalises images in [-1, 1] with the mean and standard deviation of ImageNet, as torchvision's pretrained
    networks expect. Input: (N, 1 or 3, H, W). Output: (N, 3, H, W).
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        return ((x + 1) / 2 - self.mean) / self.std


class GeneratorPretrained(nn.Module):
    """A U-Net whose encoder is torchvision's ResNet-18 (He et al., 2016, arXiv:1512.03385), up to its third stage.

    With weights pretrained on ImageNet, the features are useful from the first step. Call `load_encoder` to load them.
    The encoder is trained further, except for its batch norms: their weights and statistics stay those of ImageNet,
    because the batches are too small to estimate new statistics.

    H and W must be divisible by 16 and at least 64.

    channels:     of the input, 1 or 3, else ValueError
    ngf:          filters of the last upsampling layer
    upsample:     'transpose' or 'nearest', see models.GeneratorResNet
    out_channels: of the output, if different from the input
    """

    multiple, smallest = 16, 64

    def __init__(self, channels=3, ngf=64, upsample="transpose", out_channels=None):
        import torchvision  # here, because it takes as long as importing torch

        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"the pretrained encoder requires 1 or 3 channels, not {channels}")
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
        for up, skip in zip(self.up, (eighth, quarter, half, None)):
            x = up(x)
            if skip is not None:
                x = torch.cat((skip, x), 1)
        return self.output(x)

    def load_encoder(self, weights):
        """Loads pretrained weights into the encoder.

        weights: state dict of torchvision's resnet18. Raises ValueError if it belongs to another network.
        """
        names = self.encoder.state_dict()
        missing = [name for name in names if name not in weights or weights[name].shape != names[name].shape]
        if missing:
            raise ValueError(f"not torchvision's ResNet-18: {missing[0]} is missing or has another shape")
        self.encoder.load_state_dict({name: weights[name] for name in names})


class SelfAttention(nn.Module):
    """Self-attention over all positions of an image: x + gain * attention(x) (Zhang et al., 2019, SAGAN,
    arXiv:1805.08318).

    The gain is learned and starts at 0, so that the layer is the identity at first. Fused attention kernels never store
    the (H * W, H * W) matrix of weights.

    Input and output: (N, features, H, W)
    """

    def __init__(self, features):
        super().__init__()
        inner = max(1, features // 2)
        self.qkv = nn.Conv2d(features, 3 * inner, 1)
        self.out = nn.Conv2d(inner, features, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        # each (N, 1, H * W, inner): one head; the fused kernels need contiguous memory
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).contiguous()[:, None].chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.gain * self.out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


class AttentiveBlock(ResidualBlock):
    """A residual block followed by self-attention. Input and output: (N, features, H, W)."""

    def __init__(self, features):
        super().__init__(features)
        self.attention = SelfAttention(features)

    def forward(self, x):
        return self.attention(super().forward(x))
