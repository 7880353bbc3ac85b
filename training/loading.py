"""
The images of a training as batches: in which order, by how many processes, and how they outlive Ctrl-C.
"""

import os
import signal
import threading

import numpy as np
import torch

from datasets import ImageDataset, find_folder, to_float
from media.images import ImageFiles
from utils import InputError
from variants.build import channels_of


def open_data(opt, root, device, rank, world_size, img_size):
    """The training images in `root` at a size (height, width) -> dataset, sampler, loader, samples: of A and of B, what
    the sample grids show."""
    scale = opt.load_size / min(opt.img_height, opt.img_width) if opt.load_size else 286 / 256
    load_size = tuple(round(side * scale) for side in img_size)
    pairs = (opt.pairs or "") if opt.lambda_paired else None
    dataset = ImageDataset(root, "train", True, img_size, load_size, channels_of(vars(opt)), opt.seed, opt.cache,
                           opt.skip_bad_images, opt.enlarge, opt.color_jitter, opt.rotate, pairs)  # fmt: skip
    sampler = EpochSampler(len(dataset), opt.batch_size * opt.accumulate, opt.seed, rank, world_size)
    samples = [fixed_images(dataset, root, domain, n=5).to(device) for domain in "AB"]
    return dataset, sampler, make_loader(dataset, sampler, opt.n_cpu, device), samples


def outlive_signals(worker_id):
    """For the loader's worker processes: Ctrl-C and a batch system's SIGTERM reach them too, but the main process needs
    them until its step is done. One that it wants to be rid of gets SIGTERM as well, and goes ten seconds later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    timer = threading.Timer(10, os._exit, (0,))
    timer.daemon = True  # it must not hold up a worker that is done before
    signal.signal(signal.SIGTERM, lambda *_: timer.start() if not timer.is_alive() else None)


class EpochSampler(torch.utils.data.Sampler):
    """The batches of one epoch, lists of (epoch, index), in an order that depends on the seed and the epoch alone.

    With several processes each batch is cut into equal shares, one a process, so n processes with batch size b see what
    one process sees with n * b. What is left over at the end of an epoch, less than a batch, is left out of it.
    """

    def __init__(self, size, batch_size, seed=0, rank=0, world_size=1):
        if size < batch_size * world_size:
            raise InputError(
                f"--batch_size x --accumulate x processes is {batch_size * world_size}, more than the {size} "
                "samples of the data set. Take a smaller one"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.set_position(0, 0)

    def set_position(self, epoch, first_batch=0, n=None):
        """Call before each epoch; first_batch > 0 continues one that was broken off; n samples a batch instead of
        batch_size, those that follow it: for --ratio_A."""
        self.epoch, self.first_batch, self.n = epoch, first_batch, n or self.batch_size

    def __len__(self):
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self):
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(int(seed)))
        for batch in range(self.first_batch, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, order[i % self.size].item()) for i in range(start, start + self.n)]


def make_loader(dataset, sampler, n_workers, device):
    """The batches of a sampler, {"A": (N, C, H, W), "B": (N, C, H, W)} on the CPU.

    n_workers: processes that load them, 0 for this one alone; None: as many as pay"""
    if n_workers is None:  # one step on a CPU takes longer than to decode its images, and has better use for the cores
        n_beside_gpu = max(1, min(8, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        n_workers = 0 if dataset.cache else 1 if device.type == "cpu" else n_beside_gpu
    return torch.utils.data.DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
        persistent_workers=n_workers > 0,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # otherwise it takes from the global random numbers, and resuming is not exact
    )


def batches(loader, done, n_A, n_B, rescue):
    """What is left of an epoch, from batch number `done` on: (number, (real_A, real_B)), of n_A and n_B images, and if
    pairs are known a third tensor, (N,), 1 for pairs. If an image turns out to be broken, rescue(number of batches
    done) is called before the InputError goes on."""
    try:
        for batch in loader:
            real_A, real_B, *paired = batch.values()
            yield done, (real_A[:n_A], real_B[:n_B], *paired)
            done += 1
    except InputError:
        rescue(done)
        raise


def fixed_images(dataset, root, domain, n):
    """The first n test images of a domain, resized and nothing else -> float32 (n, C, H, W) in [-1, 1]. Where there is
    no test folder, training images: a person with two folders of photos can train too."""
    try:
        files = ImageFiles(find_folder(root, "test", domain))
        order = range(len(files))
    except InputError:
        files, order = dataset.files[domain], dataset.index[domain]
        dataset.notes.append(f"no test images of domain {domain}: the sample grids show training images")
    images = []
    for i in order:
        try:
            images.append(to_float(torch.from_numpy(dataset.load(domain, files[i], dataset.img_size))))
        except InputError as error:
            if not dataset.skip_bad_images:
                raise InputError(f"{error}. --skip_bad_images goes on without") from error
            dataset.notes.append(f"skipped {error}")
        if len(images) == n:
            break
    if not images:
        raise InputError(f"{files.folder}: not one image can be used")
    return torch.stack(images)
