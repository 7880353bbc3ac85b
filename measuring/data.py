"""
Finds the images that an evaluation needs: real images of both domains, pairs, label images.
"""

import dataclasses

from datasets import find_folder
from measuring.images import has_more_than_8_bits
from measuring.labels import label_references
from measuring.palettes import CITYSCAPES, MAX_CLASSES, Palette, palette_of_images, read_palette, share_of_palette
from media.folders import ImageFiles, stems
from media.survey import merged
from utils import InputError


@dataclasses.dataclass
class EvaluationData:
    """The images that an evaluation measures on.

    root:         folder of the data set
    real:         {domain: {"test": paths, "train": paths}}, all images on disk
    test:         {domain: paths}, the images that are translated
    matched:      whether image i of test["A"] is the counterpart of image i of test["B"]
    ranges:       {domain: (low, high), the values in its files that are -1 and 1 for the networks, or None}
    deep:         {domain: whether its test images have more than 8 bits, or a range}
    label_domain: the domain that consists of label images to be scored, "A", "B" or None
    palette:      the classes of the label images, a palettes.Palette or None
    references:   scores of reference predictions for the labels, see labels.label_references
    absent:       names of the classes that do not occur in the true labels
    """

    root: str
    real: dict
    test: dict
    matched: bool = False
    ranges: dict = dataclasses.field(default_factory=lambda: {"A": None, "B": None})
    deep: dict = dataclasses.field(default_factory=lambda: {"A": False, "B": False})
    label_domain: str | None = None
    palette: Palette | None = None
    references: dict = dataclasses.field(default_factory=dict)
    absent: list = dataclasses.field(default_factory=list)

    def counts(self):
        """Returns the number of images of each part, such as {"testA": 120, "trainA": 1067, ...}."""
        return {f"{part}{domain}": len(paths) for domain in "AB" for part, paths in self.real[domain].items()}

    def is_deep(self, direction):
        """Returns whether images of a direction have more than 8 bits, on either side."""
        return any(self.deep[domain] for domain in direction)

    def truths(self, direction):
        """Returns the true counterparts of the source images of a direction, or None if there are none."""
        return self.test[direction[1]] if self.matched else None


def find_data(root, generators, matched=False):
    """Lists the images of a data set folder. Training images are optional, test images are not.

    generators: {direction: generator}, for their numbers of channels and ranges of values
    matched:    keep only test images whose name exists in both domains, see media.folders.stems, in pairs
    """
    files = {domain: ImageFiles(find_folder(root, "test", domain)) for domain in "AB"}
    for note in merged(files["A"].notes + files["B"].notes):
        print(f"note: {note}")
    real = {domain: {"test": list(files[domain])} for domain in "AB"}
    for domain in "AB":
        try:
            real[domain]["train"] = list(ImageFiles(find_folder(root, "train", domain)))
        except InputError:
            real[domain]["train"] = []
    test = {domain: real[domain]["test"] for domain in "AB"}
    if matched:
        test = match_by_stem(files)
    data = EvaluationData(root, real, test, matched, ranges_of(generators))
    for (source, target), G in generators.items():
        for domain, channels in ((source, G.channels), (target, G.out_channels)):
            data.deep[domain] = bool(data.ranges[domain]) or has_more_than_8_bits(test[domain], channels)
    return data


def ranges_of(generators):
    """{direction: generator} -> {"A": (low, high) or None, "B": the same}, the ranges of values that they were trained
    with (--range_A, --range_B). Raises InputError if both directions were not trained with the same ones."""
    found = [dict(zip(direction, getattr(G, "ranges", (None, None)))) for direction, G in generators.items()]
    if any(ranges != found[0] for ranges in found):
        raise InputError(
            "--counterpart: the two generators are for different ranges of values (--range_A, --range_B). Take both from "
            "one training; a file that an older export.py wrote has to be exported again"
        )
    return {domain: found[0][domain] for domain in "AB"}


def match_by_stem(test):
    """Reduces {domain: ImageFiles} to {domain: paths}, the images whose name exists in both domains, both in the same
    order. Prints how many are skipped."""
    of_A, of_B = (dict(zip(stems(test[domain]), test[domain])) for domain in "AB")
    common = sorted(of_A.keys() & of_B.keys())
    if not common:
        folder_A, folder_B = (test[domain].folder for domain in "AB")
        raise InputError(f"{folder_A}: no image has the same file stem as an image in {folder_B}")
    skipped = len(test["A"]) + len(test["B"]) - 2 * len(common)
    if skipped:
        print(f"note: {skipped} test images have no counterpart and are skipped")
    return {"A": [of_A[name] for name in common], "B": [of_B[name] for name in common]}


def find_labels(data, palette, generators, directions, size, keep_aspect=False):
    """Detects which domain consists of label images, and sets data.label_domain, data.palette, data.references and
    data.absent.

    palette:    "cityscapes", "auto" to take the colours of the label images, or a file for palettes.read_palette
    generators: {direction: generator}
    directions: directions that will be measured
    size:       (height, width) at which labels are scored; keep_aspect: see images.ResizedImages
    """
    if any({G.channels, G.out_channels} != {3} for G in generators.values()):
        raise InputError(f"--palette {palette}: labels are RGB images, and these generators have other channels")
    if palette == "auto":
        found = {domain: palette_of_images(data.test[domain]) for domain in "AB"}
        if not any(found.values()):
            raise InputError(
                f"--palette auto: no domain consists of label images with at most {MAX_CLASSES} colours. Name the file "
                "of a palette"
            )
    else:
        found = dict.fromkeys("AB", CITYSCAPES if palette == "cityscapes" else read_palette(palette))
    shares = {domain: share_of_palette(data.test[domain], p) if p else 0 for domain, p in found.items()}
    label_domain = max("AB", key=shares.get)
    if palette != "auto" and shares[label_domain] < 0.5:
        raise InputError(f"--palette {palette}: {data.test[label_domain][0]} is not in the colours of the palette")
    if label_domain not in {direction[1] for direction in directions}:
        raise InputError(
            f"--palette {palette}: domain {label_domain} has the labels, and --direction translates into the other one"
        )
    if data.ranges[label_domain]:
        raise InputError(
            f"--palette {palette}: labels are colours of 8 bits, but this training had --range_{label_domain}. Omit "
            "--palette"
        )
    data.label_domain, data.palette = label_domain, found[label_domain]
    train, test = data.real[label_domain]["train"], data.test[label_domain]
    data.references, data.absent = label_references(train, test, size, data.palette, keep_aspect)
