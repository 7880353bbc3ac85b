"""export.py --format web: what the folder contains, and the page in a real browser."""

import contextlib
import functools
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import threading

import numpy as np
import onnx
import pytest
import torch
from helpers import ROOT
from PIL import Image

import export
import translate
from deploy import web
from inference.load import load_generator
from media.files import save_file
from media.pictures import make_resize
from models import weights_init_normal
from utils import InputError
from variants.build import make_generator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
NODE_MODULES = os.environ.get("NODE_MODULES") or os.path.join(ROOT, "node_modules")
OURS = sorted(os.listdir(web.PAGE))
URL = re.compile(rb"""\b(?:https?|wss?|ftp):|["'(=\s]//\w""")
in_browser = [pytest.mark.slow, pytest.mark.chromium]


def picture(width, height, seed=0, mode="RGB"):
    """A smooth picture with noise, as a PIL image"""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(colours).astype(int) + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def save_checkpoint(name="horse2zebra", channels=3, **more):
    """Writes a full checkpoint of small networks, and pictures of its data set, into the current folder -> its path"""
    options = dict(dataset_name=name, img_height=48, img_width=64, channels=channels, ngf=8, n_residual_blocks=1) | more
    state = dict(version=1, options=options, epoch=3, provenance={"commands": ["python /home/jane/cyclegan.py"]})
    for seed, direction in enumerate(("AB", "BA")):
        torch.manual_seed(seed)
        G = make_generator(options, channels, channels).apply(weights_init_normal)
        with torch.no_grad():
            for part in G.modules():  # as after training, so that the epsilon of norms is negligible
                if isinstance(part, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                    part.weight *= 3
        state[f"G_{direction}"] = G.state_dict()
    os.makedirs(f"saved_models/{name}")
    save_file(state, f"saved_models/{name}/latest.pth")
    for domain in "AB":
        os.makedirs(f"data/{name}/test{domain}")
        picture(64, 48, mode="L" if channels == 1 else "RGB").save(f"data/{name}/test{domain}/0.png")
    return f"saved_models/{name}/latest.pth"


def stand_in(folder="."):
    """Small files in the place of onnxruntime-web"""
    dist = pathlib.Path(folder, web.PACKAGE, "dist")
    dist.mkdir(parents=True)
    for names in web.RUNTIMES.values():
        for i, name in enumerate(names):
            (dist / name).write_bytes(b"x" * (100 + i))
    (dist / "ort.all.min.js").write_text("not needed")
    (dist.parent / "package.json").write_text('{"version": "1.2.3"}')


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return save_checkpoint()


@pytest.fixture
def quick(monkeypatch):
    """Exports are ONNX files of a few bytes, which are not compared: seconds instead of half a minute."""

    def write(kind, path, trained, images, compared, int8, size=None, public=False):
        assert (kind, size, public) == ("onnx", None, True)
        pathlib.Path(path).write_bytes(b"network " + trained.direction.encode())

    monkeypatch.setattr(export, "export_file", write)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


RUNTIME = ["LICENSE.txt", "ort-wasm-simd-threaded.asyncify.wasm", "ort-wasm-simd-threaded.wasm",
           "ort.wasm.bundle.min.js", "ort.webgpu.bundle.min.js"]  # fmt: skip


##############################
#   The folder
##############################


def test_what_the_folder_contains(checkpoint, quick, capsys):
    stand_in()
    export.main(["--checkpoint", checkpoint, "--format", "web"])
    folder = "saved_models/horse2zebra/web"
    networks = ["G_AB_3.onnx", "G_BA_3.onnx", "networks.json"]
    assert files_in(folder) == sorted([*OURS, *networks, *(f"runtime/{name}" for name in RUNTIME)])
    for name in OURS:
        assert open(f"{folder}/{name}").read() == open(f"{web.PAGE}/{name}").read()
    facts = json.load(open(f"{folder}/networks.json"))
    assert facts["name"] == "horse2zebra"
    # four times the largest layer: 8 channels of float32 are padded by 3 pixels at 64 x 64: 4 * 8 * (1 + 70**2 / 64**2)
    shape = {"bytes": 10, "channels": 3, "out_channels": 3, "size": 48, "bytes_per_pixel": 4 * 71}
    assert facts["networks"] == [{"label": "horse → zebra", "file": "G_AB_3.onnx"} | shape,
                                 {"label": "zebra → horse", "file": "G_BA_3.onnx"} | shape]  # fmt: skip
    assert facts["runtimes"]["wasm"] == {
        "script": "runtime/ort.wasm.bundle.min.js", "binary": "runtime/ort-wasm-simd-threaded.wasm", "bytes": 101
    }  # fmt: skip
    licence = open(f"{folder}/runtime/LICENSE.txt").read()
    assert "1.2.3" in licence and "Microsoft" in licence and "MIT License" in licence
    said = capsys.readouterr().out
    assert "complete, with onnxruntime-web 1.2.3" in said and "npm" not in said
    assert f"python -m http.server --directory {folder}\n" in said


def test_without_the_package_the_rest_is_written_and_the_command_said(checkpoint, quick, capsys):
    export.main(["--checkpoint", checkpoint, "--format", "web", "--direction", "BA", "--output", "page"])
    assert files_in("page") == sorted([*OURS, "G_BA_3.onnx", "networks.json"])
    facts = json.load(open("page/networks.json"))
    assert facts["runtimes"] is None and [network["label"] for network in facts["networks"]] == ["zebra → horse"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "npm" in line]
    assert line == "note: page lacks onnxruntime-web. Run this, then export again: npm install onnxruntime-web"
    # once it is there, it is used, and later exports keep it
    stand_in()
    for _ in range(2):
        export.main(["--checkpoint", checkpoint, "--format", "web", "--direction", "BA", "--output", "page"])
        assert json.load(open("page/networks.json"))["runtimes"]["webgpu"]["bytes"] == 101
        assert sorted(os.listdir("page/runtime")) == RUNTIME
        shutil.rmtree("node_modules", ignore_errors=True)


def test_nothing_names_this_machine_or_another(checkpoint, monkeypatch, capsys):
    """Neither do the networks, which are public: the metadata of other exports holds commands."""
    stand_in()
    path = os.path.abspath(checkpoint)
    monkeypatch.setattr("sys.argv", [f"{ROOT}/export.py", "--checkpoint", path, "--format", "web"])
    export.main(["--checkpoint", path, "--format", "web", "--direction", "AB", "--output", "page"])
    for name in files_in("page"):
        data = open(f"page/{name}", "rb").read()
        for foreign in (ROOT, os.getcwd(), "/home/", "jane", os.path.dirname(torch.__file__)):
            assert foreign.encode() not in data, name
        if not name.endswith(".onnx"):
            assert not URL.search(data), name
    model = onnx.load("page/G_AB_3.onnx")
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert not {"exported_by", "trained_by"} & known.keys() and known["direction"] == "AB"
    assert not [text for entry in known.values() for text in URL.findall(entry.encode())]
    assert "onnx, compared with PyTorch on 1 image" in capsys.readouterr().out
    assert load_generator("page/G_AB_3.onnx").options["img_height"] == 48  # translate.py takes it


def test_the_policy_of_the_page():
    page = open(f"{web.PAGE}/index.html").read()
    policy = re.search(r'"Content-Security-Policy" content="([^"]*)"', page)[1]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.pop("default-src") == "'self'" and allowed.pop("script-src") == "'self' 'wasm-unsafe-eval'"
    assert {word for words in allowed.values() for word in words.split()} <= {"'self'", "'none'", "data:", "blob:"}
    assert "connect-src" not in allowed  # that of default-src
    assert web.MARK.decode() in page
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page)


@pytest.mark.parametrize("options, message", [
    (["--format", "web", "onnx"], "--format web: cannot be combined with other formats, --size or --benchmark"),
    (["--format", "web", "--size", "64x64"], "--format web: cannot be combined"),
    (["--format", "web", "--benchmark"], "--format web: cannot be combined"),
    (["--format", "web", "--output", "file"], "--output file: is a file. Name a folder"),
    (["--format", "web", "--output", "other"], "--output other: contains another index.html. Name another folder"),
])  # fmt: skip
def test_options_that_are_refused(checkpoint, quick, options, message):
    os.mkdir("other")
    for path in ("file", "other/index.html"):
        pathlib.Path(path).write_text("mine")
    with pytest.raises(InputError, match=re.escape(message)) as error:
        export.main(["--checkpoint", checkpoint, *options])
    assert "\n" not in str(error.value)
    assert pathlib.Path("other/index.html").read_text() == pathlib.Path("file").read_text() == "mine"
    assert os.listdir("other") == ["index.html"] and not os.path.exists("saved_models/horse2zebra/web")


def test_generators_that_are_refused(checkpoint, quick):
    for more, message in (
        ({"channels": 4}, "translates 4 channels to 4; browsers read gray and RGB pictures only"),
        ({"range_in": "0 500", "channels": 1}, "was trained with --range_A or --range_B; browsers read pictures of 8"),
    ):
        options = {"n_residual_blocks": 1, "ngf": 8, "channels": 3} | more
        options["out_channels"] = options["channels"]
        G = make_generator(options, options["channels"], options["channels"])
        save_file({"generator": options, "weights": G.state_dict()}, "G_AB_4.pth")
        with pytest.raises(InputError, match=f"^--format web: G_AB_4.pth {message}") as error:
            export.main(["--checkpoint", "G_AB_4.pth", "--format", "web", "--output", "page"])
        assert "\n" not in str(error.value)
    pathlib.Path("g.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="--checkpoint g.onnx: is already exported"):
        export.main(["--checkpoint", "g.onnx", "--format", "web"])
    assert not os.path.exists("page")
