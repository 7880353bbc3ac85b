"""
Reports on a training run: losses, sample grids, health, losses on the test images. Writes to the terminal, to log.jsonl
and to the logs of --logger.
"""

import torch

from command_line.progress import Progress
from command_line.terminal import say
from datasets import ImageDataset
from media.sheets import GRID, with_captions
from training.health import Health, check_finite
from training.pace import Pace
from training.processes import average_over_processes
from utils import InputError, draw_grid, evaluating, sample_images, whole_file
from variants.build import channels_of
from variants.losses import needs_cycle

KINDS = ("real", "translated")


class Monitor:
    """Prints and writes in the first process only. Losses stay on the device until a line is due, so that no step waits
    for them."""

    def __init__(self, opt, run, gan, data):
        self.opt, self.run, self.gan, self.data, self.quiet = opt, run, gan, data, run.rank > 0
        last_step = opt.n_iters or run.step + (opt.n_epochs - run.epoch) * len(data.loader) - run.batch
        self.progress = Progress(f"{run.checkpoint_dir}/log.jsonl", run.step, last_step, self.quiet)
        self.health = Health(opt.gan_loss, opt.lambda_cyc)
        self.pace = Pace(run.device, opt.preset, last_step)
        self.losses, self.sampled_at = [], None
        # losses without a weight are 0 or not computed, and not shown
        self.hidden = {"loss_cycle": not needs_cycle(opt), "loss_identity": opt.lambda_id == 0}
        self.loggers = self.open_loggers()
        if run.step == 0 and opt.sample_interval > 0:
            self.sample_images(first=True)  # by the untrained networks

    def open_loggers(self):
        if self.quiet or not (self.opt.logger or self.opt.tensorboard):
            return []
        from training.loggers import open_loggers  # optional packages

        return open_loggers(self.opt, self.run)

    def log(self, losses):
        """Call after each step. losses: a tensor in the order of run.loss_names"""
        self.losses.append(losses)
        if self.run.step % self.opt.log_interval == 0 or self.run.step == self.run.first_step + 1:
            self.flush()
        else:
            self.progress.between(self.run.step)
        if not self.quiet and (lines := self.pace.step(self.run.step, self.data.dataset.img_size)):
            self.say(lines)

    def flush(self):
        """Prints and logs the mean losses since the last time."""
        if not self.losses:
            return
        run, losses = self.run, torch.stack(self.losses)
        self.losses.clear()
        average_over_processes([losses])
        # except for samples and checkpoints, this is the only place that waits for the device
        check_finite(losses, run.loss_names, run.step, run.checkpoint_dir)
        if self.quiet:
            return
        values = dict(zip(run.loss_names, losses.mean(0).tolist()))
        self.health.losses(run.step, values)
        values = {name: value for name, value in values.items() if not self.hidden.get(name)}
        lr = float(self.gan.optimizer_G.param_groups[0]["lr"])
        record = self.progress.update(
            run.step, run.images_per_step, run.device, epoch=run.current_epoch, lr=lr, **values
        )
        shown = {name.replace("loss_", "loss/"): v for name, v in record.items() if name not in ("step", "epoch")}
        for logger in self.loggers:
            logger.scalars(shown, run.step)

    def is_grid_due(self, first, last):
        """Whether to draw a sample grid of this step, which has none yet: every --sample_interval steps, and at the
        beginning and the end."""
        step, interval = self.run.step, self.opt.sample_interval
        due = first or last or (interval > 0 and step % interval == 0)
        if not due or self.quiet or step == self.sampled_at:
            return False
        self.sampled_at = step
        return True

    def sample_images(self, first=False, last=False):
        """Writes a sample grid if one is due, and measures the translations on it."""
        if not self.is_grid_due(first, last):
            return
        step, gan = self.run.step, self.gan
        autocast = torch.autocast(self.run.device.type, torch.bfloat16, enabled=self.run.amp)
        with autocast, evaluating(gan.sample_G_AB, gan.sample_G_BA, gan.D_A, gan.D_B), torch.no_grad():
            columns = sample_images(gan.sample_G_AB, gan.sample_G_BA, *self.data.samples)
            real_A, fake_B, _, real_B, fake_A, _ = columns
            scores = {"D_A": (gan.D_A(real_A), gan.D_A(fake_A)), "D_B": (gan.D_B(real_B), gan.D_B(fake_B))}
        images = columns
        if self.opt.dims == 3 or self.opt.slices:
            from training.volumes import seen_by_health, shown

            images, columns = seen_by_health(self.opt, columns), shown(self.opt, columns)
        seen = self.health.look_at(images, scores["D_A"], scores["D_B"])
        grid = with_captions(draw_grid(columns), GRID)
        self.run.background.start(save_png, grid, f"{self.run.sample_dir}/{step:06d}.png")
        if self.health.averages:  # not before the first step
            self.progress.note({"step": step, **seen, "conditions": self.health.conditions(step)})
            self.say(self.health.line(step))
        for logger in self.loggers:
            logger.image("samples", grid, step)
            logger.scalars({f"health/{name}": value for name, value in seen.items()}, step)
            kinds = {f"{name}/{kind}": s.float() for name, both in scores.items() for kind, s in zip(KINDS, both)}
            logger.histograms(kinds, step)

    def validate(self, epoch):
        """Logs the cycle and the identity loss on the test images, if --val_interval says so."""
        interval = self.opt.val_interval
        if self.quiet or not interval or (epoch + 1) % interval:
            return
        try:
            means = self.test_losses()
        except InputError as error:  # test images are missing or corrupt: no reason to stop training
            self.say([f"note: --val_interval: {error}"])
            return
        self.progress.note({"step": self.run.step, "epoch": epoch, **means})
        self.say(["test images: " + "  ".join(f"{name[4:]} {value:.3f}" for name, value in means.items())])
        for logger in self.loggers:
            logger.scalars({name.replace("val_", "test/"): value for name, value in means.items()}, self.run.step)

    @torch.no_grad()
    def test_losses(self):
        """-> {"val_cycle": mean, "val_identity": mean} over the test images"""
        run, G_AB, G_BA = self.run, self.gan.sample_G_AB, self.gan.sample_G_BA
        channels, means, trained = channels_of(vars(self.opt)), {}, self.data.dataset
        if self.opt.dims == 3 or self.opt.slices:
            from training.volumes import test_volumes

            dataset = test_volumes(self.opt, run.root)
        else:
            dataset = ImageDataset(run.root, "test", img_size=trained.img_size, channels=channels, cache=False,
                                   skip_bad_images=self.opt.skip_bad_images, keep_aspect=self.opt.keep_aspect,
                                   ranges=(trained.A.value_range, trained.B.value_range))  # fmt: skip
        # with its own generator: the default one draws from the random numbers of the training
        loader = torch.utils.data.DataLoader(dataset, batch_size=8, generator=torch.Generator())
        with evaluating(G_AB, G_BA), torch.autocast(run.device.type, torch.bfloat16, enabled=run.amp):
            for batch in loader:
                real_A, real_B = batch["A"].to(run.device), batch["B"].to(run.device)
                pairs = {"val_cycle": ((G_BA(G_AB(real_A)), real_A), (G_AB(G_BA(real_B)), real_B))}
                if channels[0] == channels[1]:
                    pairs["val_identity"] = (G_BA(real_A), real_A), (G_AB(real_B), real_B)
                for name, both in pairs.items():
                    losses = [(x.float() - y).abs().mean().item() for x, y in both]
                    means[name] = means.get(name, 0.0) + sum(losses) / 2 * len(real_A) / len(dataset)
        return means

    def say(self, lines):
        self.progress.end_line()
        say("\n".join(lines))

    def close(self):
        """Waits for files that are still being written."""
        self.run.background.finish()
        self.progress.end_line()
        for logger in self.loggers:
            logger.close({"final/" + name[5:]: value for name, value in self.health.averages.items()})


def save_png(image, path):
    with whole_file(path) as temporary:
        image.save(temporary, format="png")
