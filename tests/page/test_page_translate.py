"""page/translate.py and page/compare.py: the files are those of translate.py, byte for byte."""

import os
import shutil

import numpy as np
import pytest
import torch
from helpers import assert_same
from PIL import Image

import translate
from inference.load import load_generator
from page.compare import through_checkpoints
from page.models_found import Models
from page.translate import (
    Settings,
    Translators,
    before_and_after,
    painted_mask,
    preview,
    read_settings,
    translate_file,
    write_mask,
)  # fmt: skip
from utils import InputError


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """Changes to a folder with the run of `trained` -> Translators"""
    for name in ("saved_models", "photo.jpg"):
        os.symlink(trained / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Translators(Models(), torch.device("cpu"))


def by_command(*options, checkpoint=("saved_models/tiny/latest.pth",), source="photo.jpg"):
    """The bytes that translate.py writes"""
    name = "expected" + os.path.splitext(source)[1]
    words = ["--checkpoint", *checkpoint, "--input", source, "--output", name, "--overwrite", "--device", "cpu"]
    assert translate.main([*words, *options]) == 0
    return open(name, "rb").read()


CASES = {
    "plain": ({}, [], ["latest.pth"]),
    "BA": ({"direction": "BA"}, ["--direction", "BA"], ["latest.pth"]),
    "an epoch": ({"checkpoint": "epoch 1"}, [], ["G_AB_1.pth"]),
    "size": ({"size": 32}, ["--size", "32"], ["latest.pth"]),
    "keep_size": ({"size": 32, "keep_size": True}, ["--size", "32", "--keep_size"], ["latest.pth"]),
    "strength": ({"strength": 0.25}, ["--strength", "0.25"], ["latest.pth"]),
    "mix": (
        {"mix_run": "tiny", "mix_checkpoint": "epoch 1", "mix": 0.25},
        ["--mix", "0.25", "--direction", "AB"],
        ["latest.pth", "G_AB_1.pth"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_is_that_of_translate_py(here, tmp_path, case):
    changes, options, files = CASES[case]
    path, notes = translate_file(
        "photo.jpg", Settings(**{"run": "tiny", "checkpoint": "latest"} | changes), here, "out"
    )
    assert path == os.path.join("out", "photo_translated.jpg") and notes == []
    expected = by_command(*options, checkpoint=[f"saved_models/tiny/{name}" for name in files])
    assert open(path, "rb").read() == expected
    if case != "plain":
        assert expected != by_command()


def test_a_painted_mask(here):
    paint = np.zeros((36, 24, 4), np.uint8)  # half as large as the upright photo
    paint[:18, :, :] = (255, 48, 48, 128)
    Image.fromarray(paint).save("layer.png")
    mask = painted_mask([open("layer.png", "rb").read()])
    assert mask.shape == (36, 24) and (mask[:18] == 255).all() and (mask[18:] == 0).all()
    write_mask(mask, "photo.jpg", "mask.png")
    assert Image.open("mask.png").size == (48, 72)
    path, _ = translate_file("photo.jpg", Settings("tiny", "latest"), here, "out", mask="mask.png")
    assert open(path, "rb").read() == by_command("--mask", "mask.png")


def test_masks_that_cannot_be_used(here):
    assert painted_mask([]) is None
    Image.new("RGBA", (8, 8)).save("empty.png")
    Image.new("RGBA", (9, 8), "red").save("other.png")
    Image.new("1", (5000, 5000)).save("large.png")
    empty, other, large = (open(f"{name}.png", "rb").read() for name in ("empty", "other", "large"))
    assert painted_mask([empty]) is None
    for layers in ([empty, other], [large], [b"%!PS-Adobe-3.0 EPSF-3.0"], [b"GIF89a"], [b""]):
        with pytest.raises(InputError, match="the painted mask"):
            painted_mask(layers)


def test_a_video(here):
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    told = []
    path, notes = translate_file(
        "clip.mp4", Settings("tiny", "latest"), here, "out", progress=lambda *done: told.append(done)
    )
    assert path == "out/clip_translated.mp4" and notes == ["clip_translated.mp4: 5 frames"]
    assert open(path, "rb").read() == by_command(source="clip.mp4")
    assert told[-1][0] == 5


def test_generators_are_kept_until_their_file_changes(here, trained, tmp_path):
    os.remove("saved_models")
    os.makedirs("saved_models/a")
    for name in ("G_AB_1.pth", "G_AB_2.pth"):
        shutil.copy(trained / "saved_models/tiny" / name, "saved_models/a")
    kept = here.generator("a", "epoch 1", "AB")
    assert here.generator("a", "epoch 1", "AB") is kept
    os.replace("saved_models/a/G_AB_2.pth", "saved_models/a/G_AB_1.pth")  # as training does
    renewed = here.generator("a", "epoch 1", "AB")
    expected = load_generator(f"{trained}/saved_models/tiny/G_AB_2.pth").network.state_dict()
    assert_same(renewed.network.state_dict(), expected)
    os.remove("saved_models/a/G_AB_1.pth")
    with pytest.raises(InputError):
        here.generator("a", "epoch 1", "AB")


def test_few_generators_are_kept(here):
    here.n_kept = 2
    first = here.generator("tiny", "epoch 1", "AB")
    here.generator("tiny", "epoch 2", "AB")
    assert here.generator("tiny", "epoch 1", "AB") is first
    here.generator("tiny", "latest", "AB")  # the second has waited longest
    assert [key[0] for key in here.kept] == ["saved_models/tiny/G_AB_1.pth", "saved_models/tiny/latest.pth"]


def test_errors_name_the_upload_and_not_the_folders(here, tmp_path):
    os.makedirs("uploads/0123")
    with open("uploads/0123/broken.png", "w") as file:
        file.write("not a picture")
    source = os.path.join(tmp_path, "uploads", "0123", "broken.png")
    with pytest.raises(InputError) as error:
        translate_file(source, Settings("tiny", "latest"), here, os.path.join(tmp_path, "out"))
    assert str(error.value).startswith("broken.png: broken, or not an image")
    assert str(tmp_path) not in str(error.value)


GOOD = dict(run="tiny", checkpoint="latest", direction="AB", size=128, keep_size=True, strength=1)


def test_settings():
    assert read_settings(**GOOD) == Settings("tiny", "latest", "AB", 128, True, 1.0)
    assert read_settings(**GOOD | dict(size=0, keep_size=False)).size is None
    assert read_settings(**GOOD | dict(size=None, keep_size=False)).size is None
    full = read_settings(**GOOD | dict(size=0))  # the box is ticked when the page opens
    assert (full.size, full.keep_size) == (None, False)
    mixed = read_settings(**GOOD, mix_run="b", mix_checkpoint="epoch 1", mix=0.5)
    assert (mixed.mix_run, mixed.mix_checkpoint, mixed.mix) == ("b", "epoch 1", 0.5)
    assert read_settings(**GOOD, mix_run="", mix_checkpoint="epoch 1", mix=0.5).mix is None


@pytest.mark.parametrize("change", [
    dict(size=-1), dict(size=4097), dict(size=1e300), dict(size=float("nan")), dict(size=12.5), dict(size="128"),
    dict(size=[1]), dict(size=True), dict(strength=1.01), dict(strength=None), dict(strength="1"),
    dict(strength=float("inf")), dict(mix_run="b", mix=2), dict(mix_run="b"),
], ids=str)  # fmt: skip
def test_settings_that_are_refused(change):
    with pytest.raises(InputError):
        read_settings(**GOOD | change)


def test_a_thin_picture_is_not_enlarged_to_more_than_an_upload_may_have(here):
    Image.new("RGB", (2, 2000)).save("thin.png")
    words = "size 4096: the picture would have 4096 x 4096000 pixels, more than .* million. Choose a smaller size"
    for keep_size in (True, False):
        with pytest.raises(InputError, match=words):
            translate_file("thin.png", Settings("tiny", "latest", size=4096, keep_size=keep_size), here, "out")


def test_previews(here):
    Image.new("RGB", (3000, 1500), "red").save("large.png")
    assert preview("large.png").size == (1280, 640)
    Image.new("I;16", (20, 10), 0x8080).save("deep.png")
    assert preview("deep.png").getpixel((0, 0)) == (128, 128, 128)
    before, after = before_and_after("photo.jpg", "large.png")
    assert before.size == after.size == (1280, 640)
    np.save("many.npy", np.zeros((8, 8, 12), np.uint8))
    assert before_and_after("photo.jpg", "many.npy") is None


def test_comparison_goes_through_the_kept_checkpoints(here):
    settings = Settings("tiny", "latest", size=32)
    found = list(through_checkpoints("photo.jpg", settings, here, "compared"))
    assert [each[:3] for each in found] == [("epoch 1", 1, 2), ("epoch 2", 2, 2)]
    for (*_, image), epoch in zip(found, (1, 2)):
        path, _ = translate_file("photo.jpg", Settings("tiny", f"epoch {epoch}", size=32), here, f"out{epoch}")
        assert np.array_equal(image, preview(path))
    assert not np.array_equal(found[0][3], found[1][3])
