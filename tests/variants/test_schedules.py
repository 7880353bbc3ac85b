"""Other ways to train: each option does what it says, step by step."""

import functools
import json
import os

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same, build, interrupt_at, load, losses_logged, small
from PIL import Image

import cyclegan
import utils
from media.folders import pair_by_stem
from training.options import ARCHITECTURE
from utils import InputError
from variants.augment import ImageAugmentation
from variants.pairs import read_pairs
from variants.schedules import count_A, decay_curve


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    make_set()
    monkeypatch.chdir(tmp_path)
    return lambda *more: cyclegan.main([*small(more), *more])


def weights(run="tiny"):
    state = load(f"saved_models/{run}/latest.pth")
    return {f"{n}/{k}": w for n in ("G_AB", "G_BA", "D_A", "D_B") for k, w in state[n].items()}


def test_schedules_at_known_epochs():
    at = {name: decay_curve(name, 200, 100) for name in ("linear", "cosine", "step")}
    assert [at["linear"](e) for e in (0, 99, 100, 150, 199)] == pytest.approx([1, 1, 1, 0.5, 0.01])
    assert [at["cosine"](e) for e in (0, 100, 150, 175, 200)] == pytest.approx([1, 1, 0.5, 0.5 - 0.5**0.5 / 2, 0])
    assert [at["step"](e) for e in (0, 99, 100, 149, 150, 199)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.slow
def test_learning_rates_of_generators_and_discriminators(tiny):
    tiny("--n_epochs", "4", "--lr_G", "0.001", "--lr_D", "0.004", "--lr_schedule", "step")
    state = load()
    rates = {name: state[name]["param_groups"][0]["lr"] for name in ("optimizer_G", "optimizer_D_A", "optimizer_D_B")}
    assert rates == pytest.approx({"optimizer_G": 1e-5, "optimizer_D_A": 4e-5, "optimizer_D_B": 4e-5})
    assert [r["lr"] for r in losses_logged() if r["epoch"] == 2][0] == pytest.approx(1e-4)


@pytest.mark.slow
def test_n_iters_counts_steps_and_the_rate_falls_by_step(tiny):
    tiny("--n_iters", "8", "--log_interval", "1")
    assert load()["step"] == 8  # of 5 an epoch
    assert [r["lr"] for r in losses_logged()] == pytest.approx([2e-4] * 5 + [1.5e-4, 1e-4, 0.5e-4])
    tiny("--n_iters", "12", "--resume", "--log_interval", "1")
    assert load()["step"] == 12
    assert [r["lr"] for r in losses_logged()][8:] == pytest.approx(
        [2e-4 * f for f in (2 / 3, 1 / 2, 1 / 3, 1 / 6)], rel=1e-4
    )
    tiny("--n_iters", "12", "--resume")


@pytest.mark.slow
def test_decay_epoch_counts_epochs_with_n_iters_too(tiny):
    tiny("--n_iters", "8", "--decay_epoch", "1", "--log_interval", "1")
    assert [r["lr"] for r in losses_logged()] == pytest.approx([2e-4] * 6 + [4e-4 / 3, 2e-4 / 3], rel=1e-4)


@pytest.mark.slow
def test_going_on_within_an_epoch_leaves_nothing_out(tiny):
    flat = ("--lr_schedule", "step", "--decay_epoch", "9", "--log_interval", "1")
    tiny("--n_iters", "14", "--run_name", "whole", *flat)
    tiny("--n_iters", "7", *flat)  # of 5 an epoch
    assert (load()["epoch"], load()["batch"]) == (1, 2) and (load("saved_models/tiny/checkpoint_2.pth")["step"]) == 7
    tiny("--n_iters", "14", "--resume")
    assert_same(weights("whole"), weights())


@pytest.mark.slow
def test_from_steps_to_epochs_and_back(tiny):
    tiny("--n_iters", "7")
    tiny("--n_epochs", "3", "--resume")
    assert load()["epoch"] == 3 and load()["options"]["n_iters"] is None
    tiny("--n_iters", "17", "--resume")
    assert load()["step"] == 17


@pytest.mark.slow
def test_a_stop_in_the_very_last_step_ends_the_run_as_usual(tiny, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=7)
        tiny("--n_iters", "7")
    assert load("saved_models/tiny/G_AB_2.pth") and load()["step"] == 7


def test_each_process_throws_its_own_dice():
    opt = cyclegan.get_options(SMALL)[0]
    numbers, sums = [], []
    for rank in (0, 1):
        gan, _ = build(opt, rank=rank)
        numbers.append(torch.rand(()).item())
        sums.append(sum(p.sum().item() for n in gan.networks().values() for p in n.parameters()))
    assert numbers[0] != numbers[1] and sums[0] == sums[1]


@pytest.mark.slow
def test_running_statistics_belong_to_an_average(tiny):
    tiny("--n_iters", "3", "--norm", "batch", "--ema", "0.9")
    state = load()
    assert torch.equal(state["ema_G_AB"]["model.2.running_mean"], state["G_AB"]["model.2.running_mean"])
    assert state["G_AB"]["model.2.running_mean"].abs().sum() > 0


@pytest.mark.slow
def test_validation_throws_no_dice(tiny):
    tiny("--n_epochs", "2", "--dropout", "0.5", "--run_name", "with", "--val_interval", "1")
    tiny("--n_epochs", "2", "--dropout", "0.5", "--run_name", "without")
    assert_same(weights("with"), weights("without"))


@pytest.mark.slow
def test_a_finished_number_of_steps_says_so(tiny, capsys):
    tiny("--n_iters", "3")
    tiny("--resume")
    assert "already trained up to step 3; pass a larger --n_iters to train longer" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_printed_can_be_typed(tiny, capsys):
    for words in (("--progressive", "36:1,40:1"), ("--n_iters", "3"), ("--ema", "0.5", "--n_epochs", "1")):
        tiny(*words, "--run_name", "one")
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("options other"))
        again = line.split(": ")[1].split()
        cyclegan.main(["--dataset_name", "tiny", "--run_name", "two", "--device", "cpu", *again])
        assert_same(weights("one"), weights("two"))
        capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("flag, n_G, n_D", [("--n_critic", 3, 8), ("--n_gen", 8, 3)])
def test_turns(tiny, monkeypatch, flag, n_G, n_D):
    """With 3 to 1, eight steps train the one in steps 0, 3 and 6, and the other always."""
    counts = {}
    original = torch.optim.Adam.step

    def step(self, *arguments):
        counts[len(self.param_groups[0]["params"])] = counts.get(len(self.param_groups[0]["params"]), 0) + 1
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    tiny("--n_iters", "8", flag, "3")
    state = load()
    of_G, of_D = (len(state[name]["param_groups"][0]["params"]) for name in ("optimizer_G", "optimizer_D_A"))
    assert counts == {of_G: n_G, of_D: 2 * n_D}


@pytest.mark.slow
def test_whose_turn_it_is_not_does_not_move(tiny):
    tiny("--n_iters", "1")
    before = weights()
    tiny("--n_iters", "3", "--n_critic", "3", "--resume", "--run_name", "tiny")  # steps 1 and 2: no turn of G
    after = weights()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("D_") for name in moved)


@pytest.mark.slow
def test_gradients_are_clipped(tiny, monkeypatch):
    norms = []
    original = torch.optim.Adam.step

    def step(self, *arguments):
        gradients = [p.grad for p in self.param_groups[0]["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    tiny("--n_iters", "2")
    free = max(norms)
    norms.clear()
    tiny("--n_iters", "2", "--clip_grad", "0.01")
    assert free > 0.05 and max(norms) <= 0.01 * 2**0.5 * 1.001  # two generators share an optimizer


@pytest.mark.slow
def test_ema_is_the_average_and_is_what_is_used(tiny):
    start = build(cyclegan.get_options(SMALL)[0])[0].G_AB.state_dict()
    average, states = {k: v.clone() for k, v in start.items()}, []
    for n, decay in zip(range(1, 5), (1 / 10, 2 / 11, 0.2, 0.2)):  # shorter in the beginning, than as asked for
        tiny("--n_iters", str(n), "--ema", "0.2", "--run_name", f"to{n}", "--lr", "0.01", "--decay_epoch", "9")
        states.append(load(f"saved_models/to{n}/latest.pth"))
        for key in average:
            average[key] = decay * average[key] + (1 - decay) * states[-1]["G_AB"][key]
    for key in average:
        torch.testing.assert_close(states[-1]["ema_G_AB"][key], average[key], atol=1e-6, rtol=1e-5)
        assert not torch.equal(average[key], states[-1]["G_AB"][key])
    from inference.load import load_generator

    G = load_generator("saved_models/to4/latest.pth").network
    assert_same(dict(G.state_dict()), dict(states[-1]["ema_G_AB"]))
    assert_same(dict(load("saved_models/to4/G_AB_1.pth")), dict(states[-1]["ema_G_AB"]))
    # an average that begins later begins with what is there
    tiny("--n_iters", "1", "--run_name", "later")
    tiny("--n_iters", "2", "--run_name", "later", "--resume", "--ema", "0.9")
    assert "ema_G_AB" in load("saved_models/later/latest.pth")


@pytest.mark.slow
def test_progressive_sizes_and_the_same_networks(tiny, monkeypatch):
    seen = []
    original = utils.ReplayBuffer.push_and_pop

    def push_and_pop(self, images, *draws):
        seen.append(tuple(images.shape[2:]))
        return original(self, images, *draws)

    monkeypatch.setattr(utils.ReplayBuffer, "push_and_pop", push_and_pop)
    tiny("--progressive", "32:1,40:2", "--sample_interval", "5")
    assert seen == [(32, 32)] * 10 + [(40, 40)] * 20
    state = load()
    assert state["epoch"] == 3 and (state["options"]["img_height"], state["options"]["n_epochs"]) == (40, 3)
    assert [Image.open(f"images/tiny/0000{n}.png").height for n in ("05", "15")] == [2 * 34 + 2 + 14, 2 * 42 + 2 + 14]
    tiny("--progressive", "32:1,40:3", "--resume")
    assert load()["epoch"] == 4 and seen[-1] == (40, 40)


@pytest.mark.slow
def test_progressive_is_resumed_across_the_change(tiny, monkeypatch):
    progressive = ("--progressive", "32:2,40:1")
    tiny(*progressive, "--run_name", "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=8)
        assert tiny(*progressive) == 130
    assert (load()["epoch"], load()["step"]) == (1, 8)
    tiny("--resume")
    assert_same(load("saved_models/whole/latest.pth") | {"options": None}, load() | {"options": None})


@pytest.mark.slow
def test_ratio_of_the_domains_in_a_batch(tiny, monkeypatch):
    seen = []
    original = cyclegan.train_step

    def train_step(gan, opt, real_A, real_B):
        seen.append((len(real_A), len(real_B)))
        # draws of the pools, for as many translations
        assert (len(gan.fake_B_buffer.draws), len(gan.fake_A_buffer.draws)) == seen[-1]
        return original(gan, opt, real_A, real_B)

    monkeypatch.setattr(cyclegan, "train_step", train_step)
    tiny("--batch_size", "2", "--n_epochs", "3", "--ratio_A", "0.5:1.5")
    assert seen == [(1, 2)] * 2 + [(2, 2)] * 2 + [(3, 2)] * 2


def test_counts_of_a_ratio():
    opt = cyclegan.get_options([*SMALL, "--batch_size", "4", "--n_epochs", "5", "--ratio_A", "0.5:1.5"])[0]
    assert [count_A(opt, epoch) for epoch in range(5)] == [2, 3, 4, 5, 6]


def pair_up(name):
    """Makes B a negative of A, for some files."""
    for number in name:
        image = Image.open(f"data/tiny/trainA/{number}.png")
        image.point(lambda v: 255 - v).save(f"data/tiny/trainB/{number}.png")


def test_pairs_come_together_and_the_rest_does_not(tiny):
    from datasets import ImageDataset

    pair_up("01")
    os.rename("data/tiny/trainA/3.png", "data/tiny/trainA/3,b.png")
    for path, expected in (("", {0, 1, 2}), ("pairs.txt", {0, 1, 3})):
        with open("pairs.txt", "w") as file:
            file.write("0.png\t0.png\n\n1.png,1.png\n3,b.png\t2.png\n")
        dataset = ImageDataset(
            "data/tiny", img_size=(32, 32), load_size=(36, 36), pairs=functools.partial(read_pairs, path)
        )
        for epoch in range(4):
            for i in range(5):
                item = dataset[epoch, i]
                assert item["paired"].item() == float(i % 4 in expected)
                if i % 4 in (0, 1):  # the same crop and flip
                    torch.testing.assert_close(item["A"], -item["B"], atol=0.02, rtol=0)
    jittered = ImageDataset(
        "data/tiny", img_size=(32, 32), load_size=(36, 36), pairs=pair_by_stem, augment=ImageAugmentation(0.1, 9.0)
    )
    alike = ImageDataset(
        "data/tiny", img_size=(32, 32), load_size=(36, 36), pairs=pair_by_stem, augment=ImageAugmentation(0.0, 9.0)
    )
    assert not torch.equal(jittered[0]["A"], alike[0]["A"])
    torch.testing.assert_close(alike[0]["A"], -alike[0]["B"], atol=0.02, rtol=0)
    plain = ImageDataset("data/tiny", img_size=(32, 32), load_size=(36, 36))
    assert plain[0].keys() == {"A", "B"}
    assert torch.equal(plain[2, 3]["A"], dataset[2, 3]["A"])


@pytest.mark.slow
def test_bad_lists_of_pairs_are_one_line(tiny):
    for text, message in (
        ("0.png 9.png\n", r"--pairs p.txt, line 1: '0.png 9.png' does not name an image of A and one of B"),
        ("\n0\n", "line 2: '0' does not"),
        (None, "--pairs p.txt: cannot be read"),
        ("\n", "--pairs p.txt: contains no pairs"),
    ):
        if text is not None:
            open("p.txt", "w").write(text)
        else:
            os.remove("p.txt")
        with pytest.raises(InputError, match=message):
            tiny("--lambda_paired", "1", "--pairs", "p.txt", "--n_epochs", "1")


@pytest.mark.slow
def test_the_paired_loss_pulls_towards_the_counterpart(tiny):
    pair_up("0123")
    for name, weight in (("without", "0"), ("with", "50")):
        tiny("--run_name", name, "--lambda_paired", weight, "--lambda_cyc", "0", "--lambda_id", "0", "--n_epochs", "12",
             "--lr", "0.003")  # fmt: skip
    from inference.load import load_generator

    x = torch.from_numpy(np.array(Image.open("data/tiny/trainA/0.png").resize((32, 32)))).permute(2, 0, 1)[None]
    x = x.float() / 127.5 - 1
    distance = {}
    for name in ("without", "with"):
        with torch.no_grad():
            distance[name] = (load_generator(f"saved_models/{name}/latest.pth").network(x) + x).abs().mean()
    assert distance["with"] < 0.9 * distance["without"]
    assert losses_logged("with")[-1]["loss_paired"] < losses_logged("with")[0]["loss_paired"]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            "--generator unet",
            "--img_height 32 --img_width 32: must be divisible by 256 for --generator unet --num_downs 8",
        ),
        ("--generator multiscale", "--img_height 32 --img_width 32: must be at least 64 for these networks"),
        ("--generator pretrained --img_height 72 --img_width 72", "must be divisible by 16"),
        ("--discriminator multiscale", "must be at least 128 for these networks; try a smaller --n_scales"),
        ("--attention --generator unet --num_downs 3", "--attention: is inserted between residual blocks"),
        ("--attention --n_residual_blocks 0", "--attention: is inserted between residual blocks"),
        ("--separable --generator unet --num_downs 3", "--separable: changes residual blocks"),
        ("--checkpoint_activations --norm batch", "--checkpoint_activations --norm batch: "),
        (
            "--checkpoint_activations --generator unet --num_downs 3",
            "--checkpoint_activations: needs --generator resnet",
        ),
        ("--gan_loss hinge --label_smoothing 0.1", "--label_smoothing: the hinge loss has no labels"),
        ("--pairs x", "--pairs: has no effect without --lambda_paired"),
        ("--vgg_weights x", "--vgg_weights: has no effect without --lambda_perceptual or --lambda_style"),
        ("--n_critic 2 --n_gen 2", "--n_critic --n_gen: only one of them"),
        ("--ratio_A 0.3", "--ratio_A 0.3: leaves no image of A in a batch of 1"),
        ("--ratio_A 2 --accumulate 2", "--ratio_A: cannot be used with"),
        ("--progressive 30:2", "argument --progressive: 30:2: not of the form SIZE:EPOCHS"),
        ("--progressive 34:2", "--progressive 34: must be divisible by 4"),
        ("--progressive 36:2 --n_epochs 9", "--progressive --n_epochs: give only one of these"),
        ("--progressive 36:2 --img_width 64", "--progressive --img_width: give only one of these"),
        ("--n_iters 36 --n_epochs 200", "--n_iters --n_epochs: give only one of these"),
        ("--lambda_perceptual 1 --channels_A 4", "--vgg_weights: VGG takes images with 1 or 3 channels only"),
        ("--progressive 36:2 --n_iters 9", "--progressive: counts epochs, so it cannot be used with --n_iters"),
        ("--progressive 64", "not of the form SIZE:EPOCHS"),
        ("--ratio_A 1:2:3", "argument --ratio_A: 1:2:3: neither a number"),
        ("--encoder_weights x", "--encoder_weights: needs --generator pretrained"),
        ("--lambda_perceptual 1 --vgg_weights nothere.pth", "nothere.pth: no such checkpoint"),
        ("--generator pretrained --img_height 64 --img_width 64 --enlarge --encoder_weights no.pth", "no.pth: no such"),
        ("--ema 1", "argument --ema: 1 is not from 0.0 to"),
        ("--generator pretrained --channels_A 4 --img_height 64 --img_width 64", "takes images with 1 or 3 channels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tiny, tmp_path, capsys, words, message):
    with pytest.raises((InputError, SystemExit)) as error:
        tiny(*words.split())
    text = str(error.value) if isinstance(error.value, InputError) else capsys.readouterr().err
    assert message in text and os.listdir(tmp_path) == ["data"]


@pytest.mark.slow
def test_another_architecture_is_refused_on_resuming(tiny):
    tiny("--n_epochs", "1", "--attention")
    for flags, stored in (
        (["--no-attention"], "True"),
        (["--norm", "batch"], "instance"),
        (["--channels_A", "1"], "None"),
    ):
        with pytest.raises(InputError, match=f"{flags[0].replace('no-', '')} .*latest.pth was trained with {stored}"):
            tiny("--resume", "--n_epochs", "2", *flags)


@pytest.mark.slow
def test_checkpoints_from_before_these_options_are_resumed(tiny):
    tiny("--n_epochs", "1")
    state = load()
    kept = {k: v for k, v in state["options"].items() if k not in {*ARCHITECTURE[3:]} | {"ema", "gan_loss"}}
    kept |= {name: state["options"][name] for name in ("n_residual_blocks", "ngf", "ndf", "upsample")}
    torch.save(state | {"options": kept}, "saved_models/tiny/latest.pth")
    tiny("--resume", "--n_epochs", "2")
    assert load()["epoch"] == 2 and json.loads(open("saved_models/tiny/log.jsonl").readline())["step"] == 1
