"""
Names and paths that come from users and from files.
"""

import contextlib
import os

from utils import InputError


def check_name(flag, name):
    """Raises InputError unless `name` can be the name of a folder."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise InputError(f"{flag} {name!r}: must be the name of a folder, not a path; --data_dir takes a path")


def is_inside(path, folder):
    """Whether a path is in a folder or is the folder itself, by its name alone: links are not followed."""
    if ".." in path.replace("\\", "/").split("/"):
        return os.path.normpath(path) == os.path.normpath(folder)
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return path == folder or path.startswith(os.path.join(folder, ""))


def sizes_in(folder):
    """-> list of the sizes in bytes of all files in a folder and its subfolders. Some may be removed meanwhile."""
    sizes = []
    for inside, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.path.getsize(os.path.join(inside, file)))
    return sizes
