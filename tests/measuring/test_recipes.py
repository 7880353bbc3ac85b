"""benchmarks/recipes.py: equal time, runs that are continued and not repeated, and the table."""

import json
import os

import pytest
from PIL import Image

import cyclegan
from benchmarks import recipe_results, recipes
from utils import InputError

NETWORK = "--n_residual_blocks 1 --ngf 4 --ndf 4 --pool_size 3 --no-amp"


@pytest.fixture
def small(make_set, tmp_path, monkeypatch):
    """small("--option", ...) compares two recipes on a set of two test pairs."""
    make_set(size=(40, 40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "RECIPES", {"paper": "", "no cycle": "--lambda_cyc 0", "wrong": "--img_height 33"})
    words = [
        "--sets",
        "tiny",
        "--size",
        "32",
        "--network",
        NETWORK,
        "--n_iters",
        "2",
        "--device",
        "cpu",
        "--processes",
        "1",
    ]
    return lambda *more: recipes.main([*words, *more])


def results():
    return [json.loads(line) for line in open("saved_models/recipes/results.jsonl")]


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_stopped(small, monkeypatch, capfd):
    assert small("--recipes", "no cycle", "--equal", "steps", "--seeds", "0", "1") == 0
    found = results()
    assert [(r["recipe"], r["seed"], r["n_iters"]) for r in found] == [
        ("paper", 0, 2), ("no cycle", 0, 2), ("paper", 1, 2), ("no cycle", 1, 2),
    ]  # fmt: skip
    for r in found:
        for direction in ("AB", "BA"):
            assert 0 < r["results"][direction]["paired_l1"] < 255 and 0 < r["untranslated"][direction]["paired_l1"]
        assert r["cpu_seconds"] > 0
        options = json.load(open(f"saved_models/{r['run_name']}/options.json"))["options"]
        assert (options["n_iters"], options["seed"], options["ngf"]) == (2, r["seed"], 4)
        assert options["lambda_cyc"] == (0 if r["recipe"] == "no cycle" else 10)
    out = capfd.readouterr().out
    assert "| no cycle |" in out and " ± " in out.split("| no cycle |")[1]
    assert Image.open("images/recipes.png").width >= 4 * 32

    def never(*_):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "train_and_score", never)
        assert small("--recipes", "no cycle", "--equal", "steps", "--seeds", "0", "1") == 0
    # a run that was interrupted: its checkpoint is there, its result is not
    lines = open("saved_models/recipes/results.jsonl").read().splitlines(True)
    open("saved_models/recipes/results.jsonl", "w").writelines(lines[:-1])
    assert small("--recipes", "no cycle", "--equal", "steps", "--seeds", "0", "1") == 0
    again = results()[-1]
    assert again["results"] == found[-1]["results"]
    assert "already trained" in open(f"saved_models/recipes/{again['run_name']}.txt").read()


@pytest.mark.slow
def test_a_recipe_that_fails_is_one_line_and_the_others_count(small, capfd):
    assert small("--recipes", "wrong", "--equal", "steps") == 1
    assert [r["recipe"] for r in results()] == ["paper"]
    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("tiny, wrong, 0: "))
    assert "--img_height 33" in line and "exit status" in line


def test_slower_recipes_get_fewer_steps(small, monkeypatch):
    monkeypatch.setattr(recipes, "measure_steps", lambda opt, all, device: {"paper": 0.1, "no cycle": 0.05})
    trained = []

    def train(opt, dataset, name, options, seed, n_iters):
        trained.append((name, n_iters))
        raise InputError("not now")

    monkeypatch.setattr(recipes, "train_and_score", train)
    monkeypatch.setattr(recipes, "draw", lambda *_: None)
    small("--recipes", "no cycle", "--n_iters", "100")
    assert trained == [("paper", 100), ("no cycle", 200)]


def test_times_are_measured_once_and_only_ratios_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs(recipes.FOLDER)
    opt = recipes.get_parser().parse_args(["--size", "32", "--network", NETWORK, "--device", "cpu"])
    now, costs, asked = [0.0], {"": 2.0, "--ema": 3.0, "--lr 1": 1.0}, []

    def step_function(opt, options):
        asked.append(options)

        def step():
            now[0] += costs[options]

        return step

    monkeypatch.setattr(recipes, "step_function", step_function)
    monkeypatch.setattr(recipes.time, "process_time", lambda: now[0])
    device = recipes.choose_device("cpu")
    assert recipes.measure_steps(opt, {"paper": "", "ema": "--ema"}, device) == {"paper": 2.0, "ema": 3.0}
    costs.update({"": 4.0, "--lr 1": 2.0})  # the machine is slower now
    found = recipes.measure_steps(opt, {"paper": "", "ema": "--ema", "lr": "--lr 1"}, device)
    assert found == {"paper": 2.0, "ema": 3.0, "lr": 1.0}
    assert asked == ["", "--ema", "", "--lr 1"]
    recipes.measure_steps(opt, {"paper": "", "ema": "--ema", "lr": "--lr 1"}, device)
    assert len(asked) == 4


def record(seed, AB, BA, n_iters=10, **more):
    values = {d: {"paired_l1": l1, "paired_ssim": 0.5, "cycle_l1": 3.0} for d, l1 in (("AB", AB), ("BA", BA))}
    values["AB"] |= more
    return {"seed": seed, "n_iters": n_iters, "results": values}


def test_the_table_has_means_spreads_and_the_difference_from_the_first():
    runs = {"paper": [record(0, 20, 10), record(1, 22, 12)], "better": [record(0, 10, 14, n_iters=7)]}
    recipes_shown = {"paper": "", "better": "--x", "missing": "--y"}
    lines = recipe_results.table("tiny", recipes_shown, runs)
    assert lines[0].startswith(
        "| recipe | L1 to the truth on tiny, A→B | B→A | mean | against paper | SSIM | cycle L1 | steps"
    )
    assert lines[2:] == [
        "| paper | 21.00 ± 1.41 | 11.00 ± 1.41 | 16.00 ± 1.41 | +0.0% | 0.500 | 3.0 | 10 | 2 |",
        "| better | 10.00 | 14.00 | 12.00 | -25.0% | 0.500 | 3.0 | 7 | 1 |",
    ]
    runs = {"paper": [record(0, 20, 10, class_iou=0.1), record(1, 22, 12, class_iou=0.2)]}  # labels are in one domain
    assert "| 0.500 | 0.150 | 3.0 |" in recipe_results.table("tiny", recipes_shown, runs)[2]


def test_a_single_colour_is_a_row_of_its_own(tmp_path):
    """The channels of the training images of B are 10, 20 and 90, so the median is 20; the test images have 50."""
    for folder, levels in (("trainA", (0,)), ("testA", (7,)), ("trainB", (10, 20, 90)), ("testB", (50,))):
        os.makedirs(tmp_path / "tiny" / folder)
        for i, level in enumerate(levels):
            Image.new("RGB", (40, 40), (level,) * 3).save(tmp_path / "tiny" / folder / f"{i}.png")
    opt = recipes.get_parser().parse_args(["--data_dir", str(tmp_path), "--size", "32"])
    assert recipe_results.one_colour(opt, "tiny") == [30.0, 7.0]
    lines = recipe_results.table("tiny", {"paper": ""}, {"paper": [record(0, 20, 17)]}, [30.0, 7.0])
    assert lines[3] == "| one colour | 30.00 | 7.00 | 18.50 | +0.0% | | | | |"
    assert lines[3].count("|") == lines[0].count("|")


def test_every_recipe_can_be_trained():
    for name, options in recipes.RECIPES.items():
        size = ["--img_height", "64", "--img_width", "64", "--preset", "paper"]
        opt, _ = cyclegan.get_options(["--dataset_name", "x", *size, *options.split()])
        assert options == "" or vars(opt) != vars(cyclegan.get_options(["--dataset_name", "x", *size])[0]), name


def test_the_recipe_of_the_option_is_the_one_that_is_measured():
    words = ["--dataset_name", "x", "--preset", "paper"]
    measured, offered = (
        vars(cyclegan.get_options([*words, *more.split()])[0]) for more in (recipes.UVCGAN, "--recipe uvcgan")
    )
    assert measured | {"recipe": "uvcgan"} == offered


def test_a_continued_run_stays_on_its_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt, commands = recipes.get_parser().parse_args(["--device", "cpu"]), []

    def run_command(command, log):
        commands.append(command)
        raise InputError("not now")

    monkeypatch.setattr(recipes, "run_command", run_command)
    folder = tmp_path / "saved_models" / recipes.name_of_run("x", "paper", 0, 5)
    for continued in (False, True):
        if continued:
            folder.mkdir(parents=True)
            (folder / "latest.pth").touch()
        with pytest.raises(InputError):
            recipes.train_and_score(opt, "x", "paper", "", 0, 5)
        assert ("--resume" in commands[-1]) == continued and commands[-1].count("--device") == 1


def test_an_unknown_recipe_is_one_line():
    with pytest.raises(InputError, match="--recipes papper: unknown. Choose from paper | ema"):
        recipes.main(["--recipes", "papper"])
