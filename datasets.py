"""
Two folders of images -> unpaired training samples. Both layouts are read:

    data/NAME/trainA  trainB  testA  testB         the official archives
    data/NAME/train/A  train/B  test/A  test/B     PyTorch-GAN

A data set that is named but missing is drawn (demo_data.py) or fetched (fetch.py).
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps

from utils import InputError

# Pillow warns of what it takes, above 89 million pixels; above 179 million it refuses, and so do we
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
IMAGE_EXTENSIONS = tuple(e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN)
CACHE_LIMIT_GIB = 4.0  # a larger data set is decoded again in every epoch, by worker processes
CHECK_LIMIT = 100_000  # images of a domain that are looked at before training; of more, the first ones


##############################
#         One image
##############################


@contextlib.contextmanager
def open_image(path, smallest=None):
    """Opens a picture for the length of a `with` block, its size checked; whatever goes wrong in there is an InputError
    that names the path."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: no regular file")  # to open a pipe would wait for ever
        with Image.open(path) as image:
            check_size(path, image, smallest)
            yield image
    except InputError:
        raise
    except Exception as error:  # on a broken file the decoders raise nearly anything
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise InputError(f"{path}: broken, or no image ({reason})") from error


def load_image(path, channels=3, size=None, smallest=None):
    """Decodes one picture -> uint8 array (H, W, channels).

    Takes all that Pillow opens: EXIF rotation is applied, transparency is laid over white, palettes and CMYK become
    RGB, 16-bit values are scaled to 8 bits (not clipped), of an animation the first frame is taken.

    channels: 1 gray, 3 RGB
    size:     (height, width) to resize to, bicubic; None leaves the size as it is
    smallest: (height, width) that the picture must have before it is resized
    Raises InputError, naming the path.
    """
    with open_image(path, smallest) as image:
        if size:  # a large JPEG need not be decoded at full size: DCT scaling, at least twice what is needed
            image.draft(None, (2 * max(size), 2 * max(size)))
        image = to_8_bit(upright(image))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert({1: "L", 3: "RGB"}[channels])
    if size:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(image).reshape(image.height, image.width, channels)


def upright(image):
    """The picture turned as its EXIF says, or as it is stored if its EXIF makes no sense."""
    image.load()  # if the picture itself is broken, that is an error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises nearly anything
        return image


def to_8_bit(image):
    """Integer (0..65535) and float (0..1) pictures -> mode 'L', scaled. Others are returned as they are."""
    if image.mode[0] not in "IF":
        return image
    top = 1.0 if image.mode == "F" else 65535
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(f"mode {image.mode} with values from {values.min()} to {values.max()}, expected 0 to {top}")
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def check_size(path, image, smallest):
    """Raises InputError if an opened picture, turned upright, is smaller than (height, width)."""
    width, height = image.size
    with contextlib.suppress(Exception):  # EXIF that makes no sense, as in upright()
        # orientations 5 to 8 lie on their side. Not image.getexif(): for a PNG that decodes the whole picture
        if Image.Image.getexif(image).get(0x0112, 1) > 4:
            width, height = height, width
    if smallest and (height < smallest[0] or width < smallest[1]):
        raise InputError(
            f"{path}: {width} x {height} pixels, smaller than the crop of {smallest[1]} x {smallest[0]}. "
            "Train at a smaller --img_height and --img_width, or let --enlarge scale such images up"
        )


##############################
#        Two folders
##############################


class ImageFiles:
    """The image files of one folder, sorted, as paths. The names are one array of fixed width: 10 million of them take
    some hundred MB, which worker processes share; as many Python strings would take over a GB."""

    def __init__(self, folder):
        self.folder, self.n_others, self.other = folder, 0, None
        arrays, names = [], []
        with os.scandir(folder) as entries:  # one pass: no call per file
            for entry in entries:
                if entry.name.startswith("."):  # .DS_Store, and the ._* files of macOS
                    continue
                if entry.name.lower().endswith(IMAGE_EXTENSIONS) and entry.is_file():
                    names.append(os.fsencode(entry.name))
                    if len(names) == 100_000:
                        arrays.append(np.array(names))
                        names = []
                else:
                    self.n_others, self.other = self.n_others + 1, entry.name
        self.names = np.sort(np.concatenate([*arrays, np.array(names, dtype=bytes)]))
        if not len(self.names):
            raise InputError(f"{folder}: holds no image (subfolders are not searched). Put this domain's images there")

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return os.path.join(self.folder, os.fsdecode(self.names[i]))


def stem(path):
    """'a/b.c.jpg' -> 'b.c': what a picture is paired by."""
    return os.path.splitext(os.path.basename(path))[0]


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
    cache:           keep the decoded, resized images in memory; None: if they take at most CACHE_LIMIT_GIB
    skip_bad_images: go on without images that cannot be used; otherwise the first is an InputError
    enlarge:         accept training images smaller than img_size
    notes:           (attribute) what the user should be told
    """

    def __init__(self, root, mode="train", unaligned=True, img_size=(256, 256), load_size=(286, 286), channels=3,
                 seed=0, cache=None, skip_bad_images=False, enlarge=False):  # fmt: skip
        self.train, self.unaligned, self.channels, self.seed = mode == "train", unaligned, channels, seed
        self.img_size, self.size = img_size, load_size if self.train else img_size
        self.skip_bad_images, self.notes = skip_bad_images, []
        self.smallest = img_size if self.train and not enlarge else None
        self.files = {domain: ImageFiles(find_folder(root, mode, domain)) for domain in "AB"}
        self.index = {domain: range(len(files)) for domain, files in self.files.items()}  # which of them are used
        n_bytes = sum(map(len, self.files.values())) * self.size[0] * self.size[1] * channels
        if cache is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # each one holds its own copy
            cache = self.train and n_bytes * processes <= CACHE_LIMIT_GIB * 2**30
        self.cache = {}
        for domain in "AB":
            if cache:
                self.cache[domain] = torch.empty(len(self.files[domain]), *self.size, channels, dtype=torch.uint8)
            if cache or self.train:
                self._look_through(domain)
        if not unaligned:
            self._pair_by_stem(root)

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

    def _pair_by_stem(self, root):
        of_stem = {domain: {stem(self.files[domain][i]): i for i in self.index[domain]} for domain in "AB"}
        common = sorted(of_stem["A"].keys() & of_stem["B"].keys())
        if not common:
            raise InputError(f"{root}: no file stem is the same in A and B, so there are no pairs")
        self.index = {domain: np.array([of_stem[domain][s] for s in common]) for domain in "AB"}

    def _decode(self, domain, i):
        return load_image(self.files[domain][i], self.channels, self.size, self.smallest)

    def __len__(self):
        return max(len(self.index["A"]), len(self.index["B"]))

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} samples")
        rng = np.random.default_rng((self.seed, epoch, index))
        random_B, crop_and_flip_A, crop_and_flip_B = rng.integers(len(self.index["B"])), rng.random(3), rng.random(3)
        i_A, i_B = (index % len(self.index[domain]) for domain in "AB")
        if not self.unaligned:
            crop_and_flip_B = crop_and_flip_A
        elif self.train:
            i_B = random_B
        return {"A": self._sample("A", i_A, crop_and_flip_A), "B": self._sample("B", i_B, crop_and_flip_B)}

    def _sample(self, domain, i, crop_and_flip):
        """Image number i of a domain, cropped and flipped by three random numbers from 0 to 1 -> float32 (C, H, W)."""
        image = self._pixels(domain, i)
        if self.train:
            height, width = self.img_size
            top = int(crop_and_flip[0] * (image.shape[0] - height + 1))
            left = int(crop_and_flip[1] * (image.shape[1] - width + 1))
            image = image[top : top + height, left : left + width]
            if crop_and_flip[2] < 0.5:
                image = image.flip(1)
        return to_float(image)

    def _pixels(self, domain, i):
        """uint8 (H, W, C) from the cache or the file; with skip_bad_images, a bad file's place is taken by the next."""
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
            images.append(to_float(torch.from_numpy(load_image(files[i], dataset.channels, dataset.img_size))))
        except InputError as error:
            if not dataset.skip_bad_images:
                raise InputError(f"{error}. --skip_bad_images goes on without") from error
            dataset.notes.append(f"skipped {error}")
        if len(images) == n:
            break
    if not images:
        raise InputError(f"{files.folder}: not one image can be used")
    return torch.stack(images)


def to_float(image):
    """uint8 (H, W, C) -> float32 (C, H, W) in [-1, 1], the range of the generators' tanh."""
    return image.permute(2, 0, 1).contiguous().float() / 127.5 - 1


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

    def set_position(self, epoch, first_batch=0):
        """Call before each epoch; first_batch > 0 continues one that was broken off."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self):
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self):
        seed = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(int(seed)))
        for batch in range(self.first_batch, len(self)):
            start = (batch * self.world_size + self.rank) * self.batch_size
            yield [(self.epoch, i) for i in order[start : start + self.batch_size].tolist()]


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


def prepare_dataset(name, data_dir):
    """-> data_dir/name. If it is missing, the demo is drawn and an official set is fetched."""
    root = os.path.join(data_dir, name)
    if os.path.isdir(root):
        return root
    if os.path.lexists(root):
        raise InputError(f"{root}: is there, but no folder")
    from demo_data import write_demo  # here, as most runs need neither
    from fetch import OFFICIAL_SETS, fetch_dataset

    if name == "demo":
        write_demo(root)
    elif name in OFFICIAL_SETS:
        fetch_dataset(name, data_dir)
    else:
        raise InputError(
            f"{root}: no such folder. Put your images into {root}/trainA and {root}/trainB, or name an official set: "
            + " ".join(OFFICIAL_SETS)
        )
    return root
