"""
Presents the results of an evaluation: a table, curves over the epochs, sheets of the best and worst cases.
"""

import heapq
import math
import os
import textwrap

from inference.exported import is_exported
from media.sheets import draw_sheet
from utils import whole_file

# name in metrics.jsonl: (name in the table, unit, whether higher is better)
MEASURES = {
    "fid_test": ("FID to the target's test images", "", False),
    "fid_train_test": ("FID to the target's train+test images", "", False),
    "kid_test": ("KID to the target's test images", "x 1000", False),
    "kid_train_test": ("KID to the target's train+test images", "x 1000", False),
    "cycle_l1": ("cycle reconstruction, L1", "of 255", False),
    "cycle_lpips": ("cycle reconstruction, LPIPS", "", False),
    "identity_l1": ("identity mapping, L1", "of 255", False),
    "change_l1": ("input vs. translation, L1", "of 255", None),
    "change_lpips": ("input vs. translation, LPIPS", "", None),
    "paired_l1": ("paired ground truth, L1", "of 255", False),
    "paired_psnr": ("paired ground truth, PSNR", "dB", True),
    "paired_ssim": ("paired ground truth, SSIM", "", True),
    "paired_lpips": ("paired ground truth, LPIPS", "", False),
    "diversity_l1": ("between samples of one input, L1", "of 255", None),
    "diversity_lpips": ("between samples of one input, LPIPS", "", None),
    "best_l1": ("best sample to the truth, L1", "of 255", False),
    "mean_l1": ("mean over samples to the truth, L1", "of 255", False),
    "best_psnr": ("best sample to the truth, PSNR", "dB", True),
    "mean_psnr": ("mean over samples to the truth, PSNR", "dB", True),
    "best_ssim": ("best sample to the truth, SSIM", "", True),
    "mean_ssim": ("mean over samples to the truth, SSIM", "", True),
    "pixel_accuracy": ("labels: per-pixel accuracy", "0 to 1", True),
    "class_accuracy": ("labels: per-class accuracy", "0 to 1", True),
    "class_iou": ("labels: class IoU", "0 to 1", True),
    "class_accuracy_all": ("labels: per-class accuracy, absent as 0", "0 to 1", True),
    "class_iou_all": ("labels: class IoU, absent as 0", "0 to 1", True),
}
# those that are also given in the values of a domain with --range_A or --range_B: of the source or of the target
IN_VALUES = {"cycle_l1": 0, "identity_l1": 1, "paired_l1": 1}
BETTER = {True: " (higher is better)", False: " (lower is better)", None: ""}  # by the third entry of MEASURES
N_CASES = 4  # number of best cases in a sheet, and of worst cases


def is_of_run(record, dataset_name):
    """Whether a line of metrics.jsonl measures a generator of the run itself, on its own data set. evaluate.py appends
    the results of exported files and of other data to the same file.

    record: dict; dataset_name: as trained, None if unknown"""
    checkpoint, data = record.get("checkpoint"), record.get("data")
    if isinstance(checkpoint, str) and is_exported(checkpoint):
        return False
    return not dataset_name or not isinstance(data, str) or os.path.basename(os.path.normpath(data)) == dataset_name


def arrow(direction):
    """Formats a direction for display: "AB" becomes "A -> B"."""
    return f"{direction[0]} -> {direction[1]}"


def with_unit(title, unit):
    return f"{title}, {unit}" if unit else title


def results_table(results, untranslated, references, absent, ranges=None):
    """Formats the results of one checkpoint as lines of text.

    results:      {direction: {measure: value}}
    untranslated: the same for the input itself, shown below the measures that both contain
    references:   {title: scores} from labels.label_references; {} without labels
    absent:       names of the classes that do not occur in the true labels
    ranges:       {domain: (low, high) or None}, the values in the files that become 0 and 255
    """
    directions, in_values = list(results), results_in_values(results, ranges or {})
    lines = [" " * 48 + "".join(arrow(d).rjust(12) for d in directions)]
    for name, (title, unit, higher_is_better) in MEASURES.items():
        rows = [(with_unit(title, unit), results, BETTER[higher_is_better])]
        rows.append(("  in the values of the files", in_values, ""))
        rows.append(("  of the untranslated input", untranslated, ""))
        for label, values_of, better in rows:
            values = [values_of.get(d, {}).get(name) for d in directions]
            if any(value is not None for value in values):
                cells = ["-".rjust(12) if value is None else f"{value:12.4g}" for value in values]
                lines.append(f"{label:48}{''.join(cells)}{better}")
    if references:
        names = [MEASURES[name][0].removeprefix("labels: ") for name in next(iter(references.values()))]
        lines.append(f"for comparison, {' / '.join(names)}, of")
    for title, values in references.items():
        lines.append(f"  {title}: " + " / ".join(f"{value:.3f}" for value in values.values()))
    for direction, values in results.items():
        ious = ", ".join(f"{name} {value:.3f}" for name, value in values.get("iou_by_class", {}).items())
        lines += textwrap.wrap(f"{arrow(direction)}, IoU by class: {ious}", 110, subsequent_indent="  ") if ious else []
    if absent:
        lines.append(f"absent from the true labels: {', '.join(absent)}")
    return lines


def results_in_values(results, ranges):
    """The L1 errors of `results` in the values of their domain's files, where it has a range, see results_table."""
    found = {}
    for direction, values in results.items():
        for name, side in IN_VALUES.items():
            value_range = ranges.get(direction[side])
            if value_range and name in values:
                low, high = value_range
                found.setdefault(direction, {})[name] = values[name] / 255 * (high - low)
    return found


def before_and_after(rows, before, after):
    """Formats a comparison of two generators as lines of text.

    rows:          (label, value before, value after), listed first
    before, after: results as in results_table; measures that both contain are listed next
    """
    rows = list(rows)
    for direction, values in after.items():
        known = before.get(direction, {})
        for name, (title, unit, _) in MEASURES.items():
            if name in values and name in known:
                rows.append((f"{arrow(direction)}  {with_unit(title, unit)}", known[name], values[name]))
    lines = [f"{'':56}{'before':>10}{'after':>10}   after/before"]
    return lines + [f"{label:56}{a:10.4g}{b:10.4g}{f'{b / a:.3f}' if a else '-':>15}" for label, a, b in rows]


def draw_curves(history, path):
    """Plots every measure over the epochs into a PNG file. Prints a note if matplotlib is missing.

    history: {epoch: {direction: {measure: value}}}
    """
    try:
        import matplotlib
    except ImportError:
        print("note: no curves without matplotlib: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [n for n in MEASURES if any(n in values for results in history.values() for values in results.values())]
    rows = -(-len(names) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for name, axis in zip(names, axes.flat):
        title, unit, higher_is_better = MEASURES[name]
        axis.set_title(f"{title}{BETTER[higher_is_better]}", fontsize=9)
        axis.set(xlabel="epoch", ylabel=unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
        for direction in sorted(set().union(*history.values())):
            points = [(e, r[direction][name]) for e, r in history.items() if name in r.get(direction, {})]
            if points:
                axis.plot(*zip(*points), marker="o", label=arrow(direction))
        axis.legend()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)
    print(f"{path}: all measures over the epochs")


def best_epochs(history):
    """Formats which epoch is best by each measure as lines of text. history: see draw_curves."""
    lines = []
    for direction in sorted(set().union(*history.values())):
        for name, (title, _, higher_is_better) in MEASURES.items():
            values = {e: r[direction][name] for e, r in history.items() if name in r.get(direction, {})}
            if values and higher_is_better is not None:
                best = (max if higher_is_better else min)(values, key=values.get)
                lines.append(f"{arrow(direction)}  {title:38} epoch {best:>5}  {values[best]:10.4g}")
    return lines


class Cases:
    """Keeps the N_CASES images with the lowest error and the N_CASES with the highest, with their translations.

    title:   heading of the sheet
    columns: names of the images kept for each case
    unit:    of the errors, such as "of 255"
    """

    def __init__(self, title, columns, unit=""):
        self.title, self.columns, self.unit = title, columns, unit
        self.best, self.worst, self.n = [], [], 0

    def add(self, error, path, images):
        """Considers one case. Ignores an error of nan, which means that no pixel was scored.

        images: uint8 (C, H, W), one per column"""
        if math.isnan(error):
            return
        self.n += 1
        for heap, key in ((self.best, -error), (self.worst, error)):
            item = (key, self.n, error, path, images)  # the number breaks ties, because images cannot be compared
            if len(heap) < N_CASES:
                heapq.heappush(heap, item)
            elif item > heap[0]:
                heapq.heapreplace(heap, item)

    def save_sheet(self, path):
        """Writes a PNG file with one row per case, best first."""
        from torchvision.transforms.functional import to_pil_image  # here, because it takes seconds

        rows = []
        for which, _, error, name, images in self.ordered():
            value = f"{error:.4g} {self.unit}".rstrip()
            captions = [f"{which}: {value}  {os.path.basename(name)}", *self.columns[1:]]
            rows.append(list(zip(captions, (to_pil_image(image.cpu()) for image in images))))
        draw_sheet(path, rows, f"{self.title}: {' | '.join(self.columns)}")

    def ordered(self):
        """The cases by error -> list of ("best" or "worst", number, error, path, images). None is in it twice: of fewer
        images than the sheet has rows, the better half is best."""
        best = [("best", *item[1:]) for item in sorted(self.best, reverse=True)]
        worst = [("worst", *item[1:]) for item in sorted(self.worst)]
        if self.n >= 2 * N_CASES:
            return best + worst
        cases = {item[1]: item for item in worst + best}
        cases = sorted(cases.values(), key=lambda item: (item[2], item[1]))
        n_best = -(-len(cases) // 2)
        return [("best" if i < n_best else "worst", *item[1:]) for i, item in enumerate(cases)]
