"""
Pairs of corresponding images of A and B, for --lambda_paired.
"""

import os
import re

from media.folders import pair_by_stem, stems
from media.images import stem
from utils import InputError

LARGEST_FILE = 2**28  # bytes; a list of a million pairs has 2**25 or so


def read_pairs(path, files_A, files_B):
    """Returns the pairs of images as {index in files_A: index in files_B}.

    path:             text file with one pair per line: the name of an image of A and of the corresponding image of B,
                      separated by a tab, a comma or spaces. A name is a path inside the folder of the domain; the
                      subfolder may be left out where that is unique, and so may the extension. Without a path, files
                      of the same name are pairs
    files_A, files_B: media.folders.ImageFiles, or lists of paths

    Raises InputError if the file cannot be read, names an unknown image, or contains no pairs.
    """
    if not path:
        return pair_by_stem(files_A, files_B)
    index_A, index_B = index_of_names(files_A), index_of_names(files_B)
    pairs = {}
    for n, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        separator = next((mark for mark in "\t," if mark in line), " +")
        names = [name.strip() for name in re.split(separator, line)]
        found = [find(index, name) for index, name in zip((index_A, index_B), names)]
        if len(names) != 2 or None in found:
            raise InputError(f"--pairs {path}, line {n}: {line[:200]!r} does not name an image of A and one of B")
        pairs[found[0]] = found[1]
    if not pairs:
        raise InputError(f"--pairs {path}: contains no pairs")
    return pairs


def read_lines(path):
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"--pairs {path}: not a regular file")  # opening a pipe would block
        if os.path.getsize(path) > LARGEST_FILE:
            raise InputError(f"--pairs {path}: has more than {LARGEST_FILE >> 20} MiB, so it is no list of pairs")
        with open(path, encoding="utf-8-sig") as file:  # Windows writes a byte order mark
            return [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise InputError(f"--pairs {path}: cannot be read ({error}). Save it as a text file in UTF-8")
    except OSError as error:
        raise InputError(f"--pairs {path}: cannot be read ({error})")


def index_of_names(files):
    """-> {name: index}; names are paths inside the folder without the extension, and stems that are unique"""
    index = {name: i for i, name in enumerate(stems(files))}
    short = {}
    for name, i in index.items():
        short.setdefault(os.path.basename(name), []).append(i)
    return {name: found[0] for name, found in short.items() if len(found) == 1} | index


def find(index, name):
    """The index of an image by its name, with or without its folder and extension. None if there is none."""
    name = os.path.normpath(name)
    candidates = os.path.splitext(name)[0], stem(name), name
    return next((index[candidate] for candidate in candidates if candidate in index), None)
