"""evaluate.py on volumes."""

import json

import numpy as np
import pytest
import torch

from measuring.evaluation import evaluate
from measuring.volumes import pair_measures
from utils import InputError


class Shift(torch.nn.Module):
    """A generator of volumes whose translation is known: adds a constant."""

    channels = out_channels = 1
    multiple, smallest, dims = 4, 8, 3

    def __init__(self, by):
        super().__init__()
        self.by, self.dims = by, 3

    def forward(self, x):
        return x + self.by


def test_ssim_needs_eleven_slices():
    volumes = torch.rand(2, 1, 1, 11, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert "paired_ssim" in pair_measures(*volumes)
    assert pair_measures(*volumes[:, :, :, :10]).keys() == {"paired_l1", "paired_psnr"}


@pytest.fixture
def shifts(tmp_path, monkeypatch):
    """Test volumes whose counterparts are 51 gray levels brighter, and generators that add 51 and subtract 25.5."""
    from measuring import evaluation

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(2):
        A = rng.integers(0, 100, (12, 13, 16), np.uint8)
        for domain, values in (("A", A), ("B", A + 51)):
            (tmp_path / "data" / "x" / f"test{domain}").mkdir(parents=True, exist_ok=True)
            np.save(f"data/x/test{domain}/{i}.npy", values.astype(np.uint8))
    found = {"AB": Shift(0.4), "BA": Shift(-0.2)}, 3, {"dataset_name": "x"}, {}
    monkeypatch.setattr(evaluation, "open_generators", lambda *_: found)


def test_known_answers(shifts, capsys):
    results = evaluate("latest.pth", paired=True, device="cpu", amp=False)[3]
    expected = {
        "AB": dict(cycle_l1=25.5, change_l1=51, identity_l1=51, paired_l1=0, paired_psnr=100, paired_ssim=1),
        "BA": dict(cycle_l1=25.5, change_l1=25.5, identity_l1=25.5, paired_l1=25.5, paired_psnr=20),
    }
    for direction, values in expected.items():
        for name, value in values.items():
            assert abs(results[direction][name] - value) < 1e-3, (direction, name)
    assert 0 < results["BA"]["paired_ssim"] < 1
    out = capsys.readouterr().out
    assert "paired ground truth, L1, of 255" in out and "no FID, KID and LPIPS" in out and "25.5" in out
    (line,) = [json.loads(line) for line in open("metrics.jsonl") if line.strip()]
    assert line["results"]["AB"]["change_l1"] == pytest.approx(51, abs=1e-3) and line["untranslated"]["AB"][
        "paired_l1"
    ] == pytest.approx(51)


def test_what_is_for_images_is_refused(shifts):
    for more in (dict(palette="auto"), dict(n_samples=3)):
        with pytest.raises(InputError, match="for images"):
            evaluate("latest.pth", device="cpu", **more)
    np.save("data/x/testB/1.npy", np.zeros((12, 13, 20), np.uint8))
    with pytest.raises(InputError, match="1.npy: 12 x 13 x 20 voxels"):
        evaluate("latest.pth", paired=True, device="cpu")
