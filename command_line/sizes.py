"""
Sizes of images on the command line.
"""

import argparse

from command_line.parser import between


def parse_size(text, most=65535):
    """'512' -> 512; '640x480' -> (640, 480), width and height, each at most `most`"""
    try:
        sides = [between(1, most)(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor WIDTHxHEIGHT")
    return sides[0] if len(sides) == 1 else tuple(sides)


parse_size.__name__ = "size"  # for argparse's messages
