"""
Running a script as a command.
"""

import sys
import traceback

import torch
import torch.distributed as dist

from utils import DivergedError, InputError


def run_script(main, needs_reader=True):
    """Calls a script's `main` and exits with its status. An error that the user can fix is one line and exit status 1;
    any other is a traceback.

    needs_reader: False if the script goes on when nobody reads its output any more
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # the names of files may not be printable
    if not needs_reader:
        from command_line.output import Unbreakable

        sys.stdout, sys.stderr = Unbreakable(sys.stdout), Unbreakable(sys.stderr)
    from command_line.printable import Printable  # here, so that `import cyclegan` is fast

    sys.stdout, sys.stderr = Printable(sys.stdout), Printable(sys.stderr)
    try:
        status = main()
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.exit(status)
    except KeyboardInterrupt:  # during training, StopSignal handles Ctrl-C
        sys.exit(130)
    except (InputError, DivergedError) as error:
        # an error from a worker process of the data loader begins with the worker's traceback
        message = str(error).rsplit(f"{InputError.__module__}.{InputError.__name__}: ", 1)[-1].strip()
        traceback.clear_frames(error.__traceback__)  # releases the data loader, which then stops its workers
    except OSError as error:  # a full disk, no permission, a file where a folder should be
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (RuntimeError, MemoryError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # no C++ compiler, for example
            message = f"--compile: does not work here ({str(error).splitlines()[0]}). Run without it"
        elif out_of_memory(error):
            message = (
                "out of memory. Try a smaller --batch_size or smaller images; for training also --accumulate, "
                "--checkpoint_activations, a smaller --ngf, or --no-cache"
            )
        else:
            raise
    sys.exit("error: " + message.replace("\n", "\\n"))


def out_of_memory(error):
    """Whether a RuntimeError or MemoryError means that memory ran out; torch reports that in several ways."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in str(error)
