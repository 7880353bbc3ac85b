"""
The batches of a training, epoch by epoch, and the images of its sample grids.
"""

import math

import torch

from datasets import find_folder, to_float
from media.domain import centre
from media.folders import ImageFiles
from training.problems import loader_problem, notice_late
from utils import InputError
from variants.schedules import count_A, size_at


class TrainingData:
    """The batches of a training, epoch by epoch, and the images of its sample grids (attribute `samples`).

    open_loader: function (opt, run, (height, width)) -> DataLoader; called again when --progressive changes the size
    """

    def __init__(self, opt, run, open_loader):
        self.opt, self.run, self.open_loader, self.fixed_images = opt, run, open_loader, fixed_images
        if opt.dims == 3 or opt.slices:
            from training import volumes

            self.open_loader, self.fixed_images = volumes.open_loader, volumes.fixed_volumes
        run.prepare_data()
        self.open(size_at(opt, run.epoch))
        run.steps_per_epoch = len(self.loader)
        if opt.n_iters:
            opt.n_epochs = run.epoch + math.ceil((opt.n_iters - run.step + run.batch) / len(self.loader))

    def open(self, img_size):
        self.loader = self.open_loader(self.opt, self.run, img_size)
        self.dataset, self.sampler = self.loader.dataset, self.loader.batch_sampler
        self.samples = [self.fixed_images(self.dataset, self.run.root, d, n=5).to(self.run.device) for d in "AB"]

    def epoch(self, epoch):
        """Yields the remaining batches of an epoch, on the device: real_A, real_B, and with --lambda_paired whether
        they are counterparts. Counts them in run.epoch and run.batch."""
        opt, run = self.opt, self.run
        if size_at(opt, epoch) != self.dataset.img_size[-2:]:  # of volumes, without the depth
            self.open(size_at(opt, epoch))
        run.current_epoch = epoch
        n_A, n_B = count_A(opt, epoch), opt.batch_size * opt.accumulate
        self.sampler.set_position(epoch, run.batch, max(n_A, n_B))
        run.images_per_step = (n_A + n_B) * run.world_size
        batches = None
        try:
            batches = notice_late(self.loader)
            for batch in batches:
                real_A, real_B, *paired = (images.to(run.device, non_blocking=True) for images in batch.values())
                yield real_A[:n_A], real_B[:n_B], *paired
                run.batch += 1
                if run.is_over() and (run.stopped or run.batch < len(self.loader)):
                    return
        except (InputError, RuntimeError, OSError) as error:  # a corrupt image, or a process that loads images is gone
            problem = error if isinstance(error, InputError) else loader_problem(error, batches)
            if problem and run.world_size == 1:  # save what has been done so far; one process alone cannot save for all
                run.save_checkpoint()
                run.background.finish()
            if problem is None or problem is error:
                raise
            raise problem from error
        run.epoch, run.batch = epoch + 1, 0

    def close(self):
        """Ends the processes that load images. At the end of the program that would take ten seconds: by then, PyTorch
        has lost what it tells them with."""
        self.loader = None

    def test_files(self, domain):
        """The test images of a domain, ImageFiles, or () if there are none."""
        try:
            return type(getattr(self.dataset, domain).files)(find_folder(self.run.root, "test", domain))
        except InputError:
            return ()

    def has_tests(self):
        """Whether there are test images of both domains, as evaluate.py needs."""
        return all(len(self.test_files(domain)) for domain in "AB")

    def example(self, domain):
        """The path of an image of a domain to try a generator on: the first test image, or training image."""
        tests, source = self.test_files(domain), getattr(self.dataset, domain)
        return tests[0] if len(tests) else source.files[int(source.usable[0])]


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
            images.append(to_float(centre(source.load(files[i], dataset.img_size), dataset.img_size)))
        except InputError as error:
            if not source.skip_bad_images:
                raise InputError(f"{error}. Use --skip_bad_images to train without such images") from error
            source.notes.append(f"skipped {error}")
        if len(images) == n:
            break
    if not images:
        raise InputError(f"{files.folder}: none of its images can be used")
    return torch.stack(images)
