"""
Times training, translation and data loading on this machine.

    python -m benchmarks.speed                                                     # 256 x 256, batch size 1
    python -m benchmarks.speed --parts training --ablate                           # the gain of each optimisation
    python -m benchmarks.speed --parts training --sizes 128 256 512                # time and memory
    python -m benchmarks.speed --baseline ../PyTorch-GAN/implementations/cyclegan  # next to another project
    torchrun --nproc_per_node=2 -m benchmarks.speed --parts training               # two processes

Prints a table and appends the same numbers to benchmark.jsonl, one JSON line per run. Times are medians. They exclude
the first calls and include waiting for the device. The images are random and the weights untrained.
"""

import argparse
import datetime
import functools
import itertools
import json
import os
import platform
import sys
import tempfile

import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader

import cyclegan
from benchmarks.baseline import load_baseline
from benchmarks.training import our_step, time_training
from command_line.output import append_line
from command_line.parser import argument_parser, between, not_divisible, switch
from command_line.run import run_script
from datasets import ImageDataset
from inference.translator import Translator
from measuring.timing import digits, in_rounds, matmul_rate, name_of, noise
from models import GeneratorResNet
from training.loading import EpochSampler, loader_options
from training.processes import init_processes
from utils import InputError, bfloat16_pays, choose_device


def get_parser():
    parser = argument_parser("Time training, translation and loading.", "python -m benchmarks.speed [options]")
    add = parser.add_argument
    # fmt: off
    add("--parts", nargs="+", choices=PARTS, metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    add("--sizes", nargs="+", type=between(32, 16384), default=[256], help="height and width of the images")
    add("--batch_sizes", nargs="+", type=between(1, 4096), default=[1], help="images per domain, or per call")
    add("--ablate", action="store_true", help="measure the gain of each optimisation of training")
    add("--baseline", metavar="DIR", help="folder of PyTorch-GAN's or the authors' CycleGAN")
    add("--compile", action=switch, default=False, help="use torch.compile, except for the baseline")
    add("--checkpoint_activations", action=switch, default=False, help="as for cyclegan.py")
    add("--accumulate", type=between(1, 1024), default=1, help="as for cyclegan.py")
    add("--n_residual_blocks", type=between(0, 1000), default=9, help="as for cyclegan.py")
    add("--ngf", type=between(1, 4096), default=64, help="as for cyclegan.py")
    add("--ndf", type=between(1, 4096), default=64, help="as for cyclegan.py")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--runs", type=between(1, 1000), default=3, help="measurements per round")
    add("--rounds", type=between(1, 1000), default=2, help="rounds over all measurements")
    add("--output", metavar="FILE", default="benchmark.jsonl", help="append results here")
    # fmt: on
    return parser


##############################
#   Translation and loading
##############################


def time_translation(opt, device, size, batch_size, rates, show):
    """Times translate.py's path from pixels to pixels, and forward passes of its generator in several precisions.

    Arguments and result are those of `time_training`, without the keys for operations.
    """
    images = noise(batch_size, size, device)
    pixels = ((images.cpu() + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
    dtype = torch.bfloat16 if bfloat16_pays(device) else torch.float32

    def generator():
        return GeneratorResNet(3, opt.n_residual_blocks, opt.ngf).apply(cyclegan.weights_init_normal).eval()

    def forward(dtype, compile=None, channels_last=False, G=None):
        G = (G or generator()).to(device, dtype)
        x = images.to(dtype)
        if channels_last:
            G, x = G.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        if compile:
            G.compile(dynamic=False, mode=compile)
        return torch.no_grad()(lambda: G(x))

    def translator():
        amp = dtype == torch.bfloat16
        translate = Translator([generator()], device, amp=amp, batch_size=batch_size, compile=opt.compile)
        return lambda: translate(pixels)

    candidates = {
        "translate.py, pixels to pixels": translator,
        "generator, float32": functools.partial(forward, torch.float32),
    }
    if dtype == torch.bfloat16:
        candidates["generator, bfloat16"] = functools.partial(forward, dtype)
        candidates["generator, bfloat16, channels_last"] = functools.partial(forward, dtype, channels_last=True)
    if opt.compile:
        candidates["generator, compiled"] = functools.partial(forward, dtype, compile="default")
        if device.type == "cuda":
            candidates["generator, compiled, CUDA graph"] = functools.partial(forward, dtype, compile="reduce-overhead")
    if opt.baseline:
        make_G, _ = load_baseline(opt.baseline)
        candidates["baseline, float32"] = lambda: forward(torch.float32, G=make_G(size).eval())
    measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, show=show)
    for row in measured.values():
        row["images_per_s"] = batch_size / row["seconds"]
    return measured


def time_loading(opt, device, size, batch_size, rates, show):
    """Times training on random images, training with the data loader, and the loader alone. Times are per step.

    The data set consists of random JPEG files that are 25% larger than the images. Arguments and result are those of
    `time_training`, without the keys for operations.
    """
    n_steps = max(2, min(64, 512 // batch_size)) if device.type == "cuda" else 4
    n = n_steps * batch_size
    with tempfile.TemporaryDirectory() as root:
        for domain in "AB":
            os.mkdir(f"{root}/train{domain}")
            for i in range(n):
                picture = Image.effect_noise((size * 5 // 4, size * 5 // 4), 90).convert("RGB")
                picture.filter(ImageFilter.GaussianBlur(1)).save(f"{root}/train{domain}/{i}.jpg")

        def loader(cache, n_workers):
            load_size = round(size * 286 / 256)
            dataset = ImageDataset(root, "train", True, (size, size), (load_size, load_size), cache=cache)
            batches = DataLoader(
                dataset, batch_sampler=EpochSampler(n, batch_size), **loader_options(n_workers, dataset, device)
            )
            return lambda: [[x.to(device, non_blocking=True) for x in batch.values()] for batch in batches]

        def fed_with_noise():
            step = our_step(plain, device, size, batch_size)
            return lambda: [step() for _ in range(n_steps)]

        def fed_by_loader():
            epoch, step = loader(True, 0), our_step(plain, device, size, batch_size)
            return lambda: [step(*images) for images in epoch()]

        plain = argparse.Namespace(**vars(opt) | {"accumulate": 1})
        candidates = {"training on the same images": fed_with_noise, "training on cached images": fed_by_loader}
        candidates["loading cached images"] = functools.partial(loader, True, 0)
        for n_workers in sorted({0, 1, min(8, os.cpu_count())}):
            name = f"loading JPEGs, {n_workers} worker process{'es' if n_workers != 1 else ''}"
            candidates[name] = functools.partial(loader, False, n_workers)
        measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, show=show)
    for row in measured.values():
        for key in ("seconds", "min", "max"):
            row[key] /= n_steps
        row["images_per_s"] = 2 * batch_size / row["seconds"]
    return measured


##############################
#         The table
##############################

PARTS = {"training": time_training, "translation": time_translation, "loading": time_loading}
EXPLANATION = """
images/s: per process; training and loading count the images of both domains
GiB:      peak memory: of tensors on a GPU; on a CPU, the increase in the memory of the process
of rate:  fraction of the rate of matrix products in the same precision, see the first line
ratio:    time relative to the first row"""


def print_table(part, size, opt, batch_size, rows):
    """Prints the results of one part; rows: see `time_training`."""
    first = next(iter(rows.values()))["seconds"]
    title = f"{part}, {size} x {size}, batch size {batch_size}"
    names = ("accumulate", "compile", "checkpoint_activations")
    options = {name: getattr(opt, name) for name in names if getattr(opt, name) != get_parser().get_default(name)}
    changed = [f"--{name}" if value is True else f"--{name} {value}" for name, value in options.items()]
    print(f"\n{title}, other options: {' '.join(changed) or 'none'}")
    print(f"{'ms (min ... max)   images/s    GiB':>78}{'  TFLOP/s  of rate' * (part == 'training')}  ratio")
    for name, row in rows.items():
        ms = "{:>9} ({} ... {})".format(*(digits(1000 * row[key]) for key in ("seconds", "min", "max")))
        line = f"  {name:33s} {ms:27s} {digits(row['images_per_s']):>9} {row['memory_gib']:6.2f}"
        if "tflops" in row:
            line += f" {row['tflops']:8.3g} {row['share_of_matmul']:8.0%}"
        print(f"{line} {digits(row['seconds'] / first):>6}", flush=True)


def append_record(opt, device, world_size, rates, results):
    """Appends the results of a run to the file opt.output, as one JSON line."""
    record = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "device": name_of(device),
              "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
              "processes": world_size, "options": vars(opt), "matmul_tflops": rates, "results": results}  # fmt: skip
    append_line(opt.output, json.dumps(record))


def main(argv=None):
    opt = get_parser().parse_args(argv)
    opt.parts = opt.parts or list(PARTS)
    if wrong := not_divisible(opt.sizes, 4):
        raise InputError(f"--sizes {' '.join(map(str, opt.sizes))}: {wrong}")
    if opt.baseline:
        load_baseline(opt.baseline)  # an error should occur before the measurements
    device = choose_device(opt.device)
    rank, world_size = init_processes(device)
    torch.backends.cudnn.benchmark = True

    def show(line):
        if rank == 0 and sys.stderr.isatty():
            print(f"\r{line:<100}", end="\r", file=sys.stderr, flush=True)

    dtypes = ["float32"] + ["bfloat16"] * bfloat16_pays(device)
    rates = {name: matmul_rate(device, getattr(torch, name)) / 1e12 for name in dtypes}
    if rank == 0:
        matmul = ", ".join(f"{rate:.3g} TFLOP/s in {name}" for name, rate in rates.items())
        threads = "" if device.type == "cuda" else f", threads: {torch.get_num_threads()}"
        print(
            f"{name_of(device)}{threads}, processes: {world_size}, torch {torch.__version__}; matrix products: {matmul}"
        )
        if opt.baseline and (opt.ngf, opt.ndf, opt.n_residual_blocks) != (64, 64, 9):
            print("note: the baseline always uses its defaults, 64 filters and 9 residual blocks")
        os.makedirs(os.path.dirname(opt.output) or ".", exist_ok=True)
        open(opt.output, "a").close()  # an error should occur before the measurements
    results = []
    try:
        for part, size, batch_size in itertools.product(opt.parts, opt.sizes, opt.batch_sizes):
            rows = PARTS[part](opt, device, size, batch_size, rates, show)
            results += [{"part": part, "size": size, "batch": batch_size, "what": k, **v} for k, v in rows.items()]
            if rank == 0:
                show("")
                print_table(part, size, opt, batch_size, rows)
    finally:  # keep the results so far after an error or Ctrl-C
        if rank == 0 and results:
            append_record(opt, device, world_size, rates, results)
    if rank == 0:
        print(f"{EXPLANATION}\n\nappended to {opt.output}")


if __name__ == "__main__":
    run_script(main)
