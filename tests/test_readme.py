"""The README cannot rot: its options exist, its commands are understood, its files are there."""

import os
import re
import shlex

import pytest
import torch
from PIL import Image

import cyclegan
from conftest import ROOT
from models import GeneratorResNet

README = open(os.path.join(ROOT, "README.md"), encoding="utf-8").read()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if re.match(r"(python|torchrun) ", line)]
COMMANDS += re.findall(r"^    ((?:python|torchrun) [^#\n]*)", cyclegan.__doc__, re.MULTILINE)


def options_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


def test_options_in_the_readme_exist():
    known = options_of(cyclegan.get_parser()) | {"--help", "--nproc_per_node", "--nnodes"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z]\w*(?:-\w+)?", README))
    assert mentioned and mentioned <= known, mentioned - known


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    assert words[0] in ("python", "torchrun") and "cyclegan.py" in words
    cyclegan.get_options(words[words.index("cyclegan.py") + 1 :])


def test_the_python_snippet_runs(tmp_path, monkeypatch):
    """With the demo's small generator in place of the large one."""
    snippet = next(block for block in BLOCKS if block.startswith("import torch"))
    small = dict(n_residual_blocks=3, ngf=24, upsample="nearest")
    assert 'n_residual_blocks=3, ngf=24, upsample="nearest"' in snippet
    assert all(cyclegan.DEMO[key] == value for key, value in small.items())
    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models/horse2zebra")
    torch.save(GeneratorResNet(**small).state_dict(), "saved_models/horse2zebra/G_AB_200.pth")
    Image.effect_noise((300, 200), 80).convert("RGB").save("horse.jpg")
    exec(snippet.replace("GeneratorResNet()", "GeneratorResNet(n_residual_blocks=3, ngf=24, upsample='nearest')"), {})
    assert Image.open("zebra.png").size == (256, 256)


def test_links_and_files():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert os.path.exists(os.path.join(ROOT, target)), target
    for name in ("LICENSE", "requirements.txt", "tests/requirements.txt", "data", "saved_models", "images"):
        assert os.path.exists(os.path.join(ROOT, name))


def test_help_is_complete(capsys):
    with pytest.raises(SystemExit):
        cyclegan.main(["--help"])
    text = capsys.readouterr().out
    assert all(action.help for action in cyclegan.get_parser()._actions) and "%(" not in text
