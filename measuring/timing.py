"""
Measures time, memory and operation counts, so that implementations can be compared.
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

##############################
#       Time and memory
##############################


def wait_for(device):
    """Waits until the device has finished all work that was queued."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def seconds(function, device, runs, at_least=0.05):
    """Times a function -> list of `runs` times in seconds per call.

    at_least: each time averages over enough calls to take this many seconds
    """
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
        if dist.is_initialized():  # processes wait for each other, so all must make the same number of calls
            dist.all_reduce(fastest, dist.ReduceOp.MIN)
        if fastest >= at_least:
            return times
        calls = int(calls * max(2, 1.2 * at_least / fastest.item()))


def memory(device, peak=False):
    """Returns the memory in use in bytes: of tensors on a GPU, of this process on a CPU. Returns 0 where the operating
    system does not report it.

    peak: the maximum since reset_peak instead of the current value
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM" if peak else "VmRSS"))
    return 0


def reset_peak(device):
    """Resets the maximum that memory(device, peak=True) reports."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def release(device):
    """Returns freed memory to the system, so that it does not count as in use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def in_rounds(candidates, device, *, rounds, runs, show=None, at_least=0.05):
    """Times several implementations of the same task. A round builds, warms up, times and discards each of them in
    turn. Several rounds spread a slow period of the machine over all candidates.

    candidates: {name: function that builds the candidate and returns a function without arguments}
    rounds:     number of rounds
    runs:       times taken in each round
    show:       function that displays a line of progress, or None
    at_least:   see seconds; 0 times single calls
    Returns {name: {"seconds": the median, "min", "max", "p95": the 95th percentile, all in seconds per call,
    "memory_gib": the peak}}.
    """
    times, peaks = {name: [] for name in candidates}, dict.fromkeys(candidates, 0)
    for turn in range(rounds):
        for name, build in candidates.items():
            if show:
                show(f"{name}, round {turn + 1} of {rounds}")
            release(device)
            before = memory(device)
            reset_peak(device)
            function = build()
            for _ in range(5 if device.type == "cuda" else 1):  # the fourth call of a training step records its graph
                function()
            times[name] += seconds(function, device, runs, at_least)
            peaks[name] = max(peaks[name], memory(device, peak=True) - before)
            del function  # frees its memory before the next one is built
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
    """Returns the rate of a large matrix product in operations per second, as a practical upper bound of the device."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in "ab")
    torch.mm(a, b)
    return 2 * n**3 / statistics.median(seconds(lambda: torch.mm(a, b), device, 5))


##############################
#         Operations
##############################


def count_flops(function):
    """Counts the floating-point operations of convolutions and matrix products. A multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


COUNTING = """multiply-adds: those of convolutions and matrix products, one for a multiplication and an addition.
Transposed convolutions do not count products with inserted zeros. Norms, activations and sums are not counted."""


def costs(G, size):
    """Returns (parameters, multiply-adds per image) of a network. See COUNTING.

    size: (height, width) of the image
    """
    with torch.device("meta"):  # shapes without data
        shape, x = copy.deepcopy(G).to("meta"), torch.empty(1, getattr(G, "channels", 3), *size)
    return sum(p.numel() for p in G.parameters()), count_flops(lambda: shape(x)) // 2


##############################
#     Inputs and numbers
##############################


def noise(n, size, device, seed=0):
    """Returns random images (n, 3, size, size) in [-1, 1]. Zeros would be unrealistic, because processors run faster on
    them."""
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)).to(device) * 2 - 1


def name_of(device):
    """Returns the model name of the GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    return platform.processor() or platform.machine()


def digits(value):
    """Formats a positive number with at least three significant digits and no exponent: 0.123, 12.3, 12345."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
