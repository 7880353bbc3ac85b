"""
What all readers of files share: a problem with a file is one InputError that names it.
"""

import contextlib
import os

from PIL import UnidentifiedImageError

from utils import InputError


def check_regular(path):
    """Raises InputError if `path` is a pipe, which would block, or a device, which may never end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: not a regular file")


@contextlib.contextmanager
def reading(path):
    """For decoders: turns any error in the `with` block into an InputError that names the path."""
    try:
        check_regular(path)
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        what = "broken, or not an image of a format that is read" if os.path.getsize(path) else "is empty"
        raise InputError(f"{path}: {what}") from error
    except Exception as error:  # decoders raise many kinds of errors on broken files
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        way_out = ". translate.py --allow_truncated takes what can be decoded" if "truncated" in reason else ""
        raise InputError(f"{path}: broken, or not an image ({reason}){way_out}") from error
