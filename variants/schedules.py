"""
What changes during training: the learning rate, the image size, the ratio of the domains.
"""

import argparse
import math

from utils import linear_decay


def lr_factor(opt, run):
    """-> lr_lambda for LambdaLR: linear_decay by epochs, unless --lr_schedule or --n_iters say otherwise"""
    if opt.n_iters:
        decay = opt.n_iters // 2 if opt.decay_epoch is None else opt.decay_epoch * run.steps_per_epoch
        factor = decay_curve(opt.lr_schedule, opt.n_iters, decay)
        return lambda epoch: factor(run.step)
    return decay_curve(opt.lr_schedule, opt.n_epochs, opt.n_epochs // 2 if opt.decay_epoch is None else opt.decay_epoch)


def decay_curve(schedule, n_epochs, decay_epoch):
    """'linear': utils.linear_decay. 'cosine': half a cosine instead of the line. 'step': a tenth from `decay_epoch` on,
    and a hundredth from half way between there and the end."""
    line = linear_decay(n_epochs, decay_epoch)
    if schedule == "cosine":
        return lambda epoch: (1 - math.cos(math.pi * line(epoch))) / 2
    if schedule == "step":
        return lambda epoch: 1.0 if epoch < decay_epoch else 0.1 if line(epoch) > 0.5 else 0.01
    return line


def sizes_by_epoch(text):
    """Checks the value of --progressive, such as '128:50,256:150', and returns it unchanged."""
    for stage in text.split(","):
        size, _, epochs = stage.partition(":")
        is_number = size.isdecimal() and epochs.isdecimal() and len(size) < 6 and len(epochs) < 10
        if not (is_number and 32 <= int(size) <= 16384 and int(epochs) >= 1):
            raise argparse.ArgumentTypeError(f"{text}: not of the form SIZE:EPOCHS,SIZE:EPOCHS, such as 128:50,256:150")
    return text


def ratio_by_epoch(text):
    """Checks the value of --ratio_A, '0.5' or '0.5:1', and returns it unchanged."""
    try:
        values = [float(value) for value in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0.01 <= value <= 100 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: neither a number from 0.01 to 100 nor two of them, such as 0.5:1")
    return text


def stages(opt):
    """-> list of ((height, width), epochs), the stages of --progressive"""
    if not opt.progressive:
        return [((opt.img_height, opt.img_width), opt.n_epochs)]
    return [((int(size),) * 2, int(n)) for size, n in (stage.split(":") for stage in opt.progressive.split(","))]


def size_at(opt, epoch):
    """-> (height, width) of the training images in an epoch; after the last stage its size stays"""
    sizes = stages(opt)
    for size, n_epochs in sizes:
        if epoch < n_epochs:
            return size
        epoch -= n_epochs
    return sizes[-1][0]


def count_A(opt, epoch):
    """-> number of images of A in a batch of that epoch, see --ratio_A"""
    first, *last = map(float, (opt.ratio_A or "1").split(":"))
    ratio = first if not last else first + (last[0] - first) * epoch / max(1, opt.n_epochs - 1)
    return max(1, round(ratio * opt.batch_size * opt.accumulate))


def learning_rates(opt):
    """-> (learning rate of the generators, of the discriminators): --lr, unless --lr_G and --lr_D are given"""
    return tuple(opt.lr if lr is None else lr for lr in (opt.lr_G, opt.lr_D))
