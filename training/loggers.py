"""
Other logs beside log.jsonl, for --logger. Each needs an optional package, and each has the same four methods. To add one,
write a class, and add it to LOGGERS and to the names in variants/options.py.
"""

import contextlib
import io
import os

import numpy as np

from command_line.terminal import say

PROJECT = "cyclegan"  # the name that all runs are listed under


class TensorBoard:
    """Writes to saved_models/NAME/tensorboard. After --resume, what a killed run wrote after the checkpoint is hidden."""

    def __init__(self, opt, run):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(f"{run.checkpoint_dir}/tensorboard", purge_step=run.step + 1)
        self.options = vars(opt)

    def scalars(self, values, step):
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, name, image, step):
        self.writer.add_image(name, np.asarray(image), step, dataformats="HWC")

    def histograms(self, values, step):
        for name, tensor in values.items():
            self.writer.add_histogram(name, tensor, step)

    def close(self, finals):
        options = {k: v if type(v) in (int, float, bool, str) else str(v) for k, v in self.options.items()}
        self.writer.add_hparams(options, finals, run_name=".")
        self.writer.close()


class WeightsAndBiases:
    """Writes to saved_models/NAME/wandb. Nothing is sent anywhere unless the environment variable WANDB_MODE is online.
    Continued trainings are runs of one group."""

    def __init__(self, opt, run):
        import wandb

        self.wandb, mode = wandb, os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(silent=True, console="off")  # the program prints its own lines
        self.run = wandb.init(project=PROJECT, name=opt.run_name, group=opt.run_name, dir=run.checkpoint_dir, mode=mode,
                              config=vars(opt), settings=settings)  # fmt: skip
        self.run.define_metric("*", step_metric="step")  # wandb's own steps count the calls

    def scalars(self, values, step):
        self.run.log(values | {"step": step})

    def image(self, name, image, step):
        self.run.log({name: self.wandb.Image(image), "step": step})

    def histograms(self, values, step):
        self.run.log(
            {name: self.wandb.Histogram(tensor.cpu().numpy()) for name, tensor in values.items()} | {"step": step}
        )

    def close(self, finals):
        self.run.summary.update(finals)
        folder, is_offline = os.path.dirname(self.run.dir), self.run.settings.mode == "offline"
        self.run.finish()
        if is_offline:
            say(f"wandb: the log is on this machine only; to upload it:\n    wandb sync {os.path.relpath(folder)}")


class Trackio:
    """Writes to Trackio's folder on this machine (~/.cache/huggingface/trackio, or TRACKIO_DIR). `trackio show` opens it.
    A continued training continues its run."""

    def __init__(self, opt, run):
        import trackio

        self.trackio, options = trackio, {name: value for name, value in vars(opt).items() if value is not None}
        with contextlib.redirect_stdout(io.StringIO()):  # it prints coloured lines, in files too
            trackio.init(PROJECT, name=opt.run_name, config=options, resume="allow" if run.step else "never",
                         embed=False, auto_log_gpu=False, auto_log_cpu=False)  # fmt: skip

    def scalars(self, values, step):
        self.trackio.log(values, step=step)

    def image(self, name, image, step):
        self.trackio.log({name: self.trackio.Image(np.asarray(image))}, step=step)

    def histograms(self, values, step):
        self.trackio.log(
            {name: self.trackio.Histogram(tensor.cpu().numpy()) for name, tensor in values.items()}, step=step
        )

    def close(self, finals):
        self.trackio.log(finals)
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()
        say(f"trackio: the log is on this machine; to open it:\n    trackio show --project {PROJECT}")


LOGGERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}


def open_loggers(opt, run):
    """-> list of the loggers of --logger and --tensorboard"""
    names = ["tensorboard"] * opt.tensorboard + (opt.logger or "").split()
    return [LOGGERS[name](opt, run) for name in dict.fromkeys(names)]
