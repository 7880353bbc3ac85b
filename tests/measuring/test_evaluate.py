"""evaluate.py and measuring/: compared with known numbers, or with numbers computed in another way."""

import json
import os
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cyclegan
import evaluate
from inference.load import load_generator
from inference.samples import Sample
from measuring import diversity, evaluation, labels, metrics
from measuring.data import find_data
from measuring.diversity import measure_samples
from measuring.palettes import CITYSCAPES, VOID
from measuring.results import MEASURES, N_CASES, Cases
from measuring.scores import AvailableMetrics, Scores
from media.files import save_file
from media.images import load_image
from models import GeneratorResNet, weights_init_normal
from utils import InputError
from variants import build
from variants.noise import use_noise

pytestmark = pytest.mark.slow

SIZE = 32


class MeanColour(torch.nn.Module):
    """Replaces the Inception network: 6 features per image, mean and standard deviation of each channel."""

    def forward(self, images):
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        return torch.cat((images.float().mean((2, 3)), images.float().std((2, 3))), 1)


class Difference(torch.nn.Module):
    """Replaces LPIPS."""

    def forward(self, a, b):
        assert a.shape[1] == 3 and a.min() >= -1 and a.max() <= 1 and b.min() >= -1 and b.max() <= 1
        return (a - b).square().mean((1, 2, 3))


@pytest.fixture
def run_folder(tmp_path, monkeypatch, make_set):
    """A folder with a data set and the generators of epochs 1 and 2. Small networks replace those that need a
    download."""
    monkeypatch.chdir(tmp_path)
    make_set((SIZE, SIZE), trainA=5, trainB=7, testA=6, testB=6)
    folder = tmp_path / "saved_models" / "tiny"
    os.makedirs(folder)
    for epoch in (1, 2):
        for i, name in enumerate(("G_AB", "G_BA")):
            torch.manual_seed(10 * epoch + i)
            G = GeneratorResNet(3, 1, 8).apply(weights_init_normal)
            save_file(G.state_dict(), str(folder / f"{name}_{epoch}.pth"))
    monkeypatch.setattr(metrics, "inception", lambda weights, resize: MeanColour())
    monkeypatch.setattr(metrics, "lpips", lambda weights: Difference())
    return folder


def evaluate_it(folder, *options, name="G_AB_1.pth"):
    evaluate.main(["--checkpoint", str(folder / name), "--dataset_name", "tiny", "--img_height", str(SIZE),
                   "--img_width", str(SIZE), "--n_cpu", "0", "--no-amp", *options])  # fmt: skip
    return [json.loads(line) for line in open(folder / "metrics.jsonl")]


def images(folder, names=None):
    names = names or sorted(os.listdir(folder))
    pixels = np.stack([load_image(os.path.join(folder, name)) for name in names])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def scaled(x):
    return x.float() / 127.5 - 1


##############################
#       Sets of images
##############################


def distance(real, fake):
    measure = metrics.SetDistance(real.shape[1], len(real), len(fake))
    for part in real.split(7):
        measure.update(part, real=True)
    for part in fake.split(5):
        measure.update(part, real=False)
    return measure


def test_fid_of_gaussians_that_differ_by_a_shift_or_a_scale():
    real = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    shift = torch.tensor([3.0, 0.0, -1.0, 2.0])
    assert distance(real, real.clone()).compute()[0] == pytest.approx(0, abs=1e-6)
    assert distance(real, real + shift).compute()[0] == pytest.approx(14, rel=1e-6)  # |shift|^2
    centred = real - real.mean(0)
    # equal means, covariances C and 4 C: the trace of C + 4 C - 2 (2 C)
    assert distance(centred, 2 * centred).compute()[0] == pytest.approx(torch.cov(real.T).trace().item(), rel=1e-6)


def test_kid_is_the_unbiased_mmd_even_for_few_images():
    real, fake = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (6, 5))
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    chosen = 5  # the size of the smaller set
    values = []
    for left_out in range(6):
        x, y = real[[i for i in range(6) if i != left_out]], fake
        xx, yy = (k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y)))
        values.append(((xx + yy) / (chosen * (chosen - 1)) - 2 * kernel(x, y).mean()).item())
    found = distance(real, fake).compute()[1]  # the mean of 100 draws from these six subsets
    assert abs(found - np.mean(values)) < np.std(values) / 2 and np.std(values) > 0.01
    assert distance(real[1:], fake).compute()[1] == pytest.approx(values[0], abs=1e-5)  # no subsets
    assert distance(real, fake).compute()[1] == found  # the same subset each time


def test_compute_keeps_the_real_images_and_resets_the_translations():
    real = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    measure = distance(real, real + 1)
    assert measure.compute()[0] == pytest.approx(3, rel=1e-4)
    measure.update(real + 2, real=False)
    assert measure.compute()[0] == pytest.approx(12, rel=1e-4)


def test_kid_keeps_a_bounded_number_of_features(monkeypatch):
    monkeypatch.setattr(metrics, "KID_LIMIT", 10)
    measure = distance(torch.randn(95, 3), torch.randn(33, 3))
    assert sum(map(len, measure.kid.real_features)) == 10 and sum(map(len, measure.kid.fake_features)) == 9
    assert measure.fid.real_features_num_samples == 95
    measure.compute()


##############################
#           Labels
##############################


def test_label_score_by_hand():
    score = labels.LabelScore(CITYSCAPES)
    truth = np.array([[0, 0, 0, 1], [1, 2, VOID, VOID]], np.uint8)
    predicted = np.array([[0, 0, 1, 1], [1, 0, 5, 0]], np.uint8)
    assert score.update(predicted, truth) == pytest.approx(4 / 6)
    found = score.compute()
    assert found["pixel_accuracy"] == pytest.approx(4 / 6)
    assert found["class_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["class_iou"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    # as the authors divide, by all 19 classes
    assert found["class_accuracy_all"] == pytest.approx((2 / 3 + 1 + 0) / 19)
    assert found["class_iou_all"] == pytest.approx((2 / 4 + 2 / 3 + 0) / 19)
    assert score.absent() == list(CITYSCAPES.classes)[3:]


def test_nearest_class_and_void(tmp_path):
    colours = list(CITYSCAPES.classes.values())
    assert (labels.nearest_class(np.array(colours, np.uint8), CITYSCAPES) == np.arange(19)).all() and len(colours) == 19
    near = np.array([[130, 60, 125], [3, 2, 1]], np.uint8)
    assert labels.nearest_class(near, CITYSCAPES).tolist()[0] == 0
    assert labels.nearest_class(near, CITYSCAPES, with_void=True).tolist() == [0, VOID]
    palette = Image.new("P", (2, 2))
    palette.putpalette([*colours[0], *colours[10], 0, 0, 0])
    palette.putdata([0, 1, 2, 2])
    palette.save(tmp_path / "label.png")
    found = labels.load_labels(str(tmp_path / "label.png"), (4, 4), CITYSCAPES)
    assert found[0].tolist() == [0, 0, 10, 10] and (found[2:] == VOID).all()


def write_labels(folder, classes, names):
    colours = np.array(list(CITYSCAPES.classes.values()), np.uint8)
    for name, c in zip(names, classes):
        Image.fromarray(colours[np.asarray(c)]).save(os.path.join(folder, name))


def test_references_are_the_truth_and_the_most_frequent_label(tmp_path):
    train, test = [], []
    for i, c in enumerate((3, 3, 5)):
        write_labels(tmp_path, [np.full((8, 8), c)], [f"{i}.png"])
        train.append(str(tmp_path / f"{i}.png"))
    halves = np.repeat([[3] * 4 + [5] * 4], 8, 0)
    write_labels(tmp_path, [halves], ["test.png"])
    test.append(str(tmp_path / "test.png"))
    references, absent = labels.label_references(train, test, (8, 8), CITYSCAPES)
    truth, constant = references.values()
    assert list(truth.values()) == pytest.approx([1, 1, 1, 2 / 19, 2 / 19])
    assert constant == pytest.approx({"pixel_accuracy": 0.5, "class_accuracy": 0.5, "class_iou": 0.25,
                                      "class_accuracy_all": 1 / 19, "class_iou_all": 0.5 / 19})  # fmt: skip
    assert len(absent) == 17 and not {"wall", "pole"} & set(absent)


def test_palette_scores_the_direction_into_the_labels(run_folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(6)]
    classes = rng.integers(0, 19, (6, 2, 2)).repeat(16, 1).repeat(16, 2)
    write_labels(tmp_path / "data/tiny/testA", classes, names)
    write_labels(tmp_path / "data/tiny/trainA", classes[:5], names[:5])
    record = evaluate_it(run_folder, "--palette", "cityscapes")[0]
    G_BA = load_generator(str(run_folder / "G_BA_1.pth")).network
    with torch.no_grad():
        fake = ((G_BA(scaled(images(tmp_path / "data/tiny/testB", names))) + 1) * 127.5).round().byte()
    colours = torch.tensor(list(CITYSCAPES.classes.values())).float()
    pixels = fake.permute(0, 2, 3, 1).reshape(-1, 1, 3).float()
    predicted = (pixels - colours).square().sum(2).argmin(1).reshape(6, SIZE, SIZE).numpy()
    right = (predicted == classes).mean()
    assert record["results"]["BA"]["pixel_accuracy"] == pytest.approx(right, abs=2e-3)
    assert "pixel_accuracy" not in record["results"]["AB"]
    assert record["references"]["the true labels"]["class_iou"] == 1.0
    absent = [name for i, name in enumerate(CITYSCAPES.classes) if not (classes == i).any()]
    assert record["absent"] == absent and len(absent) > 0
    results = record["results"]["BA"]
    assert results["class_iou_all"] == pytest.approx(results["class_iou"] * (19 - len(absent)) / 19)
    # a generator that changes nothing: its output has the classes of the nearest colours of its input
    pixels = images(tmp_path / "data/tiny/testB", names).permute(0, 2, 3, 1).reshape(-1, 1, 3).float()
    unchanged = (pixels - colours).square().sum(2).argmin(1).reshape(6, SIZE, SIZE).numpy()
    assert record["untranslated"]["BA"]["pixel_accuracy"] == pytest.approx((unchanged == classes).mean(), abs=2e-3)
    assert list(record["untranslated"]) == ["BA"]
    ious = results["iou_by_class"]
    assert list(ious) == [name for name in CITYSCAPES.classes if name not in absent]
    assert np.mean(list(ious.values())) == pytest.approx(results["class_iou"])
    out = capsys.readouterr().out
    assert "the most frequent training label" in out and f"absent from the true labels: {', '.join(absent)}" in out


##############################
#        The script
##############################


def test_every_number_of_an_unpaired_set(run_folder, tmp_path, capsys):
    record = evaluate_it(run_folder)[0]
    G_AB, G_BA = (load_generator(str(run_folder / f"G_{d}_1.pth")).network for d in ("AB", "BA"))
    a, b = (images(tmp_path / f"data/tiny/test{d}") for d in "AB")
    with torch.no_grad():
        fake, same = G_AB(scaled(a)), G_AB(scaled(b))
        recovered = G_BA(fake)
    written = ((fake + 1) * 127.5).round().byte()
    found = record["results"]["AB"]
    assert found["cycle_l1"] == pytest.approx((recovered - scaled(a)).abs().mean().item() * 127.5, rel=1e-4)
    assert found["identity_l1"] == pytest.approx((same - scaled(b)).abs().mean().item() * 127.5, rel=1e-4)
    assert found["change_l1"] == pytest.approx((scaled(written) - scaled(a)).abs().mean().item() * 127.5, rel=1e-4)
    assert record["untranslated"] == {}
    assert found["cycle_lpips"] == pytest.approx((recovered - scaled(a)).square().mean().item(), rel=1e-4)
    assert found["change_lpips"] == pytest.approx((scaled(written) - scaled(a)).square().mean().item(), rel=1e-3)
    features = MeanColour()
    train = images(tmp_path / "data/tiny/trainB")
    for protocol, real in (("test", b), ("train_test", torch.cat((b, train)))):
        fid, kid = distance(features(real), features(written)).compute()
        assert found[f"fid_{protocol}"] == pytest.approx(fid, rel=1e-3)
        assert np.isfinite(kid) and found[f"kid_{protocol}"] / 1000 == pytest.approx(kid, rel=1e-2)
    assert record["counts"] == {"testA": 6, "trainA": 5, "testB": 6, "trainB": 7}
    assert record["epoch"] == 1 and record["size"] == [SIZE, SIZE] and "Inception" in " ".join(record["protocol"])
    assert set(record["results"]["BA"]) == set(found) and record["versions"]["torch"]
    output = capsys.readouterr().out
    assert all(MEASURES[name][0] in output for name in found)
    sheet = Image.open("images/tiny/evaluate_G_AB_1_AB.png")
    assert sheet.height > 2 * N_CASES * SIZE
    evaluate_it(run_folder)
    assert len(open(run_folder / "metrics.jsonl").readlines()) == 2  # appended, not replaced


def test_paired(run_folder, tmp_path, capsys):
    os.rename(tmp_path / "data/tiny/testA/5.png", tmp_path / "data/tiny/testA/alone.png")
    record = evaluate_it(run_folder, "--paired", "--batch_size", "2")[0]
    found = record["results"]["AB"]
    G_AB = load_generator(str(run_folder / "G_AB_1.pth")).network
    names = [f"{i}.png" for i in range(5)]
    a, b = (images(tmp_path / f"data/tiny/test{d}", names) for d in "AB")
    with torch.no_grad():
        seen = scaled(((G_AB(scaled(a)) + 1) * 127.5).round().byte())
    error = (seen - scaled(b)).square().mean((1, 2, 3))
    assert found["paired_l1"] == pytest.approx((seen - scaled(b)).abs().mean().item() * 127.5, rel=1e-3)
    assert found["paired_psnr"] == pytest.approx((10 * torch.log10(4 / error)).mean().item(), rel=1e-3)
    assert found["paired_lpips"] == pytest.approx(error.mean().item(), rel=1e-3)
    assert found["paired_ssim"] == pytest.approx(metrics.ssim(seen, scaled(b)).mean().item(), rel=1e-3)
    output = capsys.readouterr().out
    assert "2 test images have no counterpart" in output
    error = (scaled(a) - scaled(b)).square().mean((1, 2, 3))
    unchanged = {
        "paired_l1": (scaled(a) - scaled(b)).abs().mean().item() * 127.5,
        "paired_psnr": (10 * torch.log10(4 / error)).mean().item(),
        "paired_ssim": metrics.ssim(scaled(a), scaled(b)).mean().item(),
        "paired_lpips": error.mean().item(),
    }
    assert record["untranslated"]["AB"] == pytest.approx(unchanged, rel=1e-4)
    assert record["untranslated"]["BA"] == pytest.approx(unchanged, rel=1e-4)  # these are symmetric
    lines = output.splitlines()
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("paired ground truth, SSIM")) + 1]
    assert after.split() == ["of", "the", "untranslated", "input", *[f"{unchanged['paired_ssim']:.4g}"] * 2]


def test_psnr_and_ssim_of_equal_and_of_opposite_images():
    psnr = metrics.psnr_of_pairs
    x = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    assert metrics.ssim(x, x).tolist() == pytest.approx([1, 1]) and psnr(x, x).tolist() == [100, 100]
    assert (metrics.ssim(x, -x) < -0.9).all()
    black, white = -torch.ones_like(x), torch.ones_like(x)
    assert psnr(black, white).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert metrics.l1(black, white).tolist() == [255, 255]


def test_psnr_is_that_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.functional.image", reason="requires torchmetrics")
    a, b = torch.rand(2, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = [image.peak_signal_noise_ratio(x, y, data_range=(-1.0, 1.0)).item() for x, y in zip(a, b)]
    assert metrics.psnr_of_pairs(a, b).tolist() == pytest.approx(wanted, rel=1e-5)


def test_all_checkpoints_report_the_best_epoch(run_folder, capsys):
    records = evaluate_it(run_folder, "--all_checkpoints")
    assert [record["epoch"] for record in records] == [1, 2]
    values = {record["epoch"]: record["results"]["BA"]["cycle_l1"] for record in records}
    best = min(values, key=values.get)
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("B -> A  cycle reconstruction, L1 ")
    ]
    assert len(lines) == 1 and f"epoch {best:>5}" in lines[0]
    assert Image.open("images/tiny/metrics.png").width > 1000


def test_measures_the_rest_without_optional_packages(run_folder, monkeypatch, capsys):
    monkeypatch.undo()
    os.chdir(run_folder.parent.parent)
    for module in ("torchmetrics", "torchmetrics.image.fid", "torchmetrics.functional.image", "torch_fidelity"):
        monkeypatch.setitem(sys.modules, module, None)
    record = evaluate_it(run_folder, "--paired")[0]
    pairs = {"paired_l1", "paired_psnr", "paired_ssim"}
    assert set(record["results"]["AB"]) == {"cycle_l1", "identity_l1", "change_l1"} | pairs
    output = capsys.readouterr().out
    assert output.count("pip install torchmetrics") == 2 and len(record["missing"]) == 2


@pytest.mark.parametrize("flag, function", [("--inception_weights", "inception"), ("--lpips_weights", "lpips")])
def test_wrong_weights_files_are_reported(tmp_path, flag, function):
    path = tmp_path / "weights.pth"
    for content in (None, b"", b"no weights"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=f"{flag} {path}") as error:
            getattr(metrics, function)(str(path))
        assert not isinstance(error.value, metrics.Unavailable)


def test_evaluate_is_a_function_too(run_folder):
    checkpoint = str(run_folder / "G_AB_1.pth")
    options = dict(dataset_name="tiny", img_height=SIZE, img_width=SIZE, n_cpu=0, amp=False)
    results = evaluate.evaluate(checkpoint, direction="AB", paired=True, **options)
    record = evaluate_it(run_folder, "--direction", "AB", "--paired")[-1]
    assert results == {1: record["results"]}


def test_one_direction_alone(run_folder):
    os.remove(run_folder / "G_BA_1.pth")
    found = evaluate_it(run_folder)[0]["results"]
    assert list(found) == ["AB"] and "cycle_l1" not in found["AB"] and "fid_test" in found["AB"]


def test_a_full_checkpoint_provides_size_and_data_set(make_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_set((48, 40))
    cyclegan.main(["--dataset_name", "tiny", "--img_height", "40", "--img_width", "36", "--n_residual_blocks", "1",
                   "--ngf", "4", "--ndf", "4", "--n_epochs", "1", "--sample_interval", "0"])  # fmt: skip
    monkeypatch.setattr(metrics, "inception", lambda weights, resize: MeanColour())
    monkeypatch.setattr(metrics, "lpips", lambda weights: Difference())
    for name in ("latest.pth", "G_BA_1.pth"):
        evaluate.main(["--checkpoint", f"saved_models/tiny/{name}"])
    records = [json.loads(line) for line in open("saved_models/tiny/metrics.jsonl")]
    assert [r["size"] for r in records] == [[40, 36]] * 2 and [r["epoch"] for r in records] == [1, 1]
    assert records[0]["results"] == records[1]["results"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--dataset_name", "nothing"], "data/nothing: no such folder"),
        (["--img_height", "34"], "must be divisible by 4"),
        (["--paired"], "no image has the same file stem"),
    ],
)
def test_errors(run_folder, tmp_path, options, message):
    for name in os.listdir(tmp_path / "data/tiny/testA"):
        os.rename(tmp_path / "data/tiny/testA" / name, tmp_path / "data/tiny/testA" / ("x" + name))
    with pytest.raises(InputError, match=message):
        evaluate_it(run_folder, *options)
    assert not os.path.exists(run_folder / "metrics.jsonl")


def test_a_corrupt_test_image_is_reported(run_folder, tmp_path):
    (tmp_path / "data/tiny/testA/2.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="testA/2.png: broken"):
        evaluate_it(run_folder)


def test_cases_keep_the_best_and_the_worst(tmp_path):
    cases = Cases("A -> B, by value", ["input", "translation", "truth"])
    order = np.random.default_rng(0).permutation(50)
    for value in order:
        cases.add(float(value), f"{value}.png", [torch.full((3, 4, 4), value, dtype=torch.uint8)] * 3)
    assert sorted(item[2] for item in cases.best) == [0, 1, 2, 3]
    assert sorted(item[2] for item in cases.worst) == [46, 47, 48, 49]
    cases.add(float("nan"), "nothing.png", None)
    cases.save_sheet(str(tmp_path / "sheets" / "x.png"))
    sheet = np.array(Image.open(tmp_path / "sheets" / "x.png"))
    assert (sheet[28 : 28 + 256, : 3 * 256] == 0).all() and (sheet[-256:, : 3 * 256] == 49).all()  # enlarged 64 times
    assert os.listdir(tmp_path / "sheets") == ["x.png"]


@pytest.mark.parametrize("n, n_best", [(1, 1), (2, 1), (3, 2), (7, 4), (8, 4), (20, 4)])
def test_no_case_is_both_best_and_worst(n, n_best, tmp_path, monkeypatch):
    cases = Cases("A -> B, by cycle L1", ["input", "translation"], "of 255")
    for value in np.random.default_rng(0).permutation(n):
        cases.add(float(value), f"{value}.png", [torch.zeros(3, 4, 4, dtype=torch.uint8)] * 2)
    drawn = []
    monkeypatch.setattr("measuring.results.draw_sheet", lambda path, rows, title: drawn.extend(rows))
    cases.save_sheet("x.png")
    captions = [row[0][0] for row in drawn]
    shown = [*range(n)] if n <= 8 else [0, 1, 2, 3, 16, 17, 18, 19]
    words = ["best"] * n_best + ["worst"] * (len(shown) - n_best)
    assert captions == [f"{word}: {i} of 255  {i}.png" for word, i in zip(words, shown)]


def test_palette_needs_labels_in_its_colours_and_a_direction_into_them(run_folder, tmp_path):
    with pytest.raises(InputError, match="--palette cityscapes: .* is not in the colours of the palette"):
        evaluate_it(run_folder, "--palette", "cityscapes")
    names = [f"{i}.png" for i in range(6)]
    write_labels(tmp_path / "data/tiny/testA", np.zeros((6, SIZE, SIZE), int), names)
    with pytest.raises(InputError, match="domain A has the labels, and --direction translates into the other one"):
        evaluate_it(run_folder, "--palette", "cityscapes", "--direction", "AB")


def test_another_data_set_gets_its_own_sheets(run_folder):
    G = {name: load_generator(str(run_folder / f"{name}_1.pth")).network.state_dict() for name in ("G_AB", "G_BA")}
    save_file({"version": 1, "options": {"dataset_name": "horses"}, "epoch": 1, **G}, str(run_folder / "latest.pth"))
    evaluate_it(run_folder, name="latest.pth")
    assert sorted(os.listdir("images/tiny/tiny")) == ["evaluate_latest_AB.png", "evaluate_latest_BA.png"]


def test_an_epoch_without_its_counterpart_does_not_spoil_the_others(run_folder, capsys):
    os.remove(run_folder / "G_BA_2.pth")
    records = evaluate_it(run_folder, "--all_checkpoints")
    assert [sorted(record["results"]) for record in records] == [["AB", "BA"], ["AB"]]
    out = capsys.readouterr().out
    assert "G_AB_2.pth: no counterpart in its folder, so BA is not measured" in out and "metrics.png" in out
    assert re.search(r"B -> A  identity mapping.*epoch +1 ", out)


def test_palette_is_for_colour(run_folder):
    for name in ("G_AB", "G_BA"):
        save_file(GeneratorResNet(1, 1, 8).state_dict(), str(run_folder / f"{name}_1.pth"))
    with pytest.raises(InputError, match="labels are RGB images"):
        evaluate_it(run_folder, "--palette", "cityscapes")


def test_an_incomplete_line_of_a_killed_run_does_not_swallow_the_next(tmp_path):
    path = str(tmp_path / "log.jsonl")
    evaluation.append_line(path, "")
    evaluation.append_line(path, "1")
    with open(path, "a") as file:
        file.write("half")
    evaluation.append_line(path, "2")
    evaluation.append_line(path, "3")
    assert open(path).read() == "1\nhalf\n2\n3\n"


##############################
#     More than 8 bits
##############################


def gray_set(folder, tmp_path, values):
    """Writes 16-bit gray test images with equal stems in both domains, and gray generators.
    values: {domain: uint16 (N, H, W)}"""
    for domain, several in values.items():
        for i, pixels in enumerate(several):
            Image.fromarray(pixels).save(tmp_path / f"data/tiny/test{domain}/{i}.png")
    for i, name in enumerate(("G_AB", "G_BA")):
        torch.manual_seed(i)
        save_file(GeneratorResNet(1, 1, 8).apply(weights_init_normal).state_dict(), str(folder / f"{name}_1.pth"))


def test_images_of_16_bits_are_measured_in_float32(run_folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    # details of less than one of 255 gray levels, which 8 bits do not have
    values = {domain: rng.integers(30_000, 30_200, (6, SIZE, SIZE)).astype(np.uint16) for domain in "AB"}
    gray_set(run_folder, tmp_path, values)
    record = evaluate_it(run_folder, "--paired")[0]
    a, b = (torch.from_numpy(values[d] / 65535 * 2 - 1).float()[:, None] for d in "AB")
    G_AB, G_BA = (load_generator(str(run_folder / f"G_{d}_1.pth")).network for d in ("AB", "BA"))
    with torch.no_grad():
        fake, same = G_AB(a), G_AB(b)
        recovered = G_BA(fake)

    def l1(x, y):
        return (x - y).abs().mean().item() * 127.5

    found = record["results"]["AB"]
    assert found["cycle_l1"] == pytest.approx(l1(recovered, a), rel=1e-5)
    assert found["identity_l1"] == pytest.approx(l1(same, b), rel=1e-5)
    assert found["change_l1"] == pytest.approx(l1(fake, a), rel=1e-5)
    assert found["paired_l1"] == pytest.approx(l1(fake, b), rel=1e-5)
    assert found["paired_psnr"] == pytest.approx(
        (10 * torch.log10(4 / (fake - b).square().mean((1, 2, 3)))).mean().item()
    )
    assert found["paired_ssim"] == pytest.approx(metrics.ssim(fake, b).mean().item(), rel=1e-5)
    in_8_bits = [scaled(((x + 1) * 127.5).round().byte()) for x in (fake, b)]
    assert found["paired_lpips"] == pytest.approx((in_8_bits[0] - in_8_bits[1]).square().mean().item(), rel=1e-4)
    assert record["untranslated"]["AB"]["paired_l1"] == pytest.approx(l1(a, b), rel=1e-5)
    features = MeanColour()
    real, written = (((x + 1) * 127.5).round().byte().expand(-1, 3, -1, -1) for x in (b, fake))
    assert found["fid_test"] == pytest.approx(distance(features(real), features(written)).compute()[0], rel=1e-3)
    sentence = f"A -> B, B -> A: {evaluation.PROTOCOL['more bits']}"
    assert sentence in record["protocol"] and sentence in capsys.readouterr().out
    assert evaluation.PROTOCOL["8 bits"] not in record["protocol"]


def test_values_of_8_bits_in_files_of_16_give_the_numbers_of_8_bits(run_folder, tmp_path):
    rng = np.random.default_rng(0)
    values = {domain: rng.integers(0, 256, (6, SIZE, SIZE)).astype(np.uint8) for domain in "AB"}
    results = []
    for several in (values, {domain: v.astype(np.uint16) * 257 for domain, v in values.items()}):
        gray_set(run_folder, tmp_path, several)
        results.append(evaluate_it(run_folder, "--paired")[-1])
    assert results[0]["results"] == results[1]["results"] and results[0]["protocol"] == results[1]["protocol"]


def test_images_of_16_bits_are_translated_in_float32_unless_asked(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "bfloat16_pays", lambda device: True)
    checkpoint = ["--checkpoint", str(run_folder / "G_AB_1.pth"), "--dataset_name", "tiny", "--img_height", "32",
                  "--img_width", "32", "--n_cpu", "0"]  # fmt: skip
    evaluate.main(checkpoint)
    assert "32 x 32 pixels, bfloat16" in capsys.readouterr().out  # the set has 8 bits
    gray_set(run_folder, tmp_path, {"B": np.full((6, SIZE, SIZE), 1000, np.uint16)})
    for options, precision in (([], "float32"), (["--amp"], "bfloat16")):
        evaluate.main([*checkpoint, *options])
        assert f"32 x 32 pixels, {precision}" in capsys.readouterr().out


##############################
#   Several translations
##############################


class AddsNoise(torch.nn.Module):
    """Adds `gain` times its noise to the image."""

    channels = out_channels = 3

    def __init__(self, gain):
        super().__init__()
        self.gain = gain
        use_noise(self, 1)

    def forward(self, x):
        return x + self.gain * self.fixed_noise[:, :, None, None]


def measured(folder, G, n_samples, paired=True, seed=4):
    data = find_data(str(folder.parent.parent / "data/tiny"), {"AB": G}, matched=True)
    settings = evaluation.Settings((SIZE, SIZE), torch.device("cpu"), False, 4, n_samples=n_samples, seed=seed)
    scores = Scores(AvailableMetrics(settings.device, size=settings.size), deep=True)
    data.deep["A"] = data.deep["B"] = True  # not rounded
    measure_samples("AB", G.eval(), data, scores, settings, paired, lambda G, x: G(x))
    return scores.compute()


def test_diversity_of_a_generator_that_adds_its_noise(run_folder):
    z = [Sample(4, n).noise(AddsNoise(0), torch.device("cpu")).item() for n in (1, 2, 3)]
    apart = [abs(z[0] - z[1]), abs(z[0] - z[2]), abs(z[1] - z[2])]
    small = 1e-3  # so that little is clipped
    found = measured(run_folder, AddsNoise(small), 3)
    assert found["diversity_l1"] == pytest.approx(small * np.mean(apart) * 127.5, rel=0.02)
    found = measured(run_folder, AddsNoise(0.0), 3)
    assert found["diversity_l1"] == found["diversity_lpips"] == 0
    assert found["best_l1"] == found["mean_l1"] and found["best_psnr"] == pytest.approx(found["mean_psnr"])


def test_the_best_of_n_is_the_best_by_each_measure():
    scores = Scores(AvailableMetrics(torch.device("cpu"), size=(16, 16)), deep=True)
    scores.available.lpips = None
    truth = torch.zeros(2, 3, 16, 16)
    samples = [torch.full_like(truth, 0.2), torch.full_like(truth, -0.1), torch.full_like(truth, 0.4)]
    samples[0][1], samples[1][1] = 0.3, 0.6
    diversity.add_diversity(scores, samples)
    diversity.add_quality(scores, samples, truth)
    found = scores.compute()
    # distances of the pairs: 0.3, 0.2, 0.5 of the first image; 0.3, 0.1, 0.2 of the second
    assert found["diversity_l1"] == pytest.approx(127.5 * 1.6 / 6, rel=1e-5) and "diversity_lpips" not in found
    assert found["best_l1"] == pytest.approx(127.5 * (0.1 + 0.3) / 2, rel=1e-5)
    assert found["mean_l1"] == pytest.approx(127.5 * (0.7 / 3 + 1.3 / 3) / 2, rel=1e-5)
    psnr = [[10 * np.log10(4 / v**2) for v in values] for values in ((0.2, 0.1, 0.4), (0.3, 0.6, 0.4))]
    assert found["best_psnr"] == pytest.approx(np.mean([max(values) for values in psnr]), rel=1e-4)
    assert found["mean_psnr"] == pytest.approx(np.mean(psnr), rel=1e-4)
    ssim = [[metrics.ssim(s[i : i + 1], truth[i : i + 1]).item() for s in samples] for i in (0, 1)]
    assert found["best_ssim"] == pytest.approx(np.mean([max(values) for values in ssim]), rel=1e-5)
    assert found["mean_ssim"] == pytest.approx(np.mean(ssim), rel=1e-5)


def test_n_samples(run_folder, tmp_path, capsys):
    torch.manual_seed(0)
    options = dict(n_residual_blocks=1, ngf=8, noise_channels=2)
    generators = {d: build.make_generator(options, 3, 3).apply(weights_init_normal).eval() for d in ("AB", "BA")}
    for d, G in generators.items():
        contents = {"generator": options | {"channels": 3, "out_channels": 3}, "weights": G.state_dict()}
        save_file(contents, str(run_folder / f"G_{d}_1.pth"))
    without, found = (
        evaluate_it(run_folder, "--paired", *words)[-1] for words in ((), ("--n_samples", "3", "--seed", "5"))
    )
    names = [f"{i}.png" for i in range(6)]
    a, b = (images(tmp_path / f"data/tiny/test{d}", names) for d in "AB")
    with torch.no_grad():
        z = [Sample(5, n).noise(generators["AB"], torch.device("cpu")) for n in (1, 2, 3)]
        seen = [scaled(((generators["AB"](scaled(a), noise=one) + 1) * 127.5).round().byte()) for one in z]
    apart = [(seen[i] - seen[j]).abs().mean() * 127.5 for i, j in ((0, 1), (0, 2), (1, 2))]
    errors = torch.stack([(one - scaled(b)).abs().mean((1, 2, 3)) * 127.5 for one in seen])
    results = found["results"]["AB"]
    assert results["diversity_l1"] == pytest.approx(torch.stack(apart).mean().item(), rel=0.01) and min(apart) > 1
    assert results["best_l1"] == pytest.approx(errors.amin(0).mean().item(), rel=1e-3)
    assert results["mean_l1"] == pytest.approx(errors.mean().item(), rel=1e-3)
    new = {name for name in MEASURES if name.startswith(("diversity", "best", "mean"))}
    assert len(new) == 8 and results.keys() - new == without["results"]["AB"].keys()
    assert all(results[name] == value for name, value in without["results"]["AB"].items())
    assert any(line.startswith("samples are 3 translations of each input with seed 5") for line in found["protocol"])
    output = capsys.readouterr().out
    assert all(MEASURES[name][0] in output for name in new)
    with pytest.raises(InputError, match="--seed: has no effect without --n_samples"):
        evaluate_it(run_folder, "--seed", "5")
    with pytest.raises(InputError, match="--n_samples: .*G_AB_2.pth has one translation of each image only"):
        evaluate_it(run_folder, "--n_samples", "2", name="G_AB_2.pth")
