"""Training on volumes: samples, grids, resuming."""

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same, load, losses_logged

import cyclegan
from get_data import volumes as demo
from training.health import spread
from training.volumes import VolumeDataset, as_picture, seen_by_health, shown
from utils import InputError

OPTIONS = [*SMALL, "--dims", "3", "--img_depth", "24", "--channels", "1"]


@pytest.fixture
def volume_set(tmp_path, monkeypatch):
    """Writes a data set of random volumes into data/tiny, and works in its folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder, count in dict(trainA=3, trainB=4, testA=2, testB=2).items():
        path = tmp_path / "data" / "tiny" / folder
        path.mkdir(parents=True)
        for i in range(count):
            np.save(path / f"{i}.npy", rng.integers(0, 256, (26, 36, 38), np.uint8))
    return str(tmp_path / "data" / "tiny")


def test_samples_depend_on_seed_epoch_and_index_alone(volume_set):
    for cache in (False, True):
        dataset = VolumeDataset(volume_set, size=(24, 32, 32), seed=3, cache=cache)
        assert len(dataset) == 4 and dataset[0, 1]["A"].shape == (1, 24, 32, 32)
        first = {key: dataset[key] for key in ((0, 1), (0, 2), (1, 1))}
        again = VolumeDataset(volume_set, size=(24, 32, 32), seed=3, cache=not cache)
        for key in reversed(first):
            assert_same(again[key], first[key])
        assert not torch.equal(first[0, 1]["A"], first[1, 1]["A"])
        assert not torch.equal(first[0, 1]["A"], VolumeDataset(volume_set, size=(24, 32, 32), seed=4)[0, 1]["A"])


def test_samples_are_parts_of_the_volumes_half_of_them_mirrored(volume_set):
    dataset = VolumeDataset(volume_set, size=(26, 36, 37))
    volume, mirrored, starts = torch.from_numpy(np.load(f"{volume_set}/trainA/0.npy")) / 127.5 - 1, 0, set()
    for epoch in range(40):
        sample = dataset[epoch, 0]["A"][0]
        found = [(flip, x) for flip in (0, 1) for x in (0, 1)
                 if torch.allclose(sample.flip(2) if flip else sample, volume[:, :, x : x + 37], atol=1e-6)]  # fmt: skip
        assert len(found) == 1
        mirrored, starts = mirrored + found[0][0], starts | {found[0][1]}
    assert 10 < mirrored < 30 and starts == {0, 1}
    smaller = VolumeDataset(volume_set, size=(25, 35, 38), flip=False)  # depth and height are chosen independently
    starts = set()
    for epoch in range(40):
        sample = smaller[epoch, 0]["A"][0]
        starts |= {
            (z, y) for z in (0, 1) for y in (0, 1) if torch.allclose(sample, volume[z : z + 25, y : y + 35], atol=1e-6)
        }
    assert starts == {(0, 0), (0, 1), (1, 0), (1, 1)}
    plain = VolumeDataset(volume_set, size=(26, 36, 38), flip=False)
    assert all(torch.allclose(plain[epoch, 0]["A"][0], volume, atol=1e-6) for epoch in range(10))


def test_slices_are_channels(volume_set):
    dataset = VolumeDataset(volume_set, "test", size=(3, 36, 38), slices=True)
    volume = torch.from_numpy(np.load(f"{volume_set}/testA/0.npy")) / 127.5 - 1
    assert torch.allclose(dataset[0]["A"], volume[12:15], atol=1e-6)  # the middle


def test_pairs_get_the_same_place(volume_set):
    for i in range(3):
        np.save(f"{volume_set}/trainB/{i}.npy", np.load(f"{volume_set}/trainA/{i}.npy"))
    from variants.pairs import read_pairs

    dataset = VolumeDataset(volume_set, size=(24, 32, 32), pairs=lambda A, B: read_pairs(None, A, B))
    for index in range(3):
        sample = dataset[5, index]
        assert sample["paired"] == 1 and torch.equal(sample["A"], sample["B"])


def test_a_picture_of_a_volume_shows_three_slices():
    volume = torch.arange(4 * 6 * 8.0).view(1, 1, 4, 6, 8)
    picture = as_picture(volume)
    assert picture.shape == (1, 1, 6 + 4 + 4 + 4, 8)
    assert torch.equal(picture[0, 0, :6], volume[0, 0, 2])
    assert torch.equal(picture[0, 0, 8:12], volume[0, 0, :, 3])
    assert torch.equal(picture[0, 0, 14:18, :6], volume[0, 0, :, :, 4])
    assert (picture[0, 0, 6:8] == -1).all()


def test_health_sees_all_of_a_volume():
    class opt:
        dims, slices = 3, 0

    columns = [torch.rand(2, 1, 4, 6, 8)]
    assert torch.equal(seen_by_health(opt, columns)[0].flatten(1), columns[0].flatten(1))
    x = columns[0]
    assert torch.allclose(spread(seen_by_health(opt, columns)[0]), (x[0] - x[1]).abs().mean())
    opt.dims, opt.slices = 2, 3
    assert torch.equal(shown(opt, [torch.arange(6.0).view(1, 3, 1, 2)])[0], torch.tensor([[[[2.0, 3.0]]]]))


@pytest.mark.parametrize("options", ["--dims 3", "--slices 3", "--dims 3 --img_depth 8 --discriminator pixel --ema"])
def test_resuming_is_exact(volume_set, options):
    base = [*SMALL, "--img_depth", "24", "--channels", "1", "--max_images", "2", "--decay_epoch", "1", *options.split()]
    cyclegan.main([*base, "--n_epochs", "2", "--sample_interval", "4", "--run_name", "whole"])
    cyclegan.main([*base, "--n_epochs", "1", "--run_name", "parts"])
    cyclegan.main([*base[2:], "--n_epochs", "2", "--run_name", "parts", "--resume"])
    whole, parts = (load(f"saved_models/{name}/latest.pth") for name in ("whole", "parts"))
    for name in ("G_AB", "G_BA", "D_A", "D_B", "optimizer_G", "ranks"):
        assert_same(whole[name], parts[name])
    assert all(np.isfinite(record["loss_G"]) for record in losses_logged("whole"))
    from PIL import Image

    with Image.open("images/whole/000004.png") as grid:
        depth = 8 if "img_depth" in options else 24
        height = 32 if "slices" in options else 32 + 2 * depth + 4
        assert grid.size == (6 * 34 + 2, 2 * (height + 2) + 2 + 14)


def test_ranges_and_validation(volume_set, capsys):
    for folder in ("trainA", "testA"):
        for i in range(2):
            values = np.load(f"{volume_set}/{folder}/{i}.npy").astype(np.int16) * 8 - 1000
            np.save(f"{volume_set}/{folder}/{i}.npy", values)
    words = [*OPTIONS, "--n_epochs", "1", "--range_A", "-1000", "1040", "--range_B", "0", "255", "--val_interval", "1",
             "--max_images", "2"]  # fmt: skip
    cyclegan.main(words)
    out = capsys.readouterr().out
    assert "2 volumes of A, 2 of B, 24 x 32 x 32 voxels, cached" in out and "test images: cycle" in out
    assert "--size" not in out  # of the command that is proposed


def test_values_without_a_range_are_named(volume_set):
    np.save(f"{volume_set}/trainB/2.npy", np.full((26, 36, 38), -5, np.int16))
    with pytest.raises(InputError, match="trainB/2.npy: negative values.*--range_A"):
        cyclegan.main([*OPTIONS, "--n_epochs", "1"])


def test_dims_of_a_checkpoint_cannot_be_changed(volume_set):
    cyclegan.main([*OPTIONS, "--n_iters", "1"])
    with pytest.raises(InputError, match="--dims 2"):
        cyclegan.main([*SMALL, "--dims", "2", "--resume", "--n_iters", "2"])


##############################
#   The demo
##############################


def test_the_demo_is_drawn_with_its_answer():
    A, B, mask = demo.draw_volume(np.random.default_rng(0))
    assert A.shape == demo.SHAPE and A.dtype == np.uint8
    assert np.array_equal(A[mask == 0], B[mask == 0]) and 0.01 < (mask > 230).mean() < 0.2
    assert A[mask > 230].min() > 165 and B[mask > 230].max() < 70
    assert demo.shares(B, A, mask, "B") == (1, 1) and demo.shares(A, B, mask, "A") == (1, 1)
    inside, outside = demo.shares(A, A, mask, "B")
    assert (inside, outside) == (0, 1)
    assert demo.shares(np.zeros_like(A), A, mask, "B") == (1, 0)


def test_the_demo_trains_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "N_TRAIN", 2)
    monkeypatch.setattr(demo, "N_TEST", 1)
    for more in (["--n_residual_blocks", "0"], ["--slices", "3"]):
        words = ["--dataset_name", "demo_volumes", "--n_iters", "1", "--ngf", "2", "--device", "cpu", *more]
        cyclegan.main([*words, "--run_name", more[0][2:]])
        out = capsys.readouterr().out
        assert "A->B  translated" in out and "true answer 1.000 | 1.000 | 0.0" in out
