"""
Measures how long things take, and how much memory, so that the numbers can be held against each other. For scripts that
compare: benchmark.py.
"""

import contextlib
import copy
import ctypes
import gc
import math
import platform
import statistics
import time

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode


def wait_for(device):
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def seconds(function, device, runs, at_least=0.05):
    """Times of `runs` runs, each of as many calls as take `at_least` seconds, per call."""
    calls = 1
    while True:
        times = []
        for _ in range(runs):
            wait_for(device)
            started = time.perf_counter()
            for _ in range(calls):
                function()
            wait_for(device)
            times.append((time.perf_counter() - started) / calls)
        fastest = torch.tensor(min(times) * calls)
        if dist.is_initialized():  # all processes must take the same number of steps, as they wait for each other
            dist.all_reduce(fastest, dist.ReduceOp.MIN)
        if fastest >= at_least:
            return times
        calls = int(calls * max(2, 1.2 * at_least / fastest.item()))


def memory(device, peak=False):
    """Bytes in use: by tensors on a GPU, by this process elsewhere (0 where that cannot be told). peak: the most since
    reset_peak."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM" if peak else "VmRSS"))
    return 0


def reset_peak(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def release(device):
    """Gives back what was freed, so that it does not count as in use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # other systems have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def in_rounds(candidates, device, opt, show, at_least=0.05):
    """Times several things that do the same. Each is built, warmed up, timed and thrown away; then all once more, so
    that a slow minute of the machine is not one candidate's alone.

    candidates: name -> function that builds it and returns a function without arguments
    at_least:   seconds that each time is taken over, 0 for single calls
    -> name -> {"seconds": median, "min", "max", "p95": the 95th percentile, "memory_gib": the most that it took}
    """
    times, peaks = {name: [] for name in candidates}, dict.fromkeys(candidates, 0)
    for turn in range(opt.rounds):
        for name, build in candidates.items():
            show(f"{name}, round {turn + 1} of {opt.rounds}")
            release(device)
            before = memory(device)
            reset_peak(device)
            function = build()
            for _ in range(5 if device.type == "cuda" else 1):  # of a step, the fourth is recorded
                function()
            times[name] += seconds(function, device, opt.runs, at_least)
            peaks[name] = max(peaks[name], memory(device, peak=True) - before)
            del function  # before the next one is built
    return {
        name: {
            "seconds": statistics.median(t),
            "min": min(t),
            "max": max(t),
            "memory_gib": peaks[name] / 2**30,
            "p95": sorted(t)[math.ceil(0.95 * len(t)) - 1],
        }
        for name, t in times.items()
    }


def matmul_rate(device, dtype):
    """Floating-point operations a second in a large matrix product: the most that the device does in practice."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in "ab")
    torch.mm(a, b)
    return 2 * n**3 / statistics.median(seconds(lambda: torch.mm(a, b), device, 5))


def count_flops(function):
    """Floating-point operations of convolutions and matrix products; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


COUNTING = """multiply-adds: of convolutions and matrix products, a multiplication and an addition are one; of a
transposed convolution its products count, not the zeros between; norms, activations and sums do not"""


def costs(G, size):
    """-> (parameters, multiply-adds for one image of that (height, width)) of a network; see COUNTING"""
    with torch.device("meta"):  # shapes without numbers
        shape, x = copy.deepcopy(G).to("meta"), torch.empty(1, getattr(G, "channels", 3), *size)
    return sum(p.numel() for p in G.parameters()), count_flops(lambda: shape(x)) // 2


def noise(n, size, device, seed=0):
    """Images (n, 3, size, size) in [-1, 1]. Not zeros: a processor that has less to switch runs faster."""
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(device) * 2 - 1


def name_of(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return platform.processor() or platform.machine()


def digits(value):
    """At least three of them, never an exponent: 0.123, 12.3, 12345"""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
