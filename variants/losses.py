"""
Losses beyond the paper's. EXTRA_LOSSES lists those that can be added to the generators' loss: to add one, write a
function in variants/distances.py and an entry here. Its option, its log entry and its curve follow.
"""

import dataclasses
from collections.abc import Callable

import torch

##############################
#   Adversarial
##############################


def make_criterion(opt, MSE, discriminators):
    """The adversarial loss that --gan_loss names. MSE: the paper's"""
    kind = MSE
    if opt.gan_loss != "lsgan":
        from variants.adversarial import GAN_LOSSES

        kind = GAN_LOSSES[opt.gan_loss]
    criterion = kind(real=1 - opt.label_smoothing)
    if opt.discriminator != "multiscale":
        return criterion
    from variants.discriminators import PerScale

    return PerScale(criterion, discriminators)


##############################
#   Added to the generators' loss
##############################


@dataclasses.dataclass
class ExtraLoss:
    """function: (variants.extra.Seen of one domain, variants.distances) -> loss; help: of its option; of_cycle: whether it
    needs reconstructions"""

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
        lambda x, d: d.style_distance(x.vgg or x.layers, x.fake, x.real),
        "weight of the distance of Gram matrices of D's features: target textures",
    ),
    "feat": ExtraLoss(
        lambda x, d: d.mean_feature_distance(x.layers, x.fake, x.real),
        "weight of feature matching in D: a steadier target than its scores",
    ),
    "cycfeat": ExtraLoss(
        lambda x, d: d.scored_feature_distance(x.layers, x.D, x.recov, x.real),
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
    "diversity": ExtraLoss(
        lambda x, d: d.diversity_loss(x.generator, x.source),
        "weight of a reward for variety: how much two translations of an image differ",
    ),
}


def names_in_use(opt):
    return [name for name in EXTRA_LOSSES if getattr(opt, f"lambda_{name}") > 0]


def mean_loss(opt, of_A, of_B):
    """The mean of a loss of images of A and one of images of B; with --lambda_A or --lambda_B a weighted one, in which
    --lambda_cyc has the weight 1/2, so that a term of the cycle loss has the weight of the authors' lambda_A or lambda_B,
    up to the factor 1/2 of all losses of the generators here."""
    if (opt.lambda_A is None and opt.lambda_B is None) or not opt.lambda_cyc:  # without a cycle, both are 0 if given
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


def extra_losses(opt, *arguments):
    """-> {name: loss} of the losses in EXTRA_LOSSES that have a weight, each the mean of both domains. arguments: of
    variants.extra.compute"""
    if not names_in_use(opt):
        return {}
    from variants.extra import compute

    return compute(opt, *arguments)


##############################
#   Regularisation
##############################


def penalty(opt, D, real, fake):
    """What --lambda_gp adds to the loss of a discriminator; 0 without it. real, fake: the images that D scores"""
    if not opt.lambda_gp:
        return 0
    from variants.regularisation import gradient_penalty

    return opt.lambda_gp * gradient_penalty(D, real, fake, opt.gp_at)


def noisy(opt, fake):
    """The translations that are translated back: with Gaussian noise added if --cycle_noise is set."""
    return fake + opt.cycle_noise * torch.randn_like(fake) if opt.cycle_noise else fake
