"""--freeze_D: the first layers of the discriminators keep their weights."""

import pytest
import torch
from helpers import build
from torch import nn

import cyclegan
from training.update import Update
from utils import InputError

SMALL = (
    "--dataset_name x --img_height 64 --img_width 64 --n_residual_blocks 1 --ngf 4 --ndf 4 --pool_size 3 --device cpu"
)


def options(*argv):
    return cyclegan.get_options([*SMALL.split(), "--no-amp", *argv])[0]


def trained(opt, n_steps=3):
    """A CycleGAN after a few steps -> (CycleGAN, state dicts before, state dicts after, by network)"""
    gan, run = build(opt)
    update = Update(cyclegan.train_step, gan, opt, run)
    before, generator = weights(gan), torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        update(*(torch.rand(opt.batch_size, 3, 64, 64, generator=generator) * 2 - 1 for _ in "AB"))
    return gan, before, weights(gan)


def weights(gan):
    return {name: {k: p.detach().clone() for k, p in n.named_parameters()} for name, n in gan.networks().items()}


def convolutions(D):
    """For each scale, the names of the weights of each convolution, in order."""
    for name, scale in D.named_modules():
        if isinstance(scale, nn.Sequential) and (name == "model" or name.endswith(".model")):
            yield [
                [f"{name}.{i}.{key}" for key, _ in layer.named_parameters()]
                for i, layer in enumerate(scale)
                if isinstance(layer, nn.Conv2d)
            ]


@pytest.mark.parametrize(
    "words, n, n_scales",
    [
        ("", 2, 1),
        ("", 4, 1),
        ("--discriminator multiscale --n_scales 2", 3, 2),
        ("--discriminator pixel", 1, 1),
        ("--spectral_norm", 2, 1),
        ("--norm batch --batch_size 2 --clip_grad 0.1", 2, 1),
        ("--norm_D layer", 3, 1),
        ("--accumulate 2 --batch_size 2", 2, 1),
    ],
)
def test_frozen_weights_stay_and_others_change(words, n, n_scales):
    gan, before, after = trained(options(*words.split(), "--freeze_D", str(n)))
    for name in ("D_A", "D_B"):
        network, parameters = gan.networks()[name], dict(gan.networks()[name].named_parameters())
        scales = list(convolutions(network))
        assert len(scales) == n_scales
        frozen = {key for layers in scales for keys in layers[:n] for key in keys}
        assert len(frozen) == 2 * n * n_scales
        for key in frozen:
            assert torch.equal(before[name][key], after[name][key]) and parameters[key].grad is None, key
        for layers in scales:
            for key in (key for keys in layers[n:] for key in keys):
                # biases before a norm have no gradient but rounding
                assert not torch.equal(before[name][key], after[name][key]), key
    for name in ("G_AB", "G_BA"):
        assert all(not torch.equal(before[name][key], after[name][key]) for key in before[name] if "weight" in key)


def test_gains_of_norms_before_the_first_trained_convolution_are_frozen():
    _, before, after = trained(options("--norm", "batch", "--batch_size", "2", "--freeze_D", "2"))
    assert torch.equal(before["D_A"]["model.3.weight"], after["D_A"]["model.3.weight"])  # of the second convolution
    assert not torch.equal(before["D_A"]["model.6.weight"], after["D_A"]["model.6.weight"])


def test_the_steps_of_the_generators_are_the_same():
    """Until the discriminators differ: in the first step, the generators and the later layers of D are updated as
    without the option, bit for bit."""
    frozen, free = (trained(options(*words), n_steps=1) for words in (("--freeze_D", "2"), ()))
    for name in ("G_AB", "G_BA"):
        assert all(torch.equal(frozen[2][name][key], weight) for key, weight in free[2][name].items())
    assert torch.equal(frozen[2]["D_A"]["model.11.weight"], free[2]["D_A"]["model.11.weight"])
    assert not torch.equal(frozen[2]["D_A"]["model.0.weight"], free[2]["D_A"]["model.0.weight"])


@pytest.mark.parametrize(
    "words, n", [("", 5), ("--discriminator pixel", 3), ("--discriminator multiscale --n_scales 2", 5)]
)
def test_freezing_all_is_refused(words, n):
    match = f"--freeze_D {n}: leaves nothing to train, because the discriminators have {n} convolutions. Use at most {n - 1}"
    with pytest.raises(InputError, match=match):
        options(*words.split(), "--freeze_D", str(n))
    assert options(*words.split(), "--freeze_D", str(n - 1)).freeze_D == n - 1


def test_it_costs_nothing_when_off():
    gan, _ = build(options())
    assert all(p.requires_grad for network in gan.networks().values() for p in network.parameters())
    assert all(o.trained == o.parameters for o in gan.optimizers().values())


def test_the_norms_between_frozen_convolutions_are_frozen():
    gan, before, after = trained(options("--norm_D", "layer", "--freeze_D", "3"))
    changed = [key for key in before["D_A"] if not torch.equal(before["D_A"][key], after["D_A"][key])]
    norms = [f"model.{i}.{kind}" for i in (3, 6, 9) for kind in ("weight", "bias")]  # of the second to the fourth layer
    assert {*norms} & {*changed} == {*norms[4:]}
