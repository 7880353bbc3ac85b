"""What the networks of a run see: gradients, occlusion, receptive fields, the sheet."""

import pytest
import torch
from helpers import SMALL
from PIL import Image

import cyclegan
from measuring import attribution
from models import Discriminator
from utils import InputError
from variants.build import make_discriminator


class Weighted(torch.nn.Module):
    """A discriminator whose one score is a weighted sum of the pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        return (x * self.weights).sum((1, 2, 3)).view(-1, 1, 1, 1)


def test_the_gradient_of_a_linear_score_is_its_weights():
    weights = torch.randn(3, 16, 20)
    found = attribution.gradient_map(Weighted(weights), torch.rand(1, 3, 16, 20), (0, 0))
    assert torch.allclose(found, weights.abs().mean(0))


def test_the_occlusion_of_a_linear_score():
    """A score that is one pixel falls by that pixel wherever a square covers it."""
    weights = torch.zeros(1, 16, 18)
    weights[0, 5, 9] = 2.0
    found = attribution.occlusion_map(Weighted(weights), torch.full((1, 1, 16, 18), 0.5), (0, 0), square=4)
    assert found.shape == (16, 18) and found[5, 9].item() == pytest.approx(1.0)  # from 2 * 0.5 to 0
    assert found.count_nonzero() == 6 * 6  # the squares at rows 2 and 4 and at columns 6 and 8 cover the pixel
    # one square that covers the whole image
    image = torch.rand(1, 3, 16, 16)
    D = Weighted(torch.rand(3, 16, 16))
    whole = attribution.occlusion_map(D, image, (0, 0), square=16)
    assert torch.allclose(whole, D(image).view(()).expand(16, 16), rtol=1e-4)


def test_the_receptive_field_is_that_of_the_paper():
    assert attribution.receptive_field(Discriminator(ndf=4)) == attribution.Field(-23, 70, 8)
    torch.manual_seed(0)
    D = make_discriminator({"ndf": 4, "norm_D": "none"}, 3)
    seen = attribution.gradient_map(D, torch.randn(1, 3, 160, 160), (7, 9)).nonzero()
    first, last = seen.min(0).values.tolist(), seen.max(0).values.tolist()
    assert first == [-23 + 7 * 8, -23 + 9 * 8] and last == [first[0] + 69, first[1] + 69]


def test_colours_of_maps():
    def pixels(image):
        return [image.getpixel((x, 0)) for x in range(image.width)]

    assert pixels(attribution.heat(torch.tensor([[0.0, 1.0, 2.0]]), (3, 1))) == [(0,) * 3, (128,) * 3, (255,) * 3]
    signed = attribution.heat(torch.tensor([[0.0, 4.0, -4.0]]), (3, 1))
    assert pixels(signed) == [(255, 255, 255), (255, 0, 0), (0, 0, 255)]


@pytest.fixture
def run(tmp_path, make_set, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_set()

    def train(*options):
        cyclegan.main([*SMALL, "--n_iters", "1", *options])

    return train


def test_a_sheet_is_written(run, capsys):
    run("--channels_A", "1", "--n_residual_blocks", "2")
    capsys.readouterr()
    attribution.main(["tiny", "data/tiny/testA/0.png", "--patch", "1", "0"])
    out = capsys.readouterr().out
    assert "row 1, column 0" in out and "images/tiny/seen_0_AB.png: the sheet" in out
    trained, D = attribution.load_networks("tiny", "AB")
    image = attribution.read_image("data/tiny/testA/0.png", trained)
    assert image.shape == (1, 1, 32, 32)
    sheet, facts = attribution.look(trained, D, image)
    assert [caption for caption, _ in sheet] == [
        "input", "translation, patch", "scores 2 x 2", "gradient", "occlusion", "c7s1-4: 32 x 32", "d8: 16 x 16",
        "d16: 8 x 8", "1. R16: 8 x 8", "2. R16: 8 x 8", "u8: 16 x 16", "u4: 32 x 32",
    ]  # fmt: skip
    with torch.no_grad():
        scores = D(attribution.from_uint8(attribution.to_uint8(trained.network(image))))[0, 0]
    assert facts["score"] == scores.min().item() == scores[facts["patch"]].item()
    assert 0 < facts["inside"] <= 1
    with Image.open("images/tiny/seen_0_AB.png") as written:
        assert written.width == 5 * 256 and written.height == 14 + 3 * (256 + 14)


def test_other_networks(run, capsys):
    run("--spectral_norm", "--generator", "unet", "--num_downs", "3", "--channels_B", "1")
    attribution.main(["tiny", "data/tiny/testB/0.png", "--direction", "BA", "--output", "seen.png"])
    with Image.open("seen.png") as written:
        assert written.height == 14 + 256 + 14  # no stages


def test_bad_input_is_one_line(run):
    with pytest.raises(InputError, match="saved_models/tiny/latest.pth: no such file"):
        attribution.main(["tiny", "data/tiny/testA/0.png"])
    with pytest.raises(InputError, match="NAME '../tiny'"):
        attribution.main(["../tiny", "data/tiny/testA/0.png"])
    run("--discriminator", "multiscale", "--n_scales", "1")
    with pytest.raises(InputError, match="needs one trained discriminator"):
        attribution.main(["tiny", "data/tiny/testA/0.png"])
    run()
    with pytest.raises(InputError, match="--patch 0 2: there are 2 rows and 2 columns"):
        attribution.main(["tiny", "data/tiny/testA/0.png", "--patch", "0", "2"])
    with pytest.raises(InputError, match="missing.png"):
        attribution.main(["tiny", "missing.png"])
