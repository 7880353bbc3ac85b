"""
The student of compress.py distill: how small it is, and what it learns. From its teacher, a trained generator, what
that makes of an image, and from its features how; from a discriminator what looks real. No pairs are needed, as the
teacher makes them (after GAN Compression, Li et al., 2020, arXiv:2003.08936).
"""

import argparse
import bisect
import functools

import torch
from torch import nn

import cyclegan
from measuring.timing import costs
from models import weights_init_normal
from utils import InputError
from variants.build import make_generator, residual_blocks
from variants.losses import feature_distance, load_vgg


def make_student(opt, options, teacher):
    """A narrow, shallow ResNet, whatever the teacher is -> the options that describe it, and itself.

    Of as many residual blocks as asked for (half of the teacher's) it is the widest that is small enough. If nearly as
    many parameters fit into a multiple of 8 filters, with some blocks less, it is that: processors multiply 8 or 16
    numbers at a time.

    opt:     options of `compress.py distill`
    options: of the teacher's training
    """
    size = options.img_height, options.img_width
    parameters_of_teacher, products_of_teacher = costs(teacher, size)

    def describe(n_blocks, ngf):
        return dict(generator="resnet", n_residual_blocks=n_blocks, ngf=ngf, upsample=options.upsample,
                    separable=opt.separable, attention=False, dropout=0.0, norm="instance")  # fmt: skip

    @functools.cache
    def costs_of(n_blocks, ngf):
        if not ngf:
            return 0, 0
        with torch.device("meta"):
            return costs(make_generator(describe(n_blocks, ngf), teacher.channels, teacher.out_channels), size)

    def too_large(n_blocks, ngf):
        parameters, products = costs_of(n_blocks, ngf)
        few = parameters_of_teacher >= opt.fewer_parameters * parameters
        return not (few and products_of_teacher >= opt.fewer_products * products)

    def widest(n_blocks, step=1):
        """-> n_blocks, and the largest multiple of `step` filters that is small enough; it may be 0"""
        widths = range(0, options.ngf + 1, step)
        return n_blocks, widths[bisect.bisect_left(widths, True, key=lambda ngf: too_large(n_blocks, ngf)) - 1]

    n_blocks = fewest = opt.n_residual_blocks
    if n_blocks is None:
        n_blocks = len(residual_blocks(teacher)) // 2
        fewest = (n_blocks + 1) // 2
    shape = n_blocks, opt.ngf
    if not opt.ngf:
        shape = widest(n_blocks)
        in_eights = max((widest(n, step=8) for n in range(fewest, n_blocks + 1)), key=lambda pair: costs_of(*pair))
        if costs_of(*in_eights)[0] > 0.75 * costs_of(*shape)[0]:
            shape = in_eights
    if not shape[1]:
        raise InputError(
            f"--fewer_products {opt.fewer_products} --fewer_parameters {opt.fewer_parameters}: no student of "
            f"{n_blocks} residual blocks is that small. Ask for less, or name an --ngf"
        )
    student = describe(*shape)
    G = make_generator(student, teacher.channels, teacher.out_channels).apply(weights_init_normal)
    return argparse.Namespace(**vars(options) | student), G


def translate_and_look(G, x):
    """-> G(x), and what a ResNet makes of x on the way: before the residual blocks, half way through, behind them"""
    encoder, blocks, decoder = G.stages
    seen = [nn.Sequential(*encoder)(x)]
    for block in blocks:
        seen.append(block(seen[-1]))
    return nn.Sequential(*decoder)(seen[-1]), [seen[i] for i in (0, len(blocks) // 2, len(blocks))]


def features_distance(adapters, of_student, of_teacher):
    """Mean squared difference after a 1x1 convolution that takes the student's channels to the teacher's, as a share of
    the teacher's variance (FitNets, Romero et al., 2015, arXiv:1412.6550)."""
    pairs = [(adapter(x).float(), y.float()) for adapter, x, y in zip(adapters, of_student, of_teacher)]
    return torch.stack([(x - y).square().mean() / y.var() for x, y in pairs]).mean()


def distill_step(parts, teacher, opt, options, amp, real, real_target, draws):
    """One update of the student and one of the discriminator -> losses: out, feat, gan, perceptual, D.

    real:        (N, channels, H, W) in [-1, 1], of the domain that is translated
    real_target: of the other one
    """
    student, adapters, D, optimizer_G, optimizer_D, buffer = parts.values()
    autocast = torch.autocast(real.device.type, torch.bfloat16, enabled=amp)
    loss_feat = loss_gan = loss_perceptual = loss_D = torch.zeros((), device=real.device)
    look = translate_and_look if len(adapters) else lambda G, x: (G(x), [])
    with autocast, torch.no_grad():
        wanted, seen_by_teacher = look(teacher, real)
        wanted = wanted.float()
    with autocast:
        fake, seen = look(student, real)
        # what comes out is what the teacher makes of it ...
        loss_out = nn.functional.l1_loss(fake.float(), wanted)
        # ... as is what happens on the way ...
        if len(adapters):
            loss_feat = features_distance(adapters, seen, seen_by_teacher)
        # ... and it looks real, where the teacher's details are beyond so small a network
        if opt.lambda_gan:
            loss_gan = cyclegan.criterion_GAN(D(fake), 1, options.gan_loss, of_generator=True)
        if opt.lambda_perceptual:
            loss_perceptual = feature_distance(load_vgg(opt.vgg_weights, real.device), fake, wanted)
    loss_G = opt.lambda_out * loss_out + opt.lambda_feat * loss_feat + opt.lambda_gan * loss_gan
    loss_G = loss_G + opt.lambda_perceptual * loss_perceptual
    optimizer_G.zero_grad()
    loss_G.backward(inputs=[*student.parameters(), *adapters.parameters()])
    optimizer_G.step()

    if opt.lambda_gan:
        with autocast:
            loss_D = cyclegan.discriminator_loss(D, options, real_target, buffer.push_and_pop(fake, draws))
        optimizer_D.zero_grad()
        loss_D.backward()
        optimizer_D.step()
    return torch.stack((loss_out, loss_feat, loss_gan, loss_perceptual, loss_D)).detach()
