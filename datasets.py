"""
Two folders of images -> unpaired training samples. Both layouts are read:

    data/NAME/trainA  trainB  testA  testB         the official archives
    data/NAME/train/A  train/B  test/A  test/B     PyTorch-GAN

A data set that is named but missing is drawn (demo_data.py) or fetched (fetch.py).
"""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from media.arrays import is_array, load_array
from media.images import ImageFiles, load_image, open_image
from utils import InputError
from variants.augment import jittered, rotated
from variants.pairs import read_pairs

# Pillow warns of what it takes, above 89 million pixels; above 179 million it refuses, and so do we
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
CACHE_LIMIT_GIB = 4.0  # a larger data set is decoded again in every epoch, by worker processes
CHECK_LIMIT = 100_000  # images of a domain that are looked at before training; of more, the first ones


##############################
#         One image
##############################


##############################
#        Two folders
##############################


def find_folder(root, mode, domain):
    """'data/NAME', 'train', 'A' -> 'data/NAME/trainA' or 'data/NAME/train/A', whichever there is."""
    for folder in (os.path.join(root, mode + domain), os.path.join(root, mode, domain)):
        if os.path.isdir(folder):
            return folder
    raise InputError(f"{os.path.join(root, mode + domain)}: no such folder. Put the images of domain {domain} there")


class ImageDataset(torch.utils.data.Dataset):
    """Samples {"A": image, "B": image}, float32 (channels, height, width) in [-1, 1]; as many as the larger domain has
    images: A in turn, B drawn at random.

    dataset[epoch, index] depends on the seed, the epoch and the index alone: the same picture, crop and flip whatever
    was loaded before, in whichever process. dataset[index] is that of epoch 0.

    root:            data/NAME
    mode:            'train' resizes to load_size, crops img_size at random and flips with probability 1/2, as the
                     authors' code does; 'test' resizes to img_size and leaves nothing to chance
    unaligned:       False pairs A and B by file stem (same crop, same flip) and leaves out what has no counterpart
    img_size:        (height, width) of the samples
    load_size:       (height, width) before the crop
    channels:        of the images, 1 or 3, or (those of A, those of B): any number, see arrays.py
    cache:           keep the decoded, resized images in memory; None: if they take at most CACHE_LIMIT_GIB
    skip_bad_images: go on without images that cannot be used; otherwise the first is an InputError
    enlarge:         accept training images smaller than img_size
    color_jitter:    strength of random changes of brightness, contrast and saturation, 0 to 1
    rotate:          largest random rotation, in degrees
    pairs:           "" for file stems that A and B have in common, or a list as read_pairs takes it: with an image of
                     A then comes its counterpart, equally cropped, and the sample has a third entry, "paired", 1.0 if
                     it has one, else 0.0. None looks for none
    notes:           (attribute) what the user should be told
    """

    def __init__(self, root, mode="train", unaligned=True, img_size=(256, 256), load_size=(286, 286), channels=3,
                 seed=0, cache=None, skip_bad_images=False, enlarge=False, color_jitter=0.0, rotate=0.0,
                 pairs=None):  # fmt: skip
        self.train, self.unaligned, self.seed = mode == "train", unaligned, seed
        self.color_jitter, self.rotate, self.tell_pairs = color_jitter, rotate, pairs is not None
        self.channels = dict(zip("AB", channels if isinstance(channels, tuple) else (channels, channels)))
        self.img_size, self.size = img_size, load_size if self.train else img_size
        self.skip_bad_images, self.notes = skip_bad_images, []
        self.smallest = img_size if self.train and not enlarge else None
        self.files = {domain: ImageFiles(find_folder(root, mode, domain)) for domain in "AB"}
        self.index = {domain: range(len(files)) for domain, files in self.files.items()}  # which of them are used
        # whether this domain is read as floats rather than as pictures of 8 bits: its first image tells
        self.is_array = {domain: is_array(files[0], self.channels[domain]) for domain, files in self.files.items()}
        bytes_a_pixel = {domain: self.channels[domain] * (4 if self.is_array[domain] else 1) for domain in "AB"}
        n_bytes = sum(len(self.files[d]) * self.size[0] * self.size[1] * bytes_a_pixel[d] for d in "AB")
        if cache is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # each one holds its own copy
            cache = self.train and n_bytes * processes <= CACHE_LIMIT_GIB * 2**30
        self.cache = {}
        for domain in "AB":
            if cache:
                dtype = torch.float32 if self.is_array[domain] else torch.uint8
                shape = len(self.files[domain]), *self.size, self.channels[domain]
                self.cache[domain] = torch.empty(shape, dtype=dtype)
            if cache or self.train:
                self._look_through(domain)
        self.pairs = {}
        if pairs is not None or not unaligned:
            self._find_pairs(root, pairs)

    def _look_through(self, domain):
        """Decodes every image into the cache, or looks at its header; sorts out the bad ones."""
        files = self.files[domain]
        if files.n_others:
            self.notes.append(
                f"{files.folder}: left out {files.n_others} that are no image files, such as {files.other}"
            )

        def look_at(i):
            """Returns the error, if any, rather than raise it: all bad images are to be counted."""
            try:
                if domain in self.cache:
                    self.cache[domain][i] = torch.from_numpy(self._decode(domain, i))
                elif self.is_array[domain]:
                    self._decode(domain, i)
                else:
                    with open_image(files[i], self.smallest):  # its header is all that is read
                        pass
            except InputError as error:
                return error

        count = len(files) if domain in self.cache else min(len(files), CHECK_LIMIT)
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
            bad = {i: error for i, error in enumerate(pool.map(look_at, range(count))) if error}
        if not bad:
            return
        first = str(next(iter(bad.values())))
        if len(bad) == len(files):
            raise InputError(f"{first} (and so for all {len(files)} images of this folder)")
        if not self.skip_bad_images:
            more = f" ({len(bad)} of the {len(files)} images of this folder)" if len(bad) > 1 else ""
            raise InputError(f"{first}{more}. --skip_bad_images goes on without")
        self.notes.append(f"{files.folder}: skipped {len(bad)} bad images of {len(files)}, beginning with {first}")
        self.index[domain] = np.array([i for i in range(len(files)) if i not in bad])

    def _find_pairs(self, root, path):
        pairs = read_pairs(path, self.files)
        used = {domain: {int(i): place for place, i in enumerate(self.index[domain])} for domain in "AB"}
        pairs = {a: b for a, b in pairs.items() if a in used["A"] and b in used["B"]}
        if not pairs:
            raise InputError(f"--pairs {path}: no pairs" if path else f"{root}: no file stem is the same in A and B")
        if self.unaligned:
            self.pairs = {used["A"][a]: used["B"][b] for a, b in pairs.items()}
            self.notes.append(f"{len(pairs)} images of A come with their counterparts in B")
        else:
            pairs = sorted(pairs.items())
            self.index = {domain: np.array(numbers) for domain, numbers in zip("AB", zip(*pairs))}

    def _decode(self, domain, i):
        return self.load(domain, self.files[domain][i], self.size, self.smallest)

    def load(self, domain, path, size, smallest=None):
        """One image of a domain: uint8 (H, W, C), or float32 from 0 to 1 if it is read so."""
        channels = self.channels[domain]
        if self.is_array[domain] and is_array(path, channels):
            return load_array(path, channels, size, smallest)
        image = load_image(path, channels, size, smallest)
        return image.astype(np.float32) / 255 if self.is_array[domain] else image

    def __len__(self):
        return max(len(self.index["A"]), len(self.index["B"]))

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        rng = np.random.default_rng((self.seed, epoch, index))
        random_B, crop_and_flip_A, crop_and_flip_B = rng.integers(len(self.index["B"])), rng.random(3), rng.random(3)
        colours_A, colours_B, angle_A, angle_B = rng.random(3), rng.random(3), rng.random(), rng.random()
        i_A, i_B = (index % len(self.index[domain]) for domain in "AB")
        counterpart = self.pairs.get(i_A)
        if counterpart is not None:
            i_B, angle_B, colours_B = counterpart, angle_A, colours_A
        if not self.unaligned or counterpart is not None:
            crop_and_flip_B = crop_and_flip_A
        elif self.train:
            i_B = random_B
        sample = {
            "A": self._sample("A", i_A, crop_and_flip_A, colours_A, angle_A),
            "B": self._sample("B", i_B, crop_and_flip_B, colours_B, angle_B),
        }
        return sample | ({"paired": torch.tensor(float(counterpart is not None))} if self.tell_pairs else {})

    def _sample(self, domain, i, crop_and_flip, colours, angle):
        """Image number i of a domain, augmented by random numbers from 0 to 1 -> float32 (C, H, W) in [-1, 1]."""
        image = self._pixels(domain, i)
        if self.train and self.rotate:
            image = rotated(image, (2 * angle - 1) * self.rotate)
        if self.train:
            height, width = self.img_size
            top = int(crop_and_flip[0] * (image.shape[0] - height + 1))
            left = int(crop_and_flip[1] * (image.shape[1] - width + 1))
            image = image[top : top + height, left : left + width]
            if crop_and_flip[2] < 0.5:
                image = image.flip(1)
        image = to_float(image)
        return jittered(image, 1 + (2 * colours - 1) * self.color_jitter) if self.train and self.color_jitter else image

    def _pixels(self, domain, i):
        """(H, W, C) from the cache or the file; with skip_bad_images, a bad file's place is taken by the next."""
        indices = self.index[domain]
        if domain in self.cache:
            return self.cache[domain][indices[i]]
        for shift in range(len(indices)):
            try:
                return torch.from_numpy(self._decode(domain, indices[(i + shift) % len(indices)]))
            except InputError as error:
                if not self.skip_bad_images:
                    raise InputError(f"{error}. --skip_bad_images goes on without") from error
                print(f"skipped {error}", file=sys.stderr)
        raise InputError(f"{self.files[domain].folder}: not one image can be used")


def to_float(image):
    """uint8, or float32 from 0 to 1, (H, W, C) -> float32 (C, H, W) in [-1, 1], the range of the generators' tanh."""
    half = 127.5 if image.dtype == torch.uint8 else 0.5
    return image.permute(2, 0, 1).contiguous().float() / half - 1
