"""page/models_found.py: what is offered, and that nothing else can be named."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from page.models_found import COMMAND_LINE, HOW_TO_TRAIN, Models, is_locked, is_running
from utils import InputError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """files("run/x.pth", ...) writes empty files into saved_models -> Models"""
    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models")

    def write(*names):
        for name in names:
            path = os.path.join(os.fsencode("saved_models"), os.fsencode(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "wb").close()
        return Models()

    return write


def test_runs_and_checkpoints(files):
    models = files(
        "a/latest.pth", "a/G_AB_5.pth", "a/G_BA_5.pth", "a/G_AB_10.pth", "a/checkpoint_12.pth", "a/net_G_A.pth",
        "a/.hidden.pth", "a/notes.txt", "b/log.jsonl", "c/notes.txt", ".d/latest.pth", "e.part/latest.pth", "README.md",
        b"f\xff/latest.pth", b"a/\xff.pth",
    )  # fmt: skip
    assert sorted(models.runs()) == ["a", "b"]
    assert models.translators() == ["a"]  # b has no checkpoint yet
    assert models.checkpoints("a") == ["latest", "epoch 12", "epoch 10", "epoch 5", "net_G_A.pth"]
    assert models.file("a", "latest", "BA") == "saved_models/a/latest.pth"
    assert models.file("a", "epoch 5", "BA") == "saved_models/a/G_BA_5.pth"
    assert models.file("a", "epoch 12", "BA") == "saved_models/a/checkpoint_12.pth"
    assert models.file("a", "net_G_A.pth", "AB") == "saved_models/a/net_G_A.pth"
    with pytest.raises(InputError, match="a, epoch 10: has no generator for B -> A"):
        models.file("a", "epoch 10", "BA")
    assert models.kept("a", "AB") == ["epoch 5", "epoch 10", "epoch 12"]
    assert models.kept("a", "BA") == ["epoch 5", "epoch 12"]


def test_a_name_with_zeros_is_found_again(files):
    models = files("a/G_AB_007.pth", "a/checkpoint_010.pth")
    assert models.checkpoints("a") == ["epoch 10", "epoch 7"]
    assert models.file("a", "epoch 7", "AB") == "saved_models/a/G_AB_007.pth"
    assert models.file("a", "epoch 10", "BA") == "saved_models/a/checkpoint_010.pth"
    assert models.kept("a", "AB") == ["epoch 7", "epoch 10"] and models.kept("a", "BA") == ["epoch 10"]


def test_many_runs_are_listed_once_each(files, monkeypatch):
    """The folder of the runs, and each run twice: is it a run, and does it have a checkpoint?"""
    models = files(*(f"run{i}/G_AB_{i}.pth" for i in range(20)))
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or real(folder))
    assert len(models.translators()) == 20 and len(listed) == 1 + 2 * 20
    listed.clear()
    assert models.file("run3", "epoch 3", "AB").endswith("run3/G_AB_3.pth") and len(listed) == 3
    listed.clear()
    assert models.kept("run3", "AB") == ["epoch 3"] and len(listed) == 3


def test_files_of_the_command_line(files):
    files("a/latest.pth")
    models = Models(files=("/elsewhere/G.pth",))
    assert models.translators() == [COMMAND_LINE, "a"]
    assert models.checkpoints(COMMAND_LINE) == ["G.pth"]  # no folder is shown to visitors
    assert models.file(COMMAND_LINE, "G.pth", "AB") == "/elsewhere/G.pth"
    several = Models(files=("/one/G.pth", "/two/G.pth", "/three/hub/")).named_files()
    assert several == {"G.pth": "/one/G.pth", "G.pth (2)": "/two/G.pth", "hub": "/three/hub/"}
    with pytest.raises(InputError):
        models.file(COMMAND_LINE, "/elsewhere/G.pth", "AB")
    with pytest.raises(InputError):
        Models().checkpoints(COMMAND_LINE)


HOSTILE = ["", "..", ".", "../a", "a/../a", "a/", "/etc", "a\0", "saved_models/a", "A", None, 0, ["a"], {"a": 1}, True, "a" * 10**5]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
def test_names_that_are_not_in_the_list_are_refused(files, name):
    models = files("a/latest.pth", "secret.pth")
    for ask in (models.checkpoints, models.folder_of, models.record, models.grids, models.trained_size):
        with pytest.raises(InputError) as error:
            ask(name)
        assert len(str(error.value)) < 200
    with pytest.raises(InputError):
        models.file("a", name, "AB")
    with pytest.raises(InputError):
        models.file(name, "latest", "AB")
    with pytest.raises(InputError):
        models.file("a", "latest", name)
    with pytest.raises(InputError):
        models.grid("a", name)


def test_without_a_run_it_says_how_to_make_one(files):
    with pytest.raises(InputError, match="python cyclegan.py"):
        files().folder_of("a")
    assert "python cyclegan.py" in HOW_TO_TRAIN


def test_grids_and_size(files):
    models = files("a/log.jsonl")
    os.makedirs("images/a")
    for name in ("000000.png", "000250.png", "1000000.png", "curves.png", "00.png", "000250_AB.png"):
        open(f"images/a/{name}", "w").close()
    assert models.grids("a") == [0, 250, 1000000]
    assert models.grid("a", 250) == "images/a/000250.png" and models.grid("a", 1000000) == "images/a/1000000.png"
    for step in (1, -250, 250.0, "250", "../x"):
        with pytest.raises(InputError):
            models.grid("a", step)
    assert models.trained_size("a") == 256
    for text, size in (('{"options": {"img_height": 96, "img_width": 128}}', 96), ('{"options": 3}', 256), ("{", 256),
                       ('{"options": {"img_height": 0, "img_width": 128}}', 256)):  # fmt: skip
        with open("saved_models/a/options.json", "w") as file:
            file.write(text)
        assert models.trained_size("a") == size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where locks can be asked for")
def test_a_locked_run_is_running_and_comes_first(files):
    models = files("a/lock", "a/log.jsonl", "b/lock", "b/log.jsonl", "c/log.jsonl")
    for i, name in enumerate("abc"):
        os.utime(f"saved_models/{name}/log.jsonl", (1000 + i, 1000 + i))
        os.utime(f"saved_models/{name}", (1000 + i, 1000 + i))
    assert models.runs() == ["c", "b", "a"]
    assert is_locked("saved_models/a/lock") is False and is_locked("saved_models/c/lock") is None
    code = "from training.folders import lock_run; file = lock_run('saved_models/a'); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": ROOT})  # fmt: skip
    try:
        process.stdout.readline()
        assert is_locked("saved_models/a/lock") is True and is_running("saved_models/a")
        assert models.runs() == ["a", "c", "b"]
    finally:
        process.communicate(b"\n")
    assert is_locked("saved_models/a/lock") is False
    # asking did not take the lock, and without a lock file the log decides
    assert is_running("saved_models/c", now=1002 + 100) and not is_running("saved_models/c", now=1002 + 200)
