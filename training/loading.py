"""
Batches for the training: their order, the processes that load them, and the images of the sample grids.
"""

import math
import os
import signal
import threading

import numpy as np
import torch

from datasets import find_folder, to_float
from media.images import ImageFiles
from utils import InputError
from variants.schedules import count_A, size_at


class TrainingData:
    """The batches of a training, epoch by epoch, and the images of its sample grids (attribute `samples`).

    open_loader: function (opt, run, (height, width)) -> DataLoader; called again when --progressive changes the size
    """

    def __init__(self, opt, run, open_loader):
        self.opt, self.run, self.open_loader = opt, run, open_loader
        run.prepare_data()
        self.open(size_at(opt, run.epoch))
        run.steps_per_epoch = len(self.loader)
        if opt.n_iters:
            opt.n_epochs = run.epoch + math.ceil((opt.n_iters - run.step + run.batch) / len(self.loader))

    def open(self, img_size):
        self.loader = self.open_loader(self.opt, self.run, img_size)
        self.dataset, self.sampler = self.loader.dataset, self.loader.batch_sampler
        self.samples = [fixed_images(self.dataset, self.run.root, d, n=5).to(self.run.device) for d in "AB"]

    def epoch(self, epoch):
        """Yields the batches of an epoch that are still to be done: real_A, real_B, and with --lambda_paired whether
        they are counterparts, on the device. Counts them in run.epoch and run.batch."""
        opt, run = self.opt, self.run
        if size_at(opt, epoch) != self.dataset.img_size:
            self.open(size_at(opt, epoch))
        n_A, n_B = count_A(opt, epoch), opt.batch_size * opt.accumulate
        self.sampler.set_position(epoch, run.batch, max(n_A, n_B))
        run.images_per_step = (n_A + n_B) * run.world_size
        try:
            for batch in self.loader:
                real_A, real_B, *paired = (images.to(run.device, non_blocking=True) for images in batch.values())
                yield real_A[:n_A], real_B[:n_B], *paired
                run.batch += 1
                if run.is_over() and (run.stopped or run.batch < len(self.loader)):
                    return
        except InputError:  # a corrupt image: save what has been done so far
            if run.world_size == 1:  # one process alone cannot save for all
                run.save_checkpoint()
                run.background.finish()
            raise
        run.epoch, run.batch = epoch + 1, 0


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

    n_workers: number of processes that load images, 0 for none beside this one; None: as many as pay"""
    if n_workers is None:  # a step on a CPU takes longer than decoding its images, and has better use for the cores
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
    """For worker processes: Ctrl-C and a batch system's SIGTERM reach them too, but the main process needs them until
    its step is done. The main process itself stops them by SIGTERM; they then exit ten seconds later at most."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    timer = threading.Timer(10, os._exit, (0,))
    timer.daemon = True  # does not delay a worker that exits earlier
    signal.signal(signal.SIGTERM, lambda *_: timer.start() if not timer.is_alive() else None)


def fixed_images(dataset, root, domain, n):
    """The first n test images of a domain, resized and not cropped -> float32 (n, C, H, W) in [-1, 1]. Without a test
    folder, training images."""
    source = getattr(dataset, domain)
    try:
        files = ImageFiles(find_folder(root, "test", domain))
        order = range(len(files))
    except InputError:
        files, order = source.files, source.usable
        source.notes.append(f"no test images of domain {domain}: the sample grids show training images")
    images = []
    for i in order:
        try:
            images.append(to_float(source.load(files[i], dataset.img_size)))
        except InputError as error:
            if not source.skip_bad_images:
                raise InputError(f"{error}. Use --skip_bad_images to train without such images") from error
            source.notes.append(f"skipped {error}")
        if len(images) == n:
            break
    if not images:
        raise InputError(f"{files.folder}: none of its images can be used")
    return torch.stack(images)
