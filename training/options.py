"""
Where the options of a training come from: the command line, a checkpoint, a preset, the parser's defaults.
"""

import argparse
import os

from training.checkpoints import find_checkpoint
from training.presets import preset_options
from utils import InputError
from variants.build import DISCRIMINATOR_OPTIONS, GENERATOR_OPTIONS, channels_of
from variants.options import check
from variants.schedules import stages

# --resume takes all options from the checkpoint except these
NOT_RESUMED = ("epoch", "resume", "device", "run_name")
# These cannot be changed: the weights would not fit
ARCHITECTURE = ("channels", "channels_A", "channels_B", *GENERATOR_OPTIONS, *DISCRIMINATOR_OPTIONS)
# Two options that contradict each other
EXCLUSIVE = (("n_iters", "n_epochs"), ("progressive", "n_epochs"), ("progressive", "img_height"),
             ("progressive", "img_width"))  # fmt: skip


def read_options(parser, argv):
    """Command line -> (options, the checkpoint to continue from or None). An option on the command line overrides that
    of the checkpoint, which overrides an edited default of the parser, which overrides the preset. Raises InputError."""
    defaults = vars(parser.parse_args([]))
    # argparse does not set defaults that the namespace has, so options that are not given stay None
    given = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults))))
    given = {name: value for name, value in given.items() if value is not None}
    for one, other in EXCLUSIVE:
        if one in given and other in given:
            raise InputError(f"--{one} --{other}: give only one of these")
    dataset_name = given.get("dataset_name", defaults["dataset_name"])
    run_name = given.get("run_name") or dataset_name
    check_name("--dataset_name", dataset_name)
    check_name("--run_name", run_name)
    defaults |= preset_options(given.get("preset"), dataset_name, defaults, given)
    checkpoint = None
    if given.get("resume") or given.get("epoch"):
        checkpoint = find_checkpoint(f"saved_models/{run_name}", given.get("epoch", 0))
    if checkpoint:
        defaults |= stored_options(checkpoint, defaults, given)
        if given.pop("preset", defaults["preset"]) != defaults["preset"] and os.environ.get("RANK", "0") == "0":
            print("note: --preset has no effect here, because --resume takes the options from the checkpoint")
    opt = argparse.Namespace(**defaults | given | {"run_name": run_name})
    if opt.progressive:
        if "n_epochs" not in given:  # if resumed for longer than its stages, it stays at the last size
            opt.n_epochs = sum(n for _, n in stages(opt))
        opt.img_height, opt.img_width = stages(opt)[-1][0]  # the size that the result is for
    check(opt)
    n_A, n_B = channels_of(vars(opt))
    if n_A != n_B and opt.lambda_id:
        if os.environ.get("RANK", "0") == "0":
            print(f"note: no identity loss, because images of A have {n_A} channels and those of B have {n_B}")
        opt.lambda_id = 0.0
    return opt, checkpoint


def stored_options(checkpoint, known, given):
    """-> {name: value}, the options that a run takes over from its checkpoint. Raises InputError if those given now
    would change the networks."""
    stored = {k: v for k, v in checkpoint["options"].items() if k not in NOT_RESUMED and k in known}
    if "n_epochs" in given:
        stored["n_iters"] = None
    for key in ARCHITECTURE:
        trained = stored.get(key, known[key])
        if given.get(key, trained) != trained:
            raise InputError(
                f"--{key} {given[key]}: {checkpoint['path']} was trained with {trained}. Omit the option, or start a "
                "new training without --resume and --epoch"
            )
    return stored


def check_name(flag, name):
    """Raises InputError unless `name` can be the name of a folder."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise InputError(f"{flag} {name!r}: must be the name of a folder, not a path; --data_dir takes a path")


def as_typed(opt, defaults):
    """The options that differ from the defaults, as they would be typed; except those that are printed elsewhere."""
    hidden = {*NOT_RESUMED, "dataset_name", "data_dir"}
    hidden |= {"n_epochs"} if opt.progressive or opt.n_iters else set()
    hidden |= {"img_height", "img_width"} if opt.progressive else set()
    changed = {k: v for k, v in vars(opt).items() if v != defaults[k] and k not in hidden}
    words = [f"--{k} {v}" if type(v) is not bool else f"--{k}" if v else f"--no-{k}" for k, v in changed.items()]
    return " ".join(words) or "none"
