"""Imports point downward only, and the budgets of lines hold."""

import ast
import pathlib
import re

import pytest
from helpers import ROOT

# from the bottom up; a module may import from the layers below it and from its own folder
LAYERS = ["utils", "command_line", "media", "models datasets get_data", "variants", "training inference", "cyclegan",
          "measuring", "deploy", "page",
          "translate evaluate export compress app prepare pretraining benchmarks examples"]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
FILES = [path.relative_to(ROOT) for path in pathlib.Path(ROOT).glob("*.py")]
FILES += [path.relative_to(ROOT) for name in LEVEL for path in pathlib.Path(ROOT, name).glob("*.py")]


def parsed(path):
    return ast.parse(pathlib.Path(ROOT, path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downward(path):
    here = path.parts[0].removesuffix(".py")
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in {module.split(".")[0] for module in modules} & LEVEL.keys():
                assert name == here or LEVEL[name] < LEVEL[here], f"line {node.lineno}: {here} imports {name}"


def branches(function):
    kinds = ast.If | ast.For | ast.While | ast.IfExp | ast.ExceptHandler | ast.comprehension
    return sum(isinstance(node, kinds) for node in ast.walk(function))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_functions_are_short(path):
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 70 and branches(node) <= 25, f"{path}: {node.name}"


def count_lines(*names):
    return sum(len(pathlib.Path(ROOT, name).read_text(encoding="utf-8").splitlines()) for name in names)


def test_budgets_of_lines():
    assert len(list(pathlib.Path(ROOT).glob("*.py"))) <= 10
    assert count_lines("cyclegan.py") <= 280
    assert count_lines("cyclegan.py", "models.py", "datasets.py", "utils.py") <= 800
    assert count_lines("README.md") <= 180


def imported(path, seen):
    """Adds to `seen` the files of the project that are read when the one at `path` is imported, and itself."""
    seen.add(path)
    names = []
    for node in parsed(path).body:  # not in functions, which import when they are called
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in names:
        place = pathlib.Path(*name.split("."))
        for file in (place.with_suffix(".py"), place.parent / "__init__.py", place / "__init__.py"):
            if pathlib.Path(ROOT, file).is_file() and file not in seen:
                imported(file, seen)
    return seen


def test_import_cyclegan_reads_little():
    files = imported(pathlib.Path("cyclegan.py"), set())
    assert {pathlib.Path("training/update.py"), pathlib.Path("media/__init__.py")} <= files
    assert pathlib.Path("variants/options.py") not in files and count_lines(*files) <= 2000


def test_every_folder_says_what_it_is_for():
    for name in LEVEL:
        if pathlib.Path(ROOT, name).is_dir():
            assert "May import" in ast.get_docstring(parsed(f"{name}/__init__.py")), name


SCRIPTS = [
    path.name for path in pathlib.Path(ROOT).glob("*.py") if path.name not in ("models.py", "datasets.py", "utils.py")
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_say_what_uv_has_to_install(name):
    """Inline metadata as in PEP 723, for `uv run cyclegan.py` on a machine without torch."""
    text = pathlib.Path(ROOT, name).read_text()
    (block,) = re.findall(r"(?m)^# /// script$\s((?:^#(?:| .*)$\s)+)^# ///$", text)
    metadata = dict(line[2:].split(" = ", 1) for line in block.splitlines())
    dependencies, required = ast.literal_eval(metadata["dependencies"]), requirements("requirements.txt")
    assert dependencies[: len(required)] == required
    assert set(dependencies[len(required) :]) <= set(requirements("requirements-optional.txt"))
    oldest = ast.literal_eval(metadata["requires-python"]).removeprefix(">=")
    assert f"You need Python {oldest} or newer" in pathlib.Path(ROOT, "README.md").read_text()


def requirements(name):
    lines = [line.split("#")[0].strip() for line in pathlib.Path(ROOT, name).read_text().splitlines()]
    return [line for line in lines if line]
