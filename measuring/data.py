"""
Finds the images that an evaluation needs: real images of both domains, pairs, label images.
"""

import dataclasses

from datasets import find_folder
from measuring.images import has_more_than_8_bits
from measuring.labels import label_references
from measuring.palettes import CITYSCAPES, MAX_CLASSES, Palette, palette_of_images, read_palette, share_of_palette
from media.folders import ImageFiles, stems
from utils import InputError


@dataclasses.dataclass
class EvaluationData:
    """The images that an evaluation measures on.

    root:         folder of the data set
    real:         {domain: {"test": paths, "train": paths}}, all images on disk
    test:         {domain: paths}, the images that are translated
    matched:      whether image i of test["A"] is the counterpart of image i of test["B"]
    deep:         {domain: whether its test images have more than 8 bits}
    label_domain: the domain that consists of label images to be scored, "A", "B" or None
    palette:      the classes of the label images, a palettes.Palette or None
    references:   scores of reference predictions for the labels, see labels.label_references
    absent:       names of the classes that do not occur in the true labels
    """

    root: str
    real: dict
    test: dict
    matched: bool = False
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

    generators: {direction: generator}, for their numbers of channels
    matched:    keep only test images whose name exists in both domains, see media.folders.stems, in pairs
    """
    files = {domain: ImageFiles(find_folder(root, "test", domain)) for domain in "AB"}
    for note in files["A"].notes + files["B"].notes:
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
    data = EvaluationData(root, real, test, matched)
    for (source, target), G in generators.items():
        for domain, channels in ((source, G.channels), (target, G.out_channels)):
            data.deep[domain] = has_more_than_8_bits(test[domain], channels)
    return data


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


def find_labels(data, palette, generators, directions, size):
    """Detects which domain consists of label images, and sets data.label_domain, data.palette, data.references and
    data.absent.

    palette:    "cityscapes", "auto" to take the colours of the label images, or a file for palettes.read_palette
    generators: {direction: generator}
    directions: directions that will be measured
    size:       (height, width) at which labels are scored
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
    data.label_domain, data.palette = label_domain, found[label_domain]
    train, test = data.real[label_domain]["train"], data.test[label_domain]
    data.references, data.absent = label_references(train, test, size, data.palette)
