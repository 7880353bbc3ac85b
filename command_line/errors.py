"""
What a command says about an error, in one line, and its exit status.
"""

import errno
import os
import sys
import traceback

import torch.distributed as dist

from command_line.output import silence
from command_line.run import out_of_memory
from utils import DivergedError, InputError

LOST_PEER = (
    "another process of this training has ended; if it did not say why, it was killed, perhaps for memory. Continue "
    "with --resume"
)


def status_of(main):
    """Calls `main` -> exit status, or the line to print for exit status 1."""
    try:
        status = main()
        if dist.is_initialized():
            dist.destroy_process_group()
        return status
    except SystemExit as error:  # of argparse
        return error.code
    except KeyboardInterrupt:  # during training, StopSignal handles Ctrl-C
        if sys.stdout.isatty():
            print()  # below a line of progress
        return 130
    except BrokenPipeError as error:
        if error.filename:
            return error_line(explain(error))
        silence(sys.stdout)  # nobody reads it any more, as with `| head`
        return 141  # as if SIGPIPE had ended it
    except (InputError, DivergedError) as error:
        # an error from a worker process of the data loader begins with the worker's traceback
        message = str(error).rsplit(f"{InputError.__module__}.{InputError.__name__}: ", 1)[-1].strip()
        traceback.clear_frames(error.__traceback__)  # releases the data loader, which then stops its workers
    except OSError as error:  # a full disk, no permission, a file where a folder should be
        message = explain(error)
    except (RuntimeError, MemoryError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # no C++ compiler, for example
            message = f"--compile: does not work here ({str(error).splitlines()[0]}). Run without it"
        elif is_of_communication(error):
            message = LOST_PEER
        elif out_of_memory(error):
            message = (
                "out of memory. Try a smaller --batch_size or smaller images; for training also --accumulate, "
                "--checkpoint_activations, a smaller --ngf, or --no-cache"
            )
        else:
            raise
    return error_line(message)


def error_line(message):
    """-> the line to print, or 1 if another process of torchrun has already said what is wrong"""
    return "error: " + message.replace("\n", "\\n") if speaks_first() else 1


def explain(error):
    """An OSError in words, with the file if it is known."""
    if error.filename:
        return f"{error.filename}: {error.strerror}"
    if error.errno == errno.ENOSPC:  # writing to an open file does not tell its name
        return "no space left: a disk, or what the output is written to, is full"
    return error.strerror or str(error)


def is_of_communication(error):
    """Whether a RuntimeError means that another process of torchrun is gone."""
    words = ("gloo", "connection closed by peer", "connection reset by peer", "nccl")
    text = str(error).lower()
    return dist.is_initialized() and (isinstance(error, dist.DistError) or any(word in text for word in words))


def speaks_first():
    """Whether this process is the first of those that torchrun started to report an error. Most errors happen in all of
    them, or in one and then, as it is gone, in the others."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*address, is_master=False, wait_for_workers=False)
        return store.add(f"errors/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (RuntimeError, ValueError, KeyError):
        return os.environ.get("RANK", "0") == "0"
