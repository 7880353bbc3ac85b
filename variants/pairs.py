"""
Pairs of corresponding images of A and B, for --lambda_paired.
"""

import re

from media.images import pair_by_stem, stem
from utils import InputError


def read_pairs(path, files_A, files_B):
    """Returns the pairs of images as {index in files_A: index in files_B}.

    path:             text file with one pair per line: the name of an image of A and of the corresponding image of B,
                      separated by a tab, a comma or spaces. Without a path, files with the same stem are pairs
    files_A, files_B: sequences of paths

    Raises InputError if the file cannot be read, names an unknown image, or contains no pairs.
    """
    if not path:
        return pair_by_stem(files_A, files_B)
    index_A, index_B = ({stem(files[i]): i for i in range(len(files))} for files in (files_A, files_B))
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
        if len(names) != 2 or names[0] not in index_A or names[1] not in index_B:
            raise InputError(f"--pairs {path}, line {n}: {line!r} does not name an image of A and one of B")
        pairs[index_A[names[0]]] = index_B[names[1]]
    if not pairs:
        raise InputError(f"--pairs {path}: contains no pairs")
    return pairs
