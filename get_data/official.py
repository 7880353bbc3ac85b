"""
Downloads the official data sets. CycleGAN itself does not need this module. You can skip it on a first reading.
"""

import contextlib
import errno
import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import zipfile

from command_line.progress import Progress
from get_data.part import complete_folder
from media.reading import check_regular
from utils import InputError

OFFICIAL_URL = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"
OFFICIAL_SETS = (
    "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps facades "
    "iphone2dslr_flower ae_photos"
).split()
LARGEST_DATA_SET = 50e9  # bytes, unpacked; the largest official one has 3e9
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def fetch_dataset(name, data_dir, url=None):
    """Downloads an archive and unpacks it into data_dir/name, which only appears once the data set is complete. An
    interrupted download is continued by the next call. An archive data_dir/name.zip that is there already, put there by
    the user, is unpacked and kept.

    url: address of the zip file; by default that of the official data set `name`

    Raises InputError if the download fails or the archive is corrupt.
    """
    url = url or OFFICIAL_URL.format(name)
    root, archive = os.path.join(data_dir, name), os.path.join(data_dir, name + ".zip")
    way_out = f"Download {name}.zip in another way and save it as {archive}, or unpack it so that {root}/trainA exists"
    os.makedirs(data_dir, exist_ok=True)
    is_users = os.path.lexists(archive)
    # what is downloaded has a name of its own, so that it is not taken for the user's if this run is killed
    source = archive if is_users else archive + ".complete"
    try:
        if not os.path.lexists(source):
            download(url, archive + ".part", source)
    except (OSError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise InputError(f"{url}: download failed ({error}). {way_out}") from error
    try:
        unpack(source, root, name)
    except BadArchive as error:
        if is_users:
            raise InputError(f"{archive}: {error}. It was not changed. Remove it to download it from {url}") from error
        os.remove(source)
        raise InputError(f"{url}: {error}; the archive was deleted. Try again. {way_out}") from error
    if is_users:
        print(f"unpacked {archive}, which is no longer needed")
    else:
        os.remove(source)


def download(url, part, path, attempts=5):
    """Downloads a file to `part` and renames it to `path` once it is complete. An existing partial file is continued.
    Tries again after a connection error, unless nothing at all was received.

    Raises OSError or http.client.HTTPException after the last attempt.
    """
    for attempt in range(1, attempts + 1):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        received, shown = 0, None
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                if response.status != 206:  # the server ignores ranges and sends the whole file
                    have = 0
                total = have + int(response.headers.get("Content-Length", 0))
                shown = DownloadProgress(url, have, total)
                with open(part, "ab" if have else "wb") as file:
                    while block := response.read(1 << 18):
                        file.write(block)
                        have, received = have + len(block), received + len(block)
                        shown.update(have)
                shown.end_line()
            if have < total:
                raise http.client.IncompleteRead(b"", total - have)
            os.replace(part, path)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: the partial file is too long, so it belongs to another file
                raise
            os.remove(part)
        except (OSError, http.client.HTTPException) as error:
            if shown:
                shown.end_line()
            if attempt == attempts or not received:  # no network, or no such server
                raise
            print(f"{url}: connection lost after {have / 1e6:.1f} MB ({error}), trying again", flush=True)
            time.sleep(attempt)


class DownloadProgress:
    """Says what is downloaded, and shows the progress.

    have:  number of bytes that an earlier attempt has downloaded
    total: size of the file in bytes; equal to `have` if the server does not send it
    """

    def __init__(self, url, have, total):
        self.have, self.n_all = have, max(1, round((total - have) / 1e6)) if total > have else None
        self.total, self.progress, self.started = total, Progress(), time.monotonic()
        size = f"{total / 1e6:.0f} MB" if self.n_all else "size unknown"
        print(
            f"downloading {url}: {size}" + (f", of which {have / 1e6:.0f} MB are already downloaded" if have else ""),
            flush=True,
        )

    def update(self, have):
        """have: number of bytes downloaded so far"""
        done = int((have - self.have) / 1e6)
        if self.n_all:  # all of them only at the end, as that is always shown
            done = self.n_all if have == self.total else min(done, self.n_all - 1)
        self.progress.tick(done, self.n_all, "MB", self.started, "downloading: ")

    def end_line(self):
        self.progress.end_line()


class BadArchive(Exception):
    """An archive that cannot be unpacked. The message is one line, and says why."""


def unpack(archive, root, name):
    """Unpacks an archive into a temporary folder and renames it to `root` once it is complete. If the archive contains a
    folder `name`, that folder becomes `root`.

    Raises BadArchive if it cannot be unpacked, and InputError, before anything is written, if it is larger than the limit
    or the disk, or if an entry's path points outside `root`.
    """
    check_regular(archive)
    with complete_folder(root) as temporary, reading_archive(), zipfile.ZipFile(archive) as file:
        check_entries(file, archive, root, temporary)
        file.extractall(temporary)
        inner = os.path.join(temporary, name)
        if os.path.isdir(inner):
            raise_folder(inner, temporary)


@contextlib.contextmanager
def reading_archive():
    """Turns any error of unpacking into BadArchive, except that the disk is full or read-only."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise BadArchive(f"corrupt archive ({describe(error)})") from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or an unknown compression
        raise BadArchive(f"cannot be unpacked ({describe(error)})") from error
    except Exception as error:  # zipfile and its decompressors raise many kinds of errors on corrupt files
        raise BadArchive(f"corrupt archive ({describe(error)})") from error


def describe(error):
    text = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()
    return " ".join(text.split())[:200]


def check_entries(file, archive, root, temporary):
    """Raises InputError if an entry of an open archive would be written outside, or if all are too large."""
    inside = os.path.realpath(temporary) + os.sep
    for entry in file.namelist():
        if not (os.path.realpath(os.path.join(temporary, entry)) + os.sep).startswith(inside):
            raise InputError(
                f"{archive}: contains {entry!r}, which would be written outside {root}. Nothing was unpacked"
            )
    n_bytes = sum(entry.file_size for entry in file.infolist())  # zipfile writes no more than what is declared
    free = shutil.disk_usage(temporary).free
    if n_bytes > min(LARGEST_DATA_SET, free):
        reason = "the disk has" if free < LARGEST_DATA_SET else "the limit of"
        raise InputError(
            f"{archive}: unpacked, it would have {n_bytes / 1e9:.1f} GB, more than {reason} "
            f"{min(LARGEST_DATA_SET, free) / 1e9:.1f} GB. If you trust it, unpack it yourself into {root}"
        )


def raise_folder(inner, folder):
    """Replaces the contents of `folder` by those of `inner`, a folder in it."""
    for name in os.listdir(folder):
        if name != os.path.basename(inner):
            path = os.path.join(folder, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    other = tempfile.mkdtemp(dir=folder)
    os.rename(inner, os.path.join(other, "inner"))
    for name in os.listdir(os.path.join(other, "inner")):
        os.rename(os.path.join(other, "inner", name), os.path.join(folder, name))
    shutil.rmtree(other)
