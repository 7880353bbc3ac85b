"""benchmarks.speed measures what it says. No test here depends on how long anything takes."""

import json
import os
import sys
import time

import pytest
import torch

from benchmarks import speed as benchmark
from benchmarks import training
from benchmarks.baseline import baseline_step, load_baseline
from measuring import timing
from utils import InputError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = "--sizes 32 --ngf 4 --ndf 4 --n_residual_blocks 1 --runs 1 --device cpu".split()

PYTORCH_GAN = """
from torch import nn
class GeneratorResNet(nn.Module):
    def __init__(self, input_shape, num_residual_blocks):
        super().__init__()
        assert input_shape == (3, 32, 32) and num_residual_blocks == 9
        self.model = nn.Conv2d(3, 3, 3, padding=1)
    def forward(self, x):
        return self.model(x).tanh()
class Discriminator(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.model = nn.Conv2d(input_shape[0], 1, 4, stride=4)
    def forward(self, x):
        return self.model(x)
"""
AUTHORS = """
from torch import nn
def ResnetGenerator(input_nc, output_nc, ngf, norm_layer, n_blocks):
    assert (input_nc, output_nc, ngf, n_blocks) == (3, 3, 64, 9) and not norm_layer(4).affine
    return nn.Conv2d(3, 3, 3, padding=1)
def NLayerDiscriminator(input_nc, ndf, n_layers, norm_layer):
    assert (input_nc, ndf, n_layers) == (3, 64, 3)
    return nn.Conv2d(3, 1, 4, stride=4)
"""


@pytest.fixture
def checkouts(tmp_path, monkeypatch, script):
    """Folders that look like other projects, in the working directory."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("gan")
    os.makedirs("authors/models")
    open("gan/models.py", "w").write(PYTORCH_GAN)
    open("authors/models/networks.py", "w").write(AUTHORS)
    os.makedirs("newer/models")
    os.makedirs("newer/util")
    open("newer/models/networks.py", "w").write(
        "from . import base\nfrom .base import ResnetGenerator\nfrom ..util.tools import NLayerDiscriminator\n"
        "from util.tools import mark\nfrom models.base import nn\nassert mark == 'theirs'"
    )
    open("newer/models/__init__.py", "w").write("raise ImportError('needs packages that nobody has')")
    open("newer/models/base.py", "w").write(AUTHORS)
    open("newer/util/tools.py", "w").write(AUTHORS + "mark = 'theirs'")
    os.makedirs("empty")
    os.makedirs("earlier")
    os.link(script("models.py"), "earlier/models.py")


def test_all_parts_are_printed_and_logged(checkouts, capsys, monkeypatch):
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: None
    )  # saves half a minute of C++ compilation
    benchmark.main([*TINY, "--ablate", "--baseline", "gan", "--batch_sizes", "2", "--accumulate", "2", "--rounds", "1",
                    "--output", "new/results.jsonl"])  # fmt: skip
    benchmark.main([*TINY, "--parts", "training", "translation", "--output", "new/results.jsonl", "--rounds", "1",
                    "--compile", "--checkpoint_activations"])  # fmt: skip
    out = capsys.readouterr().out
    records = [json.loads(line) for line in open("new/results.jsonl")]
    assert len(records) == 2 and records[0]["torch"] == torch.__version__ and records[0]["options"]["ngf"] == 4
    rows = records[0]["results"]
    assert {(row["part"], row["size"], row["batch"]) for row in rows} == {(part, 32, 2) for part in benchmark.PARTS}
    trained = {row["what"]: row for row in rows if row["part"] == "training"}
    ablations = set(training.ABLATIONS) - {"without CUDA graph"}  # there is no CUDA graph on a CPU
    assert set(trained) == {"cyclegan.py", "baseline", *ablations}
    for row in rows:
        assert 0 < row["min"] <= row["seconds"] <= row["max"] and row["memory_gib"] >= 0
        assert row["what"] in out
    for row in trained.values():  # two domains, two batches of two
        assert row["images_per_s"] == pytest.approx(2 * 2 * 2 / row["seconds"])
        dtype = "float32" if {"baseline", "without bfloat16", "without all of these"} & {row["what"]} else "bfloat16"
        rate = records[0]["matmul_tflops"].get(dtype, records[0]["matmul_tflops"]["float32"])
        assert row["share_of_matmul"] == pytest.approx(row["tflops"] / rate)
    translation = {row["what"] for row in rows if row["part"] == "translation"}
    assert "baseline, float32" in translation and "translate.py, pixels to pixels" in translation
    assert "other options: --compile --checkpoint_activations" in out and "other options: --accumulate 2" in out
    assert {"cyclegan.py", "generator, compiled"} <= {row["what"] for row in records[1]["results"]}
    assert os.listdir("new") == ["results.jsonl"]


def test_bad_options_are_one_line_errors_before_anything_is_timed(checkouts, capsys):
    os.makedirs("broken")
    open("broken/models.py", "w").write("import no_such_package")
    os.makedirs("other")
    open("other/models.py", "w").write("x = 1")
    open("file", "w").close()
    for argv, words in (
        (["--baseline", "broken"], "--baseline broken: .*models.py cannot be imported .*no_such_package"),
        (["--baseline", "other"], "--baseline other: models.py has no GeneratorResNet"),
        (["--sizes", "34"], "--sizes 34: must be divisible by 4"),
    ):
        with pytest.raises(InputError, match=words):
            benchmark.main([*TINY, *argv])
    with pytest.raises(OSError):
        benchmark.main([*TINY, "--output", "file/x.jsonl"])
    assert "training" not in capsys.readouterr().out


def test_measurements_before_an_error_are_kept(checkouts, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setitem(benchmark.PARTS, "translation", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        benchmark.main(TINY)
    record = json.loads(open("benchmark.jsonl").readline())
    assert {row["part"] for row in record["results"]} == {"training"}


@pytest.mark.parametrize("folder", ["gan", "authors", "newer", "earlier"])
def test_other_projects_networks_train(checkouts, folder):
    ours = sys.modules["models"]
    make_G, make_D = load_baseline(folder)
    step = baseline_step(make_G, make_D, CPU, 32, 1)
    losses = [step() for _ in range(2)]
    assert sys.modules["models"] is ours
    assert len(losses[0]) == 6 and losses[0][0] != losses[1][0]  # losses are numbers, and they change
    assert losses[0][0] == pytest.approx(losses[0][1] + 10 * losses[0][2] + 5 * losses[0][3], rel=1e-5)


def test_a_folder_without_networks_is_a_one_line_error(checkouts, capsys):
    for folder in ("empty", "nowhere"):
        with pytest.raises(InputError, match=f"--baseline {folder}: contains neither models.py"):
            benchmark.main([*TINY, "--baseline", folder])
    assert capsys.readouterr().out == "" and "benchmark.jsonl" not in os.listdir()


def test_operations_are_those_of_the_paper():
    """One forward pass of the default generator: 49.55 G multiply-adds, transposed convolutions on their input grid."""
    from models import Discriminator, GeneratorResNet

    with torch.device("meta"):
        G, D, x = GeneratorResNet(), Discriminator(), torch.empty(1, 3, 256, 256)
    assert timing.count_flops(lambda: G(x)) == pytest.approx(2 * 49.55e9, rel=1e-3)
    assert timing.count_flops(lambda: D(x)) == pytest.approx(2 * 3.15e9, rel=1e-2)
    # a step: six translations, and the same twice over for the gradients; the discriminators add 3%
    opt = benchmark.get_parser().parse_args([])
    step = timing.count_flops(training.step_on_meta(opt, 256, 1))
    assert step == pytest.approx(6 * 3 * 2 * 49.55e9, rel=0.06)
    opt = benchmark.get_parser().parse_args([*TINY, "--compile", "--checkpoint_activations", "--accumulate", "2"])
    here = training.our_step(benchmark.get_parser().parse_args([*TINY, "--accumulate", "2"]), CPU, 32, 3)
    assert timing.count_flops(training.step_on_meta(opt, 32, 3)) == timing.count_flops(here)


def test_ablations_change_the_step_but_not_its_results():
    opt = benchmark.get_parser().parse_args(TINY)
    seen = []

    def watch(step_changes):
        """Returns the size of each batch that the generators see in a step, and whether it is bfloat16; and the losses."""
        import models

        original = models.GeneratorResNet.forward
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                models.GeneratorResNet,
                "forward",
                lambda self, x: (seen.append((len(x), torch.is_autocast_enabled("cpu"))), original(self, x))[1],
            )
            seen.clear()
            losses = training.our_step(opt, CPU, 32, 2, **step_changes)()
        return list(seen), losses

    usual, losses = watch({})
    assert [n for n, _ in usual] == [4, 4, 2, 2]
    apart, same = watch({"one_pass": False, "amp": False})
    assert [n for n, _ in apart] == [2] * 6 and not any(low for _, low in apart)
    torch.testing.assert_close(losses, same, atol=0.05, rtol=0.05)
    for changes in ({"group_norm": True, "channels_last": True, "amp": False}, {"fused": False, "amp": False}):
        torch.testing.assert_close(watch(changes)[1], same, atol=1e-4, rtol=1e-4)
    fused = training.our_step(opt, CPU, 32, 1, checkpoint_activations=True, amp=False)()
    torch.testing.assert_close(fused, training.our_step(opt, CPU, 32, 1, amp=False)(), atol=1e-5, rtol=1e-5)


def test_a_short_call_is_repeated_until_it_can_be_timed():
    calls = [0]

    def short():
        calls[0] += 1

    times = timing.seconds(short, CPU, 2, at_least=0.001)
    assert len(times) == 2 and calls[0] > 4 and all(t > 0 for t in times)


def test_each_candidate_is_built_warmed_up_and_timed_in_each_round():
    said = []

    def candidate(name):
        said.append("build " + name)
        return lambda: (said.append(name), time.sleep(0.05))

    rows = timing.in_rounds({n: lambda n=n: candidate(n) for n in "ab"}, CPU, rounds=3, runs=1)
    assert said == ["build a", "a", "a", "build b", "b", "b"] * 3
    assert rows["a"]["min"] >= 0.05


def test_current_and_peak_memory():
    if not os.path.exists("/proc/self/clear_refs"):
        pytest.skip("requires Linux")
    before = timing.memory(CPU)
    timing.reset_peak(CPU)
    block = torch.ones(50_000_000)
    assert timing.memory(CPU) - before > 150e6
    del block
    assert timing.memory(CPU) - before < 100e6 < 150e6 < timing.memory(CPU, peak=True) - before
