"""
Evaluates trained generators on test images. `evaluate` is what evaluate.py runs; other code can call it as a function.
"""

import dataclasses
import importlib.metadata
import json
import os
import re
import time

import torch

from command_line.output import append_line
from command_line.parser import not_divisible
from command_line.provenance import provenance
from inference.exported import is_exported
from inference.load import load_generators, options_beside, provenance_beside
from inference.samples import prepare_sampling
from inference.weights import model_file
from measuring.data import find_data, find_labels
from measuring.directions import measure_all_untranslated, measure_direction
from measuring.metrics import RESIZING
from measuring.results import arrow, best_epochs, draw_curves, results_table
from measuring.scores import AvailableMetrics
from measuring.volumes import evaluate_volumes
from media.images import stem
from media.reading import check_regular
from utils import InputError, bfloat16_pays, choose_device
from variants.stored_options import confirm_paths
from variants.volumes import is_volumetric

# Stored with the results, so that numbers are only compared if they were measured in the same way
PROTOCOL = {
    "size": "all images are resized to one size",
    "aspect": "images keep their shape: they are resized to cover one size, and their centre is taken",
    "range": "images of {} are read in the range {:g} to {:g}, which becomes 0 to 255: an L1 of 1 is {:.4g} in their values",
    "8 bits": "translations are rounded to 8 bits",
    "more bits": "images have more than 8 bits: translations are not rounded; FID, KID and LPIPS see 8 bits",
    "more bits in a range": "images have more than 8 bits or a range: translations are not rounded; FID, KID and LPIPS see "
    "8 bits of the range",
    "ssim": "SSIM is the mean over the windows inside the image",
}


@dataclasses.dataclass
class Settings:
    """How images are loaded and translated.

    size:       (height, width) in pixels
    amp:        translate with bfloat16 autocast
    batch_size: images per batch
    n_cpu:      worker processes that load images
    n_samples:  translations of each image to measure the diversity of; None does not measure it
    seed:       of these
    keep_aspect, ranges: see images.ResizedImages; ranges is {domain: value_range}
    """

    size: tuple
    device: torch.device
    amp: bool
    batch_size: int = 8
    n_cpu: int = 0
    n_samples: int | None = None
    seed: int = 0
    keep_aspect: bool = False
    ranges: dict = dataclasses.field(default_factory=dict)

    def reading(self, domain):
        """Returns the keyword arguments of images.stack_images that are the same for all images of a domain."""
        return dict(size=self.size, keep_aspect=self.keep_aspect, value_range=self.ranges.get(domain))

    def loading(self, domain):
        """Returns the keyword arguments of images.image_batches that are the same for all images of a domain."""
        return self.reading(domain) | dict(device=self.device, batch_size=self.batch_size, n_cpu=self.n_cpu)


def evaluate(checkpoint, *, counterpart=None, direction=None, all_checkpoints=False, dataset_name=None, data_dir=None,
             img_height=None, img_width=None, keep_aspect=None, paired=False, palette=None, inception_weights=None,
             lpips_weights=None, fid_resize="torch-fidelity", batch_size=8, n_cpu=2, device=None, amp=None, trust=False,
             n_samples=None, seed=0):  # fmt: skip
    """Measures the quality of trained generators on the test images of a data set.

    Prints a table for each checkpoint, appends a JSON line to metrics.jsonl in the folder of the checkpoint, and writes
    sheets of the best and worst cases to images/. What cannot be measured is omitted, with a note.

    checkpoint:            a full checkpoint, the file of one generator, an exported file, or a folder of --format hub
    counterpart:           file of the generator of the other direction, if it is not in the folder of the checkpoint
    direction:             "AB" or "BA" to measure one direction; None measures both if both generators exist
    all_checkpoints:       measure every G_AB_N.pth in the folder of the checkpoint
    dataset_name, data_dir, img_height, img_width, keep_aspect: default to those of the training
    paired, palette:       compare with the ground truth; A and B are matched by file stem. See data.find_labels
    inception_weights, lpips_weights: local files, see metrics.inception and metrics.lpips
    fid_resize:            "torch-fidelity" or "clean-fid", see metrics.Inception
    device, amp:           default to the best device, and to bfloat16 where the device supports it
    trust:                 load .pt2 and .ts files, which are programs
    n_samples, seed:       measure the diversity of n_samples translations of each image, see diversity.measure_samples
    Returns {epoch: {direction: {measure: value}}}, see Scores.compute. Raises InputError.
    """
    device, checkpoint = choose_device(device), model_file(checkpoint)
    generators, epoch, options, made = open_generators(checkpoint, direction, counterpart, trust, n_samples)
    checkpoints = find_checkpoints(checkpoint, epoch, direction) if all_checkpoints else {epoch: checkpoint}
    size = image_size(generators, img_height, img_width, options)
    confirm_paths(options, dict(dataset_name=dataset_name, data_dir=data_dir), checkpoint)
    name = dataset_name or options.get("dataset_name")
    root = find_dataset(checkpoint, name, data_dir or options.get("data_dir"))
    directions = [direction] if direction else sorted(generators)
    if any(is_volumetric(vars(G)) for G in generators.values()):
        unfit = [all_checkpoints, palette, n_samples]
        return evaluate_volumes(checkpoint, generators, epoch, made, root, directions, device, amp, paired, unfit)
    data = find_data(root, generators, matched=bool(paired or palette))
    if amp is None:  # bfloat16 has 8 significant bits
        amp = bfloat16_pays(device) and not any(map(data.is_deep, directions))
    keep_aspect = bool(options.get("keep_aspect")) if keep_aspect is None else keep_aspect
    settings = Settings(size, device, amp, batch_size, n_cpu, n_samples, seed, keep_aspect, data.ranges)
    if palette:
        find_labels(data, palette, generators, directions, size, keep_aspect)

    precision = str(next(iter(generators.values()))) if is_exported(checkpoint) else "bfloat16" if amp else "float32"
    print(f"{root}: {data.counts()}, at {size[1]} x {size[0]} pixels, {precision}")
    folder = os.path.dirname(checkpoint) or "."
    log = os.path.join(folder, "metrics.jsonl")
    check_regular(log)
    append_line(log, "")  # fails now if the file cannot be written
    available = prepare_metrics(generators, directions, data, settings, inception_weights, lpips_weights, fid_resize)
    untranslated = measure_all_untranslated(generators, directions, data, available, settings, paired)
    protocol = protocol_lines(data, available, directions, settings, paired)
    about = {"protocol": protocol, "untranslated": untranslated, "precision": precision, "missing": available.missing,
             **facts_of(data, size)}  # fmt: skip
    sheets, history = os.path.join("images", os.path.basename(os.path.abspath(folder))), {}
    if name != options.get("dataset_name", name):
        sheets = os.path.join(sheets, name)
    for epoch, path in sorted(checkpoints.items(), key=lambda item: item[0] or 0):
        if all_checkpoints:
            generators, _, _, made = open_generators(path, direction, counterpart, trust, n_samples)
        results = measure_checkpoint(path, generators, directions, data, available, settings, paired, sheets)
        print(f"\n{path}" + (f", epoch {epoch}" if epoch is not None else ""))
        lines = results_table(results, untranslated, data.references, data.absent, data.ranges)
        print("\n".join([*lines, *protocol]) + "\n")
        record = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "checkpoint": path, "epoch": epoch, "results": results}
        append_line(log, json.dumps(record | about | made))
        history[epoch] = results
    if all_checkpoints:
        print("\n".join(best_epochs(history)))
        draw_curves(history, f"{sheets}/metrics.png")
    print(f"appended to {log}")
    return history


##############################
#   Checkpoints and data
##############################


def open_generators(checkpoint, direction, counterpart, trust=False, n_samples=None):
    """Loads the generators of a checkpoint -> ({direction: generator}, epoch or None, options of the training, what else
    lines of metrics.jsonl tell: the step, or None, and the provenance of this measurement and of the training)."""
    trained = load_generators(checkpoint, direction, counterpart, trust, volumes=True)
    named = next(found for found in trained.values() if found.path == checkpoint)
    options = named.options or options_beside(checkpoint)
    made = {
        "step": named.step,
        "measured_by": provenance(),
        "trained_by": named.provenance or provenance_beside(checkpoint),
    }
    return networks_of(trained, n_samples), named.epoch, options, made


def networks_of(trained, n_samples):
    """{direction: TrainedGenerator} -> {direction: network}, with `n_samples` ready for samples"""
    if n_samples:
        prepare_sampling([*trained.values()])
    return {direction: found.network for direction, found in trained.items()}


def image_size(generators, height, width, options):
    """Returns the (height, width) to evaluate at. Where it is None: that of an exported file of a fixed size, that of the
    training, or 256. Checks that all generators accept it."""
    fixed = [G for G in generators.values() if getattr(G, "size", None)]
    default = fixed[0].size if fixed else (options.get("img_height") or 256, options.get("img_width") or 256)
    height, width = height or default[0], width or default[1]
    for G in fixed:
        if G.size != (height, width):
            fits = "--img_height {} --img_width {}".format(*G.size)
            raise InputError(f"--img_height {height} --img_width {width}: {G.path} takes only {fits}")
    multiple = max(G.multiple for G in generators.values())
    if wrong := not_divisible((height, width), multiple):
        raise InputError(f"--img_height {height} --img_width {width}: {wrong}")
    return height, width


def find_dataset(checkpoint, dataset_name, data_dir):
    """Returns the folder of the data set."""
    if not dataset_name:
        raise InputError(f"--dataset_name: required, because {checkpoint} does not contain the name of its data set")
    root = os.path.join(data_dir or "data", dataset_name)
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder. Set --data_dir and --dataset_name to a data set with test images")
    return root


def find_checkpoints(checkpoint, epoch, direction):
    """Finds the generators of all epochs in the folder of a checkpoint -> {epoch: path}."""
    if is_exported(checkpoint):
        raise InputError(f"--all_checkpoints: needs G_AB_N.pth files, but {checkpoint} is exported. Name one of those")
    folder, direction = os.path.dirname(checkpoint) or ".", direction or "AB"
    found = [re.fullmatch(rf"G_{direction}_(\d+)\.pth", file) for file in os.listdir(folder)]
    checkpoints = {int(match[1]): os.path.join(folder, match[0]) for match in found if match}
    if not checkpoints:
        raise InputError(f"--all_checkpoints: {folder} contains no G_{direction}_N.pth")
    return checkpoints


##############################
#         Measuring
##############################


def prepare_metrics(generators, directions, data, settings, inception_weights, lpips_weights, fid_resize):
    """Loads the metrics and processes the real images. Prints a note for each metric that is not available."""
    available = AvailableMetrics(settings.device, inception_weights, lpips_weights, fid_resize, settings.size)
    for direction in directions:
        source, target = direction
        channels = generators[direction].out_channels
        available.add_real_images(target, data.real[target], len(data.test[source]), channels, settings)
    if len(generators) == 1:
        available.missing["cycle"] = "needs both directions; name the other generator with --counterpart"
    if any(G.channels != G.out_channels for G in generators.values()):
        available.missing["identity"] = "images of A and B differ in channels"
    for measure, reason in available.missing.items():
        print(f"note: no {measure}: {reason}")
    return available


def protocol_lines(data, available, directions, settings, paired=False):
    """Says how things are measured, as lines of text."""
    deep = [direction for direction in directions if data.is_deep(direction)]
    lines = [PROTOCOL["aspect" if settings.keep_aspect else "size"]]
    if paired and available.pair["ssim"]:
        lines.append(PROTOCOL["ssim"])
    for domain, value_range in data.ranges.items():
        if value_range:
            low, high = value_range
            lines.append(PROTOCOL["range"].format(domain, low, high, (high - low) / 255))
    if deep:
        what = PROTOCOL["more bits in a range" if any(data.ranges.values()) else "more bits"]
        lines.append(f"{', '.join(map(arrow, deep))}: {what}")
    if len(deep) < len(directions):
        lines.append(("otherwise, " if deep else "") + PROTOCOL["8 bits"])
    if settings.n_samples:
        lines.append(
            f"samples are {settings.n_samples} translations of each input with seed {settings.seed}; the other measures are of the one "
            "without noise and dropout"
        )
    resize, subsets = available.fid_resize, {}
    for direction in directions:
        for protocol, distance in available.distances.get(direction[1], {}).items():
            subsets[f"{arrow(direction)}, {protocol}"] = (distance.subsets, distance.subset_size)
    if subsets:
        lines.append(
            "FID and KID are between all translations of the source's test images and the target's real images; 2048 "
            f"features of Inception as published; resized to 299 x 299 as {resize} does: {RESIZING[resize]}"
        )
    for drawn in sorted(set(subsets.values())):
        where = "; ".join(name for name, found in subsets.items() if found == drawn)
        lines.append(f"KID is of {drawn[0]} subset{'s' * (drawn[0] > 1)} of {drawn[1]} images ({where})")
    return lines


def measure_checkpoint(path, generators, directions, data, available, settings, paired, sheets):
    """Measures one checkpoint and writes its sheets -> {direction: {measure: value}}.

    directions: the requested directions; one without a generator is skipped
    sheets:     folder for the sheets
    """
    for G in generators.values():
        G.to(settings.device)
    if lacking := set(directions) - generators.keys():
        print(f"note: {path}: no counterpart in its folder, so {' and '.join(sorted(lacking))} is not measured")
    results = {}
    for direction in sorted(set(directions) & generators.keys()):
        results[direction], cases = measure_direction(direction, generators, data, available, settings, paired)
        sheet = f"{sheets}/evaluate_{stem(path)}_{direction}.png"
        cases.save_sheet(sheet)
        print(f"{sheet}: best and worst cases of {cases.title}")
    return results


def facts_of(data, size):
    """What metrics.jsonl says of the data and the packages -> dict"""
    facts = {
        "data": data.root, "counts": data.counts(), "size": size, "references": data.references, "absent": data.absent,
        "palette": data.palette and dataclasses.asdict(data.palette), "versions": package_versions(),
    }  # fmt: skip
    return facts | ({"ranges": data.ranges} if any(data.ranges.values()) else {})


def package_versions():
    """Returns {package: version, or None if it is not installed}."""
    versions = {}
    for package in ("torch", "torchvision", "torchmetrics", "torch-fidelity", "pillow", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions
