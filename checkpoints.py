"""
Checkpoints, and the folders they lie in: nothing half-written, nothing overwritten, nothing in a file executed. And the
way back: a generator from whatever file holds one.
"""

import io
import json
import os
import pickle
import re
import shutil
import zipfile

import torch
import torchvision

from exported import is_exported, load_exported
from models import GeneratorResNet
from utils import InputError, check_zip, first_process_first, whole_file
from variants import GENERATOR_OPTIONS, channels_of, make_generator


def save_file(state, path):
    """torch.save, but whoever looks at `path` sees the old file or the whole new one, also after a crash."""
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else "is the disk full?"
        raise InputError(f"{path}: cannot be written ({reason}). What was there before is unharmed")


def file_size(state):
    """Bytes of a file that holds it."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def copy_to_cpu(state):
    """Of all tensors in nested dicts, lists and tuples, so that they can be saved while training goes on."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    return type(state)(map(copy_to_cpu, state)) if isinstance(state, (list, tuple)) else state


def save_run(state, saved, keep=0):
    """Writes latest.pth into the folder `saved`; keep: 0, or the number in the names of the files that stay."""
    if keep:
        save_file(state, f"{saved}/checkpoint_{keep}.pth")
        for direction in ("AB", "BA"):
            save_file(generator_file(state, direction), f"{saved}/G_{direction}_{keep}.pth")
    save_file(state, f"{saved}/latest.pth")


def generator_file(state, direction):
    """What is kept of one generator of a full checkpoint: its state dict, from which the ResNets of the paper can be
    rebuilt; of other networks also the options that they were built by. With --ema it is the average."""
    weights, options = state.get(f"ema_G_{direction}", state[f"G_{direction}"]), state["options"]
    if is_papers(options):
        return weights
    known = {name: options[name] for name in GENERATOR_OPTIONS if name in options}
    n_in, n_out = channels_of(options) if direction == "AB" else channels_of(options)[::-1]
    return {"generator": known | {"channels": n_in, "out_channels": n_out}, "weights": weights}


def is_papers(options):
    """Whether generators are the paper's, which keys and shapes tell all about (dropout does nothing in a finished
    one)."""
    names = ("generator", "norm", "attention", "separable")
    return all(options.get(name, GENERATOR_OPTIONS[name]) == GENERATOR_OPTIONS[name] for name in names)


def load_file(path):
    """torch.load onto the CPU. A file that is missing, truncated or no checkpoint, or that wants to run code, is an
    InputError; nothing in it is executed."""
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder. Name a file in it, such as {os.path.join(path, 'latest.pth')}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: no regular file")  # to open a pipe would wait for ever
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint")
    except pickle.UnpicklingError:
        raise InputError(f"{path}: no checkpoint of this project, or one with code in it; nothing was executed")
    except Exception as error:  # a broken file makes torch raise nearly anything
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path}: broken, truncated, or no checkpoint ({type(error).__name__}: {reason})")


def find_checkpoint(folder, epoch=0):
    """The newest checkpoint of a run, or the one that was kept after `epoch` epochs -> dict, its path under "path".
    None if nothing has been saved yet, as when a run is killed in its first epoch: it can only start again."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    kept = sorted(int(name[11:-4]) for name in names if re.fullmatch(r"checkpoint_\d+\.pth", name))
    if epoch and epoch not in kept:
        raise InputError(
            f"--epoch {epoch}: none was kept in {folder}; kept epochs: {', '.join(map(str, kept)) or 'none'}"
        )
    if not kept and "latest.pth" not in names:
        print(f"{folder}: nothing to go on from yet, starting from the beginning")
        return None
    newest = "latest.pth" if "latest.pth" in names else f"checkpoint_{kept[-1]}.pth"
    path = os.path.join(folder, f"checkpoint_{epoch}.pth" if epoch else newest)
    state = load_file(path)
    required = {"version", "options", "epoch", "batch", "step", "data", "ranks", "G_AB", "G_BA", "D_A", "D_B"}
    if not isinstance(state, dict) or not required <= state.keys() or not isinstance(state["options"], dict):
        raise InputError(f"{path}: not a full checkpoint as cyclegan.py writes it")
    if state["version"] != 1:
        raise InputError(f"{path}: format {state['version']} of a newer cyclegan.py; update this copy")
    return state | {"path": path}


def restore(checkpoint, parts):
    """load_state_dict for each of `parts`, a dict by name. Optimizers keep the options that they were made with."""
    try:
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                # those of this run count, and decide on which device it counts its steps
                checkpoint[name]["param_groups"][0] |= part.defaults
            part.load_state_dict(checkpoint[name])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint['path']}: damaged, {name} does not fit ({type(error).__name__}: {reason})")


def lock_run(saved):
    """Holds `saved`.lock until this process ends, however it ends: two runs in one folder would destroy each other."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock
        return None
    os.makedirs(os.path.dirname(saved), exist_ok=True)
    file = open(saved + ".lock", "w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{saved}: another process is training there. Give this run a --run_name of its own")
    return file


def prepare_folders(saved, images, checkpoint, resume):
    """The folders of a run, for its checkpoints and sample grids. Nothing is overwritten: a new run, or one that goes
    back to an earlier epoch, renames what is there to NAME.1, NAME.2 …

    checkpoint: that the run goes on from, or None
    resume:     it goes on from the newest, or would have if there were one
    """
    source = saved
    if not resume and any(os.path.isdir(folder) and os.listdir(folder) for folder in (saved, images)):
        number = 1
        while any(os.path.lexists(f"{folder}.{number}") for folder in (saved, images)):
            number += 1
        renamed = []
        try:
            for folder in filter(os.path.isdir, (saved, images)):
                os.rename(folder, f"{folder}.{number}")
                renamed.append(folder)
        except OSError:  # both or none
            for folder in renamed:
                os.rename(f"{folder}.{number}", folder)
            raise
        source = f"{saved}.{number}"
        print(f"the earlier run is kept as {' and '.join(f'{folder}.{number}' for folder in renamed)}")
    for folder in (saved, images):
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.endswith(".tmp"):  # what a killed run was writing
                os.remove(os.path.join(folder, name))
    step = checkpoint["step"] if checkpoint else 0
    cut_log(os.path.join(source, "log.jsonl"), os.path.join(saved, "log.jsonl"), step)
    if checkpoint and not resume:  # so that --resume finds it, should the run be killed before its first own one
        with whole_file(f"{saved}/latest.pth") as temporary:
            shutil.copyfile(os.path.join(source, os.path.basename(checkpoint["path"])), temporary)


def cut_log(source, path, step):
    """Copies a log up to `step`: what a killed run logged after its last checkpoint is done, and logged, once more."""
    kept = []
    if os.path.exists(source):
        with open(source, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):  # the last line of a killed run may be half-written
                    continue
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(kept)


##############################
#   Generators, ours and others'
##############################

FULL_CHECKPOINT = {"version", "options", "epoch"}  # and G_AB, G_BA, or one of them
# How the files of plain generators are called: here and in PyTorch-GAN, in aitorzip/PyTorch-CycleGAN, by the authors
NAMES = {"AB": r"G_AB(?![a-z])|G_?A2B|net_G_A(?![a-z])", "BA": r"G_BA(?![a-z])|G_?B2A|net_G_B(?![a-z])"}
EXPECTED = (
    "Expected a checkpoint of cyclegan.py, or a state dict of a ResNet generator with instance norm, of this project, "
    "the authors' code (*_net_G*.pth), PyTorch-GAN (G_AB_*.pth) or aitorzip/PyTorch-CycleGAN (netG_*.pth)"
)


def load_generator(path, direction=None):
    """A generator from the file alone, on the CPU, in float32 and eval mode -> (GeneratorResNet, facts).

    path:      a full checkpoint of cyclegan.py, or the state dict of one generator (see EXPECTED); layout, widths,
               blocks and channels are read off its keys and shapes. Or what export.py wrote: an Exported then
    direction: 'AB' or 'BA': which one to take of a full checkpoint (None: AB); must not contradict a plain file's name
    facts:     {"full": whether it is a full checkpoint, "direction": 'AB', 'BA' or None, "epoch": int or None,
               "options": of the training, {} if not known}
    Raises InputError, one line.
    """
    return load_exported(path, direction) if is_exported(path) else generator_in(load_file(path), path, direction)


def generator_in(state, path, direction):
    """load_generator for what has been read from `path` already."""
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds a {type(state).__name__}, no generator. {EXPECTED}")
    if FULL_CHECKPOINT <= state.keys():
        if not isinstance(state["options"], dict):
            raise InputError(f"{path}: damaged, its options are a {type(state['options']).__name__}")
        there = [d for d in ("AB", "BA") if "G_" + d in state]  # one that compress.py taught knows one direction
        direction = direction or next(iter(there), "AB")
        if direction not in there:
            raise InputError(f"--direction {direction}: {path} holds no generator of it")
        facts = {"full": True, "direction": direction, "epoch": state["epoch"], "options": state["options"]}
        state = generator_file(state, direction)
    else:
        named = [d for d, pattern in NAMES.items() if re.search(pattern, os.path.basename(path))]
        if direction and named and direction not in named:
            raise InputError(f"--direction {direction}: by its name, {path} translates {named[0]}")
        epoch = re.search(r"G_(?:AB|BA)_(\d+)\.pth$", path)
        facts = {"full": False, "direction": direction or (named[0] if len(named) == 1 else None), "options": {}}
        facts["epoch"] = int(epoch[1]) if epoch else None
    build = rebuild_generator if state.keys() == {"generator", "weights"} else build_generator
    return build(state, path).eval(), facts


def load_generators(path, direction=None, counterpart=None):
    """The generators of both directions, as far as they are there -> ({"AB": G_AB, "BA": G_BA}, facts).

    Those of a full checkpoint; or the one in a plain file and its counterpart, from the file `counterpart`, or if that
    lies beside it under the name it should have. facts as of load_generator."""
    if is_exported(path):
        G, facts = load_exported(path, direction)
    else:
        state = load_file(path)  # once, as a full checkpoint is large
        G, facts = generator_in(state, path, direction)
    found = {facts["direction"] or "AB": G}
    other = "BA" if "AB" in found else "AB"
    folder, name = os.path.split(path)
    if counterpart:
        found[other], _ = load_generator(counterpart, other)
    elif facts["full"]:
        if "G_" + other in state:
            found[other], _ = generator_in(state, path, other)
    else:
        for a, b in (("G_AB", "G_BA"), ("A2B", "B2A"), ("net_G_A", "net_G_B")):
            counterpart = os.path.join(folder, name.replace(a, b) if a in name else name.replace(b, a))
            if counterpart != path and os.path.exists(counterpart):
                found[other], _ = load_generator(counterpart, other)
    return found, facts


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


##############################
#   Weights of other networks
##############################


def load_encoders(generators, path):
    """Gives each GeneratorPretrained the weights of ImageNet, from a file or from PyTorch's server."""
    weights = published_weights(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, path, "--encoder_weights")
    for generator in generators:
        try:
            generator.load_encoder(weights)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"--encoder_weights {path}: {str(error).splitlines()[0]}")


def published_weights(weights, path, flag):
    """The state dict in a file, or, where there is none, torchvision's `weights`, downloaded when first needed."""
    if path:
        try:
            return load_file(path)
        except InputError as error:
            raise InputError(f"{flag} {error}")
    try:
        return first_process_first(lambda: weights.get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        raise InputError(f"{weights.url}: cannot be downloaded ({error}). Get it elsewhere, and name it by {flag}")
