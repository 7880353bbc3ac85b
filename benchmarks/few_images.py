"""
Measures what --start_from gains with few images: 20 images of each domain and a model that was trained on other data,
against 20 and 200 images and new networks, after the same number of steps.

    python -m benchmarks.few_images --only demo                  # horses and zebras in other colours, drawn
    python -m benchmarks.few_images                              # and satellite images from a model of icons

Each training is a process of cyclegan.py; all seeds start from the same model. Results are stored in
saved_models/few_images/results.jsonl. Finished trainings are not repeated, and interrupted ones are resumed. At the end, a
table is printed: L1 to the true counterparts of the test images, and for the demo the scores that cyclegan.py prints, as
mean ± standard deviation over seeds.
"""

import contextlib
import io
import json
import os
import sys
import types

import torch

import cyclegan
from benchmarks.runs import mean_and_spread, read_results, run_command
from command_line.output import append_line
from command_line.parser import argument_parser, between
from command_line.run import run_script
from get_data.demo import score, write_demo
from get_data.scenes import OTHER
from inference.load import load_generators
from measuring.data import find_data
from measuring.directions import measure_direction, measure_untranslated
from measuring.evaluation import Settings
from utils import InputError

FOLDER = "saved_models/few_images"
BASES = {"demo": "demo_colours", "earth": "icons"}  # data set: the one that its trained model comes from
SIZE = 64  # height and width of all these images
# small networks; --preset paper, so that the data set demo has no other schedule. Both options are those for few images
RECIPE = (
    f"--preset paper --img_height {SIZE} --img_width {SIZE} --n_residual_blocks 3 --ngf 24 --ndf 32 --upsample nearest "
    "--lr 0.0005 --ema --diffaugment --sample_interval 0 --checkpoint_interval 0"
).split()
ARMS = {  # name: (images of each domain, options); BASE is the checkpoint of the trained model
    "20 from a model": (20, "--start_from BASE"),
    "20 from nothing": (20, ""),
    "200 from nothing": (200, ""),
    "20 from a model, freeze_D 2": (20, "--start_from BASE --freeze_D 2"),
}
DEFAULT_ARMS = list(ARMS)[:3]
# No network of its own is needed for L1
AVAILABLE = types.SimpleNamespace(extractor=None, lpips=None, pair={}, distances={})


def get_parser():
    parser = argument_parser("Measure training from a trained model.", "python -m benchmarks.few_images [options]")
    add = parser.add_argument
    add("--only", nargs="+", choices=BASES, help="data sets (default: both)")
    add("--arms", nargs="+", choices=ARMS, metavar="ARM", help="what to compare: " + " | ".join(ARMS))
    add("--seeds", type=between(1, 100), default=3, help="number of seeds")
    add("--n_iters", type=between(1, 10**9), default=2000, help="steps of each training")
    add("--base_iters", type=between(1, 10**9), default=6000, help="steps of the models to start from")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    return parser


##############################
#   Runs
##############################


def train(run, dataset, n_iters, words, device):
    """Trains with cyclegan.py in a process of its own, or resumes that. Raises InputError with its last line."""
    command = [sys.executable, cyclegan.__file__, "--run_name", run]
    if os.path.exists(f"saved_models/{run}/latest.pth"):
        command += ["--resume"]
    else:
        command += ["--dataset_name", dataset, "--n_iters", str(n_iters), *RECIPE, *words]
    command += ["--device", device] if device else []
    print(f"{run}: {n_iters} steps on {dataset} {' '.join(words)}", flush=True)
    run_command(command, f"{FOLDER}/{run}.txt")


def trained_model(opt, task):
    """Trains the model to start from, unless it has been trained -> path of its checkpoint"""
    dataset = BASES[task]
    if task == "demo" and not os.path.isdir(f"data/{dataset}"):
        write_demo(f"data/{dataset}", OTHER)
    run = f"few_images_{dataset}_{opt.base_iters}"
    train(run, dataset, opt.base_iters, [], opt.device)
    return f"saved_models/{run}/latest.pth"


def run_of(task, arm, seed, opt):
    """-> (what identifies a training in results.jsonl, the name of its run)"""
    key = {"task": task, "arm": arm, "seed": seed, "n_iters": opt.n_iters, "base_iters": opt.base_iters}
    return key, f"few_images_{task}_{arm}_{seed}_{opt.n_iters}_{opt.base_iters}".replace(" ", "_").replace(",", "")


def measure(run, task):
    """-> {"AB" and "BA": L1 to the true counterparts of 255, "untranslated": that of the inputs, "score": of the demo}"""
    found = load_generators(f"saved_models/{run}/latest.pth")
    generators, root = {d: trained.network for d, trained in found.items()}, f"data/{task}"
    settings, result = Settings((SIZE, SIZE), torch.device("cpu"), amp=False), {"untranslated": {}}
    with contextlib.redirect_stdout(io.StringIO()):  # progress of two seconds
        data = find_data(root, generators, matched=True)
        for d in ("AB", "BA"):
            result[d] = measure_direction(d, generators, data, AVAILABLE, settings, paired=True)[0]["paired_l1"]
            inputs = measure_untranslated(d, data, AVAILABLE, settings, generators[d].channels, paired=True)
            result["untranslated"][d] = inputs["paired_l1"]
        if task == "demo":
            shares = score(generators["AB"], generators["BA"], root, settings.device)
            result["score"] = [*shares["A->B"]["translated"], *shares["B->A"]["translated"]]
    return result


##############################
#   Results
##############################


def table(results):
    """Formats results as lines of a Markdown table, one row for each data set and arm."""
    lines = [
        "| data | images of each domain | seeds | L1 A→B | L1 B→A | A→B animal | background | B→A animal | background |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(r["task"] for r in results):
        rows = [r for r in results if r["task"] == task]
        inputs = rows[0]["untranslated"]
        lines.append(f"| {task} | untranslated | | {inputs['AB']:.1f} | {inputs['BA']:.1f} | | | | |")
        for arm in dict.fromkeys(r["arm"] for r in rows):
            of_arm = [r for r in rows if r["arm"] == arm]
            cells = [mean_and_spread([r[d] for r in of_arm], 1) for d in ("AB", "BA")]
            scores = zip(*(r["score"] for r in of_arm if "score" in r))
            cells += [mean_and_spread(values, 3) for values in scores] or [""] * 4
            lines.append(f"| {task} | {arm} | {len(of_arm)} | {' | '.join(cells)} |")
    return lines


def main(argv=None):
    opt = get_parser().parse_args(argv)
    os.makedirs(FOLDER, exist_ok=True)
    log, results, failed = f"{FOLDER}/results.jsonl", [], 0
    for task in opt.only or BASES:
        base = None
        for seed in range(opt.seeds):
            for arm in opt.arms or DEFAULT_ARMS:
                key, run = run_of(task, arm, seed, opt)
                result = next((r for r in read_results(log) if key.items() <= r.items()), None)
                n_images, words = ARMS[arm]
                try:
                    if result is None:
                        if "BASE" in words:
                            base = base or trained_model(opt, task)
                            words = words.replace("BASE", base)
                        more = [*words.split(), "--max_images", str(n_images), "--seed", str(seed)]
                        train(run, task, opt.n_iters, more, opt.device)
                        result = key | measure(run, task)
                        append_line(log, json.dumps(result))
                        print(f"  L1 to the true counterparts: A->B {result['AB']:.1f}, B->A {result['BA']:.1f} of 255")
                    results.append(result)
                except InputError as error:
                    print(error)
                    failed += 1
    print("\n".join(table(results)))
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
