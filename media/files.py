"""
Files that are whole or not there: writing under a temporary name, reading with one-line errors.
"""

import contextlib
import io
import os
import pickle
import zipfile

import torch

from utils import InputError, whole_file


def save_file(state, path):
    """torch.save, but whoever looks at `path` sees the old file or the whole new one, also after a crash."""
    try:
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else "is the disk full?"
        raise InputError(f"{path}: cannot be written ({reason}). What was there before is unharmed")


def file_size(state):
    """Bytes of a file that holds it."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def load_file(path):
    """torch.load onto the CPU. A file that is missing, truncated or no checkpoint, or that wants to run code, is an
    InputError; nothing in it is executed."""
    if os.path.isdir(path):
        raise InputError(f"{path}: a folder. Name a file in it, such as {os.path.join(path, 'latest.pth')}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: no regular file")  # to open a pipe would wait for ever
    try:
        if zipfile.is_zipfile(path):
            check_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint")
    except pickle.UnpicklingError:
        raise InputError(f"{path}: no checkpoint of this project, or one with code in it; nothing was executed")
    except Exception as error:  # a broken file makes torch raise nearly anything
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path}: broken, truncated, or no checkpoint ({type(error).__name__}: {reason})")


def check_zip(file):
    """Raises ValueError if a checksum in a zip file, or one at that path, is wrong: PyTorch does not look at them."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise ValueError("a checksum is wrong")


@contextlib.contextmanager
def reading(path):
    """For decoders: whatever goes wrong in the `with` block is an InputError that names the path."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: no regular file")  # to open a pipe would wait for ever
        yield
    except InputError:
        raise
    except Exception as error:  # on a broken file the decoders raise nearly anything
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise InputError(f"{path}: broken, or no image ({reason})") from error
