"""
A folder as the Hugging Face Hub expects it: weights, the options to build the networks, a model card, a sample picture,
and the generators as ONNX.
"""

import copy
import importlib.util
import json
import os
import re
import shlex
import tempfile

from PIL import Image

from command_line.provenance import provenance
from deploy import formats
from deploy.card import card, newest_results
from deploy.comparison import ExportImages, check_accuracy, compare, comparison_sizes, comparison_table
from deploy.weights import check_package, facts_of, options_of, public, write_weights
from inference.exported import Exported
from inference.load import load_generators, options_beside
from inference.weights import MODEL
from media.images import load_image
from media.sheets import GRID
from utils import InputError
from variants.noise import without_noise

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export_hub(checkpoint, direction=None, folder=None, images=None):
    """Writes the folder, which must not exist or be empty. It gets its name when all of it is written.

    checkpoint: file, see inference.load.load_generators
    direction:  "AB" or "BA" to publish one of two generators
    folder:     None for `hub` in the folder of the checkpoint
    images:     folder of images to check the ONNX files on, None for those of the data set
    Raises InputError."""
    check_package()
    found = load_generators(checkpoint, direction)
    found = {d: found[d] for d in sorted(found) if direction in (None, d)}
    for trained in found.values():
        trained.options = trained.options or options_beside(trained.path)
    folder = os.path.normpath(folder or os.path.join(os.path.dirname(checkpoint), "hub"))
    parent = os.path.dirname(os.path.abspath(folder))
    if os.path.lexists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise InputError(f"--output {folder}: exists. Name a new folder, so that an edited README.md is not lost")
    if not os.path.isdir(parent):
        raise InputError(f"--output {folder}: must be in an existing folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".hub.", dir=parent) as beside:
            part = os.path.join(beside, "hub")
            os.mkdir(part)
            write_folder(found, part, images)
            if os.path.isdir(folder):
                os.rmdir(folder)  # it is empty
            os.replace(part, folder)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error.strerror})")
    say(folder, found)


def write_folder(found, folder, images):
    """Writes all files into a folder. found: {direction: TrainedGenerator}"""
    trained = found[min(found)]
    write_weights(found, os.path.join(folder, MODEL))
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(config(found), indent=2) + "\n")
    for direction, one in found.items():
        write_onnx(one, os.path.join(folder, f"G_{direction}.onnx"), images)
    shows = write_sample(trained, os.path.join(folder, "sample.png"))
    beside = os.path.dirname(trained.path)
    results = newest_results(os.path.join(beside, "metrics.jsonl"), trained.epoch, formats.set_name(trained.options),
                             trained.step)  # fmt: skip
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as file:
        file.write(card(found, {*os.listdir(folder)}, results, shows))


def config(found):
    """The contents of config.json: for people and for the Hub. inference/weights.py needs only model.safetensors."""
    facts = facts_of(found)
    networks = {
        direction: options_of(trained) | {"multiple": trained.network.multiple, "smallest": trained.network.smallest}
        for direction, trained in found.items()
    }
    return facts | {"model_type": "cyclegan", "generators": networks, "value_range": [-1, 1]}


def write_onnx(trained, path, images):
    """Writes a generator as ONNX if that is possible; otherwise prints why not."""
    way_out = "the folder has no ONNX file of it"
    lacking = [package for package in ONNX_PACKAGES if importlib.util.find_spec(package) is None]
    if lacking:
        return print(f"note: {way_out}, which needs {', '.join(lacking)}: pip install {' '.join(ONNX_PACKAGES)}")
    trained = copy.deepcopy(trained)  # its weights have been written, with their noise
    without_noise(trained.network)
    try:
        chosen = ExportImages(trained, images)
        compared = {
            size: chosen.load(chosen.compared, size)
            for size in comparison_sizes(trained.network, *formats.trained_size(trained))
        }
        made = {"exported_by": public(provenance()), "trained_by": public(trained.provenance)}
        formats.write_bytes(formats.export("onnx", trained, public=made), path)
        rows = compare(trained.network, Exported(path), compared)
        print("\n".join(comparison_table("onnx", rows, chosen.compared)))
        check_accuracy("onnx", rows, None)
    except InputError as error:
        if os.path.exists(path):
            os.remove(path)
        print(f"note: G_{trained.direction}: {way_out}: {error}")


def write_sample(trained, path):
    """Draws the newest sample grid of the training, or else sheet of evaluate.py, as a new file without metadata ->
    what the picture shows, or None if there is none. Without a picture if the checkpoint is not in saved_models: then
    images/NAME may be of another run."""
    run = os.path.dirname(os.path.realpath(trained.path))
    if os.path.dirname(run) != os.path.realpath("saved_models"):
        return None
    folder = os.path.join("images", os.path.basename(run))
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    latest = trained.step if type(trained.step) is int else 10**15
    grids = [name for name in names if re.fullmatch(r"\d{6,15}\.png", name) and 0 < int(name[:-4]) <= latest]
    sheets = [name for name in names if re.fullmatch(rf"evaluate_\w+_({trained.direction})\.png", name)]
    sheets.sort(key=lambda name: os.path.getmtime(os.path.join(folder, name)))
    for source in [*sorted(grids, key=lambda name: int(name[:-4]))[-1:], *sheets[-1:]][:1]:
        try:
            Image.fromarray(load_image(os.path.join(folder, source))).save(path, "PNG")
            return "Best and worst cases on the test images" if source in sheets else f"Columns: {', '.join(GRID)}"
        except InputError as error:
            print(f"note: without a sample picture: {error}")


def say(folder, found):
    """Prints what was written, and how to use and publish it."""
    n_bytes = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"{folder}: {', '.join(sorted(os.listdir(folder)))}; {n_bytes / 1e6:.2f} MB")
    if os.path.exists(os.path.join(folder, "sample.png")):
        print("sample.png shows images of the data set. If they are private, delete it, and its lines in README.md")
    print("Enter the license in README.md, then:")
    quoted, size = shlex.quote(folder), min(formats.trained_size(found[min(found)]))
    print(f"    python translate.py --checkpoint {quoted} --direction {min(found)} --input photo.jpg --size {size}")
    print(f"    hf upload USER/NAME {quoted}")
