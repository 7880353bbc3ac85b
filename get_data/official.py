"""
Downloads the official data sets. CycleGAN itself does not need this module. You can skip it on a first reading.
"""

import http.client
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib

from utils import InputError

OFFICIAL_URL = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{}.zip"
OFFICIAL_SETS = (
    "apple2orange summer2winter_yosemite horse2zebra monet2photo cezanne2photo ukiyoe2photo vangogh2photo maps facades "
    "iphone2dslr_flower ae_photos"
).split()


def fetch_dataset(name, data_dir, url=None):
    """Downloads an archive and unpacks it into data_dir/name, which only appears once the data set is complete. An
    interrupted download is continued by the next call.

    url: address of the zip file; by default that of the official data set `name`

    Raises InputError if the download fails or the archive is corrupt.
    """
    url = url or OFFICIAL_URL.format(name)
    root, archive = os.path.join(data_dir, name), os.path.join(data_dir, name + ".zip")
    way_out = f"Download {name}.zip in another way and save it as {archive}, or unpack it so that {root}/trainA exists"
    os.makedirs(data_dir, exist_ok=True)
    try:
        if not os.path.exists(archive):
            download(url, archive)
    except (OSError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise InputError(f"{url}: download failed ({error}). {way_out}") from error
    try:
        unpack(archive, root, name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        os.remove(archive)
        raise InputError(f"{url}: corrupt archive ({error}), which was deleted. Try again. {way_out}") from error
    os.remove(archive)


def download(url, path, attempts=5):
    """Downloads a file to path + ".part" and renames it to `path` once it is complete. An existing partial file is
    continued. Tries again after a connection error, unless nothing at all was received.

    Raises OSError or http.client.HTTPException after the last attempt.
    """
    part = path + ".part"
    for attempt in range(1, attempts + 1):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        received = 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                if response.status != 206:  # the server ignores ranges and sends the whole file
                    have = 0
                total = have + int(response.headers.get("Content-Length", 0))
                with open(part, "ab" if have else "wb") as file:
                    while block := response.read(1 << 18):
                        file.write(block)
                        have, received = have + len(block), received + len(block)
                        report(f"downloading {url}: {have / 1e6:.0f} of {total / 1e6:.0f} MB", final=have == total)
            if have < total:
                raise http.client.IncompleteRead(b"", total - have)
            os.replace(part, path)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: the partial file is too long, so it belongs to another file
                raise
            os.remove(part)
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or not received:  # no network, or no such server
                raise
            report(f"{url}: connection lost after {have / 1e6:.1f} MB ({error}), trying again", final=True)
            time.sleep(attempt)


def report(text, final):
    """Shows progress: redraws one line in a terminal, and prints only the final line elsewhere."""
    if sys.stdout.isatty():
        print("\r" + text, end="\n" if final else "", flush=True)
    elif final:
        print(text, flush=True)


def unpack(archive, root, name):
    """Unpacks an archive into root + ".part" and renames it to `root` once it is complete. If the archive contains a
    folder `name`, that folder becomes `root`.

    Raises InputError, before anything is written, if an entry's path points outside `root`.
    """
    temporary = root + ".part"
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        inside = os.path.realpath(temporary) + os.sep
        for entry in file.namelist():
            if not (os.path.realpath(os.path.join(temporary, entry)) + os.sep).startswith(inside):
                raise InputError(
                    f"{archive}: contains {entry!r}, which would be written outside {root}. Nothing was unpacked"
                )
        file.extractall(temporary)
    inner = os.path.join(temporary, name)
    os.rename(inner if os.path.isdir(inner) else temporary, root)
    shutil.rmtree(temporary, ignore_errors=True)
