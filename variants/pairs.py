"""
Which images of A and B are counterparts of each other, for --lambda_paired.
"""

import re

from media.images import pair_by_stem, stem
from utils import InputError


def read_pairs(path, files_A, files_B):
    """Reads a text file with one pair a line: the names of an image of A and of its counterpart in B, separated by a
    tab, a comma or spaces -> {i of A: i of B}. Without a path: files with the same stem. Raises InputError."""
    if not path:
        return pair_by_stem(files_A, files_B)
    number_A, number_B = ({stem(files[i]): i for i in range(len(files))} for files in (files_A, files_B))
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--pairs {path}: cannot be read ({error})")
    pairs = {}
    for n, line in enumerate(lines, 1):
        if not line:
            continue
        separator = next((mark for mark in "\t," if mark in line), " +")
        names = [stem(name.strip()) for name in re.split(separator, line)]
        if len(names) != 2 or names[0] not in number_A or names[1] not in number_B:
            raise InputError(f"--pairs {path}, line {n}: {line!r} does not name an image of A and one of B")
        pairs[number_A[names[0]]] = number_B[names[1]]
    if not pairs:
        raise InputError(f"--pairs {path}: no pairs")
    return pairs
