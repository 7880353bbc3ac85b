"""benchmarks/stopping.py: which measures agree with the truth, on numbers that are known."""

import json

import pytest

from benchmarks import stopping
from utils import InputError


def write(folder, truth, cycle, tells):
    with open(folder / "metrics.jsonl", "w") as file:
        for epoch, (l1, value) in enumerate(zip(truth, cycle), 1):
            results = {"AB": {"paired_l1": l1, "cycle_l1": value, "paired_ssim": 0.5}}
            file.write(json.dumps({"epoch": epoch, "results": results}) + "\n")
        file.write(json.dumps({"epoch": None, "results": {"AB": {"paired_l1": 0.0}}}) + "\n")  # a single generator
    with open(folder / "log.jsonl", "w") as file:
        for epoch, value in enumerate(tells):  # epochs of the log count from 0
            for step in (1, 2):
                line = {"step": 2 * epoch + step, "epoch": epoch, "loss_G": 9.0 - step, "loss_GAN": 1.0}
                file.write(json.dumps(line) + "\n")
            file.write(json.dumps({"step": 2 * epoch + 2, "tells": value}) + "\n")


def test_ranks_and_their_correlation():
    assert stopping.ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1, 3.5, 2]
    assert stopping.rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert stopping.rank_correlation([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)
    assert stopping.rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert stopping.rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_what_each_measure_chooses(tmp_path, capsys):
    write(tmp_path, truth=[30, 20, 10, 15], cycle=[8, 4, 5, 6], tells=[0.9, 0.8, 0.2, 0.6])
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "lo')  # of a run that was killed
    rows = stopping.judge(stopping.read_epochs(str(tmp_path))["AB"])
    assert rows["paired_l1"] == (pytest.approx(1), 3, 10)
    assert rows["cycle_l1"] == (pytest.approx(0.4), 2, 20)  # ranks 4 1 2 3 against 4 3 1 2
    assert rows["tells"][1:] == (4, 15)  # 0.6 is nearest to chance
    assert rows["epoch"] == (pytest.approx(0.8), 4, 15)
    assert rows["loss_G"][0] == 0 and "paired_ssim" not in rows
    stopping.main([str(tmp_path)])
    out = capsys.readouterr().out
    assert "| A -> B | cycle reconstruction, L1 | +0.40 | 2 | 20.00 |" in out
    assert "| A -> B | paired ground truth, L1 |  | 3 | 10.00 |" in out


def test_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    write(tmp_path, [3, 2, 1], [1, 1, 1], [0.5, 0.6, 0.7])
    stopping.main([str(tmp_path), "--plot", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_not_measured_is_one_line(tmp_path):
    with pytest.raises(
        InputError, match="metrics.jsonl: no such file. Run evaluate.py --all_checkpoints --paired first"
    ):
        stopping.main([str(tmp_path)])
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "results": {"AB": {"cycle_l1": 3.0}}}) + "\n")
    with pytest.raises(InputError, match="has no L1 to the truth by epoch"):
        stopping.main([str(tmp_path)])
