"""
Losses beyond the paper's, each with a weight of its own that is 0 unless you say otherwise (--lambda_ssim 1). Those of
cyclegan.py come first, and suffice for most.

Images are (N, channels, H, W) in [-1, 1]. All losses are means, taken in float32.
"""

import functools

import torch
import torchvision
from torch import nn

from utils import InputError
from variants.augment import diff_augment
from variants.networks import DiscriminatorMultiscale, ForImageNet
from variants.weights import published_weights

EXTRA_LOSSES = ("ssim", "freq", "perceptual", "style", "feat", "paired")


def needs_cycle(opt):
    """Whether any loss looks at the way there and back."""
    return opt.lambda_cyc + opt.lambda_ssim + opt.lambda_freq + opt.lambda_perceptual > 0


def extra_losses(opt, networks, real_A, real_B, fake_A, fake_B, recov_A, recov_B, paired=None):
    """-> {name in EXTRA_LOSSES: loss}, of those that have a weight; each the mean of both directions.

    recov_A, recov_B: None unless needs_cycle(opt)
    paired:           (N,), 1 where the images of A and B are counterparts, 0 elsewhere
    """
    names = [name for name in EXTRA_LOSSES if getattr(opt, "lambda_" + name) > 0]
    if not names:
        return {}
    vgg = load_vgg(opt.vgg_weights, real_A.device) if needs_vgg(opt) else None
    see_A, see_B = (of_discriminator(networks[name], opt.diffaugment) for name in ("D_A", "D_B"))
    losses = {}
    for name in names:
        if name == "ssim":  # there and back again leads to the same structures ...
            values = 1 - ssim(recov_A, real_A), 1 - ssim(recov_B, real_B)
        elif name == "freq":  # ... as sharp as before ...
            values = frequency_distance(recov_A, real_A), frequency_distance(recov_B, real_B)
        elif name == "perceptual":  # ... and to the same things
            values = feature_distance(vgg, recov_A, real_A), feature_distance(vgg, recov_B, real_B)
        elif name == "style":  # a translation has the textures of the other domain ...
            values = style_distance(vgg or see_A, fake_A, real_A), style_distance(vgg or see_B, fake_B, real_B)
        elif name == "feat":  # ... and what its discriminator looks for
            values = mean_feature_distance(see_A, fake_A, real_A), mean_feature_distance(see_B, fake_B, real_B)
        elif name == "paired":  # where the true counterpart is known, it is that
            values = paired_distance(fake_A, real_A, paired), paired_distance(fake_B, real_B, paired)
        losses[name] = sum(values) / 2
    return losses


##############################
#   Adversarial
##############################


def vanilla(scores, label):
    """The first GAN's loss (arXiv:1406.2661), in the generator's non-saturating form: cross entropy of
    sigmoid(scores) with the label."""
    scores = scores.float()
    return nn.functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


def hinge(scores, label, of_generator):
    """The discriminator wants real images above 1 and translations below -1, and does not care how far; the generator
    wants its translations as high as can be (arXiv:1705.02894)."""
    scores = scores.float()
    if of_generator:
        return -scores.mean()
    return (1 - scores if label else 1 + scores).relu().mean()


##############################
#   Of one image to another
##############################


def ssim(x, y, window=11, sigma=1.5):
    """Structural similarity, the mean over all places (Wang et al., 2004): 1 for equal images, about 0 for unrelated.
    Local means, variances and the covariance are weighted by a Gaussian of `window` x `window` pixels."""
    x, y = ((z.float() + 1) / 2 for z in (x, y))  # defined for values that are not negative
    channels = x.shape[1]
    at = torch.arange(window, device=x.device) - window // 2
    gauss = torch.exp(-(at**2) / (2 * sigma**2))
    gauss = (gauss / gauss.sum()).to(x.dtype)

    def blur(z):  # of rows, then of columns
        z = nn.functional.conv2d(z, gauss.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
        return nn.functional.conv2d(z, gauss.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)

    with torch.autocast(x.device.type, enabled=False):  # differences of squares: bfloat16 has too few digits
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2  # shares of the range of values
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean()


def frequency_distance(x, y):
    """Mean difference of the amplitudes of all frequencies, in the Fourier transform that keeps the sum of squares. A
    photo has little in the high ones, and L1 hardly sees them missing; each counts as much as a low one here (after
    Jiang et al., 2021, arXiv:2012.12821)."""
    spectra = (torch.fft.fft2(z.float(), norm="ortho").abs() for z in (x, y))
    return nn.functional.l1_loss(*spectra)


def paired_distance(fake, real, paired):
    """L1 to the counterpart, where there is one; the mean over the whole batch, so that each pair counts the same."""
    return ((fake.float() - real).abs().mean((1, 2, 3)) * paired).mean()


##############################
#   By what a network sees
##############################


def feature_distance(see, x, y):
    """L1 between features of an image and of one that should show the same (Johnson et al., 2016, arXiv:1603.08155)."""
    return mean([nn.functional.l1_loss(a.float(), b.float()) for a, b in see_both(see, x, y)])


def style_distance(see, fake, real):
    """Squared difference of Gram matrices: which features occur together, wherever they are (Gatys et al., 2016,
    arXiv:1508.06576). The images need not show the same."""
    return mean([(gram(a).mean(0) - gram(b).mean(0)).square().mean() for a, b in see_both(see, fake, real)])


def mean_feature_distance(see, fake, real):
    """Feature matching: L1 between the means, over images and places, of what translations and real images look like to
    a network (Salimans et al., 2016, arXiv:1606.03498, section 3.1). A steadier aim than to fool it."""
    pairs = see_both(see, fake, real)
    return mean([nn.functional.l1_loss(a.float().mean((0, 2, 3)), b.float().mean((0, 2, 3))) for a, b in pairs])


def see_both(see, x, y):
    """Features of both; no gradient flows into y's."""
    with torch.no_grad():
        of_y = see(y)
    return zip(see(x), of_y)


def mean(values):
    return torch.stack(values).mean()


def gram(features):
    """(N, C, H, W) -> (N, C, C), mean products of any two features."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]


def of_discriminator(D, augment=False):
    """-> a function: images to the activations of each hidden layer of D, (N, C, h, w) each.

    augment: change the images at random before, as D knows them from --diffaugment"""

    def see(x):
        x = diff_augment(x) if augment else x
        several = isinstance(D, DiscriminatorMultiscale)
        seen = []
        for network, image in zip(D.scales, D.at_scales(x)) if several else [(D, x)]:
            for layer in network.model:
                image = layer(image)
                if isinstance(layer, nn.LeakyReLU):
                    seen.append(image)
        return seen

    return see


def needs_vgg(opt):
    return opt.lambda_perceptual > 0 or (opt.lambda_style > 0 and opt.vgg_weights is not None)


VGG_LAYERS = (3, 8, 15)  # relu1_2, relu2_2, relu3_3 of VGG-16


@functools.cache
def load_vgg(path, device):
    """VGG-16 up to relu3_3 -> a function: images to the activations of VGG_LAYERS. Gray images are taken as RGB.

    path: state dict of torchvision's vgg16; None downloads that of ImageNet. Raises InputError."""
    layers = torchvision.models.vgg16().features[: VGG_LAYERS[-1] + 1]
    weights = published_weights(torchvision.models.VGG16_Weights.IMAGENET1K_V1, path, "--vgg_weights")
    try:
        layers.load_state_dict({key: weights[f"features.{key}"] for key in layers.state_dict()})
    except (KeyError, TypeError, RuntimeError, AttributeError):
        raise InputError(f"--vgg_weights {path}: no state dict of torchvision's vgg16")
    layers = layers.to(device).requires_grad_(False)
    normalise = ForImageNet().to(device)

    def see(x):
        seen, x = [], normalise(x)
        for i, layer in enumerate(layers):
            x = layer(x)
            if i in VGG_LAYERS:
                seen.append(x)
        return seen

    return see
