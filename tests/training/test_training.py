"""The real main([...]) on small data: what is learnt, saved, resumed, refused."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same, interrupt_at, load, losses_logged
from PIL import Image

import cyclegan
import models
import utils
from training import checkpoints, presets
from utils import DivergedError, InputError


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    """A small data set below the working directory -> train(option, ...), which runs main."""
    make_set()
    monkeypatch.chdir(tmp_path)
    return lambda *options: cyclegan.main([*SMALL, *options])


# ----- resume


WORKERS = [("--n_cpu", "2"), ("--no-cache", "--n_cpu", "2")]


@pytest.mark.parametrize(
    "options", [(), *(pytest.param(o, marks=pytest.mark.slow) for o in [("--no-cache",), ("--amp",), *WORKERS])]
)
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(tiny, monkeypatch, options):
    before = multiprocessing.active_children()
    tiny("--n_epochs", "4", "--run_name", "whole", *options)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=8)  # in the middle of the second epoch of 5 steps
        assert tiny("--n_epochs", "4", *options) == 128 + signal.SIGINT
    assert {*multiprocessing.active_children()} <= {*before}  # those that loaded images have ended, in both cases
    stopped = load()
    assert (stopped["epoch"], stopped["batch"], stopped["step"]) == (1, 3, 8)
    tiny("--resume", *options)
    whole, resumed = load("saved_models/whole/latest.pth"), load()
    whole["options"] = resumed["options"] = None
    assert_same(whole, resumed)
    assert whole["step"] == 20


@pytest.mark.slow
def test_stopped_after_the_last_step_of_an_epoch(tiny, monkeypatch, recwarn):
    tiny("--n_epochs", "3", "--run_name", "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=5)
        tiny("--n_epochs", "3")
    assert (load()["epoch"], load()["batch"]) == (0, 5)
    tiny("--resume")
    assert_same(load("saved_models/whole/latest.pth") | {"options": None}, load() | {"options": None})
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]


def test_resume_from_a_kept_epoch(tiny):
    tiny("--n_epochs", "4", "--checkpoint_interval", "2")
    whole = load()
    names = set(os.listdir("saved_models/tiny"))
    kept = {f"{kind}_{n}.pth" for kind in ("checkpoint", "G_AB", "G_BA") for n in (2, 4)}
    assert names == kept | {"latest.pth", "log.jsonl", "lock", "options.json"}
    with pytest.raises(InputError, match="--epoch 3: saved_models/tiny has no checkpoint of that epoch; it has: 2, 4"):
        tiny("--epoch", "3")
    tiny("--epoch", "2")
    assert_same(whole, load() | {"options": whole["options"]})
    # what came after epoch 2 is not lost, and the log holds what led here
    assert_same(whole, load("saved_models/tiny.1/latest.pth"))
    logs = [[r["loss_G"] for r in losses_logged(n)] for n in ("tiny", "tiny.1")]
    assert logs[0][:6] == logs[1][:6]


@pytest.mark.slow
def test_going_back_and_being_killed_at_once_is_resumed_from_there(tiny, monkeypatch):
    tiny("--n_epochs", "4", "--checkpoint_interval", "2")
    with monkeypatch.context() as patch:
        patch.setattr(cyclegan, "train_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny("--epoch", "2", "--n_epochs", "6")
    assert load()["epoch"] == 2
    tiny("--resume", "--n_epochs", "3")
    assert load()["epoch"] == 3 and load("saved_models/tiny.1/latest.pth")["epoch"] == 4


@pytest.mark.slow
def test_longer_training_and_another_learning_rate(tiny):
    tiny("--n_epochs", "2")
    tiny("--resume", "--n_epochs", "4", "--lr", "0.001", "--b1", "0.6")
    state = load()
    assert state["epoch"] == 4 and state["options"]["lr"] == 0.001
    assert state["optimizer_D_A"]["param_groups"][0]["betas"] == (0.6, 0.999)
    records = losses_logged()
    # the decay now starts after two epochs of four, so the third has the full rate
    assert [r["lr"] for r in records if r["epoch"] == 2] == [0.001] * 4
    assert [r["lr"] for r in records if r["epoch"] == 3][0] == pytest.approx(0.0005)
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})


@pytest.mark.slow
def test_resume_takes_the_options_of_the_run(tiny, capsys):
    tiny("--n_epochs", "1", "--lambda_cyc", "3", "--seed", "4")
    cyclegan.main(["--dataset_name", "tiny", "--resume", "--n_epochs", "2", "--device", "cpu"])
    options = load()["options"]
    assert (options["lambda_cyc"], options["seed"], options["img_height"], options["ngf"]) == (3, 4, 32, 4)
    assert "--lambda_cyc 3.0" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_before_the_first_checkpoint_starts_from_the_beginning(tiny, capsys):
    tiny("--resume", "--n_epochs", "1")
    assert load()["epoch"] == 1 and "starting from the beginning" in capsys.readouterr().out


def test_a_finished_run_says_so(tiny, capsys):
    tiny("--n_epochs", "1")
    before = open("saved_models/tiny/latest.pth", "rb").read()
    tiny("--resume")
    assert "latest.pth: already trained up to epoch 1" in capsys.readouterr().out
    assert open("saved_models/tiny/latest.pth", "rb").read() == before


@pytest.mark.slow
def test_other_architecture_is_refused_and_nothing_is_overwritten(tiny):
    tiny("--n_epochs", "1")
    before = {name: open(f"saved_models/tiny/{name}", "rb").read() for name in os.listdir("saved_models/tiny")}
    for flag, value, stored in (
        ("ngf", "8", "4"),
        ("n_residual_blocks", "2", "1"),
        ("upsample", "nearest", "transpose"),
    ):
        with pytest.raises(InputError, match=f"--{flag} {value}: .*latest.pth was trained with {stored}"):
            tiny("--resume", f"--{flag}", value)
    with open("saved_models/tiny/latest.pth", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(InputError, match="latest.pth: broken, truncated"):
        tiny("--resume")
    before["latest.pth"] = before["latest.pth"][:5000]
    assert {name: open(f"saved_models/tiny/{name}", "rb").read() for name in os.listdir("saved_models/tiny")} == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line(tiny):
    tiny("--n_epochs", "1")
    state = load()
    damages = {"G_BA": {}, "optimizer_G": {}, "D_A": state["G_AB"], "optimizer_D_B": None, "options": []}
    for key, value in damages.items():
        torch.save(state | {key: value}, "saved_models/tiny/latest.pth")
        with pytest.raises(InputError, match="latest.pth: (damaged|not a full checkpoint)") as error:
            tiny("--resume", "--n_epochs", "2")
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_precision_image_and_batch_size_may_change_on_resume(tiny):
    tiny("--n_epochs", "2", "--amp", "--pool_size", "2", "--batch_size", "2")
    tiny("--resume", "--n_epochs", "4", "--no-amp", "--img_height", "36", "--pool_size", "2", "--batch_size", "1")
    assert load()["epoch"] == 4


@pytest.mark.slow
def test_what_was_done_before_a_broken_image_was_met_is_saved(tiny):
    with open("data/tiny/trainA/1.png", "r+b") as file:
        file.truncate(os.path.getsize("data/tiny/trainA/1.png") // 2)
    with pytest.raises(InputError, match="trainA/1.png: broken.*Use --skip_bad_images to train without"):
        tiny("--no-cache", "--n_cpu", "0", "--n_epochs", "9")
    state = load()
    assert state["epoch"] == 0 and state["batch"] == state["step"] < 5
    tiny("--resume", "--n_epochs", "2", "--skip_bad_images")
    assert load()["step"] == 10


@pytest.mark.slow
def test_a_new_run_keeps_the_earlier_one(tiny, capsys):
    tiny("--n_epochs", "1")
    open("saved_models/tiny/checkpoint_7.pth.tmp", "w").close()  # left behind by a killed run
    tiny("--resume", "--n_epochs", "2", "--run_name", "tiny")
    assert not os.path.exists("saved_models/tiny/checkpoint_7.pth.tmp")
    first = load()
    tiny("--n_epochs", "1", "--seed", "1")
    tiny("--n_epochs", "1", "--seed", "2")
    assert_same(first, load("saved_models/tiny.1/latest.pth"))
    assert load("saved_models/tiny.2/latest.pth")["options"]["seed"] == 1
    assert "the earlier run was renamed to saved_models/tiny.2" in capsys.readouterr().out


@pytest.mark.slow
def test_kill_minus_9_at_any_moment(tiny, script):
    """The issue of a power cut: whatever is on the disk, --resume goes on from it."""
    command = [sys.executable, script("cyclegan.py"), *SMALL, "--n_epochs", "1000", "--resume", "--log_interval", "1"]
    saved = [0]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            assert "error" not in line.lower() and "Traceback" not in line, line
            step = re.match(r"step (\d+)/", line)
            if step and int(step[1]) > saved[-1] + 12:  # at least two epochs further
                break
        process.kill()
        process.wait()
        process.stdout.close()
        saved.append(load()["step"])
        assert saved[-1] > saved[-2]


@pytest.mark.slow
@pytest.mark.parametrize("number, n_cpu", [(signal.SIGINT, "2"), (signal.SIGTERM, "0"), (signal.SIGHUP, "2")])
def test_signals_save_and_stop(tiny, script, number, n_cpu):
    command = [sys.executable, script("cyclegan.py"), *SMALL, "--n_epochs", "1000", "--n_cpu", n_cpu, "--no-cache"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "step 20/" in line:
            os.killpg(process.pid, number)  # as a terminal and a batch system do: the workers get it too
            if number == signal.SIGHUP:  # from the shell too
                process.send_signal(number)
    assert process.wait() == 128 + number
    assert f"stopped by a signal after step {load()['step']}" in lines[-2] and "--run_name tiny --resume" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert load()["step"] >= 20


# ----- the step


def losses_of_first_step(run_name="tiny"):
    return json.loads(open(f"saved_models/{run_name}/log.jsonl").readline())


def test_losses_are_the_formulas(tiny):
    """The first step's losses, computed again from the data and the initial weights, in the plainest way."""
    tiny("--n_epochs", "1", "--lambda_cyc", "7", "--lambda_id", "3")
    logged = losses_of_first_step()

    from datasets import ImageDataset
    from training.loading import EpochSampler

    dataset = ImageDataset("data/tiny", img_size=(32, 32), load_size=(36, 36))
    item = dataset[next(iter(EpochSampler(len(dataset), 1)))[0]]
    a, b = item["A"][None], item["B"][None]
    torch.manual_seed(0)
    G_AB, G_BA = models.GeneratorResNet(3, 1, 4), models.GeneratorResNet(3, 1, 4)
    D_A, D_B = models.Discriminator(3, 4), models.Discriminator(3, 4)
    for network in (G_AB, G_BA, D_A, D_B):
        network.apply(cyclegan.weights_init_normal)
    with torch.no_grad():
        fake_A, fake_B = G_BA(b), G_AB(a)
        gan = (((D_B(fake_B) - 1) ** 2).mean() + ((D_A(fake_A) - 1) ** 2).mean()) / 2
        cycle = ((G_BA(fake_B) - a).abs().mean() + (G_AB(fake_A) - b).abs().mean()) / 2
        identity = ((G_BA(a) - a).abs().mean() + (G_AB(b) - b).abs().mean()) / 2
        D = sum(
            ((D(real) - 1) ** 2).mean() + (D(fake) ** 2).mean()
            for D, real, fake in ((D_A, a, fake_A), (D_B, b, fake_B))
        )
    expected = {"loss_D": D / 4, "loss_GAN": gan, "loss_cycle": cycle, "loss_identity": identity}
    expected["loss_G"] = gan + 7 * cycle + 3 * identity
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.slow
def test_a_weight_of_0_costs_nothing(tiny, monkeypatch):
    calls = []
    original = models.GeneratorResNet.forward
    monkeypatch.setattr(models.GeneratorResNet, "forward", lambda self, x: (calls.append(len(x)), original(self, x))[1])

    def images_per_step(*options):
        calls.clear()
        tiny("--n_epochs", "1", *options)
        return sum(calls) - 6 * 2  # less those of the sample grid at the end: six passes a row... of two rows

    calls_of = {o: images_per_step("--lambda_id", o[0], "--lambda_cyc", o[1]) for o in ("55", "05", "50", "00")}
    n = {key: value // 5 for key, value in calls_of.items()}
    assert n["55"] - n["05"] == 2 and n["55"] - n["50"] == 2 and n["00"] == n["55"] - 4


@pytest.mark.slow
def test_not_finite_losses_stop_before_the_good_checkpoint_is_lost(tiny, monkeypatch):
    tiny("--n_epochs", "1")
    good = load()
    original = utils.ReplayBuffer.push_and_pop
    count = [0]

    def poisoned(self, *images):
        count[0] += 1
        return original(self, *images) * (float("nan") if count[0] == 5 else 1)

    monkeypatch.setattr(utils.ReplayBuffer, "push_and_pop", poisoned)
    with pytest.raises(
        DivergedError, match=r"at step 8: loss_D nan, loss_G \d.*Continue from .*latest.pth with --resume"
    ):
        tiny("--resume", "--n_epochs", "3", "--log_interval", "5")
    assert_same(good, load())


@pytest.mark.slow
def test_weights_that_are_not_finite_are_not_saved(tiny, monkeypatch):
    tiny("--n_epochs", "1")
    good = load()
    original, calls = torch.optim.Adam.step, []

    def step(self, *arguments):
        original(self, *arguments)
        calls.append(self)
        if len(calls) == 15:  # D_B in the last of five steps: no loss will tell
            self.param_groups[0]["params"][0].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(DivergedError, match="step 10: sum of all weights inf"):
        tiny("--resume", "--n_epochs", "2")
    assert_same(good, load())


@pytest.mark.slow
def test_compile_trains_alike_and_keeps_the_keys(tiny, monkeypatch):
    tiny("--n_epochs", "1")
    plain, calls = load(), []
    original = torch.nn.Module.compile

    def compile(self, dynamic):
        calls.append(self)
        original(self, backend="eager", dynamic=dynamic)  # the same graphs, but no C++ compiler is needed

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    tiny("--n_epochs", "1", "--compile")
    compiled = load()
    assert len(calls) == 4
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        assert compiled[name].keys() == plain[name].keys()
        for key in (key for key in plain[name] if key.endswith("weight")):
            torch.testing.assert_close(compiled[name][key], plain[name][key], atol=2e-5, rtol=1e-3, msg=f"{name}/{key}")


# ----- options and files


@pytest.mark.parametrize(
    "options, words",
    [
        (["--img_height", "34"], "--img_height 34 --img_width 32: must be divisible by 4 (34: 32 or 36)"),
        (["--load_size", "31"], "31 is not from 32 to 16384"),
        (["--img_height", "64", "--load_size", "40", "--img_width", "64"], "--load_size 40: must not be smaller"),
        (["--lr", "-1"], "--lr: -1 is not at least 0.0"),
        (["--lr", "inf"], "--lr: inf is not at least 0.0"),
        (["--b1", "1"], "--b1: 1 is not from 0.0 to"),
        (["--seed", "99999999999999999999"], "--seed: 99999999999999999999 is not from 0"),
        (["--device", "meta"], "--device meta: not one of cuda, mps, cpu"),
        (["--batch_size", "0"], "--batch_size: 0 is not from 1"),
        (["--batch_size", "x"], "--batch_size: invalid int value: 'x'"),
        (["--batch_size", "6"], "--batch_size x --accumulate x processes is 6, but the data set has only 5 samples"),
        (["--accumulate", "6"], "--batch_size x --accumulate x processes is 6, but the data set has only 5 samples"),
        (["--accumulate", "0"], "--accumulate: 0 is not from 1"),
        (["--graph"], "--graph: cpu has no CUDA graphs. Run without it"),
        (["--channels", "2"], "--channels: invalid choice"),
        (["--dataset_name", "../tiny"], "must be the name of a folder, not a path"),
        (["--dataset_name", "nothere"], "data/nothere: no such folder. Put your images into"),
        (["--device", "cuda:77"], "--device cuda:77: "),
        (["--device", "gpu"], "--device gpu: "),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_options_are_refused_before_anything_is_created(tiny, tmp_path, options, words, capsys):
    with pytest.raises((InputError, SystemExit)) as error:
        tiny(*options)
    message = str(error.value) if isinstance(error.value, InputError) else capsys.readouterr().err
    assert words in message
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.slow
def test_demo_defaults_apply_and_the_command_line_wins():
    opt, _ = cyclegan.get_options([])
    assert (opt.dataset_name, opt.run_name, opt.img_height, opt.n_epochs) == (
        "demo",
        "demo",
        64,
        presets.DEMO["n_epochs"],
    )
    opt, _ = cyclegan.get_options(["--n_epochs", "1", "--ngf", "64"])
    assert (opt.img_height, opt.n_epochs, opt.ngf) == (64, 1, 64)


def edit_defaults(monkeypatch, **changes):
    """Changes defaults as if cyclegan.py had been edited."""
    original = cyclegan.get_parser

    def get_parser():
        parser = original()
        parser.set_defaults(**changes)
        return parser

    monkeypatch.setattr(cyclegan, "get_parser", get_parser)


def test_presets_change_shipped_defaults_alone(monkeypatch):
    defaults = vars(cyclegan.get_parser().parse_args([]))
    assert {name: defaults[name] for name in presets.PAPER} == presets.PAPER
    (action,) = (action for action in cyclegan.get_parser()._actions if action.dest == "preset")
    assert [*action.choices] == [*presets.PRESETS]
    assert all(values.keys() <= presets.PAPER.keys() for values in presets.PRESETS.values())

    for name in ("laptop", "paper", "demo"):
        opt, _ = cyclegan.get_options(["--dataset_name", "mine", "--preset", name])
        assert {key: getattr(opt, key) for key in presets.PRESETS[name]} == presets.PRESETS[name]
    opt, _ = cyclegan.get_options(["--preset", "paper"])  # the demo with the paper's networks
    assert (opt.dataset_name, opt.img_height, opt.ngf) == ("demo", 256, 64)
    opt, _ = cyclegan.get_options(["--dataset_name", "mine", "--preset", "laptop", "--ngf", "8", "--n_epochs", "3"])
    assert (opt.ngf, opt.n_epochs, opt.n_iters) == (8, 3, None)
    opt, _ = cyclegan.get_options(["--dataset_name", "mine", "--preset", "laptop", "--progressive", "64:1,128:1"])
    assert (opt.img_height, opt.n_epochs, opt.n_iters) == (128, 2, None)

    edit_defaults(monkeypatch, lr=0.001, n_epochs=50)
    opt, _ = cyclegan.get_options([])
    assert (opt.lr, opt.n_epochs, opt.ngf) == (0.001, 50, 24)
    opt, _ = cyclegan.get_options(["--preset", "laptop", "--lr", "0.003"])
    assert (opt.lr, opt.n_epochs, opt.n_iters, opt.ngf) == (0.003, 50, None, 32)


def test_a_recipe_can_be_combined_with_a_preset(monkeypatch):
    (action,) = (action for action in cyclegan.get_parser()._actions if action.dest == "recipe")
    assert [*action.choices] == [*presets.RECIPES]
    assert all(values.keys() <= presets.PAPER.keys() for values in presets.RECIPES.values())
    for name, values in presets.RECIPES.items():
        opt, _ = cyclegan.get_options(
            ["--dataset_name", "mine", "--preset", "laptop", "--recipe", name, "--lr", "0.003"]
        )
        expected = presets.LAPTOP | values | {"lr": 0.003, "recipe": name}
        assert {key: getattr(opt, key) for key in expected} == expected
    edit_defaults(monkeypatch, lambda_cyc=7.0)
    opt, _ = cyclegan.get_options(["--recipe", "uvcgan"])  # an edited default counts
    assert (opt.lambda_cyc, opt.lambda_id, opt.spectral_norm) == (7.0, 2.5, True)


def test_a_checkpoint_counts_more_than_a_preset(tiny, capsys):
    tiny("--n_epochs", "1", "--preset", "laptop")
    opt, _ = cyclegan.get_options(["--dataset_name", "tiny", "--resume", "--preset", "demo"])
    assert (opt.preset, opt.ngf, opt.diffaugment, opt.lr) == ("laptop", 4, True, 0.0002)
    assert "note: --preset has no effect here" in capsys.readouterr().out
    cyclegan.get_options(["--dataset_name", "tiny", "--resume", "--preset", "laptop"])
    assert "note" not in capsys.readouterr().out
    path = "saved_models/tiny/options.json"
    opt, _ = cyclegan.get_options(["--options", path, "--recipe", "uvcgan"])
    assert (opt.recipe, opt.lambda_gp, opt.preset) == (None, 0, "laptop")
    assert f"note: --recipe has no effect here, because all options are those of {path}" in capsys.readouterr().out
    latest = "saved_models/tiny/latest.pth"
    state = torch.load(latest)
    known = {name: value for name, value in state["options"].items() if name not in ("lambda_gp", "gp_at", "recipe")}
    torch.save(state | {"options": known}, latest)  # of a version without these options
    opt, _ = cyclegan.get_options(["--dataset_name", "tiny", "--resume", "--recipe", "uvcgan"])
    assert (opt.recipe, opt.lambda_gp, opt.gp_at) == (None, 0, "real")


@pytest.mark.slow
def test_defaults_are_the_papers():
    opt, _ = cyclegan.get_options(["--dataset_name", "horse2zebra"])
    expected = dict(
        epoch=0, n_epochs=200, batch_size=1, lr=0.0002, b1=0.5, b2=0.999, img_height=256, img_width=256, channels=3,
        n_residual_blocks=9, lambda_cyc=10, lambda_id=5, pool_size=50, ngf=64, ndf=64, upsample="transpose",
    )  # fmt: skip
    assert {key: getattr(opt, key) for key in expected} == expected


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch(tiny):
    for name, batches in (("parts", ("--accumulate", "2")), ("whole", ("--batch_size", "2"))):
        tiny("--n_epochs", "1", "--run_name", name, *batches, "--checkpoint_activations")
    parts, whole = (load(f"saved_models/{name}/latest.pth") for name in ("parts", "whole"))
    assert parts["step"] == whole["step"] == 2
    for name in ("G_AB", "G_BA", "D_A", "D_B"):
        for key in (key for key in whole[name] if key.endswith("weight")):
            torch.testing.assert_close(parts[name][key], whole[name][key], atol=1e-4, rtol=1e-3, msg=f"{name}/{key}")


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_stops_the_run(tiny, monkeypatch):
    tiny("--n_epochs", "1")
    good = load()

    def full(state, path):
        raise InputError(f"{path}: cannot be written (no space left). What was there before is unharmed")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(InputError, match="latest.pth: cannot be written"):
        tiny("--resume", "--n_epochs", "5")
    assert_same(good, load())


@pytest.mark.slow
def test_gray_rectangles_larger_batches_and_odd_intervals(tiny):
    tiny("--channels", "1", "--img_height", "40", "--img_width", "36", "--batch_size", "2", "--n_epochs", "3",
         "--checkpoint_interval", "-1", "--sample_interval", "4", "--decay_epoch", "9")  # fmt: skip
    assert load("saved_models/tiny/G_AB_3.pth")["model.1.weight"].shape == (4, 1, 7, 7)
    assert sorted(os.listdir("images/tiny")) == ["000000.png", "000004.png", "000006.png"]
    assert not os.path.exists("saved_models/tiny/G_AB_1.pth")
    grid = np.asarray(Image.open("images/tiny/000006.png"))
    assert grid.shape == (2 * 42 + 2 + 14, 6 * 38 + 2, 3)


@pytest.mark.slow
def test_enlarged_images_from_another_folder(tiny):
    os.rename("data", "elsewhere")
    with pytest.raises(InputError, match="40 x 40 pixels, smaller than the crop of 48 x 48.*--enlarge"):
        tiny("--data_dir", "elsewhere", "--img_height", "48", "--img_width", "48")
    tiny("--data_dir", "elsewhere", "--img_height", "48", "--img_width", "48", "--enlarge", "--upsample", "nearest",
         "--b2", "0.99", "--n_epochs", "1")  # fmt: skip
    state = load()
    assert "model.12.weight" in state["G_AB"] and state["optimizer_G"]["param_groups"][0]["betas"] == (0.5, 0.99)


@pytest.mark.slow
def test_sample_grids_show_the_same_images_all_along(tiny):
    tiny("--n_epochs", "2", "--sample_interval", "5")
    first, second = (np.asarray(Image.open(f"images/tiny/{n}.png")) for n in ("000005", "000010"))
    for column in (0, 3):  # the real ones
        assert np.array_equal(first[:, 34 * column : 34 * column + 34], second[:, 34 * column : 34 * column + 34])
    assert not np.array_equal(first, second)
    expected = np.asarray(Image.open("data/tiny/testA/0.png").resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(first[16:48, 2:34].astype(int) - expected).max() <= 1  # below the captions


@pytest.mark.slow
def test_the_learning_rate_falls_from_half_way(tiny):
    tiny("--n_epochs", "4")
    rates = {r["epoch"]: r["lr"] for r in losses_logged()}
    assert list(rates.values()) == pytest.approx([2e-4, 2e-4, 2e-4, 1e-4])


@pytest.mark.slow
def test_run_from_another_folder_as_a_command(tiny, script):
    done = subprocess.run(
        [sys.executable, script("cyclegan.py"), *SMALL, "--n_epochs", "1"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "4 images of A, 5 of B" in done.stdout and "step 5/5" in done.stdout
    for path in ("saved_models/tiny/latest.pth", "images/tiny/000005.png", "saved_models/tiny/G_AB_1.pth"):
        assert path in done.stdout and os.path.exists(path)


@pytest.mark.slow
def test_errors_on_the_command_line_are_one_line(tiny, script):
    with open("data/tiny/trainB/3.png", "w") as file:
        file.write("no image")
    for options in (["--cache"], ["--no-cache", "--n_cpu", "1"]):
        done = subprocess.run(
            [sys.executable, script("cyclegan.py"), *SMALL, *options], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1 and all(line.startswith("reading ") for line in done.stdout.splitlines())
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: data/tiny/trainB/3.png: broken")
    assert os.listdir() == ["data"]


@pytest.mark.slow
def test_a_training_goes_on_when_its_terminal_is_gone(make_set, tmp_path, script):
    """As when ssh ends and the shell had been told to disown the run."""
    make_set()
    terminal, end = os.openpty()
    command = [sys.executable, script("cyclegan.py"), *SMALL, "--n_epochs", "6", "--log_interval", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=end, stderr=end,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # fmt: skip
    os.close(end)
    seen = b""
    while b"step 2/" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    assert load(tmp_path / "saved_models/tiny/latest.pth")["epoch"] == 6


@pytest.mark.slow
def test_a_training_goes_on_when_nobody_reads_its_output(make_set, tmp_path, script):
    """As with `| tee log` when Ctrl-C ends tee first."""
    make_set()
    command = [sys.executable, script("cyclegan.py"), *SMALL, "--n_epochs", "2", "--log_interval", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0, process.stderr.read()
    assert load(tmp_path / "saved_models/tiny/latest.pth")["epoch"] == 2
