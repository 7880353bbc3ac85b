"""
Options that are stored in files: checkpoints, options.json, files of weights. They are checked as the command line
checks them, and what a file says of other files and folders is only used if it is inside the expected ones.
"""

import argparse
import json
import os
import reprlib
import shlex

from command_line.parser import between
from command_line.paths import is_inside
from media.reading import check_regular
from utils import InputError
from variants.options import add_variants

# Those of cyclegan.py that determine the networks and the data. Translation needs no more and has no access to its parser
PAPER = {
    "dataset_name": dict(default="demo"), "data_dir": dict(default="data"),
    "img_height": dict(type=between(32, 16384), default=256),
    "img_width": dict(type=between(32, 16384), default=256), "channels": dict(type=between(1, 4096), default=3),
    "n_residual_blocks": dict(type=between(0, 1000), default=9), "ngf": dict(type=between(1, 4096), default=64),
    "ndf": dict(type=between(1, 4096), default=64),
    "upsample": dict(choices=("transpose", "nearest"), default="transpose"),
}  # fmt: skip


def actions_of(parser=None):
    """-> {name: action of argparse}. Without a parser, the options in PAPER and those of the variants"""
    if parser is None:
        parser = argparse.ArgumentParser(add_help=False)
        for name, details in PAPER.items():
            parser.add_argument(f"--{name}", **details)
        add_variants(parser)
    return {action.dest: action for action in parser._actions}


def read_record(path):
    """The contents of an options.json as a dict, in which "options" is a dict, too. Both are empty if the file is missing
    or damaged; their values may be anything."""
    try:
        check_regular(path)  # opening a pipe would wait for ever
        with open(path, encoding="utf-8") as file:
            record = json.loads(file.read(1_000_000))
    except (OSError, ValueError, RecursionError):  # InputError is a ValueError
        record = {}
    record = record if isinstance(record, dict) else {}
    return record | {"options": record["options"] if isinstance(record.get("options"), dict) else {}}


def check_options(options, path, parser=None):
    """Raises InputError unless `options`, stored in the file `path`, are a dict of values that the command line would
    accept. Unknown names are ignored: they may come from another version."""
    if not isinstance(options, dict):
        raise InputError(f"{path}: damaged, its options are a {type(options).__name__}")
    for name, action in actions_of(parser).items():
        if name in options and not accepts(action, options[name]):
            raise InputError(f"{path}: damaged, its option {name} is {reprlib.repr(options[name])}")


def accepts(action, value):
    """Whether an option of argparse can have a value."""
    if value is None:
        return action.default is None
    if isinstance(action, argparse.BooleanOptionalAction | argparse._StoreTrueAction):
        return type(value) is bool
    kind = {"int": (int,), "float": (int, float)}.get(getattr(action.type, "__name__", ""), (str,))
    if type(value) not in kind or (kind == (str,) and (len(value) > 4096 or "\0" in value)):
        return False
    try:
        converted = action.type(str(value)) if action.type else value
    except (argparse.ArgumentTypeError, ValueError, OverflowError):
        return False
    return action.choices is None or converted in action.choices


def confirm_paths(options, typed, path, data_dir="data", way_out=None):
    """Raises InputError if options stored in the file `path` name files or folders elsewhere, unless the user typed them.

    options:  {name: value}
    typed:    {name: value}, the options on the command line
    data_dir: folder that is the default on the command line
    way_out:  what to do instead, if the command line has no --data_dir
    """
    name = options.get("dataset_name")
    if (
        name is not None
        and not typed.get("dataset_name")
        and (os.path.basename(name) != name or name in ("", ".", ".."))
    ):
        raise InputError(f"{path}: damaged, its dataset_name {name!r} is not the name of a folder")
    # a file of weights is of no use unless it holds those of a known network, so it may be anywhere
    for option, folder in {"data_dir": data_dir, "pairs": "."}.items():
        value = options.get(option)
        if value is not None and not typed.get(option) and not is_inside(value, folder):
            where = "the current folder" if folder == "." else folder
            way_out = way_out or f"confirm it with --{option} {shlex.quote(value)}"
            raise InputError(f"{path}: refers to {value}, which is outside of {where}. If that is right, {way_out}")
