"""prepare.py on names and files that someone made to do harm, and on many images."""

import html.parser
import io
import json
import os
import re
import socket
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import prepare
from get_data import preparing
from get_data.alike import Prints, choose_test, counterparts, groups_of, near_duplicates
from utils import InputError

BYTES = os.fsdecode(b"caf\xe9.png")  # not UTF-8
USED = "used"


def noise(seed, width=80, height=80):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width, height):
    """A PNG that claims a size, and holds nothing"""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def strange_files(folder, outside):
    """Writes strange files -> {name: USED, one of collecting.REASONS, or None if it is not mentioned}"""
    names = iter(range(1000, 2000))
    wanted = {}

    def write(name, reason, content=None, image=None, **options):
        wanted[name] = reason
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if content is not None:
            with open(path, "wb") as file:
                file.write(content)
        else:
            image = image or noise(next(names))
            image.save(path, **options)

    # names
    write("<script>alert(1).png", USED)
    write("<img src=x onerror=alert(1)>.png", USED)
    write("{{ 7*7 }}{% raise %}.png", USED)
    write('" onmouseover="alert(2).png', USED)
    write("two\nlines\r.png", USED)
    write("\x1b[2Jclear\x07.png", USED)
    write("txt.\u202egnp.png", USED)
    write(BYTES, USED)
    write("-rf.png", USED)
    write("x" * 240 + ".png", USED)
    write("folder.png/inside.png", USED)
    write("up\\..\\..\\up.png", USED)
    write("<svg onload=alert(5)>.png", "broken", b"<svg/>")
    write("{{ 7*7 }}{% include 'x' %}.txt", "other", b"{{ 7*7 }}")
    write("line\nbreak\x1b[31m.txt", "other", b"")
    write(".hidden.png", None)
    write("pair.png", USED)
    write("pair_translated.png", "result")
    # links and special files
    outside.mkdir()
    noise(1).save(outside / "secret.png")
    for name, target in (("leaves.png", outside / "secret.png"), ("leaves", outside), ("nowhere.png", "gone"),
                         ("itself.png", "itself.png"), ("up", "..")):  # fmt: skip
        os.symlink(target, os.path.join(folder, name))
        wanted[name] = "link"
    os.mkfifo(os.path.join(folder, "pipe.png"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(os.path.join(folder, "socket.png")))
    wanted |= {"pipe.png": "special", "socket.png": "special"}
    # contents
    write("huge.png", "broken", png_of_size(100_000, 100_000))
    write("dense.png", "broken", png_of_size(10_000, 10_000))
    write("empty.png", "broken", b"")
    write("text.jpg", "broken", b"<html><script>alert(3)</script></html>")
    write("program.jpg", "broken", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 80\nshowpage\n")
    write("code.npy", "broken", content_of_npy(np.array([{"a": 1}], dtype=object)))
    write("nan.npy", "broken", content_of_npy(np.full((80, 80, 3), np.nan, np.float32)))
    write("line.npy", "broken", content_of_npy(np.zeros(80)))
    write("short.npy", "broken", content_of_npy(np.zeros((80, 80, 3), np.float32))[:1000])
    write("claims.npy", "broken", content_of_npy(np.zeros((8, 8)))[:-512].replace(b"(8, 8)", b"(80000, 8000000)"))
    write("garbage.tif", "broken", b"II*\0" + b"\xff" * 100)
    write("text.mp4", "broken", b"#EXTM3U\nfile:///etc/passwd\n")
    write("list.m3u8", "other", b"#EXTM3U\nhttp://127.0.0.1/x.ts\n")
    write("types.ts", "other", b"export const a = 1;\n")
    write("drawing.svg", "other", b"<svg onload='alert(4)'/>")
    write("dot.png", "small", image=noise(3, 1, 1))
    write("strip.png", USED, image=noise(4, 6000, 66))
    write("nothing.png", "empty", image=Image.new("RGBA", (80, 80), (9, 99, 9, 0)))
    frames = [noise(5 + i) for i in range(3)]
    write("moves.gif", USED, image=frames[0], save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 99
    write("turned99.jpg", USED, exif=exif)
    write("exif.jpg", USED, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    write("profile.png", USED, icc_profile=b"not a profile")
    write("archive.png", "broken", b"")
    with zipfile.ZipFile(os.path.join(folder, "archive.png"), "w") as file:
        file.writestr("a.png", b"a")
    return wanted


def content_of_npy(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


class Tags(html.parser.HTMLParser):
    """What a page holds that could run, load or leave"""

    def __init__(self):
        super().__init__()
        self.bad, self.names, self.text = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        for name, value in attributes:
            if name.startswith("on") or name in ("href", "action", "srcset", "data"):
                self.bad.append((tag, name, value))
            if name == "src" and not re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", value):
                self.bad.append((tag, name, value))

    def handle_data(self, text):
        self.text.append(text)


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """-> what is wanted of the files in the folder a; b holds pictures that are fine"""
    monkeypatch.chdir(tmp_path)
    os.makedirs("b")
    for seed in range(12):
        noise(seed + 500).save(f"b/{seed}.png")
    os.makedirs("a")
    return strange_files("a", tmp_path / "outside")


OPTIONS = ["set", "--A", "a", "--B", "b", "--size", "72", "--n_cpu", "2"]


def test_each_strange_file_has_its_outcome(strange, capfd):
    opt = prepare.get_parser().parse_args(OPTIONS)
    facts, left, _ = prepare.make(opt, "data/set")
    found = {os.path.relpath(one.path, "a"): one.reason for one in left}
    found |= {os.path.relpath(one.path, "a"): USED for one in facts if one.side == "A"}
    assert found == {name: reason for name, reason in strange.items() if reason}
    assert len(strange) >= 48 and list(found.values()).count(USED) == 18
    assert all(one.why for one in left if one.reason not in ("other", "result"))
    out, err = capfd.readouterr()
    assert "Traceback" not in out and not err
    for path, folders, names in os.walk("data/set"):
        for name in (*folders, *names):
            name.encode()
            assert re.fullmatch(r"[\w.() +@-]+", name) and not name.startswith((".", "-")) and len(name) < 120
            assert not os.path.islink(os.path.join(path, name))
    assert not [one for one in facts if "secret" in one.path]


def test_links_are_followed_on_request(strange):
    opt = prepare.get_parser().parse_args([*OPTIONS, "--follow_links"])
    facts, left, _ = prepare.make(opt, "data/set")
    links = {os.path.relpath(one.path, "a") for one in left if one.reason == "link"}
    assert links == {"nowhere.png", "itself.png"}
    assert len([one for one in facts if one.path in ("a/leaves.png", "a/leaves/secret.png")]) == 1


def test_the_report_runs_nothing_and_loads_nothing(strange, capsys):
    prepare.main(OPTIONS)
    out = capsys.readouterr().out
    with open("data/set/report.html", "rb") as file:
        text = file.read().decode("utf-8")
    page = Tags()
    page.feed(text)
    assert not page.bad and not page.names & {"script", "iframe", "object", "embed", "link", "base", "form", "a"}
    assert "default-src 'none'" in text and "http:" not in text and "https:" not in text
    shown = "".join(page.text)
    for name in (
        "<svg onload=alert(5)>.png",
        "{{ 7*7 }}{% include 'x' %}.txt",
        "line\\nbreak\\x1b[31m.txt",
        "pipe.png",
    ):
        assert f"A: a/{name}" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert "Traceback" not in out and all(line.isprintable() or line.startswith("reading") for line in out.splitlines())


def test_check_of_strange_files(strange, capsys):
    os.makedirs("data/odd")
    os.rename("a", "data/odd/trainA")
    os.rename("b", "data/odd/trainB")
    prepare.main(["odd", "--check", "--size", "72", "--n_cpu", "2", "--report", "odd.html"])
    out = capsys.readouterr().out
    assert "Traceback" not in out and "found: " in out and "report with pictures: odd.html" in out
    page = Tags()
    page.feed(open("odd.html", encoding="utf-8").read())
    assert not page.bad
    assert sorted(os.listdir("data/odd")) == ["trainA", "trainB"]


def refused(words, message):
    with pytest.raises(InputError, match=message):
        prepare.main(words)


def test_bad_sources_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("photos/inner")
    os.makedirs("empty")
    os.makedirs("data/set.unfinished/images")
    noise(0).save("photos/0.png")
    noise(1).save("photos/inner/1.png")
    noise(1).save("data/set.unfinished/images/1.png")
    os.mkfifo("pipe")
    refused(["set", "--A", "gone", "--B", "photos"], "--A gone: no such file or folder")
    refused(["set", "--A", "photos", "--B", "empty"], "--B empty: holds no images and no videos")
    refused(["set", "--A", "photos", "--B", "photos"], "are the same, or one is inside the other")
    refused(["set", "--A", "photos", "--B", "photos/inner"], "are the same, or one is inside the other")
    refused(["set", "--A", "https://x.org/a.zip", "--B", "photos"], "Download it first")
    refused(["set", "--A", "-", "--B", "photos"], "only files can be read")
    refused(["set", "--A", "pipe", "--B", "photos"], "--A pipe: holds no images")
    refused(["set", "--A", "data/set.unfinished/images", "--B", "photos"], "is to be written")
    assert os.listdir("data") == ["set.unfinished"]
    os.symlink("nowhere", "broken")
    refused(["set", "--A", "broken", "--B", "photos"], "leads nowhere")
    os.makedirs("data/other")
    refused(["other", "--A", "photos/0.png", "--B", "photos/inner"], "exists already")
    assert os.listdir("data/other") == []


def test_the_target_inside_a_source_is_not_searched(tmp_path, monkeypatch):
    """--A . takes nothing that this program is writing."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("a/mine")
    os.makedirs("b")
    for i in range(6):
        noise(i).save(f"a/mine/{i}.png")
        noise(i + 50).save(f"b/{i}.png")
    words = ["set", "--A", "a", "--B", "b", "--data_dir", "a", "--size", "72"]
    monkeypatch.setattr(prepare, "split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.main(words)
    monkeypatch.undo()
    os.chdir(tmp_path)
    facts, left, _ = prepare.make(prepare.get_parser().parse_args(words), "a/set")
    assert len(facts) == 12 and not left


def test_nothing_usable_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("b")
    noise(0, 60, 60).save("a.png")
    noise(1).save("b/1.png")
    refused(
        ["set", "--A", "a.png", "--B", "b", "--size", "72"],
        "no image of domain A can be used. --size 67 uses 1 image that is too small now",
    )
    assert os.listdir("data") == []


def test_a_damaged_journal_is_no_error(strange, monkeypatch):
    opt = prepare.get_parser().parse_args(OPTIONS)
    monkeypatch.setattr(prepare, "split", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.make(opt, "data/set")
    monkeypatch.setattr(prepare, "split", preparing.split)
    journal = "data/set.unfinished/journal.jsonl"
    with open(journal, encoding="utf-8") as file:
        (line,) = (line for line in file if "moves.gif" in line)
    moved = json.loads(line)
    moved["images"][0]["made"] = "../../../outside/secret.png"
    moved["images"][0]["n_bytes"] = os.path.getsize("outside/secret.png")
    bad = ["", "null", "[]", "{}", '{"key": 1}', '{"key": "x", "images": [{}], "problem": null}', "\ufffd",
           json.dumps(moved), '{"key": ']  # fmt: skip
    with open(journal, "a", encoding="utf-8") as file:
        file.write("\n".join(bad))
    facts, *_ = prepare.make(opt, "data/set")
    assert len(facts) == 18 + 12
    with open("outside/secret.png", "rb") as file:
        secret = file.read()
    for one in facts:
        with open(f"data/set/{one.made}", "rb") as file:
            assert file.read() != secret


##############################
#   Many images
##############################


def random_prints(n, seed=0):
    rng = np.random.default_rng(seed)
    return Prints(rng.integers(0, 2**64, n, np.uint64), rng.integers(0, 256, (n, 192), np.uint8))


@pytest.mark.slow
def test_20000_images_in_little_memory_and_time():
    n = 20_000
    prints = random_prints(n)
    for i in range(100):  # image 2i + 1 is like 2i: three bits and one level differ
        prints.hashes[2 * i + 1] = prints.hashes[2 * i] ^ np.uint64(0b10101 << i % 40)
        prints.thumbs[2 * i + 1] = np.clip(prints.thumbs[2 * i].astype(int) + 1, 0, 255)
    tracemalloc.start()
    started = time.process_time()
    found = near_duplicates(prints, range(n))
    group = groups_of(prints, np.full(n, -1))
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {2 * i + 1: 2 * i for i in range(100)}
    assert group.max() == n - 100 - 1 and all(group[2 * i] == group[2 * i + 1] for i in range(100))
    assert peak < 20e6 and seconds < 60  # measured: 2 MB


def test_20000_images_that_are_all_alike():
    """Frames of a camera that does not move"""
    n = 20_000
    prints = random_prints(1)
    prints = Prints(prints.hashes.repeat(n), prints.thumbs.repeat(n, 0))
    assert len(near_duplicates(prints, range(n))) == n - 1
    assert groups_of(prints, np.full(n, -1)).max() == 0


def test_known_distances():
    """6 bits and 8 levels are near, one more is not; chains hold together what is within 16 bits."""
    base = random_prints(1)
    hashes = np.array([base.hashes[0], base.hashes[0] ^ np.uint64(0x3F), base.hashes[0] ^ np.uint64(0x7F << 8)])
    same = Prints(hashes, base.thumbs.repeat(3, 0))
    assert near_duplicates(same, [0, 1, 2]) == {1: 0} and near_duplicates(same, [2, 1, 0]) == {0: 1}
    thumbs = np.full((3, 192), 100, np.uint8)
    thumbs[1], thumbs[2] = 108, 109
    levels = Prints(hashes[:1].repeat(3), thumbs)
    assert near_duplicates(levels, [0, 1, 2]) == {1: 0} and counterparts(levels, levels) == {0: 0, 1: 0, 2: 1}
    chain = Prints(np.array([0, 2**16 - 1, 2**32 - 1, 2**63], np.uint64), thumbs[:1].repeat(4, 0))
    assert groups_of(chain, np.full(4, -1)).tolist() == [0, 0, 0, 0]
    apart = Prints(np.array([0, 2**17 - 1, 2**34 - 1], np.uint64), thumbs[:1].repeat(3, 0))
    assert groups_of(apart, np.full(3, -1)).tolist() == [0, 1, 2]
    assert groups_of(apart, np.array([7, -1, 7])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_test_images_are_whole_groups(seed):
    group = np.repeat(np.arange(40), np.arange(40) % 4 + 1)
    side = (np.arange(len(group)) % 2).astype(int)
    is_test = choose_test(group, side, [9, 5], seed)
    for g in range(40):
        assert len(set(is_test[group == g])) == 1
    assert (is_test & (side == 0)).sum() == 9 and (is_test & (side == 1)).sum() == 5


def test_large_groups():
    group, side = np.repeat([0, 1, 2, 3], [30, 20, 10, 50]), np.repeat([0, 0, 0, 1], [30, 20, 10, 50])
    chosen = choose_test(group, side, [5, 5], 0)
    assert set(group[chosen]) == {2}  # the smallest of A; the only one of B is for training
