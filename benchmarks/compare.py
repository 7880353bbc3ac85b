"""
Trains every network and every loss on the demo data set, for the same number of steps and from the same seed. Prints a
table of the results and draws a sheet of translations.

    python -m benchmarks.compare                                    # all variants, 1.5 hours on two CPU cores
    python -m benchmarks.compare --only unet hinge --n_epochs 6     # two variants and the default, for longer
    python -m benchmarks.compare --costs                            # parameters and multiply-adds only, no training

Finished runs are stored in saved_models/compare/results.jsonl and are not repeated. docs/variants.md discusses the
results.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import to_pil_image

import cyclegan
from benchmarks.runs import read_results
from command_line.parser import argument_parser, between
from command_line.run import run_script
from get_data.demo import draw_scene, score, write_demo
from inference.load import load_generators
from measuring.images import from_uint8, to_uint8
from measuring.timing import costs
from media.files import save_file
from media.images import load_image
from media.sheets import draw_sheet
from variants.build import make_discriminator, make_generator

FOLDER = "saved_models/compare"
PAIRS = f"{FOLDER}/pairs.txt"  # 30 scenes that are drawn with both animals
RESNET, VGG = f"{FOLDER}/resnet18_random.pth", f"{FOLDER}/vgg16_random.pth"  # random weights, no download

# name: options of cyclegan.py. Demo images have 64 x 64 pixels, so some networks are shallower than by default
VARIANTS = {
    "default": "",
    "default, seed 1": "--seed 1",
    "default, seed 2": "--seed 2",
    "unet": "--generator unet --num_downs 6",
    "multiscale G": "--generator multiscale",
    "pretrained": f"--generator pretrained --encoder_weights {RESNET}",
    "batch norm": "--norm batch",
    "no norm": "--norm none",
    "attention": "--attention",
    "separable": "--separable",
    "dropout": "--dropout 0.5",
    "multiscale D": "--discriminator multiscale --n_scales 2",
    "pixel D": "--discriminator pixel",
    "spectral norm": "--spectral_norm",
    "vanilla": "--gan_loss vanilla",
    "hinge": "--gan_loss hinge",
    "hinge, spectral norm": "--gan_loss hinge --spectral_norm",
    "label smoothing": "--label_smoothing 0.1",
    "ssim": "--lambda_ssim 1",
    "freq": "--lambda_freq 5",
    "perceptual": f"--lambda_perceptual 1 --vgg_weights {VGG}",
    "style": "--lambda_style 1",
    "feat": "--lambda_feat 1",
    "paired": f"--lambda_paired 10 --pairs {PAIRS}",
    "ema": "--ema",
    "diffaugment": "--diffaugment",
}


def get_parser():
    parser = argument_parser("Compare networks and losses on the demo.", "python -m benchmarks.compare [options]")
    add = parser.add_argument
    # fmt: off
    add("--only", nargs="+", choices=VARIANTS, metavar="NAME",
        help="variants to train besides the default (default: all): " + " | ".join(VARIANTS))
    add("--n_epochs", type=between(1, 1000), default=3, help="epochs of 300 steps")
    add("--costs", action="store_true", help="print parameters and multiply-adds at 256 x 256 without training")
    add("--sheet", default="images/compare.jpg", help="output file for the translations")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    # fmt: on
    return parser


##############################
#         Costs
##############################

GENERATORS = {
    "`--generator resnet` (default)": {},
    "`--n_residual_blocks 6`": {"n_residual_blocks": 6},
    "`--upsample nearest`": {"upsample": "nearest"},
    "`--generator unet`": {"generator": "unet"},
    "`--generator multiscale`": {"generator": "multiscale"},
    "`--generator pretrained`": {"generator": "pretrained"},
    "`--norm batch`": {"norm": "batch"},
    "`--attention`": {"attention": True},
    "`--separable`": {"separable": True},
}
DISCRIMINATORS = {
    "`--discriminator patch` (default)": {},
    "`--discriminator multiscale`": {"discriminator": "multiscale"},
    "`--discriminator pixel`": {"discriminator": "pixel"},
}


def costs_table():
    """Formats the size and cost of all networks as lines of a Markdown table."""
    lines = ["| one network | parameters | multiply-adds at 256×256 |", "|---|---|---|"]
    for name, options in GENERATORS.items():
        parameters, products = costs(make_generator(options, 3, 3), (256, 256))
        lines.append(f"| {name} | {parameters / 1e6:.2f} M | {products / 1e9:.1f} G |")
    for name, options in DISCRIMINATORS.items():
        parameters, products = costs(make_discriminator(options, 3), (256, 256))
        lines.append(f"| {name} | {parameters / 1e6:.3g} M | {products / 1e9:.2g} G |")
    return lines


##############################
#         Runs
##############################


def prepare_files():
    """Creates what some variants need besides the demo: scenes drawn with both animals, and random weights."""
    os.makedirs(FOLDER, exist_ok=True)
    if not os.path.exists(RESNET):
        torch.manual_seed(0)
        save_file(torchvision.models.resnet18().state_dict(), RESNET)
    if not os.path.exists(VGG):
        torch.manual_seed(0)
        weights = {k: v for k, v in torchvision.models.vgg16().state_dict().items() if k.startswith("features")}
        save_file(weights, VGG)
    if not os.path.exists("data/demo"):
        write_demo("data/demo")
    with_pairs = "data/with_pairs/demo"  # also named demo, because cyclegan.py has other defaults for that name
    if not os.path.exists(with_pairs):
        shutil.copytree("data/demo", with_pairs + ".part", dirs_exist_ok=True)
        for i in range(30):
            horse, zebra, _ = draw_scene(np.random.default_rng((3, i)))
            horse.save(f"{with_pairs}.part/trainA/both_{i}.png")
            zebra.save(f"{with_pairs}.part/trainB/both_{i}.png")
        os.rename(with_pairs + ".part", with_pairs)
    with open(PAIRS, "w") as file:
        file.writelines(f"both_{i}.png\tboth_{i}.png\n" for i in range(30))


def run_name(name, n_epochs):
    """Returns the name of a variant's run in saved_models."""
    return f"compare_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{n_epochs}"


def train_variant(name, n_epochs, device=None):
    """Trains one variant with cyclegan.py -> a dict, the line for results.jsonl. On failure it contains "error".

    device: as for cyclegan.py --device
    """
    run, data_dir = run_name(name, n_epochs), "data/with_pairs" if name == "paired" else "data"
    command = [sys.executable, cyclegan.__file__, *VARIANTS[name].split(), "--data_dir", data_dir, "--run_name", run]
    command += f"--n_epochs {n_epochs} --decay_epoch {n_epochs // 3} --sample_interval 300".split()
    command += ["--device", device] if device else []
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        return {"name": name, "n_epochs": n_epochs, "error": done.stdout.strip().splitlines()[-1]}
    generators = trained_generators(run)
    with torch.no_grad():
        shares = score(generators["AB"], generators["BA"], "data/demo", torch.device("cpu"))
    return {
        "name": name, "options": VARIANTS[name], "n_epochs": n_epochs, "seconds": round(time.monotonic() - started),
        "AB": shares["A->B"]["translated"], "BA": shares["B->A"]["translated"], "cycle": last_cycle_loss(run),
        "parameters_G": sum(p.numel() for p in generators["AB"].parameters()),
    }  # fmt: skip


def trained_generators(run):
    """Loads the generators of a run -> {"AB": G_AB, "BA": G_BA}."""
    return {d: found.network for d, found in load_generators(f"saved_models/{run}/latest.pth").items()}


def last_cycle_loss(run):
    """Returns the mean cycle loss of the last 100 steps of a run."""
    with open(f"saved_models/{run}/log.jsonl") as file:
        records = [record for record in map(json.loads, file) if "loss_G" in record]
    last = [record for record in records if record["step"] > records[-1]["step"] - 100]
    return sum(record["loss_cycle"] for record in last) / len(last)


def finished_runs(log):
    """Reads results.jsonl -> {(name, n_epochs): result} of the runs that succeeded."""
    return {(r["name"], r["n_epochs"]): r for r in read_results(log) if "error" not in r}


##############################
#        Results
##############################


def results_table(results):
    """Formats results as lines of a Markdown table."""
    lines = [
        "| variant | options | A→B animal, background | B→A animal, background | cycle loss | parameters of G |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        if "error" in r:
            lines.append(f"| {r['name']} | `{VARIANTS[r['name']]}` | {r['error']} | | | |")
            continue
        options = re.sub(r" --(encoder_weights|vgg_weights|pairs) \S+", "", r["options"])
        lines.append(
            f"| {r['name']} | {f'`{options}`' if options else ''} | {r['AB'][0]:.2f}, {r['AB'][1]:.2f} "
            f"| {r['BA'][0]:.2f}, {r['BA'][1]:.2f} | {r['cycle']:.3f} | {r['parameters_G'] / 1e6:.2f} M |"
        )
    return lines


def draw_translations(results, path):
    """Draws a sheet with one cell per variant: a horse translated to a zebra, and a zebra translated to a horse."""
    pixels = [torch.from_numpy(load_image(f"data/demo/test{domain}/0000.png")) for domain in "AB"]
    images = [from_uint8(image).permute(2, 0, 1)[None].contiguous() for image in pixels]

    def cell(caption, pair):
        return caption, to_pil_image(to_uint8(torch.cat(pair, 3))[0])

    cells = [cell("input", images)]
    for r in results:
        if "error" not in r:
            generators = trained_generators(run_name(r["name"], r["n_epochs"]))
            with torch.no_grad():
                cells.append(cell(r["name"], [generators[d](x).float() for d, x in zip(("AB", "BA"), images)]))
    rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    blank = "", Image.new("RGB", cells[0][1].size, "white")
    rows[-1] += [blank] * (4 - len(rows[-1]))
    draw_sheet(path, rows, "horse to zebra and zebra to horse, after the same number of steps", "JPEG")
    print(path)


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if opt.costs:
        print("\n".join(costs_table()))
        return
    prepare_files()
    log, results = f"{FOLDER}/results.jsonl", []
    done = finished_runs(log)
    for name in dict.fromkeys(["default", *(opt.only or VARIANTS)]):
        if (name, opt.n_epochs) not in done:
            print(f"{name}: cyclegan.py {VARIANTS[name]}", flush=True)
            result = train_variant(name, opt.n_epochs, opt.device)
            with open(log, "a") as file:
                file.write(json.dumps(result) + "\n")
            done[name, opt.n_epochs] = result
        results.append(done[name, opt.n_epochs])
    print("\n".join(results_table(results)))
    draw_translations(results, opt.sheet)
    return 1 if any("error" in r for r in results) else 0


if __name__ == "__main__":
    run_script(main)
