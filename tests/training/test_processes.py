"""Two processes on the CPU (gloo), against one."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing as mp
from helpers import SMALL, assert_same, load, write_set
from two_processes import generator_and_batch, loss, run_in_one_of_two

import cyclegan

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


RUNS = {
    "tiny": "--n_epochs 1 --pool_size 50",
    "parts": "--n_epochs 1 --pool_size 0 --accumulate 2 --run_name parts",
    "whole": "--n_epochs 4 --max_images 4 --checkpoint_interval 2 --run_name whole",
}


@pytest.fixture(scope="module")
def made_by_two(tmp_path_factory):
    """The folder with what two processes have made together, see tests/two_processes.py."""
    folder = tmp_path_factory.mktemp("two")
    write_set(folder, trainA=9, trainB=12, testA=1, testB=1)
    runs = {name: [*SMALL, *options.split()] for name, options in RUNS.items()}
    mp.spawn(run_in_one_of_two, (free_port(), str(folder), runs), nprocs=2)
    return folder


@pytest.fixture
def two(made_by_two, monkeypatch):
    monkeypatch.chdir(made_by_two)
    return made_by_two


def test_averaged_gradient_is_that_of_the_joined_batch(two):
    network, batch = generator_and_batch()
    loss(network, batch).backward()
    first, second = (torch.load(f"gradients_{rank}.pt") for rank in (0, 1))
    assert_same(first, second)
    for (name, parameter), gradient in zip(network.named_parameters(), first):
        torch.testing.assert_close(gradient, parameter.grad, msg=name)


def test_two_processes_act_as_one_with_twice_the_batch(two):
    one, other = (torch.load(f"networks_tiny_{rank}.pt") for rank in (0, 1))
    assert_same(one, other)
    assert os.path.getsize("out_tiny_1.txt") == 0 and "2 processes" in open("out_tiny_0.txt").read()
    assert_same(dict(one[0]), load()["G_AB"])

    cyclegan.main([*SMALL, "--n_epochs", "1", "--pool_size", "50", "--batch_size", "2", "--run_name", "single"])
    single = load("saved_models/single/latest.pth")
    assert single["step"] == load()["step"] == 6
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        for key, weight in load()[name].items():
            # biases before a norm have no gradient but rounding, which Adam blows up to full steps
            if key.endswith("weight"):
                torch.testing.assert_close(weight, single[name][key], atol=2e-5, rtol=1e-3, msg=f"{name}/{key}")


def test_two_processes_that_accumulate_are_one_with_four_times_the_batch(two):
    one, other = (torch.load(f"networks_parts_{rank}.pt") for rank in (0, 1))
    assert_same(one, other)
    cyclegan.main([*SMALL, "--n_epochs", "1", "--pool_size", "0", "--batch_size", "4", "--run_name", "single"])
    single, parts = load("saved_models/single/latest.pth"), load("saved_models/parts/latest.pth")
    assert single["step"] == parts["step"] == 3
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        for key in (key for key in single[name] if key.endswith("weight")):
            torch.testing.assert_close(parts[name][key], single[name][key], atol=1e-4, rtol=1e-3, msg=f"{name}/{key}")


def test_processes_that_are_timed_take_the_same_number_of_steps(two):
    """They wait for each other in each step, so otherwise they would wait for ever."""
    one, other = (torch.load(f"calls_{rank}.pt") for rank in (0, 1))
    assert one == other > 4


def test_pools_of_all_processes_are_saved(two):
    pools = [rank["fake_A_buffer"]["data"] for rank in load()["ranks"]]
    assert [len(pool) for pool in pools] == [6, 6] and not torch.equal(pools[0][0], pools[1][0])


def start_torchrun(script, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    command += [script("cyclegan.py"), *SMALL, "--log_interval", "1", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    "options, words",
    [
        ("--dataset_name nothere", "error: data/nothere: no such folder"),
        ("--nonsense", "error: unrecognized arguments"),
    ],
)
def test_an_error_of_all_processes_is_said_once(tmp_path, monkeypatch, script, options, words):
    monkeypatch.chdir(tmp_path)
    out = start_torchrun(script, *options.split()).communicate()[0]
    assert out.count(words) == out.count("error: ") == 1 and "InputError" not in out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_to_one_of_two_processes(make_set, tmp_path, monkeypatch, script, number):
    make_set(trainA=4, trainB=4, testA=1, testB=1)
    monkeypatch.chdir(tmp_path)
    process = start_torchrun(script, "--n_epochs", "9999", "--save_minutes", "1e-9", "--checkpoint_interval", "0")
    out = []
    for line in process.stdout:
        out.append(line)
        if "step 30/" in line:
            pid = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()[-1]
            os.kill(int(pid), number)
    said = [line for line in out if line.startswith(("error:", "stopped", "RuntimeError"))]
    assert process.wait() == 1 and len(said) == 1
    if number == signal.SIGKILL:
        assert said[0].startswith("error: another process of this training has ended")
        assert load()["step"] >= 10  # saved by the clock, which is asked every ten steps
    else:
        codes = [line.split()[2] for line in out if line.split()[:2] == ["exitcode", ":"]]
        # torchrun ends a process that is still exiting when the other has ended
        assert "130" in codes and {*codes} <= {"130", "-15"}
        assert f"stopped by a signal after step {load()['step']}, which is saved" in said[0]


def test_torchrun_resumes_exactly(two, monkeypatch, script):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    os.mkdir("saved_models/half")
    os.link("saved_models/whole/checkpoint_2.pth", "saved_models/half/latest.pth")
    process = start_torchrun(script, "--resume", "--run_name", "half")
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, out
    assert out.count("CycleGAN on") == open("out_whole_0.txt").read().count("CycleGAN on") == 1
    whole, resumed = load("saved_models/whole/latest.pth"), load("saved_models/half/latest.pth")
    assert_same(whole | {"options": None}, resumed | {"options": None})
