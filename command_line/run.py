"""
Running a script as a command.
"""

import logging
import signal
import sys

import torch


def run_script(main, needs_reader=True):
    """Calls a script's `main` and exits with its status. An error that the user can fix is one line and exit status 1;
    any other is a traceback.

    needs_reader: False if the script goes on when nobody reads its output any more
    """
    # imported here, so that `import cyclegan` is fast
    from command_line.errors import error_line, explain, status_of
    from command_line.output import Unbreakable, open_missing_streams, silence

    open_missing_streams()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # see command_line/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # the names of files may not be printable
    if not needs_reader:
        sys.stdout, sys.stderr = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    from command_line.printable import Printable  # here, so that `import cyclegan` is fast

    sys.stdout, sys.stderr = Printable(sys.stdout), Printable(sys.stderr)
    for decoder in ("tifffile", "nibabel.global"):  # they log what is odd about a file; errors are raised and reported
        logging.getLogger(decoder).setLevel(logging.CRITICAL)
    status = status_of(main)
    try:
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        status = status or (141 if isinstance(error, BrokenPipeError) else error_line(explain(error)))
    sys.exit(status)


def out_of_memory(error):
    """Whether a RuntimeError or MemoryError means that memory ran out; torch reports that in several ways."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in str(error)
