"""
Files of tensors in the format safetensors (https://github.com/huggingface/safetensors): a header in JSON, then the values.
Nothing in them can be executed. The file is mapped into memory, so only the tensors that are used are read.
"""

import json
import math
import os
import reprlib

from command_line.suggestions import missing_checkpoint
from media.reading import check_regular
from utils import InputError

EXTENSION = ".safetensors"
LARGEST_HEADER = 2**22  # bytes; a generator of 1000 residual blocks needs 0.4 MB
N_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}  # of a value; generators have no others
HINT = "requires safetensors: pip install safetensors"


def is_safetensors(path):
    return os.path.splitext(path)[1].lower() == EXTENSION


def read_tensors(path):
    """-> (metadata {text: text}, {name: tensor on the CPU}). The tensors are views of the mapped file: copy those that
    are kept, in case the file is changed later.

    The header is checked here before the library sees it, so that a hostile file is refused before anything is allocated.
    Raises InputError if the file is missing, damaged, or holds something else than numbers."""
    metadata, names = read_header(path)
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"{path}: {HINT}")
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return metadata, {name: file.get_tensor(name) for name in names}
    except Exception as error:  # of several kinds
        reason = (str(error).splitlines() or [""])[0][:120]
        raise InputError(f"{path}: broken ({type(error).__name__}: {reason})")


def read_header(path):
    """-> (metadata {text: text}, names of the tensors). Raises InputError."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size - 8
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= n_bytes:
                raise ValueError("its header is longer than the file" if length else "it has no header")
            if length > LARGEST_HEADER:
                raise ValueError(f"its header has {length} bytes; that of a generator has at most {LARGEST_HEADER}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=as_dict)
        return check_header(header, n_bytes - length)
    except FileNotFoundError:
        raise InputError(missing_checkpoint(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})")
    except RecursionError:
        raise InputError(f"{path}: broken, or not a file of safetensors (its header is nested too deeply)")
    except ValueError as error:  # those of JSON and UTF-8, too
        raise InputError(f"{path}: broken, or not a file of safetensors ({str(error).splitlines()[0][:160]})")


def as_dict(pairs):
    """The members of a JSON object. Raises ValueError if two have one name."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found


def check_header(header, n_bytes):
    """Raises ValueError unless a header describes tensors that fill the n_bytes after it exactly -> (metadata, names)."""
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    spans = sorted(check_tensor(name, entry) for name, entry in header.items())
    end = 0
    for start, stop in spans:
        if start != end:
            raise ValueError("its tensors overlap, or there are gaps between them")
        end = stop
    if end != n_bytes:
        raise ValueError(f"its tensors have {end} bytes, but {n_bytes} follow the header")
    return metadata, list(header)


def check_tensor(name, entry):
    """Raises ValueError unless an entry of the header describes a tensor -> (first byte, byte after the last)"""
    name = reprlib.repr(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described as a tensor")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in N_BYTES:
        raise ValueError(f"{name} has the type {reprlib.repr(dtype)}, which no generator has")
    if not are_counts(shape) or len(shape) > 8:
        raise ValueError(f"{name} has the shape {reprlib.repr(shape)}")
    if not are_counts(span) or len(span) != 2 or span[1] - span[0] != math.prod(shape) * N_BYTES[dtype]:
        raise ValueError(f"{name} has the shape {reprlib.repr(shape)}, but the bytes {reprlib.repr(span)}")
    if span[0] == span[1] or span[0] % N_BYTES[dtype]:
        raise ValueError(f"{name} is empty or not aligned")
    return tuple(span)


def are_counts(values):
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
