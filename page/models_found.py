"""
The runs and checkpoints that the page offers. What a browser sends is a name, never a path: it is looked up in a fresh
listing, and anything else is refused.
"""

import dataclasses
import os
import re
import struct
import sys
import time

from command_line.suggestions import close_to
from training.folders import LOCK, OPTIONS
from utils import InputError
from variants.stored_options import read_record

COMMAND_LINE = "--checkpoint"  # the name under which the files of the command line are offered
LATEST = "latest"
GENERATOR = re.compile(r"G_(AB|BA)_(\d{1,9})\.pth")
WEIGHTS = (".pth", ".safetensors")
FULL = re.compile(r"checkpoint_(\d{1,9})\.pth")
FRESH = 120  # seconds since the last line of a log after which a run without a lock no longer counts as running


@dataclasses.dataclass(frozen=True)
class Models:
    """What can be chosen.

    folder: of the runs
    images: folder of their sample grids
    files:  checkpoints named on the command line
    """

    folder: str = "saved_models"
    images: str = "images"
    files: tuple = ()

    def runs(self):
        """-> names of the runs; those that are training first, then the newest first"""
        names = [name for name in listing(self.folder) if self.is_run(name)]
        return sorted(names, key=lambda name: (not is_running(os.path.join(self.folder, name)), -self.changed(name)))

    def is_run(self, name):
        path = os.path.join(self.folder, name)
        files = listing(path) if os.path.isdir(path) and not name.endswith(".part") else []
        return "log.jsonl" in files or any(file.endswith(WEIGHTS) for file in files)

    def changed(self, name):
        """-> time of the last change of a run's log or folder"""
        paths = (os.path.join(self.folder, name, "log.jsonl"), os.path.join(self.folder, name))
        return max(modified(path) for path in paths)

    def translators(self):
        """-> names of the runs that have a checkpoint; files of the command line come first"""
        with_checkpoint = [name for name in self.runs() if checkpoints_in(listing(os.path.join(self.folder, name)))]
        return [COMMAND_LINE] * bool(self.files) + with_checkpoint

    def checkpoints(self, run):
        """-> names of the checkpoints of a run: "latest", "epoch 75", "epoch 70", ..., then files of other names.
        Raises InputError if there is no such run."""
        if run == COMMAND_LINE and self.files:
            return list(self.named_files())
        return list(checkpoints_in(listing(self.folder_of(run))))

    def named_files(self):
        """-> {name: path} of the files of the command line. Visitors see names only; equal ones are numbered."""
        named = {}
        for path in self.files:
            name, n = os.path.basename(os.path.normpath(path)), 1
            while (unique := name if n == 1 else f"{name} ({n})") in named:
                n += 1
            named[unique] = path
        return named

    def folder_of(self, run):
        """The folder of a run. Raises InputError unless `run` is the name of one."""
        if not isinstance(run, str) or run not in listing(self.folder) or not self.is_run(run):
            raise InputError(f"{shown(run)}: there is no such run. {self.hint(run)}")
        return os.path.join(self.folder, run)

    def hint(self, run):
        found = self.runs()
        meant = isinstance(run, str) and close_to(run[:100], found)
        return f"Did you mean {meant}?" if meant else "Choose one from the list" if found else HOW_TO_TRAIN

    def file(self, run, checkpoint, direction):
        """The file of a checkpoint. Raises InputError unless it is in the listing.

        direction: "AB" or "BA"
        """
        if direction not in ("AB", "BA"):
            raise InputError(f"direction {shown(direction)}: is neither AB nor BA")
        if run == COMMAND_LINE and self.files:
            folder, found = "", {name: {"": path} for name, path in self.named_files().items()}
        else:
            folder = self.folder_of(run)
            found = checkpoints_in(listing(folder))
        if not isinstance(checkpoint, str) or checkpoint not in found:
            raise InputError(f"{shown(checkpoint)}: {run} has no such checkpoint. Choose one from the list")
        file = found[checkpoint].get(direction, found[checkpoint].get(""))
        if file is None:
            raise InputError(f"{run}, {checkpoint}: has no generator for {direction[0]} -> {direction[1]}")
        return os.path.join(folder, file)

    def record(self, run):
        """-> what options.json says of a run, {} if there is none; "options" is a dict in any case"""
        return read_record(os.path.join(self.folder_of(run), OPTIONS))

    def trained_size(self, run):
        """-> the shorter side of the images that a run was trained on, 256 if unknown"""
        options = {} if run == COMMAND_LINE else self.record(run)["options"]
        sides = [options.get(name) for name in ("img_height", "img_width")]
        return min(sides) if all(type(side) is int and 0 < side < 16385 for side in sides) else 256

    def grids(self, run):
        """-> steps of the sample grids of a run, in order"""
        self.folder_of(run)
        files = listing(os.path.join(self.images, run))
        return sorted({int(file[:-4]) for file in files if re.fullmatch(r"\d{6,12}\.png", file)})

    def grid(self, run, step):
        """The file of a sample grid. Raises InputError."""
        if type(step) is not int or step not in self.grids(run):
            raise InputError(f"step {shown(step)}: {shown(run)} has no such sample grid")
        return os.path.join(self.images, run, f"{step:06d}.png")

    def kept(self, run, direction):
        """-> names of the checkpoints of a run that hold a generator of this direction, the oldest first: one an epoch,
        latest.pth if no epoch was kept, and files of other names if that is missing, too"""
        if run == COMMAND_LINE and self.files:
            return list(self.named_files())
        found = checkpoints_in(listing(self.folder_of(run)))
        epochs = [name for name in found if re.fullmatch(r"epoch \d+", name) and {direction, ""} & found[name].keys()]
        return epochs[::-1] or [name for name in found if name == LATEST] or list(found)


HOW_TO_TRAIN = "There is no trained run yet. Train one in a few minutes with: python cyclegan.py"


def checkpoints_in(files):
    """Names of files -> {name of a checkpoint: {direction, or "" for any: file}}, in the order of Models.checkpoints"""
    epochs, others = {}, {}
    for file in files:
        if match := GENERATOR.fullmatch(file):
            epochs.setdefault(int(match[2]), {})[match[1]] = file
        elif match := FULL.fullmatch(file):
            epochs.setdefault(int(match[1]), {})[""] = file
        elif file.endswith(WEIGHTS) and file != "latest.pth":
            others[file] = {"": file}
    latest = {LATEST: {"": "latest.pth"}} if "latest.pth" in files else {}
    return latest | {f"epoch {epoch}": epochs[epoch] for epoch in sorted(epochs, reverse=True)} | others


def listing(folder):
    """-> names in a folder, sorted; [] if it cannot be read. Hidden ones, and names that are not text, are left out."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and is_text(name))


def is_text(name):
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # a file name need not be UTF-8, and JSON cannot hold it then
        return False


def modified(path):
    """-> time of the last change of a file, 0.0 if there is none"""
    try:
        return os.path.getmtime(path)
    except OSError:
        return 0.0


def shown(value):
    """What a browser has sent, for a message."""
    return repr(value)[:60]


def is_running(folder, now=None):
    """Whether a process is training in the folder of a run: it holds the lock, see training.folders.lock_run. Where that
    cannot be seen, whether something was logged in the last two minutes."""
    locked = is_locked(os.path.join(folder, LOCK))
    if locked is not None:
        return locked
    return (time.time() if now is None else now) - modified(os.path.join(folder, "log.jsonl")) < FRESH


def is_locked(path):
    """Whether another process has locked a file. None if that is unknown. Only asks: taking the lock, even for a moment,
    could stop a training that is about to start."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:  # struct flock is different there
        return None
    import fcntl

    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(file, fcntl.F_GETLK, question)
    except OSError:
        return None
    return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
