"""
What evaluate.py shows: a table, curves over the epochs, and sheets of the best and worst cases.
"""

import heapq
import os

from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_pil_image

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
N_CASES = 4  # best and worst ones that are drawn, each


def table(results, references):
    """results: {direction: {measure: value}} -> lines of text."""
    columns = list(results)
    lines = [" " * 42 + "".join(f"{d[0]} -> {d[1]}".rjust(12) for d in columns)]
    for name, (title, unit, more_is_better) in MEASURES.items():
        if any(name in results[d] for d in columns):
            values = [f"{results[d][name]:12.4g}" if name in results[d] else " " * 11 + "-" for d in columns]
            better = {True: "more is better", False: "less is better", None: ""}[more_is_better]
            lines.append(f"{title + (f', {unit}' if unit else ''):42}{''.join(values)}   {better}".rstrip())
    for title, values in references.items():
        lines.append(f"  {title}: " + " / ".join(f"{value:.3f}" for value in values.values()))
    return lines


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
        title, unit, _ = MEASURES[name]
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="epoch", ylabel=unit)
        for direction in next(iter(history.values())):
            points = [(e, results[direction][name]) for e, results in history.items() if name in results[direction]]
            if points:
                axis.plot(*zip(*points), marker="o", label=f"{direction[0]} -> {direction[1]}")
        axis.legend()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    figure.savefig(path + ".tmp", format="png", dpi=100)
    pyplot.close(figure)
    os.replace(path + ".tmp", path)
    print(f"{path}: every measure over the epochs")


def best_epochs(history):
    """history as for draw_curves -> lines: which epoch is best by which measure."""
    lines = []
    for direction in next(iter(history.values())):
        for name, (title, _, more_is_better) in MEASURES.items():
            values = {e: r[direction][name] for e, r in history.items() if name in r[direction]}
            if values and more_is_better is not None:
                best = (max if more_is_better else min)(values, key=values.get)
                lines.append(f"{direction[0]} -> {direction[1]}  {title:36} epoch {best:>5}  {values[best]:10.4g}")
    return lines


class Cases:
    """Keeps the pictures of the N_CASES best and worst images, by a badness."""

    def __init__(self):
        self.best, self.worst, self.n = [], [], 0

    def add(self, badness, path, pictures):
        """pictures: uint8 (C, H, W) each"""
        self.n += 1
        for heap, key in ((self.best, -badness), (self.worst, badness)):
            item = (key, self.n, badness, path, pictures)  # the number decides between equals; pictures cannot
            if len(heap) < N_CASES:
                heapq.heappush(heap, item)
            elif item > heap[0]:
                heapq.heapreplace(heap, item)

    def draw(self, path, title):
        """A sheet, one row a case."""
        rows = [("best", *item) for item in sorted(self.best, reverse=True)]
        rows += [("worst", *item) for item in sorted(self.worst)]
        _, height, width = rows[0][-1][0].shape
        line = 14  # of text, in pixels
        sheet = Image.new("RGB", (max(480, len(rows[0][-1]) * width), line + len(rows) * (height + line)), "white")
        draw = ImageDraw.Draw(sheet)
        draw.text((2, 1), title, fill="black")
        for row, (which, _, _, badness, name, pictures) in enumerate(rows):
            top = line + row * (height + line)
            draw.text((2, top + 1), f"{which}: {badness:.4g}  {os.path.basename(name)}", fill="black")
            for column, picture in enumerate(pictures):
                sheet.paste(to_pil_image(picture.cpu()), (column * width, top + line))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        sheet.save(path + ".tmp", "png")
        os.replace(path + ".tmp", path)
