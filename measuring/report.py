"""
What evaluate.py shows: a table, curves over the epochs, sheets of the best and worst cases. And what a network sees.
"""

import heapq
import math
import os

from torchvision.transforms.functional import to_pil_image

from media.sheets import draw_sheet
from utils import whole_file

# name in the JSON line: (name in the table, unit, whether more is better)
MEASURES = {
    "fid_test": ("FID to the target's test images", "", False),
    "fid_train_test": ("FID to its train and test images", "", False),
    "kid_test": ("KID to the target's test images", "x 1000", False),
    "kid_train_test": ("KID to its train and test images", "x 1000", False),
    "cycle_l1": ("cycle: there and back, L1", "of 255", False),
    "cycle_lpips": ("cycle: there and back, LPIPS", "", False),
    "identity_l1": ("identity: the target's images, L1", "of 255", False),
    "change_lpips": ("input to translation, LPIPS", "", None),
    "paired_l1": ("true counterpart, L1", "of 255", False),
    "paired_psnr": ("true counterpart, PSNR", "dB", True),
    "paired_ssim": ("true counterpart, SSIM", "", True),
    "paired_lpips": ("true counterpart, LPIPS", "", False),
    "pixel_accuracy": ("labels: per-pixel accuracy", "", True),
    "class_accuracy": ("labels: per-class accuracy", "", True),
    "class_iou": ("labels: class IoU", "", True),
}
BETTER = {True: "  (more is better)", False: "  (less is better)", None: ""}
N_CASES = 4  # best and worst ones that are drawn, each


def with_unit(title, unit):
    return f"{title}, {unit}" if unit else title


def table(results, references):
    """results: {direction: {measure: value}} -> lines of text."""
    columns = list(results)
    lines = [" " * 42 + "".join(f"{d[0]} -> {d[1]}".rjust(12) for d in columns)]
    for name, (title, unit, more_is_better) in MEASURES.items():
        if any(name in results[d] for d in columns):
            values = [f"{results[d][name]:12.4g}" if name in results[d] else " " * 11 + "-" for d in columns]
            lines.append(f"{with_unit(title, unit):42}{''.join(values)}{BETTER[more_is_better]}")
    if references:
        lines.append("for comparison, per-pixel accuracy / per-class accuracy / class IoU of")
    for title, values in references.items():
        lines.append(f"  {title}: " + " / ".join(f"{value:.3f}" for value in values.values()))
    return lines


def before_and_after(rows, before, after):
    """rows: (label, value before, value after); before, after: as `results` of table() -> lines of text, of the rows
    and of the measures that both have."""
    rows = list(rows)
    for direction, values in after.items():
        known = before.get(direction, {})
        for name, (title, unit, _) in MEASURES.items():
            if name in values and name in known:
                label = f"{direction[0]} -> {direction[1]}  {with_unit(title, unit)}"
                rows.append((label, known[name], values[name]))
    lines = [f"{'':52}{'before':>10}{'after':>10}   after/before"]
    return lines + [f"{label:52}{a:10.4g}{b:10.4g}{f'{b / a:.3f}' if a else '-':>15}" for label, a, b in rows]


def draw_curves(history, path):
    """history: {epoch: {direction: {measure: value}}} -> a PNG, one plot a measure."""
    try:
        import matplotlib
    except ImportError:
        print("note: no curves: pip install matplotlib")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [n for n in MEASURES if any(n in values for results in history.values() for values in results.values())]
    rows = -(-len(names) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 3 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for name, axis in zip(names, axes.flat):
        title, unit, more_is_better = MEASURES[name]
        axis.set_title(f"{title}{BETTER[more_is_better]}", fontsize=9)
        axis.set(xlabel="epoch", ylabel=unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
        for direction in sorted(set().union(*history.values())):
            points = [(e, r[direction][name]) for e, r in history.items() if name in r.get(direction, {})]
            if points:
                axis.plot(*zip(*points), marker="o", label=f"{direction[0]} -> {direction[1]}")
        axis.legend()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)
    print(f"{path}: every measure over the epochs")


def best_epochs(history):
    """history as for draw_curves -> lines: which epoch is best by which measure."""
    lines = []
    for direction in sorted(set().union(*history.values())):
        for name, (title, _, more_is_better) in MEASURES.items():
            values = {e: r[direction][name] for e, r in history.items() if name in r.get(direction, {})}
            if values and more_is_better is not None:
                best = (max if more_is_better else min)(values, key=values.get)
                lines.append(f"{direction[0]} -> {direction[1]}  {title:36} epoch {best:>5}  {values[best]:10.4g}")
    return lines


class Cases:
    """Keeps the pictures of the N_CASES best and worst images, by a badness.

    columns: what the pictures of an image are"""

    def __init__(self, title, columns):
        self.title, self.columns = title, columns
        self.best, self.worst, self.n = [], [], 0

    def add(self, badness, path, pictures):
        """pictures: uint8 (C, H, W) each. A badness that is nan, as nothing in the image counts, is left out."""
        if math.isnan(badness):
            return
        self.n += 1
        for heap, key in ((self.best, -badness), (self.worst, badness)):
            item = (key, self.n, badness, path, pictures)  # the number decides between equals; pictures cannot
            if len(heap) < N_CASES:
                heapq.heappush(heap, item)
            elif item > heap[0]:
                heapq.heapreplace(heap, item)

    def draw(self, path):
        """Writes a sheet, one row a case."""
        rows = []
        for which, items in (("best", sorted(self.best, reverse=True)), ("worst", sorted(self.worst))):
            for _, _, badness, name, pictures in items:
                captions = [f"{which}: {badness:.4g}  {os.path.basename(name)}", *self.columns[1:]]
                rows.append(list(zip(captions, (to_pil_image(picture.cpu()) for picture in pictures))))
        draw_sheet(path, rows, f"{self.title}: {' | '.join(self.columns)}")
