"""
One exported file: its path, and its export with a comparison.
"""

import os
import shlex

from deploy.comparison import check_accuracy, compare, comparison_table
from deploy.formats import FORMATS, export, trained_size, write_bytes
from deploy.weights import WEIGHTS
from inference.exported import PROGRAMS, Exported
from media.images import stem
from utils import InputError, whole_file
from variants.noise import without_noise


def names_a_folder(path):
    """Whether --output is a folder: one that exists, or a name that ends in a slash."""
    return os.path.isdir(path) or path.endswith(("/", os.sep))


def output_path(opt, trained, kind):
    """Returns the path of the file to write, such as G_AB_200.onnx or G_AB_200_256x256_int8.onnx, and checks that it can
    be written there."""
    extension, _, suffix, _ = (FORMATS | WEIGHTS)[kind]
    folder, file = os.path.dirname(opt.checkpoint), opt.output
    if file and names_a_folder(file):
        folder, file = file, None
        os.makedirs(folder, exist_ok=True)
    if file and os.path.splitext(file)[1] != extension:
        raise InputError(f"--output {opt.output}: --format {kind} needs a file name that ends in {extension}")
    name = stem(opt.checkpoint)
    if trained.is_full:
        name = f"G_{trained.direction}" + (f"_{trained.epoch}" if trained.epoch is not None else "")
    name += "_{1}x{0}".format(*opt.size) if opt.size else ""
    path = file or os.path.join(folder, name + suffix + extension)
    if not os.path.isdir(os.path.dirname(path) or ".") or os.path.isdir(path):
        raise InputError(f"--output {path}: must be a file in an existing folder")
    return path


def export_file(kind, path, trained, images, compared, int8, size=None, public=None):
    """Exports one file and checks it. The file only gets its name if it is accurate enough.

    images:   ExportImages; compared: {size: batch} to compare on
    int8:     (calibration, validation, least_psnr), see formats.export
    size:     (height, width) of the only images that the file takes, None for any size
    public:   see formats.metadata
    """
    replaced = ", replaces an earlier file" if os.path.exists(path) else ""
    with whole_file(path) as temporary:
        write_bytes(export(kind, trained, *int8, size, public), temporary)
        rows = compare(trained.network, Exported(temporary, FORMATS[kind].extension, trust=True), compared)
        print("\n".join(comparison_table(kind, rows, images.compared)))
        check_accuracy(kind, rows, int8[-1])
    print(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB{replaced}. To use it:")
    resize = "{1}x{0}".format(*size) if size else min(trained_size(trained))
    trust = " --trust" if os.path.splitext(path)[1] in PROGRAMS else ""
    print(f"    python translate.py --checkpoint {shlex.quote(path)}{trust} --input photo.jpg --size {resize}")


def fix_noise(trained):
    """An exported file takes no noise."""
    if getattr(trained.network, "noise_channels", 0):
        print(
            "note: exported without its noise: one translation of each image, that of translate.py without --n_samples"
        )
        without_noise(trained.network)
