"""A picture in bands comes out as the whole picture does."""

import numpy as np
import pytest
import torch

from inference.bands import goes_in_bands, translate_in_bands
from inference.translator import Translator
from models import GeneratorResNet
from variants.build import make_generator


def generator(upsample="transpose", n_residual_blocks=2, channels=3):
    torch.manual_seed(1)
    return GeneratorResNet(channels, n_residual_blocks, 8, upsample).eval()


def uneven(height, width, channels=3):
    """A picture whose parts differ in brightness and contrast, so that their own statistics would be wrong ones."""
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, height)[:, None] * torch.linspace(0.2, 1, width)
    return (ramp + torch.rand(1, channels, height, width) * ramp.abs()).clamp(-1, 1)


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
@pytest.mark.parametrize("n_residual_blocks", [0, 2])
@pytest.mark.parametrize(
    "height, width, band_pixels",
    [
        (256, 64, 64 * 64),  # four bands
        (260, 40, 1),  # the last one has 4 rows, less than the overlap; a band has at least 64 rows
        (132, 100, 68 * 100),
        (64, 96, 1),  # one band alone
        (32, 32, 1),
    ],
)
@torch.no_grad()
def test_bands_are_the_whole(height, width, band_pixels, n_residual_blocks, upsample):
    G, x = generator(upsample, n_residual_blocks), uneven(height, width)
    before, expected = x.clone(), G(x)
    result = translate_in_bands(G, x, band_pixels)
    assert result.shape == expected.shape and (result - expected).abs().max() < 1e-4
    assert torch.equal(x, before)


@torch.no_grad()
def test_layer_norm():
    """One mean and variance for all channels, then a weight and a bias of each channel."""
    torch.manual_seed(0)
    G, x = make_generator({"norm": "layer", "n_residual_blocks": 2, "ngf": 8}, 3, 3), uneven(256, 64)
    for part in G.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.weight.normal_(1, 0.5)
            part.bias.normal_(0, 0.5)
    assert goes_in_bands(G)
    assert (translate_in_bands(G, x, 64 * 64) - G(x)).abs().max() < 1e-4
    G, x = G.bfloat16(), x.bfloat16()
    assert (translate_in_bands(G, x, 64 * 64).float() - G(x).float()).abs().mean() < 0.02


@torch.no_grad()
def test_gray_and_bfloat16():
    G, x = generator(channels=1), uneven(192, 48, 1)
    assert (translate_in_bands(G, x, 1) - G(x)).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        rounded = (G(x).float() - translate_in_bands(G, x, 1).float()).abs()
    assert rounded.mean() < 0.02


@torch.no_grad()
def test_tiles_with_statistics_of_their_own_are_not():
    """Or the tests above would show nothing."""
    G, x = generator(), uneven(256, 64)
    tiles = torch.cat([G(x[:, :, max(0, top - 32) : top + 96])[:, :, min(top, 32) :][:, :, :64]
                       for top in range(0, 256, 64)], 2)  # fmt: skip
    assert tiles.shape == x.shape and (tiles - G(x)).abs().max() > 0.05


@pytest.mark.parametrize("name, smaller", [("ENCODER_OVERLAP", 4), ("BLOCK_OVERLAP", 0), ("DECODER_OVERLAP", 1)])
@torch.no_grad()
def test_less_overlap_would_not_do(monkeypatch, name, smaller):
    G, x = generator(), uneven(256, 64)
    monkeypatch.setattr(f"inference.bands.{name}", smaller)
    assert (translate_in_bands(G, x, 1) - G(x)).abs().max() > 1e-3


@torch.no_grad()
def test_it_takes_less_memory():
    """The largest tensor that a layer sees is that of a band."""
    G, x, sizes = generator(), uneven(1024, 32), []
    for layer in G.model:
        layer.register_forward_pre_hook(lambda layer, args: sizes.append(args[0].shape[2] * args[0].shape[3]))
    translate_in_bands(G, x, 64 * 32)
    assert max(sizes) <= (64 + 2 * 12 + 6) * (32 + 6)


def wider_blocks(G):
    for block in G.stages[1]:
        block.conv_block[0], block.conv_block[1] = torch.nn.ReflectionPad2d(2), torch.nn.Conv2d(32, 32, 5)


def one_more_layer_at_the_end(G):
    more = [torch.nn.ReflectionPad2d(9), torch.nn.Conv2d(8, 8, 19)]
    G.model = torch.nn.Sequential(*list(G.model)[:-3], *more, *list(G.model)[-3:])


def one_more_layer_at_the_start(G):
    G.model.insert(0, torch.nn.Conv2d(3, 3, 1))


@pytest.mark.parametrize("edit", [wider_blocks, one_more_layer_at_the_end, one_more_layer_at_the_start])
@torch.no_grad()
def test_an_edited_generator_gives_the_same_picture_at_every_tile_size(edit):
    G = generator()
    edit(G)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 260, 64, 3), dtype=np.uint8)
    small, large = (Translator([G], torch.device("cpu"), amp=False, tile=tile)(pixels) for tile in (64, 2048))
    assert np.abs(small.astype(int) - large).max() <= 1
    assert goes_in_bands(G) == (edit is one_more_layer_at_the_start) and goes_in_bands(generator())
