"""Whatever is damaged in a checkpoint, it is an InputError of one line, before anything is built."""

import argparse
import copy
import os
import resource
import time

import pytest
import torch
from helpers import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import compress
import cyclegan
from command_line.paths import is_inside
from deploy.comparison import ExportImages
from deploy.compression import read_training
from inference import load
from inference.load import load_generator, load_generators
from measuring.evaluation import evaluate
from media.files import check_tensors
from training.checkpoints import find_checkpoint
from utils import InputError
from variants import schema, stored_options

PARSER = cyclegan.get_parser()
PATH = "saved_models/tiny/latest.pth"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The contents of the latest.pth of a short training -> dict; the current folder is that of the training."""
    import numpy as np
    from PIL import Image

    folder, before = tmp_path_factory.mktemp("trained"), os.getcwd()
    os.chdir(folder)
    rng = np.random.default_rng(0)
    for name, n in (("trainA", 4), ("trainB", 4), ("testA", 2), ("testB", 2)):
        os.makedirs(f"data/tiny/{name}")
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(f"data/tiny/{name}/{i}.png")
    cyclegan.main([*SMALL, "--n_epochs", "1", "--ema"])
    yield torch.load(PATH, weights_only=True)
    os.chdir(before)


def read(state):
    """Reads a checkpoint as every command does -> the InputErrors, all of one line."""
    torch.save(state, PATH)
    errors = []
    typed = argparse.Namespace(checkpoint=PATH, run_name="x", way="prune", data_dir=None)
    for command in (
        lambda: cyclegan.get_options(["--run_name", "tiny", "--resume"]),
        lambda: cyclegan.get_options(["--dataset_name", "tiny", "--start_from", PATH]),
        lambda: load_generators(PATH),
        lambda: read_training(typed),
    ):
        try:
            command()
        except InputError as error:
            assert PATH in str(error) and "\n" not in str(error) and len(str(error)) < 600, error
            errors.append(str(error))
    return errors


def places(state, path=()):
    """The places of all values in nested dicts and lists; of weights and moments, some."""
    yield path
    if isinstance(state, dict):
        for key in list(state)[: None if path in ((), ("options",)) else 4]:
            yield from places(state[key], (*path, key))
    elif isinstance(state, (list, tuple)):
        for i in range(min(2, len(state))):
            yield from places(state[i], (*path, i))


def replaced(state, path, value):
    """A nested dict or list with another value at a place. Tensors are shared."""
    if not path:
        return value
    if isinstance(state, tuple):
        state = list(state)
    state = copy.copy(state)
    state[path[0]] = replaced(state[path[0]], path[1:], value)
    return state


ODD = st.one_of(
    st.sampled_from([None, True, -1, 0, 2, 10**7, 10**9, 2**63, 10**400, float("nan"), float("inf"), -1e30, "", "x", "\0",
                     "../../elsewhere", "/", "x" * 10**5, [], [0, 0], [[]], {}, {1: 2}, (), set(), b"x", 1j]),
    st.sampled_from([torch.zeros(()), torch.zeros(0), torch.zeros(3, 3), torch.full((1,), float("nan")),
                     torch.zeros(1, dtype=torch.uint8), torch.zeros(2).to_sparse(), torch.zeros(1).expand(10**9),
                     torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.int64)]),
    st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=3),
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_damaged_field_is_one_line(trained, data):
    known = [place for place in places(trained) if place]
    place = data.draw(st.sampled_from(known))
    state = replaced(trained, place, data.draw(ODD))
    started, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        check_tensors(state)
    except ValueError:  # load_file makes an InputError of it
        return
    for check in (
        lambda: schema.check_training(state, PATH),
        lambda: stored_options.check_options(state["options"], PATH, PARSER),
        lambda: load.generator_in(state, PATH, "AB"),
    ):
        try:
            check()
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600, error
            break
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # KB


DAMAGE = {  # a place, a value, and how many of the three commands must refuse it
    "epoch": (("epoch",), -5, 3),
    "lr": (("options", "lr"), float("nan"), 2),
    "batch_size": (("options", "batch_size"), 0, 2),
    "options": (("options",), None, 3),
    "data": (("data",), [0, 0], 2),
    "channels": (("options", "channels"), "3", 3),
    "gan_loss": (("options", "gan_loss"), "x", 3),
    "blocks": (("options", "n_residual_blocks"), 10**7, 3),
    "more blocks": (("options", "n_residual_blocks"), 1000, 2),
    "wide": (("options", "ngf"), 4096, 2),
    "num_downs": (("options", "num_downs"), 10**9, 3),
    "progressive": (("options", "progressive"), "1000000000:5", 3),
    "version": (("version",), "1", 3),
    "moment": (("optimizer_G", "state", 0, "exp_avg"), torch.zeros(1), 2),
    "moment, one more": (("optimizer_D_A", "state", 0, "exp_avg_sq"), torch.zeros(4, 3, 4, 5), 2),
    "a moment that is not finite": (("optimizer_G", "state", 1, "exp_avg"), torch.full((4,), float("nan")), 2),
    "params": (("optimizer_G", "param_groups", 0, "params"), [0], 2),
    "rng": (("ranks", 0, "rng"), torch.zeros(5, dtype=torch.uint8), 2),
    "ranks": (("ranks",), [], 2),
    "pool": (("ranks", 0, "fake_A_buffer", "data"), torch.zeros(3), 2),
    "sparse": (("G_AB", "model.1.weight"), torch.zeros(4, 3, 7, 7).to_sparse(), 3),
    "8-bit floats": (("G_AB", "model.1.weight"), torch.zeros(4, 3, 7, 7).to(torch.float8_e4m3fn), 3),
    "complex": (("G_AB", "model.1.weight"), torch.zeros(4, 3, 7, 7, dtype=torch.complex64), 3),
    "batch beyond the epoch": (("batch",), 10**12, 2),
    "negative squares": (("optimizer_G", "state", 1, "exp_avg_sq"), torch.full((4,), -1.0), 2),
    "repeated": (("G_AB", "model.1.weight"), torch.zeros(1).expand(4, 3, 7, 7), 3),
}


@pytest.mark.parametrize("place, value, count", DAMAGE.values(), ids=DAMAGE)
def test_known_damage_is_refused(trained, place, value, count):
    assert len(read(replaced(trained, place, value))) >= count


def test_an_undamaged_checkpoint_is_accepted(trained):
    assert read(trained) == []
    assert find_checkpoint("saved_models/tiny")["epoch"] == 1


def test_weights_that_are_not_finite_are_not_continued_from(trained):
    weights = trained["D_B"]["model.0.bias"] * float("nan")
    error = read(replaced(trained, ("D_B", "model.0.bias"), weights))[0]
    assert "damaged, model.0.bias of D_B has values that are not finite, because training diverged" in error


def test_what_a_checkpoint_refers_to_must_be_confirmed(trained, capsys):
    torch.save(replaced(trained, ("options", "data_dir"), "../elsewhere"), PATH)
    words = ["--run_name", "tiny", "--resume", "--n_epochs", "2"]
    with pytest.raises(
        InputError, match=r"refers to ../elsewhere, which is outside of data\. .*--data_dir ../elsewhere$"
    ):
        cyclegan.main(words)
    with pytest.raises(InputError, match="outside of data"):
        evaluate(PATH, device="cpu")
    with pytest.raises(InputError, match="outside of data.* name the images with --images"):
        ExportImages(load_generator(PATH))
    assert ExportImages(load_generator(PATH), images="data/tiny/testA").compared
    with pytest.raises(InputError, match="outside of data"):
        compress.main(["prune", "--checkpoint", PATH])
    assert not os.path.exists("../elsewhere")
    opt, _ = cyclegan.get_options([*words, "--data_dir", "../elsewhere"])
    assert opt.data_dir == "../elsewhere"
    for name in ("../tiny", "/tmp", "..", "a/b"):
        torch.save(replaced(trained, ("options", "dataset_name"), name), PATH)
        with pytest.raises(InputError, match="dataset_name .* is not the name of a folder"):
            cyclegan.get_options(words)


def test_what_is_inside():
    assert all(is_inside(path, "data") for path in ("data", "data/x", "./data/x/", os.path.abspath("data/x")))
    outside = (
        "",
        ".",
        "dat",
        "database",
        "data/..",
        "data/../x",
        "data/x/../../y",
        "/",
        "/data",
        "~",
        "..\\x",
        "../data",
    )
    assert not any(is_inside(path, "data") for path in outside)
    assert is_inside("../sets", "../sets") and is_inside("/data", "/")


@pytest.mark.parametrize("name", stored_options.PAPER)
def test_the_options_of_the_paper_are_those_of_the_parser(name):
    """PAPER repeats a part of cyclegan.py for translation, which has no access to it."""
    here, there = stored_options.actions_of()[name], stored_options.actions_of(PARSER)[name]
    if name not in ("dataset_name", "data_dir"):
        assert here.default == there.default and here.choices in (None, there.choices) or name == "channels"
    for value in (None, True, 0, 1, 3, 31, 32, 1000, 1001, 4096, 4097, 16384, 16385, "x", "nearest", 2.0, float("nan")):
        if name != "channels" and (
            value is not None or there.default
        ):  # 1 or 3; of 16 bits any number, which came later
            assert stored_options.accepts(here, value) == stored_options.accepts(there, value), value


def test_every_default_of_every_option_is_accepted():
    for parser in (PARSER, *next(a.choices for a in compress.get_parser()._actions if a.dest == "way").values()):
        for name, action in stored_options.actions_of(parser).items():
            if name not in ("help", "help_all", "checkpoint"):
                assert stored_options.accepts(action, action.default), name
