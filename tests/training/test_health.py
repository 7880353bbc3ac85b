"""Provokes each failure that health.py detects, with suitable networks or by training. A healthy run has none."""

import json
import os
import re
import sys
import time

import numpy as np
import pytest
import torch
from helpers import SMALL, load_networks
from PIL import Image

import cyclegan
from measuring import logs as logs_module
from measuring import plot
from training import health
from training.health import ADVICE, Health
from utils import InputError, sample_images

FINE = dict(loss_D=0.2, loss_G=1.5, loss_GAN=0.3, loss_cycle=0.1)
MIXED = torch.full((5, 1, 4, 4), 0.6), torch.full((5, 1, 4, 4), 0.55)  # scores of real and translated images
SEPARATED = torch.full((5, 1, 4, 4), 0.98), torch.full((5, 1, 4, 4), 0.03)


def pictures(seed):
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(5, 3, 4, 4, generator=g), 32) * 2 - 1


def conditions(G_AB, G_BA, scores=MIXED, gan_loss="lsgan", step=1000, **losses):
    health = Health(gan_loss)
    for at in (step - 100, step):
        health.losses(at, FINE | losses)
    health.look_at(sample_images(G_AB, G_BA, pictures(0), pictures(1)), scores, scores)
    return health.conditions(step)


def other_colours(x):
    return x.roll(1, 1) * 0.8


def test_a_healthy_run_has_no_conditions():
    assert conditions(other_colours, other_colours) == []


@pytest.mark.parametrize(
    "condition, G, facts",
    [
        ("D too strong", other_colours, dict(scores=SEPARATED, loss_D=0.01, loss_GAN=0.95)),
        ("D too strong", other_colours, dict(scores=(MIXED[0] + 9, MIXED[1] - 9), gan_loss="hinge", loss_D=0.0)),
        ("cycle loss stuck", other_colours, dict(loss_cycle=0.5)),
        ("output equals input", lambda x: x + 0.01, dict(scores=SEPARATED, loss_D=0.1)),
        ("colours inverted", lambda x: -0.7 * x, {}),
        ("collapse", lambda x: 0.05 * x + pictures(7)[:1], {}),
    ],
)
def test_conditions_are_detected(condition, G, facts):
    assert conditions(G, G, **facts) == [condition]
    assert conditions(G, G, **facts, step=200) == []  # too early to tell


def flat(seed, n=5, size=32):
    """Images of nearly uniform colours, which differ from image to image."""
    g = torch.Generator().manual_seed(seed)
    noise = 0.05 * torch.randn(n, 3, size, size, generator=g)
    return (torch.rand(n, 3, 1, 1, generator=g) * 1.6 - 0.8 + noise).clamp(-1, 1)


def without_colour(x):
    """What instance norm leaves: the structure of the input, in one colour."""
    return 0.6 * (x - x.mean((2, 3), keepdim=True)) + torch.tensor([0.5, 0.0, -0.3]).view(1, 3, 1, 1)


def look(G_AB, G_BA, real_A, real_B):
    health = Health()
    for at in (900, 1000):
        health.losses(at, FINE)
    measures = health.look_at(sample_images(G_AB, G_BA, real_A, real_B), MIXED, MIXED)
    return health, measures


def test_collapsed_colours_are_named_with_their_direction():
    structured, uniform = pictures(0), flat(1)
    health, measures = look(without_colour, lambda x: x, structured, uniform)
    assert measures["variety"] > 0.3  # over all pixels, nothing is wrong
    assert measures["colours_AB"] < 0.01 and health.conditions(1000) == ["colours collapse, A -> B"]
    assert "--norm layer" in health.line(1000)[1] and health.line(1000)[1].startswith(
        "  colours collapse, A -> B: all "
    )
    assert health.conditions(200) == []
    health, measures = look(lambda x: x, without_colour, uniform, structured)
    assert health.conditions(1000) == ["colours collapse, B -> A"] and measures["colours_BA"] < 0.01
    assert look(without_colour, without_colour, pictures(0), pictures(1))[0].conditions(1000) == [
        "colours collapse, A -> B", "colours collapse, B -> A"
    ]  # fmt: skip


def test_the_measure_of_colours_is_the_ratio_of_their_differences():
    a, b = flat(1), flat(2)
    means = [x.mean((2, 3)) for x in (0.5 * a, b)]
    difference = [sum((m[i] - m[j]).abs().mean() for i in range(5) for j in range(5)).item() for m in means]
    _, measures = look(lambda x: 0.5 * x, lambda x: x, a, b)
    assert measures["colours_AB"] == pytest.approx(difference[0] / difference[1], rel=1e-4)
    health, measures = look(lambda x: x, lambda x: x, a[:1], b[:1])
    assert "colours_AB" not in measures and health.conditions(1000) == []


def test_no_false_alarm_where_colours_do_not_matter():
    # the colours of real images hardly differ, as in the demo
    assert (
        look(without_colour, without_colour, without_colour(flat(1)), without_colour(flat(2)))[0].conditions(1000) == []
    )
    # inputs of one colour give translations of one colour: the generator is not to blame
    gray = without_colour(pictures(0))
    health, measures = look(lambda x: x.roll(1, 1), lambda x: x, gray, flat(1))
    assert measures["colours_AB"] < 0.01 and health.conditions(1000) == []
    # translations that keep the colours of the input, or take a third of them
    for G in (lambda x: x.roll(1, 1), lambda x: 0.34 * x):
        assert look(G, G, flat(1), flat(2))[0].conditions(1000) == []


@pytest.mark.parametrize("gan_loss, tells", [("lsgan", 0.5), ("vanilla", 1.0), ("hinge", 1.0)])
def test_which_scores_mean_real_depends_on_the_loss(gan_loss, tells):
    scores = torch.full((5, 1, 4, 4), 0.2), torch.full((5, 1, 4, 4), -0.2)
    columns = sample_images(other_colours, other_colours, pictures(0), pictures(1))
    assert Health(gan_loss).look_at(columns, scores, scores)["tells"] == tells


def test_an_unchanged_input_is_fine_if_it_fools_the_discriminator():
    assert conditions(lambda x: x + 0.01, lambda x: x + 0.01, scores=MIXED) == []


def test_averages_are_over_200_steps_and_the_line_shows_usual_ranges():
    health = Health()
    health.losses(1, FINE | {"loss_D": 9.0})
    for step in range(50, 401, 50):
        health.losses(step, FINE | {"loss_D": 0.01 * step})
    assert health.averages["loss_D"] == pytest.approx(0.01 * (250 + 300 + 350 + 400) / 4)
    uneven = Health()
    for step, value in ((1, 9.0), (51, 1.0), (201, 2.0)):
        uneven.losses(step, FINE | {"loss_D": value})
    assert uneven.averages["loss_D"] == pytest.approx((50 * 1 + 150 * 2) / 200)
    health.look_at(sample_images(other_colours, other_colours, pictures(0), pictures(1)), MIXED, MIXED)
    (line,) = health.line(400)
    assert "D 3.25 (usual: 0.1 to 0.3)" in line and "cycle 0.10, " in line and "D accuracy 50%" in line
    health.losses(450, FINE | {"loss_cycle": 2.0})
    line, advice = health.line(450)
    assert advice == f"  cycle loss stuck: {ADVICE['cycle loss stuck']}"


def test_change_is_not_measured_between_different_channels():
    health = Health()
    gray, colour = pictures(0)[:, :1], pictures(1)
    columns = sample_images(lambda x: x.expand(-1, 3, -1, -1), lambda x: x[:, :1], gray, colour)
    assert "change" not in health.look_at(columns, MIXED, MIXED) and ", change " not in health.line(300)[0]


# ----- in real training runs


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    make_set(trainA=4, trainB=5, testA=9, testB=9)
    monkeypatch.chdir(tmp_path)

    def train(*options):
        small = [*SMALL, "--sample_interval", "50", "--log_interval", "10", *options]
        return cyclegan.main(small)

    return train


def found(name="tiny"):
    records = [json.loads(line) for line in open(f"saved_models/{name}/log.jsonl")]
    return [record["conditions"] for record in records if "conditions" in record][-1]


@pytest.fixture
def soon(monkeypatch):
    """Problems are reported from step 40 on, instead of 200. `conditions` above has the 200."""
    monkeypatch.setattr(health, "SETTLED", 40)


@pytest.mark.slow
def test_a_run_that_cannot_learn_is_detected_and_again_when_it_is_resumed(tiny, soon, capsys):
    tiny("--n_iters", "50", "--lr", "0")
    assert "cycle loss stuck" in found()
    out = capsys.readouterr().out
    assert f"  cycle loss stuck: {ADVICE['cycle loss stuck']}\n" in out and "health at step 50: D " in out
    tiny("--n_iters", "100", "--resume")
    assert "cycle loss stuck" in found() and "health at step 100: D " in capsys.readouterr().out


@pytest.mark.slow
def test_too_strong_discriminators_are_detected(tiny, soon):
    tiny("--n_iters", "100", "--lr_G", "0", "--lr_D", "0.01", "--discriminator", "pixel", "--ndf", "16")
    assert found() == ["D too strong"]  # and not its consequence, the stuck cycle loss


@pytest.mark.slow
def test_losses_without_weight_and_unknown_ranges_are_not_shown(tiny, soon, capsys):
    tiny("--n_iters", "50", "--lambda_cyc", "0", "--lambda_id", "0", "--gan_loss", "hinge")
    out = capsys.readouterr().out
    assert "inf" not in out and "cycle" not in out.split("step 1/")[1].split("done in")[0] and "usual" not in out
    records = [json.loads(line) for line in open("saved_models/tiny/log.jsonl")]
    assert (
        not any("loss_cycle" in r or "loss_identity" in r for r in records)
        and min(r.get("loss_GAN", 0) for r in records) < 0
    )
    assert len([r for r in records if r["step"] == 50 and "tells" in r]) == 1  # the last grid is drawn once
    plot.main(["tiny"])


# ----- curves, TensorBoard, test images


def test_losses_on_test_images(tiny, capsys):
    tiny("--n_epochs", "4", "--val_interval", "2", "--norm", "batch", "--dropout", "0.5")
    records = [json.loads(line) for line in open("saved_models/tiny/log.jsonl")]
    tested = [record for record in records if "val_cycle" in record]
    assert [record["epoch"] for record in tested] == [1, 3]
    from datasets import ImageDataset

    G = load_networks("saved_models/tiny/latest.pth")
    dataset = ImageDataset("data/tiny", "test", img_size=(32, 32))
    cycle = identity = 0
    with torch.no_grad():
        for i in range(9):
            a, b = dataset[i]["A"][None], dataset[i]["B"][None]
            cycle += ((G["BA"](G["AB"](a)) - a).abs().mean() + (G["AB"](G["BA"](b)) - b).abs().mean()) / 18
            identity += ((G["BA"](a) - a).abs().mean() + (G["AB"](b) - b).abs().mean()) / 18
    assert tested[-1]["val_cycle"] == pytest.approx(cycle.item(), rel=1e-3)
    assert tested[-1]["val_identity"] == pytest.approx(identity.item(), rel=1e-3)
    assert f"cycle {cycle:.3f}  identity {identity:.3f}" in capsys.readouterr().out


def test_bad_test_images_do_not_stop_the_training(tiny, capsys):
    with open("data/tiny/testA/8.png", "r+b") as file:
        file.truncate(200)
    tiny("--n_epochs", "2", "--val_interval", "1")
    assert "note: --val_interval: data/tiny/testA/8.png: broken" in capsys.readouterr().out
    tiny("--n_epochs", "2", "--val_interval", "1", "--skip_bad_images")
    assert "test images: cycle 0." in capsys.readouterr().out


def test_domains_with_different_numbers_of_test_images(make_set, tmp_path, monkeypatch):
    make_set(trainA=4, trainB=4, testA=5, testB=2)
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--n_epochs", "1", "--sample_interval", "4"])
    assert Image.open("images/tiny/000004.png").height == 2 * 34 + 2 + 14  # and a line of captions


def test_missing_test_images_are_noted(make_set, tmp_path, monkeypatch, capsys):
    make_set(trainA=4, trainB=4)
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--n_epochs", "1", "--val_interval", "1"])
    assert "note: --val_interval: data/tiny/testA: no such folder" in capsys.readouterr().out


@pytest.mark.slow
def test_curves(tiny, capsys):
    tiny("--n_epochs", "3", "--lambda_ssim", "1")
    tiny("--n_epochs", "2", "--run_name", "other", "--gan_loss", "hinge")
    plot.main(["tiny"])
    picture = Image.open("images/tiny/curves.png")
    assert picture.width == 1200 and np.asarray(picture.convert("L")).std() > 10
    plot.main(["tiny", "other", "--output", "both.png", "--smooth", "0"])
    assert os.path.exists("both.png")
    for name, text in (("nothere", None), ("empty", ""), ("broken", '{"step"')):
        if text is not None:
            os.makedirs(f"saved_models/{name}")
            open(f"saved_models/{name}/log.jsonl", "w").write(text)
        with pytest.raises(InputError, match=f"saved_models/{name}/log.jsonl: "):
            plot.main([name])


def write_log(name, *lines):
    os.makedirs(f"saved_models/{name}", exist_ok=True)
    with open(f"saved_models/{name}/log.jsonl", "w") as file:
        file.write("\n".join(lines) + "\n")


def test_damaged_lines_of_a_log_are_skipped_with_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = [json.dumps({"step": step, "loss_D": 0.5, "conditions": ["collapse"]}) for step in (1, 2, 3)]
    damaged = ["[1]", "{", '{"step": "1"}', '{"step": -1}', '{"step": 1e400}', '{"step": true}', '{"loss_D": 1}', "null",
               "9" * 5000, "[" * 100_000, '{"step": 5, "conditions": 3}', '{"step": NaN}', "\0\0"]  # fmt: skip
    odd = ['{"step": 4, "loss_D": "x", "loss_G": [1], "lr": NaN, "change": null, "conditions": ["new", [1], {}]}']
    write_log("run", *good, *damaged, *odd)
    plot.main(["run"])
    out = capsys.readouterr().out
    assert f"note: saved_models/run/log.jsonl: skipped {len(damaged)} damaged lines" in out
    assert "run: collapse at step 1, 2, 3\n" in out and "new" not in out and os.path.exists("images/run/curves.png")
    records, n_skipped = logs_module.read_log("saved_models/run/log.jsonl")
    assert len(records) == 4 and records[-1] == {"step": 4, "conditions": ["new"]} and n_skipped == len(damaged)


def test_a_mistyped_run_gets_the_list_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file.* There are no runs in saved_models"):
        plot.main(["horse"])
    for name in ("horse2zebra", "facades"):
        write_log(name, '{"step": 1}')
    with pytest.raises(InputError, match="Did you mean horse2zebra. There are: .*facades"):
        plot.main(["horse2zebr"])
    for name in ("horse2zebra", "facades"):
        open(f"saved_models/{name}/latest.pth", "w").close()
    from media.files import load_file

    with pytest.raises(InputError, match="no such checkpoint. Did you mean horse2zebra. There are: .*facades"):
        load_file("saved_models/horse2zebr/latest.pth")
    with pytest.raises(InputError, match="no such checkpoint. Did you mean saved_models/facades/latest.pth.$"):
        load_file("saved_models/facades/lastest.pth")


def test_a_run_has_one_colour_and_a_value_one_style(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    def lines_of(logs, *names):
        _, axis = pyplot.subplots()
        logs_module.draw_curves(axis, names, logs, 0)
        return axis.get_lines(), [text.get_text() for text in axis.get_legend().get_texts()]

    many = [{"step": i, "loss_D": 1.0, "loss_GAN": 2.0, "images_per_s": 3.0} for i in range(1, 31)]
    many[9]["val_cycle"] = 4.0
    lines, labels = lines_of({"one": many, "two": many[5:]}, "loss_D", "loss_GAN")
    assert [(line.get_color(), line.get_linestyle()) for line in lines] == [
        ("C0", "-"), ("C0", "--"), ("C1", "-"), ("C1", "--")]  # fmt: skip
    assert labels == ["D, one", "GAN, one", "D, two", "GAN, two"]
    lines, labels = lines_of({"one": many, "two": many}, "images_per_s")
    assert [line.get_color() for line in lines] == ["C0", "C1"] and labels == ["one", "two"]
    lines, labels = lines_of({"one": many}, "loss_cycle", "val_cycle", "loss_D")
    assert {line.get_marker() for line in lines} == {"."} and {str(line.get_markevery()) for line in lines} == {"[-1]"}
    lines, labels = lines_of({"one": many[:9]}, "images_per_s")
    assert labels == ["images/s"] and lines[0].get_markevery() is None
    pyplot.close("all")


def test_a_long_log_is_smoothed_at_once():
    records = [{"step": 10 * i, "loss_D": 1e30 if i == 100 else float(i % 7)} for i in range(1, 100_001)]
    started = time.monotonic()
    _, means = logs_module.curve(records, "loss_D", 70)
    assert time.monotonic() - started < 10  # it was quadratic
    assert means[-1] == pytest.approx(3) and means[200] == pytest.approx(3)  # 1e30 leaves no trace


def test_smoothed_curves_are_weighted_by_steps():
    records = [{"step": 1, "loss_D": 9.0}, {"step": 10, "loss_D": 1.0}, {"step": 40, "loss_D": 2.0}, {"step": 40}]
    assert logs_module.curve(records, "loss_D") == ([1, 10, 40], [9.0, 1.0, 2.0])
    assert logs_module.curve(records, "loss_D", 100)[1] == pytest.approx([9, 1, (9 * 1 + 30 * 2) / 39])
    assert logs_module.curve(records, "nothing") == ([], [])


def test_all_advice_names_options_that_exist():
    known = {o for action in cyclegan.get_parser()._actions for o in action.option_strings}
    mentioned = set(re.findall(r"--\w+", " ".join(ADVICE.values())))
    assert mentioned and mentioned <= known
