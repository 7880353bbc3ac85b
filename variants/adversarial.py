"""
Adversarial losses for --gan_loss. The paper's, least squares, is in cyclegan.py.
"""

import torch
from torch import nn


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


GAN_LOSSES = {"vanilla": Vanilla, "hinge": Hinge}
