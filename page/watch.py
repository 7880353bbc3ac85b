"""
What a training run has logged so far.
"""

import dataclasses
import math
import os
import time

from command_line.progress import roughly
from measuring.logs import LABELS, PLOTS, conditions_of, curve, read_log
from media.images import load_image
from page.models_found import Models, is_running, modified
from training.health import SETTLED, Health
from utils import InputError

N_POINTS = 400  # of a curve, at most
RECENT = 10  # records that the pace is the mean of


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
    return Seen(describe(run, running, step, last, left), step, health_of(record, records), plots_of(records, smooth))


def describe(run, running, step, last, left):
    """The line on a run. last: its last step, left: seconds that it will still take; None if unknown"""
    of = f"step {step:,}" + (f" of {last:,}" if last else "")
    if not running:
        return f"{run}: {'finished' if last and step >= last else 'not training'}, {of}"
    return f"{run}: training, {of}" + (f", about {roughly(left)} left" if left is not None else "")


##############################
#   The remaining time
##############################


def last_step(record, records):
    """The step at which a run ends, None if that is unknown. Its options and its number of images are in the `record` of
    options.json. The number of processes is not, but follows from the log: it says the epoch of each step."""
    options = record["options"]
    if positive(options.get("n_iters")):
        return options["n_iters"]
    n_epochs, steps = options.get("n_epochs"), steps_per_epoch(record, records)
    return n_epochs * steps if positive(n_epochs) and steps else None


def steps_per_epoch(record, records):
    options, data = record["options"], record.get("data")
    counts = [data.get(domain) for domain in "AB"] if isinstance(data, dict) else [None]
    batch = [options.get("batch_size"), options.get("accumulate", 1)]
    if not all(map(positive, counts + batch)):
        return None
    epochs = [(one["step"], int(one["epoch"])) for one in records if "epoch" in one and one["step"] > 0]
    for n_processes in range(1, 257):
        steps = max(counts) // (batch[0] * batch[1] * n_processes)
        # epoch e, counted from 0, has the steps e * steps + 1 to (e + 1) * steps
        if steps and all(epoch * steps < step <= (epoch + 1) * steps for step, epoch in epochs if step):
            return steps
    return None


def positive(value):
    return type(value) is int and 0 < value < 10**9


def seconds_left(record, records, since=0.0):
    """The seconds that a run will still take; None if that is unknown.

    since: seconds since the last record
    """
    last, options = last_step(record, records), record["options"]
    n_steps, paces = (
        steps_per_epoch(record, records),
        [one["images_per_s"] for one in records if one.get("images_per_s")],
    )
    batch = [options.get("batch_size"), options.get("accumulate", 1)]
    if not last or not n_steps or len(paces) < 2 or not all(map(positive, batch)):
        return None
    n_processes = max(record["data"]["A"], record["data"]["B"]) // (batch[0] * batch[1] * n_steps)
    images_per_step = 2 * batch[0] * batch[1] * max(1, n_processes)
    recent = paces[1:][-RECENT:]  # the first step is a warm-up
    seconds_per_step = images_per_step * sum(1 / pace for pace in recent) / len(recent)
    left = (last - records[-1]["step"]) * seconds_per_step - since
    return max(0.0, left) if math.isfinite(left) else None


##############################
#   Curves and health
##############################


def plots_of(records, smooth):
    """-> {title: list of (label, steps, values)}, the plots of measuring.plot, thinned out to N_POINTS a curve"""
    logged = {name for record in records for name in record}
    shown = {"loss_G", *(name for names in PLOTS.values() for name in names or ())}  # loss_G is the sum of the others
    others = sorted(name for name in logged - shown if name.startswith("loss_"))
    plots = {}
    for title, names in PLOTS.items():
        for name in others if names is None else names:
            steps, values = curve(records, name, smooth if name.startswith("loss_") else 0)
            if steps:
                label = LABELS.get(name, name.removeprefix("loss_"))
                plots.setdefault(title, []).append((label, *thinned(steps, values)))
    return plots


def thinned(steps, values):
    """At most N_POINTS points of a curve, evenly spaced, with the last one"""
    stride = -(-len(steps) // N_POINTS)
    chosen = range((len(steps) - 1) % stride, len(steps), stride)
    return [steps[i] for i in chosen], [values[i] for i in chosen]


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
