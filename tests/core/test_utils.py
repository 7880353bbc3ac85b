import json
import os
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import utils
from command_line.parser import between
from command_line.printable import printable
from command_line.progress import Progress, duration, three_digits
from command_line.run import run_script
from media.files import load_file, save_file
from training import folders, signals
from training.background import Background
from training.checkpoints import copy_to_cpu, find_checkpoint
from training.folders import cut_log
from training.monitor import save_png
from utils import InputError, ReplayBuffer, linear_decay, whole_file


def image(value):
    return torch.full((1, 3, 4, 4), float(value))


def stored(pool):
    return [image[0, 0, 0].item() for image in pool.state_dict()["data"]]


def test_pool_returns_what_comes_while_it_fills():
    pool = ReplayBuffer(max_size=5)
    for i in range(5):
        assert torch.equal(pool.push_and_pop(image(i)), image(i))


@pytest.mark.slow
def test_full_pool_swaps_half_of_the_time_and_forgets_nothing():
    pool = ReplayBuffer(max_size=50)
    swapped = 0
    for i in range(2050):
        before = stored(pool)
        out = pool.push_and_pop(image(i))[0, 0, 0, 0].item()
        after = stored(pool)
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
    kept = pool.state_dict()["data"]
    assert len(kept) == 2 and kept.untyped_storage().nbytes() == 2 * 3 * 4 * 4 * 4
    images.data.zero_()
    assert stored(pool) == [float(i) for i in out[:, 0, 0, 0]] and all(stored(pool))


def test_pool_continues_from_its_state_and_leaves_the_global_random_numbers_alone():
    pool, other = ReplayBuffer(max_size=3, seed=7), ReplayBuffer(max_size=3, seed=99)
    for i in range(10):
        pool.push_and_pop(image(i))
    other.load_state_dict(pool.state_dict())
    before = torch.get_rng_state()
    for i in range(10, 30):
        assert torch.equal(pool.push_and_pop(image(i)), other.push_and_pop(image(i)))
    assert torch.equal(before, torch.get_rng_state())


def test_pool_is_resumed_at_another_precision_and_another_size():
    pool = ReplayBuffer(max_size=2)
    state = {"data": torch.cat((image(0), image(1))).bfloat16(), "rng": torch.Generator().get_state()}
    pool.load_state_dict(state)
    out = pool.push_and_pop(torch.cat([image(i) for i in range(2, 12)]))
    assert out.dtype == torch.float32 and {0.0, 1.0} & set(out[:, 0, 0, 0].tolist())
    larger = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    out = pool.push_and_pop(larger)  # what was kept is of no use; of this batch, some may already be swapped
    assert out.shape == (3, 3, 8, 8) and len(pool.state_dict()["data"]) == 0
    assert torch.equal(pool.push_and_pop(larger)[:2], larger[:2])  # it fills anew
    assert stored(pool)[0] in (0, 2) and pool.state_dict()["data"].shape == (2, 3, 8, 8)


def test_pool_asks_the_host_for_nothing_once_the_dice_are_drawn():
    pool, other = ReplayBuffer(max_size=3, seed=7), ReplayBuffer(max_size=3, seed=7)
    for i in range(20):
        images = torch.cat((image(i), image(i + 100)))
        other.prepare(2, images.device)
        assert torch.equal(pool.push_and_pop(images), other.push_and_pop(images))
    draws = torch.cat([ReplayBuffer(max_size=3, seed=s).draw(9) for s in range(50)]).view(50, 9, 2)
    assert torch.equal(draws[:, :3], torch.tensor([[0, 0], [1, 0], [2, 0]]).expand(50, 3, 2))
    late = draws[:, 3:].reshape(-1, 2)
    assert set(map(tuple, late.tolist())) == {(0, 1), (1, 1), (2, 1), (3, 0)}


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost(monkeypatch):
    monkeypatch.setattr(signals.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(signals.dist, "all_reduce", lambda *_: calls.pop() and signal.raise_signal(signal.SIGINT))
    calls, stop = [False, True], signals.StopSignal()
    try:
        assert [stop.requested(), stop.requested()] == [0, signal.SIGINT]
    finally:
        stop.restore()


def test_a_flipped_bit_is_found(tmp_path):
    path = str(tmp_path / "x.pth")
    save_file({"a": torch.zeros(1000)}, path)
    content = bytearray(open(path, "rb").read())
    content[2000] ^= 1
    open(path, "wb").write(content)
    with pytest.raises(InputError, match="x.pth: broken.*checksum"):
        load_file(path)


@pytest.mark.slow
def test_two_runs_in_one_folder(tmp_path):
    saved = str(tmp_path / "saved_models/x")
    lock = folders.lock_run(saved)
    code = f"from command_line.run import run_script; from training import folders; run_script(lambda: folders.lock_run({saved!r}) and None)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=os.path.dirname(utils.__file__), capture_output=True, text=True)
    assert (
        done.returncode == 1 and "another process is training there" in done.stderr and "Traceback" not in done.stderr
    )
    lock.close()
    assert subprocess.run(command, cwd=os.path.dirname(utils.__file__)).returncode == 0


def test_the_rename_of_an_earlier_run_is_all_or_nothing(tmp_path, monkeypatch):
    saved, images = str(tmp_path / "saved"), str(tmp_path / "images")
    for folder in (saved, images):
        os.mkdir(folder)
        open(f"{folder}/x", "w").close()
    original = os.rename
    monkeypatch.setattr(
        os, "rename", lambda a, b: original(a, b) if a != images else (_ for _ in ()).throw(OSError(13, "no"))
    )
    with pytest.raises(OSError):
        folders.prepare_folders(saved, images, None, resume=False)
    assert sorted(os.listdir(tmp_path)) == ["images", "saved"]


def test_pool_of_size_0_is_off():
    pool = ReplayBuffer(max_size=0)
    assert all(torch.equal(pool.push_and_pop(image(i)), image(i)) for i in range(5)) and not pool.data


def test_learning_rate_end_points():
    factor = linear_decay(200, 100)
    assert [factor(e) for e in (0, 99, 100, 150, 199, 200)] == [1, 1, 1, 0.5, pytest.approx(0.01), 0]
    assert [linear_decay(50, 50)(e) for e in (0, 49)] == [1, 1]


def test_save_replaces_the_whole_file_or_nothing(tmp_path, monkeypatch):
    path = str(tmp_path / "x.pth")
    save_file({"a": torch.ones(3)}, path)

    def full_disk(state, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(InputError, match="x.pth: cannot be written.*No space left"):
        save_file({"a": torch.zeros(3)}, path)
    assert torch.equal(load_file(path)["a"], torch.ones(3))
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
        load_file("x.pth")
    assert "\n" not in str(error.value) and "x.pth" in str(error.value)
    assert not os.path.exists("attacked")


def test_find_checkpoint_tells_what_there_is(tmp_path):
    assert find_checkpoint(str(tmp_path / "none")) is None
    for name in ("checkpoint_10.pth", "checkpoint_20.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="--epoch 15: .* has no checkpoint of that epoch; it has: 10, 20"):
        find_checkpoint(str(tmp_path), epoch=15)
    with pytest.raises(InputError, match="checkpoint_20.pth: broken"):  # the newest, as there is no latest.pth
        find_checkpoint(str(tmp_path))
    torch.save({"model.1.weight": torch.ones(1)}, tmp_path / "latest.pth")
    with pytest.raises(InputError, match="not a full checkpoint"):
        find_checkpoint(str(tmp_path))


def test_argparse_types():
    import argparse

    assert between(1)("3") == 3 and between(0.0)("0.5") == 0.5 and between(0, 3)("3") == 3
    for low, text in ((1, "0"), (0.0, "-1e-9"), (0.0, "nan"), (0.0, "inf")):
        with pytest.raises(argparse.ArgumentTypeError, match="is not at least"):
            between(low)(text)
    with pytest.raises(argparse.ArgumentTypeError, match="4 is not from 1 to 3"):
        between(1, 3)("4")


def test_duration():
    assert [duration(s) for s in (5, 75, 4000, 100000)] == ["0:05", "1:15", "1:06:40", "1 d 3:46:40"]


def test_rates_are_never_in_scientific_notation():
    assert [three_digits(x) for x in (0.01234, 8.714, 99.96, 100.4, 999.6, 4321.0)] == [
        "0.0123", "8.71", "100", "100", "1000", "4321",
    ]  # fmt: skip


def test_log_is_cut_to_the_checkpoint_it_goes_on_from(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n[1]\n\xff\n{"step": 3}\n{"st')
    cut_log(str(path), str(path), 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    cut_log(str(tmp_path / "none"), str(path), 2)
    assert path.read_text() == ""


def test_progress_prints_a_line_and_logs_json(tmp_path, capsys):
    progress = Progress(str(tmp_path / "log.jsonl"), first_step=0, last_step=100)
    for step in (1, 10, 20):
        progress.update(step, 2, torch.device("cpu"), epoch=0, lr=2e-4, loss_D=0.5, loss_G=1 / 3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("D 0.500  G 0.333" in line and "ETA" in line for line in lines)
    assert "ETA ..." in lines[0] and "ETA ..." not in lines[1]  # the first step says nothing about the pace
    records = [json.loads(line) for line in open(tmp_path / "log.jsonl")]
    assert [r["step"] for r in records] == [1, 10, 20]
    assert records[0]["loss_G"] == pytest.approx(1 / 3, rel=1e-5) and records[0]["images_per_s"] > 0


def test_a_grid_has_a_row_of_columns_on_black():
    generator = torch.Generator().manual_seed(0)
    for channels, numbers, height, width in (((3, 3, 3), (2, 3, 2), 8, 12), ((1, 3, 5, 2, 1, 1), (4,) * 6, 7, 5)):
        columns = [torch.randn(n, c, height, width, generator=generator) for c, n in zip(channels, numbers)]
        n = min(numbers)
        wanted = np.zeros((n * (height + 2) + 2, len(columns) * (width + 2) + 2, 3), np.uint8)  # 2 pixels in between
        for x, column in enumerate(columns):
            for y, image in enumerate(column[:n].numpy()):
                rgb = image[{1: [0, 0, 0], 2: [0, 1, 1]}.get(len(image), [0, 1, 2])].transpose(1, 2, 0)
                top, left = 2 + y * (height + 2), 2 + x * (width + 2)
                wanted[top : top + height, left : left + width] = np.round((np.clip(rgb, -1, 1) + 1) / 2 * 255)
        drawn = utils.draw_grid(columns)
        assert drawn.mode == "RGB" and np.array_equal(np.asarray(drawn), wanted)


def test_sample_grid_has_a_fixed_range_and_order(tmp_path):
    def darker(x):
        return x - 0.5

    def brighter(x):
        return x + 0.25

    A, B = torch.full((2, 3, 8, 8), 0.0), torch.full((2, 3, 8, 8), 0.5)
    save_png(utils.draw_grid(utils.sample_images(darker, brighter, A, B)), str(tmp_path / "000007.png"))
    grid = np.asarray(Image.open(tmp_path / "000007.png"))[:, :, 0]
    assert grid.shape == (2 * 10 + 2, 6 * 10 + 2)
    columns = [grid[6, 6 + 10 * i] / 127.5 - 1 for i in range(6)]
    assert columns == pytest.approx([0, -0.5, -0.25, 0.5, 0.75, 0.25], abs=0.01)
    assert os.listdir(tmp_path) == ["000007.png"]


InductorError = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})


def test_errors_of_worker_processes_are_one_line(capsys):
    for error, line in (
        (
            InputError("Caught InputError in worker\nTraceback\nutils.InputError: data/x\ny.png: broken\n"),
            r"data/x\ny.png: broken",
        ),
        (PermissionError(13, "Permission denied", "images"), "images: Permission denied"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory. Try a smaller"),
        (
            InductorError("No C++ compiler\n\nTraceback"),
            "--compile: does not work here (No C++ compiler). Run without it",
        ),
    ):

        def main(error=error):
            raise error

        with pytest.raises(SystemExit) as stopped:
            run_script(main)
        assert stopped.value.code.startswith("error: " + line) and "\n" not in stopped.value.code
    with pytest.raises(RuntimeError, match="a bug"):
        run_script(lambda: (_ for _ in ()).throw(RuntimeError("a bug")))


def test_remarks_of_decoders_do_not_come_between_the_lines(capsys, monkeypatch):
    import nibabel  # adds a handler that prints
    import tifffile

    def main():
        nibabel.imageglobals.logger.warning("sizeof_hdr should be 348")
        tifffile.tifffile.logger().error("invalid page offset")
        print("1 translated")

    monkeypatch.setattr(sys, "stdout", sys.stdout), monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code is None and capsys.readouterr() == ("1 translated\n", "")


def test_what_is_done_in_the_background_is_done_in_order_and_its_errors_are_not_lost(tmp_path):
    background, done, may_go_on = Background(), [], threading.Event()

    def first():
        may_go_on.wait(10)
        done.append(1)

    background.start(first)
    assert done == []  # it has not waited
    may_go_on.set()
    background.start(done.append, 2)
    background.finish()
    assert done == [1, 2]

    background.start(save_png, Image.new("L", (4, 4)), str(tmp_path / "no such folder" / "x.png"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        background.start(done.append, 3)
    background.finish()  # it was said once, and what was asked for meanwhile is done
    assert done == [1, 2, 3]


def test_a_copy_of_a_state_stays_when_training_goes_on():
    weights = torch.ones(3)
    state = {"G": {"w": weights}, "ranks": [{"pool": weights}], "betas": (0.5, 0.999), "epoch": 3}
    copy = copy_to_cpu(state)
    weights.zero_()
    assert copy["G"]["w"].tolist() == copy["ranks"][0]["pool"].tolist() == [1, 1, 1]
    assert copy["betas"] == (0.5, 0.999) and copy["epoch"] == 3


def test_an_error_while_writing_names_the_file(tmp_path):
    path = str(tmp_path / "x.png")
    with pytest.raises(OSError, match="No space left on device") as error, whole_file(path) as temporary:
        open(temporary, "w").close()
        raise OSError(28, "No space left on device")
    assert error.value.filename == path and not list(tmp_path.iterdir())


def test_names_do_not_control_the_terminal():
    assert printable("a\x1b[31mb\x07\r\x9b\u202e.png") == r"a\x1b[31mb\x07\r\x9b\u202e.png"
    assert printable("\rstep 1\ttab\nnext é 馬") == "\rstep 1\ttab\nnext é 馬"
    assert printable("\x1b[33mnote\x1b[0m \x1b[2J\r", with_colours=True) == "\x1b[33mnote\x1b[0m \\x1b[2J\\r"
    assert printable("\x1b[33m\rx", with_colours=True) == "\x1b[33m\\rx"


def test_a_command_prints_names_as_escapes(tmp_path, script):
    result = subprocess.run(
        [sys.executable, script("evaluate.py"), "--checkpoint", os.fsdecode(b"saved_models/a\x1b[31m\xe9/latest.pth")],
        cwd=tmp_path,
        capture_output=True,
        text=True,  # fmt: skip
    )
    assert result.returncode == 1 and "saved_models/a\\x1b[31m" in result.stderr and "\x1b" not in result.stderr
