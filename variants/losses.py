"""
Losses beyond the paper's. EXTRA_LOSSES lists those that can be added to the generators' loss: to add one, write a
function in variants/distances.py and an entry here. Its option, its log entry and its curve follow.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

##############################
#   Adversarial
##############################


class Vanilla:
    """The loss of the first GAN (arXiv:1406.2661), in the non-saturating form: cross entropy of sigmoid(scores)."""

    def __init__(self, real=1.0):
        self.real = real  # the label of real images

    def generator_loss(self, fake):
        return cross_entropy(fake, 1)

    def discriminator_loss(self, real, fake):
        return (cross_entropy(real, self.real) + cross_entropy(fake, 0)) / 2


class Hinge:
    """The discriminator wants scores above 1 for real images and below -1 for translations, no matter how far; the
    generator wants high scores (arXiv:1705.02894)."""

    def __init__(self, real=1.0):
        pass  # the hinge loss has no labels

    def generator_loss(self, fake):
        return -fake.float().mean()

    def discriminator_loss(self, real, fake):
        return ((1 - real.float()).relu().mean() + (1 + fake.float()).relu().mean()) / 2


def cross_entropy(scores, label):
    scores = scores.float()
    return nn.functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))


GAN_LOSSES = {"vanilla": Vanilla, "hinge": Hinge}  # and the paper's, which is in cyclegan.py


def make_criterion(opt, MSE, discriminators):
    """The adversarial loss that --gan_loss names. MSE: the paper's"""
    criterion = ({"lsgan": MSE} | GAN_LOSSES)[opt.gan_loss](real=1 - opt.label_smoothing)
    if opt.discriminator != "multiscale":
        return criterion
    from variants.networks import PerScale

    return PerScale(criterion, discriminators)


##############################
#   Added to the generators' loss
##############################


@dataclasses.dataclass
class Seen:
    """The inputs of an extra loss, for one domain: real images, translations into the domain and what they were made
    from, reconstructions of the real images, `paired` (N,), 1 where the real image is the translation's true
    counterpart, networks and feature extractors."""

    real: torch.Tensor
    fake: torch.Tensor
    source: torch.Tensor  # images of the other domain; fake = generator(source)
    recov: torch.Tensor | None  # None unless a loss of the cycle has a weight
    paired: torch.Tensor | None
    generator: nn.Module
    score: nn.Module  # the discriminator of the domain
    D: Callable  # maps images to the activations of each hidden layer of the discriminator
    vgg: Callable | None


@dataclasses.dataclass
class ExtraLoss:
    """function: (Seen of one domain, variants.distances) -> loss; help: of its option; of_cycle: whether it needs
    reconstructions"""

    function: Callable
    help: str
    of_cycle: bool = False


EXTRA_LOSSES = {  # name -> loss; its weight is --lambda_NAME
    "ssim": ExtraLoss(
        lambda x, d: 1 - d.ssim(x.recov, x.real),
        "weight of 1 - SSIM of images and reconstructions: preserves structure",
        of_cycle=True,
    ),
    "freq": ExtraLoss(
        lambda x, d: d.frequency_distance(x.recov, x.real),
        "weight of the distance of Fourier amplitudes of images and reconstructions: preserves sharpness",
        of_cycle=True,
    ),
    "perceptual": ExtraLoss(
        lambda x, d: d.feature_distance(x.vgg, x.recov, x.real),
        "weight of the distance of VGG features of images and reconstructions: preserves objects",
        of_cycle=True,
    ),
    "style": ExtraLoss(
        lambda x, d: d.style_distance(x.vgg or x.D, x.fake, x.real),
        "weight of the distance of Gram matrices of D's features: target textures",
    ),
    "feat": ExtraLoss(
        lambda x, d: d.mean_feature_distance(x.D, x.fake, x.real),
        "weight of feature matching in D: a steadier target than its scores",
    ),
    "cycfeat": ExtraLoss(
        lambda x, d: d.scored_feature_distance(x.D, x.score, x.recov, x.real),
        "weight of the distance of D's features of images and reconstructions, times D's score of the image",
        of_cycle=True,
    ),
    "nce": ExtraLoss(
        lambda x, d: d.patch_nce(x.generator, x.source, x.fake),
        "weight of PatchNCE (CUT): each patch of a translation resembles its input more than other patches do",
    ),
    "paired": ExtraLoss(
        lambda x, d: d.paired_distance(x.fake, x.real, x.paired),
        "weight of L1 to the true counterpart, for images that have one",
    ),
    "diversity": ExtraLoss(lambda x, d: d.diversity_loss(x.generator, x.source), "weight of a reward for variety"),
}


def names_in_use(opt):
    return [name for name in EXTRA_LOSSES if getattr(opt, f"lambda_{name}") > 0]


def mean_loss(opt, of_A, of_B):
    """The mean of a loss of images of A and one of images of B; with --lambda_A or --lambda_B a weighted one, in which
    --lambda_cyc has the weight 1/2, so that a term of the cycle loss has the weight of the authors' lambda_A or lambda_B,
    up to the factor 1/2 of all losses of the generators here."""
    if opt.lambda_A is None and opt.lambda_B is None:
        return (of_A + of_B) / 2
    weight_A, weight_B = (opt.lambda_cyc if weight is None else weight for weight in (opt.lambda_A, opt.lambda_B))
    return (weight_A * of_A + weight_B * of_B) / (2 * opt.lambda_cyc)


def needs_cycle(opt):
    """Whether any loss uses the reconstructions."""
    return (
        opt.lambda_cyc_end is not None
        or opt.lambda_cyc > 0
        or any(EXTRA_LOSSES[name].of_cycle for name in names_in_use(opt))
    )


def needs_vgg(opt):
    return opt.lambda_perceptual > 0 or (opt.lambda_style > 0 and opt.vgg_weights is not None)


def extra_losses(opt, gan, real_A, real_B, fake_A, fake_B, recov_A, recov_B, paired=None):
    """-> {name: loss} of the losses in EXTRA_LOSSES that have a weight, each the mean of both domains"""
    names = names_in_use(opt)
    if not names:
        return {}
    from variants import distances

    vgg = distances.load_vgg(opt.vgg_weights, real_A.device) if needs_vgg(opt) else None
    look_A, look_B = (distances.hidden_layers(D, opt.diffaugment) for D in (gan.D_A, gan.D_B))
    A = Seen(real_A, fake_A, real_B, recov_A, paired, gan.G_BA, gan.D_A, look_A, vgg)
    B = Seen(real_B, fake_B, real_A, recov_B, paired, gan.G_AB, gan.D_B, look_B, vgg)
    values = {name: [EXTRA_LOSSES[name].function(seen, distances) for seen in (A, B)] for name in names}
    return {name: (of_A + of_B) / 2 for name, (of_A, of_B) in values.items()}


##############################
#   Regularisation
##############################


def penalty(opt, D, real, fake):
    """What --lambda_gp adds to the loss of a discriminator; 0 without it. real, fake: the images that D scores"""
    if not opt.lambda_gp:
        return 0
    from variants.regularisation import gradient_penalty

    return opt.lambda_gp * gradient_penalty(D, real, fake, opt.gp_at)


def with_noise(opt, fake):
    """Translations as the generators get them for the way back: with noise, if --cycle_noise says so."""
    return fake + opt.cycle_noise * torch.randn_like(fake) if opt.cycle_noise else fake
