"""
Checks an exported generator: compares it with the original on real images of several sizes.
"""

import os

import torch

from datasets import find_folder
from deploy.formats import FORMATS
from inference.translator import pad_to_multiple
from measuring.images import stack_images, to_float
from measuring.metrics import psnr
from media.folders import ImageFiles, evenly_spaced
from utils import InputError
from variants.distances import ssim
from variants.stored_options import confirm_paths

LARGEST_DIFFERENCE = 1e-4  # allowed for float32 formats on the CPU, in [-1, 1]; one gray level is 0.0078
# Above this number of pixels, .onnx files may differ more, in proportion: in an instance norm, ONNX Runtime adds up all
# pixels in float32, and the rounding error grows with their number. PyTorch and OpenCV add them up in parts
PIXELS, LARGEST_DIFFERENCE_ONNX = 256 * 256, 1 / 255
FP16_PSNR = 50.0  # required for float16, in dB
N_CALIBRATION, N_VALIDATION, N_COMPARED = 32, 4, 3  # number of images for each purpose


class ExportImages:
    """Chooses real images for an export. They are disjoint if there are enough images.

    calibration: (attribute) paths of images that INT8 ranges are measured on
    validation:  (attribute) paths of images that INT8 layers are chosen with
    compared:    (attribute) paths of images for the final comparison
    """

    def __init__(self, trained, images=None, calibration=None, for_int8=False):
        """
        trained:     TrainedGenerator, whose training options name the data set
        images:      folder of images to compare on, instead of the test images of the data set
        calibration: folder of images for INT8, instead of the training images
        for_int8:    makes the error message name the right option
        """
        options, domain = trained.options, (trained.direction or "AB")[0]
        if not images:  # otherwise images of the training are welcome, but not needed
            confirm_paths(options, {}, trained.path, way_out="name the images with --images")
        root = data_folder(options, trained.path)
        value_range = getattr(trained.network, "ranges", (None, None))[0]
        self.reading = dict(channels=trained.network.channels, deep=bool(value_range), value_range=value_range,
                            keep_aspect=bool(options.get("keep_aspect")))  # fmt: skip
        test = list_images(images, root, "test", domain) or list_images(calibration, root, "train", domain)
        train = list_images(calibration, root, "train", domain) or test
        if not test:
            flag = "--calibration" if for_int8 else "--images"
            raise InputError(
                f"{flag}: required, a folder with images of domain {domain}; {root or 'data'} contains none"
            )
        self.calibration = evenly_spaced(train, min(N_CALIBRATION, max(1, len(train) // 2)))
        self.validation = evenly_spaced(without(train, self.calibration), N_VALIDATION)
        self.compared = evenly_spaced(without(test, self.calibration + self.validation), N_COMPARED)

    def are_disjoint(self):
        """Returns whether no image serves two purposes."""
        chosen = self.calibration + self.validation + self.compared
        return len(set(chosen)) == len(chosen)

    def load(self, paths, size):
        """Loads images as the training does, as a tensor (N, channels, height, width) in [-1, 1]."""
        return to_float(stack_images(paths, size, **self.reading))

    def load_for_int8(self, size, sizes):
        """Loads the calibration images at one size and the validation images at several -> two lists of images
        (1, channels, height, width)."""
        calibration = self.load(self.calibration, size).split(1)
        validation = [image for each in sizes for image in self.load(self.validation, each).split(1)]
        return list(calibration), validation


def data_folder(options, path):
    """The folder of the data set that options stored in the file `path` name; "" if there is none, or if it is not in
    data/."""
    try:
        confirm_paths(options, {}, path)
    except InputError:
        return ""
    name = options.get("dataset_name")
    return os.path.join(options.get("data_dir") or "data", name) if name else ""


def list_images(folder, root, mode, domain):
    """Lists the images of `folder`, or of the data set if it is None. A data set may lack them; a folder that the user
    named may not."""
    if not folder and not root:
        return []
    try:
        return list(ImageFiles(folder or find_folder(root, mode, domain)))
    except (InputError, OSError):
        if folder:
            raise
        return []


def without(paths, others):
    """Returns the paths that are not in `others`, or all of them if none would remain."""
    return [path for path in paths if path not in others] or paths


def comparison_sizes(G, height, width):
    """Returns three sizes (height, width) to compare at: the training size, half of it, and odd numbers."""
    half = [max(G.smallest, side // 2) for side in (height, width)]
    return [(height, width), tuple(half), (height * 3 // 4 | 1, width * 9 // 8 | 1)]


def translate_padded(G, x):
    """Translates images of any size in PyTorch, not by formats.AnySize, which is to be verified."""
    height, width = x.shape[2:]
    return G(pad_to_multiple(x, G.multiple, G.smallest))[:, :, :height, :width]


@torch.no_grad()
def compare(G, exported, images):
    """Compares an exported generator with its original. Each size is translated one image at a time, and as one batch
    unless the file is for single images of a fixed size.

    images: {(height, width): (N, channels, height, width)}
    Returns rows (size, batch size, largest difference, PSNR in dB, SSIM).
    """
    rows = []
    for size, batch in images.items():
        for n in [1] if getattr(exported, "size", None) else sorted({1, len(batch)}):
            # in parts of the same size, because instance norm enlarges rounding errors of flat images without limit
            expected = torch.cat([translate_padded(G, part) for part in batch.split(n)])
            result = torch.cat([exported(part) for part in batch.split(n)])
            if result.shape != expected.shape or not result.isfinite().all():
                raise InputError(
                    f"{exported.path}: the output at {size} has shape {tuple(result.shape)} or is not finite"
                )
            difference = (result - expected).abs().max().item()
            rows.append((size, n, difference, psnr(result, expected), ssim(result, expected).item()))
    return rows


def comparison_table(kind, rows, paths):
    """Formats the rows of `compare` as lines of text. paths: the images that were compared."""
    n = len(paths)
    lines = [f"{kind}, compared with PyTorch on {n} image{'s' if n > 1 else ''} of {os.path.dirname(paths[0])}:"]
    lines.append(f"{'size':>14}{'batch':>8}{'largest difference':>22}{'PSNR, dB':>12}{'SSIM':>10}")
    for (height, width), n, difference, decibels, similarity in rows:
        size = f"{width} x {height}"
        lines.append(f"{size:>14}{n:>8}{difference:>22.2g}{decibels:>12.1f}{similarity:>10.5f}")
    return lines


def allowed_difference(kind, height, width):
    """Returns the largest difference to PyTorch, in [-1, 1], that a float32 format may have at this size."""
    if kind != "onnx" or height * width <= PIXELS:
        return LARGEST_DIFFERENCE
    return min(LARGEST_DIFFERENCE * height * width / PIXELS, LARGEST_DIFFERENCE_ONNX)


def check_accuracy(kind, rows, least_psnr):
    """Raises InputError if an exported file differs from its original by more than its format allows.

    least_psnr: required PSNR of int8, in dB
    """
    for (height, width), n, difference, decibels, _ in rows:
        where = f"at {width} x {height}, batch {n}"
        if FORMATS[kind].limit == "difference" and not difference <= allowed_difference(kind, height, width):
            way_out = ". ONNX Runtime is inexact on large flat areas: try photos as --images" if kind == "onnx" else ""
            raise InputError(
                f"--format {kind}: differs from PyTorch by {difference:.2g} {where}; nothing was written{way_out}"
            )
        required = least_psnr if kind == "int8" else FP16_PSNR
        if FORMATS[kind].limit == "psnr" and not decibels >= required:
            way_out = "; try a lower --psnr or other --calibration images" if kind == "int8" else ""
            raise InputError(
                f"--format {kind}: only {decibels:.1f} dB {where}, {required} required{way_out}; nothing was written"
            )
