"""Generators from files of all layouts: what comes back computes what went in, and what is none says so in one line."""

import os
import pickle
import re

import pytest
import torch

import cyclegan
from inference.generator import TrainedGenerator
from inference.load import load_generator
from models import Discriminator, GeneratorResNet
from utils import InputError

TRANSPOSE, NEAREST = {"upsample": "transpose"}, {"upsample": "nearest"}


def picture(channels=3, seed=5):
    return torch.rand(1, channels, 32, 36, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_computes_the_same(one, other):
    x = picture(other.channels)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))


def renamed(generator, pattern, replacement):
    return {re.sub(pattern, replacement, key): value for key, value in generator.state_dict().items()}


# ----- layouts


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
@pytest.mark.parametrize("channels, ngf, n_residual_blocks", [(3, 8, 2), (1, 4, 1), (3, 5, 0), (1, 8, 11)])
def test_widths_and_blocks_are_read_off_the_weights(
    tmp_path, make_generator, channels, ngf, n_residual_blocks, upsample
):
    options = dict(channels=channels, ngf=ngf, n_residual_blocks=n_residual_blocks, upsample=upsample)
    original = make_generator("weights.pth", **options)
    facts = load_generator(str(tmp_path / "weights.pth"))
    generator = facts.network
    assert_computes_the_same(generator, original)
    assert (generator.channels, len(generator.stages[1])) == (channels, n_residual_blocks)
    assert facts == TrainedGenerator(generator, str(tmp_path / "weights.pth")) and not generator.training


def test_full_checkpoint(make_set, tmp_path, monkeypatch):
    """What cyclegan.py writes after a step: the full checkpoint, and each generator alone."""
    make_set(trainA=1, trainB=1)
    monkeypatch.chdir(tmp_path)
    options = "--dataset_name tiny --img_height 32 --img_width 32 --n_residual_blocks 1 --ngf 4 --ndf 4 --n_epochs 1"
    cyclegan.main([*options.split(), "--device", "cpu", "--no-amp", "--sample_interval", "0", "--upsample", "nearest"])
    folder = "saved_models/tiny"
    for direction in ("AB", "BA"):
        facts = load_generator(f"{folder}/G_{direction}_1.pth")
        alone = facts.network
        assert facts.provenance["torch"] == torch.__version__
        facts.provenance = {}
        assert facts == TrainedGenerator(alone, f"{folder}/G_{direction}_1.pth", direction, epoch=1)
        assert not facts.is_full
        for name in ("latest", "checkpoint_1"):
            facts = load_generator(f"{folder}/{name}.pth", direction)
            generator = facts.network
            assert_computes_the_same(generator, alone)
            assert (facts.direction, facts.epoch, facts.options["ngf"]) == (direction, 1, 4) and facts.is_full
    facts = load_generator(f"{folder}/latest.pth")
    default = facts.network
    assert facts.direction == "AB"
    assert_computes_the_same(default, load_generator(f"{folder}/G_AB_1.pth").network)
    with pytest.raises(AssertionError):  # the two directions differ, or nothing was shown
        assert_computes_the_same(default, load_generator(f"{folder}/G_BA_1.pth").network)


def of_pytorch_gan(generator):
    return renamed(generator, r"\.conv_block\.", ".block.")


def of_the_authors_first_version(generator):
    """Instance norms with running statistics: after each convolution but the last."""
    state, weights = {}, generator.state_dict()
    for key, value in weights.items():
        state[key] = value
        if key.endswith(".bias") and key != list(weights)[-1]:
            start, number = key.removesuffix(".bias").rsplit(".", 1)
            norm = f"{start}.{int(number) + 1}"
            state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = value * 0 + 7, value * 0 + 9
            state[f"{norm}.num_batches_tracked"] = torch.tensor(1000)
    return state


LAYOUTS = {
    "PyTorch-GAN": (NEAREST, of_pytorch_gan),
    "running statistics": (TRANSPOSE, of_the_authors_first_version),
    "dropout": (TRANSPOSE, lambda g: renamed(g, r"conv_block\.5", "conv_block.6")),
    "DataParallel": (TRANSPOSE, lambda g: renamed(g, "^", "module.")),
    "torch.compile": (NEAREST, lambda g: renamed(g, "^", "_orig_mod.")),
    "both": (NEAREST, lambda g: renamed(g, "^", "module._orig_mod.")),
    "PyTorch-GAN in DataParallel": (NEAREST, lambda g: {"module." + k: v for k, v in of_pytorch_gan(g).items()}),
    "parameters": (TRANSPOSE, lambda g: dict(g.named_parameters())),
    "float64": (TRANSPOSE, lambda g: {k: v.double() for k, v in g.state_dict().items()}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_layouts_of_other_projects(tmp_path, make_generator, layout, legacy):
    options, lay_out = LAYOUTS[layout]
    original = make_generator(n_residual_blocks=2, **options)
    state = lay_out(original)
    path = str(tmp_path / "weights.pth")
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    generator = load_generator(path).network
    assert_computes_the_same(generator, original)
    assert all(p.dtype == torch.float32 for p in generator.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path, make_generator, dtype):
    original = make_generator()
    state = {key: value.to(dtype) for key, value in original.state_dict().items()}
    torch.save(state, tmp_path / "half.pth")
    original.load_state_dict(state)  # copies, and so rounds
    assert_computes_the_same(load_generator(str(tmp_path / "half.pth")).network, original)


@pytest.mark.parametrize(
    "name, direction, epoch",
    [
        ("G_AB_200.pth", "AB", 200),  # ours and PyTorch-GAN's
        ("G_BA_3.pth", "BA", 3),
        ("latest_net_G_A.pth", "AB", None),  # the authors'
        ("200_net_G_B.pth", "BA", None),
        ("netG_A2B.pth", "AB", None),  # aitorzip's
        ("netG_B2A.pth", "BA", None),
        ("latest_net_G.pth", None, None),  # the authors', of a single published direction
        ("zebras.pth", None, None),
    ],
)
def test_direction_by_name(tmp_path, make_generator, name, direction, epoch):
    make_generator(name)
    path = str(tmp_path / name)
    facts = load_generator(path)
    assert (facts.direction, facts.epoch) == (direction, epoch)
    for wanted in ("AB", "BA"):
        if direction in (None, wanted):
            assert load_generator(path, wanted).direction == wanted
        else:
            with pytest.raises(InputError, match=f"--direction {wanted}: .*{name} translates {direction}, according"):
                load_generator(path, wanted)


def test_the_folder_name_says_nothing_about_the_direction(tmp_path, make_generator):
    (tmp_path / "G_BA").mkdir()
    make_generator("G_BA/net_G_A.pth")
    assert load_generator(str(tmp_path / "G_BA/net_G_A.pth")).direction == "AB"


# ----- what is no generator


def unet():
    start = "model.model."
    return {f"{start}0.weight": torch.zeros(8, 3, 4, 4), f"{start}1.model.1.weight": torch.zeros(16, 8, 4, 4)}


def batch_norm():
    state = GeneratorResNet(ngf=4, n_residual_blocks=1).state_dict()
    return state | {"model.2.weight": torch.ones(4), "model.2.bias": torch.zeros(4)}


def not_finite():
    state = GeneratorResNet(ngf=4, n_residual_blocks=1).state_dict()
    state["model.4.weight"][1, 2, 0, 0] = float("nan")
    return state


def one_missing():
    state = GeneratorResNet(ngf=4, n_residual_blocks=2).state_dict()
    del state["model.11.conv_block.5.bias"]
    return state


BAD = {
    "a U-Net": (unet, "a U-Net. Expected a checkpoint of cyclegan.py, or"),
    "a discriminator": (lambda: Discriminator(ndf=4).state_dict(), "a discriminator. Expected"),
    "batch norm": (batch_norm, "a generator with batch norm. Expected"),
    "nan": (not_finite, "has weights that are not finite"),
    "one missing": (one_missing, "not a known generator (its keys: model.1.weight, model.1.bias"),
    "gray PyTorch-GAN": (
        lambda: of_pytorch_gan(GeneratorResNet(1, 1, 4, "nearest")),
        "a generator of PyTorch-GAN with 1 channels; only 3 are supported",
    ),
    "a list": (lambda: [torch.zeros(3)], "contains a list, not a generator"),
    "a tensor": (lambda: torch.zeros(3), "contains a Tensor, not a generator"),
    "nothing": (dict, "not a known generator (its keys: none)"),
    "numbers": (lambda: {"epoch": 3, 4: "x"}, "not a known generator (its keys: epoch, 4)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_generator_is_named_in_one_line(tmp_path, kind):
    make, message = BAD[kind]
    path = str(tmp_path / "odd.pth")
    torch.save(make(), path)
    with pytest.raises(InputError) as error:
        load_generator(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "damage", ["truncated", "legacy truncated", "a bit", "code", "text", "empty", "missing", "folder"]
)
def test_broken_files_are_named_in_one_line_and_execute_nothing(tmp_path, make_generator, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    generator = make_generator("x.pth")
    if damage == "legacy truncated":
        torch.save(generator.state_dict(), "x.pth", _use_new_zipfile_serialization=False)
    data = bytearray((tmp_path / "x.pth").read_bytes())
    if "truncated" in damage:
        data = data[: len(data) // 2]
    data[len(data) // 2] ^= damage == "a bit"
    contents = {"code": pickle.dumps({"model": Code()}, protocol=2), "text": b"<html>not found</html>", "empty": b""}
    (tmp_path / "x.pth").write_bytes(contents.get(damage, data))
    if damage in ("missing", "folder"):
        os.remove("x.pth")
    if damage == "folder":
        os.mkdir("x.pth")
    with pytest.raises(InputError, match=r"^x\.pth: [^\n]+$") as error:
        load_generator("x.pth")
    assert not os.path.exists("executed")
    assert damage != "code" or "code in it; nothing was executed" in str(error.value)
    assert damage != "missing" or "no such checkpoint" in str(error.value)


def test_code_inside_a_zip_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Code()}, "x.pth")
    with pytest.raises(InputError, match="nothing was executed"):
        load_generator("x.pth")
    assert not os.path.exists("executed")
