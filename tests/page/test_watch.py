"""page/watch.py and measuring/curves.py: what is said of a run that is training."""

import json
import os
import re

import pytest

from measuring import curves, logs
from page import watch
from page.models_found import Models
from training.health import USUAL
from utils import InputError


@pytest.fixture
def log(tmp_path, monkeypatch):
    """log(record, ...) appends to the log of the run "a" -> Models"""
    monkeypatch.chdir(tmp_path)
    os.makedirs("saved_models/a")

    def write(*records, options=None, A=10, B=8):
        with open("saved_models/a/log.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        if options is not None:
            with open("saved_models/a/options.json", "w") as file:
                json.dump({"options": options, "data": {"A": A, "B": B}}, file)
        return Models()

    return write


OPTIONS = {"n_epochs": 5, "batch_size": 1}
RECORDS = [{"step": step, "epoch": (step - 1) // 10, "loss_D": 0.2, "images_per_s": 4.0} for step in (1, 8, 16, 20)]


def test_the_remaining_time(log):
    models = log(*RECORDS, options=OPTIONS)
    record, records = models.record("a"), logs.read_log("saved_models/a/log.jsonl")[0]
    assert logs.steps_per_epoch(record, records) == 10 and logs.last_step(record, records) == 50
    # a step has an image of each domain, 2 of 4 a second; 30 steps are left
    assert logs.seconds_left(record, records) == 15.0
    assert logs.seconds_left(record, records, since=3.0) == 12.0
    assert logs.seconds_left(record, records, since=100.0) == 0.0
    # the first step is a warm-up, and the mean is that of the seconds
    paces = [dict(one, images_per_s=pace) for one, pace in zip(records, (0.01, 2.0, 4.0, 4.0))]
    assert logs.seconds_left(record, paces) == pytest.approx(30 * 2 * (1 / 2 + 1 / 4 + 1 / 4) / 3)


def test_the_number_of_processes_follows_from_the_log(log):
    records = [{"step": step, "epoch": (step - 1) // 5, "images_per_s": 4.0} for step in (1, 4, 6, 10, 13)]
    record = log(*records, options=OPTIONS).record("a")
    assert logs.steps_per_epoch(record, records) == 5  # of two processes
    assert logs.last_step(record, records) == 25
    assert logs.seconds_left(record, records) == (25 - 13) * 4 / 4.0
    record["options"]["n_iters"] = 40
    assert logs.last_step(record, records) == 40


@pytest.mark.parametrize("options, A", [
    ({}, 10), ({"n_epochs": "5", "batch_size": 1}, 10), (OPTIONS, None), (OPTIONS, -1), (OPTIONS | {"accumulate": 0}, 10),
    (OPTIONS | {"batch_size": 100}, 10), (OPTIONS, 10**6),
])  # fmt: skip
def test_an_unknown_remaining_time_is_not_invented(log, options, A):
    models = log(*RECORDS, options=options, A=A)
    record, records = models.record("a"), logs.read_log("saved_models/a/log.jsonl")[0]
    assert logs.seconds_left(record, records) is None
    assert watch.look_at(models, "a").status.startswith("a: training, step 20")


def test_a_growing_log(log):
    models = log()
    assert watch.look_at(models, "a").status == "a: training has begun; nothing has been logged yet"
    log(*RECORDS, options=OPTIONS)
    now = os.path.getmtime("saved_models/a/log.jsonl")
    before, seen = watch.signature(models, "a"), watch.look_at(models, "a", now=now)
    assert seen.status == "a: training, step 20 of 50, about a minute left" and seen.step == 20
    assert seen.plots["discriminator and adversarial loss"] == [("D", [1, 8, 16, 20], pytest.approx([0.2] * 4))]
    assert watch.signature(models, "a") == before
    log({"step": 50, "epoch": 4, "loss_D": 0.6, "images_per_s": 4.0})
    assert watch.signature(models, "a") != before
    ((_, steps, values),) = watch.look_at(models, "a", smooth=0).plots["discriminator and adversarial loss"]
    assert steps == [1, 8, 16, 20, 50] and values == pytest.approx([0.2] * 4 + [0.6])
    os.utime("saved_models/a/log.jsonl", (now - 1000, now - 1000))
    assert watch.look_at(models, "a").status == "a: finished, step 50 of 50"
    with open("saved_models/a/log.jsonl", "a") as file:
        file.write('{"step": 6')  # is being written
    os.utime("saved_models/a/log.jsonl", (now - 1000, now - 1000))
    assert watch.look_at(models, "a").step == 50


def test_health_is_what_training_printed(trained, monkeypatch):
    monkeypatch.chdir(trained)
    printed = re.findall(r"^health at step.*(?:\n  .*)*", open("printed.txt").read(), re.MULTILINE)
    health = watch.look_at(Models(), "tiny").health
    assert printed[-1].startswith("health at step 10: D ")
    assert health == printed[-1].split("\n")


def test_earlier_problems_are_said_with_advice(log):
    look = {"tells": 0.6, "variety": 0.9, "inverts": 0.5, "change": 20.0}
    models = log(
        {"step": 300, **look, "conditions": ["collapse", "unknown <b>"]}, {"step": 600, **look, "conditions": []}
    )
    now, earlier = watch.look_at(models, "a").health
    assert now == "health at step 600: D accuracy 60%, change 20 of 255, variety 90%"
    assert earlier.startswith("earlier, at step 300: collapse: different inputs give the same output. Try")


def test_long_curves_are_thinned_out(log):
    models = log(*({"step": step, "loss_D": step / 1e4} for step in range(1, 10_001)))
    ((_, steps, values),) = watch.look_at(models, "a", smooth=0).plots["discriminator and adversarial loss"]
    assert len(steps) == 400 and steps[-1] == 10_000 and steps[1] - steps[0] == 25
    assert values[-1] == 1.0


def test_grids(log):
    models = log(*RECORDS)
    os.makedirs("images/a")
    with open("images/a/000250.png", "w") as file:
        file.write("not a picture")
    with pytest.raises(InputError, match="broken"):
        watch.grid_of(models, "a", 250)
    with pytest.raises(InputError, match="no such sample grid"):
        watch.grid_of(models, "a", 251)


##############################
#   Curves
##############################


def test_points_of_a_curve():
    text = curves.draw("loss <b>", [("D & G", [0, 50, 100], [0.0, 1.0, 0.5])])
    left, right, top, bottom = 52, 420 - 10, 10, 230 - 24
    middle = (left + right) / 2
    assert f'points="{left}.0,{bottom}.0 {middle},{top}.0 {right}.0,{(top + bottom) / 2}"' in text
    assert "D &amp; G 0.5" in text and "<b>" not in text and "loss &lt;b&gt;" in text


def test_curves_are_drawn_from_zero():
    bottom, top = 230 - 24, 10
    assert f'points="52.0,{(top + bottom) / 2} 410.0,{top}.0"' in curves.draw("x", [("a", [0, 1], [1.0, 2.0])])


def test_the_last_step_is_within_the_picture():
    text = curves.draw("x", [("a", [0, 200], [0.0, 1.0])])
    assert re.findall(r'x="([0-9.]+)" y="224" text-anchor="end">([^<]*)<', text) == [("410.0", "200")]
    assert 'text-anchor="middle">100</text>' in curves.draw("x", [("a", [0, 230], [0.0, 1.0])])


def test_titles_say_what_was_measured(log):
    record = {"step": 20, "loss_cycle": 0.2}
    assert list(watch.look_at(log(record), "a").plots) == ["cycle loss"]
    models = log({"step": 40, "val_cycle": 0.3})
    assert list(watch.look_at(models, "a").plots) == ["cycle loss, and on test images"]
    text = curves.draw_all(watch.look_at(models, "a").plots, 200)
    assert text.endswith("</div><p>Losses are means over the last 200 steps.</p>")
    assert curves.draw_all({}, 200) == ""


def test_the_usual_range_of_a_cycle_loss():
    low, high = USUAL["loss_cycle"]
    text = curves.draw("cycle loss", [("cycle", [0, 10], [0.0, 2 * high])])
    ((top, height),) = re.findall(r'<rect [^>]*y="([0-9.]+)" height="([0-9.]+)" class="usual">', text)
    assert float(top) == pytest.approx((10 + 206) / 2, abs=0.1)
    assert float(height) == pytest.approx(196 * (high - low) / (2 * high), abs=0.2)
    assert "usual" not in curves.draw("other losses", [("a", [0, 10], [0.0, 1.0])])


def test_runs_have_their_colours_and_values_their_dashes():
    a = [{"step": step, "loss_D": 0.5, "loss_GAN": 1.0} for step in (1, 2)]
    ((_, lines),) = curves.plots_of({"one": a, "two": [{"step": 5, "loss_GAN": 0.25}]}, 0).items()
    first, second = curves.COLOURS[:2]
    assert lines == [
        ("D, one", [1, 2], [0.5, 0.5], first, ""), ("GAN, one", [1, 2], [1.0, 1.0], first, "6 3"),
        ("GAN, two", [5], [0.25], second, "6 3"),
    ]  # fmt: skip
    text = curves.draw("x", lines)
    assert (
        text.count(f'stroke="{first}"') == 3 and text.count('stroke-dasharray="6 3"') == 4
    )  # with those in the legend


def test_a_single_point_and_a_constant():
    for lines in ([("a", [7], [0.0])], [("a", [7, 9], [-2.0, -2.0])]):
        assert "nan" not in curves.draw("x", lines) and "inf" not in curves.draw("x", lines)
    assert curves.draw_all({}) == ""


def test_a_tiny_range_is_a_constant():
    text = curves.draw("x", [("a", [7, 9], [0.0, 5e-324])])
    assert "nan" not in text and curves.ticks(0.0, 5e-324) == [0.0] and curves.ticks(0.0, 1e-31) == [0.0]
    assert curves.ticks(0.0, 3e-30) == pytest.approx([0.0, 1e-30, 2e-30, 3e-30], abs=1e-40)


def test_ticks():
    assert curves.ticks(0, 3000) == [0, 1000, 2000, 3000]
    assert curves.ticks(0, 0.6) == pytest.approx([0, 0.2, 0.4, 0.6])
    assert curves.ticks(5, 5) == [5]
    assert [curves.short(v) for v in (0.0, 0.2, 1500, 2e6, 0.00015, 2e-05, -0.5, 10)] == [
        "0", "0.2", "1.5k", "2M", "1.5e-4", "2e-5", "-0.5", "10",
    ]  # fmt: skip
