"""
Names of files may hold characters that control a terminal: they move the cursor, change its title, or reverse the text.
They are printed as escapes such as \\x1b.
"""

import re

# All control characters but tabs, ends of lines, and the \r that begins a redrawn line; and those that change the
# direction of a text
CONTROL = re.compile("(?!\\A\r)[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"(\x1b\[(?:0|1|2|3[1-7]|9[1-7])m)")  # what the project itself prints in a terminal


def printable(text, with_colours=False):
    """A text with its control characters as escapes. with_colours: keeps those that set the colour of the text"""
    parts = COLOUR.split(text) if with_colours else [text]
    return "".join(part if i % 2 else escape(part, is_first=i == 0) for i, part in enumerate(parts))


def escape(text, is_first=True):
    start = "" if is_first else " "  # only the very first \r is kept
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], start + text)[len(start) :]


class Printable:
    """A stream that prints texts as `printable` returns them."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        self.stream.write(printable(text, with_colours=self.stream.isatty()))
        return len(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)
