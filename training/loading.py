"""
The order of the training images, and the processes that load them.
"""

import os
import signal
import threading

import numpy as np
import torch

from utils import InputError


class EpochSampler(torch.utils.data.Sampler):
    """The batches of one epoch, lists of (epoch, index), in an order that depends on the seed and the epoch alone.

    With several processes each batch is cut into equal shares, so n processes with batch size b see what one process
    sees with batch size n * b. An incomplete batch at the end of an epoch is dropped.
    """

    def __init__(self, size, batch_size, seed=0, rank=0, world_size=1):
        if size < batch_size * world_size:
            raise InputError(
                f"--batch_size x --accumulate x processes is {batch_size * world_size}, but the data set has only "
                f"{size} samples. Use a smaller batch"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.set_position(0, 0)

    def set_position(self, epoch, first_batch=0, n=None):
        """Selects an epoch, and its first batch when it is resumed. n: samples in a batch, if more than batch_size,
        for --ratio_A"""
        self.epoch, self.first_batch, self.n = epoch, first_batch, n or self.batch_size

    def __len__(self):
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self):
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(int(seed)))
        for batch in range(self.first_batch, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, order[i % self.size].item()) for i in range(start, start + self.n)]


def loader_options(n_workers, dataset, device):
    """-> dict of options for torch.utils.data.DataLoader

    n_workers: number of worker processes that load images; 0 loads in this process; None chooses a number"""
    if n_workers is None:  # on a CPU, a step takes longer than decoding its images and needs the cores
        n_beside_gpu = max(1, min(8, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        n_workers = 0 if dataset.is_cached else 1 if device.type == "cpu" else n_beside_gpu
    return dict(
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
        persistent_workers=n_workers > 0,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # without one it draws from the global random numbers, and resuming is not exact
    )


def outlive_signals(worker_id):
    """For worker processes: Ctrl-C, a closed terminal and a batch system's SIGTERM reach them too, but the main process needs them until
    its step is done. The main process itself stops them by SIGTERM; they then exit within ten seconds."""
    for name in {"SIGINT", "SIGHUP"} & {*dir(signal)}:  # Windows has no SIGHUP
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    timer = threading.Timer(10, os._exit, (0,))
    timer.daemon = True  # does not delay a worker that exits earlier
    signal.signal(signal.SIGTERM, lambda *_: timer.start() if not timer.is_alive() else None)
