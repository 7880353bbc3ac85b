"""
Which images of A and B are counterparts of each other.
"""

import re

from media.images import stem
from utils import InputError


def read_pairs(path, files):
    """A text file, in each line the names of an image of A and its counterpart in B, apart by a tab, a comma or blanks
    -> {number of the one in files["A"]: number of the other}. Without a path: those of the same file stem."""
    number = {domain: {stem(files[domain][i]): i for i in range(len(files[domain]))} for domain in "AB"}
    if not path:
        return {i: number["B"][name] for name, i in number["A"].items() if name in number["B"]}
    pairs = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--pairs {path}: cannot be read ({error})")
    for n, line in enumerate(lines, 1):
        if line:
            names = re.split(next((mark for mark in "\t," if mark in line), " +"), line)
            known = len(names) == 2 and all(stem(name.strip()) in number[d] for name, d in zip(names, "AB"))
            if not known:
                raise InputError(f"--pairs {path}, line {n}: {line!r} does not name an image of A and one of B")
            pairs[number["A"][stem(names[0].strip())]] = number["B"][stem(names[1].strip())]
    return pairs
