"""
What the project's texts say: pages, commands, options, code, links. Used by core/test_readme.py.
"""

import os
import re
import shlex

from helpers import ROOT

GUIDES = ["README.md", *sorted(f"docs/{name}" for name in os.listdir(f"{ROOT}/docs") if name.endswith(".md"))]
EXAMPLES = sorted(f"examples/{name}" for name in os.listdir(f"{ROOT}/examples") if name.endswith(".md"))
OTHERS = [*EXAMPLES, "benchmarks/NOTES.md", "CHANGELOG.md", "CONTRIBUTING.md"]
OTHERS += [f"{folder}/README.md" for folder in ("data", "images", "saved_models")]

BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
COMMAND = r"(?:\w+=\S+\s+)?(?:python|torchrun)\s"  # perhaps after OMP_NUM_THREADS=1


def read(page):
    """The text of a page, named by its path from the root of the repository."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def blocks(text, language=None):
    """The fenced blocks of a Markdown text; with a language, only those in it."""
    return [block for name, block in BLOCK.findall(text) if language in (None, name)]


def prose(text):
    """A Markdown text without its fenced blocks."""
    return BLOCK.sub("", text)


def commands_in(text):
    """Commands of a Markdown text, in fenced blocks and in inline code."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", prose(text))
    return [plain(command) for command in (*lines, *inline) if re.match(r"\s*" + COMMAND, command)]


def commands_in_docstring(module):
    """Indented commands of a module's docstring."""
    return [plain(command) for command in re.findall(rf"^    ({COMMAND}.*)", module.__doc__, re.MULTILINE)]


def plain(command):
    """A command on one line, without its comment and additional spaces."""
    return " ".join(re.split(r"\s#\s", command)[0].split())


def arguments(command, script):
    """The words that follow the script: 'python plot.py demo', 'plot.py' -> ['demo']."""
    words = shlex.split(command, comments=True)
    return words[words.index(script) + 1 :]


def options_in(text):
    """Long options that a text mentions, such as --n_epochs."""
    return set(re.findall(r"(?<![\w-])--[a-zA-Z]\w*(?:-\w+)?", text))


def links_in(text):
    """Targets of links and pictures, without those to other sites."""
    return re.findall(r"\]\((?!http)([^)]+)\)", prose(text))


def anchors_of(text):
    """The anchors that GitHub gives to the headings of a Markdown text."""
    headings = re.findall(r"^#+ (.*)", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
