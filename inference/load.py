"""
A generator from whatever file holds one: a checkpoint, a state dict of this project or of others, an exported file.
"""

import os
import re

import torch

from inference.exported import is_exported, load_exported
from inference.generator import TrainedGenerator
from media.files import load_file
from models import GeneratorResNet
from utils import InputError
from variants.build import generator_file, make_generator

FULL_CHECKPOINT = {"version", "options", "epoch"}  # and G_AB, G_BA, or one of them


# How the files of plain generators are called: here and in PyTorch-GAN, in aitorzip/PyTorch-CycleGAN, by the authors
NAMES = {"AB": r"G_AB(?![a-z])|G_?A2B|net_G_A(?![a-z])", "BA": r"G_BA(?![a-z])|G_?B2A|net_G_B(?![a-z])"}


EXPECTED = (
    "Expected a checkpoint of cyclegan.py, or a state dict of a ResNet generator with instance norm, of this project, "
    "the authors' code (*_net_G*.pth), PyTorch-GAN (G_AB_*.pth) or aitorzip/PyTorch-CycleGAN (netG_*.pth)"
)


def load_generator(path, direction=None):
    """Rebuilds a generator from its file alone -> TrainedGenerator.

    path:      a full checkpoint of cyclegan.py, the state dict of one generator (layout, widths, blocks and channels are
               inferred from its keys and shapes), or a file written by export.py
    direction: 'AB' or 'BA': which generator of a full checkpoint to take (None: AB). Raises InputError if the name of a
               file with one generator says otherwise
    Raises InputError, one line.
    """
    return load_exported(path, direction) if is_exported(path) else generator_in(load_file(path), path, direction)


def generator_in(state, path, direction):
    """load_generator for the contents of a file that has already been read."""
    if not isinstance(state, dict):
        raise InputError(f"{path}: contains a {type(state).__name__}, not a generator. {EXPECTED}")
    if FULL_CHECKPOINT <= state.keys():
        options = state["options"]
        if not isinstance(options, dict):
            raise InputError(f"{path}: damaged, its options are a {type(options).__name__}")
        directions = [d for d in ("AB", "BA") if "G_" + d in state]  # a student of compress.py has only one
        direction = direction or next(iter(directions), "AB")
        if direction not in directions:
            raise InputError(f"--direction {direction}: {path} has no generator for it")
        network = build(generator_file(state, direction), path)
        return TrainedGenerator(network, path, direction, state["epoch"], options, is_full=True)
    named = [d for d, pattern in NAMES.items() if re.search(pattern, os.path.basename(path))]
    if direction and named and direction not in named:
        raise InputError(f"--direction {direction}: by its name, {path} translates {named[0]}")
    epoch = re.search(r"G_(?:AB|BA)_(\d+)\.pth$", path)
    direction = direction or (named[0] if len(named) == 1 else None)
    return TrainedGenerator(build(state, path), path, direction, int(epoch[1]) if epoch else None)


def build(state, path):
    """What a file holds of one generator -> the network, in eval mode."""
    rebuild = rebuild_generator if state.keys() == {"generator", "weights"} else build_generator
    return rebuild(state, path).eval()


def load_generators(path, direction=None, counterpart=None):
    """Both directions, as far as they can be found -> {"AB": TrainedGenerator, "BA": TrainedGenerator}, or one of them.

    A full checkpoint has both. For a file with one generator, the other one is loaded from the file `counterpart`, or
    from the file beside it that has the matching name. Their `path` tells which is which."""
    if is_exported(path):
        generator, state = load_exported(path, direction), {}
    else:
        state = load_file(path)  # read once: a full checkpoint is large
        generator = generator_in(state, path, direction)
    found = {generator.direction or "AB": generator}
    other = "BA" if "AB" in found else "AB"
    folder, name = os.path.split(path)
    if counterpart:
        found[other] = load_generator(counterpart, other)
    elif generator.is_full:
        if "G_" + other in state:
            found[other] = generator_in(state, path, other)
    else:
        for a, b in (("G_AB", "G_BA"), ("A2B", "B2A"), ("net_G_A", "net_G_B")):
            counterpart = os.path.join(folder, name.replace(a, b) if a in name else name.replace(b, a))
            if counterpart != path and os.path.exists(counterpart):
                found[other] = load_generator(counterpart, other)
    return found


def options_beside(path):
    """The options of the training that a plain generator comes from: those in the latest.pth beside it, {} if none."""
    latest = os.path.join(os.path.dirname(path), "latest.pth")
    if latest == path or not os.path.exists(latest):
        return {}
    state = load_file(latest)
    return state.get("options", {}) if isinstance(state, dict) else {}


def rebuild_generator(state, path):
    """What generator_file made of a network that is not the paper's -> that network."""
    try:
        options, weights = state["generator"], state["weights"]
        generator = make_generator(options, options["channels"], options["out_channels"])
        generator.load_state_dict(weights)
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: damaged, or of a newer version ({type(error).__name__}: {str(error).splitlines()[0]})"
        )
    check_finite_weights(weights, path)
    return generator


def check_finite_weights(weights, path):
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise InputError(f"{path}: has weights that are not finite, the training diverged. Take an earlier checkpoint")


def build_generator(weights, path):
    """State dict of a ResNet generator, in any of the known layouts -> GeneratorResNet with these weights.

    Module numbers are the same in all of them up to the residual blocks; n blocks later, a transposed convolution sits
    where the other kind has an upsampling, which has no weights, and its convolution one further."""
    try:
        of_pytorch_gan = any(".block." in key for key in weights)
        weights = {rename_key(key): tensor.float() for key, tensor in weights.items()}
        n_blocks = sum(bool(re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", key)) for key in weights)
        ngf, channels, *kernel = weights["model.1.weight"].shape
        upsample = "transpose" if f"model.{10 + n_blocks}.weight" in weights else "nearest"
        last = weights[f"model.{(17 if upsample == 'transpose' else 19) + n_blocks}.weight"]
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError):
        raise InputError(f"{path}: {what_else(weights)}. {EXPECTED}")
    if of_pytorch_gan and channels != 3:  # its outer padding is `channels` pixels where 3 are needed
        raise InputError(f"{path}: a generator of PyTorch-GAN with {channels} channels; these only work with 3")
    check_finite_weights(weights, path)
    with torch.device("meta"):  # no memory and no time for weights that are replaced at once
        generator = GeneratorResNet(channels, n_blocks, ngf, upsample, len(last))
    try:
        generator.load_state_dict(weights, assign=True)
    except RuntimeError:
        raise InputError(f"{path}: {what_else(weights)}. {EXPECTED}")
    return generator


def rename_key(key):
    """Key of another project -> ours: wrappers are taken off; PyTorch-GAN calls `conv_block` `block`; the authors'
    dropout, which does nothing in a finished network, moves the second convolution of a block from 5 to 6."""
    key = re.sub(r"^(?:module\.|_orig_mod\.)+", "", key)
    return re.sub(r"\.conv_block\.6\.(weight|bias)$", r".conv_block.5.\1", key.replace(".block.", ".conv_block."))


def what_else(weights):
    """What a file seems to hold, if it is none of the known generators."""
    keys = list(map(str, weights)) if isinstance(weights, dict) else []
    if "model.1.weight" in keys and "model.2.weight" in keys:
        return "a generator with batch norm"
    if any("model.model." in key for key in keys):
        return "a U-Net"
    if keys[:1] == ["model.0.weight"]:
        return "a discriminator"
    return f"no generator that is known here (its keys: {', '.join(keys[:4]) or 'none'})"
