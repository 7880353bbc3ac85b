"""Each extra loss does what it is for, and one with weight 0 costs nothing."""

import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from helpers import build
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.transforms.functional import gaussian_blur

import cyclegan
from models import Discriminator, weights_init_normal
from utils import InputError
from variants import adversarial, augment, distances, losses
from variants.build import make_discriminator
from variants.discriminators import DiscriminatorMultiscale
from variants.losses import EXTRA_LOSSES
from variants.weights import load_encoders


def picture(n=2, size=64, seed=0):
    """Something with edges, patches and a little noise, (n, 3, size, size) in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, size // 8, size // 8, generator=g)
    noise = torch.rand(n, 3, size, size, generator=g)
    return (torch.nn.functional.interpolate(coarse, size) * 0.8 + noise * 0.2) * 2 - 1


def test_ssim_is_the_known_one():
    x, y = picture(), (picture() + 0.2 * torch.randn(2, 3, 64, 64)).clamp(-1, 1)
    assert distances.ssim(x, x) == pytest.approx(1, abs=1e-6)
    assert distances.ssim(x, -x) < 0
    # theirs looks beyond the border, by reflection, so it is held against in the middle
    theirs = structural_similarity_index_measure(
        (x + 1) / 2, (y + 1) / 2, data_range=1.0, reduction="none", return_full_image=True
    )[1]
    assert distances.ssim(x, y).item() == pytest.approx(theirs[..., 5:-5, 5:-5].mean().item(), abs=2e-4)


def test_the_gradient_of_the_ssim_loss_raises_ssim():
    x, y = picture(), gaussian_blur(picture(), 5).requires_grad_()
    before = distances.ssim(y, x)
    (gradient,) = torch.autograd.grad(1 - before, y)
    assert distances.ssim(y - 0.1 * gradient / gradient.norm(), x) > before + 1e-4


def test_the_frequency_loss_sees_a_blur_that_l1_hardly_sees():
    x = picture()
    blurred = gaussian_blur(x, 5, 1.0)
    brighter = x + (blurred - x).abs().mean()  # as far away by L1
    by_l1 = [(y - x).abs().mean() for y in (blurred, brighter)]
    by_frequency = [distances.frequency_distance(y, x) for y in (blurred, brighter)]
    assert by_l1[0] == pytest.approx(by_l1[1].item(), rel=1e-4)
    assert by_frequency[0] > 10 * by_frequency[1]
    assert distances.frequency_distance(x, x) == 0
    assert distances.frequency_distance(torch.roll(x, (3, 5), (2, 3)), x) < 1e-5  # amplitudes are where things are not


def test_known_values_of_frequencies_and_gram_matrices():
    x, y = picture(1), picture(1, seed=1)
    spectra = [np.abs(np.fft.fft2(z.numpy(), norm="ortho")) for z in (x, y)]
    assert distances.frequency_distance(x, y).item() == pytest.approx(np.abs(spectra[0] - spectra[1]).mean(), rel=1e-4)
    expected = torch.einsum("nihw,njhw->nij", x, x) / 64**2
    torch.testing.assert_close(distances.gram(x), expected)
    distance = distances.style_distance(lambda z: [z, 2 * z], x, y)
    apart = (distances.gram(x) - distances.gram(y)).square().mean()
    assert distance.item() == pytest.approx((apart + 16 * apart).item() / 2, rel=1e-4)


def test_each_direction_by_its_own_discriminator_and_no_gradient_into_real_images():
    opt = options("--lambda_feat", "1", "--lambda_style", "1")
    gan, _ = build(opt, amp=False)
    a, b, fake_a, fake_b = (picture(1, 32, seed).requires_grad_() for seed in range(4))
    extra = losses.extra_losses(opt, gan, a, b, fake_a, fake_b, None, None)
    see = {d: distances.hidden_layers(getattr(gan, "D_" + d)) for d in "AB"}
    expected = distances.mean_feature_distance(see["A"], fake_a, a) + distances.mean_feature_distance(
        see["B"], fake_b, b
    )
    assert extra["feat"].item() == pytest.approx(expected.item() / 2, rel=1e-5)
    sum(extra.values()).backward()
    assert a.grad is None and b.grad is None and fake_a.grad.abs().sum() > 0 and fake_b.grad.abs().sum() > 0


def test_a_multiscale_discriminator_is_asked_at_the_scales_that_it_knows():
    D, x, inputs = make_discriminator({"discriminator": "multiscale", "ndf": 4}, 3), picture(1, 128), []
    for scale in D.scales:
        scale.model[0].register_forward_hook(lambda layer, images, output: inputs.append(images[0]))
    D(x)
    distances.hidden_layers(D)(x)
    assert [len(z[0][0]) for z in inputs] == [128, 64, 32] * 2
    assert all(torch.equal(one, other) for one, other in zip(inputs[:3], inputs[3:]))


def test_features_are_of_augmented_images_if_d_knows_only_those():
    opt = options("--lambda_feat", "1", "--diffaugment")
    gan, _ = build(opt, amp=False)
    images = [picture(1, 32, seed) for seed in range(4)]
    values = [losses.extra_losses(opt, gan, *images, None, None)["feat"].item() for _ in range(2)]
    assert values[0] != values[1]


def test_feature_matching_uses_the_layers_of_d():
    torch.manual_seed(0)
    D, x, y = Discriminator(ndf=4).apply(weights_init_normal), picture(), picture(seed=1)
    seen = distances.hidden_layers(D)(x)
    assert [tuple(s.shape[1:3]) for s in seen] == [(4, 32), (8, 16), (16, 8), (32, 7)]
    torch.testing.assert_close(seen[0], torch.nn.functional.leaky_relu(D.model[0](x), 0.2))
    distance = distances.mean_feature_distance(distances.hidden_layers(D), x, y)
    means = [[f.mean((0, 2, 3)) for f in distances.hidden_layers(D)(z)] for z in (x, y)]
    assert distance.item() == pytest.approx(sum((a - b).abs().mean().item() for a, b in zip(*means)) / 4, rel=1e-5)
    assert distances.mean_feature_distance(distances.hidden_layers(D), x, x) == 0
    D.model[2].weight.data.mul_(3)
    assert distances.mean_feature_distance(distances.hidden_layers(D), x, y) != distance
    assert len(distances.hidden_layers(DiscriminatorMultiscale(3, 4, 2))(x)) == 8


def test_style_does_not_care_where_things_are_but_how_they_look():
    torch.manual_seed(0)
    see = distances.hidden_layers(Discriminator(ndf=8).apply(weights_init_normal))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    stripes = torch.linspace(-40, 40, 64).sin().expand(1, 3, 64, 64)
    moved = distances.style_distance(see, torch.roll(x, (16, 16), (2, 3)), x)
    assert distances.style_distance(see, x, x) == 0
    assert distances.style_distance(see, stripes.contiguous(), x) > 10 * moved


def test_paired_counts_pairs_only():
    fake, real = torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)
    assert distances.paired_distance(fake, real, torch.tensor([1.0, 0, 0, 0])) == 0.25
    assert distances.paired_distance(fake, real, torch.zeros(4)) == 0


@pytest.mark.slow
def test_perceptual_is_vgg_from_a_file(tmp_path):
    torch.manual_seed(0)
    vgg = torchvision.models.vgg16().eval()
    path = str(tmp_path / "vgg.pth")
    torch.save(vgg.state_dict(), path)
    see, x = distances.load_vgg(path, torch.device("cpu")), picture(1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        torch.testing.assert_close(see(x)[-1], vgg.features[:16](((x + 1) / 2 - mean) / std))
    assert distances.feature_distance(see, x, x) == 0 < distances.feature_distance(see, gaussian_blur(x, 5), x)
    assert see(picture()[:, :1])[0].shape[1] == 64  # gray
    torch.save({"features.0.weight": torch.zeros(3)}, path + "x")
    with pytest.raises(InputError, match="--vgg_weights .*vgg.pthx: not a state dict of torchvision's vgg16"):
        distances.load_vgg(path + "x", torch.device("cpu"))


@pytest.mark.slow
def test_weights_that_cannot_be_downloaded_are_one_line(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for argv, flag in (
        (["--lambda_perceptual", "1"], "--vgg_weights"),
        (["--generator", "pretrained", "--img_height", "64", "--img_width", "64"], "--encoder_weights"),
    ):
        with pytest.raises(InputError, match=f"(vgg16|resnet18).*cannot be downloaded .*pass it as {flag}"):
            gan, _ = build(options(*argv))
            load_encoders([gan.G_AB], None)


def test_adversarial_losses_at_known_scores():
    scores = torch.tensor([-2.0, 0.5, 2.0])
    bce = torch.nn.functional.binary_cross_entropy
    real, fake = scores, -scores

    def cross_entropy(x, label):
        return bce(x.sigmoid(), torch.full((3,), label)).item()

    vanilla, hinge = adversarial.Vanilla(real=0.9), adversarial.Hinge()
    assert vanilla.generator_loss(scores).item() == pytest.approx(cross_entropy(scores, 1.0), rel=1e-5)
    expected = (cross_entropy(real, 0.9) + cross_entropy(fake, 0.0)) / 2
    assert vanilla.discriminator_loss(real, fake).item() == pytest.approx(expected, rel=1e-5)
    assert hinge.discriminator_loss(scores, fake * 9 - 100).item() == pytest.approx((3 + 0.5 + 0) / 3 / 2)
    assert hinge.discriminator_loss(scores + 100, scores).item() == pytest.approx((0 + 1.5 + 3) / 3 / 2)
    assert hinge.generator_loss(scores).item() == pytest.approx(-0.5 / 3)
    for criterion in (cyclegan.MSE(), vanilla, hinge):
        s = torch.zeros(3, requires_grad=True)
        criterion.generator_loss(s).backward()
        assert (s.grad < 0).all()  # a generator always wants higher scores, as long as they are not reached


def options(*argv):
    small = "--dataset_name x --img_height 32 --img_width 32 --n_residual_blocks 1 --ngf 4 --ndf 4"
    return cyclegan.get_options([*small.split(), *argv])[0]


@pytest.mark.parametrize("name", [n for n in EXTRA_LOSSES if n != "perceptual"])
def test_a_weight_counts_and_0_costs_nothing(name, monkeypatch):
    a, b, paired = picture(1, 32), picture(1, 32, seed=1), torch.ones(1)
    results = {}
    for weight in ("0", "2", "4"):
        opt = options(f"--lambda_{name}", weight, *(["--noise_channels", "2"] if name == "diversity" else []))
        gan, _ = build(opt, amp=False)
        for D in (gan.D_A, gan.D_B):
            torch.nn.init.constant_(D.model[-1].bias, 0.5)  # cycfeat: D finds the images half real
        results[weight] = {k: v.item() for k, v in cyclegan.train_step(gan, opt, a, b, paired).items()}
    assert len(results["0"]) == 5 and results["2"].keys() - results["0"].keys() == {f"loss_{name}"}
    value = results["2"][f"loss_{name}"]
    assert value > 0 and results["4"][f"loss_{name}"] == pytest.approx(value)
    if name == "nce":  # its own networks are drawn first, so that the others begin with other weights
        results["0"]["loss_G"] = results["2"]["loss_G"] - 2 * value
    assert results["2"]["loss_G"] == pytest.approx(results["0"]["loss_G"] + 2 * value, rel=1e-5)
    assert results["4"]["loss_G"] == pytest.approx(results["0"]["loss_G"] + 4 * value, rel=1e-5)

    def never(*_):
        raise AssertionError("computed")

    for function in ("ssim", "frequency_distance", "style_distance", "mean_feature_distance", "paired_distance",
                     "diversity_loss"):  # fmt: skip
        monkeypatch.setattr(distances, function, never)
    opt = options()
    cyclegan.train_step(build(opt)[0], opt, a, b, paired)


def test_label_smoothing_lowers_what_real_images_are_to_get():
    D, real, fake = make_discriminator({"ndf": 4}, 3), picture(1, 32), picture(1, 32, seed=1)
    with torch.no_grad():
        scores_real, scores_fake = D(real), D(fake)
        criterion = build(options("--label_smoothing", "0.2"))[0].criterion_GAN
        loss = criterion.discriminator_loss(scores_real, scores_fake)
    expected = (((scores_real - 0.8) ** 2).mean() + (scores_fake**2).mean()) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_each_cycle_can_have_its_own_weight_as_in_the_authors_code():
    """Theirs: lambda_A |F(G(a)) - a| + lambda_B |G(F(b)) - b| + 0.5 (lambda_A |F(a) - a| + lambda_B |G(b) - b|). Here all
    losses of the generators are divided by two."""
    batch = picture(2, 32), picture(2, 32, seed=1)
    found = {}
    for weights in ((), ("--lambda_A", "20", "--lambda_B", "4"), ("--lambda_A", "10", "--lambda_B", "10")):
        opt = options("--lambda_cyc", "10", "--lambda_id", "5", *weights)
        gan, _ = build(opt)
        G_AB, G_BA, D_A, D_B = gan.networks().values()
        with torch.no_grad():
            fake_B, fake_A = G_AB(batch[0]), G_BA(batch[1])
            cycle_A, cycle_B = (G_BA(fake_B) - batch[0]).abs().mean(), (G_AB(fake_A) - batch[1]).abs().mean()
            same_A, same_B = (G_BA(batch[0]) - batch[0]).abs().mean(), (G_AB(batch[1]) - batch[1]).abs().mean()
            adversarial = ((D_B(fake_B) - 1) ** 2).mean() + ((D_A(fake_A) - 1) ** 2).mean()
        a, b = (20, 4) if "20" in weights else (10, 10)
        authors = adversarial + a * cycle_A + b * cycle_B + 0.5 * (a * same_A + b * same_B)
        losses = cyclegan.train_step(gan, opt, *batch)
        assert losses["loss_G"].item() == pytest.approx(authors.item() / 2, rel=1e-5)
        found[weights] = losses["loss_G"].item()
    assert found[()] == pytest.approx(found["--lambda_A", "10", "--lambda_B", "10"], rel=1e-6)
    with pytest.raises(InputError, match="--lambda_A --lambda_B: need --lambda_cyc above 0"):
        options("--lambda_cyc", "0", "--lambda_A", "1")


def test_without_any_cycle_the_identity_loss_is_a_plain_mean():
    opt = options("--lambda_cyc", "0", "--lambda_A", "0", "--lambda_B", "0")
    assert losses.mean_loss(opt, torch.tensor(1.0), torch.tensor(4.0)) == 2.5


# ----- augmentation


def test_diffaugment_changes_all_alike_and_lets_gradients_through():
    torch.manual_seed(0)
    x = picture(64, 32).requires_grad_()
    y = augment.diff_augment(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    zeros = (y == 0).all(1).float().mean((1, 2))
    assert 0.05 < zeros.min() and 0.15 < zeros.mean() < 0.5  # the hole, and what was shifted in
    assert x.grad.abs().sum((1, 2, 3)).min() > 0
    shifted = augment.diff_augment(torch.ones(2048, 1, 32, 32)) == 0
    assert 0.2 < shifted[:, :, 0].float().mean()
    assert shifted[:, :, 8, 16].float().mean() < 0.32  # by an eighth, nothing is shifted in there; the hole: a quarter
    # saturation: colours differ from gray by 0 to 2 times what they did, contrast alone would be 0.5 to 1.5
    x = torch.tensor([0.3, -0.3, 0.0]).view(1, 3, 1, 1).expand(256, 3, 32, 32)
    y = augment.diff_augment(x)
    chroma = (y[:, 0] - y[:, 1]).flatten(1).abs().amax(1) / 0.6
    assert chroma.min() < 0.3 and chroma.max() > 1.8


def test_diffaugment_is_for_discriminators_in_training():
    gan, _ = build(options("--diffaugment"))
    D, x = gan.D_A, picture(1, 32)
    assert not torch.equal(D(x), D(x))
    D.eval()
    assert torch.equal(D(x), D(x))


def test_rotation_turns_around_the_middle_and_leaves_no_corner_empty():
    image = torch.full((33, 33, 3), 200, dtype=torch.uint8)
    image[10:23, 16] = 0  # a line from top to bottom
    turned = augment.rotated(image, 90.0)
    assert (
        turned.shape == image.shape
        and (turned[16, 11:22] < 60).all()
        and (turned[11:15, 16] > 150).all()
        and (turned[5:28, 5] > 150).all()
    )
    long = torch.full((16, 96, 3), 200, dtype=torch.uint8)
    assert all((augment.rotated(long, angle) > 150).all() for angle in (30.0, 75.0, 90.0, 160.0))
    assert augment.rotated(image, 30.0).min() >= 0 and (augment.rotated(image, 30.0)[0, 0] > 150).all()


def test_colour_jitter_changes_what_it_says():
    x = picture(1)[0] * 0.5
    torch.testing.assert_close(augment.jittered(x, [1, 1, 1]), x, atol=1e-5, rtol=0)
    assert augment.jittered(x, [0.8, 1, 1]).mean() < x.mean() and augment.jittered(x, [1, 0.5, 1]).std() < x.std()
    gray = augment.jittered(x, [1, 1, 0])
    assert (gray - gray.mean(0)).abs().max() < 1e-5
    assert augment.jittered(x[:2], [1.1, 1, 0]).shape == (2, 64, 64)
