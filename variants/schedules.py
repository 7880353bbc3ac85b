"""
What changes over a training: learning rates, image sizes, whose turn it is.
"""

import math
import warnings

import torch

from utils import linear_decay


def stages(opt):
    """-> list of ((height, width), epochs) of the training, one after the other."""
    if not opt.progressive:
        return [((opt.img_height, opt.img_width), opt.n_epochs)]
    return [((int(size),) * 2, int(n)) for size, n in (stage.split(":") for stage in opt.progressive.split(","))]


def size_at(opt, epoch):
    """-> (height, width) of the training images in that epoch; after the last stage its size stays."""
    for size, n_epochs in stages(opt):
        if epoch < n_epochs:
            break
        epoch -= n_epochs
    return size


def count_A(opt, epoch):
    """-> images of A in a batch of that epoch, for opt.batch_size of B."""
    first, *last = map(float, (opt.ratio_A or "1").split(":"))
    ratio = first if not last else first + (last[0] - first) * epoch / max(1, opt.n_epochs - 1)
    return max(1, round(ratio * opt.batch_size * opt.accumulate))


def turns(opt, step):
    """-> whose turn it is in that step, as arguments of train_step; nothing where all take a turn in each."""
    if opt.n_critic == opt.n_gen == 1:
        return {}
    return {"train_G": step % opt.n_critic == 0, "train_D": step % opt.n_gen == 0}


def lr_factor(schedule, n_epochs, decay_epoch):
    """'linear': see there; 'cosine': half a cosine instead of the line; 'step': a tenth from `decay_epoch` on, and a
    hundredth from half way between there and the end."""
    line = linear_decay(n_epochs, decay_epoch)
    if schedule == "cosine":
        return lambda epoch: (1 - math.cos(math.pi * line(epoch))) / 2
    if schedule == "step":
        return lambda epoch: 1.0 if epoch < decay_epoch else 0.1 if line(epoch) > 0.5 else 0.01
    return line


def lr_scheduler(optimizers, opt, steps_per_epoch, epochs_done=0, steps_done=0):
    """Lets the learning rates fall, epoch by epoch, or with --n_iters step by step -> a function to call after each.
    What the options say now counts, whatever they were when the run was started."""
    n, unit, done = (opt.n_iters, steps_per_epoch, steps_done) if opt.n_iters else (opt.n_epochs, 1, epochs_done)
    factor = lr_factor(opt.lr_schedule, n, n // 2 if opt.decay_epoch is None else opt.decay_epoch * unit)
    # a run that was stopped after the last step of an epoch goes on with the schedulers' step, which is right
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    for optimizer, scheduler in zip(optimizers, schedulers):
        base, now = float(optimizer.defaults["lr"]), optimizer.param_groups[0]["lr"]
        scheduler.base_lrs, scheduler.last_epoch = [base], done
        lr = base * factor(done)
        optimizer.param_groups[0]["lr"] = torch.full_like(now, lr) if isinstance(now, torch.Tensor) else lr

    def next_lr():
        for scheduler in schedulers:
            scheduler.step()

    return next_lr
