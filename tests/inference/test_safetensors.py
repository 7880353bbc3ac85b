"""Generators in .safetensors: they translate as their checkpoint does, and hostile files are refused in one line."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from helpers import SMALL, assert_same, write_set
from PIL import Image

import app
import compress
import cyclegan
import evaluate
import export
import translate
from inference import load_translator
from inference.load import load_generator, load_generators
from inference.weights import KEY, model_file
from media import tensors
from media.files import save_file
from models import GeneratorResNet, weights_init_normal
from page.models_found import COMMAND_LINE, Models
from utils import InputError
from variants.build import channels_of, make_generator

safetensors = pytest.importorskip("safetensors.torch", reason="requires safetensors: pip install safetensors")

CASES = {
    "paper": {},
    "ema": dict(ema=0.9),
    "dropout": dict(dropout=0.5),
    "nearest, separable": dict(upsample="nearest", separable=True),
    "ranges": dict(range_A="0 4000", range_B="-1 1"),
    "unet": dict(generator="unet", num_downs=5, norm="batch"),
    "noise": dict(noise_channels=2),
    "gray to colour": dict(channels_A=1),
    "antialias, attention": dict(antialias=True, attention=True),
}


def write_checkpoint(path, **more):
    """Writes a full checkpoint without discriminators -> its contents"""
    options = dict(dataset_name="tiny", data_dir="data", img_height=32, img_width=48, channels=3, ngf=4,
                   n_residual_blocks=1, **more)  # fmt: skip
    state, n = dict(version=1, options=options, epoch=3, step=12), channels_of(options)
    for seed, (name, channels) in enumerate([("G_AB", n), ("G_BA", n[::-1])]):
        torch.manual_seed(seed)
        state[name] = make_generator(options, *channels).apply(weights_init_normal).state_dict()
        if more.get("ema"):
            state[f"ema_{name}"] = {key: value + 0.01 for key, value in state[name].items()}
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    save_file(state, path)
    return state


def without_onnx(monkeypatch):
    """The hub folder is then written at once, without ONNX."""
    from deploy import hub

    monkeypatch.setattr(hub, "ONNX_PACKAGES", ("no_such_package",))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_onnx(monkeypatch)


def write_all(checkpoint="saved_models/tiny/latest.pth"):
    """Exports both directions -> {direction: paths that must translate as the checkpoint does}"""
    for direction in ("AB", "BA"):
        export.main(["--checkpoint", checkpoint, "--direction", direction, "--format", "safetensors"])
    export.main(["--checkpoint", checkpoint, "--format", "hub"])
    beside = os.path.dirname(checkpoint)
    return {
        d: [f"{beside}/G_{d}_3.safetensors", f"{beside}/hub", f"{beside}/hub/model.safetensors"] for d in ("AB", "BA")
    }


def picture(channels, value_range=None):
    """Saves a picture -> its path"""
    rng = np.random.default_rng(5)
    if value_range:
        low, high = map(float, value_range.split())
        np.save("photo.npy", rng.uniform(low, high, (37, 50, channels)).astype(np.float32))
        return "photo.npy"
    pixels = rng.integers(0, 256, (37, 50, channels), dtype=np.uint8)
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save("photo.png")
    return "photo.png"


@pytest.mark.parametrize("case", CASES)
def test_translations_are_the_same_byte_for_byte(case, folder):
    more = CASES[case]
    write_checkpoint("saved_models/tiny/latest.pth", **more)
    samples = ["--n_samples", "2"] if {"noise_channels", "dropout"} & more.keys() else []
    outputs = set()
    for direction, paths in write_all().items():
        source = picture(more.get("channels_A", 3) if direction == "AB" else 3, more.get(f"range_{direction[0]}"))
        found = []
        for path in ["saved_models/tiny/latest.pth", *paths]:
            words = [
                "--checkpoint",
                path,
                "--direction",
                direction,
                "--input",
                source,
                "--device",
                "cpu",
                "--overwrite",
            ]
            results = [b""]
            for name in [name for name in os.listdir(".") if name.startswith("out")]:
                os.remove(name)
            for how in ([], samples) if samples else ([],):
                assert translate.main([*words, "--output", f"out{os.path.splitext(source)[1]}", *how]) == 0
                results += [open(name, "rb").read() for name in sorted(os.listdir(".")) if name.startswith("out")]
            found.append(tuple(results))
        assert all(result == found[0] for result in found) and len(found[0]) == (5 if samples else 2)
        assert not samples or len({*found[0]}) == 4  # nothing, the translation twice, and two samples
        outputs.add(found[0])
    assert len(outputs) == 2  # the directions differ


def test_the_average_is_stored(folder):
    state = write_checkpoint("saved_models/tiny/latest.pth", ema=0.9)
    path = write_all()["AB"][0]
    stored = safetensors.load_file(path)
    assert stored.keys() == state["G_AB"].keys()
    assert all(torch.equal(stored[key], state["ema_G_AB"][key]) for key in stored)
    stored = safetensors.load_file("saved_models/tiny/hub/model.safetensors")
    assert stored.keys() == {f"{name}.{key}" for name in ("G_AB", "G_BA") for key in state["G_AB"]}
    assert torch.equal(stored["G_BA.model.1.weight"], state["ema_G_BA"]["model.1.weight"])


def test_what_the_file_tells(folder):
    write_checkpoint("saved_models/tiny/latest.pth", keep_aspect=True)
    for direction, paths in write_all().items():
        for path in paths:
            found = load_generator(path, direction)
            assert (found.direction, found.epoch, found.step) == (direction, 3, 12)
            size = dict(img_height=32, img_width=48)
            assert found.options == {"dataset_name": "tiny", "keep_aspect": True} | size
    assert load_generators("saved_models/tiny/hub").keys() == {"AB", "BA"}
    assert load_generators("saved_models/tiny/G_BA_3.safetensors").keys() == {"AB", "BA"}  # found beside it
    with pytest.raises(InputError, match="--direction AB: .*G_BA_3.safetensors holds the generator of BA only"):
        load_generator("saved_models/tiny/G_BA_3.safetensors", "AB")


def test_half_precision(folder):
    state = write_checkpoint("saved_models/tiny/latest.pth")
    export.main(["--checkpoint", "saved_models/tiny/latest.pth", "--format", "safetensors_fp16"])
    path = "saved_models/tiny/G_AB_3_fp16.safetensors"
    stored = safetensors.load_file(path)
    assert all(torch.equal(stored[key], state["G_AB"][key].half()) for key in stored)
    network = load_generator(path).network
    assert all(torch.equal(p, state["G_AB"][name].half().float()) for name, p in network.named_parameters())
    for factor, message in ((1e8, "too large"), (1e-9, "too small")):
        changed = {key: value * factor for key, value in state["G_AB"].items()}
        save_file(state | {"G_AB": changed}, "saved_models/tiny/x.pth")
        before = open(path, "rb").read()
        with pytest.raises(
            InputError, match=rf"fp16.safetensors: model.1.weight has values that are {message} for half"
        ):
            export.main(["--checkpoint", "saved_models/tiny/x.pth", "--format", "safetensors_fp16"])
        assert open(path, "rb").read() == before and not [n for n in os.listdir("saved_models/tiny") if "tmp" in n]


def renamed(generator, old, new):
    return {key.replace(old, new): value for key, value in generator.state_dict().items()}


LAYOUTS = {
    "ours": lambda g: g.state_dict(),
    "PyTorch-GAN": lambda g: renamed(g, ".conv_block.", ".block."),
    "the authors', with dropout": lambda g: renamed(g, "conv_block.5", "conv_block.6"),
    "DataParallel": lambda g: {f"module.{key}": value for key, value in g.state_dict().items()},
    "float64": lambda g: {key: value.double() for key, value in g.state_dict().items()},
    "running statistics": lambda g: (
        g.state_dict() | {"model.2.running_mean": torch.ones(8), "model.2.num_batches_tracked": torch.tensor(5)}
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_others_without_metadata(layout, folder, make_generator):
    """The same state dict, saved by torch.save and by safetensors, is the same generator."""
    contents = LAYOUTS[layout](make_generator("x.pth", upsample="nearest" if layout == "PyTorch-GAN" else "transpose"))
    torch.save(contents, "latest_net_G_A.pth")
    safetensors.save_file(contents, "latest_net_G_A.safetensors")
    one, other = (load_generator(f"latest_net_G_A{extension}") for extension in (".pth", ".safetensors"))
    assert (one.direction, one.epoch) == (other.direction, other.epoch) == ("AB", None)
    x = torch.rand(1, 3, 36, 40)
    with torch.no_grad():
        assert torch.equal(one.network(x), other.network(x))
    assert getattr(one.network, "had_dropout", None) == getattr(other.network, "had_dropout", None)
    export.main(["--checkpoint", "latest_net_G_A.pth", "--format", "safetensors", "--output", "ours.safetensors"])
    with torch.no_grad():
        assert torch.equal(load_generator("ours.safetensors").network(x), one.network(x))


def test_names_tell_direction_and_epoch_without_metadata(folder, make_generator):
    state = make_generator("x.pth").state_dict()
    safetensors.save_file(state, "G_BA_17.safetensors")
    found = load_generator("G_BA_17.safetensors")
    assert (found.direction, found.epoch) == ("BA", 17)
    with pytest.raises(InputError, match="--direction AB: G_BA_17.safetensors translates BA, according to its name"):
        load_generator("G_BA_17.safetensors", "AB")
    both = {f"G_{d}.{key}": value + (d == "BA") for d in ("AB", "BA") for key, value in state.items()}
    safetensors.save_file(both, "both.safetensors")  # as one of export.py that has lost its metadata
    for direction in ("AB", "BA"):
        weight = load_generator("both.safetensors", direction).network.state_dict()["model.1.weight"]
        assert torch.equal(weight, state["model.1.weight"] + (direction == "BA"))


def test_a_generator_does_not_change_with_its_file(folder):
    """The file is mapped while it is read, and not afterwards: it may be cut off or overwritten in place."""
    write_checkpoint("saved_models/tiny/latest.pth")
    path = write_all()["AB"][0]
    safetensors.save_file(safetensors.load_file(path), "plain.safetensors")
    for name in (path, "plain.safetensors"):
        network = load_generator(name).network
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with open(name, "r+b") as file:
            file.write(bytes(os.path.getsize(name)))
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_mixtures_and_python(folder):
    write_checkpoint("a/latest.pth")
    write_checkpoint("b/latest.pth", ema=0.9)
    paths = [write_all(f"{name}/latest.pth")["AB"] for name in "ab"]
    array = np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8)
    expected = load_translator(["a/latest.pth", "b/latest.pth"], "AB", mix=0.3, device="cpu")(array)
    for i in range(3):
        mixed = load_translator([paths[0][i], paths[1][i]], "AB", mix=0.3, device="cpu")(array)
        assert np.array_equal(mixed, expected)


def test_evaluation_is_the_same(folder, make_set, no_downloads):
    make_set((32, 48))
    write_checkpoint("saved_models/tiny/latest.pth")
    write_all()
    measured = []
    for path in ("latest.pth", "hub", "G_AB_3.safetensors"):
        words = ["--checkpoint", f"saved_models/tiny/{path}", "--paired", "--n_cpu", "0", "--device", "cpu", "--no-amp"]
        evaluate.main(words)
        log = "saved_models/tiny/hub/metrics.jsonl" if path == "hub" else "saved_models/tiny/metrics.jsonl"
        measured.append(json.loads(open(log).readlines()[-1])["results"])
    assert measured[0] == measured[1] == measured[2] and measured[0].keys() == {"AB", "BA"}
    assert not os.path.exists("saved_models/metrics.jsonl")


def test_onnx_of_a_hub_folder_has_its_own_name(folder, make_set):
    trained = load_generator_of_hub()
    opt = export.get_parser().parse_args(["--checkpoint", model_file("saved_models/tiny/hub")])
    assert export.output_path(opt, trained, "onnx") == "saved_models/tiny/hub/G_BA_3.onnx"


def load_generator_of_hub():
    write_checkpoint("saved_models/tiny/latest.pth")
    write_all()
    return load_generator("saved_models/tiny/hub", "BA")


def test_the_page_offers_them(folder, monkeypatch):
    write_checkpoint("elsewhere/latest.pth")
    write_all("elsewhere/latest.pth")
    os.mkdir("saved_models")
    os.rename("elsewhere/hub", "saved_models/downloaded")
    models = Models()
    assert models.runs() == ["downloaded"] and models.checkpoints("downloaded") == ["model.safetensors"]
    assert models.file("downloaded", "model.safetensors", "BA") == "saved_models/downloaded/model.safetensors"
    pytest.importorskip("gradio")
    from page import serve

    seen = []
    monkeypatch.setattr(serve, "serve", lambda build, opt, device, folder: seen.append(opt.checkpoint))
    app.main(["--checkpoint", "saved_models/downloaded", "--device", "cpu"])
    assert seen == [["saved_models/downloaded/model.safetensors"]]
    assert Models(files=tuple(seen[0])).file(COMMAND_LINE, "model.safetensors", "AB") == seen[0][0]


def test_commands_that_need_more_than_generators(folder):
    write_checkpoint("saved_models/tiny/latest.pth")
    path = write_all()["AB"][0]
    with pytest.raises(InputError, match=f"^{path}: distill needs a full checkpoint"):
        compress.main(["distill", "--checkpoint", path])
    with pytest.raises(InputError, match=f"{path}: not a full checkpoint, .* which --start_from needs"):
        cyclegan.main(["--dataset_name", "tiny", "--start_from", path])


def test_a_run_that_ends_inside_an_epoch_has_the_epoch_of_its_kept_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path)  # 5 steps in an epoch
    for n_iters, epoch in ((5, 1), (8, 2)):
        cyclegan.main([*SMALL, "--run_name", f"to_{n_iters}", "--n_iters", str(n_iters)])
        folder = f"saved_models/to_{n_iters}"
        trained = load_generator(f"{folder}/latest.pth", "AB")
        assert (trained.epoch, trained.step) == (epoch, n_iters)
        export.main(["--checkpoint", f"{folder}/latest.pth", "--direction", "AB", "--format", "safetensors"])
        exported = load_generator(f"{folder}/G_AB_{epoch}.safetensors")
        assert exported.epoch == epoch
        assert_same(exported.network.state_dict(), load_generator(f"{folder}/G_AB_{epoch}.pth").network.state_dict())
        evaluate.main(["--checkpoint", f"{folder}/latest.pth"])
        record = json.loads(open(f"{folder}/metrics.jsonl").readlines()[-1])
        assert (record["epoch"], record["step"]) == (epoch, n_iters)


##############################
#   Hostile files
##############################


def file_of(header, data=b"", length=None):
    """The bytes of a file with a header, which is a dict or bytes"""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(shape=(2, 2), span=(0, 16), dtype="F32", **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": span} | more


def one(**changes):
    return file_of({"x": entry(**changes)}, bytes(16))


HOSTILE = {
    "empty": (b"", "no header"),
    "short": (b"\1\2\3", "longer than the file"),
    "text": (b"<html><body>404: not found</body></html>", "longer than the file"),
    "header longer than the file": (file_of({}, length=1000), "longer than the file"),
    "header of exabytes": (file_of({}, length=2**63), "longer than the file"),
    "not JSON": (file_of(b"{'x': 1}"), "Expecting property name"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "codec can't decode"),
    "a list": (file_of([1, 2]), "not a JSON object"),
    "nested": (file_of(b"[" * 100_000), "nested too deeply"),
    "a number of 5000 digits": (file_of(b'{"x": ' + b"1" * 5000 + b"}"), "limit"),
    "a name twice": (file_of(b'{"x": 1, "x": 2}'), "occurs twice"),
    "no dict": (file_of({"x": 3}), "'x' is not described"),
    "more in it": (one(more=1), "'x' is not described"),
    "overlapping": (file_of({"x": entry(), "y": entry(span=(8, 24))}, bytes(24)), "overlap"),
    "the same bytes": (file_of({"x": entry(), "y": entry()}, bytes(16)), "overlap"),
    "a gap": (file_of({"x": entry(), "y": entry(span=(20, 36))}, bytes(36)), "overlap, or there are gaps"),
    "out of range": (one(span=(16, 32)), "overlap, or there are gaps"),
    "more bytes": (file_of({"x": entry()}, bytes(17)), "16 bytes, but 17 follow"),
    "fewer bytes": (file_of({"x": entry()}, bytes(15)), "16 bytes, but 15 follow"),
    "negative": (one(span=(-16, 0)), "the bytes"),
    "backwards": (one(span=(16, 0)), "the bytes"),
    "huge": (one(shape=(2**40, 2**40)), "the shape [1099511627776, 1099511627776], but the bytes [0, 16]"),
    "product of 0": (one(shape=(2**40, 0), span=(0, 0)), "empty"),
    "overflow": (one(shape=(2**63, 2)), "the shape"),
    "many dimensions": (one(shape=[1] * 9), "the shape"),
    "fractions": (one(shape=(2.0, 2)), "the shape"),
    "truth values": (one(shape=(True, 4)), "the shape"),
    "text for a shape": (one(shape="22"), "the shape '22'"),
    "three offsets": (one(span=(0, 8, 16)), "the bytes"),
    "another type": (one(shape=(16,), dtype="U8"), "'x' has the type 'U8'"),
    "half bytes": (one(shape=(32,), dtype="F4"), "'x' has the type 'F4'"),
    "a list for a type": (one(dtype=["F32"]), "'x' has the type ['F32']"),
    "not aligned": (
        file_of({"x": entry(shape=(1,), span=(0, 2), dtype="F16"), "y": entry(span=(2, 18))}, bytes(18)),
        "not aligned",
    ),
    "metadata a list": (file_of({"__metadata__": [], "x": entry()}, bytes(16)), "metadata is not text"),
    "metadata a number": (file_of({"__metadata__": {KEY: 3}, "x": entry()}, bytes(16)), "metadata is not text"),
    "millions of keys": (file_of(b'{"a":' + b'{"b":0},"a":' * 1_000_000 + b"0}"), "bytes; that of a generator"),
    "no tensors": (file_of({}), "not a known generator (its keys: none)"),
    "unknown tensors": (one(), "not a known generator (its keys: x)"),
    "control characters": (file_of({"\x1b]0;x\x07\n": 3}), r"'\x1b]0;x\x07\n' is not described"),
}


def refused(path, message):
    """Asserts that a generator is refused in one line, without allocating much."""
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            load_generator(path)
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert said.startswith(f"{path}: ") and message in said and "\n" not in said and len(said) < 700, said


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_one_line(kind, folder):
    contents, message = HOSTILE[kind]
    with open("x.safetensors", "wb") as file:
        file.write(contents)
    refused("x.safetensors", message)
    os.mkdir("hub")
    os.rename("x.safetensors", "hub/model.safetensors")
    with pytest.raises(InputError, match="^hub/model.safetensors: [^\n]+$"):
        load_generator("hub")


def test_a_header_of_any_length_is_read_right(folder):
    """The values may begin at any byte of the file."""
    values = np.arange(4, dtype=np.float32)
    for spaces in range(8):
        header = json.dumps({"x": entry(), "y": entry(span=(16, 32))}).encode() + b" " * spaces
        open("x.safetensors", "wb").write(file_of(header, values.tobytes() + (values + 4).tobytes()))
        metadata, found = tensors.read_tensors("x.safetensors")
        assert metadata == {} and found["x"].tolist() == [[0, 1], [2, 3]] and found["y"].tolist() == [[4, 5], [6, 7]]


def test_many_keys_below_the_limit(folder):
    header = {f"{i:x}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(50_000)}
    contents = file_of(header, bytes(200_000))
    assert len(contents) - 200_008 < tensors.LARGEST_HEADER
    open("x.safetensors", "wb").write(contents)
    refused("x.safetensors", "not a known generator (its keys: 0, 1, 2, 3)")


def described(**changes):
    network = dict(n_residual_blocks=1, ngf=4, channels=3, out_channels=3) | changes.pop("network", {})
    return {"version": 1, "generators": {"AB": network}} | changes


FACTS = {
    "not JSON": ("{", "metadata cyclegan is not JSON"),
    "nested": ("[" * 100_000, "metadata cyclegan is not JSON"),
    "a list": ([], "metadata is []"),
    "no generators": ({"version": 1}, "metadata is {'version': 1}"),
    "newer": (described(version=2), "written by a newer cyclegan.py (format 2)"),
    "no version": (described(version="x"), "version is 'x'"),
    "no direction": (described(generators={"CD": {}}), "generators of its metadata is ['CD']"),
    "none": (described(generators={}), "generators of its metadata is []"),
    "options of a list": (described(generators={"AB": [1]}), "its options are a list"),
    "ngf": (described(network=dict(ngf=8)), "model.1.weight of the generator is of shape (4, 3, 7, 7)"),
    "huge ngf": (described(network=dict(ngf=4096)), "model.1.weight of the generator is of shape (4, 3, 7, 7)"),
    "ngf out of range": (described(network=dict(ngf=10**9)), "its option ngf is 1000000000"),
    "many blocks": (described(network=dict(n_residual_blocks=1000)), "too few for 1000 residual blocks"),
    "channels": (described(network=dict(channels=10**9)), "channels is 1000000000"),
    "no channels": (described(network=dict(out_channels=None)), "out_channels is None"),
    "another network": (described(network=dict(generator="unet")), "does not fit the options"),
    "unknown network": (described(network=dict(generator="evil")), "its option generator is 'evil'"),
    "range": (described(network=dict(range_in="1 0")), "LOW must be less than HIGH"),
    "range of a list": (described(network=dict(range_in=[1])), "not two numbers"),
    "epoch": (described(epoch=-1), "epoch is -1"),
    "step": (described(step="3"), "step is '3'"),
    "options": (described(options=[]), "its options are a list"),
    "size": (described(options={"img_height": 10**9}), "its option img_height is 1000000000"),
    "name": (described(options={"dataset_name": ["x"]}), "its option dataset_name is ['x']"),
    "provenance": (described(trained_by="me"), "trained_by is 'me'"),
}


@pytest.mark.parametrize("kind", FACTS)
def test_metadata_is_checked(kind, folder):
    facts, message = FACTS[kind]
    state = GeneratorResNet(ngf=4, n_residual_blocks=1).state_dict()
    text = facts if isinstance(facts, str) else json.dumps(facts)
    safetensors.save_file(state, "x.safetensors", {KEY: text})
    refused("x.safetensors", message)


@pytest.mark.parametrize("with_metadata", [False, True])
def test_values_that_are_not_finite(with_metadata, folder):
    state = GeneratorResNet(ngf=4, n_residual_blocks=1).state_dict()
    state["model.4.weight"][1, 2, 0, 0] = float("nan")
    safetensors.save_file(state, "x.safetensors", {KEY: json.dumps(described())} if with_metadata else None)
    refused("x.safetensors", "has weights that are not finite")


def test_integers_for_weights(folder):
    state = {key: value.int() for key, value in GeneratorResNet(ngf=4, n_residual_blocks=1).state_dict().items()}
    safetensors.save_file(state, "x.safetensors", {KEY: json.dumps(described())})
    refused("x.safetensors", "model.1.weight of the generator is of shape (4, 3, 7, 7), torch.int32")


def test_links_pipes_and_folders(folder):
    """Links to files are followed, because the cache of the Hub consists of them."""
    os.mkfifo("pipe")
    os.symlink("pipe", "p.safetensors")
    refused("p.safetensors", "not a regular file")
    os.symlink("nothing", "n.safetensors")
    refused("n.safetensors", "no such checkpoint")
    os.symlink("loop.safetensors", "loop.safetensors")
    refused("loop.safetensors", "cannot be read (Too many levels of symbolic links)")
    os.mkdir("f.safetensors")
    refused("f.safetensors", "not a regular file")
    os.mkdir("hub")
    refused("hub", "is a folder. Name a file in it")
    os.mkfifo("hub/model.safetensors")
    with pytest.raises(InputError, match="^hub/model.safetensors: not a regular file$"):
        load_generator("hub")
    os.remove("hub/model.safetensors")
    write_checkpoint("saved_models/tiny/latest.pth")
    os.symlink(os.path.abspath(write_all()["AB"][2]), "hub/model.safetensors")
    assert load_generator("hub", "BA").direction == "BA"


def test_without_the_package(folder, monkeypatch):
    write_checkpoint("saved_models/tiny/latest.pth")
    path = write_all()["AB"][0]
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    refused(path, "requires safetensors: pip install safetensors")
    real = export.check_package.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "safetensors" else real(name))
    for kind in ("safetensors", "hub"):
        with pytest.raises(InputError, match="requires safetensors: pip install safetensors"):
            export.main(["--checkpoint", "saved_models/tiny/latest.pth", "--format", kind])


def test_a_pipe_beside_a_generator_does_not_block(tmp_path):
    from inference.load import provenance_beside

    os.mkfifo(tmp_path / "options.json")
    assert provenance_beside(str(tmp_path / "G_AB_1.pth")) == {}
