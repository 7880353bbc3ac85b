"""measuring/palettes.py and the score by class with any palette."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from measuring.palettes import Palette, palette_of_images, read_palette, share_of_palette
from media.files import save_file
from models import GeneratorResNet, weights_init_normal
from utils import InputError

SIZE = 32


def test_a_palette_file(tmp_path):
    path = tmp_path / "palette.txt"
    path.write_text(
        "# facades\n\nwindow   0 85 255\ntraffic light\t#FFaa00  # a comment\n  level 2: 1, 2,3\n"
        "void 0 0 0\nvoid #ffffff\n\n",
        encoding="utf-8-sig",
    )
    palette = read_palette(str(path))
    assert palette.classes == {"window": (0, 85, 255), "traffic light": (255, 170, 0), "level 2": (1, 2, 3)}
    assert palette.void == ((0, 0, 0), (255, 255, 255)) and palette.name == str(path)
    assert palette.colours().dtype == np.uint8 and palette.colours()[:, 0].tolist() == [0, 255, 1, 0, 255]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a 0 0 0\nb 1 2\n", "line 2: expected a name and a colour, such as"),
        ("a 0 0 0\n# comment\nb #12345\n", "line 3: expected a name and a colour"),
        ("a 0 0 0\n1 2 3\n", "line 2: expected a name and a colour"),
        ("a 0 0 0\nb -1 0 0\n", "line 2: expected a name and a colour"),
        ("a 0 0 0\nb 1 256 0\n", "line 2: 256 is not from 0 to 255"),
        ("a 0 0 0\nb #000000\n", r"line 2: the colour \(0, 0, 0\) is also on line 1"),
        ("a 0 0 0\nb 1 1 1\na 2 2 2\n", "line 3: there is already a class a"),
        ("a 0 0 0\nvoid 1 1 1\n", "has 1 classes, expected 2 to 254"),
        ("", "has 0 classes, expected 2 to 254"),
        ("\n".join(f"c{i} {i} 0 0" for i in range(255)), "has 255 classes, expected 2 to 254"),
        (b"\xff\xfe\x00", "not a text file"),
        (None, "no such file. Use cityscapes, auto, or"),
    ],
)
def test_bad_palette_files_are_reported_with_their_line(tmp_path, text, message):
    path = tmp_path / "palette.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"^--palette {path}[:,] ?{message}"):
        read_palette(str(path))


COLOURS = np.array([[0, 0, 170], [0, 85, 255], [255, 170, 0], [170, 0, 0]], np.uint8)


def write(path, classes, colours=COLOURS, times=8, **options):
    Image.fromarray(colours[classes].repeat(times, 0).repeat(times, 1)).save(path, **options)
    return str(path)


def blocks(n, seed=0):
    """Class indices of n label images, (n, 8, 8); the first class is the most frequent one."""
    return np.random.default_rng(seed).choice(4, (n, 8, 8), p=[0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("name, options", [("{}.png", {}), ("{}.jpg", dict(quality=90, times=48))])
def test_a_palette_is_found_in_label_images(tmp_path, name, options):
    paths = [write(tmp_path / name.format(i), c, **options) for i, c in enumerate(blocks(6))]
    palette = palette_of_images(paths)
    found = np.array(list(palette.classes.values()))
    assert palette.name == "auto" and len(found) == 4 and np.abs(found - COLOURS.astype(int)).max() <= 3
    if name == "{}.png":
        assert list(palette.classes) == ["#0000aa", "#0055ff", "#ffaa00", "#aa0000"]
        assert share_of_palette(paths, palette) == 1
    else:
        assert 0.5 < share_of_palette(paths, palette) < 1


def test_similar_colours_of_lossless_labels_stay_apart(tmp_path):
    close = np.array([[0, 0, 142], [0, 0, 143], [0, 1, 142], [250, 0, 0]], np.uint8)
    assert len(palette_of_images([write(tmp_path / "0.png", blocks(1)[0], close)]).classes) == 4


def test_photos_are_no_label_images(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "smooth.png")
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    assert palette_of_images([str(tmp_path / "smooth.png")]) is None
    assert palette_of_images([str(tmp_path / "white.png")]) is None
    assert share_of_palette([str(tmp_path / "smooth.png")], Palette("", {"a": (0, 0, 170), "b": (0, 85, 255)})) < 0.1


@pytest.fixture
def labelled(make_set, tmp_path, monkeypatch, no_downloads):
    """A data set with photos in A and labels in B, and a generator that turns labels A -> B -> classes (6, 8, 8)."""
    monkeypatch.chdir(tmp_path)
    make_set((SIZE, SIZE), trainA=1, testA=6)
    (tmp_path / "data/tiny/testB").mkdir()
    classes = blocks(6)[:, :4, :4]
    for i, c in enumerate(classes):
        write(tmp_path / f"data/tiny/testB/{i}.png", c)
    for i, name in enumerate(("G_AB", "G_BA")):
        torch.manual_seed(i)
        save_file(GeneratorResNet(3, 1, 8).apply(weights_init_normal).state_dict(), f"{name}_1.pth")

    def measure(palette, *options):
        evaluate.main(["--checkpoint", "G_AB_1.pth", "--dataset_name", "tiny", "--img_height", str(SIZE), "--img_width",
                       str(SIZE), "--n_cpu", "0", "--no-amp", "--palette", palette, *options])  # fmt: skip
        return json.loads(open("metrics.jsonl").readlines()[-1])

    return measure


@pytest.mark.slow
def test_a_palette_from_a_file_and_from_the_images_give_the_same_scores(labelled, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("wall 0 0 170\nwindow #0055ff\ndoor 255 170 0\nroof 170 0 0\ngarden 0 255 0\n")
    mine, auto = labelled("mine.txt"), labelled("auto")
    assert list(mine["results"]["AB"]["iou_by_class"]) == ["wall", "window", "door", "roof"]
    assert mine["absent"] == ["garden"] and auto["absent"] == []
    assert mine["references"]["the true labels"]["class_iou_all"] == pytest.approx(4 / 5)
    assert auto["references"]["the true labels"]["class_iou_all"] == 1
    assert mine["palette"]["classes"]["door"] == [255, 170, 0] and len(auto["palette"]["classes"]) == 4
    assert "pixel_accuracy" not in mine["results"]["BA"]
    assert "A -> B, IoU by class: wall 0." in capsys.readouterr().out


@pytest.mark.slow
def test_bad_palettes_end_the_evaluation_before_anything_is_written(labelled, tmp_path):
    (tmp_path / "other.txt").write_text("a 9 200 9\nb 200 9 200\n")
    with pytest.raises(InputError, match="--palette other.txt: .* is not in the colours of the palette"):
        labelled("other.txt")
    with pytest.raises(InputError, match="--palette absent.txt: no such file"):
        labelled("absent.txt")
    for i in range(6):
        (tmp_path / f"data/tiny/testB/{i}.png").write_bytes((tmp_path / f"data/tiny/testA/{i}.png").read_bytes())
    with pytest.raises(InputError, match="--palette auto: no domain consists of label images with at most 64 colours"):
        labelled("auto")
    assert not (tmp_path / "metrics.jsonl").exists()
