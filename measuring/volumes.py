"""
Evaluates generators of volumes (--dims 3, --slices) on whole test volumes, for measuring/evaluation.py. FID, KID and LPIPS
are of photos and not measured.
"""

import json
import os
import time

from command_line.output import append_line
from datasets import find_folder
from inference.translator import Translator
from inference.volumes import read_volume, translate_volume
from measuring.data import match_by_stem, ranges_of
from measuring.metrics import psnr_of_error
from measuring.results import results_table
from media.reading import check_regular
from media.volumes import VolumeFiles
from utils import InputError
from variants.distances import ssim

PROTOCOL = (
    "volumes are translated whole and compared at full precision; SSIM is in 3-D, over windows of 11 x 11 x 11 voxels"
)


def evaluate_volumes(checkpoint, generators, epoch, made, root, directions, device, amp, paired, unfit):
    """Measures generators on the test volumes of a data set, prints a table and appends a line to metrics.jsonl, as
    measuring.evaluation.evaluate does, whose arguments these are -> {epoch: {direction: {measure: value}}}

    generators: {direction: generator}; made: provenance; unfit: values of options that are for images alone"""
    if any(unfit):
        raise InputError(
            f"{checkpoint}: a generator of volumes, and --all_checkpoints, --palette and --n_samples are for images"
        )
    files = {domain: VolumeFiles(find_folder(root, "test", domain)) for domain in "AB"}
    test = match_by_stem(files) if paired else {domain: list(files[domain]) for domain in "AB"}
    ranges = ranges_of(generators)
    translators = {d: Translator([G], device, amp=amp) for d, G in generators.items()}
    log = os.path.join(os.path.dirname(checkpoint) or ".", "metrics.jsonl")
    check_regular(log)
    append_line(log, "")  # fails now if the file cannot be written
    counts = {f"test{domain}": len(paths) for domain, paths in test.items()}
    print(f"{root}: {counts}, whole volumes\nnote: no FID, KID and LPIPS: they are of images")
    results, untranslated = {}, {}
    for d in directions:
        rows = [measure(d, i, test, translators, ranges, paired) for i in range(len(test[d[0]]))]
        rows += [(identity(path, d, translators[d], ranges), {}) for path in test[d[1]]]
        results[d], untranslated[d] = (means([row[k] for row in rows]) for k in (0, 1))
    print(f"\n{checkpoint}" + (f", epoch {epoch}" if epoch is not None else ""))
    print("\n".join([*results_table(results, untranslated, {}, [], ranges), PROTOCOL]) + "\n")
    about = {"protocol": [PROTOCOL], "untranslated": untranslated, "data": root, "counts": counts} | made
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    append_line(log, json.dumps({"time": now, "checkpoint": checkpoint, "epoch": epoch, "results": results} | about))
    print(f"appended to {log}")
    return {epoch: results}


def read(path, translator, ranges, domain, is_source):
    """A file -> (float32 (1, channels, D, H, W) in [-1, 1], its dtype)"""
    channels = translator.channels if is_source else translator.out_channels
    volume, x = read_volume(path, 1 if getattr(translator.generators[0], "slices", 0) else channels, ranges[domain])
    return x, volume.dtype


def measure(direction, i, test, translators, ranges, paired):
    """Measures the translation of one volume -> ({measure: value}, the same of the untranslated volume)"""
    source, target = direction
    forward, back = translators[direction], translators.get(target + source)
    real, dtype = read(test[source][i], forward, ranges, source, True)
    fake = translate_volume(forward, real, dtype)
    values, before = {}, {}
    if back:
        values["cycle_l1"] = l1(translate_volume(back, fake, dtype), real)
    if real.shape == fake.shape:
        values["change_l1"] = l1(fake, real)
    if paired:
        truth, _ = read(test[target][i], forward, ranges, target, False)
        if truth.shape != fake.shape:
            sizes = [" x ".join(map(str, x.shape[2:])) for x in (truth, fake)]
            raise InputError(f"{test[target][i]}: {sizes[0]} voxels, and its counterpart has {sizes[1]}. Omit --paired")
        values |= pair_measures(fake, truth)
        before = pair_measures(real, truth) if real.shape == truth.shape else {}
    return values, before


def identity(path, direction, translator, ranges):
    """The error of a generator for a volume of its target domain -> {measure: value}"""
    if translator.channels != translator.out_channels:
        return {}
    real, dtype = read(path, translator, ranges, direction[1], True)
    return {"identity_l1": l1(translate_volume(translator, real, dtype), real)}


def pair_measures(volume, truth):
    found = {"paired_l1": l1(volume, truth)}
    found["paired_psnr"] = min(100.0, psnr_of_error((volume - truth).square().mean().item()))
    if min(volume.shape[2:]) >= 11:  # its window
        found["paired_ssim"] = ssim(volume, truth).item()
    return found


def l1(a, b):
    """Mean absolute difference of volumes in [-1, 1], in gray levels of 255"""
    return 127.5 * (a - b).abs().mean().item()


def means(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
