"""The README cannot rot: its options exist, its commands are understood, its files are there."""

import os
import re
import shlex

import pytest

import cyclegan
from conftest import ROOT

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
