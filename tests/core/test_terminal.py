"""What is printed fits the terminal; in a file it is as before."""

import importlib
import os
import re
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from PIL import Image, ImageDraw

from command_line import terminal
from command_line.progress import Progress, roughly
from command_line.provenance import VERSION
from media.sheets import GRID, with_captions
from training.pace import Pace

CPU = torch.device("cpu")
COLOUR = re.compile("\033\\[\\d*m")


@pytest.fixture
def wide(monkeypatch):
    """wide(columns) makes stdout a terminal of that width."""

    def set_columns(columns):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(terminal.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")

    return set_columns


def last_line(capsys):
    return capsys.readouterr().out.split("\r")[-1].rstrip(" \n")


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120, 200])
def test_whole_fields_are_left_out(wide, columns, tmp_path, capsys):
    wide(columns)
    progress = Progress(str(tmp_path / "log.jsonl"), first_step=0, last_step=266_800)
    losses = {f"loss_{name}": 1 / 3 for name in ("D", "G", "GAN", "cycle", "identity")}
    for step in (1, 100_000):
        progress.update(step, 2, CPU, epoch=0, lr=2e-4, **losses)
    coloured = last_line(capsys)
    line = COLOUR.sub("", coloured)
    fields = line.split("] ")[-1].split("  ")
    everything = ["step 100000/266800", "ETA 0:00", "epoch 1", "D 0.333", "G 0.333", "GAN 0.333", "cycle 0.333"]
    assert fields[:7] == everything[: len(fields)] and len(line) < columns
    assert ("[###.......] " in line) == (columns > 30) and ("\033[32m###" in coloured) == (columns > 30)
    assert len(fields) == {20: 1, 40: 1, 60: 4, 80: 6, 120: 8, 200: 10}[columns]
    progress.end_line()
    assert capsys.readouterr().out == "\n"


def test_a_shorter_line_covers_the_longer_one(wide, capsys):
    wide(100)
    progress = Progress()
    progress.show(["a" * 30], 0.5)
    progress.show(["b"], 0.5)
    first, second = COLOUR.sub("", capsys.readouterr().out).split("\r")[1:]
    assert len(first) == len(second) == 43 and second.rstrip() == "[#####.....] b"


def test_no_color_and_dumb_terminals_have_no_colour(wide, monkeypatch, capsys):
    wide(80)
    terminal.say("note: one")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.say("note: two")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    terminal.say("note: three")
    assert capsys.readouterr().out == "\033[33mnote: one\033[0m\nnote: two\nnote: three\n"


def test_lines_are_wrapped_at_words_and_commands_are_not(wide, capsys):
    text = (
        "health at step 100: " + ", ".join(f"word{i} 0.5" for i in range(20)) + "\n  advice: try --no-amp " + "x " * 60
    )
    command = "      python translate.py --checkpoint " + "y" * 100
    terminal.say(text + "\n" + command)
    assert capsys.readouterr().out == text + "\n" + command + "\n"  # in a file, nothing changes
    wide(60)
    terminal.say(text + "\n" + command)
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == command and max(map(len, lines)) < 60
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert lines[1].startswith("  0.5, word") and [line for line in lines if line.startswith("    x")]


def test_lines_come_by_time_on_a_slow_machine(tmp_path, capsys, monkeypatch):
    """A step takes six seconds: the second line, with the time left, comes after the second step at the latest."""
    now = [100.0]
    monkeypatch.setattr("command_line.progress.time.monotonic", lambda: now[0])
    progress = Progress(str(tmp_path / "log.jsonl"), first_step=0, last_step=1000)
    for step in range(1, 51):
        now[0] += 6
        if step in (1, 50):
            progress.update(step, 2, CPU, epoch=0, lr=2e-4, loss_G=0.5)
        progress.between(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1/1000  ETA 1:39:54  epoch 1  G 0.500")
    assert lines[1].startswith("step 2/1000  ETA 1:39:48  epoch 1  G 0.500")
    assert [int(re.match(r"step (\d+)/", line)[1]) for line in lines] == [1, 2, 4, 8, 15, 25, 35, 45, 50]
    assert len(open(tmp_path / "log.jsonl").readlines()) == 2  # the log is as before


def test_durations_in_words():
    found = [roughly(seconds) for seconds in (5, 100, 3000, 9000, 20 * 3600, 16 * 86400)]
    assert found == ["a minute", "2 minutes", "50 minutes", "2.5 hours", "20 hours", "16 days"]


def run_pace(pace, seconds, n, step=0, size=(64, 64), now=None):
    now = pace.began if now is None else now
    lines = []
    for i in range(n):
        now += seconds
        lines += pace.step(step + i + 1, size, now)
    return lines, now


@pytest.mark.parametrize("device, preset, words", [
    ("cpu", None, "note: at this pace it will take about 6.9 days on this CPU. --preset laptop "),
    ("cpu", "laptop", "at this pace it will take about 6.9 days"),
    ("cuda", None, "at this pace it will take about 6.9 days"),
])  # fmt: skip
def test_the_first_seconds_say_how_long_it_takes(device, preset, words):
    pace = Pace(torch.device(device), preset, 100_000)
    lines, _ = run_pace(pace, 6, 5)
    assert len(lines) == 1 and lines[0].startswith(words.replace("6.9", "7"))
    quick = Pace(torch.device(device), preset, 1800)
    lines, now = run_pace(quick, 0.14, 30)
    assert lines == ["at this pace it will take about 4 minutes"] and now - quick.began < 10


def test_the_first_step_does_not_count_for_the_time_it_takes():
    pace = Pace(CPU, None, 1800)
    assert run_pace(pace, 60, 1)[0] == []  # PyTorch sets itself up
    lines, _ = run_pace(pace, 0.5, 12, step=1, now=pace.before)
    assert lines == ["at this pace it will take about 15 minutes"]


def test_a_run_that_becomes_slow_says_so_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    pace = Pace(CPU, None, 10**5)
    pace.is_told = True
    lines, now = run_pace(pace, 0.1, 1000)
    assert lines == []
    lines, now = run_pace(pace, 0.2, 100, now=now)  # twice as slow is not worth a line
    assert lines == []
    lines, now = run_pace(pace, 4, 1, now=now)  # nor is a checkpoint, or a laptop that slept
    assert lines == []
    lines, now = run_pace(pace, 4, 100, now=now)
    assert len(lines) == 1 and "a step takes 4 s, and took 0.1 s" in lines[0] and "OMP_NUM_THREADS=1" in lines[0]
    lines, now = run_pace(pace, 1, 1000, size=(128, 128), now=now)  # larger images are slower, of course
    assert lines == []
    gpu = Pace(torch.device("cuda"), None, 10**5)
    gpu.is_told = True
    assert run_pace(gpu, 4, 50, now=run_pace(gpu, 0.1, 1000)[1])[0] == []


def test_threads(monkeypatch):
    from command_line.threads import choose_threads

    used = [2]
    monkeypatch.setattr(torch, "set_num_threads", lambda n: used.append(n))
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads(CPU, 64 * 64) == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choose_threads(CPU, 256 * 256) == 2 and choose_threads(torch.device("cuda"), 64 * 64) == 2
    assert choose_threads(CPU, 64 * 64) == 1 and used == [2, 1]
    used.append(8)  # measured on two cores only
    assert choose_threads(CPU, 64 * 64) == 8


@pytest.mark.parametrize("module, words, meant", [
    ("cyclegan", ["--batchsize", "2"], "--batchsize: did you mean --batch_size?"),
    ("cyclegan", ["--lambda-ssim", "2"], "--lambda-ssim: did you mean --lambda_ssim?"),  # hidden in --help
    ("translate", ["--checkpoint", "x", "--input", "y", "--keepsize", "--stregth", "1"],
     "--keepsize: did you mean --keep_size?; --stregth: did you mean --strength?"),
    ("compress", ["distill", "--checkpoint", "x", "--few_products", "3"], "did you mean --fewer_products?"),
    ("measuring.plot", ["x", "--qwertz"], None),
])  # fmt: skip
def test_mistyped_options_get_a_suggestion(module, words, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).get_parser().parse_args(words)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and "unrecognized arguments: " in message
    assert meant in message if meant else "did you mean" not in message


@pytest.mark.parametrize(
    "module",
    [
        "cyclegan",
        "translate",
        "evaluate",
        "export",
        "compress",
        "measuring.plot",
        "pretraining.inpainting",
        "benchmarks.speed",
    ],
)
def test_version(module, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).main(["--version"])
    line = capsys.readouterr().out
    assert stopped.value.code == 0 and line.startswith(f"CycleGAN {VERSION}") and f"torch {torch.__version__}" in line


def test_help_fits_one_and_a_half_screens():
    environment = os.environ | {"COLUMNS": "80"}
    help = subprocess.run([sys.executable, "cyclegan.py", "--help"], cwd=ROOT, env=environment, capture_output=True)
    assert help.stdout.count(b"\n") <= 58 and b"--preset" in help.stdout


def test_sample_grids_have_captions():
    for width, texts in ((64, GRID.keys()), (32, GRID.values())):
        grid = Image.new("RGB", (6 * (width + 2) + 2, 40), "gray")
        seen = []
        with pytest.MonkeyPatch.context() as monkeypatch:
            original = ImageDraw.ImageDraw.text

            def text(self, xy, words, original=original, seen=seen, **how):
                seen.append((xy[0], words))
                return original(self, xy, words, **how)

            monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
            result = with_captions(grid, GRID)
        assert seen == [(2 + i * (width + 2), words) for i, words in enumerate(texts)]
        assert result.size == (grid.width, grid.height + 14)
        assert result.crop((0, 14, *result.size)).tobytes() == grid.tobytes()  # the images are as before
        assert result.crop((0, 0, grid.width, 14)).convert("L").getextrema()[1] > 200
