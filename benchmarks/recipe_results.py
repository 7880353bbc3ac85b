"""
The table and the picture of benchmarks.recipes.
"""

import os
import statistics

import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from benchmarks.runs import mean_and_spread
from datasets import find_folder
from inference.load import load_generators
from measuring.images import from_uint8, stack_images, to_uint8
from media.folders import ImageFiles
from media.images import stem
from media.sheets import draw_sheet


def both(record, measure):
    """The mean of a measure over the directions that have it, or None if it was not measured"""
    values = [values[measure] for values in record["results"].values() if measure in values]
    return statistics.mean(values) if values else None


# further columns: (measure, title, digits); without a value for all runs, a column is left out
COLUMNS = [("paired_ssim", "SSIM", 3), ("paired_psnr", "PSNR", 2), ("paired_lpips", "LPIPS", 3), ("class_iou", "class IoU", 3),
           ("fid_test", "FID", 1), ("kid_test", "KID x 1000", 1), ("cycle_l1", "cycle L1", 1)]  # fmt: skip


def one_colour(opt, dataset):
    """L1 to the truth of a translation that always is the median colour of the training images, of A -> B and B -> A. It
    needs no network: a recipe that is not better has learned less than its L1 suggests."""
    root, size, found = os.path.join(opt.data_dir, dataset), (opt.size, opt.size), []
    for target in "BA":
        train, tests = (
            stack_images(ImageFiles(find_folder(root, mode, target)), size, 3).transpose(0, 1).flatten(1)
            for mode in ("train", "test")
        )
        levels = [channel.sort()[0][channel.numel() // 2].float() for channel in train]
        found.append(statistics.mean((c.float() - level).abs().mean().item() for c, level in zip(tests, levels)))
    return found


def table(dataset, recipes, records, colour=None):
    """Lines of a Markdown table with a row for each recipe.

    records: {name: [line of results.jsonl, one per seed]}
    colour:  as one_colour returns it, for a row of its own"""
    known = [record for found in records.values() for record in found]
    more = [(name, title, digits) for name, title, digits in COLUMNS if all(both(r, name) is not None for r in known)]
    titles = [f"L1 to the truth on {dataset}, A→B", "B→A", "mean", f"against {next(iter(recipes))}"]
    titles += [title for _, title, _ in more] + ["steps", "runs"]
    lines, first = [f"| recipe | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"], None
    for name in [name for name in recipes if records.get(name)]:
        found = records[name]
        means = [both(r, "paired_l1") for r in found]
        first = first or statistics.mean(means)
        cells = [mean_and_spread([r["results"][d]["paired_l1"] for r in found]) for d in ("AB", "BA")]
        cells += [mean_and_spread(means), f"{100 * (statistics.mean(means) / first - 1):+.1f}%"]
        cells += [f"{statistics.mean(both(r, measure) for r in found):.{digits}f}" for measure, _, digits in more]
        lines.append(f"| {name} | {' | '.join(cells)} | {found[0]['n_iters']} | {len(found)} |")
    if colour and first:
        mean = statistics.mean(colour)
        cells = [f"{colour[0]:.2f}", f"{colour[1]:.2f}", f"{mean:.2f}", f"{100 * (mean / first - 1):+.1f}%"]
        lines.append(f"| one colour | {' | '.join(cells)} |" + " |" * (len(titles) - len(cells)))
    return lines


@torch.no_grad()
def draw(opt, records, path, n=3):
    """Draws test images, their translations by each recipe, and the true answers.

    records: {data set: {name: [line of results.jsonl]}}"""
    rows, size = [], (opt.size, opt.size)
    for dataset, by_name in records.items():
        root = os.path.join(opt.data_dir, dataset)
        tests = [{stem(file): file for file in ImageFiles(find_folder(root, "test", domain))} for domain in "AB"]
        stems = sorted(tests[0].keys() & tests[1].keys())
        chosen = stems[:: max(1, len(stems) // n)][:n]
        images = [from_uint8(stack_images([files[s] for s in chosen], size, 3)) for files in tests]
        translations = {}
        for name, found in by_name.items():
            loaded = load_generators(f"saved_models/{found[0]['run_name']}/latest.pth")
            translations[name] = [loaded[d].network(x) for d, x in zip(("AB", "BA"), images)]
        for way in (0, 1):
            for i in range(len(chosen)):
                cells = [("input", images[way][i]), *((name, fakes[way][i]) for name, fakes in translations.items())]
                cells.append(("truth", images[1 - way][i]))
                rows.append([(caption, to_pil_image(to_uint8(image))) for caption, image in cells])
    width = max(map(len, rows))
    blank = "", Image.new("RGB", size, "white")
    draw_sheet(path, [row + [blank] * (width - len(row)) for row in rows], "input, translations, truth")
    print(path)
