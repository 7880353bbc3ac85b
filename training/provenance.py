"""
What a training was made from: the data set, and what command_line/provenance.py knows. And whether a resumed run has
the same data.
"""

import hashlib
import heapq
import os

from command_line.provenance import provenance
from utils import InputError

ORIGIN = ("file", "sha256", "dataset_name", "epoch", "step")  # of the checkpoint that --start_from names
SAMPLED = 16  # files of each domain whose contents are looked at


def data_facts(root, dataset):
    """-> {folder, images of A and B, hash of the file list, sample: hashes of a few files}"""
    digest, sample = hashlib.sha256(), []
    for domain in (dataset.A, dataset.B):
        n, names = len(domain.files), []
        for i in range(n):
            path = domain.files[i]
            name = os.fsencode(os.path.relpath(path, domain.files.folder))
            names.append((hashlib.sha256(name).digest(), path))
            digest.update(name + b"\0")
            if i % (n // 1000 + 1) == 0:  # the sizes of at most 1000 files, because each takes a system call
                digest.update(b"%d\0" % os.path.getsize(path))
        # the files with the smallest hashes are mostly the same ones after files were added (MinHash, Broder, 1997)
        sample += [content_hash(name, path) for name, path in heapq.nsmallest(SAMPLED, names)]
    digest.update("".join(sample).encode())
    return {"folder": root, "A": len(dataset.A), "B": len(dataset.B), "hash": digest.hexdigest()[:16], "sample": sample}


def content_hash(name, path):
    """A few digits that depend on the name of a file, and on its first and last KB."""
    digest = hashlib.sha256(name)
    with open(path, "rb") as file:
        digest.update(file.read(1024))
        file.seek(max(0, os.path.getsize(path) - 1024))
        digest.update(file.read())
    return digest.hexdigest()[:8]


def record_of(facts, checkpoint, start=None):
    """Provenance of a run, for its checkpoints and options.json. `commands` are all commands that it was trained by,
    the newest last. `started_from` is the file whose networks it began with, if any, see training/start.py.

    checkpoint: the checkpoint to continue from, or None; start: what --start_from has read, or None"""
    made = provenance()
    before = stored(checkpoint or {}, "commands", list)
    commands = [command for command in before if isinstance(command, str)] + [made.pop("command")]
    origin = start["origin"] if start else stored(checkpoint or {}, "started_from", dict)
    origin = {name: origin[name] for name in ORIGIN if isinstance(origin.get(name), (str, int))}
    return made | {"commands": commands, "data": facts} | ({"started_from": origin} if origin else {})


def stored(checkpoint, name, kind):
    """An entry of the provenance of a checkpoint. Empty if it has none, or another kind of value in its place."""
    before = checkpoint.get("provenance")
    value = before.get(name) if isinstance(before, dict) else None
    return value if isinstance(value, kind) else kind()


def compare_data(opt, facts, checkpoint):
    """-> lines to print if the data set of a resumed run has changed since. Raises InputError if it is another one."""
    before = stored(checkpoint, "data", dict)
    trained_in = checkpoint["options"].get("data_dir", opt.data_dir)
    is_same_folder = os.path.realpath(trained_in) == os.path.realpath(opt.data_dir)
    known = before.get("sample")
    known = {*map(str, known)} if isinstance(known, list) else set()
    if is_same_folder and len(known & {*facts["sample"]}) < 0.1 * len(known):
        raise InputError(
            f"{facts['folder']}: holds other images than those that {checkpoint['path']} was trained on. Start a new run "
            "with --run_name NEW, without --resume and --epoch"
        )
    if not is_same_folder and before.get("hash") != facts["hash"]:
        raise InputError(
            f"--data_dir {opt.data_dir}: {checkpoint['path']} was trained on {os.path.join(trained_in, opt.dataset_name)}, "
            f"and {facts['folder']} holds other files. Omit the option, or start a new run with --run_name NEW, without "
            "--resume and --epoch"
        )
    if not is_same_folder:
        return [f"note: the same data set, in another folder: {facts['folder']}"]
    if before and before.get("hash") != facts["hash"]:
        counts = [f"{each.get('A')} images of A and {each.get('B')} of B" for each in (before, facts)]
        return [f"note: files of {facts['folder']} changed since this run was started: {counts[0]}, now {counts[1]}"]
    return []
