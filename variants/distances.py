"""
Distances of images and of their features, for variants/losses.py and others.

Images are (N, channels, H, W) in [-1, 1]. All distances are means and computed in float32.
"""

import functools

import torch
from torch import nn

from utils import InputError
from variants.parts import statistics_kept

##############################
#   Distances of two images
##############################


def ssim(x, y, window=11, sigma=1.5):
    """Mean structural similarity (Wang et al., 2004): 1 for equal images, about 0 for unrelated ones. Local means,
    variances and covariances are weighted by a Gaussian of `window` x `window` pixels, of volumes in all three dimensions."""
    x, y = ((z.float() + 1) / 2 for z in (x, y))  # it is defined for values that are not negative
    channels = x.shape[1]
    at = torch.arange(window, device=x.device) - window // 2
    gauss = torch.exp(-(at**2) / (2 * sigma**2))
    gauss = (gauss / gauss.sum()).to(x.dtype)

    convolve = nn.functional.conv3d if x.ndim == 5 else nn.functional.conv2d

    def blur(z):  # along rows, then along columns, then, of volumes, along depth
        for dim in reversed(range(2, z.ndim)):
            shape = [-1 if i == dim else 1 for i in range(z.ndim)]
            z = convolve(z, gauss.view(shape).expand(channels, *[-1] * (z.ndim - 1)), groups=channels)
        return z

    with torch.autocast(x.device.type, enabled=False):  # differences of squares need more digits than bfloat16 has
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2  # relative to the range of values, which is 1
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean()


def frequency_distance(x, y):
    """Mean difference of the Fourier amplitudes (orthonormal transform), after Jiang et al., 2021, arXiv:2012.12821. High
    frequencies of photos are weak, so L1 hardly notices if they are missing; here they count as much as low ones."""
    places = tuple(range(2, x.ndim))
    spectra = (torch.fft.fftn(z.float(), dim=places, norm="ortho").abs() for z in (x, y))
    return nn.functional.l1_loss(*spectra)


def paired_distance(fake, real, paired):
    """L1 to the counterparts, summed over the pairs and divided by the batch size, so that each pair counts the same."""
    return ((fake.float() - real).abs().mean(tuple(range(1, real.ndim))) * paired).mean()


DIVERSITY_BOUND = 0.5  # more is not rewarded: with noise that differs by 1, 64 of 255 gray levels


def diversity_loss(G, source):
    """How far two translations of one image are from being DIVERSITY_BOUND apart: relu(bound - |G(x, z1) - G(x, z2)| /
    |z1 - z2|), after DSGAN (Yang et al., 2019, arXiv:1901.09024), with mean absolute differences. A generator
    that ignores its noise has the loss DIVERSITY_BOUND. Mode seeking (arXiv:1903.05628) minimises |z1 - z2| / |G(x, z1) -
    G(x, z2)| instead, whose gradient is without bound where the translations are alike, as they are at first.

    G:      a generator in train mode with --noise_channels or with --dropout, whose two masks count as 1 apart
    source: (N, channels, H, W) in [-1, 1]
    """
    n, twice, apart, named = len(source), torch.cat((source, source)), 1.0, {}
    if getattr(G, "noise_channels", 0):
        z = torch.randn(2 * n, G.noise_channels, device=source.device)
        apart, named = (z[:n] - z[n:]).abs().mean(1).clamp(min=1e-3), {"noise": z}
    with statistics_kept(G):
        first, second = G(twice, **named).float().split(n)
    return (DIVERSITY_BOUND - (first - second).abs().mean(tuple(range(1, first.ndim))) / apart).relu().mean()


##############################
#   Distances of features
##############################


def feature_distance(see, x, y):
    """L1 between features of two images with the same content (Johnson et al., 2016, arXiv:1603.08155)."""
    return mean([nn.functional.l1_loss(a.float(), b.float()) for a, b in see_both(see, x, y)])


def style_distance(see, fake, real):
    """Mean squared difference of Gram matrices: which features occur together, wherever they are (Gatys et al., 2016,
    arXiv:1508.06576). The images may have different content."""
    return mean([(gram(a).mean(0) - gram(b).mean(0)).square().mean() for a, b in see_both(see, fake, real)])


def mean_feature_distance(see, fake, real):
    """Feature matching: L1 between the mean features of translations and of real images, over all images and positions
    (Salimans et al., 2016, arXiv:1606.03498, section 3.1)."""
    pairs = see_both(see, fake, real)
    means = [[z.float().mean((0, *range(2, z.ndim))) for z in pair] for pair in pairs]
    return mean([nn.functional.l1_loss(a, b) for a, b in means])


def scored_feature_distance(see, D, x, y):
    """feature_distance of reconstructions x and images y, for each image times D's score of y, from 0 to 1: what D finds
    real counts most (Wang and Lin, 2018, "CycleGAN with Better Cycles"). The scores do not become gradients."""
    with torch.no_grad():
        scores = D(y).float().flatten(1).mean(1).clamp(0, 1)
    distances = [(a.float() - b.float()).abs().flatten(1).mean(1) for a, b in see_both(see, x, y)]
    return (scores * torch.stack(distances).mean(0)).mean()


def patch_nce(generator, source, fake, n_patches=256, temperature=0.07):
    """PatchNCE, the contrastive loss of CUT (Park et al., 2020, arXiv:2007.15651): from the features of a translated
    patch, the input patch at the same position is to be told from the other patches of that image.

    The features are those of the generator's own encoder: its input, its layers up to the residual blocks, and two
    residual blocks. Each is mapped to vectors by a small network, see variants.parts.add_projections.

    source, fake: (N, channels, H, W) in [-1, 1]
    """
    with statistics_kept(generator):  # those of --norm batch: `fake` is not of the domain that the generator translates
        features = encoder_features(generator, fake), encoder_features(generator, source)
    values = []
    for of_fake, of_source, project in zip(*features, generator.projections):
        n_positions = of_fake.shape[2:].numel()
        at = torch.rand(n_positions, device=fake.device).argsort()[:n_patches]  # a sample of positions, for all images
        queries, keys = (unit_vectors(project(x.flatten(2)[:, :, at, None])) for x in (of_fake, of_source))
        with torch.autocast(fake.device.type, enabled=False):
            similar = queries @ keys.detach().transpose(1, 2) / temperature  # (N, patches, patches)
            values.append(-similar.log_softmax(2).diagonal(dim1=1, dim2=2).mean())
    return mean(values)


def encoder_features(generator, x):
    """-> [(N, C, H, W)]: x, and what each part of the encoder of a ResNet generator makes of it"""
    encoder, blocks, _ = generator.stages
    middle = max(1, len(blocks) // 2)
    features = [x]
    for layers in (encoder[:4], encoder[4:7], encoder[7:], blocks[:1], blocks[1 : 1 + middle]):
        for layer in layers:
            x = layer(x)
        features += [x] if layers else []
    return features


def unit_vectors(x):
    """(N, C, positions, 1) -> (N, positions, C), float32, each of length 1"""
    return nn.functional.normalize(x.float().flatten(2).transpose(1, 2), dim=2)


def see_both(see, x, y):
    """-> pairs of features of x and y; no gradient flows into those of y"""
    with torch.no_grad():
        of_y = see(y)
    return zip(see(x), of_y)


def mean(values):
    return torch.stack(values).mean()


def gram(features):
    """(N, C, H, W) -> (N, C, C), the mean products of any two features"""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]


def hidden_layers(D, augment=False):
    """-> function: images to the activations of each hidden layer of D, (N, C, h, w) each

    augment: apply --diffaugment first, as D sees images with it"""
    from variants.augment import diff_augment
    from variants.discriminators import DiscriminatorMultiscale

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


VGG_LAYERS = (3, 8, 15)  # relu1_2, relu2_2, relu3_3 of VGG-16


@functools.cache
def load_vgg(path, device):
    """VGG-16 up to relu3_3 -> function: images to the activations of VGG_LAYERS. Gray images become RGB.

    path: state dict of torchvision's vgg16; None downloads the ImageNet weights. Raises InputError."""
    import torchvision  # here, because it takes as long as importing torch

    from variants.networks import ForImageNet
    from variants.weights import vgg_weights

    layers = torchvision.models.vgg16().features[: VGG_LAYERS[-1] + 1]
    weights = vgg_weights(path)
    try:
        layers.load_state_dict({key: weights[f"features.{key}"] for key in layers.state_dict()})
    except (KeyError, TypeError, RuntimeError, AttributeError):
        raise InputError(f"--vgg_weights {path}: not a state dict of torchvision's vgg16")
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
