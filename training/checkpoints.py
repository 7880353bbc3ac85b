"""
Checkpoints and folders of a training run. Files are never left incomplete, and no run is overwritten.
"""

import json
import os
import re
import shutil

import torch

from media.files import check_regular, load_file, save_file
from utils import InputError, whole_file
from variants.build import generator_file
from variants.schema import check_part, check_training


def copy_to_cpu(state):
    """Copies all tensors in nested dicts, lists and tuples, so that they can be saved while training continues."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_to_cpu(value) for key, value in state.items()}
    return type(state)(map(copy_to_cpu, state)) if isinstance(state, (list, tuple)) else state


def save_run(state, folder, keep=None):
    """Writes latest.pth. keep: number of epochs; if given, also writes checkpoint_KEEP.pth and each generator to
    its own file. A student of compress.py has only one generator."""
    directions = [d for d in ("AB", "BA") if f"G_{d}" in state]
    if keep is not None:
        if len(directions) == 2:
            save_file(state, f"{folder}/checkpoint_{keep}.pth")
        for direction in directions:
            save_file(generator_file(state, direction), f"{folder}/G_{direction}_{keep}.pth")
    save_file(state, f"{folder}/latest.pth")


def find_checkpoint(folder, epoch=0):
    """The newest checkpoint of a run, or the one kept after `epoch` epochs -> dict, with its path under "path". None if
    the run has not saved any yet; then it can only start again. Raises InputError."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    kept = sorted(int(name[11:-4]) for name in names if re.fullmatch(r"checkpoint_\d+\.pth", name))
    if epoch and epoch not in kept:
        raise InputError(
            f"--epoch {epoch}: {folder} has no checkpoint of that epoch; it has: {', '.join(map(str, kept)) or 'none'}"
        )
    if not kept and "latest.pth" not in names:
        print(f"{folder}: no checkpoint yet, starting from the beginning")
        return None
    newest = "latest.pth" if "latest.pth" in names else f"checkpoint_{kept[-1]}.pth"
    return read_checkpoint(os.path.join(folder, f"checkpoint_{epoch}.pth" if epoch else newest))


def read_checkpoint(path):
    """A full checkpoint -> dict, with its path under "path". Raises InputError."""
    state = load_file(path)
    check_training(state, path)
    return state | {"path": path}


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


def lock_run(folder):
    """Locks FOLDER.lock until this process ends: two runs would overwrite each other's files -> the open file."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return None
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    file = open(folder + ".lock", "w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{folder}: another process is training there. Give this run another --run_name")
    return file


def prepare_folders(checkpoint_dir, sample_dir, checkpoint, resume):
    """Creates the folders of a run. Nothing is overwritten: a new run, or one that returns to an earlier epoch, renames
    existing folders to NAME.1, NAME.2 …

    checkpoint: the checkpoint that the run continues from, or None
    resume:     True if it continues from the newest checkpoint, or would if there were one
    """
    source = checkpoint_dir
    if not resume and any(os.path.isdir(folder) and os.listdir(folder) for folder in (checkpoint_dir, sample_dir)):
        number = 1
        while any(os.path.lexists(f"{folder}.{number}") for folder in (checkpoint_dir, sample_dir)):
            number += 1
        renamed = []
        try:
            for folder in filter(os.path.isdir, (checkpoint_dir, sample_dir)):
                os.rename(folder, f"{folder}.{number}")
                renamed.append(folder)
        except OSError:  # both or none
            for folder in renamed:
                os.rename(f"{folder}.{number}", folder)
            raise
        source = f"{checkpoint_dir}.{number}"
        print(f"the earlier run was renamed to {' and '.join(f'{folder}.{number}' for folder in renamed)}")
    for folder in (checkpoint_dir, sample_dir):
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            if name.endswith(".tmp"):  # a killed run was writing it
                os.remove(os.path.join(folder, name))
    step = checkpoint["step"] if checkpoint else 0
    cut_log(os.path.join(source, "log.jsonl"), os.path.join(checkpoint_dir, "log.jsonl"), step)
    if checkpoint and not resume:  # for --resume, if the run is killed before it saves a checkpoint of its own
        with whole_file(f"{checkpoint_dir}/latest.pth") as temporary:
            shutil.copyfile(os.path.join(source, os.path.basename(checkpoint["path"])), temporary)


def cut_log(source, path, step):
    """Copies a log up to `step`. A killed run may have logged steps after its last checkpoint; they are repeated."""
    kept = []
    check_regular(source)
    if os.path.exists(source):
        with open(source, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                # the last line of a killed run may be half-written
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(kept)
