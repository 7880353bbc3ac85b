import os

from get_data.demo import write_demo
from get_data.official import OFFICIAL_SETS, fetch_dataset
from utils import InputError


def prepare_dataset(name, data_dir):
    """-> data_dir/name. If it is missing, the demo is drawn and an official set is fetched."""
    root = os.path.join(data_dir, name)
    if os.path.isdir(root):
        return root
    if os.path.lexists(root):
        raise InputError(f"{root}: is there, but no folder")

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
