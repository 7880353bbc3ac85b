"""
Trains CycleGAN with each network and each loss on the demo, for the same number of steps from the same seed, and shows
what each one brings: a table and a sheet of pictures.

    python -m benchmarks.compare                                    # all of them, about an hour and a half on two cores
    python -m benchmarks.compare --only unet hinge --n_epochs 6     # two, for longer, beside the default
    python -m benchmarks.compare --costs                            # parameters and multiply-adds alone, trains nothing

What has been trained already, and stands in saved_models/compare/results.jsonl, is not trained again. docs/variants.md
says what came of it.
"""

import argparse
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
from command_line.parser import between
from command_line.run import run_script
from datasets import to_float
from get_data.demo import draw_scene, score, write_demo
from inference.load import load_generators
from measuring.timing import costs
from media.files import save_file
from media.images import load_image
from media.sheets import draw_sheet
from variants.build import make_discriminator, make_generator

FOLDER = "saved_models/compare"
PAIRS = f"{FOLDER}/pairs.txt"  # of 30 scenes that are drawn with both animals
RESNET, VGG = f"{FOLDER}/resnet18_random.pth", f"{FOLDER}/vgg16_random.pth"  # where those of ImageNet are not at hand

# name -> options of cyclegan.py. The demo has 64 x 64 pixels, so some networks are less deep than by default
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
    parser = argparse.ArgumentParser(description="Compare networks and losses on the demo. In brackets: the default.")
    add = parser.add_argument
    # fmt: off
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME",
        help="beside the default: " + " | ".join(VARIANTS))
    add("--n_epochs", type=between(1, 1000), default=3, help="epochs of 300 steps (%(default)s)")
    add("--costs", action="store_true", help="print parameters and multiply-adds at 256 x 256, and train nothing")
    add("--sheet", default="images/compare.jpg", help="where the pictures go (%(default)s)")
    add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
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


def prepare():
    """What some variants need beside the demo: scenes drawn with both animals, networks of random weights."""
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
    with_pairs = "data/with_pairs/demo"  # the data set's name decides about the options, so it has the same one
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
    return f"compare_{re.sub(r'[^a-z0-9]+', '_', name.lower())}_{n_epochs}"


def train(name, opt):
    """One run of cyclegan.py and its score -> dict."""
    run, data_dir = run_name(name, opt.n_epochs), "data/with_pairs" if name == "paired" else "data"
    script = cyclegan.__file__
    command = [sys.executable, script, *VARIANTS[name].split(), "--data_dir", data_dir, "--run_name", run]
    command += f"--n_epochs {opt.n_epochs} --decay_epoch {opt.n_epochs // 3} --sample_interval 300".split()
    command += ["--device", opt.device] if opt.device else []
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        return {"name": name, "n_epochs": opt.n_epochs, "error": done.stdout.strip().splitlines()[-1]}
    generators = {d: g.network for d, g in load_generators(f"saved_models/{run}/latest.pth").items()}
    with torch.no_grad():
        shares = score(generators["AB"], generators["BA"], "data/demo", torch.device("cpu"))
    with open(f"saved_models/{run}/log.jsonl") as file:
        records = [record for record in map(json.loads, file) if "loss_G" in record]
    last = [record for record in records if record["step"] > records[-1]["step"] - 100]
    return {
        "name": name, "options": VARIANTS[name], "n_epochs": opt.n_epochs, "seconds": round(time.monotonic() - started),
        "AB": shares["A->B"]["translated"], "BA": shares["B->A"]["translated"],
        "cycle": sum(record["loss_cycle"] for record in last) / len(last),
        "parameters_G": sum(p.numel() for p in generators["AB"].parameters()),
    }  # fmt: skip


def table(results):
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


def draw(results, path):
    """A sheet, one cell a variant: a horse that became a zebra, and a zebra that became a horse."""
    images = [to_float(torch.from_numpy(load_image(f"data/demo/test{domain}/0000.png"))) for domain in "AB"]

    def cell(caption, pair):
        both = torch.cat(tuple(pair), 2)
        return caption, to_pil_image(((both + 1) * 127.5).round().clamp(0, 255).byte())

    cells = [cell("input", images)]
    for r in results:
        if "error" not in r:
            found = load_generators(f"saved_models/{run_name(r['name'], r['n_epochs'])}/latest.pth")
            generators = {d: g.network for d, g in found.items()}
            with torch.no_grad():
                fakes = [generators[d](x[None])[0].float() for d, x in zip(("AB", "BA"), images)]
            cells.append(cell(r["name"], fakes))
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
    prepare()
    log, done = f"{FOLDER}/results.jsonl", {}
    if os.path.exists(log):
        with open(log) as file:
            done = {(r["name"], r["n_epochs"]): r for r in map(json.loads, file) if "error" not in r}
    results = []
    for name in dict.fromkeys(["default", *opt.only]):  # always in the table, to compare with
        if (name, opt.n_epochs) not in done:
            print(f"{name}: cyclegan.py {VARIANTS[name]}", flush=True)
            result = train(name, opt)
            with open(log, "a") as file:
                file.write(json.dumps(result) + "\n")
            done[name, opt.n_epochs] = result
        results.append(done[name, opt.n_epochs])
    print("\n".join(table(results)))
    draw(results, opt.sheet)
    return 1 if any("error" in r for r in results) else 0


if __name__ == "__main__":
    run_script(main)
