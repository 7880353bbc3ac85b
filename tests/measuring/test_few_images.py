"""benchmarks/few_images.py: trains from models and from nothing, and repeats nothing."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from benchmarks import few_images
from get_data import demo as demo_data
from get_data.scenes import DEMO, OTHER, draw_scene


def result(arm, seed, AB, score=None):
    values = {"task": "x", "arm": arm, "seed": seed, "AB": AB, "BA": 9, "untranslated": {"AB": 50, "BA": 60}}
    return values | ({"score": score} if score else {})


def test_the_table_has_means_and_standard_deviations():
    results = [result("one", 0, 10.0, [0.5, 1, 0, 1]), result("one", 1, 14.0, [0.7, 1, 0, 1]), result("two", 0, 3)]
    assert few_images.table(results)[2:] == [
        "| x | untranslated | | 50.0 | 60.0 | | | | |",
        "| x | one | 2 | 12.0 ± 2.8 | 9.0 ± 0.0 | 0.600 ± 0.141 | 1.000 ± 0.000 | 0.000 ± 0.000 | 1.000 ± 0.000 |",
        "| x | two | 1 | 3.0 | 9.0 |  |  |  |  |",
    ]


def test_other_colours_have_the_same_shapes_and_landscapes():
    for i in range(5):
        one, other = (draw_scene(np.random.default_rng((7, i)), colours=colours) for colours in (DEMO, OTHER))
        assert np.array_equal(draw_scene(np.random.default_rng((7, i)))[0], one[0])  # the demo's, by default
        mask = np.array(one[2])
        assert np.array_equal(mask, other[2])
        for a, b in zip(one[:2], other[:2]):
            differs = np.abs(np.array(a, int) - np.array(b)).max(-1) > 12
            assert not differs[mask == 0].any() and differs[mask == 255].mean() > 0.9
        horse, zebra = (np.array(picture, float)[mask == 255] for picture in other[:2])
        assert np.abs(horse[:, 0] - horse[:, 2]).mean() < 10  # gray, and ...
        assert (zebra[:, 0] - zebra[:, 2]).min() > 20  # ... brown


@pytest.mark.slow
def test_a_small_one_is_run_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_data, "N_TRAIN", 4)
    monkeypatch.setattr(demo_data, "N_TEST", 2)
    demo_data.write_demo("data/demo")
    recipe = " ".join(few_images.RECIPE).replace("blocks 3", "blocks 1").replace("--ngf 24 --ndf 32", "--ngf 4 --ndf 4")
    monkeypatch.setattr(few_images, "RECIPE", [*recipe.split(), "--no-amp"])
    words = "--only demo --seeds 1 --n_iters 4 --base_iters 3 --device cpu --arms".split()
    arms = ["20 from a model, freeze_D 2", "20 from nothing"]
    assert few_images.main([*words, *arms]) == 0
    results = [json.loads(line) for line in open("saved_models/few_images/results.jsonl")]
    assert [r["arm"] for r in results] == arms
    for r in results:
        assert 0 < r["AB"] < 255 and 0 < r["untranslated"]["AB"] < 255 and len(r["score"]) == 4
    runs = {name: json.load(open(f"saved_models/{name}/options.json")) for name in os.listdir("saved_models")
            if name != "few_images"}  # fmt: skip
    assert len(runs) == 3
    started = [run for run in runs.values() if "started_from" in run]
    assert [run["started_from"]["step"] for run in started] == [3] and started[0]["options"]["freeze_D"] == 2
    assert "| demo | 20 from nothing | 1 |" in capfd.readouterr().out
    base = Image.open("data/demo_colours/trainA/0000.png")
    assert np.array_equal(base, draw_scene(np.random.default_rng((0, 0)), colours=OTHER)[0])

    monkeypatch.setattr(few_images, "train", None)  # is not called again
    assert few_images.main([*words, *arms]) == 0
    assert len(open("saved_models/few_images/results.jsonl").readlines()) == 2


@pytest.mark.slow
def test_a_failed_training_is_one_line_and_tried_again(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    os.makedirs("data/earth")  # holds no images
    words = "--only earth --seeds 1 --n_iters 2 --base_iters 2 --device cpu --arms".split()
    assert few_images.main([*words, "20 from nothing"]) == 1
    assert "few_images_earth_20_from_nothing_0_2_2" in capfd.readouterr().out
    assert not os.path.exists("saved_models/few_images/results.jsonl")
