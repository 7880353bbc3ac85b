"""
Finds the images and videos that a data set is to be made of, in folders at any depth, and says what was left out.
"""

import dataclasses
import os

from command_line.paths import is_inside
from command_line.printable import printable
from media.containers import AMBIGUOUS, VIDEO_EXTENSIONS, is_mpeg
from media.images import IMAGE_EXTENSIONS
from media.inputs import check_path, is_visible, without_results
from utils import InputError

# why a file is left out, in the order of the report -> in words
REASONS = {
    "broken": "cannot be read",
    "small": "too small",
    "exact": "the same as another file",
    "near": "nearly the same as another image",
    "empty": "nearly of one colour",
    "link": "symbolic links",
    "kind": "of another kind than most (arrays and 8-bit images cannot be mixed)",
    "special": "not regular files",
    "result": "results of translate.py",
    "other": "neither image nor video",
    "video": "videos, which training does not read",  # in a data set that is there
}


@dataclasses.dataclass
class LeftOut:
    """A file that is not used. side: "A" or "B"; reason: one of REASONS; why: a few words on this file; shorter: the
    shorter side of an image that is too small, in pixels; split: "train" or "test" if training or evaluation reads it
    nevertheless, because it is in a data set that is only looked at"""

    side: str
    path: str
    reason: str
    why: str = ""
    shorter: int = 0
    split: str = ""


@dataclasses.dataclass
class Source:
    """A file to use. name: its path inside the folder that it was found in, which the name in the data set comes from"""

    side: str
    path: str
    name: str


def shown(path):
    """A path as it is printed: on one line, control characters and bytes that are not UTF-8 as escapes"""
    text = os.fspath(path).replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return printable(text).encode("utf-8", "backslashreplace").decode()


def collect(side, paths, avoid=(), follow_links=False):
    """Files and folders -> (list of Source, list of LeftOut), in the order of `paths` and sorted by name inside. Hidden
    files and folders are not looked at.

    side:         "A" or "B"
    avoid:        folders that are not searched: those that are written to
    follow_links: also use files and folders that symbolic links in a folder lead to
    Raises InputError if a path does not exist or a folder to avoid contains it.
    """
    found, left, seen = [], [], set()
    avoid = [os.path.realpath(folder) for folder in avoid]
    for path in paths:
        check_path(path, f"--{side}")
        if not os.path.exists(path):
            kind = "a symbolic link that leads nowhere" if os.path.islink(path) else "no such file or folder"
            raise InputError(f"--{side} {shown(path)}: {kind}")
        real = os.path.realpath(path)
        for folder in avoid:
            if is_inside(real, folder):
                raise InputError(f"--{side} {shown(path)}: is inside {shown(folder)}, which is to be written")
        if os.path.isdir(path):
            search(side, path, avoid, follow_links, found, left, seen)
        else:
            add_file(side, path, os.path.basename(path), found, left, seen)
    return found, left


def search(side, root, avoid, follow_links, found, left, seen):
    """Adds what a folder and its subfolders hold to `found` and `left`. seen: the real paths so far"""
    folders = [root]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in avoid or real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                entries = {entry.name: entry for entry in entries if is_visible(entry.name)}
        except OSError as error:
            left.append(LeftOut(side, folder, "broken", f"folder: {error.strerror}"))
            continue
        names, n_results = without_results(list(entries))
        if n_results:
            results = sorted(entries.keys() - set(names))
            left += [LeftOut(side, os.path.join(folder, name), "result") for name in results]
        inner = []
        for name in names:
            path = os.path.join(folder, name)
            if entries[name].is_symlink() and (why := why_not_followed(path, follow_links)):
                left.append(LeftOut(side, path, "link", why))
            elif os.path.isdir(path):
                inner.append(path)
            else:
                add_file(side, path, os.path.relpath(path, root), found, left, seen)
        folders += reversed(inner)


def why_not_followed(path, follow_links):
    """Why a symbolic link in a folder is not used; None if it is."""
    if not os.path.exists(path):
        return "leads nowhere, or to itself"
    if follow_links:
        return None
    target = os.path.realpath(path)
    return f"leads to {shown(target)}; --follow_links uses it"


def add_file(side, path, name, found, left, seen):
    """Adds a file to `found`, or says in `left` what is wrong with it, by its name and kind."""
    lower = name.lower()
    real = os.path.realpath(path)
    if not os.path.isfile(path):
        left.append(LeftOut(side, path, "special", "a pipe, socket or device"))
    elif not lower.endswith(IMAGE_EXTENSIONS + VIDEO_EXTENSIONS):
        left.append(LeftOut(side, path, "other"))
    elif lower.endswith(AMBIGUOUS) and not is_mpeg(path):
        left.append(LeftOut(side, path, "other", "despite its name"))
    elif real not in seen:  # the same file may be named twice
        seen.add(real)
        found.append(Source(side, path, name))
