"""
Times training, translation and loading on this machine, side by side in one run.

    python -m benchmarks.speed                                                     # 256 x 256, batch size 1
    python -m benchmarks.speed --parts training --ablate                           # without each optimisation in turn
    python -m benchmarks.speed --parts training --sizes 128 256 512                # for the memory
    python -m benchmarks.speed --baseline ../PyTorch-GAN/implementations/cyclegan  # compared with another project
    torchrun --nproc_per_node=2 -m benchmarks.speed --parts training               # of each of several processes

Prints a table and appends the same numbers to benchmark.jsonl, one JSON line a run. Times are medians without the first
calls and include waiting for the device. Images are noise, weights are untrained.
"""

import argparse
import contextlib
import datetime
import functools
import importlib.util
import inspect
import itertools
import json
import os
import platform
import sys
import tempfile
import unittest.mock

import torch
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader

import cyclegan
from command_line.parser import argument_parser, between
from command_line.run import run_script
from datasets import ImageDataset
from inference.translator import Translator
from measuring.timing import count_flops, digits, in_rounds, matmul_rate, name_of, noise
from models import GeneratorResNet
from training.loading import EpochSampler, loader_options
from training.optimizer import Adam
from training.processes import init_processes
from training.run import Run, may_record
from training.update import Update
from utils import InputError, ReplayBuffer, bfloat16_pays, choose_device

# name -> options of our_step that switch one optimisation off, or one on that it does not use
ABLATIONS = {
    "without bfloat16": {"amp": False},
    "without one pass for two losses": {"one_pass": False},
    "without fused Adam": {"fused": False},
    "without CUDA graph": {"graph": False},
    "without all of these": {"amp": False, "one_pass": False, "fused": False, "graph": False},
    "with torch.compile": {"compile": True},
    "with channels_last": {"channels_last": True},
    "with channels_last, group norm": {"channels_last": True, "group_norm": True},
    "with checkpointed activations": {"checkpoint_activations": True},
}


def get_parser():
    parser = argument_parser("Time training, translation and loading.", "python -m benchmarks.speed [options]")
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    # fmt: off
    add("--parts", nargs="+", choices=PARTS, metavar="PART", help=f"what to time, of {', '.join(PARTS)} (default: all)")
    add("--sizes", nargs="+", type=between(32, 16384), default=[256], help="height and width of the images")
    add("--batch_sizes", nargs="+", type=between(1, 4096), default=[1], help="images per domain and step, or per call")
    add("--ablate", action="store_true", help="training: time it without each optimisation, and with others")
    add("--baseline", metavar="DIR", help="folder of PyTorch-GAN's CycleGAN or of the authors' code")
    add("--compile", action=switch, default=False, help="torch.compile all networks except the baseline's")
    add("--checkpoint_activations", action=switch, default=False, help="as in cyclegan.py")
    add("--accumulate", type=between(1, 1024), default=1, help="as in cyclegan.py")
    add("--n_residual_blocks", type=between(0, 1000), default=9, help="as in cyclegan.py")
    add("--ngf", type=between(1, 4096), default=64, help="as in cyclegan.py")
    add("--ndf", type=between(1, 4096), default=64, help="as in cyclegan.py")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best one)")
    add("--runs", type=between(1, 1000), default=3, help="measurements of each in a round")
    add("--rounds", type=between(1, 1000), default=2, help="rounds over all")
    add("--output", metavar="FILE", default="benchmark.jsonl", help="file the JSON line is appended to")
    # fmt: on
    return parser


##############################
#         Training
##############################


def our_step(opt, device, size, batch_size, amp=True, graph=True, fused=True, one_pass=True, compile=False,
             channels_last=False, group_norm=False, checkpoint_activations=False):  # fmt: skip
    """-> function that does one training step of cyclegan.py, on noise, or on real_A and real_B if they are given"""
    options = cyclegan.get_parser().parse_args([])
    for name in ("ngf", "ndf", "n_residual_blocks", "accumulate", "checkpoint_activations"):
        setattr(options, name, getattr(opt, name))
    options.checkpoint_activations |= checkpoint_activations
    run = Run(options)
    run.device, run.amp, run.graph = device, amp and bfloat16_pays(device), graph and may_record(device)
    gan = cyclegan.build(options, run)
    if not fused:
        for name, optimizer in gan.optimizers().items():
            betas = optimizer.defaults["betas"]
            setattr(gan, name, Adam(optimizer.parameters, lr=options.lr, betas=betas, run=run, fused=False))
    for network in gan.networks().values():
        if group_norm:
            use_group_norm(network)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        if not one_pass:
            forward = network.forward
            network.forward = lambda x, forward=forward: torch.cat([forward(part) for part in x.split(batch_size)])
        if compile or opt.compile:
            network.compile(dynamic=False)
    update = Update(cyclegan.train_step, gan, options, run)
    n = batch_size * opt.accumulate
    images = noise(n, size, device, 0), noise(n, size, device, 1)
    return lambda *real: update(*(real or images))


def step_without_numbers(opt, size, batch_size):
    """The plain step on meta tensors, which have a shape but no values: counts its operations in no time."""
    plain = argparse.Namespace(**vars(opt) | {"compile": False, "checkpoint_activations": False})
    # autocast knows no such device
    no_autocast = unittest.mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext())
    return no_autocast(our_step(plain, torch.device("meta"), size, batch_size))


def use_group_norm(module):
    """Replaces instance norm by group norm with one channel per group: the same result, and channels_last is kept."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.InstanceNorm2d):
            setattr(module, name, torch.nn.GroupNorm(child.num_features, child.num_features, affine=False))
        else:
            use_group_norm(child)


@functools.cache
def load_baseline(folder):
    """-> (make_G(size), make_D(size)), functions that build the networks of another project, with its defaults, for images
    of that size"""

    def load(*names):
        spec = importlib.util.spec_from_file_location("baseline_networks", os.path.join(folder, *names))
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the code of another project may raise anything
            raise InputError(f"--baseline {folder}: {spec.origin} cannot be imported ({type(error).__name__}: {error})")
        return module

    if os.path.exists(os.path.join(folder, "models", "networks.py")):  # the authors'
        networks = load("models", "networks.py")
        norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return (
            lambda size: networks.ResnetGenerator(3, 3, 64, norm_layer=norm, n_blocks=9),
            lambda size: networks.NLayerDiscriminator(3, 64, 3, norm_layer=norm),
        )
    if not os.path.exists(os.path.join(folder, "models.py")):
        raise InputError(
            f"--baseline {folder}: contains neither models.py (PyTorch-GAN) nor models/networks.py (the authors)"
        )
    models = load("models.py")
    if not (hasattr(models, "GeneratorResNet") and hasattr(models, "Discriminator")):
        raise InputError(f"--baseline {folder}: models.py has no GeneratorResNet or no Discriminator")
    if "input_shape" in inspect.signature(models.GeneratorResNet).parameters:  # PyTorch-GAN's
        return (
            lambda size: models.GeneratorResNet((3, size, size), 9),
            lambda size: models.Discriminator((3, size, size)),
        )
    return lambda size: models.GeneratorResNet(), lambda size: models.Discriminator()  # an earlier one of this project


def baseline_step(make_G, make_D, device, size, batch_size):
    """-> function that does one step as those projects do: float32, one pass for each loss, gradients of the
    discriminators in the generators' step too, new labels in each step, five losses read in each step"""
    G_AB, G_BA, D_A, D_B = (make(size).to(device) for make in (make_G, make_G, make_D, make_D))
    adam = functools.partial(torch.optim.Adam, lr=0.0002, betas=(0.5, 0.999))
    optimizer_G = adam([*G_AB.parameters(), *G_BA.parameters()])
    optimizers_D = adam(D_A.parameters()), adam(D_B.parameters())
    buffers = ReplayBuffer(50, 0), ReplayBuffer(50, 1)
    mse, l1 = torch.nn.MSELoss(), torch.nn.L1Loss()
    real_A, real_B = noise(batch_size, size, device, 0), noise(batch_size, size, device, 1)

    def criterion_GAN(scores, label):
        return mse(scores, torch.full(scores.shape, label).to(device))

    def step():
        optimizer_G.zero_grad()
        loss_identity = (l1(G_BA(real_A), real_A) + l1(G_AB(real_B), real_B)) / 2
        fake_B, fake_A = G_AB(real_A), G_BA(real_B)
        loss_GAN = (criterion_GAN(D_B(fake_B), 1.0) + criterion_GAN(D_A(fake_A), 1.0)) / 2
        loss_cycle = (l1(G_BA(fake_B), real_A) + l1(G_AB(fake_A), real_B)) / 2
        loss_G = loss_GAN + 10 * loss_cycle + 5 * loss_identity
        loss_G.backward()
        optimizer_G.step()
        losses = [loss_G, loss_GAN, loss_cycle, loss_identity]
        for D, optimizer, buffer, real, fake in zip(
            (D_A, D_B), optimizers_D, buffers, (real_A, real_B), (fake_A, fake_B)
        ):
            optimizer.zero_grad()
            losses.append((criterion_GAN(D(real), 1.0) + criterion_GAN(D(buffer.push_and_pop(fake)), 0.0)) / 2)
            losses[-1].backward()
            optimizer.step()
        return [loss.item() for loss in losses]

    return step


def time_training(opt, device, size, batch_size, rates, show):
    n = batch_size * opt.accumulate
    ours = functools.partial(our_step, opt, device, size, batch_size)
    candidates = {"cyclegan.py": ours}
    for name, change in ABLATIONS.items() if opt.ablate else ():
        if change != {"graph": False} or may_record(device):
            candidates[name] = functools.partial(ours, **change)
    flops = dict.fromkeys(candidates, count_flops(step_without_numbers(opt, size, batch_size)))
    if opt.baseline:
        candidates["baseline"] = functools.partial(baseline_step, *load_baseline(opt.baseline), device, size, n)
        flops["baseline"] = count_flops(candidates["baseline"]())
    measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, show=show)
    for name, row in measured.items():
        low = name != "baseline" and ABLATIONS.get(name, {}).get("amp", True) and bfloat16_pays(device)
        row["images_per_s"] = 2 * n / row["seconds"]
        row["tflops"] = flops[name] / row["seconds"] / 1e12
        row["share_of_matmul"] = row["tflops"] / rates["bfloat16" if low else "float32"]
    return measured


##############################
#   Translation and loading
##############################


def time_translation(opt, device, size, batch_size, rates, show):
    """Times forward passes of one generator on the device, and translate.py from pixels to pixels."""
    images = noise(batch_size, size, device)
    pixels = ((images.cpu() + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
    low = torch.bfloat16 if bfloat16_pays(device) else torch.float32

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
        amp = low == torch.bfloat16
        translate = Translator([generator()], device, amp=amp, batch_size=batch_size, compile=opt.compile)
        return lambda: translate(pixels)

    candidates = {
        "translate.py, pixels to pixels": translator,
        "generator, float32": functools.partial(forward, torch.float32),
    }
    if low == torch.bfloat16:
        candidates["generator, bfloat16"] = functools.partial(forward, low)
        candidates["generator, bfloat16, channels_last"] = functools.partial(forward, low, channels_last=True)
    if opt.compile:
        candidates["generator, compiled"] = functools.partial(forward, low, compile="default")
        if device.type == "cuda":
            candidates["generator, compiled, CUDA graph"] = functools.partial(forward, low, compile="reduce-overhead")
    if opt.baseline:
        make_G, _ = load_baseline(opt.baseline)
        candidates["baseline, float32"] = lambda: forward(torch.float32, G=make_G(size).eval())
    measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, show=show)
    for row in measured.values():
        row["images_per_s"] = batch_size / row["seconds"]
    return measured


def time_loading(opt, device, size, batch_size, rates, show):
    """Times training with loading against training without, and the loader alone, per step: an epoch of JPEGs that are a
    little larger than the crops, copied to the device."""
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
images/s: training images of both domains, translated images, or loaded images of both domains; of one process
GiB:      the largest amount of memory: of the GPU's tensors, or on a CPU of the process beyond what it had before
of rate:  relative to the rate of matrix products in the same precision, see the first line
ratio:    time relative to the first row"""


def print_table(part, size, opt, batch_size, rows):
    first = next(iter(rows.values()))["seconds"]
    title = f"{part}, {size} x {size}, batch size {batch_size}"
    names = ("accumulate", "compile", "checkpoint_activations")
    changed = [
        f"--{name} {getattr(opt, name)}" for name in names if getattr(opt, name) != get_parser().get_default(name)
    ]
    print(f"\n{title}, other options: {' '.join(changed) or 'none'}")
    print(f"{'ms (min ... max)   images/s    GiB':>78}{'  TFLOP/s  of rate' * (part == 'training')}  ratio")
    for name, row in rows.items():
        ms = "{:>9} ({} ... {})".format(*(digits(1000 * row[key]) for key in ("seconds", "min", "max")))
        line = f"  {name:33s} {ms:27s} {digits(row['images_per_s']):>9} {row['memory_gib']:6.2f}"
        if "tflops" in row:
            line += f" {row['tflops']:8.3g} {row['share_of_matmul']:8.0%}"
        print(f"{line} {digits(row['seconds'] / first):>6}", flush=True)


def main(argv=None):
    opt = get_parser().parse_args(argv)
    opt.parts = opt.parts or list(PARTS)
    if any(size % 4 for size in opt.sizes):
        raise InputError(f"--sizes {' '.join(map(str, opt.sizes))}: must be divisible by 4")
    if opt.baseline:
        load_baseline(opt.baseline)  # fails before anything is timed
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
            print("note: the baseline's networks are those of its defaults: 64 filters, 9 blocks")
        os.makedirs(os.path.dirname(opt.output) or ".", exist_ok=True)
        open(opt.output, "a").close()  # fails now rather than in the end
    results = []
    try:
        for part, size, batch_size in itertools.product(opt.parts, opt.sizes, opt.batch_sizes):
            rows = PARTS[part](opt, device, size, batch_size, rates, show)
            results += [{"part": part, "size": size, "batch": batch_size, "what": k, **v} for k, v in rows.items()]
            if rank == 0:
                show("")
                print_table(part, size, opt, batch_size, rows)
    finally:  # also after an error or Ctrl-C
        if rank == 0 and results:
            record = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "device": name_of(device),
                      "threads": torch.get_num_threads(), "torch": torch.__version__,
                      "python": platform.python_version(), "processes": world_size, "options": vars(opt),
                      "matmul_tflops": rates, "results": results}  # fmt: skip
            with open(opt.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    if rank == 0:
        print(f"{EXPLANATION}\n\nappended to {opt.output}")


if __name__ == "__main__":
    run_script(main)
