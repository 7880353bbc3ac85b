"""pretraining/inpainting.py: in-painting before the training."""

import json
import os
import shlex
import signal

import pytest
import torch
from helpers import SMALL, assert_same, build, load

import cyclegan
from pretraining import inpainting
from training.update import Update
from utils import InputError

LATEST = "saved_models/tiny_pretrained/latest.pth"


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    """A small data set below the working directory -> train(option, ...), which runs main of pretraining.inpainting."""
    make_set()
    monkeypatch.chdir(tmp_path)
    return lambda *options: inpainting.main([*SMALL, *options])


def test_squares_are_blacked_out():
    torch.manual_seed(0)
    images = torch.rand(50, 3, 256, 256) * 2 - 1
    masked = inpainting.black_out(images)
    squares = (masked == -1).all(1).unfold(1, 32, 32).unfold(2, 32, 32).float().mean((3, 4))  # 32 x 32, as UVCGAN's
    assert squares.shape == (50, 8, 8) and {*squares.unique().tolist()} == {0, 1}
    assert abs(squares.mean() - 0.4) < 0.03
    assert torch.equal(masked[masked != -1], images[masked != -1])


def test_squares_of_any_size_and_with_their_own_random_numbers():
    images, state = torch.zeros(2, 1, 40, 68), torch.get_rng_state()
    one, other = (inpainting.black_out(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other) and one.shape == images.shape and torch.equal(torch.get_rng_state(), state)
    corner = one[0, 0, :5, :5]  # an eighth of the shorter side
    assert (corner == corner[0, 0]).all() and {*one.unique().tolist()} == {0, -1}


@pytest.mark.parametrize("words", ["", "--batch_size 2 --accumulate 2", "--norm batch --batch_size 2"])
def test_the_step_is_the_plain_one(words):
    """L1 to the whole image of both domains, by one network; the discriminators are left alone."""
    opt = cyclegan.get_options([*SMALL, *words.split()])[0]
    gan, run = build(opt)
    gan.G_BA = gan.G_AB
    plain, _ = build(opt)
    batches = [torch.rand(opt.batch_size * opt.accumulate, 3, 32, 32) * 2 - 1 for _ in "AB"]
    before = {name: copies(gan.networks()[name]) for name in ("D_A", "D_B")}
    torch.manual_seed(7)
    losses = Update(inpainting.pretrain_step, gan, opt, run)(*batches)

    torch.manual_seed(7)
    total, parts = 0, []
    for a, b in zip(*(batch.chunk(opt.accumulate) for batch in batches)):
        masked_A = inpainting.black_out(a)
        masked_B = inpainting.black_out(b)
        losses_AB = [(plain.G_AB(m) - x).abs().mean() for m, x in ((masked_A, a), (masked_B, b))]
        parts.append([loss.item() for loss in losses_AB])
        total = total + sum(losses_AB) / 2 / opt.accumulate
    total.backward()
    torch.optim.Adam(plain.G_AB.parameters(), opt.lr, (opt.b1, opt.b2)).step()
    of_A, of_B = torch.tensor(parts).mean(0)
    torch.testing.assert_close(losses, torch.stack(((of_A + of_B) / 2, of_A, of_B)))
    for (key, weight), expected in zip(gan.G_AB.state_dict().items(), plain.G_AB.state_dict().values()):
        if key.endswith("weight"):  # biases before a norm have no gradient but rounding
            torch.testing.assert_close(weight, expected, atol=1e-5, rtol=1e-4, msg=key)
    assert run.step == 1 and before == {name: copies(gan.networks()[name]) for name in ("D_A", "D_B")}


def copies(network):
    return {key: weight.tolist() for key, weight in network.state_dict().items()}


def stop_at(monkeypatch, step):
    count, original = [0], inpainting.pretrain_step

    def pretrain_step(*arguments):
        count[0] += 1
        if count[0] == step:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(inpainting, "pretrain_step", pretrain_step)


@pytest.mark.parametrize(
    "words", ["", "--ema --diffaugment --dropout", "--n_iters 12", "--lambda_paired 1 --n_critic 2"]
)
def test_it_resumes_exactly_and_is_one_network(tiny, monkeypatch, words, capsys):
    words = [*words.split(), *(() if "n_iters" in words else ("--n_epochs", "3")), "--checkpoint_interval", "1"]
    tiny(*words, "--run_name", "whole", "--sample_interval", "4")
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        assert tiny(*words) == 128 + signal.SIGINT
    assert "python -m pretraining.inpainting --run_name tiny_pretrained --resume" in capsys.readouterr().out
    assert load(LATEST)["step"] == 8
    inpainting.main(["--dataset_name", "tiny", "--resume", "--device", "cpu"])
    whole, resumed = load("saved_models/whole/latest.pth"), load(LATEST)
    assert_same(whole | {"options": None}, resumed | {"options": None})
    assert_same(whole["G_AB"], whole["G_BA"])
    assert whole["pretraining"] is True
    assert {"000000.png", "000004.png"} < {*os.listdir("images/whole")}
    records = [json.loads(line) for line in open("saved_models/whole/log.jsonl")]
    assert all({"loss_G", "loss_A", "loss_B"} <= record.keys() for record in records)
    assert "python cyclegan.py --dataset_name tiny --img_height 32" in capsys.readouterr().out


def test_cyclegan_starts_from_it_with_new_discriminators(tiny, monkeypatch, capsys):
    tiny("--n_epochs", "1")
    command = capsys.readouterr().out.split("to train with it:\n")[1].strip()
    words = shlex.split(command)[2:]
    assert words[-2:] == ["--start_from", LATEST]
    cyclegan.main([*words, "--device", "cpu", "--n_epochs", "1", "--lr", "0", "--seed", "5"])
    assert (
        "note: the generators are pre-trained; the discriminators begin with their initial" in capsys.readouterr().out
    )
    state = load()
    assert "pretraining" not in state
    for name in ("G_AB", "G_BA"):
        assert_same(state[name], load(LATEST)["G_AB"])
    opt = cyclegan.get_options([*SMALL, "--seed", "5"])[0]
    for name in ("D_A", "D_B"):
        assert_same(dict(build(opt)[0].networks()[name].state_dict()), dict(state[name]))


def test_the_command_to_train_with_it_reads_images_in_the_same_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--channels", "1", "--range_A", "-1000", "2000", "--range_B", "0", "4095", "--keep_aspect"]
    opt = cyclegan.get_options([*SMALL, *words])[0]
    command = inpainting.PretrainingRun(opt, None).what_was_written().split("to train with it:\n")[1]
    typed = cyclegan.get_parser().parse_args(shlex.split(command)[2:])
    assert (typed.range_A, typed.range_B, typed.keep_aspect) == ("-1000 2000", "0 4095", True)


def test_a_damaged_file_names_the_command_that_goes_on(tiny):
    tiny("--n_epochs", "1", "--checkpoint_interval", "1")
    with open(LATEST, "wb") as file:
        file.write(b"damaged")
    command = "python -m pretraining.inpainting --run_name tiny_pretrained --epoch 1"
    with pytest.raises(InputError, match=f"To go on from checkpoint_1.pth beside it: {command}"):
        tiny("--resume")


def test_what_cannot_be_is_one_line(tiny):
    tiny("--n_epochs", "1")
    cyclegan.main([*SMALL, "--n_epochs", "1"])
    small = " ".join(SMALL)
    for main, words, match in (
        (cyclegan.main, "--run_name tiny_pretrained --resume --n_epochs 2",
         "a run of pretraining.inpainting, not of cyclegan.py. To continue it: python -m pretraining.inpainting --run_name tiny_pretrained --res"),
        (inpainting.main, "--run_name tiny --resume --n_epochs 2", "a run of cyclegan.py, not of pretraining.inpainting"),
        (inpainting.main, f"{small} --start_from {LATEST}", "--start_from: pre-training begins with new networks"),
        (inpainting.main, f"{small} --channels_A 1", "--channels_A --channels_B: .*same number"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=match) as error:
            main(words.split())
        assert "\n" not in str(error.value)
    state = torch.load(LATEST)
    for value in (False, None, 1, "x", torch.ones(1)):
        torch.save(state | {"pretraining": value}, LATEST)
        with pytest.raises(InputError, match="damaged, pretraining is"):
            cyclegan.main([*SMALL, "--start_from", LATEST])
