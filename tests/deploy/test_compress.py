"""compress.py: pruning removes the least important channels, students learn, and both results are usual generators."""

import argparse
import json
import os
import re
import signal
import sys

import pytest
import torch
import torchvision
from helpers import load_networks
from torch import nn

import compress
import cyclegan
import translate
from deploy import compression, distill, prune
from deploy.student import feature_loss, make_student, translate_with_features, width_of_blocks
from inference.load import load_generator
from measuring import timing
from media.files import load_file
from models import GeneratorResNet, weights_init_normal
from training import signals
from utils import InputError
from variants.build import GENERATOR_OPTIONS, make_generator

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("onnx_once")]


@pytest.fixture
def trained(tmp_path, monkeypatch, make_set, no_downloads):
    """trained(option, ...) trains a little CycleGAN in tmp_path -> the path of its checkpoint. Nothing is timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compression, "in_rounds", lambda builds, *_, **__: {name: {"seconds": 1} for name in builds})
    make_set((40, 40), trainA=6, trainB=6, testA=3, testB=3)

    def train(*options, ngf=8, n_blocks=2):
        cyclegan.main(["--dataset_name", "tiny", "--img_height", "32", "--img_width", "32", "--ngf", str(ngf),
                       "--ndf", "4", "--n_residual_blocks", str(n_blocks), "--n_epochs", "1", "--sample_interval", "0",
                       "--device", "cpu", "--no-amp", *options])  # fmt: skip
        return "saved_models/tiny/latest.pth"

    return train


COMMON = ["--device", "cpu", "--no-amp", "--sample_interval", "0"]


def rows_of(said):
    """The table at the end -> {label: (before, after)}"""
    lines = said[said.index("after/before") :].splitlines()[1:]
    found = (re.match(r"(.{54})\s*(\S+)\s+(\S+)\s+(\S+)$", line) for line in lines)
    return {m[1].strip(): (float(m[2]), float(m[3])) for m in found if m}


def options(**changes):
    return argparse.Namespace(**GENERATOR_OPTIONS | {"img_height": 64, "img_width": 64} | changes)


##############################
#          Prune
##############################


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
def test_channels_without_weight_go_first(upsample):
    """Half of the channels of each layer do nothing, anywhere among the others: without them nothing changes."""
    torch.manual_seed(0)
    of_small, of_large = (dict(n_residual_blocks=2, ngf=n, upsample=upsample) for n in (4, 8))
    small, large = (make_generator(o, 3, 3).apply(weights_init_normal) for o in (of_small, of_large))
    places = {n: torch.randperm(2 * n)[:n].sort().values for n in (4, 8, 16)}  # width of the small one: where it goes
    places[3] = torch.arange(3)
    with torch.no_grad():
        for mine, its in zip(large.parameters(), small.parameters()):
            mine *= 1e-4  # not 0, to which all channels would be equal
            if mine.dim() == 4:
                rows, columns = (places[n] for n in its.shape[:2])
                mine[rows[:, None], columns] = its
            else:
                mine[places[len(its)]] = its
    pruned = prune.without_channels(large, options(**of_large), options(**of_small))
    for key, value in small.state_dict().items():
        assert torch.equal(pruned.state_dict()[key], value), key
    assert pruned.model[1].out_channels == 4 and large.model[1].out_channels == 8


@pytest.mark.parametrize(
    "kind", [{}, {"separable": True}, {"norm": "batch"}, {"norm": "layer"}, {"dropout": 0.5},
             {"generator": "unet", "num_downs": 5}, {"generator": "multiscale"}]
)  # fmt: skip
@pytest.mark.parametrize("keep", [3, 5, 7])
def test_a_pruned_network_is_one_that_options_describe(kind, keep):
    described = options(**kind, ngf=8) if "generator" in kind else options(**kind, ngf=8, n_residual_blocks=2)
    small = argparse.Namespace(**vars(described) | {"ngf": keep})
    G = make_generator(vars(described), 3, 3).apply(weights_init_normal)
    pruned = prune.without_channels(G, described, small)
    wanted = make_generator(vars(small), 3, 3)
    assert {k: v.shape for k, v in pruned.state_dict().items()} == {k: v.shape for k, v in wanted.state_dict().items()}
    assert pruned.eval()(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_it_is_the_sum_of_absolute_weights_that_counts():
    """Four filters of many middling weights, four of one large one each: their squares add up to more."""
    torch.manual_seed(0)
    G = make_generator(dict(n_residual_blocks=1, ngf=8), 3, 3).apply(weights_init_normal)
    spread = torch.tensor([0, 3, 4, 6])
    with torch.no_grad():
        for weight in (G.model[1].weight, G.model[4].weight.transpose(0, 1)):
            weight[:] = 0
            weight[:, 0, 0, 0] = 0.5 * weight[0].numel() * 0.1
            weight[spread] = 0.1
    pruned = prune.without_channels(G, options(ngf=8, n_residual_blocks=1), options(ngf=4, n_residual_blocks=1))
    assert torch.equal(pruned.model[1].weight, G.model[1].weight[spread])


def test_prune(trained, capsys, monkeypatch):
    checkpoint = trained()
    monkeypatch.setattr(compression, "in_rounds", timing.in_rounds)
    capsys.readouterr()
    status = compress.main(["prune", "--checkpoint", checkpoint, "--keep", "0.5", "--n_epochs", "2", *COMMON])
    said = capsys.readouterr().out
    assert not status
    state, before = load_file("saved_models/tiny_pruned/latest.pth"), load_file(checkpoint)
    assert state["epoch"] == 2 and state["step"] == 12 and state["options"]["ngf"] == 4
    assert state["options"]["n_residual_blocks"] == 2 and state["options"]["lr"] == 0.0001
    assert not torch.equal(state["D_A"]["model.0.weight"], before["D_A"]["model.0.weight"])  # it learned on
    found = load_networks("saved_models/tiny_pruned/G_AB_2.pth")
    assert {G.model[1].out_channels for G in found.values()} == {4} and set(found) == {"AB", "BA"}
    rows = rows_of(said)
    large, small = (GeneratorResNet(3, 2, ngf) for ngf in (8, 4))
    x = torch.zeros(1, 3, 32, 32)
    for values, G in zip(zip(*rows.values()), (large, small)):
        row = dict(zip(rows, values))
        parameters = sum(p.numel() for p in G.parameters())
        assert row["parameters, M"] == pytest.approx(parameters / 1e6, rel=1e-3)
        assert row["multiply-adds at 32 x 32, G"] == pytest.approx(timing.count_flops(lambda G=G: G(x)) / 2e9, rel=1e-3)
        assert row["file of one generator, MB"] == pytest.approx(4 * parameters / 1e6, rel=0.6)
        assert row["images/s, cpu, float32, one at a time"] > 1
    measured = [
        json.loads(open(f"saved_models/{name}/metrics.jsonl").readlines()[-1]) for name in ("tiny", "tiny_pruned")
    ]
    for i in range(2):
        value = measured[i]["results"]["BA"]["cycle_l1"]
        assert rows["B -> A  cycle reconstruction, L1, of 255"][i] == pytest.approx(value, rel=1e-3)

    # the result is an ordinary run
    cyclegan.main(["--run_name", "tiny_pruned", "--resume", "--n_epochs", "3", "--device", "cpu"])
    assert load_file("saved_models/tiny_pruned/latest.pth")["epoch"] == 3
    compress.main(["prune", "--checkpoint", checkpoint, "--n_epochs", "0", *COMMON])  # and nothing is lost
    assert load_file("saved_models/tiny_pruned.1/latest.pth")["epoch"] == 3
    assert load_file("saved_models/tiny_pruned/latest.pth")["epoch"] == 0


def test_a_batch_size_that_the_training_cannot_have_is_refused_at_once(trained, monkeypatch):
    checkpoint = trained("--batch_deviation", "--batch_size", "2")
    monkeypatch.setattr(prune, "quality", lambda *_: pytest.fail("it takes its time"))
    with pytest.raises(InputError, match="--batch_deviation: a single image does not vary; use --batch_size 2 or more"):
        compress.main(["prune", "--checkpoint", checkpoint, "--batch_size", "1", "--n_epochs", "1", *COMMON])
    assert os.listdir("saved_models") == ["tiny"]


def test_prune_starts_from_what_was_trained(trained):
    checkpoint = trained("--ema", "0.5")
    compress.main(["prune", "--checkpoint", checkpoint, "--keep", "1", "--n_epochs", "0", *COMMON])
    state, before = load_file("saved_models/tiny_pruned/latest.pth"), load_file(checkpoint)
    for key, value in before["ema_G_AB"].items():
        assert torch.equal(state["G_AB"][key], value)
    assert torch.equal(state["D_B"]["model.0.weight"], before["D_B"]["model.0.weight"])


def test_a_teacher_that_was_trained_with_a_cuda_graph_is_pruned_on_a_cpu(trained):
    checkpoint = trained()
    state = load_file(checkpoint)
    torch.save(state | {"options": state["options"] | {"graph": True}}, checkpoint)
    compress.main(["prune", "--checkpoint", checkpoint, "--keep", "0.5", "--n_epochs", "0", *COMMON])
    assert load_file("saved_models/tiny_pruned/latest.pth")["options"]["graph"] is True


def test_a_training_with_nce_is_pruned(trained):
    """The projections have the widths of the pruned layers, and are new."""
    checkpoint = trained("--lambda_nce", "1")
    assert not compress.main(["prune", "--checkpoint", checkpoint, "--keep", "0.5", "--n_epochs", "1", *COMMON])
    state = load_file("saved_models/tiny_pruned/latest.pth")
    shapes = [state["G_AB"][f"projections.{i}.0.weight"].shape for i in range(6)]
    assert [shape[1] for shape in shapes] == [3, 4, 8, 16, 16, 16] and state["options"]["lambda_nce"] == 1
    assert load_networks("saved_models/tiny_pruned/G_AB_1.pth")["AB"].model[1].out_channels == 4


def stop_after(monkeypatch, n):
    """The n-th time that a training asks, there has been a SIGTERM."""
    count = 0

    def requested(self):
        nonlocal count
        count += 1
        self.number = signal.SIGTERM
        return signal.SIGTERM if count == n else 0

    monkeypatch.setattr(signals.StopSignal, "requested", requested)


def test_prune_goes_on(trained, monkeypatch, capsys):
    checkpoint = trained()
    words = ["prune", "--checkpoint", checkpoint, "--keep", "0.5", "--n_epochs", "2", *COMMON]
    compress.main([*words, "--run_name", "whole"])
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert compress.main([*words, "--run_name", "parts"]) == 128 + signal.SIGTERM
    begun = torch.load("saved_models/parts/latest.pth")  # as a version without these options wrote it
    later = ("antialias", "residual", "noise_channels")
    known = {name: value for name, value in begun["options"].items() if name not in later}
    torch.save(begun | {"options": known}, "saved_models/parts/latest.pth")
    compress.main([*words, "--run_name", "parts", "--resume"])
    assert "after/before" in capsys.readouterr().out
    refused(
        [*words, "--run_name", "parts", "--resume", "--keep", "0.75"], "parts/latest.pth is not .* --keep 0.75, which"
    )
    states = [load_file(f"saved_models/{name}/latest.pth") for name in ("whole", "parts")]
    assert states[0]["step"] == states[1]["step"] == 12
    for key, value in states[0]["G_AB"].items():
        assert torch.equal(states[1]["G_AB"][key], value)


##############################
#         Distill
##############################


def student_of(words, teacher, **changes):
    """Returns its options, the student, and (parameters, multiply-adds) of the student and of the teacher."""
    opt = compress.get_parser().parse_args(["distill", "--checkpoint", "x", *words.split()])
    trained = options(**changes)
    described, student = make_student(
        teacher, trained, **{name: getattr(opt, name) for name in distill.STUDENT_OPTIONS}
    )
    described = argparse.Namespace(**vars(trained) | described)
    return described, student, *(timing.costs(G, (64, 64)) for G in (student, teacher))


@pytest.mark.parametrize("n_blocks", [0, 3, 4])
def test_the_student_is_as_wide_as_the_limits_allow(n_blocks):
    six = dict(ngf=32, n_residual_blocks=6)
    teacher = GeneratorResNet(3, 6, 32)
    described, student, (p1, m1), (p, m) = student_of(f"--n_residual_blocks {n_blocks}", teacher, **six)
    wider = make_generator(vars(described) | {"ngf": described.ngf + 1}, 3, 3)
    p2, m2 = timing.costs(wider, (64, 64))
    assert described.n_residual_blocks == n_blocks
    assert p / p1 >= 30 and m / m1 >= 20
    assert p / p2 < 30 or m / m2 < 20


def test_widths_are_multiples_of_8_where_that_costs_little():
    """3 blocks of 7 filters and 2 of 8 cost nearly the same; 4 of 16 are as many as fit; of 16 filters few are left."""
    for n, ngf, found in (6, 32, (2, 8)), (9, 64, (4, 16)), (2, 16, (1, 2)):
        described, student, (p1, m1), (p, m) = student_of("", GeneratorResNet(3, n, ngf), ngf=ngf, n_residual_blocks=n)
        assert (described.n_residual_blocks, described.ngf) == found
        assert student.model[1].out_channels == described.ngf and p / p1 >= 30 and m / m1 >= 20
    teacher = GeneratorResNet(3, 2, 31)
    described, *_ = student_of("--fewer_parameters 1 --fewer_products 1", teacher, ngf=31, n_residual_blocks=2)
    assert described.ngf == 31  # 24 would be little over half of it


def test_options_of_the_student():
    six = dict(ngf=32, n_residual_blocks=6)
    teacher = GeneratorResNet(3, 6, 32)
    described, student, *_ = student_of("--ngf 6 --separable --n_residual_blocks 4", teacher, **six)
    assert (described.ngf, described.separable, described.n_residual_blocks) == (6, True, 4)
    assert isinstance(student.model[10].conv_block[1], nn.Sequential) and student.model[1].out_channels == 6
    assert student_of("--ngf 5", teacher, **six)[0].n_residual_blocks == 3
    with pytest.raises(InputError, match="--fewer_products 1000000.0 .*give --ngf"):
        student_of("--fewer_products 1e6", teacher, **six)


def test_costs_of_the_default_student():
    """What GAN Compression reports is 21 times fewer multiply-adds and 33 times fewer parameters."""
    opt = compress.get_parser().parse_args(["distill", "--checkpoint", "x"])
    limits = dict(fewer_products=opt.fewer_products, fewer_parameters=opt.fewer_parameters)
    _, student = make_student(GeneratorResNet(), options(img_height=256, img_width=256), **limits)
    parameters, products = timing.costs(student, (256, 256))
    assert parameters <= 11.378e6 / 30 and products <= 49.56e9 / 20


def test_features_come_from_before_within_and_after_the_blocks():
    torch.manual_seed(0)
    G = GeneratorResNet(3, 4, 4).apply(weights_init_normal).eval()
    x, wanted = torch.rand(2, 3, 32, 32), []
    for i in (9, 11, 13):  # the last layer before the blocks, the second and the fourth block
        G.model[i].register_forward_hook(lambda layer, inputs, output: wanted.append(output))
    y = G(x)
    translated, seen = translate_with_features(G, x)
    assert torch.equal(translated, y)
    assert len(seen) == 3 and all(torch.equal(a, b) for a, b in zip(seen, wanted))
    G = GeneratorResNet(3, 0, 4).apply(weights_init_normal).eval()  # without blocks, all three are the same
    wanted = torch.nn.Sequential(*G.model[:10])(x)
    translated, seen = translate_with_features(G, x)
    assert torch.equal(translated, G(x)) and len(seen) == 3 and all(torch.equal(one, wanted) for one in seen)


@pytest.mark.parametrize("changes", [{}, {"antialias": True}, {"n_residual_blocks": 0}, {"norm": "batch"}])
def test_the_width_of_the_blocks(changes):
    G = make_generator({"ngf": 4, "n_residual_blocks": 1, **changes}, 3, 3)
    assert width_of_blocks(G) == 16


def test_feature_loss():
    x = torch.randn(2, 4, 8, 8)
    y = x[:, [0, 1, 2, 3, 0, 1]] * 2  # six channels, which a 1x1 convolution of x can reproduce
    adapter = nn.Conv2d(4, 6, 1)
    with torch.no_grad():
        adapter.bias.zero_()
        adapter.weight.copy_((2 * torch.eye(4)[[0, 1, 2, 3, 0, 1]])[:, :, None, None])
    assert feature_loss([adapter], [x], [y]).item() == pytest.approx(0, abs=1e-10)
    nothing = nn.Conv2d(4, 6, 1)
    nn.init.zeros_(nothing.weight)
    nn.init.constant_(nothing.bias, y.mean().item())
    far = feature_loss([adapter, nothing], [x, x], [y, y]).item()
    assert far == pytest.approx(0.5, rel=1e-2)  # mean of 0 and 1


@pytest.mark.parametrize("direction", ["AB", "BA"])
def test_distill(direction, trained, capsys):
    checkpoint = trained()
    capsys.readouterr()
    words = ["distill", "--checkpoint", checkpoint, "--direction", direction, "--n_epochs", "8", "--log_interval", "6",
             "--ngf", "6", "--lr", "0.005", "--lambda_gan", "0", *COMMON]  # fmt: skip
    assert not compress.main(words)
    said = capsys.readouterr().out
    folder = "saved_models/tiny_student"
    log = [json.loads(line) for line in open(f"{folder}/log.jsonl")]
    assert len(log) == 9 and log[-1]["step"] == 48
    assert log[-1]["loss_out"] < 0.85 * log[0]["loss_out"] and log[-1]["loss_feat"] < 0.85 * log[0]["loss_feat"]
    assert log[0]["lr"] == 0.005 and 0 < log[-1]["lr"] < 0.0015
    rows = rows_of(said)
    assert rows["parameters, M"][1] < 0.6 * rows["parameters, M"][0]
    arrow = " -> ".join(direction)
    assert f"{arrow}  cycle reconstruction, L1, of 255" in rows
    assert not any(label.startswith(f"{arrow[::-1]}  ") for label in rows)

    # the student is a generator like any other, in its own file and in that of the training
    known = load_generator(f"{folder}/G_{direction}_8.pth")
    own = known.network
    same = load_generator(f"{folder}/latest.pth").network
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert known.direction == direction and torch.equal(own(x), same(x)) and own.model[1].out_channels == 6
    with pytest.raises(InputError, match=f"--direction {direction[::-1]}: .* has no such generator"):
        load_generator(f"{folder}/latest.pth", direction[::-1])


def test_a_student_of_a_teacher_with_noise_has_none(trained):
    checkpoint = trained("--noise_channels", "2", "--lambda_diversity", "1")
    assert not compress.main(["distill", "--checkpoint", checkpoint, "--n_epochs", "1", "--ngf", "4", *COMMON])
    student = torch.load("saved_models/tiny_student/latest.pth", weights_only=True)
    assert student["options"]["noise_channels"] == 0
    G = load_generator("saved_models/tiny_student/G_AB_1.pth").network
    assert type(G).__name__ == "GeneratorResNet" and not getattr(G, "noise_channels", 0)


def test_a_student_learns_the_features_of_an_antialiased_teacher(trained):
    checkpoint = trained("--antialias", "--residual", "--batch_deviation", "--batch_size", "2")
    assert not compress.main(["distill", "--checkpoint", checkpoint, "--n_epochs", "1", "--ngf", "4", *COMMON])
    student = torch.load("saved_models/tiny_student/latest.pth", weights_only=True)
    assert not student["options"]["antialias"] and not student["options"]["residual"]
    assert student["adapters"]["0.weight"].shape == (32, 16, 1, 1)  # of the teacher, of the student
    assert json.loads(open("saved_models/tiny_student/log.jsonl").readlines()[-1])["loss_feat"] > 0


def test_a_resumed_distillation_equals_an_uninterrupted_one(trained, monkeypatch):
    checkpoint = trained()
    words = ["distill", "--checkpoint", checkpoint, "--n_epochs", "3", "--ngf", "4", *COMMON]
    compress.main([*words, "--run_name", "whole"])
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert compress.main([*words, "--run_name", "parts"]) == 128 + signal.SIGTERM
    assert load_file("saved_models/parts/latest.pth")["step"] == 8
    compress.main([*words, "--run_name", "parts", "--resume"])
    whole, parts = (load_file(f"saved_models/{name}/latest.pth") for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 18
    for part in ("G_AB", "adapters", "D"):
        for key, value in whole[part].items():
            assert torch.equal(parts[part][key], value), (part, key)
    # the options are those of the run, and what is done is not done again
    with open("saved_models/parts/latest.pth", "rb") as file:
        before = file.read()
    compress.main(
        ["distill", "--checkpoint", checkpoint, "--run_name", "parts", "--resume", "--n_epochs", "1", *COMMON]
    )
    assert (
        load_file("saved_models/parts/latest.pth")["epoch"] == 3
        and open("saved_models/parts/latest.pth", "rb").read() == before
    )
    assert not os.path.exists("saved_models/parts/G_AB_1.pth")
    os.rename("saved_models/tiny", "saved_models/other")
    refused(
        [*words[:2], "saved_models/other/latest.pth", "--run_name", "parts", "--resume"],
        "has another teacher, saved_models/tiny",
    )


def test_resume_finishes_the_interrupted_epoch(trained, monkeypatch):
    words = ["distill", "--checkpoint", trained(), "--ngf", "4", "--run_name", "parts", *COMMON]
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        compress.main([*words, "--n_epochs", "3"])
    compress.main([*words, "--n_epochs", "1", "--resume"])
    state = load_file("saved_models/parts/latest.pth")
    assert (state["epoch"], state["step"]) == (2, 12) and os.path.exists("saved_models/parts/G_AB_2.pth")


def test_each_loss_changes_the_student(trained, tmp_path):
    """A loss without weight is not computed. Each loss leads to another student."""
    checkpoint = trained()
    words = ["distill", "--checkpoint", checkpoint, "--n_epochs", "1", "--ngf", "4", "--log_interval", "1", *COMMON]
    vgg = str(tmp_path / "vgg16.pth")
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])  # without the large classifier
    torch.save({f"features.{k}": v for k, v in layers.state_dict().items()}, vgg)
    off = ["--lambda_out", "0", "--lambda_feat", "0", "--lambda_gan", "0"]
    students = {}
    for name, changes in {"out": ["--lambda_out", "10"], "feat": ["--lambda_feat", "1"], "gan": ["--lambda_gan", "1"],
                          "perceptual": ["--lambda_perceptual", "1", "--vgg_weights", vgg]}.items():  # fmt: skip
        compress.main([*words, *off, *changes, "--run_name", name])
        log = [json.loads(line) for line in open(f"saved_models/{name}/log.jsonl")]
        logged = {key for key in log[-1] if key.startswith("loss_")}
        assert logged == {"loss_out", f"loss_{name}"} | ({"loss_D"} if name == "gan" else set())
        students[name] = load_file(f"saved_models/{name}/latest.pth")["G_AB"]["model.1.weight"]
    values = list(students.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])


def test_a_teacher_without_residual_blocks(trained, capsys):
    checkpoint = trained("--generator", "unet", "--num_downs", "5")
    compress.main(["distill", "--checkpoint", checkpoint, "--n_epochs", "1", "--ngf", "4", "--n_residual_blocks", "1",
                   *COMMON])  # fmt: skip
    assert "note: --lambda_feat" in capsys.readouterr().out
    G = load_generator("saved_models/tiny_student/G_AB_1.pth").network
    assert isinstance(G, GeneratorResNet)


##############################
#          Errors
##############################


def refused(words, message):
    with pytest.raises(InputError, match=message):
        compress.main(words)


def test_errors(trained, monkeypatch):
    checkpoint = trained()
    refused(["prune", "--checkpoint", "nothing.pth"], "nothing.pth: no such checkpoint")
    for way in ("prune", "distill"):
        refused([way, "--checkpoint", "g.onnx"], "g.onnx: is an exported file")
        refused([way, "--checkpoint", "saved_models/tiny/G_AB_1.pth"], f"G_AB_1.pth: {way} needs a full checkpoint")
        refused(
            [way, "--checkpoint", checkpoint, "--run_name", "a/b"], "--run_name 'a/b': must be the name of a folder"
        )
        size = ["--ngf", "4"] if way == "distill" else []
        refused([way, "--checkpoint", checkpoint, "--data_dir", "elsewhere", *size, *COMMON], "elsewhere")
    again = ["distill", "--checkpoint", checkpoint, "--ngf", "4", "--resume", *COMMON]
    refused(again, "--resume: saved_models/tiny_student/latest.pth does not exist")
    refused(
        ["prune", "--checkpoint", checkpoint, "--resume", *COMMON],
        "--resume: saved_models/tiny_pruned/latest.pth does not exist",
    )
    for name, why in (("..", "'..': must be"), ("tiny", "tiny: is the name of the training itself")):
        refused(["prune", "--checkpoint", checkpoint, "--run_name", name, *COMMON], f"--run_name {why}")
    state = load_file(checkpoint)
    for changes, kind in (
        ({"attention": True}, "--attention"),
        ({"generator": "pretrained"}, "--generator pretrained"),
        ({"noise_channels": 2}, "--noise_channels"),
    ):
        options = state["options"] | changes
        G_AB, G_BA = make_generator(options, 3, 3), make_generator(options, 3, 3)
        params = list(range(len([*G_AB.parameters(), *G_BA.parameters()])))
        adam = {"state": {}, "param_groups": [state["optimizer_G"]["param_groups"][0] | {"params": params}]}
        networks = {"G_AB": G_AB.state_dict(), "G_BA": G_BA.state_dict(), "optimizer_G": adam}
        torch.save(state | networks | {"options": options}, "other.pth")
        refused(["prune", "--checkpoint", "other.pth", *COMMON], f"other.pth: trained with {kind}, .*distill takes")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    refused(["prune", "--checkpoint", checkpoint, *COMMON], "pip install torch-pruning")
    assert sorted(os.listdir("saved_models")) == ["tiny"]
    with pytest.raises(SystemExit):
        compress.main(["prune", "--checkpoint", checkpoint, "--keep", "1.5"])


def test_students_are_exported_and_translated(trained, tmp_path):
    import export

    checkpoint = trained()
    compress.main(["distill", "--checkpoint", checkpoint, "--n_epochs", "1", "--ngf", "4", "--separable", *COMMON])
    export.main(["--checkpoint", "saved_models/tiny_student/latest.pth"])
    status = translate.main(["--checkpoint", "saved_models/tiny_student/G_AB_1.onnx", "--input", "data/tiny/testA",
                             "--output", "out"])  # fmt: skip
    assert status == 0 and len(os.listdir("out")) == 3
