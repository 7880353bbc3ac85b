"""--start_from: new runs that begin with the networks of a trained model."""

import hashlib
import json
import os
import re
import shlex
import shutil

import pytest
import torch
from helpers import SMALL, assert_same, interrupt_at, load

import cyclegan
from deploy.compression import training_options
from utils import InputError
from variants.schema import NETWORKS, OPTIMIZERS

OLD = "saved_models/old/latest.pth"


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    """Two small data sets, and a run `old` on one of them -> train(option, ...), which runs main on the other."""
    make_set()
    make_set(size=(44, 40), name="other")
    monkeypatch.chdir(tmp_path)
    cyclegan.main([*SMALL, "--n_epochs", "1", "--ema", "0.5", "--lambda_cyc", "3", "--run_name", "old"])
    return lambda *options: cyclegan.main(["--dataset_name", "other", *MORE, *options])


MORE = "--img_height 32 --img_width 32 --pool_size 3 --device cpu --no-amp --log_interval 2 --sample_interval 0".split()
START = ("--start_from", OLD, "--n_epochs", "3")


def killed_at_once(monkeypatch, tiny, *options):
    with monkeypatch.context() as patch:
        patch.setattr(cyclegan, "train_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            tiny(*options)


def test_a_new_run_begins_with_the_trained_networks_and_nothing_else(tiny, monkeypatch, capsys):
    killed_at_once(monkeypatch, tiny, *START, "--ema")
    old, new = load(OLD), load("saved_models/other/latest.pth")
    for direction in ("AB", "BA"):  # the averages, which translate.py uses, and not the last weights
        assert_same(new[f"G_{direction}"], old[f"ema_G_{direction}"])
        assert_same(new[f"ema_G_{direction}"], old[f"ema_G_{direction}"])
        assert not torch.equal(old[f"G_{direction}"]["model.1.weight"], old[f"ema_G_{direction}"]["model.1.weight"])
    for name in ("D_A", "D_B"):
        assert_same(new[name], old[name])
    assert all(not new[name]["state"] and old[name]["state"] for name in OPTIMIZERS)
    assert (new["epoch"], new["batch"], new["step"]) == (0, 0, 0)
    assert all(len(new["ranks"][0][name]["data"]) == 0 for name in ("fake_A_buffer", "fake_B_buffer"))
    options = new["options"]
    assert (options["ngf"], options["ndf"], options["n_residual_blocks"]) == (4, 4, 1)  # the old ones
    assert (options["lambda_cyc"], options["ema"], options["lr"]) == (10, 0.999, 0.0002)  # the defaults, and typed
    out = capsys.readouterr().out
    assert f"starting from the networks in {OLD}, after its step 5, the averages of its generators\n" in out


def test_without_averages_the_generators_themselves(tiny):
    state = torch.load(OLD)
    del state["ema_G_AB"], state["ema_G_BA"]
    torch.save(state, OLD)
    tiny(*START[:2], "--n_epochs", "1", "--lr", "0")  # networks that learn nothing
    new = load("saved_models/other/latest.pth")
    for name in NETWORKS:
        assert_same(new[name], state[name])
    assert new["step"] == 5


def test_resumed_exactly_without_the_old_file(tiny, monkeypatch):
    tiny(*START, "--run_name", "whole", "--freeze_D", "1")
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=8)
        assert tiny(*START, "--freeze_D", "1") == 130
    killed_at_once(monkeypatch, tiny, *START, "--run_name", "early", "--freeze_D", "1")
    digest = hashlib.sha256(open(OLD, "rb").read()).hexdigest()
    shutil.rmtree("saved_models/old")
    whole = load("saved_models/whole/latest.pth") | {"options": None}
    for name in ("other", "early"):
        cyclegan.main(["--run_name", name, "--resume", "--device", "cpu"])
        assert_same(whole, load(f"saved_models/{name}/latest.pth") | {"options": None})
        origin = {"file": OLD, "sha256": digest, "dataset_name": "tiny", "epoch": 1, "step": 5}
        made = torch.load(f"saved_models/{name}/latest.pth")["provenance"]
        assert made["started_from"] == json.load(open(f"saved_models/{name}/options.json"))["started_from"] == origin
        assert len(made["commands"]) == 2
    first = "model.0.weight"  # is trained from now on
    cyclegan.main(["--run_name", "other", "--resume", "--device", "cpu", "--n_epochs", "4", "--freeze_D", "0"])
    assert not torch.equal(whole["D_A"][first], load("saved_models/other/latest.pth")["D_A"][first])


def test_a_run_that_has_saved_nothing_is_begun_again(tiny, monkeypatch):
    killed_at_once(monkeypatch, tiny, *START)
    os.remove("saved_models/other/latest.pth")
    with pytest.raises(InputError, match=f"options.json: the run was to start from '{OLD}'.*without --resume") as error:
        tiny("--resume")
    assert "\n" not in str(error.value)
    # its options alone are for another run, which starts from nothing unless that is typed
    opt, checkpoint = cyclegan.get_options(["--options", "saved_models/other/options.json"])
    assert (opt.start_from, checkpoint, opt.n_epochs, opt.dataset_name) == (None, None, 3, "other")


def test_in_its_own_name_nothing_is_lost(tiny, monkeypatch):
    old = load(OLD)
    cyclegan.main([*SMALL, "--start_from", OLD, "--run_name", "old", "--n_epochs", "1"])
    assert_same(old, load("saved_models/old.1/latest.pth"))
    assert torch.load(OLD)["provenance"]["started_from"]["file"] == OLD


@pytest.mark.parametrize(
    "options, words",
    [
        (("--ngf", "8"), "--ngf 8: .*latest.pth was trained with 4. Omit .* without --start_from"),
        (("--channels", "1"), "--channels 1: .*latest.pth was trained with 3"),
        (("--channels_B", "4"), "--channels_B 4: .*latest.pth was trained with None"),
        (("--spectral_norm",), "--spectral_norm True: .*latest.pth was trained with False"),
        (("--resume",), "--start_from --resume: give only one"),
        (("--epoch", "1"), "--start_from --epoch: give only one"),
        (("--start_from", "saved_models/old/G_AB_1.pth"), "not a full checkpoint.*translate.py"),
        (("--start_from", "none.pth"), "none.pth: no such checkpoint"),
        (("--start_from", "nan.pth"), "nan.pth: damaged, model.0.weight of D_A has values that are not finite"),
        (("--start_from", "big.pth"), "big.pth: damaged, its option ngf is 10000000"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(tiny, options, words):
    state = torch.load(OLD)
    torch.save(state | {"options": state["options"] | {"ngf": 10**7}}, "big.pth")
    state["D_A"]["model.0.weight"][0] = float("nan")
    torch.save(state, "nan.pth")
    with pytest.raises(InputError, match=words) as error:
        tiny(*START[:2], *options)
    assert "\n" not in str(error.value) and os.listdir("saved_models") == ["old"]


def test_the_architecture_of_the_checkpoint_overrides_presets(tiny):
    opt, start = cyclegan.get_options(["--preset", "demo", "--start_from", OLD])
    assert (opt.ngf, opt.n_residual_blocks, opt.upsample) == (4, 1, "transpose")
    assert (opt.img_height, opt.n_epochs, opt.lr) == (64, 6, 0.0005)  # of the preset
    assert {"G_AB", "G_BA", "D_A", "D_B"} < start.keys() and "optimizer_G" not in start


def test_another_size_and_random_frozen_layers_are_noted(tiny, capsys):
    tiny("--start_from", OLD, "--n_epochs", "1", "--img_height", "36")
    out = capsys.readouterr().out
    assert "note: these networks were trained at 32 x 32 pixels, and this run is at 32 x 36" in out
    assert "--freeze_D" not in out.replace("--freeze_D 0", "")
    tiny("--start_from", OLD, "--n_epochs", "1", "--freeze_D", "2", "--run_name", "frozen")
    assert "keeps random weights" not in capsys.readouterr().out
    cyclegan.main([*SMALL, "--n_epochs", "1", "--freeze_D", "2", "--run_name", "random"])
    assert "note: --freeze_D: keeps random weights here" in capsys.readouterr().out


def test_the_refusal_of_other_data_names_a_command_that_works(tiny, capsys):
    with pytest.raises(InputError, match="--dataset_name other: saved_models/old was trained on tiny") as error:
        cyclegan.main(["--run_name", "old", "--resume", "--dataset_name", "other"])
    assert "\n" not in str(error.value)
    command = re.search(r"To begin with its networks: python cyclegan.py (.*)$", str(error.value))[1]
    cyclegan.main([*shlex.split(command), "--n_epochs", "1", "--device", "cpu"])
    state = torch.load("saved_models/other/latest.pth")
    assert state["provenance"]["started_from"]["file"] == OLD and state["options"]["dataset_name"] == "other"
    assert state["options"]["img_height"] == 32


def test_compression_of_a_started_run_reads_no_other_file(tiny, monkeypatch):
    killed_at_once(monkeypatch, tiny, *START, "--freeze_D", "1")
    state = torch.load("saved_models/other/latest.pth")
    assert (state["options"]["start_from"], state["options"]["freeze_D"]) == (OLD, 1)
    opt = cyclegan.get_parser().parse_args(["--n_epochs", "2"])
    options = training_options(opt, state, "other_student")
    assert (options.start_from, options.freeze_D, options.ngf) == (None, 0, 4)
