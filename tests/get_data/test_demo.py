"""The demo data set: its files, its score, and a short training run on it."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import cyclegan
from get_data import demo as demo_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The demo with fewer scenes."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_data, "N_TRAIN", 60)
        patch.setattr(demo_data, "N_TEST", 8)
        demo_data.write_demo(str(folder / "data/demo"))
    return folder


def read(path):
    return np.asarray(Image.open(path))


def test_files(drawn):
    counts = {name: len(os.listdir(drawn / "data/demo" / name)) for name in os.listdir(drawn / "data/demo")}
    assert counts == {"trainA": 60, "trainB": 60, "testA": 8, "testB": 8, "test_mask": 8}
    assert read(drawn / "data/demo/trainA/0000.png").shape == (64, 64, 3)


def test_paired_scenes_differ_only_in_the_animals(drawn):
    for name in os.listdir(drawn / "data/demo/testA"):
        horse, zebra, mask = (read(drawn / "data/demo" / f / name) for f in ("testA", "testB", "test_mask"))
        differs = np.abs(horse.astype(int) - zebra).max(-1) > 10
        assert not differs[mask == 0].any() and differs[mask == 255].mean() > 0.9
        assert 0.1 < (mask > 127).mean() < 0.4


def test_training_scenes_are_unpaired_and_reproducible(drawn):
    again = demo_data.draw_scene(np.random.default_rng((0, 3)))[0]
    assert np.array_equal(np.asarray(again), read(drawn / "data/demo/trainA/0003.png"))
    A, B = (
        np.stack([read(p) for p in sorted((drawn / "data/demo" / f).iterdir())]).astype(int)
        for f in ("trainA", "trainB")
    )
    sky = np.abs(A[:, None, :8] - B[None, :, :8]).max((2, 3, 4))
    assert (sky > 3).all()


def test_score_of_known_answers(drawn):
    """Translators that know the answer, return their input, or paint a plain picture."""
    root = str(drawn / "data/demo")
    pairs = {read(f"{root}/testA/{n}").tobytes(): read(f"{root}/testB/{n}") for n in os.listdir(f"{root}/testA")}
    answers = pairs | {b.tobytes(): np.frombuffer(a, np.uint8).reshape(64, 64, 3) for a, b in pairs.items()}

    def uint8(x):
        return ((x[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()

    def oracle(x):
        return torch.from_numpy(answers[uint8(x).tobytes()].copy()).permute(2, 0, 1)[None] / 127.5 - 1

    def shares(G_AB, G_BA):
        result = demo_data.score(G_AB, G_BA, root, torch.device("cpu"))
        return {direction: rows["translated"] for direction, rows in result.items()}

    right = shares(oracle, oracle)
    assert right["A->B"][0] > 0.93 and right["B->A"][0] > 0.99
    assert right["A->B"][1] == right["B->A"][1] == 1
    nothing = shares(lambda x: x, lambda x: x)
    assert nothing == {"A->B": [pytest.approx(0, abs=0.02), 1], "B->A": [pytest.approx(0, abs=0.02), 1]}
    # a zebra needs stripes, and a plain brown picture has lost its background
    plain = shares(lambda x: x * 0 + 1, lambda x: x * 0 + torch.tensor([0.2, -0.3, -0.7]).view(1, 3, 1, 1))
    assert plain["A->B"] == [0, pytest.approx(0, abs=0.1)] and plain["B->A"] == [1, pytest.approx(0, abs=0.05)]
    assert shares(lambda x: x * 0 + 1.2, lambda x: x)["A->B"] == plain["A->B"]  # clipped, as --residual needs


def test_a_short_training_learns(drawn, monkeypatch, capsys):
    monkeypatch.chdir(drawn)
    cyclegan.main(["--ngf", "16", "--n_iters", "300", "--lr", "0.001", "--device", "cpu", "--log_interval", "30"])
    records = [r for r in map(json.loads, open("saved_models/demo/log.jsonl")) if "loss_cycle" in r]
    assert records[-1]["loss_cycle"] < 0.5 * records[0]["loss_cycle"]
    assert records[-1]["loss_identity"] < 0.5 * records[0]["loss_identity"]
    lines = capsys.readouterr().out.splitlines()
    zebra, horse = (float(line.split("translated ")[1].split()[0]) for line in lines[-2:])
    assert zebra > 0.25 and horse > 0.25, lines[-2:]
    assert "--img_height 64" in next(line for line in lines if line.startswith("options"))
    shutil.rmtree("saved_models")
