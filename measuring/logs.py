"""
The logs of training runs, log.jsonl: reading them, plotting their curves, and what they say on the time of a run.
"""

import argparse
import contextlib
import json
import os
import types

from command_line.suggestions import name_runs
from media.reading import check_regular
from training.health import ADVICE, USUAL
from utils import InputError, whole_file
from variants.by_epoch import ratio_by_epoch
from variants.schedules import count_A

# Title of each plot -> the values of log.jsonl to draw in it. Plots without any logged value are omitted
PLOTS = {
    "discriminator and adversarial loss": ("loss_D", "loss_GAN"),
    "cycle loss, and on test images": ("loss_cycle", "val_cycle"),
    "identity loss, and on test images": ("loss_identity", "val_identity"),
    "other losses": None,  # all that are in no other plot
    "patches D classifies correctly, variety of translations": ("tells", "variety"),
    "change from input to translation, in gray levels of 255": ("change",),
    "learning rate of the generators": ("lr",),
    "training images per second": ("images_per_s",),
}
# where the name of a value is not what to call it
LABELS = {"tells": "D accuracy", "lr": "learning rate", "images_per_s": "images/s", "change": "gray levels",
          "val_cycle": "cycle, test images", "val_identity": "identity, test images"}  # fmt: skip
RECENT = 10  # records of the log that the pace is the mean of
STYLES = ("-", "--", ":", "-.")  # of the values in one plot, if there are several runs


def read_log(path):
    """Reads a log.jsonl -> (list of records, number of lines that were skipped). A record is a dict with "step", sorted
    by it. Skipped are damaged lines, such as the last one of a run that was killed. Raises InputError."""
    check_regular(path)
    if not os.path.isfile(path):
        name = os.path.basename(os.path.dirname(path))
        raise InputError(f"{path}: no such file. NAME must be a run in saved_models. {name_runs(name, 'log.jsonl')}")
    with open(path, encoding="utf-8", errors="replace") as file:
        found = [record_in(line) for line in file if line.strip()]
    records = [record for record in found if record]
    if not records:
        raise InputError(f"{path}: nothing has been logged yet")
    return sorted(records, key=lambda record: record["step"]), len(found) - len(records)


def record_in(line):
    """A line of log.jsonl -> dict, or None if the line is damaged. Values that are no finite numbers are left out."""
    try:
        record = json.loads(line)
        step, conditions = record["step"], record.get("conditions", [])
        if type(step) is not int or not 0 <= step < 2**53 or not isinstance(conditions, list):
            return None
        # no run writes values as large as 1e30, with which matplotlib cannot draw
        values = {k: float(v) for k, v in record.items() if type(v) in (int, float) and abs(v) < 1e30}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return values | {
        "step": step,
        "conditions": [name for name in conditions if isinstance(name, str)],
    }


def curve(records, name, smooth=0):
    """The curve of one logged value -> (steps, values). Each value is the mean over about the last `smooth` steps."""
    points = [(record["step"], record[name]) for record in records if name in record]
    means, n, total, first = [], 0, 0.0, 1  # of the window, which begins with point `first`
    for i, (step, value) in enumerate(points):
        if i:  # a logged value is the mean since the previous one, so weigh it by the steps in between
            n += step - points[i - 1][0]
            total += (step - points[i - 1][0]) * value
        while first <= i and points[first][0] <= step - smooth:
            weight = points[first][0] - points[first - 1][0]
            n, total, first = n - weight, total - weight * points[first][1], first + 1
            if abs(weight * points[first - 1][1]) > 1e6 * abs(total):  # nothing is left of the other digits
                window = range(first, i + 1)
                total = sum((points[k][0] - points[k - 1][0]) * points[k][1] for k in window)
        means.append(total / n if n else value)
    return [step for step, _ in points], means


def label_of(name):
    """What a logged value is called in a plot"""
    return LABELS.get(name, name.removeprefix("loss_"))


def names_by_plot(records):
    """-> {title of a plot: names of the logged values to draw in it}, without plots of which nothing was logged"""
    logged = {name for record in records for name in record}
    shown = {"loss_G", *(name for names in PLOTS.values() for name in names or ())}  # loss_G is the sum of the others
    others = sorted(name for name in logged - shown if name.startswith("loss_"))
    plots = {title: [n for n in (others if names is None else names) if n in logged] for title, names in PLOTS.items()}
    and_tests = ", and on test images"
    return {
        title if any(name.startswith("val_") for name in names) else title.removesuffix(and_tests): names
        for title, names in plots.items()
        if names
    }


def draw_plots(logs, smooth, path):
    """Writes a PNG file with all plots of PLOTS for which there are values.

    logs:   {name of a run: records}
    smooth: number of steps to average losses over
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("curves require matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    plots = names_by_plot(record for records in logs.values() for record in records)
    if not plots:
        raise InputError(f"{', '.join(logs)}: nothing has been logged that can be drawn")
    n_rows = -(-len(plots) // 2)
    figure, axes = pyplot.subplots(n_rows, 2, figsize=(12, 3 * n_rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(plots) :]:
        axis.remove()
    for (title, names), axis in zip(plots.items(), axes.flat):
        axis.set_title(title, fontsize=10)
        draw_curves(axis, names, logs, smooth)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)


def draw_curves(axis, names, logs, smooth):
    """Draws the values `names` of all runs into one plot, an axis of matplotlib. Only losses are smoothed. Of several
    runs, each has its colour in all plots, and each value its style of line."""
    axis.set_xlabel("step")
    lines = []
    for i, (run_name, records) in enumerate(logs.items()):
        for j, name in enumerate(names):
            steps, values = curve(records, name, smooth if name.startswith("loss_") else 0)
            if steps:
                several = len(logs) > 1
                words = [label_of(name)] * (len(names) > 1 or not several)
                label = ", ".join(words + [run_name] * several)
                colour, style = f"C{(i if several else j) % 10}", STYLES[j % len(STYLES)] if several else "-"
                lines += axis.plot(steps, values, label=label, color=colour, linestyle=style, marker=".")
    if max((len(line.get_xdata()) for line in lines), default=0) >= 20:
        for line in lines:  # a single value is visible, and many are not a thick line
            line.set_markevery([-1])
    if "loss_cycle" in names:  # the ranges of other losses depend on --gan_loss
        axis.axhspan(*USUAL["loss_cycle"], alpha=0.06, label="usual")
    axis.legend(fontsize=8)
    low, high = (f(0, *(f(line.get_ydata()) for line in lines)) for f in (min, max))
    axis.set_ylim(low, low + 1.05 * (high - low) or 1)


def conditions_of(records):
    """-> list of (problem that was found during a run, the steps at which, what to do about it)"""
    steps_of = {}
    for record in records:
        for condition in record.get("conditions", ()):
            if condition in ADVICE:
                steps_of.setdefault(condition, []).append(int(record["step"]))
    return [(condition, steps, ADVICE[condition]) for condition, steps in steps_of.items()]


##############################
#   The time of a run
##############################


def last_step(record, records):
    """The step at which a run ends, None if that is unknown.

    record:  contents of options.json, a dict with "options"; its values may be anything
    records: of read_log
    """
    options = record["options"]
    if positive(options.get("n_iters")):
        return options["n_iters"]
    n_epochs, steps = options.get("n_epochs"), steps_per_epoch(record, records)
    return n_epochs * steps if positive(n_epochs) and steps else None


def steps_per_epoch(record, records):
    """None if unknown. It depends on the number of processes, which options.json does not hold, but which follows from the
    log: that says the epoch of each step."""
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


def images_per_step(record, records):
    """-> function (epoch) -> how many images a step of it sees, of both domains, in all processes; as far as is known"""
    options, n_steps = record["options"], steps_per_epoch(record, records)
    known = {name: options[name] for name in ("batch_size", "accumulate", "n_epochs") if positive(options.get(name))}
    opt = types.SimpleNamespace(**dict(batch_size=1, accumulate=1, n_epochs=1, ratio_A=None) | known)
    with contextlib.suppress(argparse.ArgumentTypeError, AttributeError, TypeError):
        opt.ratio_A = ratio_by_epoch(options["ratio_A"]) if options.get("ratio_A") else None
    n_B, n_processes = opt.batch_size * opt.accumulate, 1
    if n_steps:
        n_processes = max(1, max(record["data"]["A"], record["data"]["B"]) // (n_B * n_steps))
    return lambda epoch: (count_A(opt, epoch) + n_B) * n_processes


def paces_of(record, records):
    """-> list of (record of the log, seconds of a step), of the records that say how fast the training was"""
    n_images = images_per_step(record, records)
    # a pace of almost 0 would make the time infinite
    timed = [one for one in records if one.get("images_per_s", 0) > 1e-6]
    return [(one, n_images(int(one.get("epoch", 0))) / one["images_per_s"]) for one in timed]


def seconds_left(record, records, since=0.0):
    """The seconds that a run will still take; None if that is unknown.

    since: seconds since the last record
    """
    last, paces = last_step(record, records), [pace for _, pace in paces_of(record, records)]
    if not last or not steps_per_epoch(record, records) or len(paces) < 2:
        return None
    recent = paces[1:][-RECENT:]  # the first step is a warm-up
    return max(0.0, (last - records[-1]["step"]) * sum(recent) / len(recent) - since)


def seconds_taken(record, records):
    """The seconds that a run has trained, without samples, checkpoints and pauses between two commands"""
    seconds, before = 0.0, 0
    for one, pace in paces_of(record, records):
        seconds, before = seconds + pace * (one["step"] - before), one["step"]
    return seconds
