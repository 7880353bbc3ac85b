"""
The options of a command, and their help.
"""

import argparse
import math

switch = argparse.BooleanOptionalAction  # for options such as --amp, which --no-amp switches off


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Lines such as "--lr X  learning rate (default: 0.0002)". Defaults of None and False are not mentioned."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=27)

    def _get_help_string(self, action):
        is_plain = action.default is None or action.default is False
        return action.help if is_plain else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        return {"int": "N", "float": "X"}.get(getattr(action.type, "__name__", ""), action.dest.upper())


def argument_parser(description, usage):
    """argparse.ArgumentParser with short lines of help, and --version. usage: the command line in short, such as
    "python -m measuring.plot NAME [NAME ...] [options]"."""
    from command_line.suggestions import Parser, Version  # imported here, so that `import cyclegan` is fast

    parser = Parser(usage=usage, description=description, formatter_class=HelpFormatter)
    parser.add_argument(
        "--version", action=Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit"
    )
    return parser


def between(low, high=math.inf):
    """-> a `type` for argparse: a finite number of the type of `low`, with low <= number <= high."""

    def parse(text):
        value = type(low)(text)
        if not (low <= value <= high and value < math.inf):
            raise argparse.ArgumentTypeError(
                f"{text} is not {f'at least {low}' if high == math.inf else f'from {low} to {high}'}"
            )
        return value

    parse.__name__ = type(low).__name__  # argparse mentions it: "invalid int value"
    return parse


def not_divisible(numbers, multiple, reason=""):
    """For messages -> "must be divisible by 4 (405: 404 or 408)", or None if all numbers are."""
    wrong = [number for number in dict.fromkeys(numbers) if number % multiple]
    below = {number: number // multiple * multiple for number in wrong}
    near = [f"{n}: {f'{below[n]} or ' if below[n] else ''}{below[n] + multiple}" for n in wrong]
    return f"must be divisible by {multiple}{reason} ({', '.join(near)})" if wrong else None
