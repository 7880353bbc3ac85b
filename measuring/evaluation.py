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
from measuring.data import find_data, find_labels
from measuring.images import from_uint8, image_batches, in_8_bits, stack_images, to_float, to_uint8
from measuring.metrics import RESIZING, l1
from measuring.report import Cases, arrow, best_epochs, draw_curves, results_table
from measuring.scores import AvailableMetrics, Scores
from media.images import stem
from media.reading import check_regular
from utils import InputError, as_rgb, bfloat16_pays, choose_device
from variants.schema import confirm_paths

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
    keep_aspect, ranges: see images.ResizedImages; ranges is {domain: value_range}
    """

    size: tuple
    device: torch.device
    amp: bool
    batch_size: int = 8
    n_cpu: int = 0
    keep_aspect: bool = False
    ranges: dict = dataclasses.field(default_factory=dict)

    def reading(self, domain):
        """Returns the keyword arguments of images.stack_images that are the same for all images of a domain."""
        return dict(size=self.size, keep_aspect=self.keep_aspect, value_range=self.ranges.get(domain))

    def loading(self, domain):
        """Returns the keyword arguments of images.image_batches that are the same for all images of a domain."""
        return self.reading(domain) | dict(device=self.device, batch_size=self.batch_size, n_cpu=self.n_cpu)


def evaluate(checkpoint, *, counterpart=None, direction=None, all_checkpoints=False, dataset_name=None, data_dir=None,
             img_height=None, img_width=None, keep_aspect=None, paired=False, palette=None, inception_weights=None, lpips_weights=None,
             fid_resize="torch-fidelity", batch_size=8, n_cpu=2, device=None, amp=None, trust=False):  # fmt: skip
    """Measures the quality of trained generators on the test images of a data set.

    Prints a table for each checkpoint, appends a JSON line to metrics.jsonl in the folder of the checkpoint, and writes
    sheets of the best and worst cases to images/. What cannot be measured is omitted, with a note.

    checkpoint:            a full checkpoint, the file of one generator, or an exported file
    counterpart:           file of the generator of the other direction, if it is not in the folder of the checkpoint
    direction:             "AB" or "BA" to measure one direction; None measures both if both generators exist
    all_checkpoints:       measure every G_AB_N.pth in the folder of the checkpoint
    dataset_name, data_dir, img_height, img_width, keep_aspect: default to those of the training
    paired, palette:       compare with the ground truth; A and B are matched by file stem. See data.find_labels
    inception_weights, lpips_weights: local files, see metrics.inception and metrics.lpips
    fid_resize:            "torch-fidelity" or "clean-fid", see metrics.Inception
    device, amp:           default to the best device, and to bfloat16 where the device supports it
    trust:                 load .pt2 and .ts files, which are programs
    Returns {epoch: {direction: {measure: value}}}, see Scores.compute. Raises InputError.
    """
    device = choose_device(device)
    generators, epoch, options, made = open_generators(checkpoint, direction, counterpart, trust)
    checkpoints = find_checkpoints(checkpoint, epoch, direction) if all_checkpoints else {epoch: checkpoint}
    size = image_size(generators, img_height, img_width, options)
    confirm_paths(options, dict(dataset_name=dataset_name, data_dir=data_dir), checkpoint)
    name = dataset_name or options.get("dataset_name")
    root = find_dataset(checkpoint, name, data_dir or options.get("data_dir"))
    directions = [direction] if direction else sorted(generators)
    data = find_data(root, generators, matched=bool(paired or palette))
    if amp is None:  # bfloat16 has 8 significant bits
        amp = bfloat16_pays(device) and not any(map(data.is_deep, directions))
    keep_aspect = bool(options.get("keep_aspect")) if keep_aspect is None else keep_aspect
    settings = Settings(size, device, amp, batch_size, n_cpu, keep_aspect, data.ranges)
    if palette:
        find_labels(data, palette, generators, directions, size, keep_aspect)

    precision = str(next(iter(generators.values()))) if is_exported(checkpoint) else "bfloat16" if amp else "float32"
    print(f"{root}: {data.counts()}, at {size[1]} x {size[0]} pixels, {precision}")
    folder = os.path.dirname(checkpoint) or "."
    log = os.path.join(folder, "metrics.jsonl")
    check_regular(log)
    append_line(log, "")  # fails now if the file cannot be written
    available = prepare_metrics(generators, directions, data, settings, inception_weights, lpips_weights, fid_resize)
    about = {
        "data": root, "counts": data.counts(), "size": size, "precision": precision,
        "protocol": protocol_lines(data, available, directions, paired, keep_aspect), "missing": available.missing,
        "untranslated": measure_all_untranslated(generators, directions, data, available, settings, paired),
        "references": data.references, "absent": data.absent,
        "palette": data.palette and dataclasses.asdict(data.palette), "versions": package_versions(), **made,
    }  # fmt: skip
    about |= {"ranges": data.ranges} if any(data.ranges.values()) else {}

    sheets, history = os.path.join("images", os.path.basename(os.path.abspath(folder))), {}
    if name != options.get("dataset_name", name):
        sheets = os.path.join(sheets, name)
    for epoch, path in sorted(checkpoints.items(), key=lambda item: item[0] or 0):
        if all_checkpoints:
            generators = {d: found.network for d, found in load_generators(path, direction, counterpart, trust).items()}
        results = measure_checkpoint(path, generators, directions, data, available, settings, paired, sheets)
        print(f"\n{path}" + (f", epoch {epoch}" if epoch is not None else ""))
        lines = results_table(results, about["untranslated"], data.references, data.absent, data.ranges)
        print("\n".join([*lines, *about["protocol"]]) + "\n")
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        append_line(log, json.dumps({"time": now, "checkpoint": path, "epoch": epoch, "results": results} | about))
        history[epoch] = results
    if all_checkpoints:
        print("\n".join(best_epochs(history)))
        draw_curves(history, f"{sheets}/metrics.png")
    print(f"appended to {log}")
    return history


##############################
#   Checkpoints and data
##############################


def open_generators(checkpoint, direction, counterpart, trust=False):
    """Loads the generators of a checkpoint -> ({direction: generator}, epoch or None, options of the training,
    provenance of this measurement and of the training)."""
    trained = load_generators(checkpoint, direction, counterpart, trust)
    named = next(found for found in trained.values() if found.path == checkpoint)
    options = named.options or options_beside(checkpoint)
    made = {"measured_by": provenance(), "trained_by": named.provenance or provenance_beside(checkpoint)}
    return {d: found.network for d, found in trained.items()}, named.epoch, options, made


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


def protocol_lines(data, available, directions, paired=False, keep_aspect=False):
    """Says how things are measured, as lines of text."""
    deep = [direction for direction in directions if data.is_deep(direction)]
    lines = [PROTOCOL["aspect" if keep_aspect else "size"]]
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


def measure_all_untranslated(generators, directions, data, available, settings, paired):
    """Returns {direction: result of measure_untranslated}, for directions where that makes sense."""
    return {
        d: measure_untranslated(d, data, available, settings, generators[d].channels, paired)
        for d in directions
        if (paired or data.label_domain == d[1]) and generators[d].channels == generators[d].out_channels
    }


@torch.no_grad()
def measure_untranslated(direction, data, available, settings, channels, paired):
    """Compares the inputs themselves with the ground truth -> {measure: value}, as measure_direction does with the
    translations. A translation is only worth something if it is closer to the truth than its input was."""
    source, target = direction
    scores, truths, done = Scores(available, deep=data.is_deep(direction)), data.truths(direction), 0
    loading = settings.loading(source) | dict(
        channels=channels, deep=data.deep[source], label=f"untranslated {source} against {target}"
    )
    for images in image_batches(data.test[source], **loading):
        counterparts = truths[done : done + len(images)]
        done += len(images)
        if paired:
            truth = stack_images(counterparts, channels=channels, deep=data.deep[target], **settings.reading(target))
            scores.add_pairs(to_float(images), to_float(truth.to(settings.device)))
        if data.label_domain == target:
            scores.add_labels(in_8_bits(images), counterparts, data.palette, settings.keep_aspect)
    return scores.compute()


@torch.no_grad()
def measure_direction(direction, generators, data, available, settings, paired):
    """Measures one direction -> ({measure: value}, report.Cases).

    direction:  "AB" or "BA"
    generators: {direction: generator}; the opposite one is optional
    """
    source, target = direction
    G, G_back = generators[direction], generators.get(target + source)
    is_deep, is_label = data.is_deep(direction), data.label_domain == target
    truths = data.truths(direction)
    if is_label:
        criterion, unit = "share of wrong pixels", ""
    elif truths:
        criterion, unit = "L1 to the truth", "of 255"
    elif G_back:
        criterion, unit = "cycle L1", "of 255"
    else:
        criterion, unit = "L1 to the input", "of 255"
    columns = ["input", "translation"] + ["recovered"] * bool(G_back) + ["truth"] * bool(truths)
    scores, cases = Scores(available, target, is_deep), Cases(f"{arrow(direction)}, by {criterion}", columns, unit)

    def translate(G, x):
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.amp):
            return G(x).float()

    done = 0
    loading = settings.loading(source) | dict(channels=G.channels, deep=data.deep[source], label=arrow(direction))
    for images in image_batches(data.test[source], **loading):
        batch = slice(done, done + len(images))
        done += len(images)
        x = to_float(images)
        fake = translate(G, x)
        written = to_uint8(fake)  # what an image file would contain ...
        seen = fake.clamp(-1, 1) if is_deep else from_uint8(written)  # ... and what its reader would see
        shown = [in_8_bits(images), written]
        errors = {"L1 to the input": scores.add_change(x, seen)}
        scores.add_distribution(written)
        if G_back:
            recovered = translate(G_back, fake)  # not from 8 bits: the cycle loss does not round either
            errors["cycle L1"] = scores.add_cycle(x, recovered)
            shown.append(to_uint8(recovered))
        if truths:
            reading = settings.reading(target) | dict(channels=G.out_channels, deep=data.deep[target])
            truth = stack_images(truths[batch], **reading).to(settings.device)
            shown.append(in_8_bits(truth))
            truth = to_float(truth)
            errors["L1 to the truth"] = l1(seen, truth)
            if paired:
                scores.add_pairs(seen, truth)
        if is_label:
            errors["share of wrong pixels"] = scores.add_labels(
                written, truths[batch], data.palette, settings.keep_aspect
            )
        for i, path in enumerate(data.test[source][batch]):
            cases.add(errors[criterion][i].item(), path, [as_rgb(column[i : i + 1])[0] for column in shown])

    unchanged = data.test[target] if G.channels == G.out_channels else []
    loading |= settings.reading(target) | dict(
        deep=data.deep[target], label=f"{arrow(direction)}, identity mapping of {target}"
    )
    for images in image_batches(unchanged, **loading):
        x = to_float(images)
        scores.add("identity_l1", l1(translate(G, x), x))
    return scores.compute(), cases


def package_versions():
    """Returns {package: version, or None if it is not installed}."""
    versions = {}
    for package in ("torch", "torchvision", "torchmetrics", "torch-fidelity", "pillow", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions
