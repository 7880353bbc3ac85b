"""
The folders of a training run: their lock, what is moved away for a new run, the disk space that they will need.
"""

import errno
import json
import os
import shutil

from media.reading import check_regular
from utils import InputError, whole_file

LOCK, OPTIONS = "lock", "options.json"  # files in the folder of a run


def lock_run(folder):
    """Creates the folder of a run and locks it until this process ends: two runs would overwrite each other's files ->
    the open lock file, or None where files cannot be locked. Raises InputError if another process has the lock."""
    os.makedirs(real_path(folder), exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return None
    path = os.path.join(folder, LOCK)
    try:  # not truncated, and not followed if it is a link to another file
        file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", buffering=0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a symbolic link. Remove it")
        raise
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise InputError(f"{folder}: another process is training there. Give this run another --run_name")
        # Lustre, NFS and FUSE may be mounted without locks
        print(f"note: {folder}: cannot be locked ({error.strerror}). Do not start a second run of this name meanwhile")
        return None
    return file


def real_path(folder):
    """The folder that a symbolic link leads to, or `folder` itself. Raises InputError if there is no such folder."""
    if not os.path.islink(folder):
        return folder
    target = os.path.realpath(folder)
    if os.path.islink(target):  # what realpath returns for a link that leads to itself
        raise InputError(f"{folder}: is a link that leads to itself. Remove it")
    if not os.path.isdir(os.path.dirname(target)):
        raise InputError(f"{folder}: is a link to {target}, which does not exist. Is that disk mounted?")
    return target


def prepare_folders(checkpoint_dir, sample_dir, checkpoint, resume, record=None):
    """Creates the folders of a run. Nothing is overwritten: a new run, or one that returns to an earlier epoch, renames
    existing folders to NAME.1, NAME.2 … -> whether it did

    checkpoint: the checkpoint that the run continues from, or None
    resume:     True if it continues from the newest checkpoint, or would if there were one
    record:     contents of options.json
    """
    part = real_path(checkpoint_dir) + ".part"
    if os.path.islink(part):
        os.remove(part)
    shutil.rmtree(part, ignore_errors=True)
    renames = not resume and any(map(holds_files, (checkpoint_dir, sample_dir)))
    folder = part if renames else real_path(checkpoint_dir)
    for each in [folder] if renames else [folder, real_path(sample_dir)]:
        os.makedirs(each, exist_ok=True)
        for name in os.listdir(each):
            if name.endswith(".tmp"):  # a killed run was writing it
                os.remove(os.path.join(each, name))
    step = checkpoint["step"] if checkpoint else 0
    cut_log(os.path.join(checkpoint_dir, "log.jsonl"), os.path.join(folder, "log.jsonl"), step)
    if checkpoint and not resume:  # for --resume, if the run is killed before it saves a checkpoint of its own
        with whole_file(f"{folder}/latest.pth") as temporary:
            shutil.copyfile(checkpoint["path"], temporary)
    if record:
        write_record(record, folder)
    if renames:
        rename_earlier(checkpoint_dir, sample_dir, part)
    return renames


def holds_files(folder):
    return os.path.isdir(folder) and any(name != LOCK for name in os.listdir(folder))


def rename_earlier(checkpoint_dir, sample_dir, part):
    """Renames the folders of an earlier run to NAME.1 or the first number that is free, and `part` to the folder of the
    new run. A symbolic link stays what it is; the folder that it leads to is renamed."""
    folders = [folder for folder in (sample_dir, checkpoint_dir) if os.path.isdir(folder)]
    number, taken = 1, [*folders, *map(real_path, folders), checkpoint_dir, sample_dir]
    while any(os.path.lexists(f"{folder}.{number}") for folder in taken):
        number += 1
    moved = {real_path(folder): f"{real_path(folder)}.{number}" for folder in folders}
    done = []
    try:
        for folder, earlier in moved.items():
            os.rename(folder, earlier)
            done.append(folder)
        os.rename(part, real_path(checkpoint_dir))  # if killed before this line, see finish_renaming
    except OSError:  # all or nothing
        for folder in done:
            os.rename(moved[folder], folder)
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.makedirs(real_path(sample_dir), exist_ok=True)
    for folder in filter(os.path.islink, folders):
        os.symlink(moved[real_path(folder)], f"{folder}.{number}")
    print(f"the earlier run was renamed to {' and '.join(f'{folder}.{number}' for folder in reversed(folders))}")


def finish_renaming(folder):
    """Completes rename_earlier of a process that was killed in it: the new folder exists, but has its name not yet."""
    real = real_path(folder)
    if not os.path.isdir(real) and os.path.isdir(real + ".part"):
        try:
            os.rename(real + ".part", real)
        except OSError:
            if not os.path.isdir(real):  # otherwise another process was faster
                raise


def cut_log(source, path, step):
    """Copies a log up to `step`. A killed run may have logged steps after its last checkpoint; they are repeated."""
    kept = []
    check_regular(source)
    if os.path.exists(source):
        with open(source, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line)
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    RecursionError,
                ):  # the last line of a killed run may be half-written
                    continue
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(kept)


def write_record(record, folder):
    """Writes options.json: what a run was started with, in text that --options and people can read."""
    with whole_file(f"{folder}/{OPTIONS}") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1) + "\n")


def n_bytes_of(state):
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, dict):
        state = state.values()
    if hasattr(state, "element_size"):
        return state.numel() * state.element_size()
    return sum(map(n_bytes_of, state)) if hasattr(state, "__iter__") and not isinstance(state, str) else 0


def disk_line(folder, n_full_bytes, n_generator_bytes, epochs, n_kept):
    """-> lines on the disk space that the checkpoints of a run need: one, or two if the disk has less

    epochs: number of epochs whose generators will be kept; n_kept: at most so many full checkpoints are kept"""
    n_bytes = n_full_bytes * (1 + min(n_kept, epochs)) + n_generator_bytes * epochs
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # some network drives do not say
        return [f"disk: up to {size(n_bytes)} of checkpoints in {folder}"]
    lines = [f"disk: up to {size(n_bytes)} of checkpoints in {folder}, {size(free)} free"]
    if n_bytes + n_full_bytes > free:  # a file is complete before the older one is deleted
        way_out = "a larger --checkpoint_interval or a smaller --keep_checkpoints needs less"
        lines.append(f"note: the disk will be full before the end; {way_out}")
    return lines


def size(n_bytes):
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
