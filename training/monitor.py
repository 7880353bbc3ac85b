"""
All that a running training tells: losses, sample grids, its health, losses on the test images; in a terminal, in
log.jsonl and, if asked for, in TensorBoard.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from datasets import ImageDataset
from training.health import Health
from training.progress import Progress
from utils import InputError, draw_grid, evaluating, sample_images, save_image
from variants.build import channels_of
from variants.losses import needs_cycle


def open_board(folder, step):
    """TensorBoard's log; what a killed run wrote after `step` is hidden."""
    from torch.utils.tensorboard import SummaryWriter  # optional; options.py has looked whether it is there

    return SummaryWriter(folder, purge_step=step + 1)


class Monitor:
    """Quiet in all processes but the first.

    saved, images: the folders of the run
    step, n_steps: where it begins and where it will end
    background:    (attribute) what is compressed and written beside the training
    """

    def __init__(self, opt, saved, images, device, amp, step, n_steps, quiet):
        self.opt, self.images, self.device, self.amp, self.quiet = opt, images, device, amp, quiet
        self.first_step = step
        self.progress = Progress(f"{saved}/log.jsonl", step, n_steps, quiet)
        self.background, self.health = Background(), Health(opt.gan_loss, opt.lambda_cyc)
        self.shown_at = None
        # what has no weight is 0, or not computed: nobody wants to read that
        self.off = {"loss_cycle": not needs_cycle(opt), "loss_identity": opt.lambda_id == 0}
        self.board = open_board(f"{saved}/tensorboard", step) if opt.tensorboard and not quiet else None

    def losses(self, step, images_per_step, epoch, lr, **values):
        """values: the losses by name, means since the last call."""
        if self.quiet:
            return
        self.health.losses(step, values)
        values = {name: value for name, value in values.items() if not self.off.get(name)}
        record = self.progress.update(step, images_per_step, self.device, epoch=epoch, lr=lr, **values)
        if self.board:
            for name, value in record.items():
                if name not in ("step", "epoch"):
                    self.board.add_scalar(name.replace("loss_", "loss/"), value, step)

    def samples(self, step, generators, D_A, D_B, images):
        """Writes the sample grid and looks at its translations. images: of A and of B, (N, channels, H, W) each."""
        if self.quiet or step == self.shown_at:
            return
        self.shown_at = step
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp)
        with autocast, evaluating(*generators.values(), D_A, D_B), torch.no_grad():
            columns = sample_images(*generators.values(), *images)
            real_A, fake_B, _, real_B, fake_A, _ = columns
            scores = {"D_A": (D_A(real_A), D_A(fake_A)), "D_B": (D_B(real_B), D_B(fake_B))}
        seen = self.health.look_at(columns, *scores.values())
        grid = draw_grid(columns)
        self.background.start(save_image, grid, f"{self.images}/{step:06d}.png")
        if self.health.averages:  # not before the first step
            self.progress.note({"step": step, **seen, "conditions": self.health.conditions(step)})
            self.say(self.health.line(step))
        if self.board:
            self.board.add_image("samples", np.asarray(grid), step, dataformats="HWC")
            for name, value in seen.items():
                self.board.add_scalar(f"health/{name}", value, step)
            for name, (of_real, of_fake) in scores.items():
                self.board.add_histogram(f"{name}/real", of_real.float(), step)
                self.board.add_histogram(f"{name}/translated", of_fake.float(), step)

    @torch.no_grad()
    def validate(self, step, epoch, generators, root, size):
        """Cycle and identity loss on the test images, which nothing was trained on."""
        if self.quiet:
            return
        sums, channels = {}, channels_of(vars(self.opt))
        G_AB, G_BA = generators.values()
        try:
            dataset = ImageDataset(root, "test", True, size, channels=channels, cache=False,
                                   skip_bad_images=self.opt.skip_bad_images)  # fmt: skip
            # with a generator of its own, as otherwise it takes from the random numbers of the training
            loader = torch.utils.data.DataLoader(dataset, batch_size=8, generator=torch.Generator())
            with evaluating(G_AB, G_BA), torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                for batch in loader:
                    real_A, real_B = batch["A"].to(self.device), batch["B"].to(self.device)
                    pairs = {"val_cycle": ((G_BA(G_AB(real_A)), real_A), (G_AB(G_BA(real_B)), real_B))}
                    if channels[0] == channels[1]:  # each generator on images of its target domain
                        pairs["val_identity"] = (G_BA(real_A), real_A), (G_AB(real_B), real_B)
                    for name, both in pairs.items():
                        losses = [(x.float() - y).abs().mean().item() for x, y in both]
                        sums[name] = sums.get(name, 0.0) + sum(losses) / 2 * len(real_A) / len(dataset)
        except InputError as error:  # no test images, or bad ones: nothing that a training has to end for
            self.say([f"note: --val_interval: {error}"])
            return
        self.progress.note({"step": step, "epoch": epoch, **sums})
        self.say(["test images: " + "  ".join(f"{name[4:]} {value:.3f}" for name, value in sums.items())])
        for name, value in sums.items() if self.board else ():
            self.board.add_scalar(name.replace("val_", "test/"), value, step)

    def say(self, lines):
        self.progress.end_line()
        print("\n".join(lines), flush=True)

    def close(self):
        """When all is done; waits for what is still being written."""
        self.background.finish()
        self.progress.end_line()
        if self.board:
            options = {k: v if type(v) in (int, float, bool, str) else str(v) for k, v in vars(self.opt).items()}
            self.board.add_hparams(
                options, {"final/" + k[5:]: v for k, v in self.health.averages.items()}, run_name="."
            )
            self.board.close()


class Background:
    """Does things in a thread beside the training: to compress a picture or to write a checkpoint takes as long as many
    steps of a GPU. One at a time: `start` waits for what was started before, and raises its error if it had one; what
    is started now is done all the same.

    Not for what torch computes with several threads: on a CPU a second team of OpenMP threads then competes with the
    training's for good, which measured 11 images a second instead of 19 (benchmarks/NOTES.md)."""

    def __init__(self):
        self.executor, self.task = ThreadPoolExecutor(1), None

    def start(self, function, *arguments):
        before, self.task = self.task, self.executor.submit(function, *arguments)
        if before:
            before.result()

    def finish(self):
        """Waits for what was started."""
        if self.task:
            task, self.task = self.task, None
            task.result()
