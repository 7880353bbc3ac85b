"""
When to stop: do measures that need no true answer choose the same epoch as the truth does?

    python -m benchmarks.stopping saved_models/NAME

NAME is a run on data with test pairs, trained with --checkpoint_interval 1 and measured by evaluate.py with
--all_checkpoints and --paired.

Reads metrics.jsonl and log.jsonl of a run on data with test pairs. For each measure it prints how well its order of the
epochs agrees with that of L1 to the truth, the epoch that it chooses, and what that costs.
"""

import os

from benchmarks.runs import read_results
from command_line.parser import argument_parser
from command_line.run import run_script
from measuring.results import MEASURES, arrow
from utils import InputError, whole_file

# measures of evaluate.py that need no truth
WITHOUT_TRUTH = ("fid_test", "fid_train_test", "kid_test", "kid_train_test", "cycle_l1", "identity_l1")
# entries of log.jsonl; of each the last value before the end of the epoch counts
LOGGED = {"loss_GAN": "GAN loss of the generators", "loss_G": "loss of the generators", "tells": "D accuracy"}


def get_parser():
    parser = argument_parser(
        "Compare measures without truth to L1 to the truth.", "python -m benchmarks.stopping FOLDER"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder of a run, with metrics.jsonl of evaluate.py --all_checkpoints"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="write the curves to this PNG file, too (pip install matplotlib)"
    )
    return parser


def read_lines(path):
    """-> list of the JSON objects in a file, see runs.read_results. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file. Run evaluate.py --all_checkpoints --paired first")
    return read_results(path)


def read_epochs(folder):
    """-> {direction: {measure: {epoch: value}}}, with "paired_l1", "epoch" and what is in WITHOUT_TRUTH and LOGGED"""
    found = {}
    for record in read_lines(os.path.join(folder, "metrics.jsonl")):
        for direction, values in record["results"].items() if record["epoch"] is not None else ():
            by_measure = found.setdefault(direction, {})
            known = {name: values[name] for name in ("paired_l1", *WITHOUT_TRUTH) if name in values}
            for name, value in (known | {"epoch": record["epoch"]}).items():
                by_measure.setdefault(name, {})[record["epoch"]] = value
    if not any("paired_l1" in measures for measures in found.values()):
        raise InputError(
            f"{folder}/metrics.jsonl: has no L1 to the truth by epoch. Run evaluate.py --all_checkpoints --paired"
        )
    last_epoch = 0
    for record in read_lines(os.path.join(folder, "log.jsonl")):
        last_epoch = record.get("epoch", last_epoch)  # health lines have none, and come after the losses of their step
        for measures in found.values():
            for name in LOGGED.keys() & record.keys():
                measures.setdefault(name, {})[last_epoch + 1] = record[name]
    return found


def ranks(values):
    """-> the rank of each value, from 1; equal values share the mean of their ranks"""
    order = sorted(values)
    return [order.index(value) + (order.count(value) + 1) / 2 for value in values]


def rank_correlation(x, y):
    """Spearman's rank correlation: 1 if two lists of numbers have the same order, -1 if the reverse. 0 if one of them is
    constant."""
    a, b = ranks(x), ranks(y)
    mean = (len(a) + 1) / 2
    products = [sum((p - mean) * (q - mean) for p, q in zip(*pair)) for pair in ((a, b), (a, a), (b, b))]
    return products[0] / (products[1] * products[2]) ** 0.5 if products[1] * products[2] else 0.0


def judge(measures):
    """-> {measure: (rank correlation with L1 to the truth, the epoch it chooses, L1 to the truth there)}, and under
    "paired_l1" the best epoch. measures: {measure: {epoch: value}}"""
    truth, rows = measures["paired_l1"], {}
    for name, values in measures.items():
        epochs = sorted(truth.keys() & values.keys())
        if len(epochs) < 3:
            continue
        # lower is better, except for the last epoch, and D should be no better than chance
        better = {"epoch": lambda value: -value, "tells": lambda value: abs(value - 0.5)}.get(name, lambda value: value)
        errors = [better(values[epoch]) for epoch in epochs]
        chosen = epochs[errors.index(min(errors))]
        rows[name] = rank_correlation(errors, [truth[epoch] for epoch in epochs]), chosen, truth[chosen]
    return rows


def title(name):
    if name == "epoch":
        return "the last epoch"
    return LOGGED.get(name) or MEASURES[name][0]


def table(found):
    """Lines of a Markdown table. found: see read_epochs"""
    lines = [
        "| | measure | rank correlation with the truth | chooses epoch | L1 to the truth there |",
        "|---|---|---|---|---|",
    ]
    for direction, measures in sorted(found.items()):
        rows = judge(measures)
        for name, (correlation, epoch, l1) in rows.items():
            agrees = "" if name == "paired_l1" else f"{correlation:+.2f}"
            lines.append(f"| {arrow(direction)} | {title(name)} | {agrees} | {epoch} | {l1:.2f} |")
    return lines


def draw(found, path):
    """Plots L1 to the truth and each other measure over the epochs, one panel for each direction, all scaled to the same
    height."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("--plot: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(found), 1, figsize=(9, 3.2 * len(found)), squeeze=False, layout="constrained")
    for (direction, measures), axis in zip(sorted(found.items()), axes.flat):
        axis.set(title=arrow(direction), xlabel="epoch", ylabel="lowest 0, highest 1")
        for name in judge(measures):
            if name == "epoch":
                continue
            epochs, values = zip(*sorted(measures[name].items()))
            low, high = min(values), max(values)
            scaled = [(value - low) / (high - low or 1) for value in values]
            is_truth = name == "paired_l1"
            style = dict(color="black", linewidth=3) if is_truth else dict(linewidth=1.2)
            axis.plot(epochs, scaled, label=title(name), **style)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)
    print(path)


def main(argv=None):
    opt = get_parser().parse_args(argv)
    found = read_epochs(opt.folder)
    print("\n".join(table(found)))
    if opt.plot:
        draw(found, opt.plot)


if __name__ == "__main__":
    run_script(main)
