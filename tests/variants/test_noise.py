"""Generators with noise: where it enters, when it is drawn, and the loss that keeps it in use."""

import copy

import pytest
import torch
from helpers import build
from torch import nn

import cyclegan
from inference.bands import goes_in_bands, translate_in_bands
from inference.load import describe, load_generator
from models import GeneratorResNet, weights_init_normal
from utils import InputError
from variants import losses
from variants.build import GENERATOR_OPTIONS, described_generator, generator_file, is_papers, make_generator
from variants.distances import DIVERSITY_BOUND, diversity_loss
from variants.noise import Modulation, use_noise, with_noise, without_noise

SMALL = dict(ngf=4, n_residual_blocks=2)


def generator(seed=0, **options):
    torch.manual_seed(seed)
    return make_generator(SMALL | options, 3, 3).apply(weights_init_normal)


def image(n=1, height=64, width=64, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def options(*argv):
    small = "--dataset_name x --img_height 32 --img_width 32 --n_residual_blocks 1 --ngf 4 --ndf 4"
    return cyclegan.get_options([*small.split(), *argv])[0]


def test_a_modulation_scales_and_shifts_each_channel():
    layer, x = Modulation(2, 3), torch.arange(8.0).view(1, 2, 2, 2)
    assert layer(x) is x  # no noise
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]))
    layer.noise = torch.tensor([[0.5, -1.0, 2.0]])
    # scales 1 + 0.5 and 1 - 1, shifts 2 and 0.5 - 1
    expected = torch.tensor([[2.0, 3.5], [5.0, 6.5]]), torch.full((2, 2), -0.5)
    torch.testing.assert_close(layer(x)[0], torch.stack(expected))


def test_without_noise_it_is_the_plain_network():
    G, x = generator(noise_channels=4).eval(), image()
    plain = without_noise(copy.deepcopy(G))
    assert plain.state_dict().keys() == generator().state_dict().keys()
    same = GeneratorResNet(3, 2, 4).eval()
    same.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = same(x)
        assert torch.equal(G(x), expected) and torch.equal(plain(x), expected)
        torch.testing.assert_close(G(x, noise=torch.zeros(1, 4)), expected)
        assert (G(x, noise=torch.ones(1, 4)) - expected).abs().mean() > 1e-3
        assert torch.equal(G(x), expected)  # it does not stay
    assert GENERATOR_OPTIONS["noise_channels"] == 0 and not generator()._forward_pre_hooks


def test_constant_input_channels_would_have_no_effect():
    """Why the noise does not come in as further channels of the image: instance norm removes them."""
    torch.manual_seed(0)
    G, x = GeneratorResNet(5, 2, 4).apply(weights_init_normal), image()
    with torch.no_grad():
        one, other = (G(torch.cat((x, torch.full((1, 2, 64, 64), v)), 1)) for v in (-1.0, 2.0))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_noise_is_drawn_in_train_mode_only():
    G, x = generator(noise_channels=4), image(2)
    with torch.no_grad():
        torch.manual_seed(3)
        one, other = G(x), G(x)
        torch.manual_seed(3)
        z = torch.randn(2, 4)
        assert not torch.equal(one, other) and torch.equal(one, G(x, noise=z))
        for i in range(2):  # each image has its own
            torch.testing.assert_close(one[i : i + 1], G(x[i : i + 1], noise=z[i : i + 1]), atol=1e-5, rtol=1e-4)
        G.eval()
        before = torch.get_rng_state()
        assert torch.equal(G(x), G(x)) and torch.equal(torch.get_rng_state(), before)
        with with_noise(G, z[:1]):
            fixed = G(x)
        torch.testing.assert_close(fixed, G(x, noise=z[:1].expand(2, -1)))
        assert not torch.equal(G(x), fixed)


@pytest.mark.parametrize(
    "chosen",
    [{"generator": "unet", "num_downs": 4}, {"generator": "multiscale"}, {"generator": "pretrained"}, {"norm": "batch"},
     {"separable": True, "attention": True, "upsample": "nearest"}],
)  # fmt: skip
def test_noise_reaches_every_architecture(chosen):
    G, x = generator(noise_channels=2, **chosen), image(2)
    z = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    y = G(x, noise=z)
    assert y.shape == x.shape and (y - G(x, noise=-z)).abs().mean() > 1e-3
    y.square().mean().backward()
    modulations = [part for part in G.modules() if isinstance(part, Modulation)]
    assert modulations and all(part.linear.weight.grad.abs().sum() > 0 for part in modulations)


def test_checkpointed_activations_are_computed_again_with_the_same_noise():
    gradients = []
    for checkpointed in (False, True):
        G = generator(noise_channels=2, checkpoint_activations=checkpointed)
        assert (type(G) is GeneratorResNet) != checkpointed
        torch.manual_seed(1)
        (G(image()).square().mean() + G(image(seed=1)).square().mean()).backward()  # the second has other noise
        gradients.append([p.grad for name, p in G.named_parameters() if name.endswith("weight")])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)
    assert max(g.abs().max() for g in gradients[0]) > 1e-4


def test_bands_give_the_same_with_noise():
    G, x, z = generator(noise_channels=2).eval(), image(1, 160, 48), torch.ones(1, 2)
    assert goes_in_bands(G)
    with torch.no_grad(), with_noise(G, z):
        assert goes_in_bands(G)
        torch.testing.assert_close(translate_in_bands(G, x, 48 * 64), G(x), atol=2e-5, rtol=1e-3)
        assert (translate_in_bands(G, x, 48 * 64) - G(x, noise=-z)).abs().mean() > 1e-3


def test_a_compiled_generator_draws_the_same():
    G = generator(noise_channels=2)
    compiled = copy.deepcopy(G)
    compiled.compile(backend="eager")
    for train in (True, False):
        results = []
        for network in (G.train(train), compiled.train(train)):
            torch.manual_seed(1)
            with torch.no_grad():
                results.append(network(image(2)))
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_bfloat16_weights_and_autocast_stay_near():
    G, x, z = generator(noise_channels=2).eval(), image(), torch.ones(1, 2)
    with torch.no_grad():
        expected = G(x, noise=z)
        low = copy.deepcopy(G).bfloat16()(x.bfloat16(), noise=z)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = G(x, noise=z)
    assert low.dtype == torch.bfloat16
    for other in (low, mixed):
        assert (other.float() - expected).abs().mean() < 0.02


# ----- the loss


class Adds(nn.Module):
    """A generator that adds `gain` times the mean of its noise."""

    noise_channels = 2

    def __init__(self, gain):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x, noise):
        return x + self.gain * noise[:, :1, None, None]


@pytest.mark.parametrize("gain, expected", [(0.0, 1.0), (0.3, 0.4), (0.7, 0.0)])
def test_diversity_at_known_distances(gain, expected):
    """|G(x, z1) - G(x, z2)| / |z1 - z2| = gain, with one channel of noise; the loss is the bound minus that."""
    G = Adds(gain)
    G.noise_channels = 1
    torch.manual_seed(0)
    loss = diversity_loss(G, image(4))
    assert DIVERSITY_BOUND == 0.5 and loss.item() == pytest.approx(0.5 * expected, abs=1e-5)
    loss.backward()
    assert G.gain.grad.item() == pytest.approx(-1.0 if 0 < gain < 0.5 else 0.0, abs=1e-4)


def test_diversity_divides_by_the_mean_distance_of_the_noise():
    torch.manual_seed(0)
    loss = diversity_loss(Adds(0.1), image(3))
    torch.manual_seed(0)
    z = torch.randn(6, 2)
    ratios = 0.1 * (z[:3, 0] - z[3:, 0]).abs() / (z[:3] - z[3:]).abs().mean(1)
    assert loss.item() == pytest.approx((0.5 - ratios).mean().item(), abs=1e-5)


def test_diversity_of_dropout_masks():
    """Of 0.2 the masks make 0 or 0.4; half of the pixels differ, by 0.4."""
    torch.manual_seed(0)
    assert diversity_loss(nn.Dropout(0.5), torch.full((8, 3, 64, 64), 0.2)).item() == pytest.approx(0.3, abs=0.003)
    assert diversity_loss(nn.Dropout(0.0), image(2)).item() == 0.5


def test_diversity_keeps_the_statistics_of_batch_norm():
    G = generator(noise_channels=2, norm="batch")
    before = {key: value.clone() for key, value in G.state_dict().items() if "running" in key}
    diversity_loss(G, image(2))
    assert before and all(torch.equal(value, G.state_dict()[key]) for key, value in before.items())


def test_diversity_is_of_both_generators_and_their_own_inputs():
    opt = options("--noise_channels", "2", "--lambda_diversity", "1")
    gan, _ = build(opt, amp=False)
    a, b = image(2, 32, 32), image(2, 32, 32, seed=1)
    torch.manual_seed(5)
    found = losses.extra_losses(opt, gan, a, b, a, b, None, None)["diversity"]
    torch.manual_seed(5)
    expected = (diversity_loss(gan.G_BA, b) + diversity_loss(gan.G_AB, a)) / 2
    torch.testing.assert_close(found, expected)


def test_training_with_the_loss_makes_translations_differ():
    G, x = generator(noise_channels=2), image(2)
    optimizer, values = torch.optim.Adam(G.parameters(), 0.01), []
    for _ in range(40):
        loss = diversity_loss(G, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


# ----- options and files


def test_options_that_do_not_fit():
    for argv, message in (
        (["--lambda_diversity", "1"], "--lambda_diversity: needs --noise_channels or --dropout"),
        (["--noise_channels", "2", "--norm", "none"], "--noise_channels: enters after each normalisation"),
    ):
        with pytest.raises(InputError, match=message):
            options(*argv)
    options("--lambda_diversity", "1", "--dropout")


def test_files_hold_the_options(tmp_path):
    opt = options("--noise_channels", "3")
    gan, _ = build(opt)
    state = dict(options=vars(opt), G_AB=gan.G_AB.state_dict())
    assert not is_papers(vars(opt)) and is_papers(vars(options()))
    alone, path = generator_file(state, "AB"), str(tmp_path / "G_AB_7.pth")
    assert alone == described_generator(state, "AB") and alone["generator"]["noise_channels"] == 3
    torch.save(alone, path)
    trained = load_generator(path)
    line = "0.01 M parameters, 1 residual block, noise_channels 3, A -> B, epoch 7"
    assert describe(trained) == f"{path}: {line}"
    x, z = image(1, 32, 32), torch.ones(1, 3)
    with torch.no_grad():
        assert torch.equal(trained.network(x, noise=z), gan.G_AB.eval()(x, noise=z))
    for value, message in ((2, "damaged, or its generator is not"), (-1, "damaged, its option noise_channels is -1")):
        torch.save(alone | {"generator": alone["generator"] | {"noise_channels": value}}, path)
        with pytest.raises(InputError, match=message) as error:
            load_generator(path)
        assert "\n" not in str(error.value)


def test_a_hook_without_modulations_draws_nothing_in_eval_mode():
    layer = nn.Sequential(nn.Conv2d(3, 3, 1))
    use_noise(layer, 2)
    assert torch.equal(layer.eval()(image()), layer[0](image()))
