"""
Distillation: trains a small generator, the student, to imitate a trained one, the teacher, in one direction. The student
learns from the teacher's translations and features, and from a discriminator. No pairs are needed, as the teacher makes
them (after GAN Compression, Li et al., 2020, arXiv:2003.08936).
"""

import argparse
import bisect
import dataclasses
import functools
import os

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import cyclegan
from deploy.compression import print_comparison, quality, read_begun, read_training, training_options
from inference.load import generator_in
from measuring.timing import costs
from media.files import load_file
from models import GeneratorResNet, in_one_pass, weights_init_normal
from training.data import TrainingData
from training.monitor import Monitor, save_png
from training.optimizer import Adam
from training.run import Run
from training.update import Update
from utils import InputError, ReplayBuffer, draw_grid
from variants.build import generator_file, make_generator
from variants.distances import feature_distance, load_vgg
from variants.parts import residual_blocks
from variants.schedules import lr_factor

# --resume takes these options from the distillation that was begun
KEPT_OPTIONS = ("direction", "n_residual_blocks", "separable", "ngf", "fewer_products", "fewer_parameters", "lr",
                "lambda_out", "lambda_feat", "lambda_gan", "lambda_perceptual", "batch_size")  # fmt: skip


##############################
#   The student
##############################


def make_student(opt, options, teacher):
    """A narrow, shallow ResNet, whatever the teacher is -> (the options that describe it, the network)

    With the number of residual blocks asked for (half of the teacher's) it is as wide as the limits allow. If a width
    that is a multiple of 8, perhaps with fewer blocks, has nearly as many parameters, that is preferred: processors
    compute 8 or 16 channels at a time.

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
        """-> n_blocks, and the largest multiple of `step` filters within the limits, perhaps 0"""
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
            f"{n_blocks} residual blocks is that small. Lower the limits, or give --ngf"
        )
    student = describe(*shape)
    G = make_generator(student, teacher.channels, teacher.out_channels).apply(weights_init_normal)
    return argparse.Namespace(**vars(options) | student), G


def translate_and_look(G, x):
    """-> G(x), and the features of a ResNet before, half way through, and after its residual blocks"""
    encoder, blocks, decoder = G.stages
    seen = [nn.Sequential(*encoder)(x)]
    for block in blocks:
        seen.append(block(seen[-1]))
    return nn.Sequential(*decoder)(seen[-1]), [seen[i] for i in (0, len(blocks) // 2, len(blocks))]


def features_distance(adapters, of_student, of_teacher):
    """Mean squared difference, relative to the variance of the teacher's features, after a 1x1 convolution that maps the
    student's channels to the teacher's (FitNets, Romero et al., 2015, arXiv:1412.6550)."""
    pairs = [(adapter(x).float(), y.float()) for adapter, x, y in zip(adapters, of_student, of_teacher)]
    return torch.stack([(x - y).square().mean() / y.var() for x, y in pairs]).mean()


##############################
#   One step
##############################


@dataclasses.dataclass
class Distillation:
    """What is trained, and what trains it; the counterpart of cyclegan.CycleGAN."""

    direction: str
    teacher: nn.Module
    student: nn.Module
    adapters: nn.ModuleList
    D: nn.Module
    optimizer_G: torch.optim.Optimizer
    optimizer_D: torch.optim.Optimizer
    lr_schedulers: list
    buffer: ReplayBuffer
    criterion_GAN: object
    amp: bool

    def networks(self):
        return {f"G_{self.direction}": self.student, "adapters": self.adapters, "D": self.D}

    def optimizers(self):
        return {"optimizer_G": self.optimizer_G, "optimizer_D": self.optimizer_D}

    def buffers(self):
        return {"buffer": self.buffer}


def distill_step(gan, opt, real_A, real_B):
    """Updates the student, then the discriminator -> {name: loss}

    opt: options of `compress.py distill`; real_A, real_B: (N, channels, H, W) in [-1, 1]"""
    real, real_target = (real_A, real_B) if gan.direction == "AB" else (real_B, real_A)
    loss_feat = loss_GAN = loss_perceptual = loss_D = real.new_zeros(())
    look = translate_and_look if len(gan.adapters) else lambda G, x: (G(x), [])
    autocast = torch.autocast(real.device.type, torch.bfloat16, enabled=gan.amp)

    # ---------------
    #  Train Student
    # ---------------

    with autocast, torch.no_grad():
        wanted, features_of_teacher = look(gan.teacher, real)
        wanted = wanted.float()
    with autocast:
        fake, features = look(gan.student, real)
        # The translation should be that of the teacher, and so should the features on the way
        loss_out = nn.functional.l1_loss(fake.float(), wanted)
        if len(gan.adapters):
            loss_feat = features_distance(gan.adapters, features, features_of_teacher)
        # Where the student is too small for the teacher's details, its translation should still look real
        if opt.lambda_gan:
            loss_GAN = gan.criterion_GAN.generator(gan.D(fake))
        if opt.lambda_perceptual:
            loss_perceptual = feature_distance(load_vgg(opt.vgg_weights, real.device), fake, wanted)
    loss_G = opt.lambda_out * loss_out + opt.lambda_feat * loss_feat + opt.lambda_gan * loss_GAN
    loss_G = loss_G + opt.lambda_perceptual * loss_perceptual

    gan.optimizer_G.zero_grad()
    gan.optimizer_G.backward(loss_G)
    gan.optimizer_G.step()

    # ---------------------
    #  Train Discriminator
    # ---------------------

    if opt.lambda_gan:
        with autocast:
            loss_D = gan.criterion_GAN.discriminator(*in_one_pass(gan.D, real_target, gan.buffer.push_and_pop(fake)))
        gan.optimizer_D.zero_grad()
        gan.optimizer_D.backward(loss_D)
        gan.optimizer_D.step()
    return dict(
        loss_out=loss_out, loss_feat=loss_feat, loss_gan=loss_GAN, loss_perceptual=loss_perceptual, loss_D=loss_D
    )


##############################
#   The training
##############################


class DistillationRun(Run):
    """A training run whose checkpoints also hold the options of the distillation."""

    def __init__(self, opt, options, checkpoint):
        if checkpoint and "ranks" not in checkpoint:  # written before distillation shared the machinery of training
            rank = {name: checkpoint[name] for name in ("rng", "cuda_rng", "buffer") if name in checkpoint}
            checkpoint |= {"ranks": [rank], "data": None}
        super().__init__(options, checkpoint)
        self.more_state = {"distill": vars(opt)}

    def description(self, defaults):
        opt = self.opt
        return [f"a student with {opt.n_residual_blocks} residual blocks and {opt.ngf} filters in the first layer"]

    def what_was_written(self):
        G = f"{self.checkpoint_dir}/G_{self.gan.direction}_{self.opt.n_epochs}.pth"
        return f"written: {G}, the student\n{self.sample_dir}/: real | translated by the teacher | by the student"

    def score_demo(self):
        pass


class DistillationMonitor(Monitor):
    """Sample grids show real images and the translations of the teacher and of the student."""

    def __init__(self, opt, run, gan, data):
        super().__init__(run.opt, run, gan, data)
        self.hidden = {"loss_out": not opt.lambda_out, "loss_feat": not (opt.lambda_feat and len(gan.adapters)),
                       "loss_gan": not opt.lambda_gan, "loss_D": not opt.lambda_gan,
                       "loss_perceptual": not opt.lambda_perceptual}  # fmt: skip

    def sample_images(self, first=False, last=False):
        step, interval = self.run.step, self.opt.sample_interval
        if first or interval <= 0 or not (last or step % interval == 0) or step == self.sampled_at:
            return
        self.sampled_at = step
        images = self.data.samples["AB".index(self.gan.direction[0])]
        with torch.no_grad():
            columns = [images, *(G(images).float() for G in (self.gan.teacher, self.gan.student))]
        self.run.background.start(save_png, draw_grid(columns), f"{self.run.sample_dir}/{step:06d}.png")


def build(opt, options, state, run):
    """The teacher, a new student, the trained discriminator, optimizers, schedules and the pool -> Distillation

    options: of the teacher's training; state: its checkpoint. The shape of the student is written into run.opt"""
    trained = cyclegan.build(options, run)
    D = trained.D_B if opt.direction == "AB" else trained.D_A
    D.load_state_dict(state[f"D_{opt.direction[1]}"])
    teacher = generator_in(state, opt.checkpoint, opt.direction).network
    described, student = make_student(opt, options, teacher)
    run.opt = described
    adapters = nn.ModuleList()
    if opt.lambda_feat and isinstance(teacher, GeneratorResNet):
        widths = [G.model[7].out_channels for G in (student, teacher)]  # of the second downsampling, and of the blocks
        adapters.extend(nn.Conv2d(*widths, 1) for _ in range(3))
    elif opt.lambda_feat:
        print("note: --lambda_feat: compares residual blocks, which this teacher does not have")
    for network in (teacher, student, adapters):
        network.to(run.device)

    adam = functools.partial(Adam, lr=opt.lr, betas=(options.b1, options.b2), run=run, fused=run.device.type == "cuda")
    optimizer_G, optimizer_D = adam([*student.parameters(), *adapters.parameters()]), adam(D.parameters())
    lr_schedulers = [LambdaLR(optimizer, lr_factor(options, run), last_epoch=run.epoch - 1)
                     for optimizer in (optimizer_G, optimizer_D)]  # fmt: skip
    buffer = ReplayBuffer(options.pool_size, options.seed)
    return Distillation(opt.direction, teacher, student, adapters, D, optimizer_G, optimizer_D, lr_schedulers, buffer,
                        trained.criterion_GAN, run.amp)  # fmt: skip


def read_options(opt):
    """-> (the teacher's checkpoint, options of this training, the checkpoint to continue from or None). Raises
    InputError."""
    state, run_name = read_training(opt)
    begun = read_begun(opt, run_name, "distill") if opt.resume else None
    if begun:
        stored = begun["distill"]
        if os.path.abspath(stored["checkpoint"]) != os.path.abspath(opt.checkpoint):
            raise InputError(
                f"--resume: {begun['path']} learns from {stored['checkpoint']}. Give that, or another --run_name"
            )
        vars(opt).update({name: stored[name] for name in KEPT_OPTIONS})
    opt.n_epochs = 20 if opt.n_epochs is None else opt.n_epochs
    options = training_options(opt, state, run_name)
    vars(options).update(
        lambda_perceptual=opt.lambda_perceptual, vgg_weights=opt.vgg_weights, lambda_style=0.0, lambda_paired=0.0,
        accumulate=1, ratio_A=None, clip_grad=0.0, n_critic=1, n_gen=1, ema=0.0, val_interval=0, tensorboard=False,
        graph=False, compile=False, log_interval=opt.log_interval, resume=opt.resume,
    )  # fmt: skip
    return state, options, begun


def distill(opt):
    """What `compress.py distill` does -> exit status"""
    state, options, begun = read_options(opt)
    run = DistillationRun(opt, options, begun)
    gan = build(opt, options, state, run)
    data = TrainingData(run.opt, run, cyclegan.open_loader)
    before = gan.teacher, generator_file(state, opt.direction)
    quality_before = quality(opt, options, opt.checkpoint)
    run.begin(gan, data, None)
    update = Update(lambda gan, _, *images: distill_step(gan, opt, *images), gan, run.opt, run)
    monitor = DistillationMonitor(opt, run, gan, data)

    for epoch in range(run.epoch, opt.n_epochs):
        for real_A, real_B in data.epoch(epoch):
            monitor.log(update(real_A, real_B))
            monitor.sample_images()

        monitor.flush()
        if run.stopped:
            break
        for lr_scheduler in gan.lr_schedulers:
            lr_scheduler.step()
        run.save_checkpoint(epoch + 1)

    if begun is None and not opt.n_epochs:  # nothing to train
        run.save_checkpoint(0)
    if begun is None or run.step > run.first_step or run.stopped:
        if status := run.finish(monitor):
            return status
    path = f"{run.checkpoint_dir}/latest.pth"
    after = gan.student.eval(), generator_file(load_file(path), opt.direction)
    quality_after = quality(opt, options, path, counterpart=opt.checkpoint)
    result = f"{run.checkpoint_dir}/G_{opt.direction}_{opt.n_epochs}.pth"
    print_comparison(before, after, (quality_before, quality_after), options, run.device, result)
    return None
