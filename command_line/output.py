"""
Output that nobody may be reading any more, and lines appended to files.
"""

import contextlib
import errno
import os
import sys


class Unbreakable:
    """A stream to print to that never raises an error. Once the terminal or the program that reads it is gone, such as
    the `tee` of a pipe after Ctrl-C, what is printed is dropped. A disk that is full may have space again later."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        try:
            return self.stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            return self.drop(error)

    def flush(self):
        try:
            self.stream.flush()
        except (OSError, ValueError) as error:
            self.drop(error)

    def isatty(self):
        with contextlib.suppress(ValueError):
            return self.stream.isatty()
        return False

    def drop(self, error):
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN):
            silence(self.stream)
            self.stream = open(os.devnull, "w")
        return 0

    def __getattr__(self, name):
        return getattr(self.stream, name)


def silence(stream):
    """Lets what a stream still holds back, and all that is written to its file descriptor, go nowhere. Python would
    otherwise fail in writing it at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def open_missing_streams():
    """Opens the streams that were closed before the start (`python cyclegan.py >&-`), so that printing goes nowhere, and
    no other file gets the numbers 1 and 2."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:  # it takes the lowest number that is free
                continue
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))


@contextlib.contextmanager
def naming(path):
    """Lets an OSError in the `with` block name the file. That of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def append_line(path, line):
    """Appends a line to a text file, after ending a last line that a killed run left incomplete. An empty line only
    checks that the file can be written. Raises OSError, with the name of the file."""
    with naming(path), open(path, "a+b") as file:
        if file.tell() and line:
            file.seek(-1, os.SEEK_END)
            line = ("" if file.read() == b"\n" else "\n") + line
        file.write((line + "\n").encode() if line else b"")
