"""
Plots the logs of one or more training runs in one image.

    python plot.py horse2zebra                    # saved_models/horse2zebra/log.jsonl -> images/horse2zebra/curves.png
    python plot.py demo demo.1 --output both.png  # compare two runs

Requires matplotlib: pip install matplotlib
"""

import json
import os

from command_line.parser import argument_parser, between
from command_line.run import run_script
from media.files import check_regular
from training.health import ADVICE, USUAL
from utils import InputError, whole_file

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


def get_parser():
    parser = argument_parser(
        "Plot the losses and other logged values of training runs.", "python plot.py NAME [NAME ...] [options]"
    )
    # fmt: off
    parser.add_argument("names", nargs="+", metavar="NAME", help="name of a run, a folder in saved_models")
    parser.add_argument("--output", help="PNG file to write (default: images/NAME/curves.png)")
    parser.add_argument("--smooth", type=between(0), default=200, help="number of steps to average losses over")
    # fmt: on
    return parser


def read_log(path):
    """Reads a log.jsonl -> list of records, dicts with "step". Skips incomplete lines, such as the last one of a run
    that was killed."""
    check_regular(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. NAME must be a run, a folder in saved_models")
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and is_number(record.get("step")) and record["step"] >= 0:
            records.append(valid(record))
    if not records:
        raise InputError(f"{path}: nothing has been logged yet")
    return records


def is_number(value):
    return type(value) in (int, float) and abs(value) < 1e30  # not NaN


def valid(record):
    """A record of a log without values that no run writes."""
    kept = {name: value for name, value in record.items() if is_number(value)}
    conditions = record.get("conditions")
    known = [c for c in conditions if isinstance(c, str) and c in ADVICE] if isinstance(conditions, list) else []
    return kept | ({"conditions": known} if known else {})


def curve(records, name, smooth=0):
    """The curve of one logged value -> (steps, values). Each value is the mean over about the last `smooth` steps."""
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), (int, float))]
    means = []
    for i, (step, value) in enumerate(points):
        # a logged value is the mean since the previous one, so weigh it by the steps in between
        recent = [(at - before, v) for (before, _), (at, v) in zip(points, points[1 : i + 1]) if at > step - smooth]
        n = sum(weight for weight, _ in recent)
        means.append(sum(weight * v for weight, v in recent) / n if n else value)
    return [step for step, _ in points], means


def draw_plots(logs, smooth, path):
    """Writes a PNG file with all plots of PLOTS for which there are values.

    logs:   {name of a run: records}
    smooth: number of steps to average losses over
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("plot.py: requires matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    logged = {name for records in logs.values() for record in records for name in record}
    shown = {"loss_G", *(name for names in PLOTS.values() for name in names or ())}  # loss_G is the sum of the others
    others = sorted(name for name in logged - shown if name.startswith("loss_"))
    plots = {title: [n for n in (others if names is None else names) if n in logged] for title, names in PLOTS.items()}
    plots = {title: names for title, names in plots.items() if names}
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
    """Draws the values `names` of all runs into one plot, an axis of matplotlib. Only losses are smoothed."""
    axis.set_xlabel("step")
    for run_name, records in logs.items():
        for name in names:
            steps, values = curve(records, name, smooth if name.startswith("loss_") else 0)
            if steps:
                label = {"tells": "D accuracy"}.get(name, name.removeprefix("loss_")) + (
                    f", {run_name}" if len(logs) > 1 else ""
                )
                axis.plot(steps, values, label=label, marker="." if len(steps) < 20 else None)
    if "loss_cycle" in names:  # the ranges of other losses depend on --gan_loss
        axis.axhspan(*USUAL["loss_cycle"], alpha=0.06, label="usual")
    axis.legend(fontsize=8)
    low, high = (f(0, *(f(line.get_ydata()) for line in axis.get_lines())) for f in (min, max))
    axis.set_ylim(low, low + 1.05 * (high - low) or 1)


def print_conditions(run_name, records):
    """Prints the problems that were found during a run, at which steps, and what to do about them."""
    steps_of = {}
    for record in records:
        for condition in record.get("conditions", ()):
            steps_of.setdefault(condition, []).append(record["step"])
    for condition, steps in steps_of.items():
        print(f"{run_name}: {condition} at step {', '.join(map(str, steps[:5]))}{', ...' if steps[5:] else ''}")
        print(f"  {ADVICE[condition]}")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    logs = {name: read_log(os.path.join("saved_models", name, "log.jsonl")) for name in opt.names}
    path = opt.output or os.path.join("images", opt.names[0], "curves.png")
    draw_plots(logs, opt.smooth, path)
    print(f"{path}: the curves of {', '.join(logs)}")
    for name, records in logs.items():
        print_conditions(name, records)


if __name__ == "__main__":
    run_script(main)
