"""
Checkpoints of a training run. Files are never left incomplete.
"""

import contextlib
import os
import re
import shlex

import torch

from media.files import load_file, save_file
from training.folders import finish_renaming
from utils import InputError
from variants.build import generator_file
from variants.schema import check_part, check_training


def copy_to_cpu(state):
    """Copies all tensors in nested dicts, lists and tuples, so that they can be saved while training continues."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    return type(state)(map(copy_to_cpu, state)) if isinstance(state, (list, tuple)) else state


def save_run(state, folder, keep=None, n_kept=2):
    """Writes latest.pth. keep: number of epochs; if given, also writes each generator to its own file, and
    checkpoint_KEEP.pth, of which only the last n_kept remain. A student of compress.py has only one generator.

    The generators come first: a run that is killed in between repeats the epoch and writes all again, while one that
    finds checkpoint_KEEP.pth or latest.pth would not."""
    directions = [d for d in ("AB", "BA") if f"G_{d}" in state]
    if keep is not None:
        for direction in directions:
            save_file(generator_file(state, direction), f"{folder}/G_{direction}_{keep}.pth")
        if len(directions) == 2 and n_kept:
            save_file(state, f"{folder}/checkpoint_{keep}.pth")
    save_file(state, f"{folder}/latest.pth")
    if keep is not None:
        for epoch in [epoch for epoch in kept_epochs(folder) if epoch <= keep][: -n_kept or None]:
            with contextlib.suppress(FileNotFoundError):
                os.remove(f"{folder}/checkpoint_{epoch}.pth")


def kept_epochs(folder):
    """The epochs N of all checkpoint_N.pth, in order."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(int(name[11:-4]) for name in names if re.fullmatch(r"checkpoint_\d+\.pth", name))


def find_checkpoint(folder, epoch=0):
    """The newest checkpoint of a run, or the one kept after `epoch` epochs -> dict, with its path under "path". None if
    the run has not saved any yet. Raises InputError."""
    finish_renaming(folder)
    kept = kept_epochs(folder)
    if epoch and epoch not in kept:
        raise InputError(
            f"--epoch {epoch}: {folder} has no checkpoint of that epoch; it has: {', '.join(map(str, kept)) or 'none'}"
        )
    latest = os.path.join(folder, "latest.pth")
    if not kept and not os.path.lexists(latest):
        return None
    path = latest if os.path.lexists(latest) and not epoch else f"{folder}/checkpoint_{epoch or kept[-1]}.pth"
    try:
        return read_checkpoint(path)
    except InputError as error:
        raise InputError(f"{error}{way_on(folder, path)}")


def read_checkpoint(path):
    """A full checkpoint -> dict, with its path under "path". Raises InputError."""
    state = load_file(path)
    check_training(state, path)
    return state | {"path": path}


def command_of(checkpoint):
    """The words after `python` of the command that a checkpoint is continued with."""
    return ["-m", "pretraining.inpainting"] if "pretraining" in checkpoint else ["cyclegan.py"]


def way_on(folder, path):
    """For the message about a bad checkpoint: the newest other one of the run that can be used, and how."""
    for epoch in reversed(kept_epochs(folder)):
        if f"{folder}/checkpoint_{epoch}.pth" != path:
            with contextlib.suppress(InputError):
                command = command_of(read_checkpoint(f"{folder}/checkpoint_{epoch}.pth"))
                command = shlex.join(["python", *command, "--run_name", os.path.basename(folder)])
                return f". To go on from checkpoint_{epoch}.pth beside it: {command} --epoch {epoch}"
    return ". The folder has no other full checkpoint; a new run keeps it as NAME.1"


def restore(checkpoint, parts):
    """Calls load_state_dict of each of `parts`, a dict by name. Optimizers keep their own learning rate and options."""
    try:
        for name, part in parts.items():
            check_part(name, part, checkpoint[name])  # a fused optimizer does not check sizes itself
            if isinstance(part, torch.optim.Optimizer):
                own = {key: value for key, value in part.param_groups[0].items() if key != "params"}
                checkpoint[name]["param_groups"][0] |= own
            part.load_state_dict(checkpoint[name])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{checkpoint['path']}: damaged, {name} does not fit ({type(error).__name__}: {reason})")
