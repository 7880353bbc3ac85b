"""
Decides which files to translate, and where the result of each goes, so that no existing file is overwritten by accident.
"""

import dataclasses
import itertools
import os
import re

from media.containers import WRITABLE, holds_video, is_camera, is_video
from media.images import IMAGE_EXTENSIONS
from media.inputs import check_path, find_inputs, is_glob
from media.picture_writer import format_of
from utils import InputError


@dataclasses.dataclass
class Plan:
    """Files to translate, and where to write the results.

    jobs:            list of (source, target)
    output:          the file or folder that all results go to
    n_skipped:       number of targets that already exist, which `jobs` omits
    notes, failures: as in Found
    numbers:         {target: number of the sample, from 1}; {} for one translation of each file
    """

    jobs: list
    output: str
    n_skipped: int
    notes: list
    failures: list
    numbers: dict = dataclasses.field(default_factory=dict)

    def rounds(self):
        """-> list of (number of the sample or None, its jobs)"""
        numbers = sorted({*self.numbers.values()}) or [None]
        return [(n, [job for job in self.jobs if self.numbers.get(job[1]) == n]) for n in numbers]


def plan_jobs(inputs, *, output=None, format=None, features=False, resume=False, overwrite=False, n_samples=None):
    """Decides which files to translate and where to write them -> Plan. Writes nothing.

    inputs:    files, folders and glob patterns
    output:    file or folder; None derives a name from the input
    format:    extension of the images to write, such as "png"; None keeps the format of each input
    features:  True if the results are sheets of feature maps, not translations
    resume:    skip targets that exist
    overwrite: accept targets that exist
    n_samples: number of results of each file, NAME_1.png and so on; None for one, without a number
    Raises InputError if the request is contradictory, or would replace a file unasked.
    """
    for path in inputs:
        check_path(path, "--input")
    if len(inputs) > 1 and any(map(is_camera, inputs)):
        raise InputError("--input webcam: cannot be combined with other inputs")
    if output is not None:
        check_path(output, "--output")
    is_one_file = len(inputs) == 1 and not os.path.isdir(inputs[0]) and not is_glob(inputs[0])
    moved = None
    if output is None:
        output = default_output(inputs, is_one_file, format, features)
        if data_folder := is_one_file and folder_of_data(output):
            output = os.path.basename(output)
            first = next(iter(with_numbers({output: None}, n_samples)[0]))
            moved = f"the result is written to {first}, because {data_folder} is a folder of a data set"
    names_file = bool(format_of(output) or is_video(output)) and not os.path.isdir(output)
    if not names_file and output.lower().endswith(IMAGE_EXTENSIONS) and not os.path.isdir(output):
        raise InputError(f"--output {output}: this format cannot be written. Use .png, .jpg, .webp or .tif")
    if not is_one_file and (names_file or os.path.isfile(output) or is_video(output)):
        raise InputError(f"--output {output}: is one file, but there are several inputs. Name a folder")

    found = find_inputs(inputs, output)
    found.notes += [moved] if moved else []
    if data_folder := not moved and folder_of_data(os.path.join(output, "x")):
        found.notes.append(f"the results are in {data_folder}, so training and evaluation take them for data")
    if is_one_file and names_file:
        wanted = [output]
    else:
        # a sheet is an image, not an array
        kinds = ["png" if features and name.lower().endswith(".npy") else format for _, name in found.files]
        names = [target_name(name, kind, holds_video(path)) for (path, name), kind in zip(found.files, kinds)]
        wanted = [os.path.join(output, name) for name in names]
    for (source, _), target in zip(found.files, wanted):
        check_job(source, target, output, features)
    targets, numbers = with_numbers(distinct_targets(found.files, wanted, found.notes), n_samples)
    existing = [target for target in targets if os.path.lexists(target)]
    check_targets(targets, existing if not resume and not overwrite else [], output)
    skipped = set(existing if resume else ())
    jobs = [(source, target) for target, source in targets.items() if target not in skipped]
    if numbers and is_one_file and names_file:
        output = " to ".join(dict.fromkeys((next(iter(numbers)), next(reversed(numbers)))))
    return Plan(jobs, output, len(skipped), found.notes, found.failures, numbers)


def check_targets(targets, existing, output):
    """Raises InputError if a target is also an input, or if there are targets in the list `existing`."""
    sources = {os.path.realpath(source) for source in targets.values()}
    for target in targets:
        if os.path.realpath(target) in sources:
            raise InputError(f"--output {output}: {target} is itself an input. Name another folder")
    if existing:
        n_more = len(existing) - 1
        more = f", and so {'do' if n_more > 1 else 'does'} {n_more} more" if n_more else ""
        raise InputError(
            f"{existing[0]}: already exists{more}. --resume skips existing files, --overwrite replaces them"
        )


def default_output(inputs, is_one_file, format, features):
    """photo.jpg -> photo_translated.jpg; holiday/ -> holiday_translated; several inputs -> translated. For features,
    *_features.png, *_features and features."""
    suffix = "_features" if features else "_translated"
    if is_one_file:
        stem, extension = os.path.splitext("webcam.mp4" if is_camera(inputs[0]) else inputs[0])
        return stem + (suffix + ".png" if features else target_name(suffix + extension, format, holds_video(inputs[0])))
    if len(inputs) == 1 and os.path.isdir(inputs[0]):
        return os.path.relpath(os.path.abspath(inputs[0]) + suffix)  # abspath gives "." a name, too
    return suffix[1:]


def with_numbers(targets, n_samples):
    """{target: source} -> ({numbered target: source}, {numbered target: number}), sample by sample: x_1.png, y_1.png, x_2.png
    and so on. (targets, {}) without n_samples"""
    if not n_samples:
        return targets, {}
    found, numbers = {}, {}
    for number in range(1, n_samples + 1):
        for target, source in targets.items():
            stem, extension = os.path.splitext(target)
            target = f"{stem}_{number}{extension}"
            found[target], numbers[target] = source, number
    return found, numbers


def folder_of_data(path):
    """The folder of a data set that a file is in, which training and evaluation read: trainA, testB or the like, or A or
    B in train, test or val. None if there is none."""
    folder = os.path.dirname(os.path.abspath(path))
    while folder != os.path.dirname(folder):
        parent, name = os.path.split(folder)
        if re.fullmatch("(train|test|val)[AB]", name) or (
            name in ("A", "B") and os.path.basename(parent) in ("train", "test", "val")
        ):
            return os.path.relpath(folder)
        folder = parent
    return None


def target_name(name, format, video):
    """A file's name, with an extension that can be written: its own if possible, else .mp4 for a video; for an image,
    `format` if given, else its own, else .png."""
    stem, extension = os.path.splitext(name)
    if video:
        return name if extension.lower() in WRITABLE else stem + ".mp4"
    if format or not format_of(name):
        return f"{stem}.{(format or 'png').lower()}"
    return name


def check_job(source, target, output, features):
    """Raises InputError if a source cannot be written to its target."""
    if features and holds_video(source):
        raise InputError(f"--features: {source} is a video, not an image")
    if holds_video(source) and not is_video(target):
        raise InputError(
            f"--output {output}: is an image's name, but {source} is a video. Use one of {', '.join(WRITABLE)}"
        )


def distinct_targets(files, wanted, notes):
    """Gives each file a target of its own -> {target: source}, in the order of `files`.

    files:  list of (source, name), as in Found
    wanted: the target of each. Of those that are the same, up to upper and lower case, one keeps it: the file that has
            this name already, or else the first one. Others get their extension into the name, such as x_dds.png
    notes:  a line on renamed files is appended here
    Raises InputError if two sources have the same name, too.
    """
    keys = [fold(target) for target in wanted]
    names = [os.path.basename(name) for _, name in files]
    owner = {}  # folded target -> number of the file that keeps it
    for i in sorted(range(len(files)), key=lambda i: names[i] != os.path.basename(wanted[i])):
        other = owner.setdefault(keys[i], i)
        if other != i and files[other][1] == files[i][1]:
            first, second = files[min(i, other)][0], files[max(i, other)][0]
            raise InputError(
                f"{first} and {second} would both be written to {wanted[i]}. Translate their folders one by one, each "
                "to an --output of its own"
            )
    taken = owner.keys() | {fold(source) for source, _ in files}
    targets, renamed = {}, []
    for i, (source, name) in enumerate(files):
        target = wanted[i]
        if owner[keys[i]] != i:
            (stem, extension), own = os.path.splitext(target), os.path.splitext(name)[1][1:]
            numbers = itertools.chain([""], (f"_{n}" for n in itertools.count(2)))
            candidates = (f"{stem}_{own}{number}{extension}" for number in numbers)
            target = next(path for path in candidates if fold(path) not in taken)
            taken.add(fold(target))
            renamed.append(f"{source} is written to {target}")
        targets[target] = source
    if renamed:
        more = f", and {len(renamed) - 1} more likewise" if len(renamed) > 1 else ""
        notes.append(f"{renamed[0]}{more}, because another file's result has the plain name")
    return targets


def fold(path):
    """The same string for paths that are the same file where upper and lower case are not distinguished."""
    return os.path.normpath(path).casefold()
