"""export.py and compress.py with generators that were trained with --range_A, --range_B and --keep_aspect."""

import json
import os

import numpy as np
import pytest
import tifffile
import torch
from helpers import SMALL

import compress
import cyclegan
import export
import translate
from datasets import ImageDataset
from deploy import comparison, compression, formats
from inference import load_translator
from inference.exported import Exported, check_facts
from inference.generator import TrainedGenerator
from inference.load import load_generator
from measuring.evaluation import evaluate
from models import GeneratorResNet, weights_init_normal

pytestmark = pytest.mark.slow

CT, DEPTH = (-1000.0, 2000.0), (0.0, 4095.0)
WORDS = ["--channels", "1", "--range_A", "-1000", "2000", "--range_B", "0", "4095", "--keep_aspect"]


@pytest.fixture
def trained(tmp_path, monkeypatch, no_downloads):
    """A CycleGAN trained on Hounsfield units and depths, for one epoch -> the path of its checkpoint"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compression, "in_rounds", lambda builds, *_, **__: {name: {"seconds": 1} for name in builds})
    rng = np.random.default_rng(0)
    for domain, (low, high) in (("A", CT), ("B", DEPTH)):
        for part, n in (("train", 4), ("test", 3)):
            os.makedirs(f"data/tiny/{part}{domain}")
            for i in range(n):
                small = rng.uniform(low, high, (5, 8))
                values = small.repeat(8, 0).repeat(8, 1).astype(np.int16)
                tifffile.imwrite(f"data/tiny/{part}{domain}/{i}.tif", values)
    cyclegan.main([*SMALL, *WORDS, "--n_epochs", "1"])
    return "saved_models/tiny/latest.pth"


@pytest.mark.parametrize("kind", ["onnx", "pt2", "int8"])
def test_an_exported_file_keeps_the_ranges(kind, trained):
    words = ["--psnr", "20"] if kind == "int8" else []
    export.main(["--checkpoint", trained, "--direction", "AB", "--format", kind, *words])
    _, _, suffix, _ = formats.FORMATS[kind]
    path = f"saved_models/tiny/G_AB_1{suffix}{formats.FORMATS[kind].extension}"
    known = load_generator(path, trust=True)
    assert known.network.ranges == [CT, DEPTH] and known.options["keep_aspect"]
    results = []
    for name, output in ((trained, "one"), (path, "other")):
        status = translate.main(["--checkpoint", name, "--trust", "--input", "data/tiny/testA", "--output", output,
                                 "--device", "cpu", "--no-amp"])  # fmt: skip
        assert status == 0
        results.append(tifffile.imread(f"{output}/0.tif"))
    assert results[0].dtype == results[1].dtype == np.uint16 and 0 <= results[1].min() and results[1].max() <= 4095
    difference = np.abs(results[0].astype(int) - results[1])
    if kind == "int8":
        assert difference.mean() < 0.05 * 4095
    else:
        assert difference.max() <= 1
    one, other = load_translator(trained, "AB"), load_translator(path, trust=True)
    values = tifffile.imread("data/tiny/testA/0.tif")
    assert np.abs(one(values).astype(int) - other(values)).mean() < 0.05 * 4095


def test_exported_files_are_evaluated_in_their_ranges(trained):
    export.main(["--checkpoint", trained, "--direction", "AB"])
    found = [
        evaluate(path, counterpart=counterpart, direction="AB", dataset_name="tiny", amp=False, n_cpu=0)[1]["AB"]
        for path, counterpart in ((trained, None), ("saved_models/tiny/G_AB_1.onnx", trained))
    ]
    G_AB, G_BA = (load_generator(trained, direction).network for direction in ("AB", "BA"))
    test = ImageDataset("data/tiny", "test", img_size=(32, 32), channels=1, ranges=(CT, DEPTH), keep_aspect=True)
    a, b = (torch.stack([test[i][domain] for i in range(3)]) for domain in "AB")
    with torch.no_grad():
        errors = {"cycle_l1": G_BA(G_AB(a)) - a, "identity_l1": G_AB(b) - b, "change_l1": G_AB(a) - a}
    for name, error in errors.items():
        assert found[0][name] == pytest.approx(error.abs().mean().item() * 127.5, rel=1e-4)
    assert found[0].keys() == found[1].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_files_are_compared_and_calibrated_on_values_in_their_range(trained):
    images = comparison.ExportImages(load_generator(trained, "AB"))
    loaded = images.load(images.compared[:1], (32, 32))
    values = tifffile.imread(images.compared[0])  # 40 x 64
    assert loaded.shape == (1, 1, 32, 32) and loaded.min() >= -1 and loaded.max() <= 1
    expected = (values[:, 12:52].mean() + 1000) / 1500 - 1  # the centre, 40 x 40
    assert loaded.mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("trained_with", [None, CT])
def test_metadata_names_a_range_only_if_there_is_one(trained_with):
    G = GeneratorResNet(1, 1, 4).apply(weights_init_normal)
    if trained_with:
        G.ranges = [trained_with, None]
    facts = formats.metadata(TrainedGenerator(G, "G.pth"), "float32")
    assert facts.get("range_in") == ("-1000.0 2000.0" if trained_with else None) and "range_out" not in facts
    assert facts["value_range"] == "-1 to 1" and "keep_aspect" not in facts
    assert check_facts(json.loads(json.dumps(facts)))["ranges"] == [trained_with, None]


@pytest.mark.parametrize("wrong", ["5", "2 1", "nan 1", "a b", [1, 2], {"a": 1}])
def test_a_range_that_is_none_in_metadata(wrong):
    G = GeneratorResNet(1, 1, 4)
    facts = formats.metadata(TrainedGenerator(G, "G.pth"), "float32") | {"range_out": wrong}
    with pytest.raises(ValueError):
        check_facts(facts)


def test_a_damaged_range_is_one_line(tmp_path):
    from inference.exported import without_warnings
    from utils import InputError

    facts = dict(channels=1, out_channels=1, multiple=1, smallest=1, range_in="5 x")
    path = str(tmp_path / "x.ts")
    with without_warnings():
        traced = torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 8, 8))
        torch.jit.save(traced, path, _extra_files={"facts.json": json.dumps(facts)})
    with pytest.raises(InputError, match="x.ts: not written by export.py, .*5 x is not two numbers"):
        Exported(path, trust=True)


##############################
#     compress.py
##############################

COMMON = ["--device", "cpu", "--no-amp", "--sample_interval", "0", "--n_epochs", "1"]


def last_record(run_name):
    return json.loads(open(f"saved_models/{run_name}/metrics.jsonl").readlines()[-1])


@pytest.mark.parametrize("way, direction", [("prune", "AB"), ("distill", "AB"), ("distill", "BA")])
def test_smaller_generators_keep_the_ranges(way, direction, trained, capsys):
    words = ["--keep", "0.5"] if way == "prune" else ["--direction", direction, "--ngf", "2"]
    assert not compress.main([way, "--checkpoint", trained, *words, *COMMON])
    name = "tiny_pruned" if way == "prune" else "tiny_student"
    said = capsys.readouterr().out
    assert "--range_A -1000 2000 --range_B 0 4095" in said or way == "distill"
    ranges = [CT, DEPTH] if direction == "AB" else [DEPTH, CT]
    for file in ("latest.pth", f"G_{direction}_1.pth"):
        assert load_generator(f"saved_models/{name}/{file}", direction).network.ranges == ranges
    for run in ("tiny", name):
        record = last_record(run)
        assert record["ranges"] == {"A": list(CT), "B": list(DEPTH)}
        assert "their centre is taken" in record["protocol"][0] and "cycle_l1" in record["results"][direction]
    status = translate.main(["--checkpoint", f"saved_models/{name}/latest.pth", "--direction", direction, "--input",
                             f"data/tiny/test{direction[0]}/0.tif", "--output", "out.tif", "--device", "cpu"])  # fmt: skip
    assert status == 0 and tifffile.imread("out.tif").dtype == (np.uint16 if direction == "AB" else np.int16)
