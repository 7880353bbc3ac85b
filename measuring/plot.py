"""
Plots the logs of one or more training runs in one image.

    python -m measuring.plot horse2zebra                    # saved_models/horse2zebra/log.jsonl -> images/horse2zebra/curves.png
    python -m measuring.plot demo demo.1 --output both.png  # compare two runs

Requires matplotlib: pip install matplotlib
"""

import os

from command_line.parser import argument_parser, between
from command_line.run import run_script
from measuring.logs import conditions_of, draw_plots, read_log


def get_parser():
    parser = argument_parser(
        "Plot the losses and other logged values of training runs.",
        "python -m measuring.plot NAME [NAME ...] [options]",
    )
    # fmt: off
    parser.add_argument("names", nargs="+", metavar="NAME", help="name of a run, a folder in saved_models")
    parser.add_argument("--output", help="PNG file to write (default: images/NAME/curves.png)")
    parser.add_argument("--smooth", type=between(0), default=200, help="number of steps to average losses over")
    # fmt: on
    return parser


def print_conditions(run_name, records):
    """Prints the problems that were found during a run, at which steps, and what to do about them."""
    for condition, steps, advice in conditions_of(records):
        print(f"{run_name}: {condition} at step {', '.join(map(str, steps[:5]))}{', ...' if steps[5:] else ''}")
        print(f"  {advice}")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    logs = {}
    for name in opt.names:
        path = os.path.join("saved_models", name, "log.jsonl")
        logs[name], n_skipped = read_log(path)
        if n_skipped:
            print(f"note: {path}: skipped {n_skipped} damaged line{'s' * (n_skipped > 1)}")
    path = opt.output or os.path.join("images", opt.names[0], "curves.png")
    draw_plots(logs, opt.smooth, path)
    print(f"{path}: the curves of {', '.join(logs)}")
    for name, records in logs.items():
        print_conditions(name, records)


if __name__ == "__main__":
    run_script(main)
