"""
What pruning and distillation share: reading the training that they start from, and the table of results.
"""

import argparse
import copy
import os
import shlex

import torch

import cyclegan
from command_line.paths import check_name
from inference.exported import is_exported
from measuring.evaluation import evaluate
from measuring.results import before_and_after
from measuring.timing import COUNTING, costs, in_rounds, noise
from media.files import file_size, load_file
from media.tensors import is_safetensors
from utils import InputError
from variants.schema import NETWORKS, check_distillation, check_training, epochs_begun
from variants.stored_options import check_options, confirm_paths

SUFFIXES = {"prune": "_pruned", "distill": "_student"}  # added to the name of the training, for --run_name


def read_training(opt):
    """-> (the full checkpoint of the training, the name of this run). Raises InputError."""
    if is_exported(opt.checkpoint):
        raise InputError(f"--checkpoint {opt.checkpoint}: is an exported file; name the training that it came from")
    state = None if is_safetensors(opt.checkpoint) else load_file(opt.checkpoint)
    if not isinstance(state, dict) or not {*NETWORKS, "options"} <= state.keys():
        raise InputError(f"{opt.checkpoint}: {opt.way} needs a full checkpoint, latest.pth or checkpoint_N.pth")
    check_training(state, opt.checkpoint)
    parser = cyclegan.get_parser()
    check_options(state["options"], opt.checkpoint, parser)
    confirm_paths(state["options"], vars(opt), opt.checkpoint, parser.get_default("data_dir"))
    trained = os.path.basename(os.path.dirname(os.path.abspath(opt.checkpoint)))
    run_name = opt.run_name or trained + SUFFIXES[opt.way]
    check_name("--run_name", run_name)
    if run_name == trained:
        raise InputError(f"--run_name {run_name}: is the name of the training itself. Choose another name")
    return state, run_name


def training_options(opt, state, run_name):
    """-> Namespace for cyclegan.py: the options of the training, overridden by those of `opt`"""
    defaults = vars(cyclegan.get_parser().parse_args([]))
    options = defaults | {name: value for name, value in state["options"].items() if name in defaults}
    # the schedule of this training, not of the one before
    options |= dict(n_iters=None, progressive=None, decay_epoch=None, lr_schedule="linear", lr_G=None, lr_D=None)
    options |= dict(start_from=None, freeze_D=0)
    options |= dict(resume=False, epoch=0, checkpoint_interval=0, n_epochs=opt.n_epochs, lr=opt.lr, amp=opt.amp)
    options |= dict(device=opt.device, sample_interval=opt.sample_interval, run_name=run_name)
    options |= {name: getattr(opt, name) for name in ("data_dir", "batch_size") if getattr(opt, name)}
    return argparse.Namespace(**options)


def read_begun(opt, run_name, key, parser=None):
    """--resume: the checkpoint of the interrupted compression. Raises opt.n_epochs to the epochs that were begun.

    key:    key of the options in the checkpoint
    parser: of compress.py distill; None if the checkpoint is one of cyclegan.py
    Raises InputError."""
    path = f"saved_models/{run_name}/latest.pth"
    if not os.path.exists(path):
        raise InputError(f"--resume: {path} does not exist. Run without --resume")
    begun = load_file(path)
    stored = begun.get(key) if isinstance(begun, dict) else None
    if not isinstance(stored, dict) or begun.get("step") is None:
        raise InputError(f"--resume: {path} was not written by compress.py {opt.way}")
    check_distillation(begun, path, parser) if parser else check_training(begun, path)
    confirm_paths(stored, vars(opt), path, cyclegan.get_parser().get_default("data_dir"))
    opt.n_epochs = max(epochs_begun(begun), stored["n_epochs"] if opt.n_epochs is None else opt.n_epochs)
    return begun | {"path": path}


def quality(opt, options, checkpoint, counterpart=None):
    """-> {direction: {measure: value}} as evaluate.py measures it; {} if it cannot be measured"""
    try:
        (values,) = evaluate(
            checkpoint, counterpart=counterpart, direction=getattr(opt, "direction", None), paired=opt.paired,
            palette=opt.palette, dataset_name=options.dataset_name, data_dir=options.data_dir, device=opt.device,
            img_height=options.img_height, img_width=options.img_width, amp=None if opt.amp else opt.amp,
        ).values()  # fmt: skip
        return values
    except InputError as error:
        print(f"note: quality was not measured: {error}")
        return {}


def print_comparison(before, after, qualities, options, device, path):
    """Prints the table of costs and quality before and after.

    before, after: (generator, contents of its file); qualities: of both, see `quality`; path: of the result"""
    size = options.img_height, options.img_width

    def forward(G):
        x = noise(1, max(size), device)[:, :1, : size[0], : size[1]].repeat(1, G.channels, 1, 1)
        G = copy.deepcopy(G).to(device).eval()
        return torch.no_grad()(lambda: G(x))

    builds = {"before": lambda: forward(before[0]), "after": lambda: forward(after[0])}
    times = in_rounds(builds, device, rounds=3, runs=5)
    (parameters, products), (parameters_after, products_after) = costs(before[0], size), costs(after[0], size)
    rows = [
        ("parameters, M", parameters / 1e6, parameters_after / 1e6),
        (f"multiply-adds at {size[1]} x {size[0]}, G", products / 1e9, products_after / 1e9),
        ("file of one generator, MB", file_size(before[1]) / 1e6, file_size(after[1]) / 1e6),
        (f"images/s, {device}, float32, one at a time", *(1 / row["seconds"] for row in times.values())),
    ]
    print("\n" + "\n".join(before_and_after(rows, *qualities)))
    print(COUNTING)
    path = shlex.quote(path)
    print("to use it:")
    print(f"    python translate.py --checkpoint {path} --input photo.jpg --size {min(size)}")
    print(f"    python export.py --checkpoint {path}")
