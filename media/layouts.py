"""
What to tell a user whose data set is not laid out as expected: what is there instead, and the command that puts it
right.
"""

import os
import shlex

from media.folders import is_folder
from media.images import IMAGE_EXTENSIONS, open_image
from utils import InputError

SPLITS = ("train", "test", "val")
LAYOUTS = "{0}/trainA, {0}/trainB (and testA, testB), or {0}/train/A, {0}/train/B (and test/A, test/B)"


def explain_missing(root, mode, domain):
    """-> InputError for a data set, a path, without a folder for `mode`, 'train' or 'test', of `domain`, 'A' or 'B'."""
    expected = os.path.join(root, mode + domain)
    if not os.path.isdir(root):
        return InputError(f"{root}: no such folder. The images belong in {LAYOUTS.format(root)}")
    command = command_for(root, mode, domain)
    way_out = f". To put it right: {command}" if command else ""
    return InputError(
        f"{expected}: no such folder. Put the images of domain {domain} there. {root} holds {contents(root)}; the layouts "
        f"that are read: {LAYOUTS.format(root)}{way_out}"
    )


def explain_empty(folder):
    """-> InputError for a folder of a domain that holds no images."""
    holds = contents(folder)
    return InputError(
        f"{folder}: holds no images, nor do its subfolders (it holds {holds}). Put this domain's images there"
    )


def contents(folder, limit=6):
    """The names in a folder, for a message: "test/, train/ and 3 more"."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * is_folder(entry) for entry in entries if not entry.name.startswith("."))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more or "nothing"


def subfolders(folder):
    """The names of the folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_folder(entry) and not entry.name.startswith("."))


def command_for(root, mode, domain):
    """The command that turns what is in `root` into a layout that is read, or ""."""
    folders = subfolders(root)
    inner = [name for name in folders if name.lower() not in SPLITS and is_data_set(os.path.join(root, name))]
    if len(inner) == 1:  # unzipped into a folder of its own name
        return f"mv {shlex.quote(os.path.join(root, inner[0]))}/* {shlex.quote(root)}/"
    moves = []
    for d in "AB":
        if not has_folder(root, mode, d) and (found := similar(root, folders, mode, d)):
            source, target = os.path.join(root, found), os.path.join(root, mode + d)
            moves.append(f"mv {shlex.quote(source)} {shlex.quote(target)}")
    if moves:
        return " && ".join(moves)
    if mode == "train" and len(folders) == 2 and not {"train", "test"} & set(map(str.lower, folders)):
        paths = [shlex.quote(os.path.join(root, name)) for name in folders]  # such as horses and zebras
        return " && ".join(f"mv {path} {shlex.quote(os.path.join(root, 'train' + d))}" for path, d in zip(paths, "AB"))
    if mode == "train" and is_side_by_side(os.path.join(root, "train")):
        target = os.path.normpath(root) + "_split"
        return f"python -m get_data.split {shlex.quote(root)} {shlex.quote(target)}"
    return ""


def has_folder(root, mode, domain):
    return any(os.path.isdir(path) for path in (os.path.join(root, mode + domain), os.path.join(root, mode, domain)))


def is_data_set(folder):
    names = subfolders(folder)
    return all(has_folder(folder, "train", domain) or similar(folder, names, "train", domain) for domain in "AB")


def similar(root, folders, mode, domain):
    """The one of `folders` that is meant to hold the images of a domain, or None: with other case or a separator, such
    as Train_a or TRAIN/a; for training also just A."""
    names = folders + [
        os.path.join(f, name) for f in folders if f.lower() == mode for name in subfolders(f"{root}/{f}")
    ]
    for name in names:
        if "".join(filter(str.isalnum, name)).lower() == (mode + domain).lower():
            return name
    return next((name for name in folders if name.lower() == domain.lower() and mode == "train"), None)


def is_side_by_side(folder):
    """Whether a folder is one of pix2pix, with pictures that show A at the left and B at the right."""
    if not os.path.isdir(folder):
        return False
    names = (name for name in sorted(os.listdir(folder)) if name.lower().endswith(IMAGE_EXTENSIONS))
    try:
        with open_image(os.path.join(folder, next(names))) as image:
            return image.width > 1.2 * image.height
    except (StopIteration, InputError):  # there is none, or it is broken
        return False
