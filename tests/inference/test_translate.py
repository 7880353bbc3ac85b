"""The real main([...]) on small pictures with small generators: what is written where, and what cannot be."""

import errno
import os
import re
import stat
import struct
import zlib

import av
import numpy as np
import pytest
import torch
from PIL import Image

from inference import translator
from inference.jobs import translate_video_file
from inference.translator import Translator
from media import camera
from media.flicker import Smoother
from media.targets import distinct_targets
from models import GeneratorResNet
from utils import InputError


def huge_png():
    """60000 x 60000 pixels, says its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\1\0IDAT"
    )


def noise(height=33, width=36, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, pixels=None, **options):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Image.fromarray(noise() if pixels is None else pixels).save(path, **options)
    return path


def load(path):
    return np.asarray(Image.open(path))


def tree(folder="."):
    """All files, but for the checkpoints."""
    paths = [os.path.relpath(os.path.join(path, name), folder) for path, _, names in os.walk(folder) for name in names]
    return {path.replace(os.sep, "/") for path in paths if not path.endswith(".pth")}


def reflected(n, length):
    """Where the pixels of a row of n come from, reflected to and fro until there are `length`: 0 1 2 1 0 … for n = 3"""
    period = max(1, 2 * (n - 1))
    return [min(i % period, period - i % period) for i in range(length)]


@torch.no_grad()
def float_result(G, pixels):
    """What a generator makes of uint8 (H, W, C), in gray levels, not rounded; by hand."""
    height, width = pixels.shape[:2]
    rows, columns = (reflected(n, max(32, n + -n % 4)) for n in (height, width))
    x = torch.from_numpy(pixels[rows][:, columns]).permute(2, 0, 1)[None].float() / 127.5 - 1
    return ((G(x)[0].permute(1, 2, 0) + 1) * 127.5)[:height, :width].double().numpy()


def assert_close(pixels, expected, levels=0.51):
    assert pixels.shape == expected.shape and np.abs(pixels.astype(float) - expected).max() <= levels


# ----- the network sees the whole picture


@pytest.mark.parametrize("height, width", [(3, 50), (50, 2), (31, 33), (64, 64), (65, 63), (63, 64), (100, 101)])
def test_any_size_comes_out_as_it_went_in(translate, make_generator, height, width):
    save("x.png", noise(height, width))
    assert translate("--input", "x.png") == 0
    result, expected = load("x_translated.png"), float_result(make_generator(), noise(height, width))
    assert_close(result, expected)
    assert np.abs(result.astype(float) - noise(height, width)).max() > 20
    assert tree() == {"x.png", "x_translated.png"}


def test_a_single_pixel_is_translated(translate):
    """It is constant after padding, so instance norm amplifies rounding errors, and the value cannot be known."""
    save("x.png", noise(1, 1))
    for name in ("y.png", "z.png"):
        assert translate("--input", "x.png", "--output", name) == 0
    result = load("y.png")
    assert result.shape == (1, 1, 3) and result.dtype == np.uint8 and np.array_equal(result, load("z.png"))


@pytest.mark.parametrize("upsample, n_residual_blocks", [("transpose", 0), ("nearest", 2)])
def test_other_generators(translate, make_generator, upsample, n_residual_blocks):
    G = make_generator("other.pth", 3, 1, n_residual_blocks, 5, upsample)
    save("x.png", noise(40, 52, 1)[..., 0])
    assert translate("--input", "x.png", checkpoint="other.pth") == 0
    assert_close(load("x_translated.png")[..., None], float_result(G, noise(40, 52, 1)))


def test_direction_of_a_full_checkpoint(translate, make_generator, capsys):
    G = {name: make_generator(name + ".pth", seed) for seed, name in enumerate(("G_AB", "G_BA"))}
    weights = {name: generator.state_dict() for name, generator in G.items()}
    torch.save({"version": 1, "options": {"ngf": 8}, "epoch": 7, **weights}, "latest.pth")
    save("x.png")
    for direction, words in (("AB", ()), ("AB", ("--direction", "AB")), ("BA", ("--direction", "BA"))):
        assert translate("--input", "x.png", "--output", "y.png", "--overwrite", *words, checkpoint="latest.pth") == 0
        assert_close(load("y.png"), float_result(G["G_" + direction], noise()))
        arrow = f"latest.pth: 0.03 M parameters, 1 residual block, {direction[0]} -> {direction[1]}, epoch 7\n"
        assert arrow in capsys.readouterr().out
    with pytest.raises(InputError, match="--direction AB: G_BA.pth translates BA, according to its name"):
        translate("--input", "x.png", "--direction", "AB", checkpoint="G_BA.pth")


def test_parts_of_a_large_picture_make_the_same_picture(translate, monkeypatch):
    calls, in_bands = [], translator.translate_in_bands
    monkeypatch.setattr(translator, "translate_in_bands", lambda *args: calls.append(args[1].shape) or in_bands(*args))
    save("x.png", noise(203, 66))
    assert translate("--input", "x.png", "--output", "whole.png") == 0 and not calls
    assert translate("--input", "x.png", "--output", "parts.png", "--tile", "64") == 0
    assert calls == [(1, 3, 204, 68)]
    assert_close(load("whole.png"), load("parts.png").astype(float), levels=1)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_batches_of_mixed_sizes_give_the_same_pictures(translate, monkeypatch, batch_size):
    sizes, order = [(40, 48), (48, 40), (33, 36)], [0, 1, 0, 2, 0, 0, 1, 0, 2, 1, 0, 1, 1]
    for i, kind in enumerate(order):
        save(f"in/{i}.png", noise(*sizes[kind], seed=i))
    save("in/13.png", noise(*sizes[0], 4))  # with transparency, in a batch with those without
    assert translate("--input", "in", "--output", "one", "--batch_size", "1") == 0
    seen, batch = [], Translator.translate_batch
    monkeypatch.setattr(
        Translator, "translate_batch", lambda self, x, masks: seen.append(len(x)) or batch(self, x, masks)
    )
    assert translate("--input", "in", "--output", "many", "--batch_size", str(batch_size)) == 0
    assert sum(seen) == 14 and max(seen) == (4 if batch_size == 4 else 7)
    assert tree("one") == tree("many") == {f"{i}.png" for i in range(14)}
    for name in tree("one"):
        assert_close(load(f"many/{name}"), load(f"one/{name}").astype(float), levels=1)
    assert load("many/13.png").shape == (40, 48, 4)


def test_animations_and_single_pictures_in_one_batch(translate):
    for i in range(5):
        save(f"in/{i}.png", noise(seed=i))
    first, *others = (Image.fromarray(noise(seed=10 + i)) for i in range(3))
    first.save("in/2.png", save_all=True, append_images=others)
    for i in range(5):  # each with a mask of its own
        save(f"masks/{i}.png", np.full((33, 36), [255, 90, 0, 200, 0][i], np.uint8))
    assert translate("--input", "in", "--output", "one", "--mask", "masks", "--batch_size", "1") == 0
    assert translate("--input", "in", "--output", "many", "--mask", "masks", "--batch_size", "4") == 0
    for i in range(5):
        with Image.open(f"one/{i}.png") as one, Image.open(f"many/{i}.png") as many:
            assert one.n_frames == many.n_frames == (3 if i == 2 else 1)
            for frame in range(one.n_frames):
                one.seek(frame)
                many.seek(frame)
                assert_close(np.asarray(many), np.asarray(one, float), levels=1)
                assert i != 2 or np.array_equal(many, noise(seed=10 + frame))


# ----- what is read, and where it is written


def test_folder_keeps_its_tree(translate, capsys):
    names = {"a.png", "B.JPG", "deep/er/c.webp", "deep/d.tif"}
    for name in names:
        save("in/" + name)
    for hidden in ("in/.hidden.png", "in/.thumbs/t.png", "in/deep/._d.tif"):
        save(hidden)
    os.makedirs("in/empty")
    with open("in/notes.txt", "w"):
        pass
    assert translate("--input", "in", "--output", "out") == 0
    assert tree("out") == names and Image.open("out/deep/er/c.webp").format == "WEBP"
    told = capsys.readouterr()
    assert "note: in: skipped 1 file that is neither image nor video, such as in/notes.txt" in told.out
    assert "4 translated in 0:0" in told.out and ", 0 failed" in told.out and told.err == ""


@pytest.mark.parametrize("ending", ["", "/"])
def test_default_name_of_a_folder(translate, ending):
    save("in/a.png")
    assert translate("--input", "in" + ending) == 0
    assert tree() == {"in/a.png", "in_translated/a.png"}


def test_globs(translate):
    for name in ("a.png", "b.png", "c.jpg", "deep/d.png", "deep/er/e.png"):
        save("in/" + name)
    assert translate("--input", "in/*.png", "--output", "flat") == 0
    assert tree("flat") == {"a.png", "b.png"}
    assert translate("--input", "in/**/*.png", "--output", "all") == 0
    assert tree("all") == {"a.png", "b.png", "deep/d.png", "deep/er/e.png"}
    assert translate("--input", "in/[c]*") == 0
    assert tree("translated") == {"c.jpg"}
    with pytest.raises(InputError, match=r"--input in/\*\.gif: matches no file"):
        translate("--input", "in/*.gif", "--output", "none")


def test_a_name_with_brackets_is_a_name(translate):
    save("holiday [1].png")
    assert translate("--input", "holiday [1].png") == 0
    assert tree() == {"holiday [1].png", "holiday [1]_translated.png"}


def test_the_output_is_no_input_of_the_next_run(translate):
    for name in ("a.png", "deep/b.png"):
        save("in/" + name)
    for pattern in ("in", "in", "in/**/*.png", "in/a.png"):
        assert translate("--input", pattern, "--output", "in/out", "--resume") == 0
        assert tree("in/out") == {"a.png", "deep/b.png"}


def test_several_inputs(translate):
    for name in ("a.png", "in/b.png", "in/deep/c.png"):
        save(name)
    assert translate("--input", "a.png", "in", "a.png", "in/b.png") == 0
    assert tree("translated") == {"a.png", "b.png", "deep/c.png"}


@pytest.mark.parametrize(
    "source, options, written",
    [
        ("x.jpg", "", "x_translated.jpg"),
        ("in/x.jpg", "", "in/x_translated.jpg"),
        ("x.jpg", "--output y.png", "y.png"),
        ("x.jpg", "--output new/deep/y.webp", "new/deep/y.webp"),
        ("x.jpg", "--output new", "new/x.jpg"),
        ("x.jpg", "--output new/", "new/x.jpg"),
        ("x.jpg", "--output new --format png", "new/x.png"),
        ("x.jpg", "--format png", "x_translated.png"),
        ("x.jpg", "--format WEBP", "x_translated.webp"),
        ("x.ico", "", "x_translated.png"),
        ("x.ico", "--output new", "new/x.png"),
        ("x.two.dots.png", "", "x.two.dots_translated.png"),
    ],
)
def test_name_of_one_picture(translate, source, options, written):
    save(source, noise(32, 32))
    assert translate("--input", source, *options.split()) == 0
    assert tree() == {source, written}
    assert Image.open(written).format == {"jpg": "JPEG", "png": "PNG"}.get(written[-3:], "WEBP")


def test_into_an_existing_folder_that_is_called_like_a_picture(translate):
    os.mkdir("out.png")
    save("x.png")
    assert translate("--input", "x.png", "--output", "out.png") == 0
    assert tree() == {"x.png", "out.png/x.png"}


def test_format_of_many(translate):
    for name in ("a.jpg", "deep/b.tif"):
        save("in/" + name)
    assert translate("--input", "in", "--output", "out", "--format", "png") == 0
    assert tree("out") == {"a.png", "deep/b.png"} and Image.open("out/a.png").format == "PNG"


@pytest.mark.parametrize(
    "options, message",
    [
        ("--input none.png", "--input none.png: no such file or folder"),
        ("--input empty", "--input empty: holds no images and no videos"),
        ("--input in --output y.png", "--output y.png: is one file, but there are several inputs. Name a folder"),
        ("--input in --output y.mp4", "--output y.mp4: is one file"),
        ("--input in --output x.png", "--output x.png: is one file"),
        ("--input x.png --output x.png", "--output x.png: x.png is itself an input. Name another folder"),
        ("--input in --output in --overwrite", "--output in: in/a.jpg is itself an input"),
        ("--input x.png --output ./in/../x.png", "x.png is itself an input"),
        ("--input in other --output out", "in/a.jpg and other/a.jpg would both be written to out/a.jpg"),
        ("--input x.png --format psd", "--format psd: cannot be written"),
        ("--input x.png --mask none.png", "--mask none.png: no such file or folder"),
        ("--input x.png --mix 0.5", "--mix requires two checkpoints"),
        ("--input -", "--input -: only files can be read and written, not pipes"),
        ("--input https://example.org/a.jpg", "Download it first: curl -O https://example.org/a.jpg"),
        ("--input https://example.org/a?b&c", "Download it first: curl -O 'https://example.org/a?b&c'"),
        ("--input http://example.org/*.jpg", "only local files can be read"),
        ("--input s3://bucket/a.jpg", "aws s3 cp s3://bucket/a.jpg ."),
        ("--input rtsp://camera/1", "ffmpeg -i rtsp://camera/1 -t 60 -c copy clip.mkv"),
        ("--input file:///home/x.png", "name the file by its path, without file://"),
        ("--input in x.png -", "--input -: only files"),
        ("--input x.png --output -", "--output -: only files can be read and written"),
        ("--input x.png --output s3://bucket/y.png", "Write to a folder here, then upload it"),
        ("--input webcam x.png", "--input webcam: cannot be combined with other inputs"),
        ("--input webcam --features", "--features: webcam is a video"),
        ("--input in/a.jpg clip.mp4 --output there.png", "--output there.png: is one file"),
        ("--input clip.mp4 --output y.png", "an image's name, but clip.mp4 is a video. Use one of .mp4, .mov"),
        ("--input x.png --output y.heic", "--output y.heic: this format cannot be written. Use .png"),
        ("--input clip.mp4 --format webm", "is for images. For a video, name the result: --output NAME.webm"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(translate, options, message):
    for name in ("x.png", "in/a.jpg", "in/a.png", "other/a.jpg"):
        save(name)
    os.mkdir("empty")
    open("clip.mp4", "w").close()
    before = tree()
    with pytest.raises(InputError) as error:
        translate(*options.split())
    assert message in str(error.value) and "\n" not in str(error.value)
    assert tree() == before and not os.path.exists("out")


@pytest.mark.parametrize(
    "sources, options, expected",
    [
        # the file that keeps its name, whatever the order
        (["x.dds", "x.png"], "", {"x.dds": "x_dds.png", "x.png": "x.png"}),
        (["a.jpg", "a.png"], "--format png", {"a.jpg": "a_jpg.png", "a.png": "a.png"}),
        # the first one, if none keeps its name
        (
            ["a.jpg", "a.png", "a.tif"],
            "--format webp",
            {"a.jpg": "a.webp", "a.png": "a_png.webp", "a.tif": "a_tif.webp"},
        ),
        # a name that another input takes is not used
        (["x.dds", "x.png", "x_dds.png"], "", {"x.dds": "x_dds_2.png", "x.png": "x.png", "x_dds.png": "x_dds.png"}),
        # also where upper and lower case are not distinguished
        (["a.PNG", "a.png"], "", {"a.PNG": "a.PNG", "a.png": "a_png.png"}),
        (["A.dds", "a.png"], "", {"A.dds": "A_dds.png", "a.png": "a.png"}),
        (["x.dds", "x.png", "X_DDS.png"], "", {"x.dds": "x_dds_2.png", "x.png": "x.png", "X_DDS.png": "X_DDS.png"}),
        (["deep/x.dds", "x.png"], "", {"deep/x.dds": "deep/x.png", "x.png": "x.png"}),
    ],
)
def test_results_of_the_same_name(translate, capsys, sources, options, expected):
    if len({source.casefold() for source in sources}) < len(sources) and os.path.exists(os.getcwd().swapcase()):
        pytest.skip("this file system does not distinguish upper and lower case")
    for i, name in enumerate(sources):
        save("in/" + name, np.full((32, 32, 3), 20 * i, np.uint8))
    words = ["--input", "in", "--output", "out", "--strength", "0", *options.split()]
    assert translate(*words) == 0
    assert tree("out") == set(expected.values())
    for i, name in enumerate(sources):
        assert np.abs(load("out/" + expected[name]).astype(int) - 20 * i).max() <= 2
    renamed = [name for name in sources if os.path.splitext(name)[0] != os.path.splitext(expected[name])[0]]
    out = capsys.readouterr().out
    if renamed:
        assert f"note: in/{renamed[0]} is written to out/{expected[renamed[0]]}" in out
        assert (", and 1 more likewise, because" in out) == (len(renamed) == 2)
    else:
        assert "is written to" not in out
    # the names are the same in the next run
    assert translate(*words, "--resume") == 0 and "0 translated" in capsys.readouterr().out
    assert translate(*words, "--overwrite") == 0 and tree("out") == set(expected.values())


def test_a_file_that_is_named_in_two_ways_is_translated_once(translate):
    save("in/a.png")
    assert translate("--input", "in/a.png", "./in/../in/a.png", "--output", "out") == 0
    assert os.listdir("out") == ["a.png"]


def test_videos_of_the_same_name():
    files = [("in/clip.m4v", "clip.m4v"), ("in/clip.mpg", "clip.mpg")]
    notes = []
    targets = distinct_targets(files, ["out/clip.mp4", "out/clip.mp4"], notes)
    assert targets == {"out/clip.mp4": "in/clip.m4v", "out/clip_mpg.mp4": "in/clip.mpg"}
    assert notes == ["in/clip.mpg is written to out/clip_mpg.mp4, because another file's result has the plain name"]


def test_nothing_is_written_over_by_accident(translate, capsys):
    for i in range(4):
        save(f"in/{i}.png", noise(seed=i))
    save("out/1.png", noise(seed=8))
    save("out/2.png", noise(seed=9))
    facts = {name: (os.stat(name).st_mtime_ns, load(name).tolist()) for name in ("out/1.png", "out/2.png")}
    with pytest.raises(
        InputError, match="^out/1.png: already exists, and so does 1 more. --resume skips existing files"
    ):
        translate("--input", "in", "--output", "out")
    assert tree("out") == {"1.png", "2.png"}
    assert translate("--input", "in", "--output", "out", "--resume") == 0
    assert facts == {name: (os.stat(name).st_mtime_ns, load(name).tolist()) for name in facts}
    assert tree("out") == {"0.png", "1.png", "2.png", "3.png"}
    out = capsys.readouterr().out
    assert "skipping 2 of 4 outputs, which already exist" in out and "2 to translate" in out and "2 translated" in out
    assert translate("--input", "in", "--output", "out", "--resume") == 0
    assert "0 translated" in capsys.readouterr().out
    assert translate("--input", "in", "--output", "whole") == 0
    assert translate("--input", "in", "--output", "out", "--overwrite") == 0
    assert all(np.array_equal(load(f"out/{i}.png"), load(f"whole/{i}.png")) for i in range(4))


# ----- what is broken


def test_what_is_broken_is_named_and_the_rest_is_translated(translate, capsys):
    for name in ("a.png", "z.jpg", "photos.jpg/inside.png"):
        save("in/" + name)
    whole = open("in/z.jpg", "rb").read()
    contents = {
        "empty.jpg": b"",
        "truncated.jpg": whole[: len(whole) // 2],
        "truncated.png": open("in/a.png", "rb").read()[:900],
        "text.jpg": b"not a picture\n",
        "huge.png": huge_png(),
        "later.mp4": b"",
    }
    for name, content in contents.items():
        open("in/" + name, "wb").write(content)
    os.symlink("nowhere.png", "in/link.png")
    os.mkfifo("in/pipe.png")
    os.mkfifo("in/pipe.mp4")
    assert translate("--input", "in", "--output", "out") == 1
    told = capsys.readouterr()
    failed = re.findall(r"^not translated: in/(.*?): ", told.err, re.MULTILINE)
    assert sorted(failed) == sorted([*contents, "link.png", "pipe.png", "pipe.mp4"])
    assert len(told.err.splitlines()) == len(failed)
    assert "3 translated in 0:0" in told.out and f"{len(failed)} failed" in told.out
    assert "note: in/photos.jpg: is a folder, despite its name" in told.out
    assert tree("out") == {"a.png", "z.jpg", "photos.jpg/inside.png"}
    assert "3600000000 pixels" in re.search("huge.png: (.*)", told.err)[1]


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_one_broken_picture(translate, capsys, content):
    if content is None:
        os.mkfifo("x.png")
    else:
        open("x.png", "wb").write(content)
    assert translate("--input", "x.png", "--output", "out/y.png") == 1
    assert "not translated: x.png: " in capsys.readouterr().err and not os.path.exists("out")


def test_names_that_are_no_utf8(translate, capfd):
    good, bad = (os.path.join(b"in", name) for name in (b"sch\xf6n.png", b"b\xf6se.png"))
    save("in/plain.png")
    try:
        os.rename("in/plain.png", good)
        open(bad, "wb").close()
    except (OSError, UnicodeError):
        pytest.skip("this system knows no such names")
    assert translate("--input", "in", "--output", "out") == 1
    assert os.listdir(b"out") == [b"sch\xf6n.png"]
    assert re.search(r"not translated: in/b.+se.png: is empty", capfd.readouterr().err)


def failing(error, n=1):
    """Image.save that writes half of the n-th picture, and then fails."""
    original, count = Image.Image.save, [0]

    def save(self, path, *args, **options):
        count[0] += 1
        if count[0] != n:
            return original(self, path, *args, **options)
        path.write(b"half of a picture")  # an open file
        raise error

    return save


def test_a_picture_that_cannot_be_encoded_leaves_no_file(translate, monkeypatch, capsys):
    for i in range(3):
        save(f"in/{i}.png")
    monkeypatch.setattr(Image.Image, "save", failing(ValueError("too odd"), n=2))
    assert translate("--input", "in", "--output", "out", "--n_cpu", "1") == 1
    told = capsys.readouterr()
    assert told.err == "not translated: out/1.png: cannot be written (ValueError: too odd)\n"
    assert tree("out") == {"0.png", "2.png"} and "2 translated in" in told.out


def test_a_failed_write_leaves_the_old_file(translate, monkeypatch):
    save("x.png")
    save("y.png", noise(seed=3))
    monkeypatch.setattr(Image.Image, "save", failing(ValueError("too odd")))
    assert translate("--input", "x.png", "--output", "y.png", "--overwrite") == 1
    assert np.array_equal(load("y.png"), noise(seed=3)) and tree() == {"x.png", "y.png"}


def test_a_full_disk_ends_the_run(translate, monkeypatch, capsys):
    open("broken.png", "w").close()
    for i in range(30):
        save(f"in/{i:02}.png")
    monkeypatch.setattr(Image.Image, "save", failing(OSError(errno.ENOSPC, "No space left on device"), n=3))
    assert translate("--input", "broken.png", "in", "--output", "out", "--n_cpu", "1") == 1
    told = capsys.readouterr()
    assert "out/02.png: No space left on device; stopped here. Continue with --resume" in told.err
    assert "not translated: broken.png" in told.err and "2 failed" in told.out
    assert all(Image.open("out/" + name).size == (36, 33) for name in tree("out"))
    assert "02.png" not in tree("out") and len(tree("out")) < 15


def test_out_of_memory_is_told_and_the_rest_is_translated(translate, monkeypatch, capsys):
    save("in/a.png", noise(40, 200))
    save("in/b.png")
    batch = Translator.translate_batch

    def little_memory(self, pixels, masks):
        if pixels.shape[2] == 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return batch(self, pixels, masks)

    monkeypatch.setattr(Translator, "translate_batch", little_memory)
    assert translate("--input", "in", "--output", "out") == 1
    assert "not translated: in/a.png: out of memory. Try a smaller --tile" in capsys.readouterr().err
    assert tree("out") == {"b.png"}


def test_an_error_of_ours_is_no_lack_of_memory(translate, monkeypatch):
    save("x.png")
    monkeypatch.setattr(GeneratorResNet, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("sizes differ")))
    with pytest.raises(RuntimeError, match="sizes differ"):
        translate("--input", "x.png")


# ----- what is done to a picture


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
def test_strength(translate, make_generator, strength):
    save("x.png")
    assert translate("--input", "x.png", "--output", "y.png", "--strength", str(strength)) == 0
    expected = (1 - strength) * noise() + strength * float_result(make_generator(), noise())
    assert_close(load("y.png"), expected, levels=0.51 if strength else 0)


def test_soft_mask(translate, make_generator):
    save("x.png", noise(45, 50))
    mask = noise(45, 50, 1, seed=2)[..., 0]
    mask[:15], mask[15:30] = 0, 255
    save("mask.png", mask)
    fake, share = float_result(make_generator(), noise(45, 50)), mask[..., None] / 255
    for strength in (1.0, 0.5):
        options = ["--mask", "mask.png", "--strength", str(strength), "--overwrite"]
        assert translate("--input", "x.png", "--output", "y.png", *options) == 0
        result = load("y.png")
        assert_close(result, noise(45, 50) + strength * share * (fake - noise(45, 50)))
        assert np.array_equal(result[:15], noise(45, 50)[:15])
    assert translate("--input", "x.png", "--output", "whole.png") == 0
    assert translate("--input", "x.png", "--output", "z.png", "--mask", "mask.png") == 0
    assert np.array_equal(load("z.png")[15:30], load("whole.png")[15:30])


def test_mask_with_bands_and_of_another_resolution(translate):
    save("x.png", noise(200, 80))
    mask = np.zeros((100, 40), np.uint8)
    mask[:50] = 255
    save("mask.png", mask)
    assert translate("--input", "x.png", "--output", "y.png", "--mask", "mask.png", "--tile", "64") == 0
    assert translate("--input", "x.png", "--output", "whole.png") == 0
    assert np.array_equal(load("y.png")[102:], noise(200, 80)[102:])
    assert_close(load("y.png")[:98], load("whole.png")[:98].astype(float), levels=1)


def test_mask_of_another_shape_is_named(translate, capsys):
    save("x.png", noise(40, 60))
    save("mask.png", np.zeros((40, 40), np.uint8))
    assert translate("--input", "x.png", "--mask", "mask.png") == 1
    assert "mask.png: 40 x 40 pixels do not fit x.png of 60 x 40" in capsys.readouterr().err
    assert tree() == {"x.png", "mask.png"}


def test_folder_of_masks(translate, capsys):
    for name in ("a.jpg", "a.b.png", "deep/c.png", "d.png"):
        save("in/" + name)
    black, white = np.zeros((33, 36), np.uint8), np.full((33, 36), 255, np.uint8)
    save("masks/a.png", white)
    save("masks/a.b.png", black)
    save("masks/c.tif", black)
    assert translate("--input", "in", "--output", "out", "--mask", "masks", "--format", "png") == 1
    assert capsys.readouterr().err == "not translated: in/d.png: no mask named d in masks\n"
    assert tree("out") == {"a.png", "a.b.png", "deep/c.png"}
    for name in ("a.b.png", "deep/c.png"):
        assert np.array_equal(load("out/" + name), noise())
    assert translate("--input", "in/a.jpg", "--output", "whole.png") == 0
    assert np.array_equal(load("out/a.png"), load("whole.png"))


def test_mix_of_two_generators(translate, make_generator):
    one, other = make_generator("one.pth", 1), make_generator("other.pth", 2, upsample="nearest", ngf=4)
    save("x.png")
    a, b = float_result(one, noise()), float_result(other, noise())
    assert np.abs(a - b).max() > 10
    for mix in (0, 0.3, 1):
        assert translate("--input", "x.png", "--mix", str(mix), "--overwrite", checkpoint="one.pth other.pth") == 0
        assert_close(load("x_translated.png"), (1 - mix) * a + mix * b)
    make_generator("gray.pth", channels=1)
    with pytest.raises(InputError, match="--mix: the two generators are for different numbers of channels"):
        translate("--input", "x.png", "--mix", "0.5", "--overwrite", checkpoint="one.pth gray.pth")


@pytest.mark.parametrize(
    "size, expected", [("48", (72, 48)), ("100", (150, 100)), ("40x33", (40, 33)), ("1", (2, 1)), ("70X50", (70, 50))]
)
def test_size(translate, make_generator, size, expected):
    save("x.png", noise(60, 90))
    assert translate("--input", "x.png", "--size", size) == 0
    resized = Image.fromarray(noise(60, 90)).resize(expected, Image.Resampling.BICUBIC)
    assert_close(load("x_translated.png"), float_result(make_generator(), np.asarray(resized)))


@pytest.mark.parametrize("size", ["0", "1x2x3", "x", "wide", "-5", "3x"])
def test_sizes_that_are_none(translate, capsys, size):
    save("x.png")
    with pytest.raises(SystemExit):
        translate("--input", "x.png", f"--size={size}")
    assert "--size" in capsys.readouterr().err


@pytest.mark.parametrize("upsample", ["transpose", "nearest"])
def test_features(translate, make_generator, upsample):
    G = make_generator("two.pth", n_residual_blocks=2, upsample=upsample)
    save("x.png", noise(256, 256))
    assert translate("--input", "x.png", "--features", checkpoint="two.pth") == 0
    assert tree() == {"x.png", "x_features.png"}
    sheet = load("x_features.png")
    line = 14  # the title, then a caption above each row of input, three stages, two blocks, two stages, output
    assert sheet.shape == (line + 3 * (256 + line), 4 * 256, 3)

    def cell(i):
        left, top = i % 4 * 256, 2 * line + i // 4 * (256 + line)
        return sheet[top : top + 256, left : left + 256]

    assert np.array_equal(cell(0), noise(256, 256))
    assert_close(cell(8), float_result(G, noise(256, 256)))
    x = torch.from_numpy(noise(256, 256)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        first = torch.relu(G.model[2](G.model[1](G.model[0](x))))[0].mean(0)
    first = (first - first.min()) / (first.max() - first.min()) * 255
    assert_close(cell(1)[..., 0], first.double().numpy(), levels=1.01)
    for i in range(1, 8):  # gray, each one another picture
        assert np.ptp(cell(i).astype(int), axis=2).max() == 0 and cell(i).std() > 1
        assert not np.array_equal(cell(i), cell(i + 1))
    assert (sheet[-256:, 256:] == 255).all()  # nothing after the ninth


def test_features_of_a_gray_generator_in_a_named_file(translate, make_generator):
    make_generator("gray.pth", channels=1)
    save("x.png", noise(33, 50))
    assert translate("--input", "x.png", "--features", "--output", "new/y.jpg", checkpoint="gray.pth") == 0
    assert tree("new") == {"y.jpg"} and Image.open("new/y.jpg").format == "JPEG"


# ----- videos


def write_clip(path, n=7, height=48, width=64):
    """A bright spot that moves over a gradient -> its frames"""
    y, x = np.mgrid[:height, :width]
    frames = [
        np.stack([x * 3, y * 4, 250 * np.exp(-((x - 8 * i) ** 2 + (y - 20) ** 2) / 90)], -1)
        .clip(0, 255)
        .astype("uint8")
        for i in range(n)
    ]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return frames


def read_clip(path):
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def blocks(frame):
    """Means of 8 x 8 pixels: the file has half the resolution of the colours, and the translations are noisy."""
    return frame.astype(float).reshape(frame.shape[0] // 8, 8, frame.shape[1] // 8, 8, 3).mean((1, 3))


@pytest.mark.parametrize("source, target", [("x.mp4", "x_translated.mp4"), ("x.mkv", "x_translated.mkv"),
                                            ("x.m4v", "x_translated.mp4")])  # fmt: skip
def test_video(translate, capsys, source, target):
    frames = write_clip(source)
    assert translate("--input", source, "--strength", "0", "--batch_size", "3") == 0
    result = read_clip(target)
    assert len(result) == 7 and result[0].shape == (48, 64, 3)
    assert max(np.abs(a.astype(float) - b).mean() for a, b in zip(result, frames)) < 4
    told = capsys.readouterr()
    assert f"{target}: 7 frames\n" in told.out and "1 translated" in told.out and "images" not in told.out
    assert tree() == {source, target}


def test_video_is_translated_frame_by_frame(translate, make_generator):
    write_clip("x.mp4")
    make_generator("gray.pth", channels=1)
    for checkpoint, channels in (("G.pth", 3), ("gray.pth", 1)):
        assert translate("--input", "x.mp4", "--output", "y.mp4", "--overwrite", checkpoint=checkpoint) == 0
        G = make_generator(checkpoint, channels=channels)
        for frame, result in zip(read_clip("x.mp4"), read_clip("y.mp4"), strict=True):
            pixels = frame if channels == 3 else np.asarray(Image.fromarray(frame).convert("L"))[..., None]
            expected = np.broadcast_to(float_result(G, pixels), frame.shape)
            assert np.abs(blocks(result) - blocks(expected)).mean() < 3 < 20 < np.abs(frame - expected).mean()
            assert channels == 3 or np.ptp(blocks(result), axis=2).max() < 3


def test_video_with_mask_and_size(translate, capsys):
    os.mkdir("in")
    frames = write_clip("in/x.mp4")
    mask = np.zeros((48, 64), np.uint8)
    save("masks/x.png", mask)
    assert translate("--input", "in", "--output", "out", "--mask", "masks", "--size", "96x72") == 0
    result = read_clip("out/x.mp4")
    expected = [np.asarray(Image.fromarray(frame).resize((96, 72), Image.Resampling.BICUBIC)) for frame in frames]
    assert max(np.abs(a.astype(float) - b).mean() for a, b in zip(result, expected, strict=True)) < 4
    save("masks/x.png", mask[:, :48])
    assert translate("--input", "in", "--output", "out", "--mask", "masks", "--overwrite") == 1
    assert "masks/x.png: 48 x 48 pixels do not fit in/x.mp4 of 64 x 48" in capsys.readouterr().err


def test_smoothing_tells_the_flicker(translate, capsys):
    pytest.importorskip("cv2")
    write_clip("x.mp4")
    assert translate("--input", "x.mp4", "--smooth") == 0
    line = re.search(r"of 255: input ([\d.]+), translated ([\d.]+), smoothed ([\d.]+)", capsys.readouterr().out)
    _, before, after = map(float, line.groups())
    assert 0 < after < before


def test_webcam(translate, make_generator, capsys, monkeypatch):
    """FFmpeg's gray pattern in real time is the camera."""
    source = "color=gray:size=64x48:rate=10:duration=1,realtime"
    monkeypatch.setattr(camera, "open_camera", lambda name: av.open(source, format="lavfi"))
    monkeypatch.setattr(camera, "open_window", lambda title: None)
    for options, target in (
        ((), "webcam_translated.mp4"),
        (("--output", "y.mkv"), "y.mkv"),
        (("--output", "out"), "out/webcam.mp4"),
    ):
        assert translate("--input", "webcam", "--strength", "0", *options) == 0
        frames = read_clip(target)
        assert 5 <= len(frames) <= 10 and np.abs(frames[0].astype(int) - 128).max() <= 3
    out = capsys.readouterr().out
    assert "press Ctrl-C to stop" in out and "webcam_translated.mp4: " in out
    with pytest.raises(InputError, match="webcam_translated.mp4: already exists"):
        translate("--input", "webcam")
    monkeypatch.undo()


def test_a_missing_webcam_is_one_line(translate, capsys):
    assert translate("--input", "webcam:97") == 1
    err = capsys.readouterr().err
    assert err.startswith("not translated: --input webcam:97: camera 97 cannot be opened") and err.count("\n") == 1


def test_only_the_interface_of_a_translator_is_used(tmp_path, monkeypatch):
    """So that a class around a Translator can take its place."""
    monkeypatch.chdir(tmp_path)
    write_clip("x.mp4")

    class Negative:
        batch_size, channels, out_channels = 2, 1, 1
        __slots__ = ()

        def check_size(self, height, width, name):
            assert (height, width) == (48, 64)

        def __call__(self, pixels, masks=None):
            assert pixels.shape[1:] == (48, 64, 1) and len(pixels) <= 2 and masks is None
            return 255 - pixels

    assert translate_video_file("x.mp4", "y.mp4", Negative()).frames == 7
    for frame, result in zip(read_clip("x.mp4"), read_clip("y.mp4"), strict=True):
        gray = np.asarray(Image.fromarray(frame).convert("L")).astype(float)
        assert np.abs(255 - gray[..., None] - result).mean() < 6


def test_animation_as_video_and_folder_of_both(translate, capsys):
    frames = write_clip("x.mp4")
    first, *others = map(Image.fromarray, frames)
    os.mkdir("in")
    first.save("in/x.gif", save_all=True, append_images=others, duration=100)
    assert translate("--input", "in/x.gif", "--output", "y.mp4", "--strength", "0") == 0
    assert len(read_clip("y.mp4")) == 7
    os.rename("x.mp4", "in/clip.mp4")
    save("in/a.png")
    open("in/broken.mp4", "wb").write(b"no video")
    capsys.readouterr()
    assert translate("--input", "in", "--output", "out", "--strength", "0", "--format", "webp") == 1
    told = capsys.readouterr()
    assert tree("out") == {"x.webp", "clip.mp4", "a.webp"} and Image.open("out/x.webp").n_frames == 7
    assert told.err.startswith("not translated: in/broken.mp4: broken") and told.err.count("\n") == 1
    assert "3 translated in 0:0" in told.out and "1 failed" in told.out


def test_a_video_that_was_cut_off_is_translated_as_far_as_it_goes(translate, capsys):
    write_clip("x.mkv", n=30)
    data = open("x.mkv", "rb").read()
    open("x.mkv", "wb").write(data[: len(data) * 2 // 3])
    assert translate("--input", "x.mkv") == 1
    assert re.search(
        r"not translated: x.mkv: broken \(.*\); its first \d+ frames are in x_translated.mkv", capsys.readouterr().err
    )
    assert 0 < len(read_clip("x_translated.mkv")) < 30


def test_progress_in_a_terminal_does_not_run_into_other_lines(translate, capsys, monkeypatch):
    write_clip("in.mp4")
    save("a.png")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("command_line.progress.time.monotonic", iter(range(0, 10**6, 7)).__next__)
    assert translate("--input", "in.mp4", "a.png") == 0
    lines = [line.split("\r")[-1].rstrip() for line in capsys.readouterr().out.split("\n")]
    assert "translated/in.mp4: 7 frames" in lines
    assert re.fullmatch(r"2 translated in .*, 0 failed; written to translated", lines[-2]) and lines[-1] == ""
    assert all(re.match(r"\[.*\] \d+/\d+ (frames|images) ", line) or "[#" not in line for line in lines)


def test_files_are_as_readable_as_others(translate):
    """A temporary file must not hand on its own permissions."""
    save("x.png")
    assert translate("--input", "x.png") == 0
    assert stat.S_IMODE(os.stat("x.png").st_mode) == stat.S_IMODE(os.stat("x_translated.png").st_mode)


# ----- where results go, and what is said about it


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--input", "2024.05.01"], "2024.05.01_translated/a.png"),
        (["--input", "2024.05.01", "more"], "translated/a.png"),
        (["--input", "2024.05.01", "--features"], "2024.05.01_features/a.png"),
        (["--input", "a.png", "--features"], "a_features.png"),
        (["--input", "*.png"], "translated/a.png"),
    ],
)
def test_default_output(translate, capsys, options, expected):
    for name in ("2024.05.01/a.png", "more/b.png", "a.png"):
        save(name)
    assert translate(*options) == 0
    assert os.path.exists(expected)
    assert f"written to {expected.removesuffix('/a.png')}\n" in capsys.readouterr().out


def test_default_output_of_the_current_folder(translate, tmp_path, monkeypatch):
    save("in/a.png")
    monkeypatch.chdir(tmp_path / "in")
    assert translate("--input", ".", checkpoint=str(tmp_path / "G.pth")) == 0
    assert os.path.exists(tmp_path / "in_translated/a.png") and os.listdir(".") == ["a.png"]


def test_one_size_keeps_videos_even(translate, capsys):
    write_clip("x.mp4", height=48, width=82)
    assert translate("--input", "x.mp4", "--size", "45") == 0
    assert read_clip("x_translated.mp4")[0].shape == (44, 76, 3)
    assert "odd" not in capsys.readouterr().out


def test_a_mask_of_the_pictures_shape_fits_any_size_that_is_asked_for(translate):
    save("x.png", noise(40, 40))
    save("mask.png", np.zeros((40, 40), np.uint8))
    assert translate("--input", "x.png", "--mask", "mask.png", "--size", "60x50") == 0
    assert load("x_translated.png").shape == (50, 60, 3)


def test_features_show_one_network_as_it_is(translate, capsys):
    save("x.png")
    write_clip("x.mp4")
    for options in (["--strength", "0.5"], ["--mask", "x.png"], ["--smooth"]):
        with pytest.raises(InputError, match="--features cannot be combined"):
            translate("--input", "x.png", "--features", *options)
    with pytest.raises(InputError, match="--features: x.mp4 is a video"):
        translate("--input", "x.mp4", "--features")
    save("in/a.png")
    open("in/b.png", "w").close()
    assert translate("--input", "in", "--features") == 1
    assert tree("in_features") == {"a.png"} and "not translated: in/b.png" in capsys.readouterr().err


def test_large_photos_and_a_network_trained_on_small_ones(translate, make_generator, capsys):
    weights = make_generator().state_dict()
    full = {"version": 1, "options": {"img_height": 32}, "epoch": 1, "G_AB": weights, "G_BA": weights}
    torch.save(full, "latest.pth")
    save("x.png", noise(140, 150))
    for options, said in (([], True), (["--size", "128"], False)):
        assert translate("--input", "x.png", "--overwrite", *options, checkpoint="latest.pth") == 0
        assert ("--size 32 is faster" in capsys.readouterr().out) == said


def test_a_folder_is_no_checkpoint(translate):
    save("x.png")
    os.mkdir("run")
    with pytest.raises(InputError, match="run: is a folder. Name a file in it, such as run/latest.pth"):
        translate("--input", "x.png", checkpoint="run")


def test_ctrl_c_counts_what_is_written(translate, monkeypatch, capsys):
    for i in range(30):
        save(f"in/{i:02}.png")
    batch, calls = Translator.translate_batch, []

    def interrupted(self, pixels, masks):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return batch(self, pixels, masks)

    monkeypatch.setattr(Translator, "translate_batch", interrupted)
    assert translate("--input", "in", "--output", "out") == 130
    out = capsys.readouterr().out
    assert len(tree("out")) == 8 and "8 translated" in out and "Continue with --resume" in out
    assert translate("--input", "in", "--output", "out", "--resume") == 0 and len(tree("out")) == 30


def test_resume_and_overwrite_contradict_each_other(translate):
    save("x.png")
    with pytest.raises(InputError, match="--resume --overwrite"):
        translate("--input", "x.png", "--resume", "--overwrite")


@pytest.mark.parametrize("height, width", [(2, 300), (8, 8), (12, 64)])
def test_smoothing_of_tiny_videos(height, width):
    smoother = Smoother(0.5)
    for frame in np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8):
        assert smoother.smooth(frame, frame).shape == (height, width, 3)
