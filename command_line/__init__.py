"""
What all commands share: options and their help, one-line errors, progress.

May import utils alone.
"""

import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def is_command():
    """Whether this process runs a script of the project, and does not import it."""
    path = os.path.abspath(getattr(sys.modules.get("__main__"), "__file__", None) or os.sep)
    return os.path.dirname(path) in (ROOT, os.path.join(ROOT, "benchmarks"))


# Importing torch takes seconds, and Ctrl-C in the middle of it would print where. From here until run_script it ends the
# process at once, so scripts import this package first
if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
