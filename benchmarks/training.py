"""
Times training steps of cyclegan.py, with and without each optimisation, and those of another project.
"""

import argparse
import contextlib
import functools
import unittest.mock

import torch

import cyclegan
from benchmarks.baseline import baseline_step, load_baseline
from measuring.timing import count_flops, in_rounds, noise
from training.cuda_graph import may_record
from training.optimizer import Adam
from training.run import Run
from training.update import Update
from utils import bfloat16_pays

# {name: arguments of our_step} that disable an optimisation, or enable one that is off by default
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


def time_training(opt, device, size, batch_size, rates, show):
    """Times training steps of cyclegan.py, with opt.ablate also of its ablations, and of the project in opt.baseline.

    rates: {"float32" or "bfloat16": rate of large matrix products in TFLOP/s}, to compare with
    show:  function that displays a line of progress

    Returns the results of measuring.timing.in_rounds with the added keys "images_per_s", "tflops" and
    "share_of_matmul", the fraction of the rate.
    """
    n = batch_size * opt.accumulate
    ours = functools.partial(our_step, opt, device, size, batch_size)
    candidates = {"cyclegan.py": ours}
    for name, change in ABLATIONS.items() if opt.ablate else ():
        if change != {"graph": False} or may_record(device):
            candidates[name] = functools.partial(ours, **change)
    flops = dict.fromkeys(candidates, count_flops(step_on_meta(opt, size, batch_size)))
    if opt.baseline:
        candidates["baseline"] = functools.partial(baseline_step, *load_baseline(opt.baseline), device, size, n)
        flops["baseline"] = count_flops(candidates["baseline"]())
    measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, show=show)
    for name, row in measured.items():
        is_bfloat16 = name != "baseline" and ABLATIONS.get(name, {}).get("amp", True) and bfloat16_pays(device)
        row["images_per_s"] = 2 * n / row["seconds"]
        row["tflops"] = flops[name] / row["seconds"] / 1e12
        row["share_of_matmul"] = row["tflops"] / rates["bfloat16" if is_bfloat16 else "float32"]
    return measured


def our_step(opt, device, size, batch_size, amp=True, graph=True, fused=True, one_pass=True, compile=False,
             channels_last=False, group_norm=False, checkpoint_activations=False):  # fmt: skip
    """Returns a function that runs one training step of cyclegan.py and returns its losses. The function uses random
    images if it is called without arguments, and real_A and real_B if they are given.

    opt:        options of benchmarks.speed
    size:       height and width of the images
    batch_size: images per domain, for each of the opt.accumulate parts of a step

    The other arguments each switch one optimisation on or off:
    amp:                    bfloat16 matrix products, if the device has them
    graph:                  record the step as a CUDA graph, on CUDA
    fused:                  Adam as a single kernel
    one_pass:               compute the translations and the identity mappings in one forward pass, and likewise the
                            scores of real and translated images
    compile:                torch.compile all networks
    channels_last:          memory format of the networks
    group_norm:             replace instance norms, see `use_group_norm`
    checkpoint_activations: recompute activations in the backward pass
    """
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


def step_on_meta(opt, size, batch_size):
    """Returns `our_step` on meta tensors, which have shapes but no data, to count its operations without computing. It
    includes neither torch.compile nor recomputed activations.
    """
    plain = argparse.Namespace(**vars(opt) | {"compile": False, "checkpoint_activations": False})
    # autocast does not support the meta device
    no_autocast = unittest.mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext())
    return no_autocast(our_step(plain, torch.device("meta"), size, batch_size))


def use_group_norm(module):
    """Replaces instance norms by group norms with one channel per group. The results are the same, but unlike instance
    norm, group norm preserves the channels_last memory format.
    """
    for name, child in module.named_children():
        if isinstance(child, torch.nn.InstanceNorm2d):
            setattr(module, name, torch.nn.GroupNorm(child.num_features, child.num_features, affine=False))
        else:
            use_group_norm(child)
