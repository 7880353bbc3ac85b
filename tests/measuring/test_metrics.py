"""measuring/metrics.py against the packages whose numbers people publish."""

import hashlib
import os
import shutil

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from measuring import evaluation, metrics
from measuring.data import EvaluationData
from measuring.scores import AvailableMetrics
from media.files import load_published
from utils import InputError
from variants import distances


def random_bytes(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


##############################
#         FID and KID
##############################


class Untrained(fidelity.FeatureExtractorInceptionV3):
    """torch-fidelity's network with random weights, which need no download."""

    def load_state_dict(self, state):
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            if weight.dim() > 1:  # He et al., 2015: activations keep their size
                torch.nn.init.kaiming_normal_(weight, generator=generator)


@pytest.fixture(scope="module")
def published():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda url, **options: {})
        return Untrained("inception-v3-compat", ["2048"])


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(published, tmp_path):
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    network = metrics.inception(str(tmp_path / "weights.pth"))
    for shape in ((2, 3, 64, 48), (1, 3, 320, 400)):
        images = random_bytes(*shape)
        features = network(images)
        assert features.shape == (len(images), 2048) and features.std() > 0.01
        assert torch.equal(features, published(images)[0])  # bit for bit


@pytest.mark.slow
def test_the_clean_fid_way_changes_the_resizing_and_nothing_else(published):
    clean, standard = metrics.Inception(published, "clean-fid"), metrics.Inception(published)
    images = random_bytes(2, 3, 299, 299)
    assert torch.equal(clean(images), standard(images))
    small = random_bytes(2, 3, 64, 48)
    resized = metrics.resize_clean(small)
    assert not torch.allclose(clean(small), standard(small), rtol=1e-2)
    rounded = standard(resized.round().byte())  # differs from the unrounded ones by little
    assert (clean(small) - rounded).abs().mean() < 0.1 * (clean(small) - standard(small)).abs().mean()


@pytest.mark.parametrize("height, width", [(64, 48), (299, 299), (512, 300)])
def test_resizing_is_that_of_clean_fid(height, width):
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    images = random_bytes(2, 3, height, width)
    images[0, :, : height // 2] = 255  # an edge, where bicubic filters overshoot
    expected = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in images]).transpose(0, 3, 1, 2)
    resized = metrics.resize_clean(images)
    assert resized.dtype == torch.float32 and resized.shape == (2, 3, 299, 299)
    assert np.array_equal(resized, expected)


def measured(real, fake):
    distance = metrics.SetDistance(real.shape[1], len(real), len(fake))
    for part in real.split(70):
        distance.update(part, real=True)
    for part in fake.split(50):
        distance.update(part, real=False)
    return distance, *distance.compute()


def features(n, shift=0.0):
    generator = torch.Generator().manual_seed(n)
    return (torch.randn(n, 32, generator=generator) @ torch.randn(32, 32, generator=generator) + shift).relu()


def test_fid_and_kid_are_the_numbers_of_torch_fidelity():
    real, fake = features(300), features(300, shift=0.5)
    distance, fid, kid = measured(real, fake)
    of_real, of_fake = (fid_features_to_statistics(x.double()) for x in (real, fake))
    assert fid == pytest.approx(fid_statistics_to_metric(of_real, of_fake, False)["frechet_inception_distance"], 1e-6)
    assert (distance.subsets, distance.subset_size) == (1, 300)  # all 100 subsets of 300 would be the same
    published = kid_features_to_metric(real, fake, kid_subsets=1, kid_subset_size=300)
    assert kid == pytest.approx(published["kernel_inception_distance_mean"], rel=1e-4)


@pytest.mark.slow
def test_kid_draws_100_subsets_of_1000_images_or_of_the_smaller_set():
    for n_real, n_fake, size in ((1500, 1200, 1000), (300, 120, 120)):
        real, fake = features(n_real), features(n_fake, shift=0.1)
        distance, _, kid = measured(real, fake)
        assert (distance.subsets, distance.subset_size) == (100, size)
        published = kid_features_to_metric(real, fake, kid_subsets=100, kid_subset_size=size)
        error = published["kernel_inception_distance_std"] / 10  # of the mean of 100 draws
        assert abs(kid - published["kernel_inception_distance_mean"]) < 4 * error


def test_the_protocol_names_the_resizing_and_the_subsets(monkeypatch):
    monkeypatch.setattr(metrics, "lpips", lambda weights: torch.nn.Identity())
    monkeypatch.setattr(metrics, "inception", lambda weights, resize: torch.nn.Identity())
    available = AvailableMetrics(torch.device("cpu"), fid_resize="clean-fid")
    data = EvaluationData("data/tiny", {}, {})
    settings = evaluation.Settings((256, 256), torch.device("cpu"), amp=False)
    assert not any("FID" in line for line in evaluation.protocol_lines(data, available, ["AB"], settings))
    available.distances["B"] = {
        "test": metrics.SetDistance(4, 120, 120), "train_test": metrics.SetDistance(4, 1300, 120)
    }  # fmt: skip
    available.distances["A"] = {"test": metrics.SetDistance(4, 1400, 2000)}
    *general, resizing, one, two, three = evaluation.protocol_lines(data, available, ["AB", "BA"], settings)
    assert "translations are rounded to 8 bits" in general
    assert "299 x 299 as clean-fid does: bicubic with antialiasing" in resizing
    assert [one, two, three] == [
        "KID is of 1 subset of 120 images (A -> B, test)",
        "KID is of 100 subsets of 120 images (A -> B, train_test)",
        "KID is of 100 subsets of 1000 images (B -> A, test)",
    ]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("flag, function", [("--inception_weights", "inception"), ("--lpips_weights", "lpips")])
def test_code_in_a_file_of_weights_is_not_executed(flag, function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for state in ({"conv": Malicious()}, Malicious()):
        torch.save(state, "weights.pth")
        with pytest.raises(InputError, match=f"{flag} weights.pth: .*nothing was executed"):
            getattr(metrics, function)("weights.pth")
    assert os.listdir() == ["weights.pth"]


##############################
#       Pairs of images
##############################


@pytest.mark.parametrize("channels, height, width", [(3, 64, 64), (1, 40, 100), (3, 11, 12)])
def test_ssim_is_that_of_scikit_image(channels, height, width):
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    a, noise = (random_bytes(4, channels, height, width, seed=seed) for seed in (0, 1))
    a[:, :, : height // 4] = 250  # flat areas, and a border that differs from the rest
    b = torch.stack([(a[i].float() * (4 - i) + noise[i].float() * i).div(4).round().byte() for i in range(4)])
    expected = [
        structural_similarity(
            x.numpy(), y.numpy(), channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b)
    ]  # fmt: skip
    scaled = [x.float() / 127.5 - 1 for x in (a, b)]
    found = metrics.ssim(*scaled)
    assert found.tolist() == pytest.approx(expected, abs=1e-6) and found[0] == 1
    assert distances.ssim(*scaled).item() == pytest.approx(np.mean(expected), abs=1e-4)  # the loss is the same measure


def test_images_smaller_than_the_window_get_a_note_and_no_ssim(monkeypatch):
    monkeypatch.setattr(metrics, "lpips", lambda weights: torch.nn.Identity())
    monkeypatch.setattr(metrics, "inception", lambda weights, resize: torch.nn.Identity())
    available = AvailableMetrics(torch.device("cpu"), size=(10, 64))
    assert available.pair["psnr"] and not available.pair["ssim"]
    assert available.missing == {"SSIM": "images of 64 x 10 pixels are smaller than its window of 11 x 11"}
    assert AvailableMetrics(torch.device("cpu"), size=(11, 64)).pair["ssim"]


def test_hashes_of_published_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    torch.save({"a": torch.ones(2)}, "x.pth")
    digest = hashlib.sha256(open("x.pth", "rb").read()).hexdigest()
    good, bad = f"net-{digest[:8]}.pth", "net-01234567.pth"
    for name in (good, bad):
        shutil.copy("x.pth", name)
    assert torch.equal(load_published("", good)["a"], torch.ones(2))
    assert torch.equal(load_published("https://a.b/" + bad, "x.pth")["a"], torch.ones(2))  # another name
    with pytest.raises(InputError, match=f"{bad}: damaged: its SHA-256 does not begin with 01234567"):
        load_published("", bad)

    os.makedirs("hub/checkpoints")
    shutil.copy("x.pth", f"hub/checkpoints/{bad}")  # downloaded before
    with pytest.raises(InputError, match="does not begin with 01234567. Delete"):
        load_published("https://a.b/" + bad)
    shutil.copy("x.pth", f"hub/checkpoints/{good}")
    assert torch.equal(load_published("https://a.b/" + good)["a"], torch.ones(2))
    shutil.copy("x.pth", "weights-inception-2015-12-05-6726825d.pth")
    with pytest.raises(InputError, match="--inception_weights .*does not begin with 6726825d"):
        metrics.inception("weights-inception-2015-12-05-6726825d.pth")


def test_downloads_are_checked_against_the_hash(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *words, **more: asked.append((words, more)))
    with pytest.raises(metrics.Unavailable):
        metrics.inception()
    ((url, file), more) = asked[0]
    assert url == fidelity.URL_INCEPTION_V3 and file.startswith(str(tmp_path)) and more == {"hash_prefix": "6726825d"}
