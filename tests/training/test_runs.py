"""The folders of runs, and what happens to a run from outside: signals, disks, terminals, links, other data."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same, load
from PIL import Image

import cyclegan
from command_line.output import Unbreakable
from command_line.parser import not_divisible
from inference.load import load_generator
from training import checkpoints, folders, run, signals
from utils import InputError


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    """A small data set below the working directory -> train(option, ...), which runs main."""
    make_set()
    monkeypatch.chdir(tmp_path)
    return lambda *options: cyclegan.main([*SMALL, *options])


def die_at(monkeypatch, step):
    """Lets the process end in a step, as if it had been killed."""
    original, count = cyclegan.train_step, [0]

    def train_step(*arguments):
        count[0] += 1
        if count[0] == step:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(cyclegan, "train_step", train_step)


def kill(monkeypatch, tiny, *options, step=1):
    with monkeypatch.context() as patch:
        die_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            tiny(*options)


def files(folder="saved_models/tiny"):
    return set(os.listdir(folder))


# ----- what is saved, and when


def test_saved_by_the_clock_within_an_epoch_and_resumed_exactly(tiny, monkeypatch):
    tiny("--n_epochs", "3", "--run_name", "whole")
    kill(monkeypatch, tiny, "--n_epochs", "3", "--save_minutes", "1e-9", step=9)
    run.Background().finish()
    state = load()
    assert state["epoch"] == 1 and 0 < state["batch"] <= 3 and state["step"] == 5 + state["batch"]
    tiny("--resume", "--save_minutes", "15")
    assert_same(load("saved_models/whole/latest.pth") | {"options": None}, load() | {"options": None})


def test_the_clock_of_save_minutes(tiny, monkeypatch):
    saved, now = [], [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "save_run", lambda state, folder, keep, n: saved.append((state["step"], keep)))
    original = cyclegan.train_step

    def train_step(*arguments):
        now[0] += 4 * 60
        return original(*arguments)

    monkeypatch.setattr(cyclegan, "train_step", train_step)
    tiny("--n_epochs", "1")
    assert saved == [(4, None), (5, 1)]  # 15 minutes have passed after the fourth step of four minutes
    saved.clear()
    tiny("--n_epochs", "1", "--save_minutes", "0")
    assert saved == [(5, 1)]


def test_generators_are_written_before_the_checkpoints(tiny, monkeypatch):
    names, original = [], checkpoints.save_file
    monkeypatch.setattr(
        checkpoints, "save_file", lambda state, path: (names.append(os.path.basename(path)), original(state, path))
    )
    tiny("--n_epochs", "1")
    assert names == ["G_AB_1.pth", "G_BA_1.pth", "checkpoint_1.pth", "latest.pth"]


def test_the_last_two_full_checkpoints_are_kept_and_all_generators(tiny):
    tiny("--n_epochs", "4", "--checkpoint_interval", "1")
    generators = {f"G_{d}_{n}.pth" for d in ("AB", "BA") for n in (1, 2, 3, 4)}
    rest = {"latest.pth", "log.jsonl", "lock", "options.json"}
    assert files() == generators | rest | {"checkpoint_3.pth", "checkpoint_4.pth"}
    tiny("--n_epochs", "2", "--checkpoint_interval", "1", "--keep_checkpoints", "0", "--run_name", "none")
    assert not any(name.startswith("checkpoint") for name in files("saved_models/none"))


def test_a_run_of_a_version_that_kept_all_keeps_all(tiny):
    tiny("--n_epochs", "3", "--checkpoint_interval", "1", "--keep_checkpoints", "9")
    state = torch.load("saved_models/tiny/latest.pth")
    del state["options"]["keep_checkpoints"], state["provenance"]
    torch.save(state, "saved_models/tiny/latest.pth")
    tiny("--resume", "--n_epochs", "4")
    assert {f"checkpoint_{n}.pth" for n in (1, 2, 3, 4)} <= files()


@pytest.mark.parametrize("options", [("--checkpoint_interval", "1"), ("--ema", "0.9", "--keep_checkpoints", "0")])
def test_the_disk_space_that_is_announced_is_what_is_used(tiny, capsys, options):
    tiny("--n_epochs", "3", "--pool_size", "2", "--ngf", "16", *options)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("disk: "))
    announced = float(line.split()[3])
    used = sum(os.path.getsize(f"saved_models/tiny/{name}") for name in files() if name.endswith(".pth")) / 1e6
    assert line.endswith("GB free") and "MB of checkpoints in saved_models/tiny" in line
    assert 0.7 * used < announced < 1.1 * used


def test_a_disk_that_is_too_small_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 0, 5 * 10**9))
    lines = folders.disk_line(str(tmp_path), 300 * 10**6, 90 * 10**6, 20, 2)  # 0.3 * 3 + 0.09 * 20
    assert lines == [f"disk: up to 2.7 GB of checkpoints in {tmp_path}, 5.0 GB free"]
    lines = folders.disk_line(str(tmp_path), 300 * 10**6, 90 * 10**6, 20, 20)
    assert len(lines) == 2 and lines[1].startswith("note: the disk will be full before the end")


# ----- continuing


def test_resume_of_a_run_that_does_not_exist_lists_those_that_do(tiny):
    tiny("--n_epochs", "1")
    for name, words in (("tyni", "saved_models/tyni: no such run to continue. There are: tiny"), ("demo", "demo: no")):
        with pytest.raises(InputError, match=words):
            cyclegan.main(["--resume"] if name == "demo" else ["--run_name", name, "--resume"])
    assert os.listdir("saved_models") == ["tiny"] and os.listdir("data") == ["tiny"]


def test_a_run_killed_in_its_first_epoch_starts_again_by_its_name(tiny, monkeypatch, capsys):
    kill(monkeypatch, tiny, "--n_epochs", "1", "--lambda_cyc", "3", "--run_name", "my run", step=3)
    assert "latest.pth" not in files("saved_models/my run")
    cyclegan.main(["--run_name", "my run", "--resume", "--device", "cpu"])
    options = load("saved_models/my run/latest.pth")["options"]
    assert (options["dataset_name"], options["lambda_cyc"], options["img_height"]) == ("tiny", 3, 32)
    out = capsys.readouterr().out
    assert "no checkpoint yet, starting from the beginning with the options of saved_models/my run/options.json" in out
    assert "python cyclegan.py --run_name 'my run' --resume --n_epochs 2" in out
    assert "--checkpoint 'saved_models/my run/latest.pth'" in out


def test_options_of_another_run(tiny, tmp_path):
    tiny("--n_epochs", "1", "--lambda_cyc", "3", "--color_jitter", "--seed", "4")
    path = "saved_models/tiny/options.json"
    opt, _ = cyclegan.get_options(["--options", path, "--run_name", "next", "--seed", "5"])
    assert (opt.lambda_cyc, opt.color_jitter, opt.seed, opt.run_name, opt.amp) == (3, 0.2, 5, "next", False)
    cyclegan.main(["--options", path, "--run_name", "same", "--device", "cpu"])
    assert_same(load() | {"options": None}, load("saved_models/same/latest.pth") | {"options": None})
    for words in (["--resume"], ["--epoch", "1"]):
        with pytest.raises(InputError, match="--options --.*give only one"):
            cyclegan.main(["--options", path, *words])


@pytest.mark.parametrize(
    "text, words",
    [
        ("[]", "not an options.json"),
        ("{", "not an options.json"),
        ('{"options": 3}', "not an options.json"),
        ('{"options": {"nonsense": 1}}', "'nonsense' is not an option"),
        ('{"options": {"lr": -1}}', "lr -1 cannot be used: -1 is not at least"),
        ('{"options": {"lr": NaN}}', "lr nan cannot be used"),
        ('{"options": {"batch_size": true}}', "batch_size True cannot be used"),
        ('{"options": {"ema": [1]}}', "ema .1. cannot be used"),
        ('{"options": {"attention": 1}}', "attention 1 cannot be used"),
        ('{"options": {"gan_loss": "x"}}', "gan_loss 'x' cannot be used"),
        ('{"options": {"dataset_name": "../x"}}', "is not the name of a folder"),
        (
            '{"options": {"data_dir": "../elsewhere"}}',
            "refers to ../elsewhere, which is outside of data. .* --data_dir",
        ),
    ],
)
def test_bad_option_files_are_one_line(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.json").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        cyclegan.get_options(["--options", "o.json"])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="none.json: no such file"):
        cyclegan.get_options(["--options", "none.json"])


def test_another_data_set_is_refused(tiny, make_set, capsys):
    tiny("--n_epochs", "1", "--run_name", "run")
    before = {name: open(f"saved_models/run/{name}", "rb").read() for name in files("saved_models/run")}
    shutil.copytree("data/tiny", "moved/tiny")
    make_set(name="other")
    with pytest.raises(InputError, match="--dataset_name other: saved_models/run was trained on tiny.*--run_name NEW"):
        tiny("--run_name", "run", "--resume", "--n_epochs", "2", "--dataset_name", "other")
    shutil.copytree("data/other", "elsewhere/tiny")
    os.truncate("elsewhere/tiny/trainA/0.png", 100)  # same names, but another file
    with pytest.raises(InputError, match="--data_dir elsewhere: .*trained on data/tiny.*--run_name NEW"):
        tiny("--run_name", "run", "--resume", "--n_epochs", "2", "--data_dir", "elsewhere", "--skip_bad_images")
    assert before == {name: open(f"saved_models/run/{name}", "rb").read() for name in files("saved_models/run")}
    tiny("--run_name", "run", "--resume", "--n_epochs", "2", "--data_dir", "moved")
    assert "note: the same data set, in another folder: moved/tiny" in capsys.readouterr().out


def test_other_images_of_the_same_names_are_another_data_set(tiny, make_set, tmp_path):
    for folder in ("trainA", "trainB"):
        for i in range(4):
            os.makedirs(f"data/flat/{folder}", exist_ok=True)
            Image.fromarray(np.full((40, 40, 3), 10 * i, np.uint8)).save(f"data/flat/{folder}/{i}.bmp")
    tiny("--n_epochs", "1", "--dataset_name", "flat", "--run_name", "run")
    shutil.copytree("data/flat", "elsewhere/flat")
    for folder in ("trainA", "trainB"):
        for i in range(4):  # the same sizes, too
            Image.fromarray(np.full((40, 40, 3), 10 * i + 5, np.uint8)).save(f"elsewhere/flat/{folder}/{i}.bmp")
    words = ("--dataset_name", "flat", "--run_name", "run", "--resume", "--n_epochs", "2")
    with pytest.raises(InputError, match="elsewhere/flat holds other files"):
        tiny(*words, "--data_dir", "elsewhere")
    shutil.rmtree("data/flat")
    shutil.copytree("elsewhere/flat", "data/flat")
    with pytest.raises(InputError, match="data/flat: holds other images than those that .* was trained on"):
        tiny(*words)


def test_files_added_to_the_data_set_are_noted(tiny, capsys):
    tiny("--n_epochs", "1")
    tiny("--resume", "--n_epochs", "2", "--data_dir", "./data")
    assert "changed since" not in capsys.readouterr().out
    shutil.copy("data/tiny/trainA/0.png", "data/tiny/trainA/9.png")
    tiny("--resume", "--n_epochs", "3")
    wanted = "files of ./data/tiny changed since this run was started: 4 images of A and 5 of B, now 5 images of A and 5 of B"
    assert wanted in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["truncated", "nan"])
def test_a_bad_latest_names_the_checkpoint_that_goes_on(tiny, damage):
    tiny("--n_epochs", "2", "--checkpoint_interval", "1", "--run_name", "my run")
    path = "saved_models/my run/latest.pth"
    if damage == "truncated":
        os.truncate(path, 9000)
    else:
        state = torch.load(path)
        state["D_B"]["model.0.weight"][0] = float("nan")
        torch.save(state, path)
    os.truncate("saved_models/my run/checkpoint_2.pth", 5000)  # the newest is no use either
    with pytest.raises(InputError) as error:
        tiny("--run_name", "my run", "--resume", "--n_epochs", "3")
    message = str(error.value)
    assert message.startswith(path) and "\n" not in message and len(message) < 300
    assert message.endswith("checkpoint_1.pth beside it: python cyclegan.py --run_name 'my run' --epoch 1")
    assert ("D_B has values that are not finite" in message) == (damage == "nan")
    tiny("--run_name", "my run", "--epoch", "1", "--n_epochs", "2")
    assert load(path)["epoch"] == 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_while_an_earlier_run_is_renamed(tiny, monkeypatch, number):
    tiny("--n_epochs", "3", "--checkpoint_interval", "2")
    whole = load()
    calls, original = [], os.rename

    def rename(*names):
        calls.append(names)
        if len(calls) == number:
            raise KeyboardInterrupt
        original(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            tiny("--epoch", "2")
    tiny("--resume", "--n_epochs", "3")
    assert_same(whole["G_AB"], load()["G_AB"])


# ----- locks and links


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def test_file_systems_without_locks_train(tiny, monkeypatch, capsys, code):
    fcntl = pytest.importorskip("fcntl")

    def lockf(*_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    tiny("--n_epochs", "1")
    assert load()["epoch"] == 1
    assert capsys.readouterr().out.count("note: saved_models/tiny: cannot be locked") == 1
    assert os.listdir("saved_models") == ["tiny"]


def other_process(folder):
    code = f"from command_line.run import run_script; from training import folders; run_script(lambda: folders.lock_run({folder!r}) and None)"
    root = os.path.dirname(cyclegan.__file__)
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )


def test_two_runs_through_a_link_are_noticed_and_a_renamed_folder_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = folders.lock_run("saved_models/x")
    os.symlink("x", "saved_models/link")
    done = other_process("saved_models/link")
    assert done.returncode == 1 and "saved_models/link: another process is training there" in done.stderr
    lock.close()
    assert other_process("saved_models/link").returncode == 0


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models/x")
    (tmp_path / "precious").write_text("text")
    os.symlink(tmp_path / "precious", "saved_models/x/lock")
    with pytest.raises(InputError, match="saved_models/x/lock: is a symbolic link"):
        folders.lock_run("saved_models/x")
    assert (tmp_path / "precious").read_text() == "text"


def test_a_linked_run_folder_stays_on_its_disk(tiny, tmp_path):
    for name in ("saved_models", "images"):
        os.makedirs(f"drive/{name}")
        os.makedirs(name)
        os.symlink(tmp_path / "drive" / name, f"{name}/tiny")
    for seed in "12":
        tiny("--n_epochs", "1", "--seed", seed)
    assert os.path.islink("saved_models/tiny") and os.path.islink("images/tiny")
    assert load("drive/saved_models/latest.pth")["options"]["seed"] == 2
    assert load("drive/saved_models.1/latest.pth")["options"]["seed"] == 1
    assert load("saved_models/tiny.1/latest.pth")["options"]["seed"] == 1
    assert os.listdir("images/tiny") and os.listdir("images/tiny.1")
    tiny("--epoch", "1", "--n_epochs", "2")
    assert load("drive/saved_models/latest.pth")["epoch"] == 2


def test_a_link_to_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models")
    os.symlink("tiny", "saved_models/tiny")
    with pytest.raises(InputError, match="saved_models/tiny: is a link that leads to itself. Remove it"):
        folders.lock_run("saved_models/tiny")


def test_a_link_to_a_disk_that_is_not_there(tiny):
    os.makedirs("saved_models")
    os.symlink("/nowhere/models/tiny", "saved_models/tiny")
    with pytest.raises(InputError, match="saved_models/tiny: is a link to /nowhere/models/tiny, which does not exist"):
        tiny("--n_epochs", "1")


# ----- provenance


def test_checkpoints_and_options_json_say_how_they_were_made(tiny, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/cyclegan.py", "--run_name", "a b"])
    tiny("--n_epochs", "1")
    monkeypatch.setattr(sys, "argv", ["/some/cyclegan.py", "--resume"])
    tiny("--n_epochs", "2", "--resume")
    made = torch.load("saved_models/tiny/latest.pth")["provenance"]
    assert made["commands"] == ["python cyclegan.py --run_name 'a b'", "python cyclegan.py --resume"]
    assert (made["data"]["folder"], made["data"]["A"], made["data"]["B"]) == ("data/tiny", 4, 5)
    assert len(made["data"]["hash"]) == 16 and made["torch"] == torch.__version__
    time.strptime(made["date"], "%Y-%m-%dT%H:%M:%S%z")
    record = json.load(open("saved_models/tiny/options.json"))
    assert record.pop("options")["n_epochs"] == 2 and record == made
    for name in ("latest.pth", "G_AB_1.pth"):  # a plain generator takes it from options.json
        assert load_generator(f"saved_models/tiny/{name}", "AB").provenance == made


@pytest.mark.parametrize(
    "damaged", [[], "x", {"commands": 3, "data": []}, {"commands": [torch.ones(1)], "data": {"hash": 3}}]
)
def test_damaged_provenance_is_no_obstacle(tiny, damaged):
    tiny("--n_epochs", "1")
    state = torch.load("saved_models/tiny/latest.pth")
    torch.save(state | {"provenance": damaged}, "saved_models/tiny/latest.pth")
    tiny("--n_epochs", "2", "--resume")
    made = torch.load("saved_models/tiny/latest.pth")["provenance"]
    assert len(made["commands"]) == 1 and made["data"]["A"] == 4


# ----- signals and output


def test_stop_signals_while_a_terminal_is_closed():
    """The kernel and the shell both send SIGHUP; a session manager sends SIGTERM first."""
    before = signal.getsignal(signal.SIGHUP)
    for first in (signal.SIGHUP, signal.SIGTERM):
        stop = signals.StopSignal()
        try:
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested() == first
        finally:
            stop.restore()
        assert signal.getsignal(signal.SIGHUP) == before


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = signals.StopSignal()
    try:
        signal.raise_signal(signal.SIGHUP)
        assert stop.requested() == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        stop.restore()
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "x"), OSError(5, "x"), OSError(28, "x"), ValueError("closed")])
def test_no_error_of_printing_is_raised(error, tmp_path):
    class Broken:
        def write(self, *text):
            raise error

        flush = write

        def fileno(self):
            return os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY)

    for how in ("write", "flush"):
        stream = Unbreakable(Broken())
        getattr(stream, how)(*["text"] * (how == "write"))
        print("more", file=stream, flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">/dev/full 2>&1", ">&- 2>&- <&-"])
def test_a_training_without_output(tiny, script, redirection):
    command = f"exec {sys.executable} {script('cyclegan.py')} {' '.join(SMALL)} --n_epochs 1 {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert load()["epoch"] == 1 and "step" in json.loads(open("saved_models/tiny/log.jsonl").readline())


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection, status, words",
    [
        (">/dev/full", 1, "error: no space left: a disk, or what"),
        (">&-", 0, ""),
        ("| :; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_a_command_without_output(redirection, status, words):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from command_line.run import run_script as r; r(lambda: print(9))"
    )
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{code}' {os.path.dirname(cyclegan.__file__)} {redirection}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == status and done.stderr.startswith(words) and done.stderr.count("\n") == bool(words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclegan.py", "translate.py"])
def test_ctrl_c_while_torch_is_imported(script, name):
    process = subprocess.Popen([sys.executable, script(name), "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while "torch" not in open(f"/proc/{process.pid}/maps").read():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (-signal.SIGINT, b"", b"")


def test_a_full_disk_loses_lines_of_the_log_and_not_the_training(tiny, monkeypatch, capsys):
    def full(path, line):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr("command_line.progress.append_line", full)
    tiny("--n_epochs", "1")
    assert load()["epoch"] == 1
    assert capsys.readouterr().out.count("log.jsonl: No space left on device; training goes on") == 1


# ----- messages


def test_all_bad_images_are_named(tiny):
    for number in (1, 3):
        os.truncate(f"data/tiny/trainB/{number}.png", 300)
    with pytest.raises(InputError, match="trainB/1.png: .*2 of the 5 images .* cannot be used: also 3.png"):
        tiny("--n_epochs", "1")


def test_both_neighbours_of_a_size_are_named():
    assert not_divisible([404, 408], 4) is None
    assert not_divisible([405, 402, 405], 4) == "must be divisible by 4 (405: 404 or 408, 402: 400 or 404)"
    assert not_divisible([32], 256, " for x") == "must be divisible by 256 for x (32: 256)"
