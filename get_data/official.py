"""
Fetching the official data sets. Skip this file on first reading: it has nothing to do with CycleGAN.
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
    """Fetches and unpacks one archive into data_dir/name. What is broken off is continued the next time, and
    data_dir/name only comes into being when all of it is there."""
    url = url or OFFICIAL_URL.format(name)
    root, archive = os.path.join(data_dir, name), os.path.join(data_dir, name + ".zip")
    way_out = f"Get {name}.zip elsewhere and put it there as {archive}, or unpacked so that {root}/trainA is there"
    os.makedirs(data_dir, exist_ok=True)
    try:
        if not os.path.exists(archive):
            download(url, archive)
    except (OSError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        raise InputError(f"{url}: cannot be fetched ({error}). {way_out}") from error
    try:
        unpack(archive, root, name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        os.remove(archive)
        raise InputError(f"{url}: sent a broken archive ({error}), which was removed. Try again. {way_out}") from error
    os.remove(archive)


def download(url, path, attempts=5):
    """Into path + '.part', renamed to `path` when whole. Goes on where an earlier attempt broke off."""
    part = path + ".part"
    for attempt in range(1, attempts + 1):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        received = 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                if response.status != 206:  # the server sends all of it
                    have = 0
                total = have + int(response.headers.get("Content-Length", 0))
                with open(part, "ab" if have else "wb") as file:
                    while block := response.read(1 << 18):
                        file.write(block)
                        have, received = have + len(block), received + len(block)
                        report(f"fetching {url}: {have / 1e6:.0f} of {total / 1e6:.0f} MB", final=have == total)
            if have < total:
                raise http.client.IncompleteRead(b"", total - have)
            os.replace(part, path)
            return
        except urllib.error.HTTPError as error:
            if error.code != 416:  # 416: nothing after what we have, so what we have is no beginning of this file
                raise
            os.remove(part)
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or not received:  # nothing came at all: no network, no such server
                raise
            report(f"{url}: broke off after {have / 1e6:.1f} MB ({error}), trying again", final=True)
            time.sleep(attempt)


def report(text, final):
    """Prints progress on one line of a terminal; where the output is none, only the last one."""
    if sys.stdout.isatty():
        print("\r" + text, end="\n" if final else "", flush=True)
    elif final:
        print(text, flush=True)


def unpack(archive, root, name):
    """Unpacks beside `root` and renames when done. An entry that would land outside is an InputError: nothing is
    written at all."""
    temporary = root + ".part"
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        inside = os.path.realpath(temporary) + os.sep
        for entry in file.namelist():
            if not (os.path.realpath(os.path.join(temporary, entry)) + os.sep).startswith(inside):
                raise InputError(
                    f"{archive}: holds {entry!r}, which would be written outside {root}; nothing was unpacked"
                )
        file.extractall(temporary)
    inner = os.path.join(temporary, name)
    os.rename(inner if os.path.isdir(inner) else temporary, root)
    shutil.rmtree(temporary, ignore_errors=True)
