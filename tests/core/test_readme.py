"""The README cannot rot: its options exist, its commands are understood, its files are there."""

import argparse
import json
import os
import re
import shlex
import shutil

import av
import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image

import compress
import cyclegan
import evaluate
import export
import plot
import translate
from benchmarks import compare
from benchmarks import speed as benchmark
from variants import options

README = open(os.path.join(ROOT, "README.md"), encoding="utf-8").read()
VARIANTS, DEPLOYMENT = (
    open(os.path.join(ROOT, "docs", name), encoding="utf-8").read() for name in ("variants.md", "deployment.md")
)
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README + VARIANTS + DEPLOYMENT, re.DOTALL | re.MULTILINE)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if re.match(r" *(python|torchrun) ", line)]
MODULES = (cyclegan, translate, evaluate, benchmark, compare, plot, export, compress)
for script in MODULES:
    COMMANDS += re.findall(r"^    ((?:python|torchrun) [^#\n]*)", script.__doc__, re.MULTILINE)
SCRIPTS = tuple(script.__name__ if "." in script.__name__ else f"{script.__name__}.py" for script in MODULES)
OF = {name: [c for c in dict.fromkeys(COMMANDS) if name in c] for name in SCRIPTS}


def arguments(command, script):
    words = shlex.split(command, comments=True)
    assert words[0] in ("python", "torchrun")
    return words[words.index(script) + 1 :]


def actions_of(parser):
    """Those of subcommands too."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for way in action.choices.values():
                yield from way._actions


def options_of(parser):
    return {option for action in actions_of(parser) for option in action.option_strings}


def test_options_in_the_readme_exist():
    known = {"--help", "--nproc_per_node", "--nnodes", "--logdir", "--dist"}  # not ours: torchrun's, pytest's ...
    for script in MODULES:
        known |= options_of(script.get_parser())
    mentioned = set(re.findall(r"(?<![\w-])--[a-zA-Z]\w*(?:-\w+)?", README + VARIANTS + DEPLOYMENT))
    assert mentioned and mentioned <= known, mentioned - known
    assert sum(map(len, OF.values())) == len(set(COMMANDS))


@pytest.mark.parametrize("command", OF["cyclegan.py"])
def test_commands_for_training_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cyclegan.get_options(arguments(command, "cyclegan.py"))


@pytest.mark.parametrize("script", [benchmark, compare])
def test_commands_for_timing_and_comparing_are_understood(script):
    name = script.__name__
    for command in OF[name]:
        script.get_parser().parse_args(arguments(command, name))


def test_costs_are_what_the_code_counts():
    assert "\n".join(compare.costs_table()) in README


def test_every_variant_is_told_of():
    """Each option of options.py in docs/variants.md, and each run of compare.py in its table."""
    parser = argparse.ArgumentParser()
    options.add_variants(parser)
    memory = ("--cache", "--n_cpu", "--skip_bad_images", "--enlarge", "--accumulate", "--graph", "--compile")
    names = {action.option_strings[0] for action in parser._actions} - {"-h", *memory, "--checkpoint_activations"}
    assert not [name for name in names if f"`{name}" not in VARIANTS]
    for name in compare.VARIANTS:
        assert f"| {name} |" in VARIANTS


@pytest.mark.parametrize("command", OF["plot.py"])
def test_commands_for_curves_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    shutil.copytree("saved_models/demo", "saved_models/demo.1", dirs_exist_ok=True)
    words = arguments(command, "plot.py")
    plot.main(words)
    assert os.path.exists("both.png" if "--output" in words else "images/horse2zebra/curves.png")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """What the commands for trained models speak of: checkpoints, photos, a video, data sets."""
    folder = tmp_path_factory.mktemp("readme")
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for name in ("trainA", "trainB", "testA", "testB"):
            os.makedirs(f"data/horse2zebra/{name}")
            for i in range(2):
                labels = Image.new("RGB", picture.size, (128, 64, 128))  # of Cityscapes: road below a building
                labels.paste((70, 70, 70), (0, 0, picture.width, 20 + 5 * i))
                (labels if name[-1] == "A" else picture).save(f"data/horse2zebra/{name}/{i}.png")
        cyclegan.main(["--dataset_name", "horse2zebra", "--img_height", "32", "--img_width", "32", "--ngf", "4",
                       "--ndf", "4", "--n_residual_blocks", "1", "--n_epochs", "1", "--enlarge"])  # fmt: skip
        for direction in ("AB", "BA"):
            G = f"saved_models/horse2zebra/G_{direction}_"
            shutil.copy(G + "1.pth", G + "200.pth")
        for name in ("demo", "monet2photo", "vangogh2photo", "cityscapes", "facades"):
            shutil.copytree("saved_models/horse2zebra", f"saved_models/{name}")
            shutil.copy("saved_models/horse2zebra/G_AB_1.pth", f"saved_models/{name}/G_AB_6.pth")
        shutil.copytree("data/horse2zebra", "data/facades")
        shutil.copy("saved_models/horse2zebra/G_AB_1.pth", "latest_net_G_A.pth")
        os.makedirs("holiday/beach")
        for name in ("photo.jpg", "horse.jpg", "mask.png", "holiday/a.jpg", "holiday/beach/b.png"):
            picture.save(name)
        with av.open("clip.mp4", "w") as clip:
            stream = clip.add_stream("libx264", 10)
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            for _ in range(5):
                clip.mux(stream.encode(av.VideoFrame.from_image(picture)))
            clip.mux(stream.encode(None))
    return folder


@pytest.mark.parametrize("command", OF["translate.py"])
def test_commands_for_translating_run(command, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    options = arguments(command, "translate.py")
    for name in ("photo_translated.jpg", "photo_features.png", "zebras", "clip_zebra.mp4"):
        shutil.rmtree(name) if os.path.isdir(name) else os.path.exists(name) and os.remove(name)
    assert translate.main(options) == 0
    target = options[options.index("--output") + 1] if "--output" in options else None
    if target is None:
        target = "photo_features.png" if "--features" in options else "photo_translated.jpg"
    assert os.path.exists(target)
    if os.path.isdir(target):
        assert os.path.exists(f"{target}/a.jpg") and os.path.exists(f"{target}/beach/b.png")


@pytest.mark.parametrize("command", OF["evaluate.py"])
def test_commands_for_measuring_run(command, workplace, monkeypatch, no_downloads):
    monkeypatch.chdir(workplace)
    evaluate.main(arguments(command, "evaluate.py"))
    name = re.search(r"saved_models/(\w+)/", command)[1]
    last = json.loads(open(f"saved_models/{name}/metrics.jsonl").readlines()[-1])
    assert last["results"]["AB"]["cycle_l1"] > 0
    assert ("paired_l1" in last["results"]["AB"]) == ("--paired" in command)


@pytest.mark.parametrize("command", OF["export.py"])
def test_commands_for_exporting_run(command, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: None)  # takes a minute
    words = arguments(command, "export.py") + (["--rounds", "1", "--runs", "1"] if "--benchmark" in command else [])
    export.main([*words, "--psnr", "20"])  # of networks that were trained for two steps
    assert ("ONNX Runtime, INT8" in capsys.readouterr().out) == ("--benchmark" in command)


@pytest.mark.parametrize("command", OF["compress.py"])
def test_commands_for_compressing_run(command, workplace, monkeypatch, capsys, no_downloads):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(compress, "in_rounds", lambda builds, *rest, **how: {name: {"seconds": 1} for name in builds})
    words = arguments(command, "compress.py") + ["--n_epochs", "1"]
    if words[0] == "distill":  # the networks here are small already
        words += ["--fewer_products", "1", "--fewer_parameters", "1"]
    compress.main(words)
    assert "after/before" in capsys.readouterr().out


def test_the_python_snippet_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    exec(next(block for block in BLOCKS if block.startswith("import torch")), {})
    assert Image.open("zebra.png").size == (256, 256)


def test_the_snippet_without_this_project_runs(workplace, monkeypatch):
    """It gives what translate.py gives."""
    monkeypatch.chdir(workplace)
    Image.effect_noise((75, 51), 80).convert("RGB").save("photo.png")
    export.main(["--checkpoint", "saved_models/horse2zebra/G_AB_200.pth"])
    snippet = next(block for block in BLOCKS if "onnxruntime.InferenceSession" in block)
    assert set(re.findall(r"^(?:from|import) (\w+)", snippet, re.MULTILINE)) == {"numpy", "onnxruntime", "PIL"}
    exec(snippet.replace("photo.jpg", "photo.png"), {})
    translate.main(["--checkpoint", "saved_models/horse2zebra/G_AB_200.onnx", "--input", "photo.png", "--output",
                    "wanted.png", "--overwrite", "--size", "32x32"])  # fmt: skip
    made, wanted = (np.asarray(Image.open(name)).astype(int) for name in ("zebra.png", "wanted.png"))
    assert made.shape == wanted.shape == (32, 32, 3) and np.abs(made - wanted).max() <= 1


def test_links_and_files():
    for folder, text in (("", README), ("docs", VARIANTS), ("docs", DEPLOYMENT)):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert os.path.exists(os.path.join(ROOT, folder, target)), target
    for name in (
        "LICENSE",
        "requirements.txt",
        "requirements-optional.txt",
        "tests/requirements.txt",
        "data",
        "saved_models",
        "images",
    ):
        assert os.path.exists(os.path.join(ROOT, name))


@pytest.mark.parametrize("script", MODULES)
def test_help_is_complete(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    assert all(action.help for action in actions_of(script.get_parser())) and "%(" not in text
