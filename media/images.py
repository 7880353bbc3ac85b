"""
One image file to pixels, and the image files of a folder. Whatever is wrong with a file is an InputError that names it.
"""

import contextlib
import os

import numpy as np
from PIL import Image, ImageOps

from media.files import reading
from utils import InputError

IMAGE_EXTENSIONS = (*(e for e, kind in Image.registered_extensions().items() if kind in Image.OPEN), ".npy")


@contextlib.contextmanager
def open_image(path, smallest=None):
    """Opens a picture for the length of a `with` block, its size checked; whatever goes wrong in there is an InputError
    that names the path."""
    with reading(path), Image.open(path) as image:
        check_size(path, image, smallest)
        yield image


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
    check_smallest(path, height, width, smallest)


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


def check_smallest(path, height, width, smallest):
    """Raises InputError for an image smaller than (height, width); None lets all pass."""
    if smallest and (height < smallest[0] or width < smallest[1]):
        raise InputError(
            f"{path}: {width} x {height} pixels, smaller than the crop of {smallest[1]} x {smallest[0]}. "
            "Train at a smaller --img_height and --img_width, or let --enlarge scale such images up"
        )


def pair_by_stem(files_A, files_B):
    """Two lists of paths -> {i of A: i of B} of the files with the same stem."""
    number = {stem(files_B[i]): i for i in range(len(files_B))}
    return {i: number[stem(files_A[i])] for i in range(len(files_A)) if stem(files_A[i]) in number}
