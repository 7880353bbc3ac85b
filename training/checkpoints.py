"""
Checkpoints, and the folders they lie in: nothing half-written, nothing overwritten, nothing in a file executed. And the
way back: a generator from whatever file holds one.
"""

import json
import os
import re
import shutil

import torch

from media.files import load_file, save_file
from utils import InputError, whole_file
from variants.build import generator_file


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


##############################
#   Weights of other networks
##############################
