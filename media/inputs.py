"""
Finds the files to translate: files, folders and glob patterns. targets.py decides where each result goes.
"""

import dataclasses
import glob
import os
import re
import shlex

from media.containers import AMBIGUOUS, VIDEO_EXTENSIONS, is_camera, is_mpeg
from media.images import IMAGE_EXTENSIONS
from utils import InputError

DOWNLOADS = {
    "s3": "aws s3 cp {} .",
    "gs": "gcloud storage cp {} .",
    **{name: "ffmpeg -i {} -t 60 -c copy clip.mkv" for name in ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt")},
}
RESULT = re.compile(r"(.+)_(translated(?:_\d+)?|features)\.[^.]+$")  # names that results have by default


def is_glob(path):
    return glob.has_magic(path) and not os.path.lexists(path)  # "holiday [1].jpg" may be a file's name


@dataclasses.dataclass
class Found:
    """The files that a list of inputs refers to.

    files:    list of (path, path relative to the folder or pattern that it was found by)
    notes:    one line on each kind of file that was skipped
    failures: one line on each folder that cannot be read
    """

    files: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)


def find_inputs(inputs, output):
    """Files, folders and glob patterns -> Found, without duplicates.

    output: folder for the results, which is not searched
    Raises InputError if an input does not exist, or if there is nothing to translate.
    """
    found = Found()
    for path in inputs:
        if os.path.isdir(path):
            search_folder(path, output, found)
        elif os.path.lexists(path):
            found.files.append((path, os.path.basename(path)))
        elif is_camera(path):
            found.files.append((path, "webcam.mp4"))
        elif is_glob(path):
            found.files += match_pattern(path, output)
        else:
            raise InputError(f"--input {path}: no such file or folder")
    if not found.files:
        raise InputError(f"--input {inputs[0]}: holds no images and no videos")
    # the same file may be named twice, in different ways
    found.files = list({(os.path.realpath(path), name): (path, name) for path, name in found.files}.values())
    return found


def check_path(path, option):
    """Raises InputError if a path is an address on a network, or "-" for standard input or output."""
    if os.path.lexists(path):
        return
    if path == "-":
        raise InputError(f"{option} -: only files can be read and written, not pipes. Name a file")
    if scheme := re.match(r"([a-z][a-z0-9+.-]+)://", path.lower()):
        if scheme[1] == "file":
            raise InputError(f"{option} {path}: name the file by its path, without file://")
        if option == "--output":
            raise InputError(
                f"{option} {path}: only local files can be written. Write to a folder here, then upload it"
            )
        how = DOWNLOADS.get(scheme[1], "curl -O {}").format(shlex.quote(path))
        raise InputError(f"{option} {path}: only local files can be read. Download it first: {how}")


def search_folder(folder, output, found):
    """Adds the images and videos in a folder and its subfolders, sorted, to `found`. Skips hidden files and folders."""
    extensions = IMAGE_EXTENSIONS + VIDEO_EXTENSIONS
    others = []

    def note_unreadable(error):
        found.failures.append(f"{error.filename}: {error.strerror}")

    for path, folders, names in os.walk(folder, onerror=note_unreadable):
        folders[:] = sorted(name for name in folders if is_visible(name) and not same(os.path.join(path, name), output))
        odd = [os.path.join(path, name) for name in folders if name.lower().endswith(extensions)]
        found.notes += [f"{name}: is a folder, despite its name" for name in odd]
        names, n_results = without_results(list(filter(is_visible, names)))
        if n_results:
            found.notes.append(f"{path}: left out {n_results} earlier results, named *_translated.* or *_features.*")
        for name in names:
            file = os.path.join(path, name)
            is_known = name.lower().endswith(extensions)
            if is_known and (not name.lower().endswith(AMBIGUOUS) or not os.path.isfile(file) or is_mpeg(file)):
                found.files.append((file, os.path.relpath(file, folder)))
            else:
                others.append(file)
    if others:
        count = "1 file that is" if len(others) == 1 else f"{len(others)} files that are"
        found.notes.append(f"{folder}: skipped {count} neither image nor video, such as {others[-1]}")


def without_results(names):
    """-> (the names of a folder without those of results whose input is there, too, sorted; number of those)"""
    stems = {os.path.splitext(name)[0] for name in names}
    kept = [name for name in sorted(names) if not ((match := RESULT.match(name)) and match[1] in stems)]
    return kept, len(names) - len(kept)


def match_pattern(pattern, output):
    """The files that match a glob pattern, outside of `output`, as in Found.files."""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise InputError(f"--input {pattern}: matches no file")
    base = pattern
    while glob.has_magic(base):
        base = os.path.dirname(base)
    output = os.path.join(os.path.realpath(output), "")
    return [
        (path, os.path.relpath(path, base or "."))
        for path in paths
        if os.path.isfile(path) and not os.path.realpath(path).startswith(output)
    ]


def is_visible(name):
    return not name.startswith(".")


def same(a, b):
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)
