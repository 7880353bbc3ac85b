"""Gradient penalties, weights that fall, noise in the cycle, contrastive losses, and parts of networks: known answers."""

import math

import pytest
import torch
from helpers import build
from torch import nn

import cyclegan
from inference.bands import goes_in_bands, translate_in_bands
from inference.features import feature_maps
from training.update import Update
from utils import InputError
from variants import distances, parts
from variants.build import make_discriminator, make_generator, weights_of
from variants.losses import noisy, penalty
from variants.regularisation import gradient_penalty


def options(*argv):
    small = "--dataset_name x --img_height 32 --img_width 32 --n_residual_blocks 2 --ngf 4 --ndf 4 --pool_size 3"
    return cyclegan.get_options([*small.split(), *argv])[0]


def pictures(n=1, seed=0, channels=3, side=32):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ----- gradient penalty


class Half(nn.Module):
    """Scores each pixel with half of its square, so that the gradient of the mean score is x / number of pixels."""

    def forward(self, x):
        return x.square() / 2


def test_the_penalty_is_the_squared_norm_of_the_gradient_of_the_mean_score():
    linear = nn.Conv2d(1, 1, 1)
    nn.init.constant_(linear.weight, 3.0)
    real, fake = pictures(2, channels=1, side=8), pictures(2, seed=1, channels=1, side=8)
    for at in ("real", "mix"):  # each of 64 pixels has the gradient 3 / 64, wherever it is asked
        assert gradient_penalty(linear, real, fake, at).item() == pytest.approx(64 * (3 / 64) ** 2)
    expected = (real / 64).square().sum((1, 2, 3)).mean()
    assert gradient_penalty(Half(), real, fake).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_mix_is_between_the_images_and_differs_for_each():
    torch.manual_seed(0)
    seen = []

    class Watched(Half):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    gradient_penalty(Watched(), torch.ones(50, 1, 4, 4), -torch.ones(50, 1, 4, 4), "mix")
    shares = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], shares.view(-1, 1, 1, 1).expand(50, 1, 4, 4))
    assert len(set(shares.tolist())) == 50 and shares.min() < -0.8 and shares.max() > 0.8 and abs(shares.mean()) < 0.3


def test_a_mix_of_images_of_other_precision_or_number():
    """Translations are bfloat16 under autocast, and with --ratio_A there are more or fewer of them."""
    linear = nn.Conv2d(1, 1, 1)
    nn.init.constant_(linear.weight, 3.0)
    real, fake = pictures(4, channels=1, side=8), pictures(4, seed=1, channels=1, side=8)
    for a, b in ((real, fake.bfloat16()), (real, fake[:2]), (real[:3], fake)):
        assert gradient_penalty(linear, a, b, "mix").item() == pytest.approx(64 * (3 / 64) ** 2)


@pytest.mark.parametrize("words", ["--recipe uvcgan", "--lambda_gp 1 --gp_at mix --batch_size 4 --ratio_A 0.5"])
def test_a_step_with_a_mix_runs_in_bfloat16(words):
    opt = options(*words.split())
    gan, _ = build(opt, amp=True)
    n_A = 1 if opt.batch_size == 1 else 2
    losses = cyclegan.train_step(gan, opt, pictures(n_A), pictures(opt.batch_size, seed=1))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for D in (gan.D_A, gan.D_B) for p in D.parameters())


def test_the_penalty_is_added_to_what_each_discriminator_learns_from():
    a, b = pictures(), pictures(seed=1)
    losses, gradients = {}, {}
    for weight in ("0", "1", "2"):
        opt = options("--lambda_gp", weight)
        gan, _ = build(opt, amp=False)
        losses[weight] = cyclegan.train_step(gan, opt, a, b)
        gradients[weight] = [D.model[0].weight.grad.clone() for D in (gan.D_A, gan.D_B)]
    gan, _ = build(options(), amp=False)
    for i, (D, real) in enumerate(((gan.D_A, a), (gan.D_B, b))):
        (change,) = torch.autograd.grad(gradient_penalty(D, real, None), D.model[0].weight)
        assert change.abs().max() > 1e-4
        for weight in ("1", "2"):
            torch.testing.assert_close(
                gradients[weight][i] - gradients["0"][i], int(weight) * change, rtol=1e-3, atol=1e-6
            )
    assert losses["0"] == losses["1"] == losses["2"]  # what is logged stays comparable


def test_training_against_the_penalty_makes_d_flatter():
    steepness = {}
    for weight in ("0", "20"):
        opt = options("--lambda_gp", weight, "--lr_D", "0.002")
        gan, _ = build(opt, amp=False)
        for i in range(30):
            cyclegan.train_step(gan, opt, pictures(seed=2 * i), pictures(seed=2 * i + 1))
        steepness[weight] = gradient_penalty(gan.D_A, pictures(8, seed=100), None).item()
    assert steepness["20"] < 0.3 * steepness["0"]


def test_the_penalty_sees_all_scales_and_costs_nothing_if_off():
    D = make_discriminator({"discriminator": "multiscale", "n_scales": 2, "ndf": 4}, 3)
    assert gradient_penalty(D, pictures(side=64), None).item() > 0
    assert penalty(options(), None, None, None) == 0  # D is not asked


# ----- the weight of the cycle


def test_the_weight_falls_along_a_line():
    opt = options("--lambda_cyc_end", "2", "--n_iters", "5")
    gan, run = build(opt, steps_per_epoch=5)
    used = []

    def step(gan, opt, real_A, real_B):
        used.append(opt.lambda_cyc.item())
        return cyclegan.train_step(gan, opt, real_A, real_B)

    update = Update(step, gan, opt, run)
    values = [update(pictures(), pictures(seed=1)).tolist() for _ in range(5)]
    losses = [dict(zip(run.loss_names, row)) for row in values]
    assert used == [10, 8, 6, 4, 2] and opt.lambda_cyc == 10
    for weight, loss in zip(used, losses):
        total = loss["loss_GAN"] + weight * loss["loss_cycle"] + 5 * loss["loss_identity"]
        assert loss["loss_G"] == pytest.approx(total, rel=1e-3)
    run.step = 3  # as after --resume
    again = Update(step, gan, opt, run)
    again(pictures(), pictures(seed=1))
    assert used[-1] == 4


def test_the_weight_falls_over_all_epochs():
    opt = options("--lambda_cyc_end", "0", "--n_epochs", "3")
    gan, run = build(opt, steps_per_epoch=7)
    run.step = 10  # the middle of 0 to 20
    update = Update(cyclegan.train_step, gan, opt, run)
    update(pictures(), pictures(seed=1))
    assert update.falling_weight.weight.item() == pytest.approx(5)


# ----- noise in the cycle


def test_noise_is_what_the_way_back_gets():
    torch.manual_seed(0)
    fake = pictures(4)
    assert noisy(options(), fake) is fake
    noise = noisy(options("--cycle_noise", "0.25"), fake) - fake
    assert noise.std().item() == pytest.approx(0.25, rel=0.03) and abs(noise.mean()) < 0.01

    opt = options("--cycle_noise", "0.25")
    gan, _ = build(opt, amp=False)
    inputs = {"G_AB": [], "G_BA": []}
    for name, seen in inputs.items():
        getattr(gan, name).register_forward_pre_hook(lambda G, x, seen=seen: seen.append(x[0].detach()))
    cyclegan.train_step(gan, opt, pictures(), pictures(seed=1))
    with torch.no_grad():
        gan_again, _ = build(opt, amp=False)
        fake_B = gan_again.G_AB(pictures())
    assert (inputs["G_BA"][1] - fake_B).std().item() == pytest.approx(0.25, rel=0.1)
    assert torch.equal(inputs["G_BA"][0], torch.cat((pictures(seed=1), pictures())))  # of images there is none


# ----- contrastive and feature losses


class Bare(nn.Module):
    """A generator without layers: its features are its input."""

    stages = [], [], []

    def __init__(self):
        super().__init__()
        self.projections = nn.ModuleList([nn.Identity()])


def test_patch_nce_of_known_patches():
    positions = torch.eye(16).view(1, 16, 4, 4)  # each position has a vector of its own
    same = distances.patch_nce(Bare(), positions, 5 * positions)  # lengths do not count
    assert same.item() == pytest.approx(math.log(1 + 15 * math.exp(-1 / 0.07)), abs=1e-6)
    exchanged = distances.patch_nce(Bare(), positions, positions.roll(1, 2))
    assert exchanged.item() == pytest.approx(1 / 0.07 + math.log(1 + 15 * math.exp(-1 / 0.07)), rel=1e-5)
    blank = distances.patch_nce(Bare(), positions, torch.ones(1, 16, 4, 4))
    assert blank.item() == pytest.approx(math.log(16), rel=1e-5)
    few = distances.patch_nce(Bare(), positions, torch.ones(1, 16, 4, 4), n_patches=4)
    assert few.item() == pytest.approx(math.log(4), rel=1e-5)


def test_nce_trains_the_projections_and_leaves_them_out_of_what_is_kept():
    opt = options("--lambda_nce", "1")
    gan, _ = build(opt, amp=False)
    assert len(gan.G_AB.projections) == len(distances.encoder_features(gan.G_AB, pictures())) == 6
    before = [p.detach().clone() for p in gan.G_AB.projections.parameters()]
    losses = cyclegan.train_step(gan, opt, pictures(), pictures(seed=1))
    assert 1 < losses["loss_nce"].item() < 20
    assert all(not torch.equal(p, old) for p, old in zip(gan.G_AB.projections.parameters(), before))
    weights = weights_of({"G_AB": gan.G_AB.state_dict()}, "AB")
    assert weights.keys() == make_generator(vars(options()), 3, 3).state_dict().keys()


def test_a_gradient_of_nce_reaches_the_translation_and_not_the_source():
    G = make_generator(vars(options("--lambda_nce", "1")), 3, 3)
    source, fake = pictures().requires_grad_(), pictures(seed=1).requires_grad_()
    distances.patch_nce(G, source, fake).backward()
    assert source.grad is None or source.grad.abs().max() == 0
    assert fake.grad.abs().max() > 0


def test_nce_keeps_the_statistics_of_batch_norm():
    G = make_generator(vars(options("--lambda_nce", "1", "--norm", "batch")), 3, 3)
    before = {key: value.clone() for key, value in G.state_dict().items() if "running" in key}
    distances.patch_nce(G, pictures(2), pictures(2, seed=1))
    assert before and all(torch.equal(value, G.state_dict()[key]) for key, value in before.items())


def test_features_of_the_cycle_count_as_far_as_d_finds_the_image_real():
    D = nn.Conv2d(3, 1, 1)
    x, y = pictures(), pictures(seed=1)

    def see(x):
        return [x, 2 * x]

    plain = ((x - y).abs().mean() * 3 / 2).item()
    for score, share in ((0.25, 0.25), (-1.0, 0.0), (3.0, 1.0)):
        nn.init.zeros_(D.weight)
        nn.init.constant_(D.bias, score)
        assert distances.scored_feature_distance(see, D, x, y).item() == pytest.approx(share * plain, rel=1e-5)


def test_features_of_the_cycle_are_weighted_image_by_image():
    class Brightness(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True)

    y = torch.stack([torch.full((3, 8, 8), 0.25), torch.full((3, 8, 8), 1.0)])
    x = torch.stack([y[0] + 0.4, y[1] + 0.1])
    loss = distances.scored_feature_distance(lambda x: [x], Brightness(), x, y)
    assert loss.item() == pytest.approx((0.25 * 0.4 + 1.0 * 0.1) / 2)


# ----- parts of networks


def test_a_blur_before_the_stride_is_one_after_a_convolution_without_it():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    network = nn.Sequential(conv)
    parts.use_antialiasing(network)
    dense = nn.Conv2d(3, 5, 3, stride=1, padding=1)
    dense.load_state_dict(conv.state_dict())
    x = pictures(side=24)
    papers = parts.Blur(5)(dense(x))[:, :, ::2, ::2]  # as Zhang does
    torch.testing.assert_close(network(x)[:, :, 2:-2, 2:-2], papers[:, :, 2:-2, 2:-2], atol=1e-5, rtol=1e-4)
    assert torch.equal(parts.Blur(3)(torch.ones(1, 3, 8, 8)), torch.ones(1, 3, 8, 8))  # borders included


def test_antialiasing_makes_networks_less_sensitive_to_shifts():
    """Stripes of two pixels, shifted by one: the coarse grid sees either all of a stripe or nothing of it."""
    torch.manual_seed(0)
    stripes = (torch.arange(64) % 2).float().mul(2).sub(1).expand(1, 3, 64, 64)
    for make in (make_generator, make_discriminator):
        change = {}
        for antialias in (False, True):
            torch.manual_seed(1)
            arguments = (3, 3) if make is make_generator else (3,)
            network = make({"ngf": 8, "ndf": 8, "n_residual_blocks": 1, "antialias": antialias}, *arguments)
            first = next(i for i, part in enumerate(network.model) if stride_of(part) == 2)
            inner = network.model[: first + 1] if make is make_discriminator else network.model[first : first + 1]
            x = stripes[:, :1].expand(1, first_channels(inner), 64, 64)
            with torch.no_grad():
                one, other = inner(x), inner(x.roll(1, 3))
            change[antialias] = (one - other)[..., 2:-2].abs().mean().item()
        assert change[True] < 0.01 * change[False], make.__name__


def stride_of(part):
    return max([m.stride[0] for m in part.modules() if isinstance(m, nn.Conv2d)], default=1)


def first_channels(network):
    return next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.groups == 1)


def test_a_residual_generator_starts_near_its_input_and_reaches_every_value():
    torch.manual_seed(0)
    for kind in ({"generator": "resnet"}, {"generator": "unet", "num_downs": 3}):
        G = make_generator({"ngf": 8, "n_residual_blocks": 1, "residual": True, **kind}, 3, 3)
        G.apply(cyclegan.weights_init_normal)
        x = pictures(side=32)
        with torch.no_grad():
            assert (G(x) - x).abs().mean() < 0.2
            last = [m for m in G.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            assert torch.equal(G(x), x)
            nn.init.constant_(last.bias, 100.0)
            assert (G(-torch.ones_like(x)) - 1).abs().max() < 1e-5  # from black to white


@torch.no_grad()
def test_the_output_of_a_residual_generator_is_clipped_in_sheets_of_features():
    G = make_generator({"ngf": 4, "n_residual_blocks": 1, "residual": True}, 3, 3).eval()
    last = [m for m in G.modules() if isinstance(m, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, 100.0)
    white = torch.ones(1, 3, 32, 32)
    assert G(white).min() > 2.9
    name, output = feature_maps(G, white)[-1]
    assert name == "output" and output.min() == 255


@pytest.mark.parametrize("variant", ["antialias", "residual"])
@torch.no_grad()
def test_bands_are_the_whole(variant):
    torch.manual_seed(0)
    G = make_generator({"ngf": 8, "n_residual_blocks": 2, variant: True}, 3, 3).eval()
    x = torch.rand(1, 3, 260, 40) * 2 - 1
    assert goes_in_bands(G)
    assert (translate_in_bands(G, x, 1) - G(x)).abs().max() < 1e-4


def test_the_deviation_of_a_batch_is_the_mean_over_channels_and_positions():
    x = torch.stack([torch.full((2, 3, 3), -1.0), torch.full((2, 3, 3), 1.0)])
    x[1, 1] = -1.0  # the second channel does not vary
    y = parts.BatchDeviation()(x)
    assert torch.equal(y[:, :2], x) and y.shape == (2, 3, 3, 3)
    assert y[:, 2].unique().tolist() == pytest.approx([(1 + 0.001) / 2], abs=1e-4)


@pytest.mark.parametrize("kind", [{}, {"discriminator": "multiscale", "n_scales": 2}])
def test_real_images_and_translations_have_deviations_of_their_own(kind):
    D = make_discriminator({"ndf": 4, "batch_deviation": True, **kind}, 3)
    real, fake = pictures(2, side=64), pictures(1, seed=1, side=64).expand(2, 3, 64, 64)
    with torch.no_grad():
        found = cyclegan.in_one_pass(D, real, fake)
        for scores, images in zip(found, (real, fake)):
            assert torch.equal(scores, D(images))
        together = D(torch.cat((real, fake)))
    assert (together[:2] - found[0]).abs().max() > 1e-4


# ----- options


@pytest.mark.parametrize(
    "words, message",
    [
        ("--lambda_cyc_end 1 --lambda_A 5", "--lambda_cyc_end: cannot be used with --lambda_A and --lambda_B"),
        ("--lambda_cyc_end 1 --lambda_cyc 0", "--lambda_cyc_end: needs --lambda_cyc above 0"),
        ("--lambda_gp 1 --compile", "--lambda_gp: differentiates twice, which --compile does not support"),
        ("--lambda_nce 1 --generator unet --num_downs 4", "--lambda_nce: needs --generator resnet"),
        ("--lambda_nce 1 --noise_channels 4", "--lambda_nce --noise_channels: cannot be used together"),
        ("--lambda_nce 1 --channels_A 1", "--lambda_nce: images of A and B must have the same number of channels"),
        ("--batch_deviation --batch_size 4 --ratio_A 0.5", "--ratio_A --batch_deviation: .* depends on its size"),
        ("--lambda_cycfeat 1 --gan_loss hinge", "--lambda_cycfeat: takes scores from 0 to 1 as weights"),
        ("--residual --channels_A 1", "--residual: images of A and B must have the same number of channels"),
        ("--batch_deviation", "--batch_deviation: a single image does not vary; use --batch_size 2 or more"),
        ("--batch_deviation --batch_size 2 --discriminator pixel", "not available with --discriminator pixel"),
        ("--antialias --generator pretrained --img_height 64 --img_width 64", "--antialias: not available with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        options(*words.split())
