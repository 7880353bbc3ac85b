"""
The command that trains on a data set, by what was found in it.
"""

import shlex
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

SMALLEST_CROP = 32  # pixels


def crop_of(size):
    """The size of training crops for images of a given shorter side, in the ratio of the paper: 286 -> 256"""
    return max(SMALLEST_CROP, round(size * 256 / 286) // 4 * 4)


def training_command(facts, findings, name, data_dir, size, preset=None):
    """-> the command that trains on a data set. preset: "laptop" for a machine without a GPU, else the paper's networks"""
    words = ["python", "cyclegan.py", "--dataset_name", name]
    if data_dir != "data":
        words += ["--data_dir", data_dir]
    crop = crop_of(size)
    if preset:
        words += ["--preset", preset]
        words += ["--img_height", str(crop), "--img_width", str(crop)] if crop < 128 else []
    elif crop != 256:
        words += ["--img_height", str(crop), "--img_width", str(crop)]
        words += ["--n_residual_blocks", "6"] if crop <= 128 else []
    if any(finding.kind == "shape" for finding in findings):
        words.append("--keep_aspect")
    words += channel_words(facts)
    return shlex.join(words)


def channel_words(facts):
    """The options on channels and ranges of values"""
    if facts and all(one.kind == "gray" for one in facts):
        return ["--channels", "1"]
    words = []
    for side in "AB":
        arrays = [one for one in facts if one.side == side and one.kind == "array"]
        if not arrays:
            continue
        if arrays[0].channels != 3:
            words += [f"--channels_{side}", str(arrays[0].channels)]
        low, high = min(one.values[0] for one in arrays), max(one.values[1] for one in arrays)
        if low < 0 or high > max(one.values[2] for one in arrays):
            words += [f"--range_{side}", short(low, ROUND_FLOOR), short(high, ROUND_CEILING)]
    return words


def short(value, rounding):
    """A number as text, rounded to 6 digits in a direction of the module decimal"""
    return f"{float(Context(prec=6, rounding=rounding).create_decimal(repr(value))):g}"
