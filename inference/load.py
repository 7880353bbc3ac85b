"""
Loading a generator from any file that holds one: a full checkpoint, a state dict of this project or of another one
(.pth or .safetensors), or a file written by export.py. A folder of export.py --format hub is as good as its file.
"""

import json
import os
import re

import torch

from inference.exported import Exported, is_exported, load_exported
from inference.generator import TrainedGenerator
from inference.weights import Weights, model_file, read_weights
from media.files import load_file
from media.tensors import is_safetensors
from models import GeneratorResNet
from utils import InputError
from variants.build import GENERATOR_OPTIONS, described_generator, generator_file, is_papers, make_generator
from variants.ranges import parse_range
from variants.schema import check_described, check_generator, epochs_begun, is_count
from variants.stored_options import check_options, read_record

FULL_CHECKPOINT = {"version", "options", "epoch"}  # besides G_AB, G_BA or both

# File names that tell the direction: here and in PyTorch-GAN, in aitorzip/PyTorch-CycleGAN, in the authors' code
NAMES = {"AB": r"G_AB(?![a-z])|G_?A2B|net_G_A(?![a-z])", "BA": r"G_BA(?![a-z])|G_?B2A|net_G_B(?![a-z])"}

# The options that a generator is built from. `build` gives it those that are known, as its attribute `described`
DESCRIBED = (*GENERATOR_OPTIONS, "channels", "out_channels", "range_in", "range_out")

EXPECTED = (
    "Expected a checkpoint of cyclegan.py, or the state dict of a ResNet generator with instance norm from this "
    "project, the authors' code (*_net_G*.pth), PyTorch-GAN (G_AB_*.pth) or aitorzip/PyTorch-CycleGAN (netG_*.pth). "
    "If you edited the generator in models.py, use latest.pth"
)


def load_generator(path, direction=None, trust=False, volumes=False):
    """Loads a generator from its file alone -> TrainedGenerator.

    path:      a full checkpoint of cyclegan.py, the state dict of one generator (its architecture is inferred from keys
               and shapes), a file written by export.py, or a folder that holds model.safetensors
    direction: "AB" or "BA", the generator to take from a file with both. None takes AB
    trust:     load .pt2 and .ts files, which are programs
    volumes:   accept a generator of volumes, of --dims 3 or --slices
    Raises InputError if the file holds no generator, or if it holds only one, of the other direction.
    """
    path = model_file(path)
    if is_exported(path):
        return load_exported(path, direction, trust)
    trained = generator_in(read_state(path), path, direction)
    return trained if volumes else of_images(trained)


def of_images(trained):
    """A TrainedGenerator, if it is not one of volumes. Raises InputError."""
    from variants.volumes import refuse_volumes

    refuse_volumes(trained.network, trained.path)
    return trained


def read_state(path):
    """The contents of a file that is not an exported one -> what torch.save has saved, or Weights"""
    return read_weights(path) if is_safetensors(path) else load_file(path)


def generator_in(state, path, direction):
    """load_generator for the contents `state` of a file that has already been read."""
    if isinstance(state, Weights):
        return generator_of_weights(state, path, direction)
    if not isinstance(state, dict):
        raise InputError(f"{path}: contains a {type(state).__name__}, not a generator. {EXPECTED}")
    if FULL_CHECKPOINT <= state.keys():
        options = state["options"]
        directions = [d for d in ("AB", "BA") if "G_" + d in state]  # a student of compress.py has only one
        direction = direction or next(iter(directions), "AB")
        if direction not in directions:
            raise InputError(f"--direction {direction}: {path} has no such generator")
        check_generator(state, path, direction)
        try:
            network = build(generator_file(state, direction), path)
        except InputError:
            if "channels" not in options:
                raise
            network = build(described_generator(state, direction), path)  # models.py has been edited
        step = state.get("step") if is_count(state.get("step"), 10**15) else None
        made = json.loads(json.dumps(state.get("provenance", {}), default=str))  # a damaged one may hold anything
        return TrainedGenerator(network, path, direction, epochs_begun(state), options, is_full=True, provenance=made,
                                step=step)  # fmt: skip
    direction, epoch = facts_in_name(path, direction)
    return TrainedGenerator(build(state, path), path, direction, epoch, provenance=provenance_beside(path))


def facts_in_name(path, direction):
    """What the name of a file with one generator tells -> (direction, epoch), None where unknown. Raises InputError if it
    tells another direction than the wanted one."""
    named = [d for d, pattern in NAMES.items() if re.search(pattern, os.path.basename(path))]
    if direction and named and direction not in named:
        raise InputError(f"--direction {direction}: {path} translates {named[0]}, according to its name")
    epoch = re.search(r"G_(?:AB|BA)_(\d+)\.(?:pth|safetensors)$", path)
    return direction or (named[0] if len(named) == 1 else None), int(epoch[1]) if epoch else None


def generator_of_weights(state, path, direction):
    """generator_in for Weights. Nothing of the mapped file is kept, which may be overwritten later."""
    found = state.generators
    if "" in found:
        wanted, (direction, epoch) = "", facts_in_name(path, direction)
    else:
        wanted, epoch = direction or min(found), None
        direction = wanted
    if wanted not in found:
        raise InputError(f"--direction {wanted}: {path} holds the generator of {next(iter(found))} only")
    contents = found[wanted]
    if "weights" in contents:
        check_described(contents, path)
        if is_fast(contents["generator"]):
            contents = contents["weights"]
    network = build(contents, path)
    if "weights" not in contents:  # otherwise the network has copied its weights
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    epoch = epoch if state.epoch is None else state.epoch
    return TrainedGenerator(
        network, path, direction, epoch, state.options, len(found) == 2, state.provenance, state.step
    )


def is_fast(options):
    """Whether build_generator makes the same network from the weights alone, without initial weights first."""
    return is_papers(options) and not any(options.get(name) for name in ("dropout", "range_in", "range_out"))


def describe(trained):
    """One line on a TrainedGenerator: file, size, architecture, direction, epoch."""
    G = trained.network
    n_parameters = sum(p.numel() for p in G.parameters()) / 1e6
    parts = [str(G) if isinstance(G, Exported) else f"{n_parameters:.2f} M parameters, {architecture(G)}"]
    if getattr(G, "noise_channels", 0):
        parts.append(f"noise_channels {G.noise_channels}")
    if trained.direction:
        parts.append(f"{trained.direction[0]} -> {trained.direction[1]}")
    if trained.epoch is not None:
        parts.append(f"epoch {trained.epoch}")
    return f"{trained.path}: {', '.join(parts)}"


def architecture(G):
    if isinstance(G, Exported):
        return "file of export.py"
    if isinstance(G, GeneratorResNet):
        n = len(G.stages[1])
        return f"{n} residual block{'s' * (n != 1)}"
    return type(G).__name__.removeprefix("Generator")


def build(state, path):
    """A generator's part of a checkpoint, or its state dict -> the network, in eval mode. Its attribute `described` is a
    dict of the options in DESCRIBED."""
    rebuild = rebuild_generator if state.keys() == {"generator", "weights"} else build_generator
    return rebuild(state, path).eval()


def load_generators(path, direction=None, counterpart=None, trust=False, volumes=False):
    """Loads the generators of both directions, as far as they can be found -> {direction: TrainedGenerator}, direction
    being "AB" and "BA", or one of them.

    A full checkpoint holds both, and so may a file of safetensors. For a file with one generator, the other one is loaded
    from the file `counterpart`, or from a file with the matching name in the same folder."""
    path = model_file(path)
    if is_exported(path):
        generator, state = load_exported(path, direction, trust), {}
    else:
        state = read_state(path)  # read it once only, a full checkpoint is large
        generator = generator_in(state, path, direction)
    found = {generator.direction or "AB": generator}
    other = "BA" if "AB" in found else "AB"
    folder, name = os.path.split(path)
    if counterpart:
        found[other] = load_generator(counterpart, other, trust, volumes)
    elif generator.is_full:
        if isinstance(state, Weights) or "G_" + other in state:
            found[other] = generator_in(state, path, other)
    else:
        for a, b in (("G_AB", "G_BA"), ("A2B", "B2A"), ("net_G_A", "net_G_B")):
            counterpart = os.path.join(folder, name.replace(a, b) if a in name else name.replace(b, a))
            if counterpart != path and os.path.exists(counterpart):
                found[other] = load_generator(counterpart, other, trust, volumes)
    return found if volumes else {direction: of_images(trained) for direction, trained in found.items()}


def options_beside(path):
    """The training options of a plain generator, from latest.pth in the same folder. {} if there is none."""
    latest = os.path.join(os.path.dirname(path), "latest.pth")
    if latest == path or not os.path.exists(latest):
        return {}
    try:
        state = load_file(latest)
        options = state.get("options", {}) if isinstance(state, dict) else {}
        check_options(options, latest)
    except InputError:  # the user did not name this file
        return {}
    return options


def provenance_beside(path):
    """What options.json in the same folder says of the making of a plain generator. {} if there is none."""
    record = read_record(os.path.join(os.path.dirname(path), "options.json"))
    return {name: value for name, value in record.items() if name != "options"}


def rebuild_generator(state, path):
    """The contents of a file of variants.build.generator_file -> the network, of any architecture."""
    try:
        options, weights = state["generator"], state["weights"]
        check_described(state, path)
        generator = make_generator(options, options["channels"], options["out_channels"])
        generator.load_state_dict(weights)
        generator.described = {name: options[name] for name in DESCRIBED if name in options}
        ranges = [parse_range(options.get(name)) for name in ("range_in", "range_out")]
        if any(ranges):
            generator.ranges = ranges  # of the values in files, see inference.ranges
    except InputError:
        raise
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]  # of a state dict, the first keys that do not match
        raise InputError(
            f"{path}: damaged, or its generator is not the one that make_generator in variants/build.py builds here "
            f"({type(error).__name__}: {reason})"
        )
    check_finite_weights(weights, path)
    return generator


def check_finite_weights(weights, path):
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise InputError(
            f"{path}: has weights that are not finite, because training diverged. Use an earlier checkpoint"
        )


def build_generator(weights, path):
    """The state dict of a ResNet generator, in any known layout -> GeneratorResNet with these weights.

    Up to the residual blocks, all layouts number their modules alike. After the n blocks, --upsample transpose has a
    transposed convolution where --upsample nearest has an upsampling, without weights, followed by a convolution."""
    try:
        of_pytorch_gan = any(".block." in key for key in weights)
        had_dropout = any(re.search(r"\.conv_block\.6\.weight$", key) for key in weights)
        weights = {rename_key(key): tensor.float() for key, tensor in weights.items()}
        n_blocks = sum(bool(re.fullmatch(r"model\.\d+\.conv_block\.1\.weight", key)) for key in weights)
        ngf, channels, *kernel = weights["model.1.weight"].shape
        upsample = "transpose" if f"model.{10 + n_blocks}.weight" in weights else "nearest"
        n_out = len(weights[f"model.{(17 if upsample == 'transpose' else 19) + n_blocks}.weight"])
        if max(n_blocks, ngf, channels, n_out) > 4096 or min(ngf, channels, n_out) < 1:
            raise ValueError
    except (AttributeError, KeyError, ValueError, TypeError, RuntimeError):
        raise InputError(f"{path}: {describe_unknown(weights)}. {EXPECTED}")
    if of_pytorch_gan and channels != 3:  # it pads by `channels` pixels where 3 are needed
        raise InputError(f"{path}: a generator of PyTorch-GAN with {channels} channels; only 3 are supported")
    check_finite_weights(weights, path)
    with torch.device("meta"):  # do not initialise weights that are replaced at once
        generator = GeneratorResNet(channels, n_blocks, ngf, upsample, n_out)
    try:
        generator.load_state_dict(weights, assign=True)
    except RuntimeError:
        raise InputError(f"{path}: {describe_unknown(weights)}. {EXPECTED}")
    generator.described = dict(generator="resnet", n_residual_blocks=n_blocks, ngf=ngf, upsample=upsample,
                               channels=channels, out_channels=n_out)  # fmt: skip
    generator.had_dropout = had_dropout  # which is left out here; inference.samples adds it again
    return generator


def rename_key(key):
    """Key of another project -> our key. Strips the prefixes of wrappers. PyTorch-GAN says `block` for `conv_block`. In
    the authors' code dropout, inactive after training, moves the second convolution of a block from 5 to 6."""
    key = re.sub(r"^(?:module\.|_orig_mod\.)+", "", key)
    return re.sub(r"\.conv_block\.6\.(weight|bias)$", r".conv_block.5.\1", key.replace(".block.", ".conv_block."))


def describe_unknown(weights):
    """What a file that is not a known generator seems to hold, for an error message."""
    keys = list(map(str, weights)) if isinstance(weights, dict) else []
    if "model.1.weight" in keys and "model.2.weight" in keys:
        return "a generator with batch norm"
    if any("model.model." in key for key in keys):
        return "a U-Net"
    if keys[:1] == ["model.0.weight"] and len(weights[keys[-1]]) == 1:  # one score
        return "a discriminator"
    return f"not a known generator (its keys: {', '.join(keys[:4]) or 'none'})"
