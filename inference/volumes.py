"""
Translating volumes with generators of --dims 3 and --slices: from one file to another of the same format, type, header and
range of values. Volumes of more than tile^2 voxels go through 3-D networks block by block, see bands.py.
"""

import glob
import os

import numpy as np
import torch

from inference.ranges import integer_type
from inference.translator import pad_to_multiple
from media.inputs import check_path, is_glob
from media.targets import Plan, check_targets
from media.volume_files import EXTENSIONS, extension_of, open_volume, split_extension, write_volume
from media.volumes import VolumeFiles, unit_values
from utils import InputError
from variants.volumes import by_slices

# Options of translate.py that are for images alone, with the values that switch them off
FOR_IMAGES = dict(size=None, keep_size=False, mask=None, n_samples=None, smooth=0.0, features=False, format=None)


def check_generators(opt, trained):
    """Raises InputError for options of translate.py, and for generators, that cannot be used with volumes."""
    for name, off in FOR_IMAGES.items():
        if getattr(opt, name) != off:
            raise InputError(f"--{name}: is for images, and {trained[0].path} translates volumes. Omit the option")
    kinds = {(getattr(one.network, "dims", 2), getattr(one.network, "slices", 0)) for one in trained}
    if len(kinds) > 1:
        raise InputError("--mix: the two generators differ in --dims or --slices")


##############################
#   Files
##############################


def plan_volumes(inputs, output=None, resume=False, overwrite=False):
    """Decides which files to translate and where to write them -> media.targets.Plan, of the same rules: NAME_translated
    beside a single input, else a folder. A result has the format of its input. Raises InputError."""
    for path in inputs:
        check_path(path, "--input")
    is_one_file = len(inputs) == 1 and os.path.isfile(inputs[0])
    found = {}  # path -> path relative to the input that it was found by
    for path in inputs:
        if os.path.isdir(path):
            found |= {file: os.path.relpath(file, path) for file in VolumeFiles(path)}
        else:
            matches = sorted(glob.glob(path, recursive=True)) if is_glob(path) else [path]
            found |= {file: os.path.basename(file) for file in matches}
    for path in found:
        if not os.path.isfile(path):
            raise InputError(f"--input {path}: no such file or folder")
        if extension_of(path) is None:
            raise InputError(f"--input {path}: not a volume. Expected {', '.join(EXTENSIONS)}")
    if not found:
        raise InputError(f"--input {inputs[0]}: holds no volumes ({', '.join(EXTENSIONS)})")
    if output is None:
        stem, extension = split_extension(os.path.abspath(inputs[0]))
        one = os.path.relpath(stem + "_translated" + (extension if is_one_file else ""))
        output = one if len(inputs) == 1 and not is_glob(inputs[0]) else "translated"
    check_path(output, "--output")
    if extension_of(output) and not os.path.isdir(output):
        if not is_one_file:
            raise InputError(f"--output {output}: is one file, but there are several inputs. Name a folder")
        targets = {output: inputs[0]}
    else:
        targets = {}
        for path, name in found.items():
            other = targets.setdefault(os.path.join(output, name), path)
            if other != path:
                raise InputError(
                    f"{other} and {path} would both be written to {output}/{name}. Translate them one by one"
                )
    for target, source in targets.items():
        kinds = [(extension_of(path) or "").removesuffix(".gz").replace(".tiff", ".tif") for path in (target, source)]
        if kinds[0] != kinds[1]:
            raise InputError(f"{target}: a result has the format of its input, {extension_of(source)}")
    existing = [target for target in targets if os.path.lexists(target)]
    check_targets(targets, existing if not resume and not overwrite else [], output)
    jobs = [(source, target) for target, source in targets.items() if not (resume and target in existing)]
    return Plan(jobs, output, len(targets) - len(jobs), [], [])


def translate_file(source, target, translator):
    """Translates one file -> list of notes for the user. Raises InputError.

    translator: inference.translator.Translator of one or two generators of volumes"""
    range_in, range_out = translator.ranges
    G = translator.generators[0]
    volume, x = read_volume(source, 1 if getattr(G, "slices", 0) else G.channels, range_in)
    fake = translate_volume(translator, x, volume.dtype)
    del x
    stored, slope, inter, notes = to_stored(fake[0].permute(1, 2, 3, 0), volume, range_out)
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    write_volume(target, volume, stored, slope, inter)
    return [f"{target}: {note}" for note in notes]


def read_volume(path, channels, value_range):
    """-> (media.volume_files.Volume, float32 (1, channels, D, H, W) in [-1, 1]). Raises InputError."""
    volume = open_volume(path, channels)
    return volume, torch.from_numpy(unit_values(volume, value_range)).permute(3, 0, 1, 2)[None].mul_(2).sub_(1)


@torch.no_grad()
def translate_volume(translator, x, dtype=np.float32):
    """Translates a volume with a Translator, whose `mix`, `strength`, `tile` and `amp` count.

    x:     float32 (1, channels, D, H, W) in [-1, 1], of any size
    dtype: of the file, which decides on bfloat16 as for images
    -> float32 (1, out_channels, D, H, W), on the CPU
    """
    G, sides = translator.generators[0], x.shape[2:]
    n_slices = getattr(G, "slices", 0)
    dims = (3, 4) if n_slices else (2, 3, 4)
    padded = pad_to_multiple(x, translator.multiple, translator.smallest, dims).to(translator.device)
    generators, precision = translator.generators_for(np.empty(0, dtype))
    fake = 0
    for share, generator in zip(translator.shares, generators):

        def translate(part, generator=generator):
            return translator.generate_one(generator, part.to(precision)).float()

        if n_slices:
            one = by_slices(translate, padded, n_slices, translator.batch_for(*padded.shape[3:]))
        else:
            one = translate(padded)
        fake = one if share == 1 else fake + share * one
    fake = fake[:, :, : sides[0], : sides[1], : sides[2]].cpu()
    return torch.lerp(x, fake, translator.strength) if translator.strength < 1 else fake


def to_stored(fake, volume, value_range):
    """A translation as it is written -> (array (D, H, W, channels), slope, inter, list of notes)

    fake:        (D, H, W, channels), -1 and 1 stand for the ends of the range
    volume:      the Volume that was translated; the result has its type, slope and inter if they can hold the range
    value_range: (low, high), or None for the whole range of the type"""
    dtype, slope, inter, notes = volume.dtype, volume.slope, volume.inter, []
    is_integer = dtype.kind in "iu"
    if value_range is None:
        top = 1
        if is_integer and (slope, inter) == (1, 0):
            top = np.iinfo(dtype).max if dtype.itemsize <= 2 else 65535  # as media.arrays.largest
        value_range = (0, top)
    elif is_integer and not holds(dtype, value_range, slope, inter):
        dtype, slope, inter = np.dtype(integer_type(value_range) or np.float32), 1.0, 0.0
        is_integer = dtype.kind in "iu"
        notes.append(
            f"written as {dtype}, because {volume.dtype} does not hold values from {value_range[0]:g} to {value_range[1]:g}"
        )
    low, high = value_range
    stored = np.empty(fake.shape, dtype)
    for z, part in enumerate(fake):  # slice by slice, in float64
        values = low + (part.double().numpy().clip(-1, 1) + 1) / 2 * (high - low)
        values = (values - inter) / slope
        stored[z] = values.round() if is_integer else values
    return stored, slope, inter, notes


def holds(dtype, value_range, slope, inter):
    """Whether integers of a type, by slope and inter, can hold the values of a range in at least 256 steps, or one of
    fewer integers."""
    ends = sorted((value - inter) / slope for value in value_range)
    fine = ends[1] - ends[0] >= 255 or all(float(end).is_integer() for end in ends)
    return fine and np.iinfo(dtype).min <= ends[0] and ends[1] <= np.iinfo(dtype).max
