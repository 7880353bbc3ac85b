"""
Where the options of a training come from: the command line, a checkpoint, a preset, the parser's defaults.
"""

import argparse
import json
import os
import shlex

from command_line.paths import check_name
from media.folders import count_of
from training.checkpoints import command_of, find_checkpoint
from training.folders import OPTIONS
from training.presets import own_preset, preset_options
from utils import InputError
from variants.build import DISCRIMINATOR_OPTIONS, GENERATOR_OPTIONS, channels_of
from variants.options import check
from variants.schedules import stages
from variants.stored_options import check_options, confirm_paths

# --resume takes all options from the checkpoint except these, and --options from its file
NOT_RESUMED = ("epoch", "resume", "device", "run_name", "options", "start_from")
# These cannot be changed: the weights would not fit
ARCHITECTURE = ("channels", "channels_A", "channels_B", *GENERATOR_OPTIONS, *DISCRIMINATOR_OPTIONS)
RANGES = ("range_A", "range_B")
SEVERAL_WORDS = (*RANGES, "logger")  # these are several words, stored as one string
KEEP_ALL = 10**6
# Two options that contradict each other
EXCLUSIVE = (("n_iters", "n_epochs"), ("progressive", "n_epochs"), ("progressive", "img_height"),
             ("progressive", "img_width"), ("options", "resume"), ("options", "epoch"), ("start_from", "resume"),
             ("start_from", "epoch"))  # fmt: skip


def read_options(parser, argv, pretraining=False):
    """Command line -> (options, the checkpoint to continue from or None). An option on the command line overrides that
    of the checkpoint or of --options, which overrides an edited default of the parser, which overrides the preset.
    Raises InputError.

    With --start_from, the options that determine the networks are those of its checkpoint, and the networks themselves
    are returned instead of a checkpoint to continue from, see training.start.read_start.

    pretraining: the command is pretraining.inpainting"""
    defaults = vars(parser.parse_args([]))
    # argparse does not set defaults that the namespace has, so options that are not given stay None
    given = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults))))
    given = {name: value for name, value in given.items() if value is not None}
    for one, other in EXCLUSIVE:
        if one in given and other in given:
            raise InputError(f"--{one} --{other}: give only one of these")
    stored = from_file(given["options"], parser, given) if "options" in given else {}
    source = given.get("options")  # of all options
    dataset_name = given.get("dataset_name", stored.get("dataset_name", defaults["dataset_name"]))
    run_name = given.get("run_name") or dataset_name + "_pretrained" * pretraining
    check_name("--dataset_name", dataset_name)
    check_name("--run_name", run_name)
    checkpoint = None
    if "start_from" in given:
        from training.start import read_start

        checkpoint = read_start(given["start_from"], parser)
        stored |= architecture_of(checkpoint, defaults, given, "--start_from")
    elif given.get("resume") or given.get("epoch"):
        checkpoint = find_checkpoint(f"saved_models/{run_name}", given.get("epoch", 0))
        if checkpoint:
            check_options(checkpoint["options"], checkpoint["path"], parser)
            confirm_paths(checkpoint["options"], given, checkpoint["path"], defaults["data_dir"])
            check_command(checkpoint, run_name, pretraining)
            stored = stored_options(checkpoint, defaults, given)
        else:
            stored = begun_options(run_name, parser, given)
        source = "the run that is continued" if stored else None
        check_same_data(stored, given, run_name, checkpoint)
    dataset_name = stored.get("dataset_name", dataset_name)
    for name in ("preset", "recipe") if source else ():
        if given.pop(name, stored.get(name)) != stored.get(name) and os.environ.get("RANK", "0") == "0":
            print(f"note: --{name} has no effect here, because all options are those of {source}")
    data_dir = given.get("data_dir", stored.get("data_dir", defaults["data_dir"]))
    preset = given.get("preset") or own_preset(dataset_name, data_dir)
    defaults |= preset_options(preset, given.get("recipe"), defaults, given)
    opt = argparse.Namespace(**defaults | stored | given | {"run_name": run_name})
    if opt.progressive:
        if "n_epochs" not in given:  # if resumed for longer than its stages, it stays at the last size
            opt.n_epochs = sum(n for _, n in stages(opt))
        opt.img_height, opt.img_width = stages(opt)[-1][0]  # the size that the result is for
    check(opt)
    n_A, n_B = channels_of(vars(opt))
    if n_A != n_B and opt.lambda_id:
        if os.environ.get("RANK", "0") == "0":
            print(f"note: no identity loss, because images of A have {count_of(n_A, 'channel')} and those of B {n_B}")
        opt.lambda_id = 0.0
    return opt, checkpoint


def from_file(path, parser, given, begun=False):
    """Reads options.json of a run -> {name: value}, without those in NOT_RESUMED. Each value must be one that could be
    typed. Raises InputError.

    begun: the run is to be continued, so it must not have begun with the networks of another file"""
    actions = {action.dest: action for action in parser._actions}
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file. Expected options.json of a run")
    try:
        with open(path, encoding="utf-8") as file:
            values = json.loads(file.read(1_000_000))["options"]
        known = {name: value for name, value in values.items() if name not in NOT_RESUMED}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not an options.json of a run ({type(error).__name__})")
    if begun and values.get("start_from"):
        raise InputError(
            f"{path}: the run was to start from {str(values['start_from'])[:200]!r}, and has saved nothing yet. Begin it "
            "again: without --resume and --epoch, and with --start_from"
        )
    for name, value in known.items():
        if name not in actions:
            raise InputError(f"{path}: {name!r} is not an option of this version. Remove it from the file")
        known[name] = as_if_typed(actions[name], value, path)
    if "n_epochs" in given:
        known["n_iters"] = None
    confirm_paths(known, given, path)
    return known


def as_if_typed(action, value, path):
    """The value of an option in a file, converted and checked as argparse does for one that is typed."""
    if value is None and action.default is None:
        return None
    is_switch = action.nargs == 0
    try:
        if is_switch != isinstance(value, bool) or not isinstance(value, (bool, int, float, str)):
            raise ValueError
        value = value if is_switch else (action.type or str)(str(value))
        if action.choices and value not in action.choices:
            raise ValueError
    except (ValueError, TypeError, argparse.ArgumentTypeError, InputError) as error:
        raise InputError(f"{path}: {action.dest} {value!r} cannot be used{f': {error}' if str(error) else ''}")
    return value


def begun_options(run_name, parser, given):
    """The options of a run that has not saved a checkpoint yet, from its options.json -> {name: value}. Without that
    file, --dataset_name must say what to train on. Raises InputError."""
    folder = f"saved_models/{run_name}"
    path = os.path.join(folder, OPTIONS)
    if os.path.exists(path):
        stored = from_file(path, parser, given, begun=True)
    elif "dataset_name" in given:
        stored = {}
    else:
        from command_line.suggestions import name_runs

        there = name_runs(run_name, "latest.pth")
        raise InputError(
            f"{folder}: no such run to continue. {there}. To start one, give --dataset_name, and omit --resume"
        )
    if os.environ.get("RANK", "0") == "0":
        known_from = f" with the options of {path}" if stored else ""
        print(f"{folder}: no checkpoint yet, starting from the beginning{known_from}")
    return stored


def check_command(checkpoint, run_name, pretraining):
    """Raises InputError if a run of pretraining.inpainting is to be continued by cyclegan.py, or the other way round."""
    if ("pretraining" in checkpoint) != pretraining:
        words, this = command_of(checkpoint), "pretraining.inpainting" if pretraining else "cyclegan.py"
        path, way_on = checkpoint["path"], shlex.join(["python", *words, "--run_name", run_name, "--resume"])
        more = "" if pretraining else f". To train with its networks, start a new run with --start_from {path}"
        raise InputError(f"{path}: a run of {words[-1]}, not of {this}. To continue it: {way_on}{more}")


def check_same_data(stored, given, run_name, checkpoint):
    """Raises InputError if --dataset_name is not that of the run which is to be continued."""
    trained = stored.get("dataset_name")
    if trained and given.get("dataset_name", trained) != trained:
        way_on = f". To begin with its networks: {command_to_start(checkpoint, given)}" if checkpoint else ""
        raise InputError(
            f"--dataset_name {given['dataset_name']}: saved_models/{run_name} was trained on {trained}. Omit the option, "
            f"or start a new run with --run_name NEW, without --resume and --epoch{way_on}"
        )


def command_to_start(checkpoint, given):
    """The command that starts a run on the data set which was typed, at the size of a checkpoint and with its networks."""
    words, options = ["python", "cyclegan.py", "--dataset_name", given["dataset_name"]], checkpoint["options"]
    words += ["--start_from", checkpoint["path"]]
    for name in ("data_dir", "img_height", "img_width"):
        if given.get(name, options.get(name)) is not None:
            words += [f"--{name}", str(given.get(name, options.get(name)))]
    return shlex.join(words)


def stored_options(checkpoint, known, given):
    """-> {name: value}, the options that a run takes over from its checkpoint. Raises InputError if those given now
    would change the networks."""
    stored = {k: v for k, v in checkpoint["options"].items() if k not in NOT_RESUMED and k in known}
    stored.setdefault("keep_checkpoints", KEEP_ALL)  # from a version that kept all
    if "n_epochs" in given:
        stored["n_iters"] = None
    architecture_of(checkpoint, known, given, "--resume and --epoch")
    has_nce = bool(checkpoint["options"].get("lambda_nce"))
    if bool(given.get("lambda_nce", has_nce)) != has_nce:  # the loss has networks of its own, see parts.add_projections
        raise InputError(
            f"--lambda_nce {given['lambda_nce']:g}: {checkpoint['path']} was trained {'with' if has_nce else 'without'} "
            f"this loss. Omit the option, or start a new run with --start_from {checkpoint['path']}"
        )
    return stored


def architecture_of(checkpoint, known, given, flags):
    """-> {name: value}, the options in ARCHITECTURE of a checkpoint. Raises InputError if others are given now.

    flags: without which others could be given"""
    trained = {name: checkpoint["options"].get(name, known[name]) for name in ARCHITECTURE}
    for name, value in trained.items():
        if given.get(name, value) != value:
            raise InputError(
                f"--{name} {given[name]}: {checkpoint['path']} was trained with {value}. Omit the option, or start a "
                f"new training without {flags}"
            )
    return trained


def as_typed(opt, defaults):
    """The options that differ from the defaults, as they would be typed; except those that are printed elsewhere."""
    hidden = {*NOT_RESUMED, "dataset_name", "data_dir"}
    hidden |= {"n_epochs"} if opt.progressive or opt.n_iters else set()
    hidden |= {"img_height", "img_width"} if opt.progressive else set()
    changed = {k: v for k, v in vars(opt).items() if v != defaults[k] and k not in hidden}
    quoted = {k: v if type(v) is bool or k in SEVERAL_WORDS else shlex.quote(str(v)) for k, v in changed.items()}
    words = [f"--{k} {v}" if type(v) is not bool else f"--{k}" if v else f"--no-{k}" for k, v in quoted.items()]
    return " ".join(words) or "none"
