"""evaluate.py on data with --range_A, --range_B and --keep_aspect: images are read as the training reads them."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import evaluate
from datasets import ImageDataset
from inference.generator import TrainedGenerator
from measuring import evaluation, labels, metrics
from measuring.images import stack_images
from measuring.palettes import CITYSCAPES
from measuring.results import results_table
from utils import InputError

SIZE = 32
DEPTH, CT = (500.0, 8000.0), (-1000.0, 2000.0)


class Function(nn.Module):
    """A generator that computes a known function. It is what evaluate.py needs of a generator."""

    multiple, smallest = 4, 32

    def __init__(self, function, ranges=(None, None), channels=1):
        super().__init__()
        self.function, self.channels, self.out_channels = function, channels, channels
        if any(ranges):
            self.ranges = list(ranges)

    def forward(self, x):
        return self.function(x)


class MeanColour(nn.Module):
    """Replaces the Inception network."""

    def forward(self, images):
        return torch.cat((images.float().mean((2, 3)), images.float().std((2, 3))), 1)


@pytest.fixture
def measure(tmp_path, monkeypatch, no_downloads):
    """measure({direction: generator}, option, ..., options of the training) -> the line of metrics.jsonl"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metrics, "inception", lambda weights, resize: MeanColour())
    os.makedirs("saved_models/tiny")

    def run(generators, *words, **options):
        options = dict(dataset_name="tiny", img_height=SIZE, img_width=SIZE) | options
        path = "saved_models/tiny/latest.pth"
        found = {d: TrainedGenerator(G, path, d, 1, options) for d, G in generators.items()}
        monkeypatch.setattr(evaluation, "load_generators", lambda *_, **__: found)
        evaluate.main(["--checkpoint", path, "--n_cpu", "0", "--device", "cpu", "--no-amp", *words])
        return json.loads(open("saved_models/tiny/metrics.jsonl").readlines()[-1])

    return run


def save(domain, name, values):
    os.makedirs(f"data/tiny/test{domain}", exist_ok=True)
    path = f"data/tiny/test{domain}/{name}"
    np.save(path, values) if name.endswith(".npy") else Image.fromarray(values).save(path)


def depth_images(n=3, top=7250):
    """Values of a depth camera in mm, which stay below 8000 if a tenth of the range, 750, is added"""
    return np.random.default_rng(0).integers(500, top + 1, (n, SIZE, SIZE)).astype(np.uint16)


def both(function, ranges):
    return {"AB": Function(function, ranges), "BA": Function(function, ranges[::-1])}


def test_a_generator_that_changes_nothing_has_no_error(measure, capsys):
    for domain in "AB":
        for i, values in enumerate(depth_images()):
            save(domain, f"{i}.png", values)
    record = measure(both(lambda x: x, (DEPTH, DEPTH)), "--paired")
    found = record["results"]["AB"]
    for name in ("cycle_l1", "identity_l1", "change_l1", "paired_l1", "fid_test"):
        assert found[name] == pytest.approx(0, abs=1e-4), name
    assert found["paired_ssim"] == pytest.approx(1) and found["paired_psnr"] == 100
    assert record["results"]["BA"] == found and record["ranges"] == {"A": [500, 8000], "B": [500, 8000]}
    assert "images of A are read in the range 500 to 8000, which becomes 0 to 255: an L1 of 1 is 29.41" in (
        capsys.readouterr().out
    )


def test_a_tenth_of_the_range_is_an_error_of_25_of_255(measure, capsys):
    for domain in "AB":
        for i, values in enumerate(depth_images()):
            save(domain, f"{i}.png", values)
    record = measure(both(lambda x: x + 0.2, (DEPTH, DEPTH)), "--paired")
    found = record["results"]["AB"]
    for name in ("identity_l1", "change_l1", "paired_l1"):
        assert found[name] == pytest.approx(25.5, abs=1e-4), name
    assert found["cycle_l1"] == pytest.approx(51, abs=1e-4)
    assert found["paired_psnr"] == pytest.approx(20, abs=1e-4)  # a tenth of the peak
    assert found["fid_test"] == pytest.approx(3 * 25.5**2, rel=1e-2)  # three channels, whose means are shifted
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split(",")[0]: lines[i + 1].split() for i, line in enumerate(lines) if ", L1, of 255" in line}
    assert rows["paired ground truth"] == [*"in the values of the files".split(), "750", "750"]
    assert rows["cycle reconstruction"][-2:] == ["1500", "1500"] and rows["identity mapping"][-1] == "750"


def test_each_domain_has_its_own_range(measure):
    for i, values in enumerate(depth_images()):
        save("A", f"{i}.png", values)
        save("B", f"{i}.npy", (values - 500) / np.float32(7500) * 3000 - 1000)  # the same scene in Hounsfield units
    record = measure(both(lambda x: x, (DEPTH, CT)), "--paired")
    for direction in ("AB", "BA"):
        for name in ("cycle_l1", "identity_l1", "change_l1", "paired_l1"):
            assert record["results"][direction][name] == pytest.approx(0, abs=1e-3), name
    found = record | measure(both(lambda x: x + 0.2, (DEPTH, CT)), "--paired")
    table = "\n".join(results_table(found["results"], {}, {}, [], found["ranges"]))
    cycle, identity, paired = (
        [line.split()[-2:] for line in table.splitlines() if "in the values" in line][i] for i in range(3)
    )
    assert cycle == ["1500", "600"] and identity == ["300", "750"] and paired == ["300", "750"]


def test_a_domain_without_a_range_is_read_as_before(measure):
    for i, values in enumerate(depth_images()):
        save("A", f"{i}.png", values)
        save("B", f"{i}.png", ((values - 500) / 7500 * 255).round().astype(np.uint8))
    record = measure(both(lambda x: x, (DEPTH, None)), "--paired")
    found = record["results"]
    assert 0.2 < found["AB"]["paired_l1"] < 0.3  # B was rounded to 8 bits
    assert found["BA"]["identity_l1"] == pytest.approx(0, abs=1e-4) and record["ranges"]["B"] is None
    table = results_table(found, {}, {}, [], record["ranges"])
    rows = [line.split()[-2:] for line in table if "in the values" in line]
    assert rows[0] == [f"{found['AB']['cycle_l1'] / 255 * 7500:.4g}", "-"]


def test_generators_of_different_ranges_are_refused(measure):
    for domain in "AB":
        save(domain, "0.png", depth_images()[0])
    generators = {"AB": Function(lambda x: x, (DEPTH, CT)), "BA": Function(lambda x: x)}
    with pytest.raises(InputError, match="--counterpart: .* different ranges .*exported again"):
        measure(generators)
    assert not os.path.exists("saved_models/tiny/metrics.jsonl")


def test_palette_and_a_range_exclude_each_other(measure):
    colours = np.array(list(CITYSCAPES.classes.values()), np.uint8)[np.zeros((SIZE, SIZE), int)]
    for domain in "AB":
        save(domain, "0.png", colours)
    generators = {d: Function(lambda x: x, (DEPTH, DEPTH), channels=3) for d in ("AB", "BA")}
    with pytest.raises(InputError, match="--palette cityscapes: labels are .* --range_A. Omit --palette"):
        measure(generators, "--palette", "cityscapes", "--direction", "BA")


##############################
#     Shape
##############################


def wide(domain, name="0.png"):
    """A picture of 64 x 32 whose middle is white and whose sides are black"""
    pixels = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    pixels[:, SIZE // 2 : -SIZE // 2] = 255
    save(domain, name, pixels)


def test_keep_aspect_takes_the_centre_as_trained(measure, capsys):
    for domain in "AB":
        wide(domain)
    white = {d: Function(torch.ones_like, channels=3) for d in ("AB", "BA")}
    errors = {}
    for name, words, options in (
        ("kept", [], {"keep_aspect": True}), ("asked", ["--keep_aspect"], {}),
        ("squashed", [], {}), ("refused", ["--no-keep_aspect"], {"keep_aspect": True}),
    ):  # fmt: skip
        record = measure(white, *words, **options)
        errors[name] = record["results"]["AB"]["change_l1"], record["results"]["AB"]["identity_l1"]
        line = evaluation.PROTOCOL["aspect" if name in ("kept", "asked") else "size"]
        assert record["protocol"][0] == line and line in capsys.readouterr().out
    assert errors["kept"] == errors["asked"] == (0, 0)
    assert errors["squashed"] == errors["refused"] and errors["squashed"][0] == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("value_range", [None, (0, 127.5)])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_images_are_those_of_the_training(tmp_path, monkeypatch, keep_aspect, value_range):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for domain, shape in (("A", (40, 90, 3)), ("B", (70, 50, 3))):
        save(domain, "0.png", rng.integers(0, 256, shape).astype(np.uint8))
    dataset = ImageDataset("data/tiny", "test", img_size=(SIZE, 48), keep_aspect=keep_aspect,
                           ranges=(value_range, value_range))  # fmt: skip
    for domain in "AB":
        read = stack_images([f"data/tiny/test{domain}/0.png"], (SIZE, 48), 3, True, keep_aspect, value_range)
        assert torch.equal(read[0], dataset[0][domain])


def test_more_than_8_bits_are_kept_in_a_range(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = depth_images(1)[0]
    save("A", "0.png", values)
    read = stack_images(["data/tiny/testA/0.png"], (SIZE, SIZE), 1, True, False, DEPTH)
    assert ((read[0, 0].double().numpy() + 1) / 2 * 7500 + 500).round().astype(int).tolist() == values.tolist()
    coarse = stack_images(["data/tiny/testA/0.png"], (SIZE, SIZE), 1, value_range=DEPTH)  # for FID
    assert coarse.dtype == torch.uint8 and np.abs(coarse[0, 0].numpy() - (values - 500.0) / 7500 * 255).max() < 0.51


def test_labels_are_cut_like_their_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = np.full((SIZE, 2 * SIZE), 3)
    classes[:, SIZE // 2 : -SIZE // 2] = 5
    colours = np.array(list(CITYSCAPES.classes.values()), np.uint8)
    save("A", "0.png", colours[classes])
    path = "data/tiny/testA/0.png"
    assert (labels.load_labels(path, (SIZE, SIZE), CITYSCAPES, keep_aspect=True) == 5).all()
    squashed = labels.load_labels(path, (SIZE, SIZE), CITYSCAPES)
    assert (squashed == 3).mean() == 0.5 and (squashed == 5).mean() == 0.5
    references, absent = labels.label_references([path], [path], (SIZE, SIZE), CITYSCAPES, keep_aspect=True)
    assert all(scores["class_iou"] == 1 for scores in references.values()) and len(absent) == 18


##############################
#     What is printed
##############################


def test_ssim_is_explained_only_if_it_is_measured(measure):
    for domain in "AB":
        for i, values in enumerate(depth_images()):
            save(domain, f"{i}.png", values)
    generators = both(lambda x: x, (None, None))
    assert evaluation.PROTOCOL["ssim"] not in measure(generators)["protocol"]
    record = measure(generators, "--paired")
    assert evaluation.PROTOCOL["ssim"] in record["protocol"] and "ranges" not in record
    for domain in "AB":
        save(domain, "0.png", depth_images()[0])
    data, available = evaluation.find_data("data/tiny", generators), metrics_without_ssim()
    settings = evaluation.Settings((64, 64), torch.device("cpu"), amp=False)
    assert evaluation.PROTOCOL["ssim"] not in evaluation.protocol_lines(data, available, ["AB"], settings, paired=True)


def metrics_without_ssim():
    from measuring.scores import AvailableMetrics

    return AvailableMetrics(torch.device("cpu"), size=(8, 8))


def test_equal_notes_on_both_domains_are_one(measure, capsys):
    for domain in "AB":
        save(domain, "0.png", depth_images()[0])
        open(f"data/tiny/test{domain}/notes.txt", "w").close()
    measure(both(lambda x: x, (None, None)))
    notes = [line for line in capsys.readouterr().out.splitlines() if "ignored" in line]
    assert notes == ["note: data/tiny/testA and data/tiny/testB: ignored 1 other file, such as notes.txt"]
