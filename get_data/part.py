"""
Writing a data set so that it appears at once, complete, also if several processes try at the same time.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time

STALE = 24 * 60 * 60  # seconds after which the part of a data set is taken for that of a killed process


@contextlib.contextmanager
def complete_folder(root):
    """Gives a temporary folder beside `root` to write to in a `with` block, different in each process, and renames it to
    `root` afterwards. If `root` exists by then, because another process was faster, that one is kept."""
    parent, name = os.path.split(root)
    os.makedirs(parent or ".", exist_ok=True)
    remove_stale(parent or ".", name)
    temporary = tempfile.mkdtemp(prefix=name[:100] + ".", suffix=".part", dir=parent or ".")
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~umask())  # mkdtemp makes folders private
        try:
            os.rename(temporary, root)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not os.path.isdir(root):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def umask():
    value = os.umask(0)
    os.umask(value)
    return value


def remove_stale(parent, name):
    """Removes what killed processes have left of a data set."""
    for entry in os.scandir(parent):
        is_part = entry.name.startswith(name[:100] + ".") and entry.name.endswith(".part")
        if is_part and entry.is_dir(follow_symlinks=False) and time.time() - entry.stat().st_mtime > STALE:
            shutil.rmtree(entry.path, ignore_errors=True)


@contextlib.contextmanager
def one_process(root):
    """For a `with` block that makes the data set `root`: waits for another process that does so. The lock file is removed
    afterwards. On file systems without locks, does not wait; complete_folder is safe without."""
    path = f"{root}.lock"
    file = None
    try:
        file = wait_for(path, root)
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                os.remove(path)  # while it is locked, so that nobody can lock a file that is gone; see wait_for
            os.close(file)


def wait_for(path, root):
    """Locks the file `path` -> its descriptor, or None if that is not possible here"""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return None
    said = False
    while True:
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                os.remove(path)
                return None
            if not said:
                print(f"waiting for another process that prepares {root}", flush=True)
            said = True
            time.sleep(0.5)
            continue
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # the process before has removed this file
