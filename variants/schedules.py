"""
What changes during training: the learning rate, the image size, the ratio of the domains.
"""

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
