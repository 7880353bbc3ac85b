"""
The model card of a folder for the Hugging Face Hub: README.md with a block of metadata in YAML
(https://huggingface.co/docs/hub/model-cards).

Texts from files, such as the name of a data set, are shown as they are: they never reach the YAML block, and all
characters that Markdown or HTML could take for markup are escaped.
"""

import json
import math
import os
import re
import string

import cyclegan
from command_line.printable import printable
from deploy.formats import set_name
from measuring.results import BETTER, MEASURES, arrow, is_of_run, with_unit
from media.reading import check_regular
from utils import InputError
from variants.stored_options import accepts

PAPER = "[CycleGAN](https://arxiv.org/abs/1703.10593) (Zhu, Park, Isola, Efros, 2017)"
LONGEST = 200  # characters of a text from a file
NEWEST = 2**20  # bytes at the end of metrics.jsonl that are read
# Options that say where files are, or how a machine is used, and those that have lines of their own
LEFT_OUT = frozenset(
    "cache checkpoint_activations checkpoint_interval compile data_dir dataset_name device encoder_weights epoch graph "
    "img_height img_width keep_checkpoints log_interval n_cpu options pairs resume run_name sample_interval save_minutes "
    "logger report start_from tensorboard val_interval vgg_weights".split()
)


def card(found, files, results=None, shows=None):
    """-> the text of README.md

    found:   {direction: TrainedGenerator}
    files:   names of the other files in the folder
    results: of newest_results, or None
    shows:   what sample.png shows, None without it
    """
    trained = next(iter(found.values()))
    title = escape(set_name(trained.options) or "unknown data set")
    lines = [*metadata(files), "", f"# CycleGAN: {title}", ""]
    ways = " and ".join(f"`{direction}` ({arrow(direction).replace('->', '→')})" for direction in sorted(found))
    lines += [f"Translates images without paired examples, as {PAPER} does. Directions: {ways}."]
    if shows:
        lines += ["", "![Samples](sample.png)", "", f"*{shows}.*"]
    lines += ["", "## Use", "", *usage(found, files)]
    lines += ["", "## Files", "", *file_table(found, files)]
    lines += ["", "## Training", "", *training(found)]
    lines += ["", "## Results", "", *result_table(results, found)]
    return "\n".join([*lines, "", "## Limits", "", *limits()]) + "\n"


def metadata(files):
    """The YAML block. It holds nothing that comes from a file."""
    tags = ["cyclegan", "gan", "unpaired", "image-to-image", "safetensors", *["onnx"] * any(map(is_onnx, files))]
    return [
        "---",
        "# Choose a license, such as mit or cc-by-4.0, and remove the # before the next line:",
        "# license: ...",
        "library_name: pytorch",
        "pipeline_tag: image-to-image",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]


def is_onnx(name):
    return name.endswith(".onnx")


def usage(found, files):
    """How to download the files and translate with them, in commands and from Python."""
    G = next(iter(found.values())).network
    options = " ".join(f"--size {size}" for size in [shorter_side(next(iter(found.values())))] if size)
    commands = [
        f"python translate.py --checkpoint NAME --direction {direction} --input photo.jpg {options}".rstrip()
        for direction in sorted(found)
    ]
    first = min(found)
    is_picture = not any(getattr(G, "ranges", ())) and {G.channels, G.out_channels} <= {1, 3}
    call = ['translate(Image.open("photo.jpg")).save("translated.png")']
    if not is_picture:
        call = ['translated = translate(np.load("image.npy"))  # (height, width, channels)']
    lines = [
        "With the code of the project that wrote this folder, and `pip install safetensors`. `USER/NAME` is the name of "
        "this model on the Hub.", "", "```", "hf download USER/NAME --local-dir NAME", *commands, "```", "", "```python",
        "from PIL import Image" if is_picture else "import numpy as np", "from inference import load_translator", "",
        f'translate = load_translator("NAME", direction="{first}")', *call, "```",
    ]  # fmt: skip
    if any(map(is_onnx, files)):
        lines += ["", "The `.onnx` files need ONNX Runtime only. Their input `image` is float32 (N, channels, height, width) "
                  "in [-1, 1], of any size, and so is their output `translation`."]  # fmt: skip
    return lines


def shorter_side(trained):
    sides = [trained.options.get(name) for name in ("img_height", "img_width")]
    return min(sides) if all(type(side) is int for side in sides) else None


def file_table(found, files):
    both = " and ".join(f"`G_{direction}`" for direction in sorted(found))
    texts = {"model.safetensors": f"float32 weights of {both}, with the options to build them in the metadata",
             "config.json": "the same options, image size, channels and ranges",
             "sample.png": "the picture above"}  # fmt: skip
    onnx = {name: f"`{name[:4]}` for ONNX Runtime, float32" for name in sorted(files) if is_onnx(name)}
    if any(getattr(trained.network, "noise_channels", 0) for trained in found.values()):
        onnx = {name: f"{text}, one translation of each image" for name, text in onnx.items()}
    rows = [f"| `{name}` | {text} |" for name, text in (texts | onnx).items() if name in files]
    if not onnx:
        rows += [
            "",
            "There is no ONNX file. `python export.py --checkpoint NAME --format onnx --images FOLDER` writes one.",
        ]
    return ["| file | contents |", "|---|---|", *rows]


##############################
#   Facts of the training
##############################


def training(found):
    """What was trained on what."""
    trained = found[min(found)]
    made, options = trained.provenance, trained.options
    counts = made.get("data") if isinstance(made.get("data"), dict) else {}
    counts = [f"{counts[d]} of {d}" for d in "AB" if type(counts.get(d)) is int]
    size = [options.get(name) for name in ("img_width", "img_height")]
    facts = {
        "data set": escape(set_name(options)),
        "training images": " and ".join(counts),
        "image size": "{}×{} pixels".format(*size) if all(type(side) is int for side in size) else "",
        "epochs": trained.epoch, "steps": trained.step if type(trained.step) is int else None,
        "options other than the defaults": ", ".join(changed_options(options)) or ("none" if "lr" in options else ""),
    }  # fmt: skip
    for direction, one in sorted(found.items()):
        G = one.network
        n = sum(p.numel() for p in G.parameters()) / 1e6
        facts[f"generator `{direction}`"] = f"{n:.2f} M parameters, {G.channels} → {G.out_channels} channels"
        for name, value_range in zip(("input", "output"), getattr(G, "ranges", (None, None))):
            if value_range:
                facts[f"values of the {name} of `{direction}`"] = "{:g} to {:g}".format(*value_range)
    versions = {
        "code": " ".join(str(made[name]) for name in ("version", "commit") if made.get(name)),
        "torch": made.get("torch"),
    }
    facts |= {name: code(value) for name, value in versions.items()}
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value not in (None, "")]
    return ["| | |", "|---|---|", *rows]


def changed_options(options):
    """Options of a training other than the defaults, as Markdown. Only numbers, switches and words that the command line
    lists or checks: paths and names stay private."""
    parser, found = cyclegan.get_parser(), []
    for action in parser._actions:
        value = options.get(action.dest, action.default)
        if action.dest in LEFT_OUT or not accepts(action, value) or value == action.default:
            continue
        if isinstance(value, str) and action.choices is None and not re.fullmatch(r"[\w.:, +-]+", value):
            continue
        text = "" if value is True else f" {value}"
        found.append(f"`--{'no-' * (value is False)}{action.dest}{text * (value is not False)}`")
    return found


def newest_results(path, epoch, dataset_name=None, step=None):
    """The last line of a metrics.jsonl that measures the generators of an epoch on their data set -> dict, or None

    epoch: None if it is unknown, as in the lines of files that do not know it
    step:  if known, lines that name another one measured the same epoch at another time, and do not count"""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - NEWEST))
            lines = file.read(NEWEST).decode("utf-8", "replace").splitlines()
    except (OSError, InputError):
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict) or not isinstance(record.get("results"), dict):
            continue
        is_same = record.get("epoch") == epoch and (step is None or record.get("step") in (None, step))
        if is_same and is_of_run(record, dataset_name):
            return record
    return None


def result_table(record, found):
    """The measures of newest_results, and how they were measured, as Markdown. found: see card"""
    trained = next(iter(found.values()))
    none = ["Not measured. `python evaluate.py --checkpoint NAME --dataset_name DATA_SET` measures it."]
    if record is None:
        return none
    values = {d: record["results"][d] for d in sorted(found) if isinstance(record["results"].get(d), dict)}
    rows = []
    for name, (title, unit, higher) in MEASURES.items():
        cells = [shown(of.get(name)) for of in values.values()]
        if any(cells):
            rows.append(f"| {with_unit(title, unit)}{BETTER[higher]} | {' | '.join(cell or '–' for cell in cells)} |")
    if not rows:
        return none
    size = record.get("size")
    is_size = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    where = f" at {size[1]}×{size[0]} pixels" if is_size else ""
    epoch = f", after {trained.epoch} epoch{'s' * (trained.epoch != 1)}" if trained.epoch is not None else ""
    head = [f"On the test images{where}{epoch}, measured by `evaluate.py`:", ""]
    head += [f"| | {' | '.join(arrow(d).replace('->', '→') for d in values)} |", "|---|" + "---|" * len(values)]
    protocol = record.get("protocol") if isinstance(record.get("protocol"), list) else []
    notes = [f"- {escape(line)}" for line in protocol[:10] if isinstance(line, str)]
    return [*head, *rows, *([""] if notes else []), *notes]


def shown(value):
    """A number from metrics.jsonl, for a table. "" if it is none."""
    return f"{value:.4g}" if type(value) in (int, float) and math.isfinite(value) else ""


def limits():
    return [
        "Trained on one data set: results on other kinds of images and at other sizes may be poor. Details of a "
        "translation are invented. The model was not checked for biases of its data."
    ]


def code(text):
    """A version from a file, as code if it looks like one. "" if it is no text."""
    is_version = isinstance(text, str) and re.fullmatch(r"[\w.+ -]{1,80}", text)
    return f"`{text}`" if is_version else escape(text)


def escape(text):
    """A text from a file -> Markdown that shows it on one line, without markup, links and HTML."""
    if not isinstance(text, str):
        return ""
    text = " ".join(printable(text[:LONGEST].encode("utf-8", "replace").decode()).split())
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "|": "&#124;", "`": "&#96;"}
    return "".join(entities.get(c) or (f"\\{c}" if c in string.punctuation and c not in ",;-" else c) for c in text)
