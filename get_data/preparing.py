"""
Makes a data set from folders of images and videos, in a folder beside it that is renamed once the set is complete:

    data/NAME.unfinished/settings.json    what it is made of; the command must be the same to continue it
                         journal.jsonl    one line for each file that was looked at, with what was found
                         images/          the images of these files, as training needs them
                         set/             the data set, put together at the end from `images`

A run that was interrupted or killed continues with the files that are not in the journal.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import warnings

import numpy as np

from command_line.output import append_line
from command_line.progress import Progress
from command_line.terminal import say
from get_data.alike import NEAR, Prints, choose_test, groups_of, near_duplicates, series_of
from get_data.collecting import LeftOut, shown
from get_data.looking import Facts, look_at_source
from get_data.part import one_process
from media.limits import PIXELS, decoding
from utils import InputError, whole_file

UNSAFE = re.compile(r"[^\w.() +@-]")  # characters of names that file systems or web servers cannot have, or may mistake
LARGEST_NAME = 100  # characters of each part of a path in the data set
MOST_TEST = 100  # test images of a domain by default, a tenth of its images at most


##############################
#   The unfinished set
##############################


class Unfinished:
    """The folder of a data set that is not complete yet, see above.

    settings: a dict that JSON can hold; a folder that is there already must have been begun with the same
    Raises InputError if it was not.
    """

    def __init__(self, root, settings):
        self.root, self.folder = root, f"{root}.unfinished"
        self.images, self.set = os.path.join(self.folder, "images"), os.path.join(self.folder, "set")
        self.journal = os.path.join(self.folder, "journal.jsonl")
        path = os.path.join(self.folder, "settings.json")
        text = json.dumps(settings, indent=1)
        if os.path.lexists(self.folder):
            self.check_same(path, text)
        os.makedirs(self.images, exist_ok=True)
        if not os.path.exists(path):
            with whole_file(path) as temporary, open(temporary, "w") as file:
                file.write(text)

    def check_same(self, path, text):
        before = None
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            before = file.read()
        if before == text:
            return
        if before is not None:
            raise InputError(
                f"{shown(self.folder)}: is an unfinished data set that was begun with other folders or options. Use those, "
                "or delete it"
            )
        if os.path.isdir(self.folder) and not set(os.listdir(self.folder)) - {"images"}:
            return  # killed at its very beginning
        raise InputError(f"{shown(self.folder)}: is not an unfinished data set of prepare.py. Move it away")

    def records(self):
        """-> {key: record} of the files that are in the journal, whose images are there"""
        found = {}
        if os.path.exists(self.journal):
            with open(self.journal, encoding="utf-8", errors="replace") as file:
                for line in file:
                    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                        key, record = record_in(json.loads(line))
                        if all(self.is_there(facts) for facts in record[0]):
                            found[key] = record
        return found

    def is_there(self, facts):
        with contextlib.suppress(OSError):
            path = os.path.join(self.images, os.path.basename(facts.made))
            return os.path.getsize(path) == facts.n_bytes
        return False

    def note(self, key, record):
        facts, problem = record
        line = {"key": key, "images": [one.to_json() for one in facts], "problem": problem}
        append_line(self.journal, json.dumps(line))


def record_in(line):
    """A line of the journal -> (key, (list of Facts, arguments of Unused or None))"""
    problem, facts = line["problem"], [Facts.from_json(one) for one in line["images"]]
    if any(os.path.basename(one.made) != one.made for one in facts):
        raise ValueError("not a name in the folder of images")
    return line["key"], (facts, tuple(problem) if problem else None)


def key_of(source):
    """The name of a file in the journal, which changes with the file: by its side, path, size and time"""
    try:
        status = os.stat(source.path)
        version = f"{status.st_size}\n{status.st_mtime_ns}"
    except OSError:  # it is gone, which is noticed when it is read
        version = ""
    text = f"{source.side}\n{source.path}\n{source.name}\n{version}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


##############################
#   All files
##############################


def look_at_all(sources, how, unfinished=None, n_threads=4):
    """Looks at files in threads and shows the progress -> {number in `sources`: (list of Facts, problem)}. Those in the
    journal of an Unfinished are not read again."""
    known = unfinished.records() if unfinished else {}
    keys = [key_of(source) if unfinished else "" for source in sources]
    found = {i: known[key] for i, key in enumerate(keys) if key in known}
    if found:
        say(f"{len(found)} of {len(sources)} files were finished by an earlier run")
    todo = iter([i for i in range(len(sources)) if i not in found])
    progress, started, n_before = Progress(), time.monotonic(), len(found)
    running = {}
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool, decoding(PIXELS), quiet_decoders():
        try:
            while True:
                while len(running) < 2 * n_threads and (i := next(todo, None)) is not None:
                    running[pool.submit(look_at_source, sources[i], how, keys[i])] = i
                if not running:
                    break
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    i = running.pop(future)
                    found[i] = future.result()
                    if unfinished:
                        unfinished.note(keys[i], found[i])
                    n_new = len(found) - n_before
                    progress.tick(n_new, len(sources) - n_before, "files", started, "reading: ")
        except BaseException:
            for future in running:
                future.cancel()
            progress.end_line()
            if unfinished:
                say(f"stopped after {len(found)} of {len(sources)} files. The same command continues")
            raise
    progress.end_line()
    return found


@contextlib.contextmanager
def quiet_decoders():
    """Keeps Pillow's remarks on damaged metadata off the terminal in a `with` block. Errors are reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def choose(sources, records):
    """Leaves out duplicates -> (list of Facts, list of LeftOut), both in the order of `sources`.

    records: as look_at_all returns them. Of near duplicates, the one with most pixels is kept
    """
    left, kept, firsts = [], [], {}
    for i, source in enumerate(sources):
        facts, problem = records[i]
        if problem:
            left.append(LeftOut(source.side, source.path, *problem))
        if not facts:
            continue
        first = firsts.setdefault((source.side, facts[0].sha), source.path)
        if first != source.path:
            left.append(LeftOut(source.side, source.path, "exact", f"of {shown(first)}"))
        else:
            kept += facts
    chosen = []
    for side in "AB":
        those = [facts for facts in kept if facts.side == side]
        order = sorted(range(len(those)), key=lambda i, those=those: -those[i].width * those[i].height)
        like = near_duplicates(Prints.of(those), order)
        for i, facts in enumerate(those):
            if i not in like:
                chosen.append(facts)
            else:
                left.append(LeftOut(side, facts.path, "near", f"of {shown(those[like[i]].path)}"))
    return chosen, left


def without_other_kinds(facts, left):
    """Leaves out the arrays (.npy, or more than 8 bits) of a side that has more 8-bit images, or the reverse: the first file
    would decide how all are read -> (list of Facts, list of LeftOut)"""
    for side in "AB":
        arrays, others = (
            [one for one in facts if one.side == side and (one.kind == "array") == is_array]
            for is_array in (True, False)
        )
        few = min(arrays, others, key=len) if len(arrays) != len(others) else []
        what = "an array" if few is arrays else "an 8-bit image"
        numbers = {id(one) for one in few}
        facts = [one for one in facts if id(one) not in numbers]
        left = left + [LeftOut(side, one.path, "kind", what) for one in few]
    return facts, left


def split(facts, seed, n_test=None):
    """Sets Facts.split of all images, near duplicates and frames of one clip to the same, also across A and B.

    n_test: number of test images of each side; None takes a tenth, at most MOST_TEST"""
    side = np.array([one.side == "B" for one in facts], int)
    prints, series = Prints.of(facts), series_of(facts)
    group = groups_of(prints, series)
    if 2 * np.bincount(group).max() > len(facts):  # pictures of one kind, such as drawn scenes, form chains
        group = groups_of(prints, series, NEAR)
    wanted = [min(round((side == s).sum() / 10), MOST_TEST) if n_test is None else n_test for s in (0, 1)]
    # at least half of the images are for training
    wanted = [min(number, int((side == s).sum()) // 2) for s, number in zip((0, 1), wanted)]
    for one, is_test in zip(facts, choose_test(group, side, wanted, seed)):
        one.split = "test" if is_test else "train"


##############################
#   Putting it together
##############################


def names_for(facts):
    """The names of images in the data set, different ones, without characters that cause trouble -> list. Subfolders are
    kept, as images of A and B of one name are pairs for some options."""
    names, taken, numbers = [], set(), {}
    for one in facts:
        extension = os.path.splitext(one.made)[1]
        *folders, file = os.path.splitext(one.name)[0].split(os.sep)
        # a folder that is called x.jpg would not be searched
        stem = "/".join([*(safe(folder).replace(".", "_") for folder in folders), safe(file)])
        name, key = stem + extension, (one.side, stem.lower())
        while (one.side, name.lower()) in taken:
            numbers[key] = numbers.get(key, 1) + 1
            name = f"{stem}_{numbers[key]}{extension}"
        taken.add((one.side, name.lower()))
        names.append(name)
    return names


def safe(name):
    """A part of a path, of letters, digits and a few signs, and not hidden. It is no name that results have."""
    name = UNSAFE.sub("_", name)[:LARGEST_NAME].strip(" .")
    while len(name.encode()) > 2 * LARGEST_NAME:
        name = name[:-1]
    name = re.sub("^-", "_", name) or "_"
    return re.sub("_(translated|features)$", r"-\1", name)


def put_together(unfinished, facts):
    """Builds the folder `set` from `images`, anew if an earlier run was killed here. Sets Facts.made to the names there,
    such as trainA/beach/1.jpg."""
    shutil.rmtree(unfinished.set, ignore_errors=True)
    for folder in ("trainA", "trainB"):
        os.makedirs(os.path.join(unfinished.set, folder))
    for one, name in zip(facts, names_for(facts)):
        made = f"{one.split}{one.side}/{name}"
        target = os.path.join(unfinished.set, made)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        source = os.path.join(unfinished.images, one.made)
        try:
            os.link(source, target)  # both are this program's own; `images` is deleted afterwards
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
        one.made = made


def finish(unfinished):
    """Makes the data set appear, complete, and removes the rest."""
    marker = os.path.join(unfinished.folder, "complete")
    open(marker, "w").close()
    try:
        os.rename(unfinished.set, unfinished.root)
    except OSError as error:
        os.remove(marker)
        raise InputError(f"{shown(unfinished.root)}: cannot be made ({error.strerror}). The same command tries again")
    shutil.rmtree(unfinished.folder, ignore_errors=True)


def check_new(root):
    """Raises InputError if the data set exists. Removes what a run that was killed at its very end has left."""
    if not os.path.lexists(root):
        return
    rest = f"{root}.unfinished"
    if os.path.isfile(os.path.join(rest, "complete")) and not os.path.exists(os.path.join(rest, "set")):
        shutil.rmtree(rest, ignore_errors=True)
    raise InputError(
        f"{shown(root)}: exists already, and is not changed. Choose another name, delete it, or look at it with --check"
    )


@contextlib.contextmanager
def unfinished_set(root, settings):
    """For a `with` block that makes the data set `root`: waits for another process that does so -> Unfinished.
    Raises InputError if the data set exists."""
    check_new(root)
    os.makedirs(os.path.dirname(root) or ".", exist_ok=True)
    with one_process(root):
        check_new(root)
        yield Unfinished(root, settings)
