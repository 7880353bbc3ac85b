"""
Regularisation of the discriminators and of the cycle: gradient penalties, and a weight that falls during the training.
"""

import argparse

import torch


def gradient_penalty(D, real, fake, at="real"):
    """The squared norm of the gradient of a discriminator's mean score with respect to its input, mean over the batch ->
    scalar. It keeps the scores from changing abruptly, so that the generators' gradients stay useful.

    at: 'real' takes the gradient at real images (R1, Mescheder et al., 2018, arXiv:1801.04406). 'mix' takes it at random
        mixes of a real image and a translation, as UVCGAN v2 does (Torbunov et al., 2023, arXiv:2303.16280). Images are
        in [0, 1] there and the weight is 1; in [-1, 1], the same penalty has the weight 4

    real, fake: (N, channels, H, W) in [-1, 1]. A mix takes as many of each as there are of both
    """
    x = real
    if at == "mix":
        n = min(len(real), len(fake))  # they differ with --ratio_A
        share = torch.rand(n, *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
        x = torch.lerp(fake[:n].to(real.dtype), real[:n], share)  # with --amp, translations are bfloat16
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False):  # squares of small numbers, differentiated twice
        score = D(x).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    return gradient.square().sum(tuple(range(1, x.ndim))).mean()


class FallingWeight:
    """For --lambda_cyc_end: a copy of the options in which lambda_cyc is a tensor that changes from step to step, along a
    straight line from --lambda_cyc to --lambda_cyc_end ("CycleGAN with Better Cycles", Wang and Lin, 2018). Early on, the
    cycle keeps shapes and positions; later, a large weight would keep the generators from adding what the source lacks.

    A tensor, because a recorded CUDA graph reads its value again in each step. `opt` is for the training step, and
    `update()` is called before it.
    """

    def __init__(self, opt, run):
        self.run, self.first, self.last = run, opt.lambda_cyc, opt.lambda_cyc_end
        self.n_steps = opt.n_iters or opt.n_epochs * run.steps_per_epoch
        self.weight = torch.tensor(float(self.first), device=run.device)
        self.opt = argparse.Namespace(**vars(opt) | {"lambda_cyc": self.weight})

    def update(self):
        done = min(1.0, self.run.step / max(1, self.n_steps - 1))
        self.weight.fill_(self.first + done * (self.last - self.first))
