"""
A new run that begins with the networks of a trained model, for --start_from.
"""

from media.files import load_file, sha256_of
from media.tensors import is_safetensors
from training.checkpoints import restore
from utils import InputError
from variants.build import weights_of, with_projections
from variants.schema import NETWORKS, check_training, epochs_begun
from variants.stored_options import check_options


def read_start(path, parser):
    """Reads the networks of a full checkpoint of cyclegan.py or of pretraining -> {"path", "options", "averaged", "origin",
    and the state dicts of the networks by name}.

    The generators are those that translate.py uses, with --ema the averages: they are what the user has looked at, and
    the last weights are only one of the noisy states that were averaged. A file of pretraining has no trained
    discriminators, so D_A and D_B are missing then.

    path: the file that --start_from names; parser: of cyclegan.py, which checks the options in the file
    Raises InputError."""
    state = None if is_safetensors(path) else load_file(path)
    if not isinstance(state, dict) or not {*NETWORKS, "version", "options"} <= state.keys():
        raise InputError(
            f"{path}: not a full checkpoint, such as latest.pth or checkpoint_N.pth, with both generators and both "
            "discriminators, which --start_from needs. translate.py and export.py take a file of one generator"
        )
    check_training(state, path)
    check_options(state["options"], path, parser)
    start = {"G_AB": weights_of(state, "AB"), "G_BA": weights_of(state, "BA")}
    if "pretraining" not in state:
        start |= {name: state[name] for name in ("D_A", "D_B")}
    options = state["options"]
    origin = {"file": path, "sha256": sha256_of(path), "dataset_name": options.get("dataset_name")}
    origin |= {"epoch": epochs_begun(state), "step": state["step"]}
    return start | {"path": path, "options": options, "averaged": "ema_G_AB" in state, "origin": origin}


def load_start(start, gan):
    """Loads the networks that read_start has read. Raises InputError if they do not fit."""
    networks = {name: network for name, network in gan.networks().items() if name in start}
    weights = {name: with_projections(start[name], network) for name, network in networks.items()}
    restore(weights | {"path": start["path"]}, networks)


def start_notes(opt, start):
    """-> lines to print before a new run. start: what read_start has read, or None"""
    lines, has_trained_D = [], bool(start) and "D_A" in start
    if start:
        average = ", the averages of its generators" if start["averaged"] else ""
        step = start["origin"]["step"]
        lines.append(f"starting from the networks in {start['path']}, after its step {step}{average}")
        if not has_trained_D:
            lines.append("note: the generators are pre-trained; the discriminators begin with their initial weights")
        before, now = ((o.get("img_width"), o.get("img_height")) for o in (start["options"], vars(opt)))
        if None not in before and before != now:
            sizes = ["{} x {}".format(*size) for size in (before, now)]
            lines.append(f"note: these networks were trained at {sizes[0]} pixels, and this run is at {sizes[1]}")
    if opt.freeze_D and not has_trained_D:
        lines.append("note: --freeze_D: keeps random weights here; it is for --start_from with trained discriminators")
    return lines
