import pytest
import torch

from models import Discriminator, GeneratorResNet, weights_init_normal


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_those_of_the_paper():
    assert n_parameters(GeneratorResNet()) == 11_378_179
    assert n_parameters(GeneratorResNet(n_residual_blocks=6)) == 7_837_699
    assert n_parameters(Discriminator()) == 2_764_737


def authors_generator_keys():
    """Names and shapes in the state dict of the authors' 9-block generator (horse2zebra_net_G.pth and the others)."""
    shapes = {"model.1": (64, 3, 7, 7), "model.4": (128, 64, 3, 3), "model.7": (256, 128, 3, 3)}
    for block in range(10, 19):
        shapes[f"model.{block}.conv_block.1"] = shapes[f"model.{block}.conv_block.5"] = (256, 256, 3, 3)
    shapes |= {"model.19": (256, 128, 3, 3), "model.22": (128, 64, 3, 3), "model.26": (3, 64, 7, 7)}
    biases = {name: (shape[1 if name in ("model.19", "model.22") else 0],) for name, shape in shapes.items()}
    return {f"{n}.weight": s for n, s in shapes.items()} | {f"{n}.bias": s for n, s in biases.items()}


def test_generator_keys_are_the_authors():
    ours = {name: tuple(tensor.shape) for name, tensor in GeneratorResNet().state_dict().items()}
    assert ours == authors_generator_keys()


def test_older_files_of_the_authors_load_too():
    network, other = GeneratorResNet(ngf=4, n_residual_blocks=2), GeneratorResNet(ngf=4, n_residual_blocks=2)
    state = network.state_dict()
    state |= {"model.2.running_mean": torch.zeros(4), "model.10.conv_block.2.running_var": torch.ones(16)}
    state |= {"model.2.num_batches_tracked": torch.tensor(0)}
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters()))
    assert "model.2.running_mean" in state and "model.2.running_mean" not in other.state_dict()


def test_discriminator_keys_are_the_authors():
    ours = {name: tuple(tensor.shape) for name, tensor in Discriminator().state_dict().items()}
    shapes = {0: (64, 3, 4, 4), 2: (128, 64, 4, 4), 5: (256, 128, 4, 4), 8: (512, 256, 4, 4), 11: (1, 512, 4, 4)}
    expected = {f"model.{i}.weight": shape for i, shape in shapes.items()}
    assert ours == expected | {f"model.{i}.bias": shape[:1] for i, shape in shapes.items()}


def test_nearest_upsampling_has_the_layers_of_pytorch_gan():
    # there: Upsample, Conv2d, InstanceNorm2d, ReLU, twice, after nine residual blocks at 10..18
    keys = GeneratorResNet(upsample="nearest").state_dict().keys()
    assert {"model.20.weight", "model.24.weight", "model.28.weight"} <= keys
    assert not {"model.19.weight", "model.22.weight", "model.26.weight"} & keys


def test_receptive_field_of_the_discriminator_is_70():
    # without normalisation, whose statistics see the whole image
    network = Discriminator(ndf=4)
    layers = [m for m in network.model if not isinstance(m, torch.nn.InstanceNorm2d)]
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    torch.nn.Sequential(*layers)(image)[0, 0, 15, 15].backward()
    touched = image.grad.abs().sum((0, 1)).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize("size", [(32, 32), (36, 64), (100, 60)])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
def test_any_size_divisible_by_4_and_any_channels(size, channels, upsample):
    image = torch.rand(2, channels, *size) * 2 - 1
    out = GeneratorResNet(channels, 1, 4, upsample)(image)
    assert out.shape == image.shape and out.abs().max() <= 1
    assert Discriminator(channels, 4)(image).shape == (2, 1, size[0] // 8 - 2, size[1] // 8 - 2)


def test_shapes_at_the_defaults():
    image = torch.rand(1, 3, 256, 256)
    assert Discriminator()(image).shape == (1, 1, 30, 30)
    trunk = GeneratorResNet(n_residual_blocks=1).model[:11]
    assert trunk(image).shape == (1, 256, 64, 64)


@pytest.mark.parametrize("size", [(30, 32), (32, 34), (28, 28)])
def test_other_sizes_are_refused_in_words(size):
    with pytest.raises(ValueError, match="divisible by 4 and at least 32"):
        GeneratorResNet(ngf=4, n_residual_blocks=1)(torch.rand(1, 3, *size))


def test_an_image_is_translated_alike_in_any_batch():
    # what lets identity and translation share a pass
    network = GeneratorResNet(ngf=8, n_residual_blocks=2)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    alone = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-4)


def test_initial_weights():
    network = GeneratorResNet(ngf=32, n_residual_blocks=2).apply(weights_init_normal)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.numel() > 10_000:
            assert abs(parameter.std().item() - 0.02) < 0.001 and abs(parameter.mean().item()) < 0.001
