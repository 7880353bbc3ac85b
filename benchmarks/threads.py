"""
Finds the number of threads that pays on a CPU, with an idle machine and with other busy programs.

    python -m benchmarks.threads                         # the demo, 128 x 128 and 256 x 256: half an hour on two cores
    python -m benchmarks.threads --sizes 64 --busy 0 1   # the demo alone

Each cell is the mean time of a training step, or of a translation, in a process of its own. The numbers of threads are
measured in turn, so that a machine that changes its speed changes all of them. Close other programs first.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch

from command_line.parser import argument_parser, between
from command_line.run import run_script

PRESETS = {64: "demo", 128: "laptop", 256: "paper"}  # the networks for each size
BUSY = """import os, sys
os.nice(int(sys.argv[1]))
parent = os.getppid()
while os.getppid() == parent:  # until the measurement ends, in whatever way
    pass
"""


def get_parser():
    parser = argument_parser("Compare numbers of threads.", "python -m benchmarks.threads [options]")
    add = parser.add_argument
    # fmt: off
    add("--sizes", nargs="+", type=int, choices=PRESETS, default=[*PRESETS], help="height and width of the images")
    add("--threads", nargs="+", type=between(1, 1024), help="numbers of threads (default: 1, and all cores)")
    add("--busy", nargs="+", type=between(0, 64), default=[0, 1, 2], help="numbers of other busy programs")
    add("--nice", type=between(0, 19), default=0, help="their priority: 0 is the usual one, 19 the lowest")
    add("--seconds", type=between(0.1, 3600.0), default=20.0, help="time for each measurement, at least three steps")
    add("--rounds", type=between(1, 100), default=2, help="rounds over the numbers of threads")
    add("--measure", nargs=4, help="PART SIZE THREADS SECONDS: one measurement, in a process of its own")
    # fmt: on
    return parser


def measure(part, size, threads, seconds):
    """-> seconds per training step, or per translation of a picture: the mean"""
    import cyclegan
    from measuring.timing import noise
    from training.run import Run
    from training.update import Update

    torch.set_num_threads(threads)
    opt, _ = cyclegan.get_options(["--preset", PRESETS[size], "--device", "cpu"])
    run = Run(opt)
    torch.set_num_threads(threads)  # Run chooses a number, too
    run.steps_per_epoch = 1
    gan = cyclegan.build(opt, run)
    images = noise(1, size, run.device, 0), noise(1, size, run.device, 1)
    if part == "training":
        update = Update(cyclegan.train_step, gan, opt, run)
    else:
        gan.G_AB.eval()

        @torch.no_grad()
        def update(image, _):
            with torch.autocast("cpu", torch.bfloat16, enabled=run.amp):
                return gan.G_AB(image)

    times, started = [], time.monotonic()
    while len(times) < 4 or time.monotonic() - started < seconds:
        before = time.monotonic()
        update(*images)
        times.append(time.monotonic() - before)
    return statistics.mean(times[1:])  # not the median: a few steps may wait for long


def in_a_process(*words):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "benchmarks.threads", "--measure", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(part, size, n_busy, threads, seconds, rounds, nice):
    """-> {number of threads: seconds, the median of the rounds}, while n_busy other programs of priority `nice` run"""
    others = [subprocess.Popen([sys.executable, "-c", BUSY, str(nice)]) for _ in range(n_busy)]
    found = {n: [] for n in threads}
    try:
        for _ in range(rounds):
            for n in threads:
                found[n].append(in_a_process(part, size, n, seconds))
    finally:
        for other in others:
            other.kill()
            other.wait()
    return {n: statistics.median(values) for n, values in found.items()}


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if opt.measure:
        part, size, threads, seconds = opt.measure
        print(json.dumps(measure(part, int(size), int(threads), float(seconds))))
        return
    threads = sorted(set(opt.threads or (1, torch.get_num_threads())))
    print("| ms | busy programs | " + " | ".join(f"{n} thread{'s' * (n > 1)}" for n in threads) + " |")
    print("|---" * (2 + len(threads)) + "|")
    for size in opt.sizes:
        for part in ("training", "translation"):
            for n_busy in opt.busy:
                row = compare(part, size, n_busy, threads, opt.seconds, opt.rounds, opt.nice)
                cells = " | ".join(f"{1000 * row[n]:.0f}" for n in threads)
                print(f"| {PRESETS[size]}, {size} x {size}, {part} | {n_busy} | {cells} |", flush=True)


if __name__ == "__main__":
    run_script(main)
