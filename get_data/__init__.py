"""
Creates data sets that do not exist yet: draws the demo, unpacks the ones in sets/, downloads the official ones, and
makes one from photos.

May import utils, command_line and media.
"""

import os

from utils import InputError


def prepare_dataset(name, data_dir):
    """Returns the folder data_dir/name. If it does not exist, draws the demo, unpacks a set that comes with the project
    or downloads an official one first. Another process that does so at the same time is waited for.

    Raises InputError if the folder does not exist and `name` is not a known data set, or if the download fails.
    """
    root = os.path.join(data_dir, name)
    if os.path.isdir(root):
        return root
    # imported here, because most runs need none of them
    from get_data.demo import write_demo
    from get_data.embedded import SETS, write_embedded
    from get_data.official import OFFICIAL_SETS, fetch_dataset
    from get_data.part import one_process
    from get_data.volumes import write_demo_volumes

    if os.path.lexists(root):
        broken = os.path.islink(root) and not os.path.exists(root)
        raise InputError(f"{root}: " + ("is a broken symbolic link" if broken else "exists but is not a directory"))
    drawn = {"demo": write_demo, "demo_volumes": write_demo_volumes}
    if name not in (*drawn, *SETS, *OFFICIAL_SETS):
        raise InputError(unknown(name, data_dir, root, [*SETS, *OFFICIAL_SETS]))
    os.makedirs(data_dir, exist_ok=True)
    with one_process(root):
        if not os.path.isdir(root):  # another process may have made it
            if name in drawn:
                drawn[name](root)
            elif name in SETS:
                write_embedded(name, data_dir)
            else:
                fetch_dataset(name, data_dir)
    return root


def unknown(name, data_dir, root, known):
    """The message for a name that is neither a folder nor a data set in `known`: what it may have been meant to be."""
    import difflib

    there = sorted(os.listdir(data_dir)) if os.path.isdir(data_dir) else []
    folders = [entry for entry in there if os.path.isdir(os.path.join(data_dir, entry))]
    archive = next(
        (entry for entry in there if entry.lower() in (f"{name}.zip".lower(), f"{name}.tar.gz".lower())), None
    )
    folded = {entry.lower(): entry for entry in [*known, *folders]}
    close = difflib.get_close_matches(name.lower(), folded, 1)
    hint = f" {os.path.join(data_dir, archive)} is there: unpack it." if archive else ""
    hint += f" Did you mean {folded[close[0]]}?" if close else ""
    return (
        f"{root}: no such folder.{hint} Put your images into {root}/trainA and {root}/trainB, or name one of "
        f"these data sets: {' '.join(known)}"
    )
