"""
Scores label images, whose colours are classes (CycleGAN paper, section 5.1.1). A translated label image is compared
with the true one, pixel by pixel.
"""

import numpy as np
import torch
from PIL import Image

from measuring.images import resize_to
from measuring.palettes import VOID
from media.domain import centre
from media.images import load_image, open_image, target_size


def nearest_class(pixels, palette, with_void=False):
    """Assigns each pixel the class of the nearest palette colour.

    pixels:    uint8 (..., 3)
    with_void: include the colours that are not scored; their pixels become VOID
    Returns uint8 (...), indices into palette.classes, or VOID.
    """
    n = len(palette.classes)
    colours = torch.from_numpy(palette.colours() if with_void else palette.colours()[:n]).float()
    flat = torch.from_numpy(np.ascontiguousarray(pixels)).reshape(-1, 3).float()
    nearest = torch.cat([torch.cdist(part, colours).argmin(1) for part in flat.split(1 << 20)])
    nearest[nearest >= n] = VOID
    return nearest.to(torch.uint8).numpy().reshape(pixels.shape[:-1])


def load_labels(path, size, palette, keep_aspect=False):
    """Reads a label image as uint8 (height, width) of class indices and VOID. Resizing takes the nearest pixel, so
    colours are never mixed. keep_aspect: see images.ResizedImages"""
    with open_image(path) as image:
        height, width = target_size(resize_to(size, keep_aspect), image.height, image.width)
        image = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        return nearest_class(centre(np.array(image), size), palette, with_void=True)


class LabelScore:
    """Per-pixel accuracy, per-class accuracy and class IoU (CycleGAN paper, section 5.1.1).

    The class means leave out classes that do not occur in the ground truth. The measures that end in "_all" count these
    as 0, as the authors' script does, which divides by 19. Pixels whose true class is VOID are ignored."""

    def __init__(self, palette):
        self.classes = list(palette.classes)
        n = len(self.classes)
        self.confusion = np.zeros((n, n), np.int64)  # [true class, predicted class]

    def update(self, predicted, truth):
        """Adds one image. Both arrays are uint8 class indices of the same shape; `truth` may contain VOID.

        Returns the share of scored pixels that are correct, or nan if no pixel is scored."""
        n = len(self.classes)
        scored = truth != VOID
        pairs = truth[scored].astype(np.int64) * n + predicted[scored]
        self.confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
        return (predicted[scored] == truth[scored]).mean() if scored.any() else np.nan

    def compute(self):
        """Returns {"pixel_accuracy", "class_accuracy", "class_iou", "class_accuracy_all", "class_iou_all"} over all
        images so far, from 0 to 1."""
        present, accuracy, iou = self.present(), *self.by_class()
        hits, true = np.diag(self.confusion), self.confusion.sum(1)
        return {
            "pixel_accuracy": float(hits.sum() / max(1, true.sum())),
            "class_accuracy": float(accuracy[present].mean()) if present.any() else 0.0,
            "class_iou": float(iou[present].mean()) if present.any() else 0.0,
            "class_accuracy_all": float(np.where(present, accuracy, 0).mean()),
            "class_iou_all": float(np.where(present, iou, 0).mean()),
        }

    def present(self):
        """Returns whether each class occurs in the ground truth so far, bool (classes,)."""
        return self.confusion.sum(1) > 0

    def by_class(self):
        """Returns (accuracy, IoU), two arrays (classes,) from 0 to 1."""
        hits, true, predicted = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        return hits / np.maximum(1, true), hits / np.maximum(1, true + predicted - hits)

    def ious(self):
        """Returns {class: IoU} of the classes that occur in the ground truth."""
        return {name: float(v) for name, v, there in zip(self.classes, self.by_class()[1], self.present()) if there}

    def absent(self):
        """Returns the names of the classes that do not occur in the ground truth so far."""
        return [name for name, there in zip(self.classes, self.present()) if not there]


def label_references(train, test, size, palette, keep_aspect=False):
    """Scores two reference predictions, which give the scores of a model a scale.

    The first is the true label images, read the way translations are: an upper bound. The second is the most frequent
    training label at each pixel, which ignores the input: a lower bound.

    train, test: paths of label images
    keep_aspect: see images.ResizedImages
    Returns ({title: scores}, names of the classes that do not occur in `test`).
    """
    truth_score, constant_score = LabelScore(palette), LabelScore(palette)
    constant = most_frequent_labels(train, size, palette, keep_aspect) if train else None
    for path in test:
        truth = load_labels(path, size, palette, keep_aspect)
        read = centre(load_image(path, size=resize_to(size, keep_aspect)), size)
        truth_score.update(nearest_class(read, palette), truth)
        if train:
            constant_score.update(constant, truth)
    references = {"the true labels": truth_score.compute()}
    if train:
        references["the most frequent training label at each pixel"] = constant_score.compute()
    return references, truth_score.absent()


def most_frequent_labels(paths, size, palette, keep_aspect=False):
    """Returns the most frequent class at each pixel of the label images, uint8 (height, width)."""
    counts = np.zeros((len(palette.classes), *size), np.int32)
    rows, columns = np.indices(size)
    for path in paths:
        labels = load_labels(path, size, palette, keep_aspect)
        scored = labels != VOID
        counts[labels[scored], rows[scored], columns[scored]] += 1
    return counts.argmax(0).astype(np.uint8)
