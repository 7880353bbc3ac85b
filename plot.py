"""
Draws the curves of one or more trainings into one picture, from what they logged.

    python plot.py horse2zebra                    # saved_models/horse2zebra/log.jsonl -> images/horse2zebra/curves.png
    python plot.py demo demo.1 --output both.png  # two runs, in the same plots

Needs matplotlib: pip install matplotlib
"""

import argparse
import json
import os

from command_line.parser import between
from command_line.run import run_script
from training.health import ADVICE, USUAL
from utils import InputError, whole_file

# Title of each plot -> the values of log.jsonl that it shows, as far as they are there
PLOTS = {
    "discriminators and adversarial loss": ("loss_D", "loss_GAN"),
    "cycle loss, and on test images": ("loss_cycle", "val_cycle"),
    "identity loss, and on test images": ("loss_identity", "val_identity"),
    "other losses": ("loss_ssim", "loss_freq", "loss_perceptual", "loss_style", "loss_feat", "loss_paired"),
    "patches that D tells right, variety of translations": ("tells", "variety"),
    "change from input to translation, of 255": ("change",),
    "learning rate of the generators": ("lr",),
    "training images per second": ("images_per_s",),
}


def get_parser():
    parser = argparse.ArgumentParser(description="Draw the curves of trainings. In brackets: the default.")
    # fmt: off
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a run: a folder in saved_models")
    parser.add_argument("--output", help="PNG file (images/NAME/curves.png)")
    parser.add_argument("--smooth", type=between(0), default=200, help="steps to average losses over (%(default)s)")
    # fmt: on
    return parser


def read_log(path):
    """-> list of records, dicts with "step"; a last line that was cut off is left out."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. NAME is a run, a folder in saved_models")
    records = []
    for line in lines:
        try:
            record = json.loads(line)
            records.append((record["step"], record))
        except (ValueError, KeyError, TypeError):
            continue
    if not records:
        raise InputError(f"{path}: nothing has been logged yet")
    return [record for _, record in records]


def curve(records, name, smooth=0):
    """-> (steps, values) of one value; each the mean over the last `smooth` steps, a few more or less."""
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), (int, float))]
    means = []
    for i, (step, value) in enumerate(points):
        # what was logged at a step is the mean since the one before
        recent = [(at - before, v) for (before, _), (at, v) in zip(points, points[1 : i + 1]) if at > step - smooth]
        n = sum(weight for weight, _ in recent)
        means.append(sum(weight * v for weight, v in recent) / n if n else value)
    return [step for step, _ in points], means


def draw(logs, smooth, path):
    """logs: {name of the run: records}"""
    try:
        import matplotlib
    except ImportError:
        raise InputError("plot.py: needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    logged = {name for records in logs.values() for record in records for name in record}
    plots = {title: [name for name in names if name in logged] for title, names in PLOTS.items()}
    plots = {title: names for title, names in plots.items() if names}
    rows = -(-len(plots) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(plots) :]:
        axis.remove()
    for (title, names), axis in zip(plots.items(), axes.flat):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        for run_name, records in logs.items():
            for name in names:
                steps, values = curve(records, name, smooth if name.startswith("loss_") else 0)
                if not steps:
                    continue
                label = name.removeprefix("loss_") + (f", {run_name}" if len(logs) > 1 else "")
                axis.plot(steps, values, label=label, marker="." if len(steps) < 20 else None)
        if "loss_cycle" in names:  # the others' ranges depend on --gan_loss
            axis.axhspan(*USUAL["loss_cycle"], alpha=0.06, label="usual")
        axis.legend(fontsize=8)
        axis.set_ylim(bottom=min(0, *(min(line.get_ydata()) for line in axis.get_lines())))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)


def main(argv=None):
    opt = get_parser().parse_args(argv)
    logs = {name: read_log(os.path.join("saved_models", name, "log.jsonl")) for name in opt.names}
    path = opt.output or os.path.join("images", opt.names[0], "curves.png")
    draw(logs, opt.smooth, path)
    print(f"{path}: the curves of {', '.join(logs)}")
    for name, records in logs.items():
        found = [(record["step"], condition) for record in records for condition in record.get("conditions", ())]
        for condition in dict.fromkeys(condition for _, condition in found):
            steps = [step for step, c in found if c == condition]
            print(f"{name}: {condition} at step {', '.join(map(str, steps[:5]))}{' …' if steps[5:] else ''}")
            print(f"  {ADVICE[condition]}")


if __name__ == "__main__":
    run_script(main)
