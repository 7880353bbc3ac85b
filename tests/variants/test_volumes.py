"""Networks, losses and options of --dims 3 and --slices."""

import argparse

import pytest
import torch
from torch import nn

import cyclegan
from models import GeneratorResNet, in_one_pass, weights_init_normal
from utils import InputError, ReplayBuffer
from variants import augment, distances, regularisation
from variants.build import channels_of, is_papers, make_discriminator, make_generator
from variants.options import check
from variants.volumes import by_slices, use_3d


def pair(make, options, *channels):
    """The same network in 2-D and in 3-D. Of each kernel of the latter only the slice in the middle is not 0; where a
    transposed convolution has stride 2, the next one too. Volumes of equal slices are then translated as their slices."""
    torch.manual_seed(0)
    flat, deep = (make(options | {"dims": dims}, *channels).eval() for dims in (2, 3))
    weights, solid = flat.state_dict(), deep.state_dict()
    assert weights.keys() == solid.keys()
    transposed = {f"{name}.weight" for name, part in deep.named_modules() if isinstance(part, nn.ConvTranspose3d)}
    for name, value in weights.items():
        if solid[name].ndim == 5:
            solid[name].zero_()
            middle = (solid[name].shape[2] - 1) // 2
            solid[name][:, :, middle] = value
            if name in transposed:
                solid[name][:, :, middle + 1] = value
        else:
            solid[name].copy_(value)
    return flat, deep


GENERATORS = [
    {}, {"upsample": "nearest"}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "none"}, {"separable": True},
    {"dropout": 0.5}, {"antialias": True}, {"residual": True}, {"noise_channels": 2}, {"checkpoint_activations": True},
    {"generator": "unet", "num_downs": 4}, {"generator": "multiscale"},
]  # fmt: skip


@pytest.mark.parametrize("options", GENERATORS, ids=str)
def test_generators_translate_a_volume_of_equal_slices_as_each_slice(options):
    flat, deep = pair(make_generator, dict(n_residual_blocks=1, ngf=4) | options, 1, 1)
    size = 64 if options.get("generator") == "multiscale" else 32
    x = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected, found = flat(x), deep(x[:, :, None].expand(-1, -1, 16, -1, -1))
    assert found.shape == (2, 1, 16, size, size)
    assert expected.std() > 1e-3
    # the outermost slices of a transposed convolution lack a neighbour
    assert torch.allclose(found[:, :, 4:12], expected[:, :, None].expand(-1, -1, 8, -1, -1), atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"discriminator": "pixel"}, {"antialias": True}, {"norm_D": "none"}], ids=str)
def test_discriminators_score_a_volume_of_equal_slices_as_each_slice(options):
    flat, deep = pair(make_discriminator, dict(ndf=4, norm_D="none") | options, 1)
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected, found = flat(x), deep(x[:, :, None].expand(-1, -1, 48, -1, -1))
    assert found.shape[3:] == expected.shape[2:]
    middle = found[:, :, found.shape[2] // 2]
    assert torch.allclose(middle, expected, atol=1e-5) and expected.std() > 0


def test_every_layer_of_two_dimensions_is_exchanged():
    options = dict(
        ngf=4, ndf=4, n_residual_blocks=2, attention=True, antialias=True, lambda_nce=1.0, batch_deviation=True
    )
    for network in (make_generator(options | {"dims": 3}, 1, 1), make_discriminator(options | {"dims": 3}, 1)):
        left = [n for n, part in network.named_modules() if type(part).__name__.endswith("2d")]
        assert all(name.startswith("projections.") for name in left)  # which see vectors
    G = make_generator(options | {"dims": 3}, 1, 1)
    with torch.no_grad():
        assert G(torch.zeros(1, 1, 8, 12, 16)).shape == (1, 1, 8, 12, 16)
        with pytest.raises(ValueError, match="not 8 x 12 x 18"):
            G(torch.zeros(1, 1, 8, 12, 18))


def test_weights_in_3d_are_drawn_as_in_2d():
    G = make_generator(dict(dims=3, n_residual_blocks=1), 1, 1)
    G.apply(weights_init_normal)
    convolutions = [part for part in G.modules() if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)]
    assert len(convolutions) == 8
    for part in convolutions:
        assert abs(part.weight.std().item() - 0.02) < 0.002 and not part.bias.any()


def test_batch_norm_keeps_its_drawn_gains():
    network = nn.Sequential(nn.BatchNorm2d(3))
    nn.init.normal_(network[0].weight)
    gains = network[0].weight.clone()
    use_3d(network)
    assert isinstance(network[0], nn.BatchNorm3d) and torch.equal(network[0].weight, gains)


def test_without_volumes_networks_are_the_papers():
    G = make_generator({"channels": 3}, 3, 3)
    assert type(G) is GeneratorResNet and not hasattr(G, "dims") and G.smallest == 32
    assert is_papers({}) and not is_papers({"dims": 3}) and not is_papers({"slices": 3})
    assert channels_of({"channels": 1, "slices": 5}) == (5, 5)


##############################
#   Losses
##############################


def repeated(x, depth=16):
    """An image as a volume of equal slices"""
    return x[:, :, None].expand(-1, -1, depth, -1, -1).contiguous()


def test_distances_of_volumes_of_equal_slices_are_those_of_the_slices():
    x, y = torch.rand(2, 2, 2, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    X, Y, paired = repeated(x), repeated(y), torch.tensor([1.0, 0.0])
    assert torch.allclose(distances.ssim(X, Y), distances.ssim(x, y), atol=1e-5)
    assert torch.allclose(distances.paired_distance(X, Y, paired), distances.paired_distance(x, y, paired))
    see = lambda z: [z, z.square()]  # noqa: E731
    for distance in (distances.style_distance, distances.mean_feature_distance, distances.feature_distance):
        assert torch.allclose(distance(see, X, Y), distance(see, x, y), atol=1e-6)
    # the spectrum of equal slices is in one plane: sqrt(16) times that of a slice there, 0 elsewhere
    expected = distances.frequency_distance(x, y) * 4 / 16
    assert torch.allclose(distances.frequency_distance(X, Y), expected, atol=1e-5)


def test_ssim_of_volumes_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(16, 20, 24, generator=rng)
    y = (x + 0.2 * torch.rand(16, 20, 24, generator=rng)).clamp(0, 1)
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, full=True)
    _, full = metrics.structural_similarity(x.numpy(), y.numpy(), **options)
    found = distances.ssim(x[None, None] * 2 - 1, y[None, None] * 2 - 1).item()
    assert abs(found - full[5:-5, 5:-5, 5:-5].mean()) < 1e-4


def test_gradient_penalty_of_a_volume():
    D = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 8, 1, bias=False))
    nn.init.constant_(D[1].weight, 0.5)
    real, fake = torch.rand(2, 3, 1, 8, 8, 8)
    for at in ("real", "mix"):
        assert torch.allclose(regularisation.gradient_penalty(D, real, fake, at), torch.tensor(512 * 0.25))


def test_diffaugment_cuts_a_box_out_of_a_volume():
    torch.manual_seed(0)
    x = augment.diff_augment(torch.ones(64, 1, 16, 16, 16))
    assert x.shape == (64, 1, 16, 16, 16)
    empty = (x == 0).flatten(1).float().mean(1)
    assert empty.min() >= 1 / 64 and empty.max() < 0.7  # at least the corner of a box of half the sides
    planes = (x == 0).flatten(3).all(3).squeeze(1)  # empty slices are those that were shifted in
    assert planes.sum(1).max() == 2


def test_pool_of_volumes():
    pool, volumes = ReplayBuffer(2, seed=0), torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 1, 2, 3, 4)
    assert torch.equal(pool.push_and_pop(volumes[:2]), volumes[:2])
    out = pool.push_and_pop(volumes[2:])
    assert out.shape == (4, 1, 2, 3, 4) and (out[:, 0, 0, 0, 0] < 2).any()
    copy = ReplayBuffer(2, seed=0)
    copy.load_state_dict(pool.state_dict())
    assert torch.equal(copy.data[:2], pool.data[:2])


LOSSES = ["--lambda_ssim 1", "--lambda_freq 1", "--lambda_style 1", "--lambda_feat 1", "--lambda_cycfeat 1",
          "--lambda_nce 1", "--lambda_gp 1 --gp_at mix", "--diffaugment", "--cycle_noise 0.1", "--gan_loss hinge",
          "--discriminator multiscale --n_scales 1 --spectral_norm --freeze_D 1", "--noise_channels 2 --lambda_diversity 1",
          "--batch_deviation --batch_size 2", "--attention --separable --residual --antialias",
          "--lambda_A 3 --norm batch"]  # fmt: skip


@pytest.mark.parametrize("options", LOSSES)
def test_a_step_in_3d(options):
    """Losses are finite, and all trained weights get gradients."""
    from helpers import SMALL, build

    words = [*SMALL, "--dims", "3", "--img_depth", "24", "--channels", "1", *options.split()]
    opt, _ = cyclegan.get_options(words)
    gan, run = build(opt)
    from training.update import Update

    real_A, real_B = torch.rand(2, opt.batch_size, 1, 24, 32, 32) * 2 - 1
    losses = Update(cyclegan.train_step, gan, opt, run)(real_A, real_B)
    assert losses.isfinite().all()
    trained = [p for n in gan.networks().values() for p in n.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


REFUSED = {
    "--dims 3 --img_depth 20": "divisible by 4 and at least 24",
    "--dims 3 --img_depth 26": "divisible by 4",
    "--dims 3 --generator unet --num_downs 5 --img_depth 48": "divisible by 32",
    "--dims 3 --generator pretrained": "pretrained",
    "--dims 3 --lambda_perceptual 1": "pretrained",
    "--dims 3 --color_jitter 0.2": "--color_jitter",
    "--dims 3 --rotate 5": "--rotate",
    "--dims 3 --load_size 80": "--load_size",
    "--dims 3 --keep_aspect": "--keep_aspect",
    "--dims 3 --enlarge": "--enlarge",
    "--dims 3 --progressive 32:1,64:1": "--progressive",
    "--dims 3 --slices 3": "only one of these",
    "--slices 4": "odd",
    "--slices 3 --channels_A 2": "odd",
    "--slices 3 --rotate 5": "--rotate",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_volumes_cannot_be_used_with_is_refused_in_one_line(words):
    with pytest.raises(InputError, match=REFUSED[words]) as caught:
        cyclegan.get_options(["--dataset_name", "tiny", *words.split()])
    assert "\n" not in str(caught.value)


def test_thin_volumes_fit_a_pixel_discriminator():
    opt, _ = cyclegan.get_options("--dataset_name t --dims 3 --img_depth 8 --discriminator pixel".split())
    check(argparse.Namespace(**vars(opt)))


def test_slices_are_translated_each_as_the_middle_one():
    volume = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 2, 3)
    seen = []

    def translate(windows):  # the sum of the neighbours in each channel
        seen.extend(windows[:, :, 0, 0].tolist())
        return windows.sum(1, keepdim=True) * torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)

    result = by_slices(translate, volume, 3, batch_size=2)
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert result.shape == volume.shape and result[0, 0, :, 1, 2].tolist() == [1, 3, 6, 9, 11]


def test_in_one_pass_of_volumes():
    D = make_discriminator(dict(dims=3, ndf=4), 1)
    x, y = torch.rand(2, 1, 1, 24, 32, 32)
    with torch.no_grad():
        both = in_one_pass(D, x, y)
        assert torch.allclose(both[0], D(x), atol=1e-6) and torch.allclose(both[1], D(y), atol=1e-6)
