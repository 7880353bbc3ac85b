"""
The parser of all commands: what the user may have meant by options and names of runs, and --version.
"""

import argparse
import difflib
import os
import platform
import re


class Parser(argparse.ArgumentParser):
    """Names the option that a mistyped one may have been meant to be, once for all processes of torchrun."""

    def error(self, message):
        from command_line.errors import speaks_first  # imported here, because it imports PyTorch

        if not speaks_first():
            self.exit(2)
        known = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # they leave unknown options to this parser
                known.update(*(parser._option_string_actions for parser in action.choices.values()))
        super().error(explain_options(message, known))


class Version(argparse.Action):
    """--version: prints the versions that a report of a fault needs."""

    def __call__(self, parser, *_):
        print(version_line())
        parser.exit()


def close_to(word, known):
    """-> the most similar of the known words, or None"""
    folded = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def explain_options(message, known):
    """Adds to argparse's message on unknown options what they may have been meant to be. known: all options, such as
    --lr"""
    unknown = re.match("unrecognized arguments: (.*)", message, re.DOTALL)
    words = re.findall(r"(?:^|\s)(--?[A-Za-z][\w-]*)", unknown[1]) if unknown else []
    spelled = {option.replace("-", "_"): option for option in known}
    meant = {word: close_to(word.replace("-", "_"), spelled) for word in words}
    hints = [f"{word}: did you mean {spelled[found]}?" for word, found in meant.items() if found]
    return "; ".join([message, *hints])


def runs_with(file, folder="saved_models"):
    """The names of the runs that have a file, such as log.jsonl; the newest first."""
    names = [n for n in os.listdir(folder) if not n.endswith(".part")] if os.path.isdir(folder) else []
    paths = {name: os.path.join(folder, name, file) for name in names}
    return sorted((n for n, path in paths.items() if os.path.isfile(path)), key=lambda n: -os.path.getmtime(paths[n]))


def name_runs(wanted, file):
    """A sentence on the runs that have a file, for the message that `wanted` is none of them."""
    runs = runs_with(file)
    if not runs:
        return "There are no runs in saved_models"
    meant = close_to(wanted, runs)
    more = f" and {len(runs) - 10} more" if len(runs) > 10 else ""
    return (f"Did you mean {meant}? " if meant else "") + f"There are: {', '.join(runs[:10])}{more}"


def missing_checkpoint(path):
    """The message for a checkpoint that is not there: what is there instead."""
    folder, file = os.path.split(path)
    parent, run = os.path.split(folder)
    if os.path.isdir(folder or "."):
        there = sorted(name for name in os.listdir(folder or ".") if name.endswith((".pth", ".safetensors")))
        meant = close_to(file, there)
        hint = f". Did you mean {os.path.join(folder, meant)}?" if meant else ""
    else:
        hint = f". {name_runs(run, 'latest.pth')}" if parent == "saved_models" else ""
    return f"{path}: no such checkpoint{hint}"


def version_line():
    import torch

    from command_line.provenance import VERSION, commit

    made_by = f", commit {found}" if (found := commit()) else ""
    return f"CycleGAN {VERSION}{made_by}, torch {torch.__version__}, Python {platform.python_version()}"
