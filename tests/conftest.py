import contextlib
import functools
import os
import shutil

# before torch is imported; several workers with several threads each would wait for each other's cores
os.environ.setdefault("OMP_NUM_THREADS", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402
from helpers import ROOT, same_network, write_set  # noqa: E402

ONNX_FILES = {}  # see onnx_once


@pytest.fixture
def script():
    """The path of a script of the project."""
    return lambda name: os.path.join(ROOT, name)


@pytest.fixture
def make_set(tmp_path):
    """make_set(trainA=3, ...) writes a data set of random pictures into tmp_path/data/tiny -> its folder."""

    return functools.partial(write_set, tmp_path)


@pytest.fixture
def no_downloads(monkeypatch):
    """The networks that evaluate.py measures with are not to be had, which is said at once."""
    from measuring import metrics

    def cannot(*options):
        raise metrics.Unavailable("no network")

    for name in ("inception", "lpips"):
        monkeypatch.setattr(metrics, name, cannot)


@pytest.fixture
def onnx_once(monkeypatch):
    """The same network is written as ONNX once for all tests of a process: PyTorch takes ten seconds for it."""
    from deploy import formats

    real = formats.write_onnx

    def write(G, path, *options, **more):
        key = same_network(G, options, more)
        if key in ONNX_FILES:
            with open(path, "wb") as file:
                file.write(ONNX_FILES[key])
            return
        real(G, path, *options, **more)
        if key:
            with open(path, "rb") as file:
                ONNX_FILES[key] = file.read()

    monkeypatch.setattr(formats, "write_onnx", write)


@pytest.fixture
def make_generator(tmp_path):
    """make_generator("G.pth", ...) saves the weights of a small generator in tmp_path -> the generator."""
    import torch

    from models import GeneratorResNet

    def make(name="G.pth", seed=0, channels=3, n_residual_blocks=1, ngf=8, upsample="transpose"):
        torch.manual_seed(seed)
        generator = GeneratorResNet(channels, n_residual_blocks, ngf, upsample).eval()
        torch.save(generator.state_dict(), tmp_path / name)
        return generator

    return make


@pytest.fixture
def translate(tmp_path, monkeypatch, make_generator):
    """translate(option, ...) runs the main of translate.py in tmp_path, on G.pth if none is named -> exit status."""
    import translate

    monkeypatch.chdir(tmp_path)
    make_generator()

    def run(*options, checkpoint="G.pth"):
        return translate.main(
            ["--checkpoint", *checkpoint.split(), "--device", "cpu", "--no-amp", "--n_cpu", "2", *options]
        )

    return run


@pytest.fixture(scope="module")
def chromium():
    """chromium(option, ...) starts a browser, for a `with` block"""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        yield lambda *options: contextlib.closing(
            playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *options])
        )


@pytest.fixture(scope="module")
def browser(chromium):
    with chromium() as started:
        yield started
