"""
Checkpoints and files of weights: writes are atomic, nothing in a file is executed, and every problem with a file is one
InputError that names it.
"""

import hashlib
import io
import os
import pickle
import re
import warnings
import zipfile

import torch

from media.reading import check_regular
from utils import InputError, whole_file


def save_file(state, path):
    """torch.save, but atomic: even after a crash, `path` is either the old file or the complete new one."""
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else "is the disk full?"
        raise InputError(f"{path}: cannot be written ({reason}). An earlier file of that name is unchanged")


def file_size(state):
    """Size in bytes of the file that torch.save would write."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def load_file(path):
    """Loads a checkpoint onto the CPU with torch.load. Never executes code from the file.

    Raises InputError if the file is missing, truncated, not a checkpoint, or contains code."""
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder. Name a file in it, such as {os.path.join(path, 'latest.pth')}")
    check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files, torch says more than the line below
            state = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(state)
        return state
    except FileNotFoundError:
        from command_line.suggestions import missing_checkpoint  # imported here: mostly not needed

        raise InputError(missing_checkpoint(path))
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a checkpoint, or one with code in it; nothing was executed")
    except Exception as error:  # torch raises many kinds of errors on broken files
        reason = (str(error).splitlines() or [""])[0][:120]
        raise InputError(f"{path}: broken, truncated, or not a checkpoint ({type(error).__name__}: {reason})")


def load_published(url, path=None):
    """Published weights -> state dict. If the name of the file ends in the start of its SHA-256, as in
    resnet18-f37072fd.pth, that is checked. Libraries would execute code in such files.

    url:  where to download it from, into the folder of torch.hub, unless it is there already
    path: a local copy, whose hash is only checked if it has kept its name
    Raises InputError, or OSError if the download fails."""
    name = os.path.basename(url)
    file = path or os.path.join(torch.hub.get_dir(), "checkpoints", name)
    expected = re.search(r"-([0-9a-f]{8,})\.pth$", os.path.basename(file))
    if not path and not os.path.exists(file):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        torch.hub.download_url_to_file(url, file, hash_prefix=expected and expected[1])
    check_regular(file)
    if expected and os.path.exists(file):
        if not sha256_of(file).startswith(expected[1]):
            raise InputError(
                f"{file}: damaged: its SHA-256 does not begin with {expected[1]}. Delete and download it again"
            )
    return load_file(file)


def sha256_of(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):  # Python 3.10 has no hashlib.file_digest
            found.update(block)
    return found.hexdigest()


def check_zip(file, unpacked=0):
    """Raises ValueError if a zip file was not written by PyTorch as it is: a checksum is wrong, which PyTorch does not
    verify, or members are compressed, so that a small file may hold any size.

    file:     a path or an open file
    unpacked: number of bytes that compressed members may hold; TorchScript compresses its code"""
    with zipfile.ZipFile(file) as archive:
        sizes = {True: 0, False: 0}
        for member in archive.infolist():
            sizes[member.compress_type == zipfile.ZIP_STORED] += member.file_size
        archive.fp.seek(0, os.SEEK_END)
        if sizes[False] > unpacked:
            raise ValueError("it is compressed, which PyTorch's files are not")
        if sizes[True] > archive.fp.tell():
            raise ValueError("its parts are larger than the file")
        if archive.testzip():
            raise ValueError("a checksum is wrong")


def check_tensors(state):
    """Raises ValueError unless all tensors in nested dicts, lists and tuples are plain ones, whose values are in the
    file. A tensor may pretend to have any size, by repeating one value."""
    todo, seen = [state], set()
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_nested:
                raise ValueError(f"a tensor is not a plain one: {value.layout}, {value.dtype}, {value.device}")
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor of shape {tuple(value.shape)} has fewer values")
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            todo.extend([*value.keys(), *value.values()] if isinstance(value, dict) else value)
