"""
Splits the pictures of a pix2pix data set, which show A at the left and B at the right, into the two domains.

    python -m get_data.split data/facades data/facades_split

    data/facades/train  val  test        ->  data/facades_split/trainA  trainB  testA  testB

`val` becomes `test` if there is no `test`, else valA and valB. Both halves keep the name of the picture, so they are
pairs for evaluation.
"""

import os
import shlex

from command_line.parser import argument_parser
from command_line.run import run_script
from get_data.part import complete_folder
from media.images import IMAGE_EXTENSIONS, apply_orientation, open_image
from utils import InputError, whole_file


def split_data_set(source, target):
    """Splits all pictures of `source`, see above -> number of pictures. Nothing that exists is overwritten.

    Raises InputError, naming the file, if one cannot be read.
    """
    if os.path.lexists(target):
        raise InputError(f"{target}: already exists. Name a new folder")
    folders = {mode: os.path.join(source, mode) for mode in ("train", "test", "val")}
    if not os.path.isdir(folders["test"]):
        folders["test"] = folders.pop("val")
    if not os.path.isdir(folders["train"]):
        raise InputError(f"{folders['train']}: no such folder. Expected are the pictures of a pix2pix data set")
    count = 0
    with complete_folder(os.path.normpath(target)) as part:
        for mode, folder in folders.items():
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
                if name.lower().endswith(IMAGE_EXTENSIONS):
                    split_picture(os.path.join(folder, name), os.path.join(part, mode))
                    count += 1
        if not count:
            raise InputError(f"{folders['train']}: holds no pictures")
    return count


def split_picture(path, prefix):
    """Writes the halves of a picture to PREFIXA and PREFIXB, as PNG, which loses nothing."""
    name = os.path.splitext(os.path.basename(path))[0] + ".png"
    with open_image(path) as image:
        image = apply_orientation(image)
        image = image if image.mode in ("L", "I;16") else image.convert("RGB")
        middle, (width, height) = image.width // 2, image.size
        halves = {"A": image.crop((0, 0, middle, height)), "B": image.crop((width - middle, 0, width, height))}
    for domain, half in halves.items():
        os.makedirs(prefix + domain, exist_ok=True)
        with whole_file(os.path.join(prefix + domain, name)) as temporary:
            half.save(temporary, format="png")


def get_parser():
    parser = argument_parser("Split the pictures of pix2pix.", "python -m get_data.split FOLDER NEW_FOLDER")
    parser.add_argument("folder", metavar="FOLDER", help="data set with train, and test or val")
    parser.add_argument("new_folder", metavar="NEW_FOLDER", help="folder to write trainA, trainB, ... to")
    return parser


def main(argv=None):
    opt = get_parser().parse_args(argv)
    count = split_data_set(opt.folder, opt.new_folder)
    data_dir, name = os.path.split(os.path.normpath(opt.new_folder))
    command = ["python", "cyclegan.py", "--dataset_name", name] + (
        ["--data_dir", data_dir or "."] if data_dir != "data" else []
    )
    print(f"split {count} pictures into {opt.new_folder}. To train on them: {shlex.join(command)}")


if __name__ == "__main__":
    run_script(main)
