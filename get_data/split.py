"""
Splits the pictures of a pix2pix data set, which show A at the left and B at the right, into the two domains.

    python -m get_data.split data/facades data/facades_split

    data/facades/train  val  test        ->  data/facades_split/trainA  trainB  testA  testB

`val` becomes `test` if there is no `test`. Both halves keep the name of the picture, so they are pairs for evaluation.
"""

import os
import sys

from PIL import Image

from utils import InputError, whole_file


def split_data_set(source, target):
    """Splits all pictures of `source`, see above -> number of pictures. Nothing that exists is overwritten.

    Raises InputError, naming the file, if one cannot be read.
    """
    if os.path.lexists(target):
        raise InputError(f"{target}: already exists. Name a new folder")
    modes = {"train": "train", "test": "test" if os.path.isdir(os.path.join(source, "test")) else "val"}
    folders = {mode: os.path.join(source, name) for mode, name in modes.items()}
    if not os.path.isdir(folders["train"]):
        raise InputError(f"{folders['train']}: no such folder. Expected are the pictures of a pix2pix data set")
    count = 0
    for mode, folder in folders.items():
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if os.path.splitext(name)[1].lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"):
                split_picture(os.path.join(folder, name), os.path.join(target, mode))
                count += 1
    if not count:
        raise InputError(f"{folders['train']}: holds no pictures")
    return count


def split_picture(path, prefix):
    """Writes the halves of a picture to PREFIXA and PREFIXB, as PNG, which loses nothing."""
    name = os.path.splitext(os.path.basename(path))[0] + ".png"
    try:
        with Image.open(path) as image:
            image.load()
            middle, (width, height) = image.width // 2, image.size
            halves = {"A": image.crop((0, 0, middle, height)), "B": image.crop((width - middle, 0, width, height))}
    except Exception as error:  # Pillow raises many kinds of errors on broken files
        raise InputError(f"{path}: broken, or not an image ({type(error).__name__}: {error})") from error
    for domain, half in halves.items():
        os.makedirs(prefix + domain, exist_ok=True)
        with whole_file(os.path.join(prefix + domain, name)) as temporary:
            half.save(temporary, format="png")


def main(argv=None):
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 2 or arguments[0].startswith("-"):
        sys.exit("usage: python -m get_data.split FOLDER NEW_FOLDER" + f"\n{__doc__}")
    try:
        count = split_data_set(*arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"split {count} pictures into {arguments[1]}: python cyclegan.py --dataset_name NAME")


if __name__ == "__main__":
    main()
