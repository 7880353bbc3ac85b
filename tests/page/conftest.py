import contextlib
import io
import os

import numpy as np
import pytest
from helpers import SMALL
from PIL import Image

import cyclegan


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the run "tiny": two epochs of 4 + 5 images of 40 x 40 pixels, with sample grids; what training printed
    is in printed.txt. Also a photo that lies on its side."""
    folder, rng, out = tmp_path_factory.mktemp("trained"), np.random.default_rng(0), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(folder)
        for name in ("trainA", "trainB", "testA", "testB"):
            os.makedirs(f"data/tiny/{name}")
            for i in range(4 + (name == "trainB")):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(f"data/tiny/{name}/{i}.png")
        cyclegan.main([*SMALL, "--n_epochs", "2", "--checkpoint_interval", "1", "--sample_interval", "4"])
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rng.integers(0, 256, (48, 72, 3), dtype=np.uint8)).save("photo.jpg", exif=exif)
    (folder / "printed.txt").write_text(out.getvalue())
    return folder
