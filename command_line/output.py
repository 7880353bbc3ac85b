"""
Output that nobody may be reading any more.
"""

import os


class Unbreakable:
    """A stream to print to that never raises an error: once the terminal or the program that reads it is gone, such as
    the `tee` of a pipe after Ctrl-C, what is printed is dropped."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        try:
            return self.stream.write(text)
        except OSError:
            return self.drop()

    def flush(self):
        try:
            self.stream.flush()
        except OSError:
            self.drop()

    def drop(self):
        self.stream = open(os.devnull, "w")
        return 0

    def __getattr__(self, name):
        return getattr(self.stream, name)
