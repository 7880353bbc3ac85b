"""
Pruning: removes channels from both generators, then continues training with cyclegan.py as an ordinary run.
"""

import argparse
import copy

import torch
from torch import nn

import cyclegan
from datasets import find_folder
from deploy.compression import print_comparison, quality, read_begun, read_training, training_options
from get_data import prepare_dataset
from inference.load import generator_in
from media.files import load_file, save_file
from training.folders import lock_run, prepare_folders
from training.processes import random_state
from training.run import Run
from utils import InputError, choose_device
from variants.build import GENERATOR_OPTIONS, generator_file, make_generator, with_projections
from variants.options import check


def prune(opt, _):
    """What `compress.py prune` does -> exit status"""
    state, run_name = read_training(opt)
    begun = read_begun(opt, run_name, "options") if opt.resume else None
    opt.n_epochs = 20 if opt.n_epochs is None else opt.n_epochs
    options = training_options(opt, state, run_name)
    fixed = {"--attention": options.attention, "--generator pretrained": options.generator == "pretrained",
             "--noise_channels": options.noise_channels}  # fmt: skip
    if kind := next((kind for kind, is_on in fixed.items() if is_on), None):
        raise InputError(f"{opt.checkpoint}: trained with {kind}, whose widths are fixed; distill takes any teacher")
    check(options)  # a new --batch_size may not fit
    generators = {d: generator_in(state, opt.checkpoint, d).network for d in ("AB", "BA")}
    small = argparse.Namespace(**vars(options) | {"ngf": max(1, round(opt.keep * options.ngf))})
    was = GENERATOR_OPTIONS | (begun["options"] if begun else {})  # an older file lacks the options that came later
    if begun and any(was[name] != getattr(small, name) for name in GENERATOR_OPTIONS):
        raise InputError(
            f"--resume: {begun['path']} is not {opt.checkpoint} with --keep {opt.keep:g}, which would have {small.ngf} "
            "filters in the first layer. Use the options it was begun with, or another --run_name"
        )
    pruned = {} if begun else {d: without_channels(G, options, small) for d, G in generators.items()}
    root = prepare_dataset(options.dataset_name, options.data_dir)
    for domain in "AB":
        find_folder(root, "train", domain)  # raises an error before anything is written
    before = quality(opt, options, opt.checkpoint)
    if not begun:
        write_start(state, pruned, options, small)
    words = ["--run_name", options.run_name, "--resume", f"--n_epochs={opt.n_epochs}"]
    words += ["--data_dir", options.data_dir]  # which is confirmed, wherever it is
    status = cyclegan.main(words + ([f"--device={opt.device}"] if opt.device else [])) if opt.n_epochs else None
    if status:
        return status
    path = f"saved_models/{options.run_name}/latest.pth"
    result = load_file(path)
    after = quality(opt, options, path)
    G = generator_in(result, path, "AB").network
    networks = (generators["AB"], generator_file(state, "AB")), (G, generator_file(result, "AB"))
    print_comparison(*networks, (before, after), options, choose_device(opt.device), path)
    return None


def write_start(state, pruned, options, small):
    """Writes a checkpoint for cyclegan.py to continue from: pruned generators, trained discriminators, new optimizers.

    state: the trained checkpoint; pruned: {direction: generator}; small: the options of the pruned networks"""
    run = Run(argparse.Namespace(**vars(small) | {"device": "cpu", "graph": False}))
    gan = cyclegan.build(small, run)
    gan.G_AB, gan.G_BA = pruned["AB"], pruned["BA"]
    start = {name: part.state_dict() for name, part in (gan.networks() | gan.optimizers()).items()}
    start |= {name: state[name] for name in ("D_A", "D_B", "data")}
    rank = random_state(run.device) | {name: buffer.state_dict() for name, buffer in gan.buffers().items()}
    start |= dict(version=1, options=vars(small), epoch=0, batch=0, step=0, ranks=[rank])
    lock = lock_run(run.checkpoint_dir)
    prepare_folders(run.checkpoint_dir, run.sample_dir, None, resume=False)
    save_file(start, f"{run.checkpoint_dir}/latest.pth")
    if lock:
        lock.close()  # cyclegan.py takes it
    print(f"{run.checkpoint_dir}/latest.pth: {small.ngf} filters in the first layer instead of {options.ngf}")


def without_channels(G, options, small):
    """Removes the channels with the smallest weights (L1 norm of incoming and outgoing weights; Li et al., 2017,
    arXiv:1608.08710). Channels that depend on each other, such as all that the residual blocks add up, are removed
    together -> a generator as the options `small` describe it"""
    try:
        import torch_pruning  # knows which channels depend on which
    except ImportError:
        raise InputError("compress.py prune: needs torch-pruning: pip install torch-pruning")
    G = copy.deepcopy(G).train()
    last = [part for part in G.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    torch_pruning.pruner.MagnitudePruner(
        G,
        torch.zeros(1, G.channels, 2 * G.smallest, 2 * G.smallest),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=1 - (small.ngf + 1e-6) / options.ngf,  # widths are multiples of ngf, so nothing is rounded
        ignored_layers=[last],  # its channels are those of the image
    ).step()
    result = make_generator(vars(small), G.channels, G.out_channels)
    result.load_state_dict(with_projections(G.state_dict(), result))
    return result
