"""What happens to a training when the processes that load its images fail."""

import os
import re
import signal
import types

import pytest
from helpers import SMALL, load

import cyclegan
import utils
from training.problems import loader_problem
from utils import InputError


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    make_set(trainA=4, trainB=5)
    monkeypatch.chdir(tmp_path)
    return lambda *options: cyclegan.main([*SMALL, *options])


def test_a_killed_loader_process_is_one_line_and_nothing_is_lost(tiny, monkeypatch):
    """It is killed in the middle of a step, which is completed, as are those whose images are loaded already."""
    from torch.utils.data import dataloader

    workers, count = [], [0]
    start = dataloader._MultiProcessingDataLoaderIter.__init__
    push_and_pop = utils.ReplayBuffer.push_and_pop

    def remember(self, loader):
        start(self, loader)
        workers[:] = self._workers

    def kill(self, *images):
        count[0] += 1
        if count[0] == 3:
            os.kill(workers[0].pid, signal.SIGKILL)
            workers[0].join()
        return push_and_pop(self, *images)

    with monkeypatch.context() as patch:
        patch.setattr(dataloader._MultiProcessingDataLoaderIter, "__init__", remember)
        patch.setattr(utils.ReplayBuffer, "push_and_pop", kill)
        with pytest.raises(
            InputError, match=r"ended from outside \(perhaps because memory ran out\).*--n_cpu 0"
        ) as error:
            tiny("--n_epochs", "4", "--no-cache", "--n_cpu", "1")
    assert "\n" not in str(error.value)
    saved = load()
    assert 2 <= saved["step"] < 20 and saved["step"] == 5 * saved["epoch"] + saved["batch"]
    tiny("--resume", "--n_cpu", "0")
    assert load()["step"] == 20


TORCH = "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"


@pytest.mark.parametrize(
    "error, codes, message",
    [
        (RuntimeError(TORCH + "unable to write to file </torch_7_2>: No space left on device (28)"), [], "--shm-size"),
        (RuntimeError("unable to open shared memory object </torch_7> in read-write mode"), [], "--shm-size"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible ..."),
            [],
            "--shm-size",
        ),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), [-signal.SIGBUS], "--shm-size"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), [-signal.SIGKILL], "perhaps because memory"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), [1], "ended from outside. Use a smaller"),
        (RuntimeError("received 0 items of ancdata"), [], "ulimit -n"),
        (OSError(28, "No space left on device"), None, "cannot be started .*--n_cpu 0.*--shm-size"),
        (RuntimeError("CUDA out of memory"), [], None),
        (OSError(28, "No space left on device"), [], None),
    ],
)
def test_each_failure_of_the_loader_has_its_way_out(error, codes, message):
    workers = [types.SimpleNamespace(exitcode=code) for code in codes or ()]
    problem = loader_problem(error, None if codes is None else types.SimpleNamespace(_workers=workers))
    if message is None:
        assert problem is None
    else:
        assert isinstance(problem, InputError) and "\n" not in str(problem) and "out of memory" not in str(problem)
        assert re.search(message, str(problem))
