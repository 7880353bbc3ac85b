"""
The images of a data set's folder: listing them, and pairing those of two folders by name.
"""

import os
import re

import numpy as np

from media.images import IMAGE_EXTENSIONS, stem
from utils import InputError

RESULT = re.compile(rb"_(translated|features)\.(nii\.)?[^./]*$")  # names that translate.py gives its results


class ImageFiles:
    """A sequence of the paths of all image files in a folder and its subfolders, sorted by path. Hidden files and
    folders are left out, and so are results of translate.py, unless there is nothing else.

    The names are one NumPy array of fixed-width bytes. For 10 million images it takes a few hundred MB, which worker
    processes share; a list of Python strings would take more than 1 GB in each.

    limit: take this many of the images, evenly spaced; None takes all
    notes: (attribute) lines for the user on files that were left out
    Raises InputError if the folder holds no images.
    """

    extensions = IMAGE_EXTENSIONS

    def __init__(self, folder, limit=None):
        self.folder, self.notes = folder, []
        self.n_others, self.other = 0, None  # files that are not images, and the name of one of them
        arrays, names = [], []
        for name in self._walk():
            names.append(name)
            if len(names) == 100_000:
                arrays.append(np.array(names))
                names = []
        names = np.sort(np.concatenate([*arrays, np.array(names, dtype=bytes)]))
        if not len(names):
            from media.layouts import explain_empty

            raise explain_empty(folder)
        self.names = self._without_results(names)
        if self.n_others:
            self.notes.append(f"{folder}: ignored {count_of(self.n_others, 'other file')}, such as {self.other}")
        if limit and limit < len(self.names):
            self.notes.append(f"{folder}: --max_images takes {limit} of the {len(self.names)} images")
            self.names = self.names[np.arange(limit) * len(self.names) // limit]

    def _walk(self):
        """Yields the images as paths relative to the folder, in bytes. One pass, without a system call per file."""
        folders, seen = [""], set()
        while folders:
            inside = folders.pop()
            if inside:  # a symbolic link may lead to a folder above, or to one that was searched already
                seen = seen or {identity(self.folder)}
                if (key := identity(os.path.join(self.folder, inside))) in seen:
                    continue
                seen.add(key)
            with os.scandir(os.path.join(self.folder, inside)) as entries:
                for entry in entries:
                    name = os.path.join(inside, entry.name)
                    if entry.name.startswith("."):  # .DS_Store, and the ._* files of macOS
                        continue
                    is_named_image = entry.name.lower().endswith(self.extensions)
                    if is_named_image and is_file(entry):
                        yield os.fsencode(name)
                    elif is_folder(entry) and not is_named_image:
                        folders.append(name)
                    else:
                        self.n_others, self.other = self.n_others + 1, name

    def _without_results(self, names):
        is_result = (np.char.find(names, b"_translated.") >= 0) | (np.char.find(names, b"_features.") >= 0)
        is_result[is_result] = [RESULT.search(name) is not None for name in names[is_result]]
        if is_result.all() or not is_result.any():
            return names
        name = os.fsdecode(names[is_result][0])
        self.notes.append(
            f"{self.folder}: left out {count_of(is_result.sum(), 'result')} of translate.py, such as {name}"
        )
        return names[~is_result]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return os.path.join(self.folder, os.fsdecode(self.names[i]))


def evenly_spaced(items, n, with_last=False):
    """-> list of n of the items, all if there are fewer. with_last: the last one is among them, as the first always is"""
    n = min(n, len(items))
    if with_last:
        return [items[round(i * (len(items) - 1) / max(1, n - 1))] for i in range(n)]
    return [items[i * len(items) // n] for i in range(n)]


def count_of(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def identity(folder):
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def is_file(entry):
    try:
        return entry.is_file()
    except OSError:
        return False


def stems(files):
    """The names by which images are paired, one for each of an ImageFiles: the path inside the folder without the
    extension, 'aachen/0001'. Of a list of paths, their stems."""
    if not isinstance(files, ImageFiles):
        return [stem(path) for path in files]
    return [os.path.splitext(os.fsdecode(name))[0].removesuffix(".nii") for name in files.names]


def pair_by_stem(files_A, files_B):
    """Two ImageFiles, or lists of paths -> {i of A: i of B} of the files with the same name, see stems."""
    number = {name: i for i, name in enumerate(stems(files_B))}
    return {i: number[name] for i, name in enumerate(stems(files_A)) if name in number}


def match_domains(A, B, pairs, keep_all):
    """Finds the counterparts among the usable images of two Domains -> {position in A.usable: position in B.usable}.

    pairs:    function (files of A, files of B) -> {i of A: i of B}
    keep_all: False makes all other images unusable
    """
    position_A, position_B = ({int(i): position for position, i in enumerate(domain.usable)} for domain in (A, B))
    found = {a: b for a, b in pairs(A.files, B.files).items() if a in position_A and b in position_B}
    if not found:
        raise InputError(f"{A.files.folder}, {B.files.folder}: no image of A has a counterpart in B")
    if keep_all:
        A.notes.append(f"{len(found)} images of A have a counterpart in B")
        return {position_A[a]: position_B[b] for a, b in found.items()}
    A.usable, B.usable = (np.array(numbers) for numbers in zip(*sorted(found.items())))
    return {i: i for i in range(len(found))}
