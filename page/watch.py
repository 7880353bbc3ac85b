"""
What a training run has logged so far.
"""

import dataclasses
import os
import time

from command_line.progress import roughly
from measuring.curves import plots_of
from measuring.logs import conditions_of, last_step, read_log, seconds_left
from media.images import load_image
from page.models_found import Models, is_running, modified
from training.health import SETTLED, Health
from utils import InputError


@dataclasses.dataclass
class Seen:
    """The state of a run.

    status: one line: whether it is training, the step, the remaining time
    step:   of the last record, 0 without any
    health: the lines that training has printed last on its health, then earlier problems with advice
    plots:  {title: list of (label, steps, values)}
    """

    status: str
    step: int = 0
    health: list = dataclasses.field(default_factory=list)
    plots: dict = dataclasses.field(default_factory=dict)


def signature(models: Models, run):
    """What changes when there is something new to see of a run. Raises InputError if there is no such run."""
    folder = models.folder_of(run)
    log = os.path.join(folder, "log.jsonl")
    size = os.path.getsize(log) if os.path.isfile(log) else 0
    return run, size, modified(log), is_running(folder), len(models.grids(run))


def look_at(models: Models, run, smooth=SETTLED, now=None):
    """-> Seen. Raises InputError if there is no such run.

    smooth: number of steps to average losses over
    now:    time.time()
    """
    folder, record = models.folder_of(run), models.record(run)
    log, now = os.path.join(folder, "log.jsonl"), time.time() if now is None else now
    running = is_running(folder, now)
    try:
        records, _ = read_log(log)
    except InputError:
        return Seen(f"{run}: {'training has begun; nothing' if running else 'nothing'} has been logged yet")
    step, last = records[-1]["step"], last_step(record, records)
    left = seconds_left(record, records, max(0.0, now - modified(log))) if running else None
    return Seen(
        describe(run, running, step, last, left), step, health_of(record, records), plots_of({run: records}, smooth)
    )


def describe(run, running, step, last, left):
    """The line on a run. last: its last step, left: seconds that it will still take; None if unknown"""
    of = f"step {step:,}" + (f" of {last:,}" if last else "")
    if not running:
        return f"{run}: {'finished' if last and step >= last else 'not training'}, {of}"
    return f"{run}: training, {of}" + (f", about {roughly(left)} left" if left is not None else "")


##############################
#   Health
##############################


def health_of(record, records):
    """-> lines: what training has printed last on its health, and problems that it found earlier"""
    looks = [one for one in records if "tells" in one and "variety" in one]
    lines = []
    if looks:
        options, last = record["options"], looks[-1]
        cycle = options.get("lambda_cyc", 10.0)
        health = Health(options.get("gan_loss", "lsgan"), cycle if isinstance(cycle, (int, float)) else 10.0)
        losses = [one for one in records if one["step"] <= last["step"] and any(k.startswith("loss_") for k in one)]
        for one in losses:
            health.losses(one["step"], {name: value for name, value in one.items() if name.startswith("loss_")})
        health.measures = {"inverts": 0.0} | last
        health.few_colours = [d for d in ("AB", "BA") if f"colours collapse, {d[0]} -> {d[1]}" in last["conditions"]]
        lines = health.line(last["step"])
    now = looks[-1]["conditions"] if looks else ()
    for condition, steps, advice in conditions_of(records):
        if condition not in now:
            lines.append(f"earlier, at step {steps[-1]}: {condition}: {advice}")
    return lines


def grid_of(models: Models, run, step):
    """-> uint8 (H, W, 3), a sample grid. Raises InputError."""
    return load_image(models.grid(run, step))
