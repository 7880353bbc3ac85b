"""The scripts of examples/: errors per channel, simulated CT, the drawn clip."""

import math
import os

import numpy as np
import pytest
import torch
from helpers import SMALL

import cyclegan
from examples import clip, errors, low_dose
from utils import InputError

##############################
#   Errors per channel
##############################


def test_errors_of_known_answers():
    truth = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 3, 3)
    found = truth + torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    assert errors.rmse(found, truth).tolist() == [1, 2]
    assert errors.spectral_angle(truth * 7, truth) == pytest.approx(0, abs=1e-5)  # brightness does not count
    assert errors.spectral_angle(torch.tensor([4.0, -3.0]).view(1, 2, 1, 1), truth[:1, :, :1, :1]) == pytest.approx(90)
    one = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).T.view(1, 2, 2, 1)  # the second pixel is 0 and has no angle
    other = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).T.view(1, 2, 2, 1)
    assert errors.spectral_angle(one, other) == pytest.approx(45)
    assert errors.in_values(torch.tensor([-1.0, 0.0, 1.0]), (-1000, 1000)).tolist() == [-1000, 0, 1000]


def test_the_table_is_in_values_of_the_files():
    truths = torch.zeros(1, 1, 4, 4)
    lines, found = errors.table({"translated": truths + 0.05}, truths, (-1000, 1000))
    assert found["translated"] == {"rmse": [pytest.approx(50)], "all": pytest.approx(50, rel=1e-5), "angle": None}
    assert lines[1].split() == ["translated", "50.00", "50.00"] and "angle" not in lines[0]


def test_errors_of_a_checkpoint(tmp_path, monkeypatch, capsys):
    """Files in Hounsfield units, with the range of the training, and with one that is typed."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("trainA", "trainB", "testA", "testB"):
        os.makedirs(f"data/tiny/{folder}")
        for i in range(2):
            np.save(f"data/tiny/{folder}/{i}.npy", rng.integers(-1000, 1000, (32, 32)).astype(np.int16))
    ranges = "--channels 1 --range_A -1000 1000 --range_B -1000 1000".split()
    cyclegan.main([*SMALL, *ranges, "--n_iters", "1"])
    opt = ["--checkpoint", "saved_models/tiny/latest.pth", "--device", "cpu"]
    found = errors.measure_errors(errors.get_parser().parse_args(opt))
    A, B = (np.stack([np.load(f"data/tiny/test{d}/{i}.npy").astype(float) for i in range(2)]) for d in "AB")
    wanted = math.sqrt(np.square(A - B).mean())
    assert found["AB"]["untranslated"]["all"] == pytest.approx(wanted, rel=1e-4)
    train = np.stack([np.load(f"data/tiny/trainA/{i}.npy") for i in range(2)]).mean()
    wanted = math.sqrt(np.square(A - train).mean())
    assert found["BA"]["mean of the training images"]["rmse"] == [pytest.approx(wanted, rel=1e-4)]
    half = errors.measure_errors(errors.get_parser().parse_args([*opt, "--direction", "AB", "--values", "0", "1000"]))
    assert half.keys() == {"AB"}
    assert half["AB"]["translated"]["all"] == pytest.approx(found["AB"]["translated"]["all"] / 2, rel=1e-4)
    assert "A -> B: 2 test pairs, values from -1000 to 1000" in capsys.readouterr().out


##############################
#   CT
##############################


def disc(size, radius):
    at = torch.arange(size) - (size - 1) / 2
    return (at.view(1, -1) ** 2 + at.view(-1, 1) ** 2 < radius**2).float()


def test_projections_are_chords():
    """A ray through a disc of radius r at the distance t from its centre is 2 sqrt(r^2 - t^2) long inside of it."""
    found = low_dose.project(disc(96, 30), 24)
    t = torch.arange(96) - 47.5
    chords = 2 * (900 - t**2).clamp(min=0).sqrt()
    assert found.shape == (24, 96)
    assert (found.mean(0) - chords).abs().max() < 2 and (found - chords).abs().mean() < 0.6


def test_reconstruction_inverts_the_projection():
    image = disc(96, 30)
    image[40:56, 30:40] = 0.5
    found = low_dose.reconstruct(low_dose.project(image, 180))
    error = (found - image).abs()
    assert error[42:54, 32:38].max() < 0.05 and error[44:52, 55:70].max() < 0.05 and error[:10].mean() < 0.02


def test_a_scan_keeps_hounsfield_units_and_adds_noise():
    water = torch.where(disc(64, 24) > 0, 0.0, -1000.0)
    generator = torch.Generator().manual_seed(0)
    low, full = low_dose.scan(water, 5000.0, 5.0, 180, generator)
    assert low.dtype == full.dtype == np.int16 and low.shape == (64, 64)
    inner = disc(64, 18).numpy() > 0
    assert abs(full[inner].mean()) < 5 and full[0, 0] == -1000
    fewer, again = low_dose.scan(water, 1250.0, 0.0, 180, generator)
    more, _ = low_dose.scan(water, 5000.0, 0.0, 180, generator)
    assert np.array_equal(again, full)
    noise = [(image.astype(float) - full)[inner].std() for image in (more, fewer)]
    assert noise[1] / noise[0] == pytest.approx(2, rel=0.2)  # a quarter of the photons, twice the noise
    assert abs((more.astype(float) - full)[inner].mean()) < 5


def test_the_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--size", "32", "--views", "16", "--n_test", "2"]
    low_dose.main(["data/ct", "--n", "7", *small])
    assert "2 slices of low dose, 3 others of full dose, 2 of both, 32 x 32 pixels" in capsys.readouterr().out
    files = {folder: sorted(os.listdir(f"data/ct/{folder}")) for folder in os.listdir("data/ct")}
    assert files == {
        "testA": ["0000.npy", "0001.npy"], "testB": ["0000.npy", "0001.npy"], "trainA": ["0002.npy", "0003.npy"],
        "trainB": ["0004.npy", "0005.npy", "0006.npy"],
    }  # fmt: skip
    low, full = (np.load(f"data/ct/test{d}/0000.npy") for d in "AB")
    assert low.dtype == np.int16 and -1000 <= full.min() < -900 and full.max() > 30 and not np.array_equal(low, full)
    low_dose.main(["again", "--n", "7", *small])
    assert np.array_equal(np.load("again/testA/0000.npy"), low)  # the same seed
    with pytest.raises(InputError, match="data/ct: already exists"):
        low_dose.main(["data/ct", *small])


def test_slices_of_the_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("scans/patient")
    slices = [np.where(disc(48, 18).numpy() > 0, 40 + i, -1000).astype(np.int16) for i in range(4)]
    for i, values in enumerate(slices):
        np.save(f"scans/patient/{i}.npy", values)
    low_dose.main(["ct", "--slices", "scans", "--size", "48", "--n_test", "1", "--views", "90"])
    inner = disc(48, 12).numpy() > 0
    assert np.load("ct/testB/0000.npy")[inner].mean() == pytest.approx(40, abs=6)
    assert low_dose.read_slice("scans/patient/2.npy", 24).shape == (24, 24)

    np.save("scans/patient/9.npy", np.full((48, 48), 7, np.uint16))
    with pytest.raises(InputError, match="scans/patient/9.npy: not a slice in Hounsfield units"):
        low_dose.main(["other", "--slices", "scans", "--size", "48", "--n_test", "1", "--views", "8"])
    assert not os.path.exists("other")
    with pytest.raises(InputError, match="--n_test 4: of 5 slices, at most 3"):
        low_dose.main(["other", "--slices", "scans", "--n_test", "4"])
    with pytest.raises(InputError, match="--slices nowhere: no such folder"):
        low_dose.main(["other", "--slices", "nowhere"])
    os.makedirs("empty")
    with pytest.raises(InputError, match="--slices empty: holds 0 files"):
        low_dose.main(["other", "--slices", "empty"])


def test_dicom(tmp_path, monkeypatch):
    pydicom = pytest.importorskip("pydicom", reason="pip install pydicom")
    path = pydicom.data.get_testdata_file("CT_small.dcm", download=False)
    values = low_dose.read_dicom(path)
    assert values.shape == (128, 128) and values.min() < -800
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.dcm: cannot be read"):
        low_dose.read_dicom(str(tmp_path / "bad.dcm"))


##############################
#   Video
##############################


def test_the_clip(tmp_path, monkeypatch, capsys):
    av = pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    clip.main(["clip.mp4", "--seconds", "0.4", "--size", "64"])
    assert capsys.readouterr().out == "clip.mp4: 10 frames of 64 x 64 pixels, 0.4 s with sound\n"
    with av.open("clip.mp4") as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert len(frames) == 10 and frames[0].shape == (64, 64, 3)
    with av.open("clip.mp4") as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum.argmax() * 48_000 / len(sound) == pytest.approx(440, abs=5)
    with pytest.raises(InputError, match="clip.mp4: already exists"):
        clip.main(["clip.mp4"])
    for words, message in (
        (["clip.avi"], "clip.avi: name a file .mp4"),
        (["x.mp4", "--size", "63"], "--size 63: must be even"),
    ):
        with pytest.raises(InputError, match=message):
            clip.main(words)


def test_the_frames_move_by_whole_pixels():
    frames = list(clip.draw_frames(5, 64, 0.0, seed=1))
    assert len(frames) == 5 and np.array_equal(frames[0][:, 4:], frames[1][:, :-4])  # 16 pixels in 4 steps
    noisy = next(clip.draw_frames(5, 64, 4.0, seed=1)).astype(float)
    assert (noisy - frames[0]).std() == pytest.approx(4, rel=0.1)
