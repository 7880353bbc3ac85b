"""
What a file was made by: version, commit, torch, date, command.
"""

import os
import shlex
import subprocess
import sys
import time

VERSION = "1.1.dev0"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def provenance():
    """-> {name: text}, for checkpoints, exported files and lines of metrics.jsonl. The commit is None in a copy of the
    code that is not a clone, and ends in -dirty if files have been changed since."""
    import torch

    name = os.path.basename(sys.argv[0]) or "-"
    return {
        "version": VERSION,
        "commit": commit(),
        "torch": str(torch.__version__),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(["python", name, *sys.argv[1:]]),
    }


def commit():
    """The commit of this code, or None. Runs git, which may be missing."""
    if not os.path.exists(os.path.join(ROOT, ".git")):
        return None
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
