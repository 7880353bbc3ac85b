"""
Reading and writing files safely: writes are atomic, and every problem with a file is one InputError that names it.
"""

import contextlib
import io
import os
import pickle
import zipfile

import torch

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
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a regular file")  # opening a pipe would block
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        from command_line.suggestions import missing_checkpoint  # imported here: mostly not needed

        raise InputError(missing_checkpoint(path))
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a checkpoint, or one with code in it; nothing was executed")
    except Exception as error:  # torch raises many kinds of errors on broken files
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path}: broken, truncated, or not a checkpoint ({type(error).__name__}: {reason})")


def check_zip(file):
    """Raises ValueError if a checksum in a zip file is wrong. PyTorch does not verify them.

    file: a path or an open file"""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise ValueError("a checksum is wrong")


@contextlib.contextmanager
def reading(path):
    """For decoders: turns any error in the `with` block into an InputError that names the path."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: not a regular file")  # opening a pipe would block
        yield
    except InputError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on broken files
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise InputError(f"{path}: broken, or not an image ({reason})") from error
