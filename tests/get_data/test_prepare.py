"""Making a data set from photos and videos: what is found, left out, split and written."""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
import weakref

import av
import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

import cyclegan
import prepare
from datasets import ImageDataset
from get_data import looking, preparing
from get_data.preparing import names_for, safe
from get_data.training_command import channel_words, crop_of
from utils import InputError


def picture(seed, width=96, height=96, gray=False, cells=7):
    """A smooth picture that is like no other"""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return image.convert("L").convert("RGB") if gray else image


def save_pictures(folder, seeds, **options):
    os.makedirs(folder, exist_ok=True)
    for seed in seeds:
        picture(seed, **options).save(f"{folder}/{seed:03d}.png")


def save_video(path, frames, rate=10):
    with av.open(path, "w") as clip:
        stream = clip.add_stream("libx264", rate)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            clip.mux(stream.encode(av.VideoFrame.from_image(frame)))
        clip.mux(stream.encode(None))


def files_in(folder):
    """{path inside: content}"""
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(path, name), "rb") as file:
                found[os.path.relpath(os.path.join(path, name), folder)] = file.read()
    return found


def state_of(folder):
    """What tells whether a folder was touched: names, contents, times of change"""
    times = {path: os.lstat(os.path.join(folder, path)).st_mtime_ns for path in files_in(folder)}
    return {path: (hashlib.sha256(content).digest(), times[path]) for path, content in files_in(folder).items()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ["--size", "72", "--n_cpu", "2"]  # crops of 64


def run(*words):
    """prepare.py set --A a --B b, with more options"""
    prepare.main(["set", "--A", "a", "--B", "b", *SMALL, *words])


def outcome(*words):
    """-> (set of (path, reason) that were left out, {kind of finding: its files}, facts)"""
    opt = prepare.get_parser().parse_args(["set", "--A", "a", "--B", "b", *SMALL, *words])
    facts, left, findings = prepare.make(opt, os.path.join("data", "set"))
    return {(one.path, one.reason) for one in left}, {f.kind: f.files for f in findings}, facts


##############################
#   Findings
##############################


def faulty_set():
    """Folders a and b with one of each fault."""
    save_pictures("a/deep/er", range(0, 40))
    save_pictures("b", range(100, 140))
    with open("a/broken.jpg", "wb") as file:
        file.write(b"\xff\xd8\xff\xe0 no picture")
    picture(200).save("a/whole.png")
    with open("a/whole.png", "rb") as file, open("a/truncated.png", "wb") as part:
        part.write(file.read()[:3000])
    picture(201, 50, 200).save("a/small.png")
    os.makedirs("a/z")
    shutil.copy("a/deep/er/003.png", "a/z/copy.png")
    picture(5, 96, 96).resize((80, 80)).save("a/z_near.jpg", quality=80)
    Image.new("RGB", (90, 90), (250, 250, 255)).save("a/empty.png")
    picture(202, gray=True).save("a/gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(203, 100, 80).save("a/turned.jpg", exif=exif)
    picture(100).save("a/overlap.png")
    with open("a/notes.txt", "w") as file:
        file.write("bought in May")
    save_video("a/clip.mp4", [picture(300 + i // 10, 96, 96) for i in range(30)])  # three scenes of a second each


def test_known_faults_give_exactly_these_findings(here, capsys):
    faulty_set()
    left, findings, facts = outcome()
    assert left == {
        ("a/broken.jpg", "broken"),
        ("a/truncated.png", "broken"),
        ("a/small.png", "small"),
        ("a/z/copy.png", "exact"),
        ("a/z_near.jpg", "near"),
        ("a/empty.png", "empty"),
        ("a/notes.txt", "other"),
    }
    assert findings == {
        "few": [],
        "overlap": ["a/overlap.png and b/100.png"],
        "mixed channels": ["a/gray.png"],
        "turned": ["a/turned.jpg"],
        "clips": ["a/clip.mp4"],
        "alike": [],  # both are the same noise
    }
    frames = [one for one in facts if one.clip]
    assert [one.path for one in frames] == [f"a/clip.mp4 at {i}.0 s" for i in range(3)]
    assert len({one.split for one in frames}) == 1
    (turned,) = (one for one in facts if one.turned)
    assert (turned.width, turned.height) == (80, 100)
    with Image.open(f"data/set/{turned.made}") as image:
        assert image.size == (72, 90) and image.getexif().get(0x0112, 1) == 1
        wanted = picture(203, 100, 80).transpose(Image.Transpose.ROTATE_270).resize((72, 90), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(image, int) - np.asarray(wanted, int)).mean() < 3
    assert sum(one.side == "A" for one in facts) == 40 + 1 + 1 + 1 + 1 + 3  # whole, gray, turned, overlap, frames
    assert sum(one.side == "B" for one in facts) == 40


def test_the_terminal_and_the_report_name_them(here, capsys):
    faulty_set()
    run()
    out = capsys.readouterr().out
    report = open("data/set/report.html", encoding="utf-8").read()
    for name in ("broken.jpg", "truncated.png", "small.png", "z/copy.png", "z_near.jpg", "empty.png", "notes.txt"):
        assert f"a/{name}" in out and f"a/{name}" in report
    assert "left out: 2 cannot be read: a/broken.jpg" in out
    assert "of a/deep/er/003.png" in out and "of a/deep/er/005.png" in out
    assert len(out.splitlines()) < 30
    command = out.splitlines()[-1].strip()
    assert command == "python cyclegan.py --dataset_name set --img_height 64 --img_width 64 --n_residual_blocks 6"
    assert command in report
    cyclegan.get_options(shlex.split(command)[2:])
    *_, laptop, _, _ = map(str.strip, out.splitlines())
    assert laptop == "python cyclegan.py --dataset_name set --preset laptop --img_height 64 --img_width 64"
    opt, _ = cyclegan.get_options(shlex.split(laptop)[2:])
    assert (opt.n_iters, opt.img_height, opt.ngf) == (3000, 64, 32)
    data = ImageDataset("data/set", img_size=(64, 64), load_size=(72, 72))
    assert data[0]["A"].shape == (3, 64, 64)
    assert len(data.A.files) + len(files_in("data/set/testA")) == 47


def test_advice_on_shapes_sizes_and_clipped_colours(here):
    save_pictures("a", range(20), width=150, height=72)
    save_pictures("b", range(50, 70), width=66, height=66)
    save_pictures("b", range(90, 96), width=500, height=500)
    for i in range(20, 28):
        image = picture(i, 150, 72)
        image.paste((255, 255, 255), (0, 0, 150, 30))
        image.save(f"a/{i:03d}.png")
    _, findings, facts = outcome()
    assert set(findings) == {"few", "sizes", "shape", "clipped"}
    assert findings["shape"] == [f"a/{i:03d}.png" for i in range(28)]
    assert findings["clipped"] == [f"a/{i:03d}.png" for i in range(20, 28)]
    command = prepare.training_command(facts, [prepare.judge(facts, [], 72)[-1]], "set", "elsewhere", 286)
    assert command == "python cyclegan.py --dataset_name set --data_dir elsewhere --keep_aspect"


def test_a_smaller_domain_and_many_small_images_are_noted(here):
    save_pictures("a", range(90))
    save_pictures("b", range(100, 120))
    save_pictures("b", range(120, 125), width=60, height=60)
    left, findings, _ = outcome()
    assert {"few", "lopsided", "small"} == set(findings) and len(findings["small"]) == 5 == len(left)


def test_domains_that_differ_are_not_called_alike(here):
    save_pictures("a", range(40))
    os.makedirs("b")
    for seed in range(100, 140):
        Image.blend(picture(seed), Image.new("RGB", (96, 96), (200, 200, 255)), 0.5).save(f"b/{seed}.png")
    _, findings, facts = outcome()
    assert "alike" not in findings
    A, B = ([one for one in facts if one.side == side] for side in "AB")
    assert prepare_accuracy(A, B) == 1.0 and 0.3 < prepare_accuracy(A[::2] * 2, A[1::2] * 2) <= 1


def prepare_accuracy(A, B):
    from get_data.judging import tells_apart

    return tells_apart(A, B)


def test_a_few_arrays_among_photos_are_left_out(here):
    save_pictures("a", range(6))
    save_pictures("b", range(10, 16))
    Image.fromarray(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96) * 7).save("a/scan.tif")
    for seed in range(20, 30):  # most of B are arrays
        np.save(f"b/{seed}.npy", np.asarray(picture(seed)).astype(np.uint16) * 257)
    left, findings, facts = outcome()
    assert left == {("a/scan.tif", "kind"), *((f"b/0{n}.png", "kind") for n in range(10, 16))}
    assert "mixed kinds" not in findings and len(facts) == 16
    assert channel_words([one for one in facts if one.side == "A"]) == []


def test_images_that_are_too_small_are_told_with_the_size_that_uses_them(here, capsys):
    save_pictures("a", range(4))
    save_pictures("b", range(10, 14))
    save_pictures("a/small", range(20, 30), width=52, height=80)
    save_pictures("a/smaller", range(30, 31), width=20, height=20)  # than the smallest crop
    run()
    out = capsys.readouterr().out
    assert "problem: 11 images of A are too small. --size 58 uses 10 of them" in out
    run_again = ["again", "--A", "a", "--B", "b", "--n_cpu", "2", "--size", "58"]
    prepare.main(run_again)
    assert sum(len(names) for _, _, names in os.walk("data/again/trainA")) + len(os.listdir("data/again/testA")) == 14


def test_a_set_that_was_just_made_can_be_looked_at_without_its_size(here, capsys):
    save_pictures("a", range(5))
    save_pictures("b", range(10, 15))
    run()
    capsys.readouterr()
    prepare.main(["set", "--check", "--n_cpu", "2"])
    out = capsys.readouterr().out
    assert "too small" not in out and "--img_height 64 --img_width 64" in out
    assert os.path.exists("data/set/check.html")


def test_arrays_are_copied_and_their_options_named(here):
    rng = np.random.default_rng(0)
    for folder, low, high in (("a", -5, 9), ("b", 0, 1)):
        os.makedirs(folder)
        for i in range(6):
            values = np.asarray(picture(hash((folder, i)) % 1000).resize((90, 70))).astype(np.float32) / 255
            values = np.dstack([values, rng.random((70, 90, 1), np.float32)]) * (high - low) + low
            values[0, 0], values[0, 1] = low, high
            np.save(f"{folder}/{i}.npy", values)
    before = state_of("a")
    _, findings, facts = outcome()
    assert {one.kind for one in facts} == {"array"} and {one.channels for one in facts} == {4}
    assert {path[1:] for path in files_in("a")} == {path[1:] for path in before}
    for one in facts:
        with open(one.path, "rb") as source, open(f"data/set/{one.made}", "rb") as made:
            assert source.read() == made.read()
    command = prepare.training_command(facts, [], "set", "data", 72)
    assert "--channels_A 4 --range_A -5 9 --channels_B 4" in command and "--range_B" not in command
    cyclegan.get_options(shlex.split(command)[2:])


##############################
#   What is written
##############################


def test_plain_files_are_copied_and_others_converted(here):
    save_pictures("a", range(4))
    save_pictures("b", range(10, 14))
    picture(20, 72, 90).save("a/same.jpg", quality=60)
    picture(21, 72, 90).convert("L").save("a/l.png")
    picture(22, 80, 80).convert("P").save("a/p.png")
    picture(23, 300, 150).save("a/wide.jpg")
    picture(24, 300, 150).save("a/wide.webp")
    picture(25, 70, 300).save("a/t.tif")
    picture(26, 70, 70).convert("CMYK").save("a/cmyk.jpg")
    wrong = picture(27, 70, 70)
    wrong.save("a/really_png.jpg", "PNG")
    transparent = picture(28, 70, 70).convert("RGBA")
    transparent.putalpha(Image.new("L", (70, 70), 100))
    transparent.save("a/alpha.png")
    facts = outcome()[2]
    made = {os.path.basename(one.path): f"data/set/{one.made}" for one in facts if one.side == "A"}
    for name in ("same.jpg", "l.png", "really_png.jpg"):
        with open(f"a/{name}", "rb") as source, open(made[name], "rb") as copy:
            assert source.read() == copy.read()
    found = {}
    for name, path in made.items():
        with Image.open(path) as image:
            found[name] = image.format, image.mode, image.size
    assert found["wide.jpg"] == ("JPEG", "RGB", (144, 72)) and found["wide.webp"] == ("JPEG", "RGB", (144, 72))
    assert found["t.tif"] == ("PNG", "RGB", (70, 300)) and found["p.png"] == ("PNG", "RGB", (72, 72))
    assert found["cmyk.jpg"] == ("JPEG", "RGB", (70, 70)) and found["alpha.png"] == ("PNG", "RGB", (70, 70))
    assert found["000.png"] == ("PNG", "RGB", (72, 72)) and made["really_png.jpg"].endswith(".png")


def test_originals_are_untouched_and_not_linked(here):
    faulty_set()
    before = state_of("a"), state_of("b")
    run()
    assert (state_of("a"), state_of("b")) == before
    originals = {os.stat(f"{folder}/{path}").st_ino for folder in "ab" for path in files_in(folder)}
    assert not originals & {os.stat(f"data/set/{path}").st_ino for path in files_in("data/set")}
    assert sorted(os.listdir("data")) == ["set"]


def test_names_are_safe_different_and_kept_where_possible():
    assert safe("Übung 1 (a).b") == "Übung 1 (a).b" and safe("a\nb<script>\udcff") == "a_b_script__"
    assert safe("..hidden") == "hidden" and safe("-rf") == "_rf" and safe("...") == "_"
    assert safe("x_translated") == "x-translated" and len(safe("x" * 500)) == 100
    assert len(safe("\U00020000" * 500).encode()) <= 200  # of four bytes each; a file system takes 255

    class One:
        def __init__(self, name, side="A", made="k.png"):
            self.name, self.side, self.made = name, side, made

    names = ["x/a.jpg", "x/A.jpg", "y.jpg/a.jpg", "a?.tif", "a*.tif", "a_.tif"]
    found = names_for([One(name) for name in names] + [One("x/a.jpg", "B")])
    assert found == ["x/a.png", "x/A_2.png", "y_jpg/a.png", "a_.png", "a__2.png", "a__3.png", "x/a.png"]


##############################
#   Split
##############################


def burst(seed, n):
    """The same scene, moved by 3.3% of the width from each to the next"""
    scene = Image.blend(picture(seed, 140, 140, cells=4), Image.new("RGB", (140, 140), (128, 128, 128)), 0.5)
    return [scene.crop((4 * i, 0, 120 + 4 * i, 120)) for i in range(n)]


@pytest.mark.parametrize("seed", range(2))
def test_bursts_and_clips_are_on_one_side(here, seed):
    save_pictures("a", range(30))
    save_pictures("b", range(50, 80))
    for scene in range(10):
        for i, image in enumerate(burst(200 + scene, 3)):
            image.save(f"a/burst{scene}_{i}.png")
    for i in range(3):  # of one moment, though they look different
        exif = Image.Exif()
        exif[0x0110], exif[0x8769] = "a camera", {0x9003: f"2024:05:01 12:00:0{2 * i}"}
        picture(500 + i).save(f"a/moment{i}.jpg", exif=exif)
    save_video("b/one.mp4", [picture(400 + i // 10) for i in range(60)])
    picture(60).convert("L").save("a/counterpart.png")  # of b/060.png
    facts = outcome("--seed", str(seed), "--n_test", "12")[2]
    split = {one.path: one.split for one in facts}
    for scene in range(10):
        shots = {split[path] for path in (f"a/burst{scene}_{i}.png" for i in range(3)) if path in split}
        assert len(shots) == 1
    assert len({split[f"a/moment{i}.jpg"] for i in range(3)}) == 1
    assert len({split[path] for path in split if path.startswith("b/one.mp4")}) == 1
    assert split["a/counterpart.png"] == split["b/060.png"]
    n = {side: sum(one.side == side and one.split == "test" for one in facts) for side in "AB"}
    assert n == {"A": 12, "B": 12}
    assert all(one.made.startswith(f"{one.split}{one.side}/") for one in facts)


@pytest.mark.slow
def test_the_seed_decides_and_nothing_else(here):
    save_pictures("a", range(30))
    save_pictures("b", range(50, 80))
    splits = []
    for seed in (0, 0, 1):
        shutil.rmtree("data", ignore_errors=True)
        splits.append([one.made for one in outcome("--seed", str(seed))[2]])
    assert splits[0] == splits[1] != splits[2]
    assert sum(made.startswith("testA") for made in splits[2]) == 3


def test_n_test_0_makes_no_test_images(here):
    save_pictures("a", range(30))  # of which three would be for testing
    save_pictures("b", range(50, 80))
    _, findings, facts = outcome("--n_test", "0")
    assert {one.split for one in facts} == {"train"} and "no test" in findings
    assert sorted(os.listdir("data/set")) == ["report.html", "trainA", "trainB"]


##############################
#   Interruptions
##############################


def test_a_run_that_fails_in_the_middle_is_continued(here, monkeypatch, capsys):
    faulty_set()
    run()
    wanted = files_in("data/set")
    shutil.rmtree("data")
    read, original = [], preparing.look_at_source

    def look(source, how, key):
        if len(read) == 25:
            raise KeyboardInterrupt
        read.append(source.path)
        return original(source, how, key)

    monkeypatch.setattr(preparing, "look_at_source", look)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert "The same command continues" in capsys.readouterr().out
    assert not os.path.exists("data/set") and os.listdir("data") == ["set.unfinished"]
    with open("data/set.unfinished/journal.jsonl") as file:
        finished = file.read().count("\n")
    assert 20 <= finished <= 25
    again = []
    monkeypatch.setattr(preparing, "look_at_source", lambda s, how, key: again.append(s.path) or original(s, how, key))
    run()
    assert len(again) == 91 - finished  # the rest of 91 files
    assert files_in("data/set") == wanted
    assert os.listdir("data") == ["set"]


@pytest.mark.parametrize("step", ["put_together", "write_report", "finish"])
def test_a_run_that_fails_at_the_end_is_continued(here, monkeypatch, step):
    save_pictures("a", range(12))
    save_pictures("b", range(50, 62))
    run()
    wanted = files_in("data/set")
    shutil.rmtree("data")
    original = getattr(prepare, step)

    def fails(*arguments, **options):
        if step != "finish":
            original(*arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, step, fails)
    with pytest.raises(OSError):
        run()
    assert not os.path.exists("data/set")
    monkeypatch.setattr(prepare, step, original)
    monkeypatch.setattr(preparing, "look_at_source", None)  # nothing is read again
    run()
    assert files_in("data/set") == wanted


def test_half_written_lines_and_images_are_made_again(here, monkeypatch):
    save_pictures("a", range(12))
    save_pictures("b", range(50, 62))
    run()
    wanted = files_in("data/set")
    shutil.rmtree("data")
    monkeypatch.setattr(prepare, "split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
    monkeypatch.undo()
    os.chdir(here)
    images = "data/set.unfinished/images"
    first, second, *_ = sorted(os.listdir(images))
    os.truncate(f"{images}/{first}", 100)
    os.remove(f"{images}/{second}")
    with open(f"{images}/x.png.12345678.tmp", "wb") as file:  # as a killed run leaves it
        file.write(b"half")
    with open("data/set.unfinished/journal.jsonl", "r+b") as file:
        content = file.read()
        file.truncate(len(content) - 700)
    run()
    assert files_in("data/set") == wanted


@pytest.mark.slow
def test_a_killed_process_is_continued(here):
    """SIGKILL in the middle, and the result is that of an uninterrupted run, byte for byte."""
    save_pictures("a", range(60), width=200, height=200)
    save_pictures("b", range(200, 260), width=200, height=200)
    run()
    wanted = files_in("data/set")
    shutil.rmtree("data")
    command = [sys.executable, f"{ROOT}/prepare.py", "set", "--A", "a", "--B", "b", *SMALL]
    journal = "data/set.unfinished/journal.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (os.path.exists(journal) and os.path.getsize(journal) > 8_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not os.path.exists("data/set")
    with open(journal) as file:
        assert 3 < file.read().count("\n") < 120
    run()
    assert files_in("data/set") == wanted


def test_other_folders_and_options_are_refused(here, monkeypatch):
    save_pictures("a", range(5))
    save_pictures("b", range(50, 55))
    monkeypatch.setattr(prepare, "split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
    monkeypatch.undo()
    os.chdir(here)
    with pytest.raises(InputError, match="begun with other folders or options"):
        run("--seed", "3")
    shutil.copytree("a", "c")
    with pytest.raises(InputError, match="begun with other folders or options"):
        prepare.main(["set", "--A", "c", "--B", "b", *SMALL])
    run()
    before = state_of("data")
    with pytest.raises(InputError, match="exists already, and is not changed"):
        run()
    assert state_of("data") == before


def test_a_foreign_folder_is_not_taken_for_an_unfinished_set(here):
    save_pictures("a", range(5))
    save_pictures("b", range(50, 55))
    os.makedirs("data/set.unfinished")
    with open("data/set.unfinished/mine.txt", "w") as file:
        file.write("mine")
    with pytest.raises(InputError, match="not an unfinished data set"):
        run()
    assert os.listdir("data/set.unfinished") == ["mine.txt"]


##############################
#   Looking only
##############################


@pytest.mark.parametrize("layout", ["{}{}", "{}/{}"])
def test_check_finds_leaks_and_changes_nothing(here, capsys, layout):
    root = "data/there/"
    save_pictures(root + layout.format("train", "A"), range(25))
    save_pictures(root + layout.format("train", "B"), range(100, 125))
    save_pictures(root + layout.format("test", "A"), range(40, 43))
    leak = root + layout.format("test", "A") + "/leak.jpg"
    picture(7).resize((90, 90)).save(leak)
    shutil.copy(root + layout.format("train", "B") + "/101.png", root + layout.format("train", "B") + "/twice.png")
    before = state_of("data")
    opt = prepare.get_parser().parse_args(["there", "--check", *SMALL])
    facts, left, findings = prepare.look(opt, "data/there")
    assert [(one.reason, os.path.basename(one.path)) for one in left] == [("exact", "twice.png")]
    found = {f.kind: f.files for f in findings}
    assert set(found) == {"few", "no test", "leak", "duplicates"}
    assert found["duplicates"] == [root + layout.format("train", "B") + "/twice.png"]
    assert found["leak"] == [f"{leak} and {root}{layout.format('train', 'A')}/007.png"]
    with pytest.raises(InputError, match="--report data/there/trainA/x.png: is a page"):
        prepare.main(["there", "--check", *SMALL, "--report", "data/there/trainA/x.png"])
    prepare.main(["there", "--check", *SMALL, "--report", "seen.html"])
    assert state_of("data") == before and "leak.jpg" in open("seen.html").read()
    prepare.main(["there", "--check", *SMALL])
    after = state_of("data")
    assert {path: after[path] for path in before} == before and set(after) - set(before) == {"there/report.html"}
    prepare.main(["there", "--check", *SMALL])
    assert {"there/report.html": state_of("data")["there/report.html"]} == {
        "there/report.html": after["there/report.html"]
    }
    assert os.path.exists("data/there/check.html")


def test_check_counts_what_training_reads(here, capsys):
    """Duplicates and empty images are in the set and are trained on; videos, small and broken files are not."""
    save_pictures("data/there/trainA", range(15))
    save_pictures("data/there/trainB", range(100, 110))
    save_pictures("data/there/testB", range(200, 203))
    for i in range(4):
        shutil.copy("data/there/trainA/003.png", f"data/there/trainA/copy{i}.png")
    picture(5, 96, 96).resize((80, 80)).save("data/there/trainA/near.jpg", quality=80)
    picture(300, 50, 50).save("data/there/trainA/small.png")
    Image.new("RGB", (90, 90), (250, 250, 255)).save("data/there/testB/empty.png")
    with open("data/there/trainB/broken.jpg", "wb") as file:
        file.write(b"\xff\xd8\xff\xe0 no picture")
    save_video("data/there/trainA/clip.mp4", [picture(400 + i) for i in range(30)])
    prepare.main(["there", "--check", *SMALL, "--report", "seen.html"])
    out = capsys.readouterr().out
    data = ImageDataset("data/there", img_size=(64, 64), load_size=(72, 72), skip_bad_images=True)
    n_read = len(data.A.usable)
    assert (n_read, len(data.B.usable)) == (15 + 4 + 1, 10) and f"A: {n_read} training and 0 test images" in out
    assert "B: 10 training and 4 test images" in out
    assert "found: 1 videos, which training does not read: data/there/trainA/clip.mp4" in out
    report = open("seen.html", encoding="utf-8").read()
    assert "20 training and 0 test images" in report and "10 training and 4 test images" in report
    opt = prepare.get_parser().parse_args(["there", "--check", *SMALL])
    facts, left, findings = prepare.look(opt, "data/there")
    (copies,) = (one for one in findings if one.kind == "duplicates")
    assert copies.is_problem and copies.text.startswith("5 of 20 images of A (nearly) equal another one")
    assert "clips" not in {one.kind for one in findings} and not any(one.clip for one in facts)


def test_a_range_is_rounded_outwards():
    """With 6 digits, 1234564 would be 1.23456e+06, and the brightest values would be cut off."""
    one = types.SimpleNamespace(side="A", kind="array", channels=3, values=[-1234564.0, 1234564.0, 255.0])
    assert channel_words([one]) == ["--range_A", "-1.23457e+06", "1.23457e+06"]
    one.values = [-0.1, 65535.0, 255.0]
    assert channel_words([one]) == ["--range_A", "-0.1", "65535"]
    for low, high in np.random.default_rng(0).normal(0, 10.0 ** np.arange(-5, 11)[:, None], (16, 2)):
        one.values = [float(-abs(low)), float(abs(high)), 0.0]
        _, start, end = channel_words([one])
        assert float(start) <= -abs(low) < 0 < abs(high) <= float(end)
        assert float(start) == pytest.approx(-abs(low), 1e-5) and float(end) == pytest.approx(abs(high), 1e-5)


@pytest.mark.slow
def test_check_of_a_prepared_set_finds_nothing_wrong(here):
    save_pictures("a", range(110))
    os.makedirs("b")
    for seed in range(200, 310):
        Image.blend(picture(seed), Image.new("RGB", (96, 96), (200, 200, 255)), 0.5).save(f"b/{seed}.png")
    run()
    opt = prepare.get_parser().parse_args(["set", "--check", *SMALL])
    facts, left, findings = prepare.look(opt, "data/set")
    assert not left and [f.kind for f in findings] == ["few"] and len(facts) == 220


def test_check_explains_a_missing_set(here):
    with pytest.raises(InputError, match="data/nothing: no such folder"):
        prepare.main(["nothing", "--check"])


##############################
#   Memory
##############################


def test_only_a_few_images_are_in_memory(here, monkeypatch):
    save_pictures("a", range(60))
    save_pictures("b", range(100, 160))
    alive, most = weakref.WeakSet(), [0]
    original = looking.Seen.__init__

    def __init__(self, *arguments, **options):
        original(self, *arguments, **options)
        alive.add(self)
        most[0] = max(most[0], len(alive))

    monkeypatch.setattr(looking.Seen, "__init__", __init__)
    monkeypatch.setattr(looking.Seen, "__hash__", object.__hash__)
    facts = outcome()[2]
    assert most[0] <= 4 and len(facts) == 120  # two threads
    assert max(len(str(one.to_json())) for one in facts) < 2000


def test_crops_keep_the_ratio_of_the_paper():
    assert [crop_of(size) for size in (286, 143, 72, 36, 572)] == [256, 128, 64, 32, 512]


def test_options_that_do_not_go_together(here, monkeypatch):
    for words in (["set"], ["set", "--A", "x"], ["set", "--check", "--A", "x"], ["../set", "--check"], ["", "--check"],
                  ["set", "--A", "x", "--B", "y", "--report", "r"]):  # fmt: skip
        with pytest.raises(InputError):
            prepare.main(words)
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(InputError, match="pip install imagehash"):
        prepare.main(["set", "--check"])
