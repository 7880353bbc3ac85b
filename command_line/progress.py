"""
Progress of a long computation: speed, remaining time, memory and losses.
"""

import json
import shutil
import sys
import time

import torch

from command_line.output import append_line


def memory_in_use(device):
    """Returns the peak memory so far in GiB: of the GPU, or of this process if `device` is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**30
    try:
        import resource
    except ImportError:  # does not exist on Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def duration(seconds):
    """Formats a duration: 75 becomes '1:15', 4000 '1:06:40', and 100000 '1 d 3:46:40'."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours or days else f"{minutes}:{seconds:02d}"
    return f"{days} d {clock}" if days else clock


class Progress:
    """Shows progress as one line that is redrawn in a terminal, or as separate lines in a file or pipe.

    Training calls `update`, which also logs. Commands that only count call `tick`, and need no arguments here.

    log_path:   JSON lines file that `update` and `note` append to
    first_step: step that the run starts from, above 0 if it is resumed
    last_step:  step at which the run ends
    quiet:      if True, `update` neither prints nor logs
    """

    def __init__(self, log_path=None, first_step=0, last_step=0, quiet=False):
        self.first_step, self.last_step, self.step = first_step, last_step, first_step
        self.time, self.seconds_per_step, self.drawn = time.monotonic(), None, 0
        self.quiet, self.log_path, self.is_log_lost = quiet, log_path, False

    def update(self, step, images_per_step, device, **values):
        """Prints and logs the state of a training run, and returns the logged record.

        step:   number of steps so far
        values: what to log, including "epoch"; values whose names begin with "loss_" are also printed
        """
        if self.quiet:
            return
        now = time.monotonic()
        pace = (now - self.time) / (step - self.step)
        if self.seconds_per_step is None or self.step <= self.first_step + 1:
            self.seconds_per_step = pace  # the first step is a warm-up and is not averaged in
        self.seconds_per_step += 0.1 * (pace - self.seconds_per_step)  # smoothed over about ten updates
        self.step, self.time = step, now
        memory = memory_in_use(device)

        record = {"step": step, **values, "images_per_s": images_per_step / pace, "memory_gib": memory}
        self.note(record)

        losses = "  ".join(f"{k.removeprefix('loss_')} {v:.3f}" for k, v in values.items() if k.startswith("loss_"))
        left = duration(self.seconds_per_step * (self.last_step - step)) if step > self.first_step + 1 else "..."
        self.show(
            f"step {step}/{self.last_step}  ETA {left}  epoch {values['epoch'] + 1}  {losses}  "
            f"{images_per_step / self.seconds_per_step:.3g} img/s  {memory:.1f} GiB",
            bar=f"[{'#' * int(20 * step / self.last_step):.<20}] ",
        )
        return record

    def note(self, record):
        """Appends a dict to the log as one JSON line. Floats are rounded to six significant digits."""
        line = json.dumps({k: float(f"{v:.6g}") if type(v) is float else v for k, v in record.items()})
        try:
            append_line(self.log_path, line)
        except OSError as error:  # a full disk; the next checkpoint may find space again
            if not self.is_log_lost:
                self.end_line()
                print(f"note: {self.log_path}: {error.strerror}; training goes on without these lines", flush=True)
            self.is_log_lost = True

    def tick(self, done, total, unit, started, label=""):
        """Shows how many items are done and how long the others will take. Calls in quick succession are skipped.

        total:   number of items, or None if it is unknown
        unit:    name of the items, such as "images"
        started: time.monotonic() at the beginning
        """
        now = time.monotonic()
        if done != total and now - self.time < (0.2 if sys.stdout.isatty() else 30):
            return
        self.time = now
        pace = done / max(1e-9, now - started)
        left, share = (duration((total - done) / pace), done / total) if total and done else ("...", 0)
        line = f"{label}{done}/{total or '?'} {unit}  ETA {left}  {pace:.3g} {unit}/s"
        self.show(line, bar=f"[{'#' * int(20 * min(1, share)):.<20}] ")

    def show(self, line, bar):
        """Prints a line. A terminal that is wide enough also shows the progress bar `bar`."""
        if not sys.stdout.isatty():
            print(line, flush=True)
            return
        columns = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be redrawn
        line = (bar + line if len(bar + line) <= columns else line)[:columns]
        print("\r" + line.ljust(self.drawn), end="", flush=True)
        self.drawn = len(line)

    def end_line(self):
        """Moves below the redrawn line. Call this before printing anything else."""
        if self.drawn:
            print()
        self.drawn = 0
