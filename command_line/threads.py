"""
The number of threads of torch on a CPU.
"""

import os

import torch

# Up to this many pixels, two cores are better used by one thread. The threads of OpenMP wait for each other actively: if
# another program needs a core, each step waits for it. Measured with benchmarks/threads.py, see docs/performance.md
SMALL = 128 * 128


def choose_threads(device, pixels):
    """Uses one thread for small images on two cores, unless the user has set OMP_NUM_THREADS -> number of threads.

    pixels: number of pixels of an image
    """
    is_set = "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ
    if device.type == "cpu" and not is_set and pixels <= SMALL and torch.get_num_threads() == 2:
        torch.set_num_threads(1)
    return torch.get_num_threads()
