"""
Scores label images in the colours of Cityscapes (CycleGAN paper, section 5.1.1). A translated label image is compared
with the true one, pixel by pixel.
"""

import numpy as np
import torch
from PIL import Image

from media.images import load_image, open_image

# The 19 classes that Cityscapes scores, in the colours of its label images. Pixels of any other colour are not scored.
CITYSCAPES = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60),
    "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100),
    "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
# unlabeled, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan, trailer
CITYSCAPES_VOID = [
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (0, 0, 90), (0, 0, 110),
]  # fmt: skip
VOID = 255  # the class index of pixels that are not scored


def nearest_class(pixels, with_void=False):
    """Assigns each pixel the class of the nearest palette colour.

    pixels:    uint8 (..., 3)
    with_void: include the colours that Cityscapes does not score; their pixels become VOID
    Returns uint8 (...), class indices from 0 to 18, or VOID.
    """
    colours = list(CITYSCAPES.values()) + (CITYSCAPES_VOID if with_void else [])
    palette = torch.tensor(colours, dtype=torch.float32)
    flat = torch.from_numpy(np.ascontiguousarray(pixels)).reshape(-1, 3).float()
    nearest = torch.cat([torch.cdist(part, palette).argmin(1) for part in flat.split(1 << 20)])
    nearest[nearest >= len(CITYSCAPES)] = VOID
    return nearest.to(torch.uint8).numpy().reshape(pixels.shape[:-1])


def load_labels(path, size):
    """Reads a label image as uint8 (height, width) of class indices and VOID. Resizing takes the nearest pixel, so
    colours are never mixed."""
    with open_image(path) as image:
        image = image.convert("RGB")
        return nearest_class(np.array(image.resize(size[::-1], Image.Resampling.NEAREST)), with_void=True)


class LabelScore:
    """Per-pixel accuracy, per-class accuracy and class IoU (CycleGAN paper, section 5.1.1).

    The class means leave out classes that do not occur in the ground truth. The measures that end in "_all" count these
    as 0, as the authors' script does, which divides by 19. Pixels whose true class is VOID are ignored."""

    def __init__(self):
        n = len(CITYSCAPES)
        self.confusion = np.zeros((n, n), np.int64)  # [true class, predicted class]

    def update(self, predicted, truth):
        """Adds one image. Both arrays are uint8 class indices of the same shape; `truth` may contain VOID.

        Returns the share of scored pixels that are correct, or nan if no pixel is scored."""
        n = len(CITYSCAPES)
        scored = truth != VOID
        pairs = truth[scored].astype(np.int64) * n + predicted[scored]
        self.confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
        return (predicted[scored] == truth[scored]).mean() if scored.any() else np.nan

    def compute(self):
        """Returns {"pixel_accuracy", "class_accuracy", "class_iou", "class_accuracy_all", "class_iou_all"} over all images
        so far, from 0 to 1."""
        hits, true, predicted = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        accuracy, iou = hits / np.maximum(1, true), hits / np.maximum(1, true + predicted - hits)
        present = true > 0
        return {
            "pixel_accuracy": float(hits.sum() / max(1, true.sum())),
            "class_accuracy": float(accuracy[present].mean()) if present.any() else 0.0,
            "class_iou": float(iou[present].mean()) if present.any() else 0.0,
            "class_accuracy_all": float(np.where(present, accuracy, 0).mean()),
            "class_iou_all": float(np.where(present, iou, 0).mean()),
        }

    def absent(self):
        """Returns the names of the classes that do not occur in the ground truth so far."""
        return [name for name, n in zip(CITYSCAPES, self.confusion.sum(1)) if not n]


def share_of_palette(path):
    """Returns the share of an image's pixels, 0 to 1, whose colour is exactly one of Cityscapes' label colours."""
    pixels = load_image(path).reshape(-1, 1, 3)
    return (pixels == np.array([*CITYSCAPES.values(), *CITYSCAPES_VOID], np.uint8)).all(2).any(1).mean()


def label_references(train, test, size):
    """Scores two reference predictions, which give the scores of a model a scale.

    The first is the true label images, read the way translations are: an upper bound. The second is the most frequent
    training label at each pixel, which ignores the input: a lower bound.

    train, test: paths of label images
    Returns ({title: scores}, names of the classes that do not occur in `test`).
    """
    truth_score, constant_score = LabelScore(), LabelScore()
    constant = most_frequent_labels(train, size) if train else None
    for path in test:
        truth = load_labels(path, size)
        truth_score.update(nearest_class(load_image(path, size=size)), truth)
        if train:
            constant_score.update(constant, truth)
    references = {"the true labels": truth_score.compute()}
    if train:
        references["the most frequent training label at each pixel"] = constant_score.compute()
    return references, truth_score.absent()


def most_frequent_labels(paths, size):
    """Returns the most frequent class at each pixel of the label images, uint8 (height, width)."""
    counts = np.zeros((len(CITYSCAPES), *size), np.int32)
    rows, columns = np.indices(size)
    for path in paths:
        labels = load_labels(path, size)
        scored = labels != VOID
        counts[labels[scored], rows[scored], columns[scored]] += 1
    return counts.argmax(0).astype(np.uint8)
