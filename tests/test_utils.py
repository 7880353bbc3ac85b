import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import utils
from utils import InputError, Progress, ReplayBuffer, at_least, cut_log, duration, find_checkpoint, linear_decay


def image(value):
    return torch.full((1, 3, 4, 4), float(value))


def test_pool_returns_what_comes_while_it_fills():
    pool = ReplayBuffer(max_size=5)
    for i in range(5):
        assert torch.equal(pool.push_and_pop(image(i)), image(i))


def test_full_pool_swaps_half_of_the_time_and_forgets_nothing():
    pool = ReplayBuffer(max_size=50)
    swapped = 0
    for i in range(2050):
        before = [stored[0, 0, 0].item() for stored in pool.data]
        out = pool.push_and_pop(image(i))[0, 0, 0, 0].item()
        after = [stored[0, 0, 0].item() for stored in pool.data]
        if i < 50:
            continue
        if out == i:
            assert after == before
        else:  # the old one goes out, the new one is in its place, nothing else changes
            swapped += 1
            assert [a for a in after if a != i] == [b for b in before if b != out] and i in after
    assert 0.45 < swapped / 2000 < 0.55


def test_pool_decides_for_each_image_of_a_batch():
    pool = ReplayBuffer(max_size=4)
    pool.push_and_pop(torch.cat([image(i) for i in range(4)]))
    out = pool.push_and_pop(torch.cat([image(i) for i in range(10, 50)]))[:, 0, 0, 0].tolist()
    fresh = [value == i + 10 for i, value in enumerate(out)]
    assert any(fresh) and not all(fresh)


def test_pool_stores_copies_without_gradient():
    pool = ReplayBuffer(max_size=5)
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    out = pool.push_and_pop(images * 1)
    assert not out.requires_grad
    assert all(stored.untyped_storage().nbytes() == 3 * 4 * 4 * 4 for stored in pool.data)


def test_pool_continues_from_its_state_and_leaves_the_global_random_numbers_alone():
    pool, other = ReplayBuffer(max_size=3, seed=7), ReplayBuffer(max_size=3, seed=99)
    for i in range(10):
        pool.push_and_pop(image(i))
    other.load_state_dict(pool.state_dict())
    before = torch.get_rng_state()
    for i in range(10, 30):
        assert torch.equal(pool.push_and_pop(image(i)), other.push_and_pop(image(i)))
    assert torch.equal(before, torch.get_rng_state())


def test_pool_of_size_0_is_off():
    pool = ReplayBuffer(max_size=0)
    assert all(torch.equal(pool.push_and_pop(image(i)), image(i)) for i in range(5)) and not pool.data


def test_learning_rate_end_points():
    factor = linear_decay(200, 100)
    assert [factor(e) for e in (0, 99, 100, 150, 199, 200)] == [1, 1, 1, 0.5, pytest.approx(0.01), 0]
    assert [linear_decay(50, 50)(e) for e in (0, 49)] == [1, 1]


def test_save_replaces_the_whole_file_or_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / "x.pth")
    utils.save_file({"a": torch.ones(3)}, path)

    def full_disk(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match="x.pth: cannot be written.*No space left"):
        utils.save_file({"a": torch.zeros(3)}, path)
    assert torch.equal(utils.load_file(path)["a"], torch.ones(3))
    assert os.listdir(tmp_path) == ["x.pth"]


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "no such checkpoint"),
        (b"", "broken, truncated"),
        (b"hello, I am a text", "nothing was executed|broken, truncated"),
        (pickle.dumps(Attack()), "nothing was executed"),
        ("truncated", "broken, truncated"),
        ("attack", "nothing was executed"),
    ],
)
def test_bad_checkpoints_are_one_line_and_run_nothing(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    if content == "truncated":
        torch.save({"a": torch.rand(1000)}, "x.pth")
        content = open("x.pth", "rb").read()[:2000]
    if content == "attack":
        torch.save({"a": Attack()}, "x.pth")
    elif content is not None:
        open("x.pth", "wb").write(content)
    with pytest.raises(InputError, match=words) as error:
        utils.load_file("x.pth")
    assert "\n" not in str(error.value) and "x.pth" in str(error.value)
    assert not os.path.exists("attacked")


def test_find_checkpoint_tells_what_there_is(tmp_path):
    assert find_checkpoint(str(tmp_path / "none")) is None
    for name in ("checkpoint_10.pth", "checkpoint_20.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="Kept epochs: 10, 20"):
        find_checkpoint(str(tmp_path), epoch=15)
    torch.save({"model.1.weight": torch.ones(1)}, tmp_path / "latest.pth")
    with pytest.raises(InputError, match="not a full checkpoint"):
        find_checkpoint(str(tmp_path))


def test_argparse_types():
    import argparse

    assert at_least(1)("3") == 3 and at_least(0.0)("0.5") == 0.5
    for low, text in ((1, "0"), (0.0, "-1e-9"), (0.0, "nan")):
        with pytest.raises(argparse.ArgumentTypeError, match="is not at least"):
            at_least(low)(text)


def test_duration():
    assert [duration(s) for s in (5, 75, 4000, 100000)] == ["0:05", "1:15", "1:06:40", "1 d 3:46:40"]


def test_log_is_cut_to_the_checkpoint_it_goes_on_from(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    cut_log(str(path), 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_progress_prints_a_line_and_logs_json(tmp_path, capsys):
    progress = Progress(str(tmp_path / "log.jsonl"), first_step=0, last_step=100)
    for step in (1, 10, 20):
        progress.update(step, 2, torch.device("cpu"), epoch=0, lr=2e-4, loss_D=0.5, loss_G=1 / 3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("D 0.500  G 0.333" in line and "ETA" in line for line in lines)
    records = [json.loads(line) for line in open(tmp_path / "log.jsonl")]
    assert [r["step"] for r in records] == [1, 10, 20]
    assert records[0]["loss_G"] == pytest.approx(1 / 3, rel=1e-5) and records[0]["images_per_s"] > 0


def test_sample_grid_has_a_fixed_range_and_order(tmp_path):
    def darker(x):
        return x - 0.5

    def brighter(x):
        return x + 0.25

    A, B = torch.full((2, 3, 8, 8), 0.0), torch.full((2, 3, 8, 8), 0.5)
    utils.sample_images(darker, brighter, A, B, str(tmp_path / "000007.png"))
    grid = np.asarray(Image.open(tmp_path / "000007.png"))[:, :, 0]
    assert grid.shape == (2 * 10 + 2, 6 * 10 + 2)
    columns = [grid[6, 6 + 10 * i] / 127.5 - 1 for i in range(6)]
    assert columns == pytest.approx([0, -0.5, -0.25, 0.5, 0.75, 0.25], abs=0.01)
    assert os.listdir(tmp_path) == ["000007.png"]


def test_errors_of_worker_processes_are_one_line(capsys):
    def main():
        raise InputError("Caught InputError in worker\nTraceback\nutils.InputError: data/x.png: broken")

    with pytest.raises(SystemExit, match="^error: data/x.png: broken$"):
        utils.run(main)
