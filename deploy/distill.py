"""
Distillation: trains a small generator (the student) to imitate a trained one (the teacher) in one direction.

The losses compare the student's translations and features with the teacher's, and a discriminator judges the student's
translations, as in GAN Compression (Li et al., 2020, arXiv:2003.08936). The teacher's translations take the place of
paired images.
"""

import argparse
import dataclasses
import functools
import os

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import cyclegan
from deploy.compression import print_comparison, quality, read_begun, read_training, training_options
from deploy.student import feature_loss, make_student, translate_with_features, width_of_blocks
from inference.load import generator_in
from media.files import load_file
from media.sheets import with_captions
from models import GeneratorResNet, in_one_pass
from training.data import TrainingData
from training.monitor import Monitor, save_png
from training.optimizer import Adam
from training.run import Run
from training.update import Update
from utils import InputError, ReplayBuffer, draw_grid
from variants.build import generator_file
from variants.distances import feature_distance, load_vgg
from variants.noise import without_noise
from variants.schedules import lr_factor

# Options of `compress.py distill` that --resume takes from the checkpoint
KEPT_OPTIONS = ("direction", "n_residual_blocks", "separable", "ngf", "fewer_products", "fewer_parameters", "lr",
                "lambda_out", "lambda_feat", "lambda_gan", "lambda_perceptual", "batch_size", "amp", "data_dir",
                "vgg_weights", "paired", "palette", "log_interval", "sample_interval")  # fmt: skip
STUDENT_OPTIONS = ("n_residual_blocks", "ngf", "separable", "fewer_products", "fewer_parameters")


##############################
#   One step
##############################


@dataclasses.dataclass
class Distillation:
    """Networks, optimizers, schedules and pool of a distillation. See cyclegan.CycleGAN, which has the same methods."""

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
    """Updates the student, then the discriminator. Returns {name: loss}.

    gan:            Distillation
    opt:            options of `compress.py distill`
    real_A, real_B: (N, channels, H, W) in [-1, 1]
    """
    real, real_target = (real_A, real_B) if gan.direction == "AB" else (real_B, real_A)
    loss_feat = loss_GAN = loss_perceptual = loss_D = real.new_zeros(())
    translate = translate_with_features if len(gan.adapters) else lambda G, x: (G(x), [])
    autocast = torch.autocast(real.device.type, torch.bfloat16, enabled=gan.amp)

    # ---------------
    #  Train Student
    # ---------------

    with autocast, torch.no_grad():
        target, teacher_features = translate(gan.teacher, real)
        target = target.float()
    with autocast:
        fake, student_features = translate(gan.student, real)
        # The translation and the features should be equal to the teacher's
        loss_out = nn.functional.l1_loss(fake.float(), target)
        if len(gan.adapters):
            loss_feat = feature_loss(gan.adapters, student_features, teacher_features)
        # If the student is too small to reproduce the teacher's details, its translation should still look real
        if opt.lambda_gan:
            loss_GAN = gan.criterion_GAN.generator_loss(gan.D(fake))
        if opt.lambda_perceptual:
            loss_perceptual = feature_distance(load_vgg(opt.vgg_weights, real.device), fake, target)
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
            loss_D = gan.criterion_GAN.discriminator_loss(
                *in_one_pass(gan.D, real_target, gan.buffer.push_and_pop(fake))
            )
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
    """A training run whose checkpoints also contain the options of the distillation."""

    def __init__(self, opt, options, checkpoint):
        if checkpoint and "ranks" not in checkpoint:  # from a version with another format
            rank = {name: checkpoint[name] for name in ("rng", "cuda_rng", "buffer") if name in checkpoint}
            checkpoint |= {"ranks": [rank], "data": None}
        # distillation has none of these, however the teacher was trained
        off = dict(clip_grad=0.0, n_critic=1, n_gen=1, ema=0.0, val_interval=0, tensorboard=False, graph=False)
        own = off | dict(compile=False, log_interval=opt.log_interval, resume=opt.resume)
        super().__init__(argparse.Namespace(**vars(options) | own), checkpoint)
        self.more_state = {"distill": vars(opt)}

    def description(self, defaults):
        opt = self.opt
        return [f"a student with {opt.n_residual_blocks} residual blocks and {opt.ngf} filters in the first layer"]

    def command_to_resume(self):
        _, *words = super().command_to_resume()
        return ["compress.py", "distill", "--checkpoint", self.more_state["distill"]["checkpoint"], *words]

    def what_was_written(self):
        G = f"{self.checkpoint_dir}/G_{self.gan.direction}_{self.opt.n_epochs}.pth"
        grids = f"\n{self.sample_dir}/: real | translated by the teacher | by the student"
        return f"written: {G}, the student" + (grids if self.step and self.opt.sample_interval > 0 else "")

    def print_score(self):
        pass


class DistillationMonitor(Monitor):
    """A Monitor whose sample grids show real images, the teacher's and the student's translations."""

    def __init__(self, opt, run, gan, data):
        super().__init__(run.opt, run, gan, data)
        # loss_out is always computed, so it is shown even without a weight
        self.hidden = {"loss_feat": not (opt.lambda_feat and len(gan.adapters)), "loss_gan": not opt.lambda_gan,
                       "loss_D": not opt.lambda_gan, "loss_perceptual": not opt.lambda_perceptual}  # fmt: skip

    def sample_images(self, first=False, last=False):
        step, interval = self.run.step, self.opt.sample_interval
        if first or interval <= 0 or step == 0 or not (last or step % interval == 0) or step == self.sampled_at:
            return
        self.sampled_at = step
        images = self.data.samples["AB".index(self.gan.direction[0])]
        with torch.no_grad():
            columns = [images, *(G(images).float() for G in (self.gan.teacher, self.gan.student))]
        grid = with_captions(draw_grid(columns), {"real": "real", "teacher": "T", "student": "S"})
        self.run.background.start(save_png, grid, f"{self.run.sample_dir}/{step:06d}.png")


def build(opt, options, state, run):
    """Returns a Distillation with the teacher, a new student, and the trained discriminator of the target domain. Sets
    run.opt to the training options of the student.

    opt:     options of `compress.py distill`
    options: training options of the teacher
    state:   checkpoint of the teacher's training
    run:     DistillationRun
    """
    trained = cyclegan.build(options, run)
    D = trained.D_B if opt.direction == "AB" else trained.D_A
    D.load_state_dict(state[f"D_{opt.direction[1]}"])
    teacher = without_noise(generator_in(state, opt.checkpoint, opt.direction).network)
    described, student = make_student(teacher, options, **{name: getattr(opt, name) for name in STUDENT_OPTIONS})
    run.more_state["options"] = vars(options) | described  # from which the student's checkpoint is rebuilt
    run.opt = argparse.Namespace(**vars(run.opt) | described)
    adapters = nn.ModuleList()
    if opt.lambda_feat and isinstance(teacher, GeneratorResNet):
        widths = [width_of_blocks(G) for G in (student, teacher)]
        adapters.extend(nn.Conv2d(*widths, 1) for _ in range(3))
    elif opt.lambda_feat:
        print("note: --lambda_feat: ignored, because this teacher has no residual blocks to compare")
    for network in (teacher, student, adapters):
        network.to(run.device)

    adam = functools.partial(Adam, lr=opt.lr, betas=(options.b1, options.b2), run=run, fused=False)
    optimizer_G, optimizer_D = adam([*student.parameters(), *adapters.parameters()]), adam(D.parameters())
    trained_by = [optimizer_G, optimizer_D] if opt.lambda_gan else [optimizer_G]
    lr_schedulers = [LambdaLR(optimizer, lr_factor(options, run), run.epoch - 1) for optimizer in trained_by]
    buffer = ReplayBuffer(options.pool_size, options.seed)
    return Distillation(opt.direction, teacher, student, adapters, D, optimizer_G, optimizer_D, lr_schedulers, buffer,
                        trained.criterion_GAN, run.amp)  # fmt: skip


def read_options(opt, parser):
    """Completes the options of `compress.py distill`, in place.

    Returns (the teacher's checkpoint, the training options, the checkpoint to continue from or None). Raises InputError
    if the checkpoint cannot be used, or if --resume finds no distillation of the same teacher.
    """
    state, run_name = read_training(opt)
    begun = read_begun(opt, run_name, "distill", parser) if opt.resume else None
    if begun:
        stored = begun["distill"]
        if os.path.abspath(stored["checkpoint"]) != os.path.abspath(opt.checkpoint):
            raise InputError(
                f"--resume: {begun['path']} has another teacher, {stored['checkpoint']}. Pass that to --checkpoint, or "
                "choose another --run_name"
            )
        vars(opt).update({name: stored[name] for name in KEPT_OPTIONS if name in stored})
    opt.n_epochs = 20 if opt.n_epochs is None else opt.n_epochs
    options = training_options(opt, state, run_name)
    vars(options).update(
        lambda_perceptual=opt.lambda_perceptual, vgg_weights=opt.vgg_weights, lambda_style=0.0, lambda_paired=0.0,
        accumulate=1, ratio_A=None,
    )  # fmt: skip
    return state, options, begun


def distill(opt, parser):
    """Runs `compress.py distill`: trains a student and prints a table of cost and quality.

    opt:    the parsed options of the command
    parser: that parsed them

    Returns the exit status, None if the training finished.
    """
    state, options, begun = read_options(opt, parser)
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
    run.background.finish()  # the checkpoint may still be being written
    path = f"{run.checkpoint_dir}/latest.pth"
    after = gan.student.eval(), generator_file(load_file(path), opt.direction)
    quality_after = quality(opt, options, path, counterpart=opt.checkpoint)
    result = f"{run.checkpoint_dir}/G_{opt.direction}_{opt.n_epochs}.pth"
    print_comparison(before, after, (quality_before, quality_after), options, run.device, result)
    return None
