"""
Progress of a long computation: speed, remaining time, memory and losses.
"""

import json
import sys
import time

import torch

from command_line.output import append_line
from command_line.terminal import coloured, columns, fit

BAR = 10  # characters of the bar


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


def three_digits(number):
    """Formats a rate: 0.0123, 8.71, 123, 4321. ('.3g' would write the last one as 4.32e+03.)"""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def roughly(seconds):
    """A duration in words: 'a minute', '12 minutes', '2.5 hours', '16 days'."""
    if seconds < 90:
        return "a minute"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.2g} hours" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


class Progress:
    """Shows progress as one line that is redrawn in a terminal, or as separate lines in a file or pipe.

    Training calls `update`, which also logs, and after each step `between`. Commands that only count call `tick`, and
    need no arguments here.

    log_path:   JSON lines file that `update` and `note` append to
    first_step: step that the run starts from, above 0 if it is resumed
    last_step:  step at which the run ends
    quiet:      if True, `update` neither prints nor logs
    """

    def __init__(self, log_path=None, first_step=0, last_step=0, quiet=False):
        self.first_step, self.last_step, self.step = first_step, last_step, first_step
        self.time, self.seconds_per_step, self.drawn = time.monotonic(), None, 0
        self.shown, self.pause, self.rest = self.time, 5, ()  # when the last line was shown, for `between`
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

        losses = [f"{k.removeprefix('loss_')} {v:.3f}" for k, v in values.items() if k.startswith("loss_")]
        speed = f"{three_digits(images_per_step / self.seconds_per_step)} img/s"
        self.rest = (f"epoch {values['epoch'] + 1}", *losses, speed, f"{memory:.1f} GiB")
        self.show_step(step, self.seconds_per_step if step > self.first_step + 1 or pace > 1 else None)
        return record

    def between(self, step):
        """Shows how far a training run is since the last `update`, if the time for that has come: at once in a terminal;
        in a file after 5 seconds without a line, 10, 20, and so on up to a minute."""
        now = time.monotonic()
        if self.quiet or step <= self.step or now - self.shown < (0.2 if sys.stdout.isatty() else self.pause):
            return
        self.pause = min(60, 2 * self.pause)
        is_warm = self.seconds_per_step and self.step > self.first_step + 1
        self.show_step(step, self.seconds_per_step if is_warm else (now - self.time) / (step - self.step))

    def show_step(self, step, pace):
        """Shows the line of a training run. pace: seconds per step, or None if it is unknown"""
        left = duration(pace * (self.last_step - step)) if pace else "..."
        self.show([f"step {step}/{self.last_step}", f"ETA {left}", *self.rest], step / max(1, self.last_step))

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
        self.show([f"{label}{done}/{total or '?'} {unit}", f"ETA {left}", f"{three_digits(pace)} {unit}/s"], share)

    def show(self, fields, share):
        """Prints fields in a line. A terminal also shows a bar before them, and leaves out those that do not fit.

        share: what is done, from 0 to 1"""
        self.shown = time.monotonic()
        width = columns()
        if width is None:
            print("  ".join(fields), flush=True)
            return
        done, length = "#" * int(BAR * min(1, share)), BAR + 3 if width > BAR + 20 else 0
        line = fit(fields, width - 1 - length)  # a line that wraps cannot be redrawn
        bar = f"[{coloured(done, 'green')}{'.' * (BAR - len(done))}] " if length else ""
        print("\r" + bar + line + " " * (self.drawn - length - len(line)), end="", flush=True)
        self.drawn = length + len(line)

    def end_line(self):
        """Moves below the redrawn line. Call this before printing anything else."""
        if self.drawn:
            print()
        self.drawn = 0
