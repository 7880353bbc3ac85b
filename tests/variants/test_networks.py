"""The optional networks: each part does what it is there for."""

import argparse

import pytest
import torch
import torchvision
from helpers import build
from torch import nn

import cyclegan
from cyclegan import MSE
from inference.bands import goes_in_bands, translate_in_bands
from models import GeneratorResNet, ResidualBlock, in_one_pass, weights_init_normal
from variants.build import make_discriminator, make_generator
from variants.discriminators import DiscriminatorMultiscale, DiscriminatorPixel
from variants.losses import make_criterion
from variants.networks import GeneratorUNet, SelfAttention
from variants.parts import residual_blocks

SMALL = dict(ngf=4, n_residual_blocks=2)


def generator(seed=0, channels=3, out_channels=3, **options):
    torch.manual_seed(seed)
    return make_generator(SMALL | options, channels, out_channels).apply(weights_init_normal)


def image(n=1, size=64, channels=3, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


def options(*argv):
    small = "--dataset_name x --img_height 64 --img_width 64 --n_residual_blocks 2 --ngf 4 --ndf 4"
    return cyclegan.get_options([*small.split(), *argv])[0]


@pytest.mark.parametrize("kind", ["resnet", "unet", "multiscale", "pretrained"])
@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
@pytest.mark.parametrize("out_channels", [1, 3, 5])
def test_shapes_ranges_and_gradients(kind, upsample, out_channels):
    G = generator(generator=kind, num_downs=4, upsample=upsample, out_channels=out_channels)
    y = G(image(2))
    assert y.shape == (2, out_channels, 64, 64) and y.abs().max() <= 1
    assert (G.channels, G.out_channels) == (3, out_channels)
    y.mean().backward()
    assert all(p.grad is not None for p in G.parameters())
    with pytest.raises(ValueError, match=f"divisible by {G.multiple} and at least {G.smallest}, not 65 x 64"):
        G(torch.zeros(1, 3, 65, 64))


def test_sizes_as_published():
    with torch.device("meta"):
        assert n_parameters(GeneratorUNet()) == 54_409_603  # pix2pix's, with biases
        assert n_parameters(DiscriminatorPixel()) == 8_705
        multiscale = make_generator({"generator": "multiscale"}, 3, 3)
        assert n_parameters(multiscale.coarse) < n_parameters(GeneratorResNet())


def test_a_unet_hands_details_past_the_bottleneck():
    """With the bottleneck cut, detail still comes through; without the hand-over nothing does."""
    G, x, y = generator(generator="unet", num_downs=5), image(), image(seed=1)
    with torch.no_grad():
        for p in G.down[-1].parameters():
            p.zero_()
        assert (G(x) - G(y)).abs().mean() > 1e-3
        for up in G.up[1:]:  # the first half of each input comes from its counterpart
            conv = next(m for m in up if isinstance(m, nn.ConvTranspose2d))
            conv.weight[: conv.in_channels // 2] = 0
        assert (G(x) - G(y)).abs().max() < 1e-6


def test_multiscale_has_a_branch_for_the_whole_and_one_for_the_detail():
    G, x = generator(generator="multiscale"), image(size=64)
    detail = x.clone()
    detail[..., ::2, :] += 0.3  # every other row up, the next down: gone at half the size
    detail[..., 1::2, :] -= 0.3
    with torch.no_grad():
        half = [nn.functional.avg_pool2d(z, 2) for z in (x, detail)]
        assert torch.allclose(G.coarse(half[0]), G.coarse(half[1]), atol=1e-4)
        assert (G.encoder(x) - G.encoder(detail)).abs().mean() > 0.1
        before = G(x)
        G.coarse[-2].register_forward_hook(lambda *_: torch.zeros(()))
    assert len(G.coarse) == 10 + 2 + 6 and before.shape == x.shape


def test_the_pretrained_encoder_is_torchvisions(tmp_path):
    torch.manual_seed(3)
    resnet = torchvision.models.resnet18()
    for module in resnet.modules():  # statistics that something would be known from
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    G, x, seen = generator(generator="pretrained"), image(), []
    G.load_encoder(resnet.state_dict())
    G.encoder["layer3"].register_forward_hook(lambda module, _, output: seen.append(output))
    G.train()
    G(x)
    resnet.eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(((x + 1) / 2 - mean) / std))))
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3):
        expected = layer(expected)
    torch.testing.assert_close(seen[0], expected)
    with pytest.raises(ValueError, match="not torchvision's ResNet-18"):
        G.load_encoder(torchvision.models.resnet50().state_dict())
    assert generator(generator="pretrained", channels=1)(image(channels=1)).shape == (1, 3, 64, 64)


# ----- exchanged parts


def test_attention_with_gain_0_is_none_and_then_looks_everywhere():
    plain, attentive = generator(), generator(attention=True)
    attentive.load_state_dict(plain.state_dict(), strict=False)
    x = image()
    torch.testing.assert_close(attentive(x), plain(x))
    attention = next(m for m in attentive.modules() if isinstance(m, SelfAttention))
    assert attention.gain.item() == 0
    attentive(x).mean().backward()
    assert attention.gain.grad != 0

    features = image(1, 16, 16).requires_grad_()
    reach = {}
    for gain in (0.0, 1.0):
        attention.gain.data.fill_(gain)
        (gradient,) = torch.autograd.grad(attention(features)[0, :, 0, 0].sum(), features)
        reach[gain] = (gradient.abs().sum(1) > 0).sum().item()
    assert reach == {0.0: 1, 1.0: 16 * 16}

    q, k, v = attention.qkv(features).flatten(2).transpose(1, 2).chunk(3, dim=-1)
    seen = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1) @ v
    expected = features + attention.out(seen.transpose(1, 2).unflatten(2, (16, 16)))
    torch.testing.assert_close(attention(features), expected, atol=1e-5, rtol=1e-4)


def test_attention_keeps_no_matrix_of_all_pairs():
    attention, x, largest = SelfAttention(8), image(1, 64, 8), [0]

    def pack(tensor):
        largest[0] = max(largest[0], tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention(x).mean()
    assert 0 < largest[0] < 64**4 / 100


def test_separable_needs_at_least_80_percent_less():
    with torch.device("meta"):
        plain, separable = (make_generator(o, 3, 3) for o in ({}, {"separable": True}))
    trunks = [sum(map(n_parameters, residual_blocks(G))) for G in (plain, separable)]
    assert trunks[1] < 0.2 * trunks[0] and n_parameters(separable) < 0.2 * n_parameters(plain)
    block = residual_blocks(generator(separable=True))[0]
    depthwise = block.conv_block[1][0]
    assert depthwise.groups == depthwise.in_channels == 16 and depthwise.weight.shape == (16, 1, 3, 3)
    assert not any(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups == 1 for m in block.modules())


def test_dropout_drops_in_training_only():
    G, x = generator(dropout=0.5), image()
    assert sum(isinstance(m, nn.Dropout) for m in G.modules()) == 2 and not torch.equal(G(x), G(x))
    assert torch.equal(G.eval()(x), G(x))
    plain = generator()
    plain.load_state_dict({k.replace("conv_block.6", "conv_block.5"): v for k, v in G.state_dict().items()})
    torch.testing.assert_close(plain(x), G(x))
    for num_downs, count in ((8, 3), (7, 2), (6, 1), (5, 1), (3, 1)):  # the authors: num_downs - 5
        unet = generator(generator="unet", num_downs=num_downs, dropout=0.5)
        assert sum(isinstance(m, nn.Dropout) for m in unet.modules()) == count
    assert not torch.equal(unet(image()), unet(image()))


def test_checkpointed_activations_throw_the_same_dice_twice():
    gradients = []
    for checkpointed in (False, True):
        G = generator(dropout=0.5)
        G.checkpoint_activations = checkpointed
        torch.manual_seed(1)
        G(image()).square().mean().backward()
        gradients.append([p.grad for name, p in G.named_parameters() if name.endswith("weight")])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_norms():
    kinds = dict(instance=nn.InstanceNorm2d, batch=nn.BatchNorm2d, layer=nn.GroupNorm, none=nn.Identity)
    for norm, kind in kinds.items():
        for network in (generator(norm=norm), make_discriminator({"norm": norm, "ndf": 4}, 3),
                        make_discriminator({"norm": "batch", "norm_D": norm, "ndf": 4}, 3)):  # fmt: skip
            found = {type(m) for m in network.modules()} & set(kinds.values())
            assert found == {kind}


@torch.no_grad()
def test_instance_norm_removes_the_mean_colour_of_an_image_and_layer_norm_does_not():
    x = image() * 0.5
    tinted = x + torch.tensor([0.3, -0.2, 0.1]).view(1, 3, 1, 1)
    change = {n: (generator(norm=n)(tinted) - generator(norm=n)(x)).abs().max() for n in ("instance", "layer")}
    assert change["instance"] < 1e-3 and change["layer"] > 0.05
    G = generator(norm="layer")
    torch.testing.assert_close(G(torch.cat((x, tinted))), torch.cat((G(x), G(tinted))))  # each image on its own


def test_batch_norm_sees_one_domain_at_a_time():
    G, dark, bright = generator(norm="batch"), image(2) * 0.2 - 0.8, image(2, seed=1) * 0.2 + 0.8
    alone = [generator(norm="batch")(x) for x in (dark, bright)]
    for one, other in zip(in_one_pass(G, dark, bright), alone):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(generator(norm="batch")(torch.cat((dark, bright)))[:2], alone[0], atol=1e-3)
    # its running statistics are those of the domain that it translates
    expected = generator(norm="batch")
    expected(dark)
    for (name, one), other in zip(G.named_buffers(), expected.buffers()):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(one, other, msg=name)
    assert all(m.momentum == 0.1 for m in G.modules() if isinstance(m, nn.BatchNorm2d))

    calls = []
    forward = GeneratorResNet.forward
    plain = generator()
    plain.forward = lambda x: (calls.append(len(x)), forward(plain, x))[1]
    both = in_one_pass(plain, dark, bright[:1])
    assert calls == [3] and [len(x) for x in both] == [2, 1]
    torch.testing.assert_close(both[1], forward(plain, bright[:1]))


def test_spectral_norm_bounds_the_largest_singular_value():
    gan, _ = build(options("--spectral_norm"))
    D = gan.D_A
    convs = [m for m in D.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv in convs:
            conv.parametrizations.weight.original.mul_(50)
        for _ in range(30):  # power iterations
            D(image())
        largest = [torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() for conv in convs]
    assert len(convs) == 5 and largest == pytest.approx([1] * 5, abs=0.05)
    assert not any(hasattr(m, "parametrizations") for m in gan.G_AB.modules())


def test_multiscale_discriminators_see_the_image_at_three_sizes():
    D, x = make_discriminator({"discriminator": "multiscale", "ndf": 4}, 3), image(2, 128)
    scores = D(x)
    assert D.counts == [14 * 14, 6 * 6, 2 * 2] and scores.shape == (2, sum(D.counts)) and len(D.scales) == 3
    torch.testing.assert_close(scores[:, : 14 * 14], D.scales[0](x).flatten(1))
    half = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(scores[:, 14 * 14 : -4], D.scales[1](half).flatten(1))
    assert all((z == 0.5).all() for z in D.at_scales(torch.full_like(x, 0.5)))  # no darker border
    assert isinstance(D, DiscriminatorMultiscale)


@pytest.mark.parametrize("name", ["lsgan", "vanilla", "hinge"])
def test_each_score_of_a_scale_and_each_scale_has_the_same_weight(name):
    """Also where the scales have 14, 6 and 2 rows, of which none divides the other."""
    real, fake = image(2, 128), -image(2, 128)
    opt = argparse.Namespace(gan_loss=name, label_smoothing=0.0, discriminator="multiscale")
    unused, D = (make_discriminator({"discriminator": "multiscale", "ndf": 4}, 3) for _ in range(2))
    criterion = make_criterion(opt, MSE, (unused, D))
    plain = make_criterion(argparse.Namespace(**vars(opt) | {"discriminator": "patch"}), MSE, (D, D))
    by_scale = zip(D.scales, D.at_scales(real), D.at_scales(fake))
    scores = [(scale(a), scale(b)) for scale, a, b in by_scale]
    for_D = sum(plain.discriminator_loss(*both) for both in scores) / 3
    for_G = sum(plain.generator_loss(both[1]) for both in scores) / 3
    torch.testing.assert_close(criterion.discriminator_loss(*in_one_pass(D, real, fake)), for_D)
    torch.testing.assert_close(criterion.generator_loss(D(fake)), for_G)


def test_gains_of_batch_norm_are_drawn_as_in_the_authors_code():
    torch.manual_seed(0)
    G = make_generator(dict(norm="batch", n_residual_blocks=9, ngf=32), 3, 3).apply(weights_init_normal)
    gains, biases = (torch.cat([getattr(m, name) for m in G.modules() if isinstance(m, nn.BatchNorm2d)])
                     for name in ("weight", "bias"))  # fmt: skip
    assert len(gains) > 2000 and abs(gains.mean() - 1) < 2e-3 and abs(gains.std() - 0.02) < 1e-3 and (biases == 0).all()


def test_a_pixel_discriminator_sees_colours_and_no_neighbours():
    D, x = make_discriminator({"discriminator": "pixel", "norm": "none", "ndf": 4}, 3), image()
    assert D(x).shape == (1, 1, 64, 64)
    order = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].unflatten(2, (64, 64))
    torch.testing.assert_close(D(shuffled).flatten(), D(x).flatten()[order])


@pytest.mark.parametrize("chosen", [{"separable": True}, {"norm": "batch"}, {"norm": "none"}, {"dropout": 0.5}])
def test_bands_fit_what_looks_at_neighbours_only(chosen):
    G, x = generator(**chosen).eval(), torch.rand(1, 3, 160, 48) * 2 - 1
    assert goes_in_bands(G)
    with torch.no_grad():
        torch.testing.assert_close(translate_in_bands(G, x, 48 * 64), G(x), atol=2e-5, rtol=1e-3)
    assert not goes_in_bands(generator(attention=True)) and not goes_in_bands(generator(generator="unet", num_downs=3))


def test_unknown_names_are_refused():
    for make, options, channels in (
        (make_generator, {"generator": "vae"}, (3, 3)),
        (make_discriminator, {"discriminator": "x"}, (3,)),
    ):
        with pytest.raises(ValueError, match="must be"):
            make(options, *channels)
    assert isinstance(generator(), GeneratorResNet) and isinstance(generator().model[10], ResidualBlock)
