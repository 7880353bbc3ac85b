"""The README and docs/ cannot become outdated: options exist, commands run, links lead somewhere."""

import argparse
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree

import av
import numpy as np
import pytest
import torch
from commands import (
    GUIDES,
    OTHERS,
    anchors_of,
    arguments,
    blocks,
    commands_in,
    commands_in_docstring,
    links_in,
    options_in,
    prose,
    read,
)
from helpers import ROOT
from PIL import Image

import app
import compress
import cyclegan
import evaluate
import export
import prepare
import translate
from benchmarks import compare, few_images, recipes, speed, stopping, threads
from deploy import compression
from examples import clip, errors, low_dose
from get_data import split
from measuring import attribution, plot, report
from media import camera
from pretraining import inpainting
from training import start
from variants import options

pytestmark = pytest.mark.usefixtures("onnx_once")

MODULES = (cyclegan, translate, evaluate, app, speed, compare, threads, few_images, recipes, stopping, plot, report, export, compress, split,
           prepare, inpainting, attribution, clip, errors, low_dose)  # fmt: skip
NAMES = [module.__name__ if "." in module.__name__ else f"{module.__name__}.py" for module in MODULES]
COMMANDS = [c for page in (*GUIDES, "benchmarks/NOTES.md") for c in commands_in(read(page))]
COMMANDS += [c for module in MODULES for c in commands_in_docstring(module)]
COMMANDS = [c for c in dict.fromkeys(COMMANDS) if not re.search("--help|-m pytest|-m http.server|…$", c)]
OF = {name: [command for command in COMMANDS if name in command.split()] for name in NAMES}
SNIPPETS = list(dict.fromkeys(code for page in GUIDES for code in blocks(read(page), "python")))
EXPORTED = re.compile(r"saved_models/horse2zebra/(G_AB_200\S*\.(?:onnx|pt2))")
HUB = "saved_models/horse2zebra/hub"
LIKE_PHOTOS = ["--images", "data/horse2zebra/testB"]  # at 256x256, ONNX Runtime is inexact on the flat images of A
ALL_DOCS = "".join(map(read, GUIDES[1:]))


def slow_if_exported(texts):
    """Parameters of a test; those that need an exported file are slow."""
    return [
        pytest.param(text, marks=[pytest.mark.slow] * bool(EXPORTED.findall(text) or HUB in text)) for text in texts
    ]


def actions_of(parser):
    """The options of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from subparser._actions


##############################
#   Text
##############################


def test_readme_is_short_and_links_every_page():
    text = read("README.md")
    assert text.count("\n") <= 180
    assert {*GUIDES[1:], "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= {*links_in(text)}


@pytest.mark.parametrize("page", [*GUIDES, *OTHERS])
def test_lines_are_wrapped(page):
    """Tables cannot be wrapped, and links need not be."""
    text = (line for line in prose(read(page)).splitlines() if not re.match(r"\s*(\||!\[)", line))
    assert not [line for line in text if len(line) > 120]


@pytest.mark.parametrize("page", [*GUIDES, *OTHERS])
def test_links_lead_somewhere(page):
    for link in links_in(read(page)):
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, target)), link
        if anchor:
            assert anchor in anchors_of(read(target)), link


def test_pictures_are_small_and_used():
    shown = {os.path.normpath(os.path.join(os.path.dirname(p), link)) for p in GUIDES for link in links_in(read(p))}
    for name in os.listdir(f"{ROOT}/docs"):
        if not name.endswith(".md"):
            assert f"docs/{name}" in shown and os.path.getsize(f"{ROOT}/docs/{name}") <= 250_000, name


def test_drawing_is_self_contained():
    tree = ElementTree.parse(f"{ROOT}/docs/idea.svg")
    for element in tree.iter():
        assert not element.tag.endswith("script") and not [key for key in element.attrib if key.endswith("href")]
    assert "prefers-color-scheme: dark" in read("docs/idea.svg")


def test_files_that_the_readme_speaks_of_exist():
    for name in ("requirements.txt", "requirements-optional.txt", "tests/requirements.txt", "data", "saved_models"):
        assert os.path.exists(os.path.join(ROOT, name))


##############################
#   Options and numbers
##############################


@pytest.mark.parametrize("page", [*GUIDES, *OTHERS])
def test_options_exist(page):
    known = {
        "--help",
        "--nproc_per_node",
        "--nnodes",
        "--logdir",
        "--dist",
        "--check",
        "--shm-size",
        "--directory",
        "--local-dir",
    }  # torchrun's, pytest's, Docker's, hf's, ...
    for module in MODULES:
        known |= {option for action in actions_of(module.get_parser()) for option in action.option_strings}
    assert options_in(read(page)) <= known, options_in(read(page)) - known


def test_every_command_belongs_to_a_script():
    assert sum(map(len, OF.values())) == len(COMMANDS)
    assert all(OF.values())


def test_every_variant_is_explained():
    """Each option of variants/options.py is in docs/, and each run of benchmarks/compare.py in the table."""
    parser = argparse.ArgumentParser(add_help=False)
    options.add_variants(parser)
    names = {action.option_strings[0] for action in parser._actions}
    assert names and not [name for name in names if f"`{name}" not in ALL_DOCS]
    for name in compare.VARIANTS:
        assert f"| {name} |" in read("docs/variants.md")


@pytest.mark.slow
def test_costs_are_what_the_code_counts():
    assert "\n".join(compare.costs_table()) in read("docs/variants.md")


@pytest.mark.parametrize("module", MODULES)
def test_help_is_complete(module, capsys):
    with pytest.raises(SystemExit):
        module.main(["--help"])
    text = capsys.readouterr().out
    assert "%(" not in text
    for action in actions_of(module.get_parser()):
        help = getattr(action, "full_help", action.help)
        assert help and help != argparse.SUPPRESS, action.dest


##############################
#   Commands
##############################


@pytest.mark.parametrize("command", OF["cyclegan.py"])
def test_commands_for_training_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = arguments(command, "cyclegan.py")
    path = words[words.index("--options") + 1] if "--options" in words else ""
    if "--resume" in words and "--run_name" in words:
        path = f"saved_models/{words[words.index('--run_name') + 1]}/options.json"
    if path:  # of a run that there is
        path = tmp_path / path
        path.parent.mkdir(parents=True)
        path.write_text('{"options": {}}')
    monkeypatch.setattr(start, "read_start", lambda path, parser: {"path": path, "options": {}})
    cyclegan.get_options(words)


def test_commands_for_pretraining_are_understood():
    for command in OF["pretraining.inpainting"]:
        inpainting.read_options(inpainting.get_parser(), arguments(command, "pretraining.inpainting"), pretraining=True)


@pytest.mark.parametrize("module", [speed, compare, threads, few_images, recipes, stopping])
def test_commands_for_benchmarks_are_understood(module):
    for command in OF[module.__name__]:
        module.get_parser().parse_args(arguments(command, module.__name__))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the commands name: checkpoints, photos, a video, data sets."""
    folder = tmp_path_factory.mktemp("readme")
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        write_data_set("data/horse2zebra", picture)
        cyclegan.main(["--dataset_name", "horse2zebra", "--img_height", "32", "--img_width", "32", "--ngf", "4",
                       "--ndf", "4", "--n_residual_blocks", "1", "--n_epochs", "1", "--enlarge"])  # fmt: skip
        for direction in ("AB", "BA"):
            G = f"saved_models/horse2zebra/G_{direction}_"
            shutil.copy(G + "1.pth", G + "200.pth")
        for name in ("demo", "monet2photo", "vangogh2photo", "cityscapes", "facades", "stop"):
            shutil.copytree("saved_models/horse2zebra", f"saved_models/{name}")
            shutil.copy("saved_models/horse2zebra/G_AB_1.pth", f"saved_models/{name}/G_AB_6.pth")
        cyclegan.main(["--dataset_name", "horse2zebra", "--run_name", "icons", "--noise_channels", "2", "--img_height",
                       "32", "--img_width", "32", "--ngf", "4", "--ndf", "4", "--n_residual_blocks", "1", "--n_epochs",
                       "1", "--enlarge"])  # fmt: skip
        for part in ("trainA", "trainB", "testA", "testB"):
            os.makedirs(f"data/demo_volumes/{part}")
            np.save(f"data/demo_volumes/{part}/0.npy", np.full((8, 32, 32), 99, np.uint8))
        np.save("scan.npy", np.full((8, 32, 32), 99, np.uint8))
        cyclegan.main(["--dataset_name", "demo_volumes", "--discriminator", "pixel", "--img_depth", "8", "--ngf", "2",
                       "--n_epochs", "1"])  # fmt: skip
        shutil.copytree("data/horse2zebra", "data/facades")
        shutil.copy("saved_models/horse2zebra/G_AB_1.pth", "latest_net_G_A.pth")
        os.makedirs("holiday/beach")
        for name in ("photo.jpg", "horse.jpg", "mask.png", "holiday/a.jpg", "holiday/beach/b.png"):
            picture.save(name)
        write_video("clip.mp4", picture)
    return folder


def write_data_set(root, picture):
    for name in ("trainA", "trainB", "testA", "testB"):
        os.makedirs(f"{root}/{name}")
        for i in range(2):
            labels = Image.new("RGB", picture.size, (128, 64, 128))  # of Cityscapes: road below a building
            labels.paste((70, 70, 70), (0, 0, picture.width, 20 + 5 * i))
            (labels if name[-1] == "A" else picture).save(f"{root}/{name}/{i}.png")


def write_video(path, picture):
    with av.open(path, "w") as clip:
        stream = clip.add_stream("libx264", 10)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        for _ in range(5):
            clip.mux(stream.encode(av.VideoFrame.from_image(picture)))
        clip.mux(stream.encode(None))


def export_what_is_named(text):
    """Writes the exported files of G_AB_200 that a command or a snippet reads."""
    if HUB in text and not os.path.exists(HUB):
        export.main(["--checkpoint", "saved_models/horse2zebra/latest.pth", "--format", "hub", *LIKE_PHOTOS])
    for name in EXPORTED.findall(text):
        kind = "int8" if "int8" in name else name.rpartition(".")[2]
        size = [word for side in re.findall(r"\d+x\d+", name) for word in ("--size", side)]
        export.main(["--checkpoint", "saved_models/horse2zebra/G_AB_200.pth", "--format", kind, "--psnr", "20", *size,
                     *LIKE_PHOTOS])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", OF["measuring.plot"])
def test_commands_for_curves_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    shutil.copytree("saved_models/demo", "saved_models/demo.1", dirs_exist_ok=True)
    words = arguments(command, "measuring.plot")
    plot.main(words)
    assert os.path.exists("both.png" if "--output" in words else f"images/{words[0]}/curves.png")


@pytest.mark.parametrize("command", slow_if_exported(OF["translate.py"]))
def test_commands_for_translating_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    export_what_is_named(command)
    pattern = "testsrc=size=64x48:rate=5:duration=1"  # instead of a camera
    monkeypatch.setattr(camera, "open_camera", lambda name: av.open(pattern, format="lavfi"))
    monkeypatch.setattr(camera, "open_window", lambda title: None)
    words = arguments(command, "translate.py")
    for name in ("photo_translated.jpg", "photo_features.png", "zebras", "clip_zebra.mp4"):
        shutil.rmtree(name) if os.path.isdir(name) else os.path.exists(name) and os.remove(name)
    assert translate.main(words) == 0
    target = words[words.index("--output") + 1] if "--output" in words else None
    if target is None:
        target = "photo_features.png" if "--features" in words else "photo_translated.jpg"
        target = "webcam_translated.mp4" if "webcam" in words else target
        target = "photo_translated_4.jpg" if "--n_samples" in words else target
        target = "scan_translated.npy" if "scan.npy" in words else target
    assert os.path.exists(target)
    if os.path.isdir(target):
        assert os.path.exists(f"{target}/a.jpg") and os.path.exists(f"{target}/beach/b.png")


@pytest.mark.parametrize("command", slow_if_exported(OF["evaluate.py"]))
def test_commands_for_measuring_run(command, workplace, monkeypatch, no_downloads):
    monkeypatch.chdir(workplace)
    export_what_is_named(command)
    evaluate.main(arguments(command, "evaluate.py"))
    name = re.search(r"saved_models/(\w+)/", command)[1]
    last = json.loads(open(f"saved_models/{name}/metrics.jsonl").readlines()[-1])
    assert last["results"]["AB"]["cycle_l1"] > 0
    assert last["measured_by"]["version"] and last["trained_by"]["data"]["folder"] == "data/horse2zebra"
    assert ("paired_l1" in last["results"]["AB"]) == ("--paired" in command)


@pytest.mark.slow
@pytest.mark.parametrize("command", OF["export.py"])
def test_commands_for_exporting_run(command, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: None)  # takes a minute
    shutil.rmtree(HUB, ignore_errors=True)
    words = arguments(command, "export.py") + (["--rounds", "1", "--runs", "1"] if "--benchmark" in command else [])
    export.main([*words, *LIKE_PHOTOS, "--psnr", "20"])  # the networks were trained for two steps only
    assert ("ONNX Runtime, INT8" in capsys.readouterr().out) == ("--benchmark" in command)


@pytest.mark.parametrize("command", OF["compress.py"])
def test_commands_for_compressing_run(command, workplace, monkeypatch, capsys, no_downloads):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(compression, "in_rounds", lambda builds, *rest, **kw: {name: {"seconds": 1} for name in builds})
    words = arguments(command, "compress.py") + ["--n_epochs", "1"]
    if words[0] == "distill":  # the networks here are small already
        words += ["--fewer_products", "1", "--fewer_parameters", "1"]
    compress.main(words)
    assert "after/before" in capsys.readouterr().out


@pytest.mark.parametrize("command", OF["prepare.py"])
def test_commands_for_preparing_are_understood(command):
    opt = prepare.get_parser().parse_args(arguments(command, "prepare.py"))
    prepare.check_options(opt)


##############################
#   Python
##############################


@pytest.mark.parametrize("code", slow_if_exported(SNIPPETS))
def test_python_snippets_run(code, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    export_what_is_named(code)
    written = re.findall(r'"(zebra\.\w+)"', code)
    for name in written:
        if os.path.exists(name):
            os.remove(name)
    exec(code, {})
    assert all(Image.open(name).mode == "RGB" for name in written)


@pytest.mark.slow
def test_a_snippet_gives_what_translate_gives(workplace, monkeypatch):
    """The one that needs ONNX Runtime alone."""
    monkeypatch.chdir(workplace)
    Image.effect_noise((75, 51), 80).convert("RGB").save("photo.png")
    snippet = next(code for code in SNIPPETS if "onnxruntime.InferenceSession" in code)
    export_what_is_named(snippet)
    assert set(re.findall(r"^(?:from|import) (\w+)", snippet, re.MULTILINE)) == {"numpy", "onnxruntime", "PIL"}
    exec(snippet.replace("photo.jpg", "photo.png"), {})
    translate.main(["--checkpoint", "saved_models/horse2zebra/G_AB_200.onnx", "--input", "photo.png", "--output",
                    "wanted.png", "--overwrite", "--size", "32x32"])  # fmt: skip
    made, wanted = (np.asarray(Image.open(name)).astype(int) for name in ("zebra.png", "wanted.png"))
    assert made.shape == wanted.shape == (32, 32, 3) and np.abs(made - wanted).max() <= 1


@pytest.mark.slow
def test_the_snippet_for_opencv_gives_what_translate_gives(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    Image.effect_noise((256, 256), 80).convert("RGB").save("square.png")
    snippet = next(code for code in SNIPPETS if "readNetFromONNX" in code)
    export_what_is_named(snippet)
    assert set(re.findall(r"^(?:from|import) (\w+)", snippet, re.MULTILINE)) == {"cv2", "numpy"}
    exec(snippet.replace("photo.jpg", "square.png"), {})
    (name,) = EXPORTED.findall(snippet)
    translate.main(["--checkpoint", f"saved_models/horse2zebra/{name}", "--input", "square.png", "--output",
                    "wanted.png", "--overwrite"])  # fmt: skip
    made, wanted = (np.asarray(Image.open(name)).astype(int) for name in ("zebra.png", "wanted.png"))
    assert made.shape == wanted.shape == (256, 256, 3) and np.abs(made - wanted).max() <= 1
    assert wanted.std() > 1
