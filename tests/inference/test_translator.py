"""Padding to a size that a generator accepts, and what Translator refuses."""

import numpy as np
import pytest
import torch

from inference.translator import Translator, pad_to_multiple
from models import GeneratorResNet
from utils import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (2, 3), (3, 50), (31, 33), (32, 36), (61, 64)])
def test_padding_reflects_as_numpy_does(height, width, dtype):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, height, width))).to(dtype)
    bottom, right = (max(32, -(-n // 4) * 4) - n for n in (height, width))
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, bottom), (0, right)), "reflect")
    padded = pad_to_multiple(x, 4, 32)
    assert padded.dtype == dtype and np.array_equal(padded.numpy(), expected)
    last = pad_to_multiple(x.permute(0, 2, 3, 1), 4, 32, dims=(1, 2))
    assert torch.equal(last.permute(0, 3, 1, 2), padded)


def test_padding_is_that_of_torch_where_torch_can():
    x = torch.rand(1, 3, 33, 50)
    assert torch.equal(pad_to_multiple(x, 16, 64), torch.nn.functional.pad(x, (0, 14, 0, 31), "reflect"))


def test_different_channels_cannot_be_blended():
    G = GeneratorResNet(3, 1, 4, out_channels=1)
    pixels = np.zeros((1, 40, 44, 3), np.uint8)
    assert Translator([G], CPU, amp=False)(pixels).shape == (1, 40, 44, 1)
    with pytest.raises(InputError, match="--mask, --strength: 3 channels become 1"):
        Translator([G], CPU, strength=0.5)
    with pytest.raises(InputError, match="--mask, --strength: 3 channels become 1"):
        Translator([G], CPU, amp=False)(pixels, np.zeros((1, 40, 44), np.uint8))


@pytest.mark.parametrize("amp, precision", [(False, "float32"), (True, "bfloat16")])
def test_the_precision_is_told(amp, precision):
    assert Translator([GeneratorResNet(3, 1, 4)], CPU, amp=amp).precision == precision
