"""benchmarks/compare.py: trains the variants, reports the results, and repeats nothing."""

import json
import os

import pytest
from PIL import Image

from benchmarks import compare
from get_data import demo as demo_data
from variants import build as variants

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Four scenes and tiny networks -> {name: options} of two variants that train and one that fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_data, "N_TRAIN", 4)
    monkeypatch.setattr(demo_data, "N_TEST", 2)
    tiny = "--ngf 4 --ndf 4 --n_residual_blocks 1 --no-amp "
    variants = {
        "default": tiny,
        "paired": f"{tiny} --lambda_paired 10 --pairs {compare.PAIRS}",
        "wrong": tiny + "--img_height 63",
    }
    monkeypatch.setattr(compare, "VARIANTS", variants)
    return variants


def test_a_comparison(small, capfd):
    assert compare.main(["--only", "paired", "--n_epochs", "1", "--device", "cpu"]) == 0
    results = [json.loads(line) for line in open("saved_models/compare/results.jsonl")]
    assert [r["name"] for r in results] == ["default", "paired"]
    for r in results:
        assert all(0 <= share <= 1 for share in (*r["AB"], *r["BA"])) and r["cycle"] > 0 and r["parameters_G"] < 20_000
    steps = [json.loads(line)["step"] for line in open("saved_models/compare_paired_1/log.jsonl")]
    assert max(steps) == 4 + 30  # including the scenes drawn with both animals
    out = capfd.readouterr().out
    assert "| paired |" in out and "pairs" not in out.split("| paired |")[1]
    assert Image.open("images/compare.jpg").width == 4 * 256

    assert compare.main(["--only", "paired", "wrong", "--n_epochs", "1", "--device", "cpu"]) == 1
    results = [json.loads(line) for line in open("saved_models/compare/results.jsonl")]
    assert [r["name"] for r in results] == ["default", "paired", "wrong"]
    assert "error" in results[2] and "--img_height 63" in capfd.readouterr().out


def test_costs_train_nothing_and_the_sheet_goes_to_its_file(small, capsys):
    assert compare.main(["--costs"]) is None and os.listdir() == []
    assert capsys.readouterr().out == "\n".join(compare.costs_table()) + "\n"
    small.pop("paired")
    assert compare.main(["--only", "default", "--n_epochs", "1", "--device", "cpu", "--sheet", "here.jpg"]) == 0
    assert Image.open("here.jpg").format == "JPEG" and not os.path.exists("images/compare.jpg")


def test_costs_of_known_networks():
    assert compare.costs(variants.make_generator({}, 3, 3), (256, 256)) == (11_378_179, 49_551_507_456)
    parameters, products = compare.costs(variants.make_discriminator({}, 3), (256, 256))
    assert parameters == 2_764_737 and abs(products / 1e9 - 3.15) < 0.01
    assert all(os.path.sep not in compare.run_name(name, 3) for name in compare.VARIANTS)
