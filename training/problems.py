"""
What can go wrong with the processes that load images, and what to do about it.
"""

import re
import signal
import threading

from utils import InputError

MORE_SPACE = "give the container more shared memory: docker run --shm-size 8g"
SHARED_MEMORY = f"shared memory is full, in which images are handed over. Use --n_cpu 0, or {MORE_SPACE}"


def notice_late(loader):
    """-> an iterator over a DataLoader. PyTorch raises an error as soon as a worker process dies, wherever the main
    process is, even in the middle of a step. Here the loader notices it when it waits for a batch, within seconds, so
    that what has been trained can be saved."""
    iterator = iter(loader)
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator


def loader_problem(error, iterator):
    """An error raised while a DataLoader waits for its workers -> InputError with the way out, or None if it is about
    something else.

    iterator: of the DataLoader, whose processes tell by which signal they died; None if it could not be made
    """
    text, died_of = str(error), exit_codes(iterator)
    if "Too many open files" in text or "ancdata" in text:
        return InputError("too many open files. Use a smaller --n_cpu, or raise the limit: ulimit -n 65536")
    if re.search(r"shared memory|torch_shm|</torch_|Bus error", text) or -getattr(signal, "SIGBUS", 0) in died_of:
        return InputError(SHARED_MEMORY)
    if iterator is None and isinstance(error, OSError):
        return InputError(f"the processes that load images cannot be started ({error}). Use --n_cpu 0, or {MORE_SPACE}")
    if not re.search(r"DataLoader worker .*(exited unexpectedly|is killed by signal)", text):
        return None
    killed = -getattr(signal, "SIGKILL", 0) in died_of
    reason = " (perhaps because memory ran out)" if killed else ""
    return InputError(
        f"a process that loads images was ended from outside{reason}. Use a smaller --n_cpu, or --n_cpu 0"
    )


def exit_codes(iterator):
    """The exit codes of the workers of a DataLoader's iterator that have ended; minus the number of a signal"""
    return [worker.exitcode for worker in getattr(iterator, "_workers", []) if worker.exitcode]
