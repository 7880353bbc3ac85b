"""
How good is a trained CycleGAN? Measures both directions on the test images, prints a table, appends it as a JSON line
to metrics.jsonl beside the checkpoint, and draws the best and the worst cases.

    python evaluate.py --checkpoint saved_models/horse2zebra/latest.pth
    python evaluate.py --checkpoint saved_models/horse2zebra/latest.pth --all_checkpoints
    python evaluate.py --checkpoint saved_models/facades/latest.pth --paired

FID, KID, LPIPS, PSNR and SSIM need optional packages: pip install -r requirements-optional.txt
"""

import argparse
import importlib.metadata
import json
import os
import re
import time

import numpy as np
import torch
from torch.utils.data import DataLoader

from command_line.parser import between
from command_line.progress import Progress
from command_line.run import run_script
from datasets import find_folder
from inference.exported import is_exported
from inference.load import load_generators, options_beside
from measuring import metrics
from measuring.report import Cases, best_epochs, draw_curves, table
from media.arrays import is_array, load_array
from media.images import ImageFiles, load_image, stem
from training.loading import outlive_signals
from utils import InputError, as_rgb, bfloat16_pays, choose_device

PROTOCOL = (
    "all images resized to one size; translations rounded to 8 bits; FID and KID of all translated test images of the "
    "source to the target's test images (test), and to its train and test images (train_test); Inception as published "
    "(torch-fidelity), features of 2048"
)


def get_parser():
    parser = argparse.ArgumentParser(description="Measure how good a trained CycleGAN is. In brackets: the default.")
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    # fmt: off
    add("--checkpoint", required=True, help="latest.pth, or one generator (G_AB_N.pth finds G_BA_N.pth beside it)")
    add("--counterpart", help="file of the generator of the other direction, where it lies elsewhere")
    add("--direction", choices=("AB", "BA"), help="only this one (both, if both generators are there)")
    add("--all_checkpoints", action="store_true", help="each generator that is kept in the folder, and a curve")
    add("--dataset_name", help="folder in data_dir (that of the training)")
    add("--data_dir", help="folder of the data sets (that of the training, or data)")
    add("--img_height", type=between(32, 16384), help="pixels (as trained, or 256)")
    add("--img_width", type=between(32, 16384), help="pixels (as trained, or 256)")
    add("--paired", action="store_true", help="A and B of the same file stem show the same: compare with the truth")
    add("--palette", choices=("cityscapes",), help="score label images by class; A and B are paired by file stem")
    add("--inception_weights", help="file of the weights for FID and KID, where they cannot be downloaded")
    add("--lpips_weights", help="file of AlexNet's weights for LPIPS, where they cannot be downloaded")
    add("--batch_size", type=between(1, 4096), default=8, help="images at a time (%(default)s)")
    add("--n_cpu", type=between(0, 256), default=2, help="worker processes that load images (%(default)s)")
    add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
    add("--amp", action=switch, help="bfloat16 matrix products in the generators (where the device has them)")
    # fmt: on
    return parser


class Files(torch.utils.data.Dataset):
    """Images by their paths -> uint8 (channels, height, width), resized and nothing else."""

    def __init__(self, paths, size, channels):
        self.paths, self.size, self.channels = paths, size, channels

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        path = self.paths[i]
        if is_array(path, self.channels):
            pixels = (load_array(path, self.channels, self.size) * 255).round().astype(np.uint8)
        else:
            pixels = load_image(path, self.channels, self.size)
        return torch.from_numpy(pixels).permute(2, 0, 1)


def batches(paths, opt, channels, label):
    """Yields uint8 batches (N, channels, height, width) on the device, and shows how far it is."""
    n_workers = min(opt.n_cpu, len(paths) // 100)  # they take a while to start
    loader = DataLoader(Files(paths, opt.size, channels), opt.batch_size, num_workers=n_workers,
                        worker_init_fn=outlive_signals)  # fmt: skip
    progress, started, done = Progress(), time.monotonic(), 0
    for images in loader:
        yield images.to(opt.device)
        done += len(images)
        progress.tick(done, len(paths), "images", started, f"{label}: ")
    progress.end_line()


def to_8_bit(x):
    """[-1, 1] -> uint8, as a file would hold it."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_8_bit(x):
    return x.float() / 127.5 - 1


def pair_up(sources, targets):
    """Paths of two domains -> {source: target} of the same file stem."""
    of_source, of_target = ({stem(path): path for path in paths} for paths in (sources, targets))
    common = sorted(of_source.keys() & of_target.keys())
    if not common:
        raise InputError(f"{os.path.dirname(sources[0])}: no file stem is the same as in {os.path.dirname(targets[0])}")
    return {of_source[name]: of_target[name] for name in common}


##############################
#         Measuring
##############################


class Tools:
    """What measuring takes: networks that tell how alike images look, and what is known of the real images. Whatever
    is missing is None, and `missing` says why."""

    def __init__(self, opt):
        self.missing = {}
        self.extractor = self._get("FID, KID", lambda: metrics.inception(opt.inception_weights).to(opt.device))
        self.lpips = self._get("LPIPS", lambda: metrics.lpips(opt.lpips_weights).to(opt.device))
        self.pairs = self._get("PSNR, SSIM", metrics.pair_measures)
        self.distances = {}

    def _get(self, name, make):
        try:
            return make()
        except metrics.Unavailable as error:
            self.missing[name] = str(error)

    def look_at_real(self, domain, files, n_fake, opt, channels):
        """Prepares the distances of translations into a domain to its real images, of which all features are taken
        once. files: {"test": paths, "train": paths}"""
        if self.extractor is None or n_fake < 2:
            return
        n_features = self.extractor(torch.zeros(1, 3, *opt.size, dtype=torch.uint8, device=opt.device)).shape[1]
        sets = {"test": files["test"], "train_test": files["test"] + files["train"]}
        distances = {
            protocol: metrics.SetDistance(n_features, len(paths), n_fake).to(opt.device)
            for protocol, paths in sets.items()
            if len(paths) > 1
        }
        for part in ("test", "train"):
            for images in batches(files[part], opt, channels, f"real images of {domain}"):
                features = self.extractor(as_rgb(images))
                for protocol, distance in distances.items():
                    if part == "test" or protocol == "train_test":
                        distance.update(features, real=True)
        self.distances[domain] = distances


@torch.no_grad()
def measure(direction, generators, sources, targets, truths, labels, tools, opt):
    """One direction of a CycleGAN -> ({name of MEASURES: value}, those that can be had; Cases, the best and worst).

    direction:  'AB' or 'BA'; generators: {direction: generator}
    sources, targets: paths of test images of both domains
    truths:     path of the true counterpart of each source, or None
    labels:     whether the target domain holds label images, to be scored
    """
    there, back = generators[direction], generators.get(direction[::-1])
    comparable = there.channels == there.out_channels
    distances = tools.distances.get(direction[1], {})
    by = (
        "share of wrong pixels"
        if labels
        else "L1 to the truth"
        if truths
        else "cycle L1"
        if back
        else "L1 to the input"
    )
    columns = ["input", "translation"] + ["recovered"] * bool(back) + ["truth"] * bool(truths)
    score, cases = metrics.LabelScore(), Cases(f"{direction[0]} -> {direction[1]}, by {by}", columns)
    sums, counts = {}, {}

    def add(name, values):
        sums[name] = sums.get(name, 0.0) + values.double().sum().item()
        counts[name] = counts.get(name, 0) + len(values)

    def translate(G, x):
        with torch.autocast(opt.device.type, torch.bfloat16, enabled=opt.amp):
            return G(x).float()

    done = 0
    for images in batches(sources, opt, there.channels, f"{direction[0]} -> {direction[1]}"):
        numbers = range(done, done + len(images))
        done += len(images)
        x = from_8_bit(images)
        fake = translate(there, x)
        written = to_8_bit(fake)
        seen = from_8_bit(written)  # by whoever opens the file
        shown, errors = [images, written], {}
        errors["L1 to the input"] = metrics.l1(seen, x) if comparable else torch.zeros(len(x))

        if distances:
            features = tools.extractor(as_rgb(written))
            for distance in distances.values():
                distance.update(features, real=False)
        if tools.lpips:
            add("change_lpips", tools.lpips(as_rgb(x), as_rgb(seen)))
        if back:
            recovered = translate(back, fake)  # from the translation itself, as in the training
            shown.append(to_8_bit(recovered))
            errors["cycle L1"] = metrics.l1(recovered, x)
            add("cycle_l1", errors["cycle L1"])
            if tools.lpips:
                add("cycle_lpips", tools.lpips(as_rgb(x), as_rgb(recovered)))
        if truths:
            true = torch.stack([Files(truths, opt.size, there.out_channels)[i] for i in numbers]).to(opt.device)
            shown.append(true)
            true = from_8_bit(true)
            errors["L1 to the truth"] = metrics.l1(seen, true)
        if truths and opt.paired:
            add("paired_l1", errors["L1 to the truth"])
            if tools.pairs:
                add("paired_psnr", tools.pairs["psnr"](seen, true))
                add("paired_ssim", tools.pairs["ssim"](seen, true))
            if tools.lpips:
                add("paired_lpips", tools.lpips(as_rgb(seen), as_rgb(true)))
        if labels:
            predicted = metrics.nearest_class(written.permute(0, 2, 3, 1).cpu().numpy())
            right = [score.update(p, metrics.load_labels(truths[i], opt.size)) for p, i in zip(predicted, numbers)]
            errors["share of wrong pixels"] = 1 - torch.tensor(right)
        for j, i in enumerate(numbers):
            cases.add(errors[by][j].item(), sources[i], [as_rgb(pictures[j : j + 1])[0] for pictures in shown])

    for images in batches(
        targets if comparable else [], opt, there.channels, f"{direction[1]} kept by {direction[0]} -> {direction[1]}"
    ):
        x = from_8_bit(images)
        add("identity_l1", metrics.l1(translate(there, x), x))

    values = {name: sums[name] / counts[name] for name in sums} | (score.compute() if labels else {})
    for protocol, distance in distances.items():
        fid, kid = distance.compute()
        values |= {f"fid_{protocol}": fid, f"kid_{protocol}": kid * 1000}
    return values, cases


def main(argv=None):
    evaluate(get_parser().parse_args(argv))


def evaluate(opt):
    """What the script does -> {epoch: {direction: {measure: value}}}"""
    opt.device = choose_device(opt.device)
    opt.amp = bfloat16_pays(opt.device) if opt.amp is None else opt.amp
    trained_generators = load_generators(opt.checkpoint, opt.direction, opt.counterpart)
    facts = next(g for g in trained_generators.values() if g.path == opt.checkpoint)
    generators = {d: g.network for d, g in trained_generators.items()}
    trained = facts.options or options_beside(opt.checkpoint)
    exported = is_exported(opt.checkpoint)
    if exported and opt.all_checkpoints:
        raise InputError(
            f"--all_checkpoints: looks for G_AB_N.pth, and {opt.checkpoint} is exported. Name one of these"
        )
    opt.size = (opt.img_height or trained.get("img_height", 256), opt.img_width or trained.get("img_width", 256))
    multiple = max(G.multiple for G in generators.values())
    if opt.size[0] % multiple or opt.size[1] % multiple:
        raise InputError(f"--img_height {opt.size[0]} --img_width {opt.size[1]}: must be divisible by {multiple}")
    name = opt.dataset_name or trained.get("dataset_name")
    if not name:
        raise InputError(f"--dataset_name: {opt.checkpoint} does not tell which one it was trained on")
    root = os.path.join(opt.data_dir or trained.get("data_dir", "data"), name)
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder. --data_dir and --dataset_name say where the test images are")

    checkpoints = {facts.epoch: opt.checkpoint}
    folder = os.path.dirname(opt.checkpoint) or "."
    if opt.all_checkpoints:
        kept = [re.fullmatch(r"G_(AB|BA)_(\d+)\.pth", file) for file in os.listdir(folder)]
        checkpoints = {int(m[2]): os.path.join(folder, m[0]) for m in kept if m and m[1] == (opt.direction or "AB")}
        if not checkpoints:
            raise InputError(f"--all_checkpoints: {folder} holds no G_{opt.direction or 'AB'}_N.pth")

    # ----------
    #  Data
    # ----------

    files = {domain: {} for domain in "AB"}
    for domain in "AB":
        files[domain]["test"] = list(ImageFiles(find_folder(root, "test", domain)))
        try:
            files[domain]["train"] = list(ImageFiles(find_folder(root, "train", domain)))
        except InputError:  # a person may have test images only
            files[domain]["train"] = []
    test = {domain: files[domain]["test"] for domain in "AB"}
    truths, labelled, references = {"AB": None, "BA": None}, None, {}
    if opt.paired or opt.palette:
        pairs = pair_up(test["A"], test["B"])
        left_out = len(test["A"]) + len(test["B"]) - 2 * len(pairs)
        if left_out:
            print(f"note: {left_out} test images have no counterpart and are left out")
        test = {"A": list(pairs), "B": list(pairs.values())}
        truths = {"AB": test["B"], "BA": test["A"]}
    directions = [opt.direction] if opt.direction else sorted(generators)
    if opt.palette:
        labelled = max("AB", key=lambda domain: metrics.share_of_palette(test[domain][0]))
        if any({G.channels, G.out_channels} != {3} for G in generators.values()):
            raise InputError(f"--palette {opt.palette}: its labels are colours, {opt.checkpoint} is not for RGB")
        if metrics.share_of_palette(test[labelled][0]) < 0.5:
            raise InputError(f"--palette {opt.palette}: {test[labelled][0]} is not in the colours of its classes")
        if labelled not in {direction[1] for direction in directions}:
            raise InputError(f"--palette {opt.palette}: the labels are domain {labelled}, which --direction leaves out")
        references = metrics.label_references(files[labelled]["train"], test[labelled], opt.size)

    counts = {f"{part}{domain}": len(paths) for domain in "AB" for part, paths in files[domain].items()}
    precision = str(next(iter(generators.values()))) if exported else "bfloat16" if opt.amp else "float32"
    print(f"{root}: {counts}, at {opt.size[1]} x {opt.size[0]} pixels, {precision}")
    log = os.path.join(folder, "metrics.jsonl")
    append(log, "")  # if that cannot be written to, now is the time to say so
    tools = Tools(opt)
    for direction in directions:
        channels = generators[direction].out_channels
        tools.look_at_real(direction[1], files[direction[1]], len(test[direction[0]]), opt, channels)
    if len(generators) == 1:
        tools.missing["cycle"] = "it takes both directions; --counterpart names the other one's file"
    if any(G.channels != G.out_channels for G in generators.values()):
        tools.missing["identity"] = "images of A and B differ in channels"
    for what, reason in tools.missing.items():
        print(f"note: no {what}: {reason}")

    # ----------
    #  Measuring
    # ----------

    images, history = os.path.join("images", os.path.basename(os.path.abspath(folder))), {}
    if name != trained.get("dataset_name", name):
        images = os.path.join(images, name)
    for epoch, path in sorted(checkpoints.items(), key=lambda item: item[0] or 0):
        if opt.all_checkpoints:
            found = load_generators(path, opt.direction, opt.counterpart)
            generators = {d: g.network for d, g in found.items()}
        for G in generators.values():
            G.to(opt.device)
        results = {}
        if lacking := set(directions) - generators.keys():
            print(f"note: {path}: no counterpart beside it, so no {' and '.join(sorted(lacking))}")
        for d in sorted(set(directions) & generators.keys()):
            source, target = test[d[0]], test[d[1]]
            is_labels = labelled == d[1]
            results[d], cases = measure(d, generators, source, target, truths[d], is_labels, tools, opt)
            sheet = f"{images}/evaluate_{stem(path)}_{d}.png"
            cases.draw(sheet)
            print(f"{sheet}: best and worst cases of {cases.title}")
        history[epoch] = results
        print(f"\n{path}" + (f", epoch {epoch}" if epoch is not None else ""))
        print("\n".join(table(results, references)) + "\n")
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "checkpoint": path, "epoch": epoch, "data": root,
            "counts": counts, "size": opt.size, "precision": precision,
            "protocol": PROTOCOL, "results": results, "missing": tools.missing, "references": references,
            "versions": versions(),
        }  # fmt: skip
        append(log, json.dumps(record))
    if opt.all_checkpoints:
        print("\n".join(best_epochs(history)))
        draw_curves(history, f"{images}/metrics.png")
    print(f"appended to {log}")
    return history


def append(path, line):
    """Adds a line to a text file, whose last line a killed run may have left without its end; "" adds nothing."""
    with open(path, "a+b") as file:
        if file.tell() and line:
            file.seek(-1, os.SEEK_END)
            line = ("" if file.read() == b"\n" else "\n") + line
        file.write((line + "\n").encode() if line else b"")


def versions():
    packages = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "pillow", "numpy")
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


if __name__ == "__main__":
    run_script(main)
