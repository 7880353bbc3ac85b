"""training/loggers.py: other logs contain what log.jsonl contains."""

import json
import os
import sqlite3
import sys

import pytest
import torch
from helpers import SMALL

import cyclegan
from training.loggers import LOGGERS
from utils import InputError
from variants import options


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch):
    make_set(trainA=4, trainB=5, testA=9, testB=9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return lambda *words: cyclegan.main([*SMALL, "--sample_interval", "50", "--log_interval", "10", *words])


def logged(name="loss_G"):
    """-> {step: value} in log.jsonl"""
    records = [json.loads(line) for line in open("saved_models/tiny/log.jsonl")]
    return {record["step"]: record[name] for record in records if name in record}


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--tensorboard", "--logger tensorboard"])
def test_tensorboard(tiny, words):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny("--n_epochs", "20", *words.split(), "--val_interval", "10")
    tiny("--n_epochs", "30", "--resume")
    board = EventAccumulator("saved_models/tiny/tensorboard", size_guidance={"images": 0, "histograms": 0}).Reload()
    tags = board.Tags()
    assert {"loss/G", "loss/cycle", "lr", "test/cycle", "health/tells"} <= set(tags["scalars"])
    assert tags["images"] == ["samples"]
    assert set(tags["histograms"]) == {"D_A/real", "D_A/translated", "D_B/real", "D_B/translated"}
    shown = {event.step: event.value for event in board.Scalars("loss/G")}
    assert shown == pytest.approx(logged(), rel=1e-4)
    assert "_hparams_/session_start_info" in board.summary_metadata


def wandb_records(path):
    """Yields the records of a log of Weights & Biases: a header of 7 bytes, then the format of LevelDB's logs, blocks of
    32 KiB with parts of records, each with its checksum, length and kind (1 whole, 2 first, 3 middle, 4 last)."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = open(path, "rb").read(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too little room for another part in this block
            at += 32768 - at % 32768
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wandb_runs():
    """-> list of ({step: values}, options) of the offline runs of Weights & Biases"""
    runs, folder = [], "saved_models/tiny/wandb"
    for name in sorted(name for name in os.listdir(folder) if name.startswith("offline-run-")):
        history, config = {}, {}
        for record in wandb_records(f"{folder}/{name}/run-{name.rpartition('-')[2]}.wandb"):
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            if items:
                history.setdefault(items["step"], {}).update(items)
            config |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
        runs.append((history, config))
    return runs


@pytest.mark.slow
def test_wandb_without_network(tiny, capsys):
    tiny("--n_epochs", "20", "--logger", "wandb", "--val_interval", "10")
    out = capsys.readouterr().out
    assert "wandb sync saved_models/tiny/wandb/offline-run-" in out
    tiny("--n_epochs", "30", "--resume")
    (first, config), (second, _) = wandb_runs()
    assert config["lambda_cyc"] == 10.0 and config["dataset_name"] == "tiny"
    shown = {step: values["loss/G"] for step, values in (first | second).items() if "loss/G" in values}
    assert shown == pytest.approx(logged())
    at_grid = first[50]
    assert at_grid["samples/_type"] == "image-file" and at_grid["D_A/real/_type"] == "histogram"
    assert {"health/tells", "test/cycle"} <= at_grid.keys()


@pytest.mark.slow
def test_trackio(tiny, tmp_path, monkeypatch, capsys):
    from trackio import utils as trackio_utils

    monkeypatch.setattr(trackio_utils, "TRACKIO_DIR", tmp_path / "trackio")
    tiny("--n_epochs", "20", "--logger", "trackio", "--val_interval", "10")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "Trackio" not in out and out.count("trackio show --project cyclegan") == 1
    tiny("--n_epochs", "30", "--resume")
    files = [os.path.join(folder, f) for folder, _, names in os.walk(tmp_path / "trackio") for f in names]
    (path,) = [f for f in files if f.endswith("cyclegan.db")]
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert {name for name, _, _ in rows} == {"tiny"}
    shown = {}
    for _, step, metrics in rows:
        values = json.loads(metrics)
        shown |= {step: values["loss/G"]} if "loss/G" in values else {}
    assert shown == pytest.approx(logged())


@pytest.mark.slow
def test_training_is_the_same_with_loggers(tiny):
    tiny("--n_epochs", "12")
    tiny("--n_epochs", "12", "--run_name", "other", "--logger", "tensorboard", "wandb", "trackio")
    one, other = (torch.load(f"saved_models/{name}/G_AB_12.pth") for name in ("tiny", "other"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_one_line(tiny, monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"--logger {name}: pip install {name}"):
        tiny("--logger", name, "--n_epochs", "1")
    assert os.listdir(tmp_path) == ["data"]


def test_unknown_loggers(tiny, capsys):
    with pytest.raises(SystemExit):
        tiny("--logger", "os")
    assert "argument --logger: os: choose from tensorboard, wandb, trackio" in capsys.readouterr().err
    opt = cyclegan.get_parser().parse_args([])
    opt.logger, opt.decay_epoch = "wandb os.path", 0  # as a checkpoint could say; nothing is imported because of it
    with pytest.raises(InputError, match="--logger os.path: choose from"):
        options.check(opt)
    assert tuple(LOGGERS) == options.LOGGERS
