"""
Turns two folders of unpaired images into training samples. Two layouts are supported:

    data/NAME/trainA  trainB  testA  testB         the official archives
    data/NAME/train/A  train/B  test/A  test/B     PyTorch-GAN

media/domain.py decodes the files.
"""

import os

import numpy as np
import torch

from media.domain import Domain, centre

CACHE_LIMIT_GIB = 4.0  # a larger data set is decoded again in every epoch, by worker processes


def find_folder(root, mode, domain):
    """'data/NAME', 'train', 'A' -> 'data/NAME/trainA' or 'data/NAME/train/A', whichever exists. Raises InputError."""
    for folder in (os.path.join(root, mode + domain), os.path.join(root, mode, domain)):
        if os.path.isdir(folder):
            return folder
    from media.layouts import explain_missing  # says what there is instead

    raise explain_missing(root, mode, domain)


def to_float(image):
    """uint8, or float32 from 0 to 1, (H, W, C) -> float32 (C, H, W) in [-1, 1], the range of the generators' tanh."""
    half = 127.5 if image.dtype == torch.uint8 else 0.5
    return image.permute(2, 0, 1).contiguous().float() / half - 1


class ImageDataset(torch.utils.data.Dataset):
    """Samples {"A": image, "B": image}, float32 (channels, height, width) in [-1, 1]. There are as many samples as the
    larger domain has images. Sample i holds image i of A (modulo their number) and a random image of B.

    dataset[epoch, index] depends only on the seed, the epoch and the index: it is the same image, crop and flip
    whichever process loads it, and whatever was loaded before. dataset[index] is the sample of epoch 0.

    root:      data/NAME
    mode:      'train' resizes to load_size, takes a random crop of img_size and flips it with probability 1/2, as the
               authors' code does; 'test' resizes to img_size and nothing else
    unaligned: False pairs A and B by file name, with the same crop and flip, and leaves out all other images
    img_size:  (height, width) of the samples
    load_size: (height, width) before the crop
    channels:  number of channels of the images, or (that of A, that of B)
    cache:     keep the decoded images in memory; None does so if they take at most CACHE_LIMIT_GIB
    enlarge:   accept training images smaller than img_size
    flip:      False never flips
    augment:   changes training images further, see variants/augment.py
    pairs:     function (files of A, files of B) -> {i of A: i of B} of true counterparts. An image of A that has one
               is loaded with it, with the same crop. "paired", a third entry of samples, is then 1.0, else 0.0
    ranges:    (value_range of A, value_range of B), for media.domain.Domain, as are all `options`
    """

    def __init__(self, root, mode="train", unaligned=True, img_size=(256, 256), load_size=(286, 286), channels=3,
                 seed=0, cache=None, enlarge=False, flip=True, augment=None, pairs=None, ranges=(None, None),
                 **options):  # fmt: skip
        self.train, self.img_size, self.seed, self.flip, self.augment = mode == "train", img_size, seed, flip, augment
        size, smallest = (load_size, None if enlarge else img_size) if self.train else (img_size, None)
        channels = channels if isinstance(channels, tuple) else (channels, channels)
        self.A, self.B = (
            Domain(find_folder(root, mode, domain), size, n, smallest, value_range=value_range, **options)
            for domain, n, value_range in zip("AB", channels, ranges)
        )
        self._open(cache, unaligned, pairs)

    def _open(self, cache, unaligned, pairs):
        """Checks or reads the files of A and B, and finds out which are counterparts; see the class."""
        self.counterpart, self.returns_paired = {}, pairs is not None
        if cache is None:
            n_copies = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # one in each process
            n_bytes = (self.A.n_bytes() + self.B.n_bytes()) * n_copies
            cache = self.train and n_bytes <= CACHE_LIMIT_GIB * 2**30
        for domain in (self.A, self.B):
            if cache or self.train:
                domain.check(cache)
        if pairs or not unaligned:
            from media.folders import match_domains, pair_by_stem

            self.counterpart = match_domains(self.A, self.B, pairs or pair_by_stem, unaligned)

    @property
    def is_cached(self):
        return self.A.cache is not None

    @property
    def notes(self):
        return self.A.notes + self.B.notes

    def __len__(self):
        return max(len(self.A), len(self.B))

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        rng = np.random.default_rng((self.seed, epoch, index))
        random_B = rng.integers(len(self.B))
        # for each domain, random numbers for the crop and flip (3), colours (3) and rotation (1)
        numbers_A, numbers_B = np.hstack([rng.random((2, 3)), rng.random((2, 3)), rng.random((2, 1))])
        i_A, i_B = index % len(self.A), random_B if self.train else index % len(self.B)
        is_paired = i_A in self.counterpart
        if is_paired:
            i_B, numbers_B = self.counterpart[i_A], numbers_A
        sample = {"A": self._sample(self.A, i_A, numbers_A), "B": self._sample(self.B, i_B, numbers_B)}
        return sample | ({"paired": torch.tensor(float(is_paired))} if self.returns_paired else {})

    def _sample(self, domain, i, dice):
        """Crops, flips and augments image i of a domain by random numbers from 0 to 1 -> (C, height, width)."""
        image = domain[i]
        if not self.train:
            return to_float(centre(image, self.img_size))
        if self.augment:
            image = self.augment.before_crop(image, dice)
        height, width = self.img_size
        top = int(dice[0] * (image.shape[0] - height + 1))
        left = int(dice[1] * (image.shape[1] - width + 1))
        image = image[top : top + height, left : left + width]
        image = to_float(image.flip(1) if self.flip and dice[2] < 0.5 else image)
        return self.augment.after_crop(image, dice) if self.augment else image
