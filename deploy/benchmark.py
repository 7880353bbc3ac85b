"""
Times a generator in PyTorch and in its exported formats, on one image at a time.
"""

import copy
import functools
import os
import tempfile

import torch

from deploy.formats import FORMATS, export, write_bytes
from inference.exported import Exported
from measuring.metrics import psnr
from measuring.timing import digits, in_rounds, name_of
from media.files import file_size
from utils import bfloat16_pays, choose_device


def benchmark(trained, images, calibration, validation, *, least_psnr=35.0, rounds=3, runs=10, device="cpu",
              size=None):  # fmt: skip
    """Prints a table of speed, file size, memory and accuracy.

    trained: TrainedGenerator
    images:  (N, channels, H, W) in [-1, 1]; the first is timed, PSNR is measured on all
    calibration, validation, least_psnr: for INT8, see formats.export
    size:    (height, width) of the images to export for this size only, None to export for any size
    rounds, runs: see timing.in_rounds
    """
    device = choose_device(device)
    print("exporting and timing, this takes a few minutes", flush=True)
    G, image = trained.network, images[:1].to(device)
    weights, accuracy, sizes = file_size(G.state_dict()), {}, {}
    with torch.no_grad():
        expected = torch.cat([G(part) for part in images.split(1)])

    @torch.no_grad()
    def psnr_of(translate):
        return psnr(torch.cat([translate(part.to(device)).float().cpu() for part in images.split(1)]), expected)

    def build_torch(name, dtype=torch.float32, compile=False):
        network = copy.deepcopy(G).to(device, dtype)
        if compile:
            network.compile(dynamic=False)
        accuracy[name] = psnr_of(lambda x: network(x.to(dtype)))
        sizes[name] = weights * dtype.itemsize / 4
        x = image.to(dtype)
        return torch.no_grad()(lambda: network(x))

    def build_exported(name, path):
        exported = Exported(path, trust=True).to(device)
        accuracy[name] = psnr_of(exported)
        sizes[name] = os.path.getsize(path)
        return lambda: exported(image)

    candidates = {
        name: functools.partial(build_torch, name, **options) for name, options in torch_variants(device).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("TorchScript", "ts"), ("ONNX Runtime", "onnx"), ("ONNX Runtime, INT8", "int8")):
            path = os.path.join(folder, kind + FORMATS[kind].extension)
            write_bytes(export(kind, trained, calibration, validation, least_psnr, size), path)
            candidates[name] = functools.partial(build_exported, name, path)
        measured = in_rounds(candidates, device, rounds=rounds, runs=runs, at_least=0)
    print("\n".join(benchmark_table(measured, sizes, accuracy, device, images.shape)))


def torch_variants(device):
    """Returns {name: options of build_torch}, without bfloat16 where the device does not support it."""
    variants = {"PyTorch": {}}
    if bfloat16_pays(device):
        variants["PyTorch, bfloat16"] = dict(dtype=torch.bfloat16)
    variants["PyTorch, compiled"] = dict(compile=True)
    if bfloat16_pays(device):
        variants["PyTorch, bfloat16, compiled"] = dict(dtype=torch.bfloat16, compile=True)
    return variants


def benchmark_table(measured, sizes, accuracy, device, shape):
    """Formats the results as lines of text.

    measured:        see timing.in_rounds
    sizes, accuracy: {name: bytes}, {name: PSNR in dB}
    shape:           (N, channels, height, width) of the images
    """
    n, _, height, width = shape
    first = next(iter(measured.values()))["seconds"]
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    lines = [
        f"\n{name_of(device)}{threads}, {width} x {height}, one image at a time, torch {torch.__version__}",
        f"{'images/s':>38}{'ratio':>8}{'ms, median':>12}{'p95':>8}{'file, MB':>10}{'memory, MB':>12}{'PSNR, dB':>10}",
    ]
    for name, row in measured.items():
        ms = [digits(1000 * row[key]) for key in ("seconds", "p95")]
        lines.append(
            f"{name:28}{digits(1 / row['seconds']):>10}{first / row['seconds']:>8.2f}{ms[0]:>12}{ms[1]:>8}"
            f"{sizes[name] / 1e6:>10.2f}{row['memory_gib'] * 1073.7:>12.0f}{accuracy[name]:>10.1f}"
        )
    return lines + [f"memory: increase of the process; PSNR: relative to PyTorch in float32, on {n} images"]
