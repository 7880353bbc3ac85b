"""
The report of prepare.py: one HTML file without scripts, which needs no network and no other file.
"""

import os

import numpy as np
from PIL import Image

from get_data.collecting import REASONS, shown
from get_data.judging import headline, is_squashed, n_images
from get_data.looking import BINS
from get_data.preparing import quiet_decoders
from get_data.seeing import see
from get_data.training_command import crop_of
from media.folders import evenly_spaced
from media.limits import PIXELS, decoding
from media.sheets import data_uri
from media.survey import covering
from utils import InputError, whole_file

ON_SHEET, COLUMNS, CELL = 24, 6, 116  # images on a contact sheet, in a row, and their side in pixels
CROPPED = 3  # images of each domain that are shown as training sees them
WIDTH, HEIGHT = 300, 110  # of a chart, in pixels


def write_report(path, name, facts, left, findings, command, size, file_of, only_looking=False):
    """Writes the report of a data set.

    facts, left, findings: lists of looking.Facts, collecting.LeftOut, judging.Finding
    command: to train on it
    size:    of training before the crop, in pixels
    file_of: function (Facts) -> path of an image to show
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # comes with torch

    folder = os.path.dirname(os.path.abspath(__file__))
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters["shown"] = shown
    with decoding(PIXELS), quiet_decoders():
        domains = [domain_of(side, facts, left, size, file_of) for side in "AB"]
    text = environment.get_template("report.html").render(
        name=name, headline=headline(findings), domains=domains, findings=findings, command=command, size=size,
        crop=crop_of(size), charts=charts_of(facts), left=grouped(left), n_left=len(left), only_looking=only_looking,
        legend=any(is_squashed(one) for one in facts),
    )  # fmt: skip
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def domain_of(side, facts, left, size, file_of):
    """What the report shows of a domain -> dict"""
    those = [one for one in facts if one.side == side]
    n_train, n_test = n_images(side, facts, left)
    return {
        "side": side,
        "n_train": n_train,
        "n_test": n_test,
        "n_left": sum(one.side == side for one in left),
        "sheet": contact_sheet(evenly_spaced(those, ON_SHEET), file_of),
        "crops": crops_of(examples(those), size, file_of),
    }


def grouped(left):
    """-> list of (reason in words, list of LeftOut)"""
    groups = [(text, [one for one in left if one.reason == reason]) for reason, text in REASONS.items()]
    return [(text, those) for text, those in groups if those]


def examples(facts):
    """CROPPED images; the last one is the widest or highest, if training would squash it much"""
    chosen = evenly_spaced(facts, CROPPED)
    longest = max(facts, key=lambda one: max(one.width, one.height) / min(one.width, one.height))
    if is_squashed(longest) and longest not in chosen:
        chosen = [*chosen[: CROPPED - 1], longest]
    return chosen


##############################
#   Pictures
##############################


def seen(path, size):
    """An image file as a person sees it -> PIL image, RGB; None if it is gone by now"""
    try:
        return see(path, size).image.convert("RGB")
    except InputError:
        return None


def contact_sheet(facts, file_of):
    """Small versions of images in rows -> the text of a JPEG"""
    rows = -(-max(1, len(facts)) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), (128, 128, 128))
    for i, one in enumerate(facts):
        if image := seen(file_of(one), CELL):
            image.thumbnail((CELL - 4, CELL - 4))
            left, top = i % COLUMNS * CELL, i // COLUMNS * CELL
            sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
    return data_uri(sheet)


def crops_of(facts, size, file_of):
    """Images as training sees them -> list of {"name", "whole", "squashed", "kept"}: a crop at the size of training, as by
    default, and with --keep_aspect. "kept" is None if that is about the same."""
    shown_crops, crop, rng = [], crop_of(size), np.random.default_rng(0)
    for one in facts:
        image = seen(file_of(one), size)
        if image is None:
            continue
        dice = rng.random(3)
        wide = covering((size, size), image.height, image.width)[::-1]
        whole = image.copy()
        whole.thumbnail((crop, crop))
        kept = (
            data_uri(crop_from(image.resize(wide, Image.Resampling.BICUBIC), crop, dice)) if is_squashed(one) else None
        )
        squashed = crop_from(image.resize((size, size), Image.Resampling.BICUBIC), crop, dice)
        shown_crops.append({"name": shown(one.name), "size": f"{one.width} x {one.height}", "whole": data_uri(whole),
                            "squashed": data_uri(squashed), "kept": kept})  # fmt: skip
    return shown_crops


def crop_from(image, crop, dice):
    """A crop at random, mirrored with probability 1/2, as datasets.ImageDataset does. dice: three numbers from 0 to 1"""
    top, left = int(dice[0] * (image.height - crop + 1)), int(dice[1] * (image.width - crop + 1))
    image = image.crop((left, top, left + crop, top + crop))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if dice[2] < 0.5 else image


##############################
#   Charts
##############################


def charts_of(facts):
    """-> list of {"title", "low", "high", "unit", "A", "B"}; A and B are the points of a line over the bars, in pixels"""
    both = {side: [one for one in facts if one.side == side] for side in "AB"}
    charts = [
        chart(
            "shorter side of the originals", "pixels", both, lambda one: min(one.width, one.height), logarithmic=True
        ),
        chart("width / height", "", both, lambda one: one.width / one.height, logarithmic=True),
    ]
    for i, title in enumerate(("brightness", "red", "green", "blue")):
        shares = {}
        for side, those in both.items():
            levels = [np.frombuffer(one.levels, "<u2").reshape(4, BINS)[i] for one in those]
            shares[side] = np.mean(levels, axis=0) if levels else np.zeros(BINS)
        charts.append(drawn(title, "0", "255", "", shares))
    return charts


def chart(title, unit, both, number_of, logarithmic=False):
    """A histogram of a number for each image"""
    numbers = {side: np.array([number_of(one) for one in those], float) for side, those in both.items()}
    everything = np.concatenate(list(numbers.values()))
    if not len(everything):
        everything = np.ones(1)
    low, high = everything.min(), everything.max()
    if high < 1.2 * low:  # a single size would fill the chart
        low, high = low / 1.2, high * 1.2
    scale = np.log if logarithmic else np.asarray
    edges = np.linspace(scale(low), scale(high), BINS + 1)
    shares = {}
    for side, values in numbers.items():
        counts, _ = np.histogram(scale(values).clip(edges[0], edges[-1]), edges)
        shares[side] = counts / max(1, counts.sum())
    return drawn(title, f"{low:.3g}" if high < 100 else f"{low:.0f}", f"{high:.3g}" if high < 100 else f"{high:.0f}", unit,
                 shares)  # fmt: skip


def drawn(title, low, high, unit, shares):
    """shares: {side: the height of each bar}"""
    top = max(1e-9, *(values.max() for values in shares.values()))
    lines = {}
    for side, values in shares.items():
        points = [(0.0, HEIGHT)]
        for i, value in enumerate(values):
            y = HEIGHT * (1 - value / top * 0.95)
            points += [(WIDTH * i / len(values), y), (WIDTH * (i + 1) / len(values), y)]
        points.append((WIDTH, HEIGHT))
        lines[side] = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return {"title": title, "low": low, "high": high, "unit": unit, **lines}
