"""
Creates data sets that do not exist yet: draws the demo, and downloads the official ones.

May import utils and command_line.
"""

import os

from utils import InputError


def prepare_dataset(name, data_dir):
    """Returns the folder data_dir/name. If it does not exist, draws the demo or downloads an official data set first.

    Raises InputError if the folder does not exist and `name` is not a known data set, or if the download fails.
    """
    from get_data.demo import write_demo  # imported here, because most runs need neither
    from get_data.official import OFFICIAL_SETS, fetch_dataset

    root = os.path.join(data_dir, name)
    if os.path.isdir(root):
        return root
    if os.path.lexists(root):
        raise InputError(f"{root}: exists but is not a directory")
    if name == "demo":
        write_demo(root)
    elif name in OFFICIAL_SETS:
        fetch_dataset(name, data_dir)
    else:
        raise InputError(
            f"{root}: no such folder. Put your images into {root}/trainA and {root}/trainB, or name an official data "
            f"set: {' '.join(OFFICIAL_SETS)}"
        )
    return root
