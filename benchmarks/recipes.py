"""
Compares recipes: trains each on unpaired images for the same time, and scores it on test pairs with a known answer.

    python -m benchmarks.recipes                                                         # all recipes, one seed
    python -m benchmarks.recipes --sets facades --recipes ema R1 --seeds 0 1 2           # three recipes with the paper's
    python -m benchmarks.recipes --sets cityscapes --size 128 --network "" --n_iters 20000 --device cuda

A data set needs trainA, trainB, testA and testB; the images of testA and testB with equal file stems are pairs. All runs
have the networks of --network, unless the recipe changes them.

The time of a step of each recipe is measured first, in turn. --n_iters is the number of steps of the first recipe; the
others get as many as take the same time. A run is then determined by its options: it can be stopped and continued, and
other work on the machine does not change the result.

Each run is `cyclegan.py` in a process of its own, followed by `evaluate.py --paired`. Results are appended to
saved_models/recipes/results.jsonl, and runs with a result are not repeated.
"""

import concurrent.futures
import json
import os
import shlex
import statistics
import sys
import time

import torch

import cyclegan
from benchmarks.recipe_results import both, draw, one_colour, table
from benchmarks.runs import read_results, run_command
from command_line.output import append_line
from command_line.parser import argument_parser, between
from command_line.run import run_script
from measuring.timing import name_of, noise, wait_for
from training.run import Run
from training.update import Update
from utils import InputError, choose_device

FOLDER = "saved_models/recipes"
UVCGAN = "--lr 0.0001 --b2 0.99 --lambda_cyc 5 --lambda_id 2.5 --ema 0.9999 --spectral_norm --lambda_gp 4 --gp_at mix"
RECIPES = {  # name: options of cyclegan.py. The first one is what the others are compared with
    "paper": "",
    "ema": "--ema 0.999",
    "lr x2": "--lr 0.0004",
    "cosine": "--lr_schedule cosine",
    "lr_D / 2": "--lr_D 0.0001",
    "batch 4": "--batch_size 4 --lr 0.0004",
    "spectral norm": "--spectral_norm",
    "R1": "--lambda_gp 1",
    "R1, 10": "--lambda_gp 10",
    "gp at mix": "--lambda_gp 4 --gp_at mix",
    "UVCGAN v2": UVCGAN,
    "diffaugment": "--diffaugment",
    "no identity": "--lambda_id 0",
    "no identity, lr x4": "--lambda_id 0 --lr 0.0008",
    "cycle 5": "--lambda_cyc 5 --lambda_id 2.5",
    "cycle falls": "--lambda_cyc_end 1",
    "better cycles": "--lambda_cyc 5 --lambda_cyc_end 1 --lambda_cycfeat 5",
    "cycle noise": "--cycle_noise 0.1",
    "nce": "--lambda_nce 1",
    "FastCUT": "--lambda_nce 10 --lambda_cyc 0 --lambda_id 0",
    "nce, no cycle": "--lambda_nce 1 --lambda_cyc 0 --lambda_id 5",
    "antialias": "--antialias",
    "residual": "--residual",
    "unet": "--generator unet --num_downs 5",
    "nearest": "--upsample nearest",
    "nearest, EMA": "--upsample nearest --ema 0.999",
    "layer norm": "--norm layer",
    "D without norm": "--norm_D none --lambda_gp 1",
    "combined": "--upsample nearest --ema 0.999 --norm_D none --lambda_gp 1",
    "batch deviation": "--batch_size 4 --lr 0.0004 --batch_deviation",
}
EVALUATION = {"cityscapes": ["--palette", "cityscapes"]}  # more options of evaluate.py for a data set


def get_parser():
    parser = argument_parser("Compare recipes on test pairs.", "python -m benchmarks.recipes [options]")
    add = parser.add_argument
    # fmt: off
    add("--sets", nargs="+", default=["icons", "earth"], metavar="NAME", help="data sets with test pairs")
    add("--data_dir", default="data", metavar="DIR", help="folder of the data sets")
    add("--recipes", nargs="+", metavar="NAME", help="recipes to compare with the first (default: all): " + " | ".join(RECIPES))
    add("--options", metavar="OPTIONS", help="one more recipe, named like its options of cyclegan.py")
    add("--seeds", nargs="+", type=between(0, 2**32), default=[0], help="random seeds")
    add("--size", type=between(32, 1024), default=64, help="height and width of the images")
    add("--network", default="--n_residual_blocks 3 --ngf 24 --ndf 32", help="options of all runs (default: %(default)s)")
    add("--n_iters", type=between(1, 10**9), default=1000, help="steps of the first recipe; the others take the same time")
    add("--equal", default="time", choices=("time", "steps"), help="what all runs have in common")
    add("--processes", type=between(1, 64), help="runs at once, of one thread each (default: one per core; 1 on a GPU)")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--sheet", default="images/recipes.png", metavar="FILE", help="picture of the translations")
    # fmt: on
    return parser


##############################
#   Time of a step
##############################


def base_options(opt):
    """The options of all runs, as words"""
    size = str(opt.size)
    words = ["--img_height", size, "--img_width", size, *shlex.split(opt.network)]
    return words + (["--device", opt.device] if opt.device else [])


def step_function(opt, recipe):
    """-> a function that runs a training step of a recipe on random images"""
    options, _ = cyclegan.get_options([*base_options(opt), "--preset", "paper", *shlex.split(recipe)])
    run = Run(options)
    run.steps_per_epoch = 1000
    update = Update(cyclegan.train_step, cyclegan.build(options, run), options, run)
    images = noise(options.batch_size, opt.size, run.device, 0), noise(options.batch_size, opt.size, run.device, 1)
    return lambda: update(*images)


def measure_steps(opt, recipes, device, rounds=7):
    """-> {name: seconds of a step}, the median; on a CPU those of the processor, with one thread. Measured times are kept
    in times.json, for these options and this machine. New ones are measured together with the first recipe, whose time
    then may differ: only ratios are kept."""
    path, key = f"{FOLDER}/times.json", json.dumps([base_options(opt), name_of(device), torch.__version__])
    known = json.load(open(path)) if os.path.exists(path) else {}
    times = known.setdefault(key, {})
    first = next(iter(recipes))
    wanted = [name for name, options in recipes.items() if options not in times]
    if not wanted:
        return {name: times[options] for name, options in recipes.items()}
    torch.set_num_threads(1)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    steps = {name: step_function(opt, recipes[name]) for name in dict.fromkeys([first, *wanted])}
    found = {name: [] for name in steps}
    for i in range(-4, rounds):  # the first calls of a step are slower, and on CUDA record it
        for name, step in steps.items():
            print_progress(f"{name}, round {max(0, i + 1)} of {rounds}")
            wait_for(device)
            started = clock()
            step()
            wait_for(device)
            found[name] += [clock() - started] if i >= 0 else []
    found = {name: statistics.median(values) for name, values in found.items()}
    scale = times.get(recipes[first], found[first]) / found[first]
    times |= {recipes[name]: scale * seconds for name, seconds in found.items()}
    with open(path, "w") as file:
        json.dump(known, file, indent=1)
    return {name: times[options] for name, options in recipes.items()}


def print_progress(text):
    if sys.stderr.isatty():
        print(f"\rtime of a step: {text}" + " " * 20, end="", file=sys.stderr, flush=True)


##############################
#   Runs
##############################


def key_of(opt, dataset, options, seed, n_iters):
    """What determines a run; results with the same key are the same"""
    return [dataset, opt.size, opt.network, options, seed, n_iters]


def name_of_run(dataset, name, seed, n_iters):
    letters = "".join(c if c.isalnum() else "_" for c in name)
    return f"recipes_{dataset}_{letters}_{seed}_{n_iters}"


def train_and_score(opt, dataset, name, options, seed, n_iters):
    """Trains and evaluates one run -> the line for results.jsonl. Raises InputError."""
    run_name = name_of_run(dataset, name, seed, n_iters)
    data, device = ["--data_dir", opt.data_dir], ["--device", opt.device] if opt.device else []
    latest = f"saved_models/{run_name}/latest.pth"
    started = time.monotonic()
    command = [sys.executable, cyclegan.__file__, "--run_name", run_name, *data]
    if os.path.exists(latest):
        command += ["--resume", *device]
    else:
        command += ["--dataset_name", dataset, "--preset", "paper", *base_options(opt), "--n_iters", str(n_iters)]
        command += ["--seed", str(seed), "--sample_interval", "0", "--keep_checkpoints", "0", *shlex.split(options)]
    output = f"{FOLDER}/{run_name}.txt"
    seconds = run_command(command, output)
    script = os.path.join(os.path.dirname(cyclegan.__file__), "evaluate.py")
    evaluate = [sys.executable, script, "--checkpoint", latest, *data, "--paired", "--n_cpu", "0"]
    evaluate += EVALUATION.get(dataset, []) + device
    run_command(evaluate, output)
    with open(f"saved_models/{run_name}/metrics.jsonl") as file:
        measured = json.loads(file.readlines()[-1])
    return {
        "key": key_of(opt, dataset, options, seed, n_iters), "dataset": dataset, "recipe": name, "options": options,
        "seed": seed, "n_iters": n_iters, "cpu_seconds": round(seconds), "seconds": round(time.monotonic() - started),
        "run_name": run_name, "results": measured["results"], "untranslated": measured["untranslated"],
        "trained_by": measured["trained_by"],
    }  # fmt: skip


def keep_result(future, title, log, done):
    """Appends the result of a run to results.jsonl and to `done` -> [message] if it failed"""
    try:
        record = future.result()
    except InputError as error:
        print(f"{title}: {error}", flush=True)
        return [str(error)]
    append_line(log, json.dumps(record))
    done[json.dumps(record["key"])] = record
    print(f"{title}: L1 {both(record, 'paired_l1'):.2f}, {record['seconds']} s", flush=True)
    return []


def main(argv=None):
    opt = get_parser().parse_args(argv)
    device = choose_device(opt.device)
    names = dict.fromkeys([next(iter(RECIPES)), *(opt.recipes or ([] if opt.options else RECIPES))])
    if unknown := [name for name in names if name not in RECIPES]:
        raise InputError(f"--recipes {unknown[0]}: unknown. Choose from {' | '.join(RECIPES)}")
    recipes = {name: RECIPES[name] for name in names} | ({opt.options: opt.options} if opt.options else {})
    os.makedirs(FOLDER, exist_ok=True)
    steps = dict.fromkeys(recipes, opt.n_iters)
    if opt.equal == "time":
        times = measure_steps(opt, recipes, device)
        first = next(iter(times.values()))
        steps = {name: max(1, round(opt.n_iters * first / seconds)) for name, seconds in times.items()}
        print(
            "\nseconds of a step, and steps: " + ", ".join(f"{n} {times[n]:.3f}, {steps[n]}" for n in recipes),
            flush=True,
        )

    log = f"{FOLDER}/results.jsonl"
    done, failures = {json.dumps(record["key"]): record for record in read_results(log)}, []
    runs = [(dataset, name, seed) for seed in opt.seeds for name in recipes for dataset in opt.sets]
    missing = [
        run for run in runs if json.dumps(key_of(opt, run[0], recipes[run[1]], run[2], steps[run[1]])) not in done
    ]
    n_processes = opt.processes or (1 if device.type != "cpu" else os.cpu_count())
    with concurrent.futures.ThreadPoolExecutor(n_processes) as pool:
        started = {
            pool.submit(train_and_score, opt, dataset, name, recipes[name], seed, steps[name]): (dataset, name, seed)
            for dataset, name, seed in missing
        }
        try:
            for future in concurrent.futures.as_completed(started):
                failures += keep_result(future, ", ".join(map(str, started[future])), log, done)
        finally:  # after Ctrl-C, which the running processes get too: they save their position and end
            pool.shutdown(cancel_futures=True)

    records = {dataset: {} for dataset in opt.sets}
    for dataset, name, seed in runs:
        found = done.get(json.dumps(key_of(opt, dataset, recipes[name], seed, steps[name])))
        if found:
            records[dataset].setdefault(name, []).append(found)
    for dataset in opt.sets:
        print("\n".join(["", *table(dataset, recipes, records[dataset], one_colour(opt, dataset))]))
    draw(opt, records, opt.sheet)
    return 1 if failures else 0


if __name__ == "__main__":
    run_script(main)
