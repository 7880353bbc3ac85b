"""
How the options of the command line, of a checkpoint and of the demo come together.
"""

import argparse
import os

from training.checkpoints import find_checkpoint
from utils import InputError
from variants.build import DISCRIMINATOR_OPTIONS, GENERATOR_OPTIONS, channels_of
from variants.options import check
from variants.schedules import stages

# A checkpoint only fits networks of the same shape ...
ARCHITECTURE = ("channels", "channels_A", "channels_B", *GENERATOR_OPTIONS, *DISCRIMINATOR_OPTIONS)


# ... and its other options are taken over, but for these
NOT_RESUMED = ("epoch", "resume", "device", "run_name")


def read_options(parser, argv, demo):
    """Command line -> (options, checkpoint to go on from or None). The command line wins over a checkpoint's options,
    those over the demo's defaults, and those over the parser's."""

    def typed(name):  # what has a value already gets no default
        return getattr(parser.parse_args(argv, argparse.Namespace(**{name: None})), name) is not None

    opt = parser.parse_args(argv)
    for one, other in (("n_iters", "n_epochs"), ("progressive", "n_epochs"), ("progressive", "img_height"),
                       ("progressive", "img_width")):  # fmt: skip
        if typed(one) and typed(other):
            raise InputError(f"--{one} --{other}: both say the same thing. Choose one")
    if opt.dataset_name == "demo":
        parser.set_defaults(**demo)
        opt = parser.parse_args(argv)
    run_name = opt.run_name or opt.dataset_name
    check_name("--dataset_name", opt.dataset_name)
    check_name("--run_name", run_name)

    checkpoint = find_checkpoint(f"saved_models/{run_name}", opt.epoch) if opt.resume or opt.epoch else None
    if checkpoint:
        stored = {k: v for k, v in checkpoint["options"].items() if k not in NOT_RESUMED and hasattr(opt, k)}
        if typed("n_epochs"):
            stored["n_iters"] = None
        parser.set_defaults(**stored)
        trained, opt = parser.parse_args([]), parser.parse_args(argv)
        for key in ARCHITECTURE:
            if getattr(opt, key) != getattr(trained, key):
                raise InputError(
                    f"--{key} {getattr(opt, key)}: {checkpoint['path']} was trained with {getattr(trained, key)}. "
                    "Leave the option out, or train anew without --resume and --epoch"
                )
    opt.run_name = run_name
    if opt.progressive:
        if not typed("n_epochs"):  # resumed for longer than the stages, the last size stays
            opt.n_epochs = sum(n for _, n in stages(opt))
        opt.img_height, opt.img_width = stages(opt)[-1][0]  # what the result is for
    check(opt)
    n_A, n_B = channels_of(vars(opt))
    if n_A != n_B and opt.lambda_id:
        if os.environ.get("RANK", "0") == "0":
            print(f"note: no identity loss, as images of A have {n_A} channels and those of B {n_B}")
        opt.lambda_id = 0.0
    return opt, checkpoint


def check_name(flag, name):
    """Raises InputError unless `name` is that of a folder."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise InputError(f"{flag} {name!r}: must be the name of a folder, not a path; --data_dir takes a path")


def is_done(checkpoint, opt):
    """Whether a checkpoint is as far as the options say; if it is, says so."""
    epoch, step = checkpoint["epoch"], checkpoint["step"]
    done = step >= opt.n_iters if opt.n_iters else epoch >= opt.n_epochs
    if done:
        count, flag = (f"{step} steps", "--n_iters") if opt.n_iters else (f"{epoch} epochs", "--n_epochs")
        print(f"{checkpoint['path']}: {count} are done; a larger {flag} than that goes on")
    return done


def implied(opt):
    """Options that others say already, or that are printed elsewhere."""
    epochs, size = bool(opt.progressive or opt.n_iters), bool(opt.progressive)
    return ("dataset_name", "data_dir", *["n_epochs"] * epochs, *["img_height", "img_width"] * size)
