"""
What is printed, fitted to the terminal: lines wrapped at words, a little colour. In a file or a pipe, nothing changes.
"""

import os
import shutil
import sys
import textwrap

COLOURS = {"green": "32", "yellow": "33", "bold": "1"}


def columns():
    """Width of the terminal; None if stdout is not one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def coloured(text, colour):
    """The text in a colour, where the terminal has them and NO_COLOR (https://no-color.org) is not set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if not text or plain or not sys.stdout.isatty() or (os.name == "nt" and "WT_SESSION" not in os.environ):
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def wrapped(line, width):
    """Wraps a line at words -> lines. The next lines are indented. A line that begins with four spaces is a command to
    copy, and stays whole."""
    if width is None or len(line) < width or line.startswith("    "):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    whole_words = dict(break_long_words=False, break_on_hyphens=False)  # no option and no file name is cut
    return textwrap.wrap(line, width - 1, subsequent_indent=indent, **whole_words) or [""]


def say(text=""):
    """Prints lines, wrapped. Notes are coloured."""
    width = columns()
    for line in str(text).split("\n"):
        parts = wrapped(line, width)
        is_note = line.startswith("note: ")
        print("\n".join(coloured(part, "yellow") if is_note else part for part in parts), flush=True)


def fit(fields, width):
    """Joins as many fields as fit into a line, from the left; the first one is cut if it does not fit."""
    line = fields[0][:width]
    for field in fields[1:]:
        if len(line) + 2 + len(field) > width:
            break
        line += "  " + field
    return line
