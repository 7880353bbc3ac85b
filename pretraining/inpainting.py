"""
Pre-trains the generators of cyclegan.py on in-painting: a network learns to complete images in which squares have been
blacked out. This needs no pairs and no discriminators (Torbunov et al., 2022, UVCGAN, arXiv:2203.02557).

    python -m pretraining.inpainting --dataset_name horse2zebra
    python cyclegan.py --dataset_name horse2zebra --start_from saved_models/horse2zebra_pretrained/latest.pth

It takes the options of cyclegan.py, and --resume continues it. One network sees both domains, and both generators begin
as copies of it: G_AB has to understand images of A and to draw images of B, and G_BA the reverse.
"""

import shlex
import warnings

import command_line  # noqa: F401, isort: skip; before torch, so that Ctrl-C is quiet from here
import torch

import cyclegan
from command_line.run import run_script
from media.sheets import with_captions
from models import in_one_pass
from training.data import TrainingData
from training.monitor import Monitor, save_png
from training.options import RANGES, read_options
from training.run import Run
from training.update import Update
from utils import InputError, draw_grid, evaluating
from variants.build import channels_of
from variants.losses import EXTRA_LOSSES

MASKED = 0.4  # share of the squares that are blacked out, and ...
SQUARES = 8  # ... how many of them fit the shorter side: 32 x 32 pixels at 256 x 256
# Options of cyclegan.py that pre-training has no use for
OFF = dict(freeze_D=0, n_critic=1, n_gen=1, pairs=None, pool_size=0, val_interval=0, vgg_weights=None)
OFF |= {f"lambda_{name}": 0.0 for name in EXTRA_LOSSES}


def get_parser():
    parser = cyclegan.get_parser()
    parser.usage = "python -m pretraining.inpainting [--dataset_name NAME] [--option VALUE ...]"
    parser.description = "Pre-train the generators of cyclegan.py on in-painting. Losses of cyclegan.py have no effect."
    return parser


def black_out(images, generator=None):
    """Sets each square of a grid to black with probability MASKED.

    images:    (N, C, H, W) in [-1, 1]
    generator: of random numbers, on the CPU; by default those of the images' device"""
    n, _, height, width = images.shape
    side = max(1, min(height, width) // SQUARES)
    rows, columns = -(-height // side), -(-width // side)
    device = generator.device if generator else images.device
    is_black = torch.rand(n, 1, rows, 1, columns, 1, generator=generator, device=device) < MASKED
    is_black = is_black.expand(-1, -1, -1, side, -1, side).reshape(n, 1, rows * side, columns * side)
    return images.masked_fill(is_black[..., :height, :width].to(images.device), -1.0)


def pretrain_step(gan, opt, real_A, real_B):
    """Updates the network with images of both domains -> {name: loss}, L1 to the whole image. real_A, real_B: (N,
    channels, H, W) in [-1, 1]"""
    with torch.autocast(real_A.device.type, torch.bfloat16, enabled=gan.amp):
        completed_A, completed_B = in_one_pass(gan.G_AB, black_out(real_A), black_out(real_B))
    loss_A, loss_B = (completed_A.float() - real_A).abs().mean(), (completed_B.float() - real_B).abs().mean()
    loss_G = (loss_A + loss_B) / 2
    gan.optimizer_G.zero_grad()
    gan.optimizer_G.backward(loss_G)
    gan.optimizer_G.step()
    return dict(loss_G=loss_G, loss_A=loss_A, loss_B=loss_B)


class PretrainingRun(Run):
    """A training run whose checkpoints say that their discriminators are untrained."""

    def __init__(self, opt, checkpoint):
        super().__init__(opt, checkpoint)
        self.more_state = {"pretraining": True}

    def command_to_resume(self, *more):
        _, *words = super().command_to_resume(*more)
        return ["-m", "pretraining.inpainting", *words]

    def what_was_written(self):
        latest, size = f"{self.checkpoint_dir}/latest.pth", (self.opt.img_height, self.opt.img_width)
        words = ["python", "cyclegan.py", "--dataset_name", self.opt.dataset_name, *self.data_dir_option()]
        words += ["--img_height", str(size[0]), "--img_width", str(size[1])]
        for name in RANGES:  # images are read as here
            value = getattr(self.opt, name)
            words += [f"--{name}", *value.split()] if value else []
        words += ["--keep_aspect"] * self.opt.keep_aspect + ["--start_from", latest]
        return f"written: {latest}; to train with it:\n    {shlex.join(words)}"

    def print_score(self):
        pass


class PretrainingMonitor(Monitor):
    """A Monitor whose sample grids show test images, what is left of them, and how the network completes them."""

    def sample_images(self, first=False, last=False):
        if not self.is_grid_due(first, last):
            return
        G, columns = self.gan.sample_G_AB, []
        autocast = torch.autocast(self.run.device.type, torch.bfloat16, enabled=self.run.amp)
        with autocast, evaluating(G), torch.no_grad():
            for images in self.data.samples:
                masked = black_out(images, torch.Generator().manual_seed(0))  # the same squares in each grid
                columns += [images, masked, G(masked).float()]
        captions = {f"{text} {domain}": domain for domain in "AB" for text in ("real", "masked", "completed")}
        grid = with_captions(draw_grid(columns), captions)
        self.run.background.start(save_png, grid, f"{self.run.sample_dir}/{self.run.step:06d}.png")


def main(argv=None):
    parser = get_parser()
    opt, checkpoint = read_options(parser, argv, pretraining=True)
    if opt.start_from:
        raise InputError("--start_from: pre-training begins with new networks. Omit the option")
    if opt.dims == 3 or opt.slices:
        raise InputError("--dims 3 --slices: pre-training completes images, not volumes. Omit the option")
    if len({*channels_of(vars(opt))}) > 1:
        raise InputError("--channels_A --channels_B: a network that completes images needs the same number of both")
    vars(opt).update(OFF)
    run = PretrainingRun(opt, checkpoint)
    if run.is_finished():
        return None
    data = TrainingData(opt, run, cyclegan.open_loader)
    gan = cyclegan.build(opt, run)
    gan.G_BA = gan.sample_G_BA = gan.G_AB  # one network, saved as both
    # the discriminators are not trained, but their learning rates decay too
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    run.begin(gan, data, vars(parser.parse_args([])))
    update, monitor = Update(pretrain_step, gan, opt, run), PretrainingMonitor(opt, run, gan, data)

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
    return run.finish(monitor)


if __name__ == "__main__":
    run_script(main, needs_reader=False)
