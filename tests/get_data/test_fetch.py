"""Downloading a data set from local servers, some of which fail."""

import errno
import http.server
import io
import os
import re
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from helpers import ROOT
from PIL import Image

from get_data import demo, prepare_dataset
from get_data import official as fetch
from get_data.official import fetch_dataset
from get_data.part import complete_folder
from utils import InputError


def archive(extra=None):
    buffer, picture = io.BytesIO(), io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(pixels).save(picture, "png")
    with zipfile.ZipFile(buffer, "w") as file:
        for folder in ("trainA", "trainB", "testA", "testB"):
            file.writestr(f"tiny/{folder}/0.png", picture.getvalue())
        if extra:
            file.writestr(extra, b"escaped")
    return buffer.getvalue()


@pytest.fixture
def serve(monkeypatch):
    """serve(content, ...) returns (url, the Range headers received so far)."""
    servers = []
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)

    def start(content, break_after=None, breaks=0, status=200, ranges=True):
        requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.headers["Range"])
                if status != 200:
                    return self.send_error(status)
                begin = int(re.findall(r"\d+", self.headers["Range"])[0]) if ranges and self.headers["Range"] else 0
                body = content[begin:]
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:break_after] if len(requests) <= breaks else body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/tiny.zip", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def check_complete(data_dir):
    assert sorted(os.listdir(data_dir)) == ["tiny"]
    assert sorted(os.listdir(data_dir / "tiny")) == ["testA", "testB", "trainA", "trainB"]
    Image.open(data_dir / "tiny/trainB/0.png").load()


def test_fetch(tmp_path, serve, capsys):
    url, _ = serve(archive())
    fetch_dataset("tiny", str(tmp_path), url)
    check_complete(tmp_path)
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_is_continued(tmp_path, serve, ranges):
    url, requests = serve(archive(), break_after=1000, breaks=3, ranges=ranges)
    fetch_dataset("tiny", str(tmp_path), url)
    check_complete(tmp_path)
    assert requests == [None, "bytes=1000-", f"bytes={2000 if ranges else 1000}-", f"bytes={3000 if ranges else 1000}-"]


def test_a_partial_download_is_kept_for_the_next_call(tmp_path, serve):
    url, _ = serve(archive(), break_after=100, breaks=99)
    with pytest.raises(InputError, match="tiny.zip: download failed.*unpack it so that"):
        fetch_dataset("tiny", str(tmp_path), url)
    assert os.listdir(tmp_path) == ["tiny.zip.part"]
    url, requests = serve(archive())
    fetch_dataset("tiny", str(tmp_path), url)
    check_complete(tmp_path)
    assert requests == ["bytes=500-"]


def test_a_partial_download_of_another_file_is_discarded(tmp_path, serve):
    (tmp_path / "tiny.zip.part").write_bytes(b"x" * 10)
    url, _ = serve(archive())
    with pytest.raises(InputError, match="corrupt archive.*deleted"):  # detected while unpacking
        fetch_dataset("tiny", str(tmp_path), url)
    fetch_dataset("tiny", str(tmp_path), url)
    check_complete(tmp_path)


@pytest.mark.parametrize("cut", [200, -200, 0])
def test_a_truncated_archive(tmp_path, serve, cut):
    url, _ = serve(archive()[:cut])
    with pytest.raises(InputError, match="corrupt archive.*trainA exists"):
        fetch_dataset("tiny", str(tmp_path), url)
    assert not [name for name in os.listdir(tmp_path) if not name.endswith(".part")]


def test_a_damaged_archive(tmp_path, serve):
    content = bytearray(archive())
    content[300:320] = bytes(20)
    url, _ = serve(bytes(content))
    with pytest.raises(InputError, match="corrupt archive"):
        fetch_dataset("tiny", str(tmp_path), url)
    assert "tiny" not in os.listdir(tmp_path)


@pytest.mark.parametrize("path", ["../escaped.txt", "tiny/../../escaped.txt", "/tmp/cyclegan_escaped.txt"])
def test_nothing_is_written_outside_the_folder(tmp_path, serve, path):
    data_dir = tmp_path / "data"
    url, _ = serve(archive(path))
    with pytest.raises(InputError, match="would be written outside.*Nothing was unpacked"):
        fetch_dataset("tiny", str(data_dir), url)
    assert os.listdir(tmp_path) == ["data"] and "tiny" not in os.listdir(data_dir)
    assert not os.path.exists("/tmp/cyclegan_escaped.txt")


def test_not_found_and_no_network(tmp_path, serve):
    url, requests = serve(b"", status=404)
    with pytest.raises(InputError, match="404.*Download tiny.zip in another way"):
        fetch_dataset("tiny", str(tmp_path), url)
    assert len(requests) == 1
    with pytest.raises(InputError, match="download failed.*Download tiny.zip in another way") as error:
        fetch_dataset("tiny", str(tmp_path), "http://127.0.0.1:9/tiny.zip")
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == []


def test_an_interrupted_unpacking_leaves_no_data_set(tmp_path, serve, monkeypatch):
    url, _ = serve(archive())

    def killed(self, path):
        os.makedirs(os.path.join(path, "tiny/trainA"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_dataset("tiny", str(tmp_path), url)
    assert "tiny" not in os.listdir(tmp_path)
    fetch_dataset("tiny", str(tmp_path), url)
    check_complete(tmp_path)


def test_a_missing_official_data_set_is_downloaded(tmp_path, monkeypatch, serve):
    url, _ = serve(archive())
    monkeypatch.setattr(fetch, "OFFICIAL_URL", url + "?{}")
    root = prepare_dataset("horse2zebra", str(tmp_path))
    assert os.path.exists(os.path.join(root, "tiny/trainA/0.png"))
    assert len(fetch.OFFICIAL_SETS) == 11


# ----- archives that the user has put there, and odd ones


def put(data_dir, content):
    data_dir.mkdir(exist_ok=True)
    (data_dir / "horse2zebra.zip").write_bytes(content)
    return data_dir / "horse2zebra.zip"


def test_the_users_archive_is_kept_and_not_blamed_on_the_server(tmp_path):
    path = put(tmp_path, archive()[:-100])
    with pytest.raises(InputError, match=r"horse2zebra.zip: corrupt archive.*was not changed\. Remove it") as error:
        prepare_dataset("horse2zebra", str(tmp_path))
    assert path.exists() and "deleted" not in str(error.value) and os.listdir(tmp_path) == ["horse2zebra.zip"]
    put(tmp_path, archive())
    root = prepare_dataset("horse2zebra", str(tmp_path))
    assert os.path.exists(os.path.join(root, "tiny/trainA/0.png")) and path.exists()


def changed_archive(kind):
    """An archive that zipfile opens, but cannot unpack."""
    content = bytearray(archive())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(signature, start)) >= 0:
            if kind == "encrypted":
                content[start + offset] |= 1
            else:
                content[start + offset + 2 : start + offset + 4] = (97).to_bytes(2, "little")
            start += 4
    return bytes(content)


def deep_archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("/".join(["x" * 200] * 40) + "/0.png", b"")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["encrypted", "unknown compression", "deep", "empty", "text"])
def test_archives_that_cannot_be_unpacked_are_one_line(tmp_path, serve, kind):
    content = {"deep": deep_archive(), "empty": b"", "text": b"<html>not found</html>"}.get(kind) or changed_archive(
        kind
    )
    content = b"" if kind == "empty" else content
    put(tmp_path, content)
    with pytest.raises(InputError, match="horse2zebra.zip: (cannot be unpacked|corrupt archive)") as error:
        prepare_dataset("horse2zebra", str(tmp_path))
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["horse2zebra.zip"]
    if content:
        url, _ = serve(content)
        with pytest.raises(InputError, match="(cannot be unpacked|corrupt archive).*deleted"):
            fetch_dataset("tiny", str(tmp_path), url)
        assert os.listdir(tmp_path) == ["horse2zebra.zip"]


def test_pipes_and_large_archives_are_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "horse2zebra.zip")
    with pytest.raises(InputError, match="horse2zebra.zip: not a regular file"):
        prepare_dataset("horse2zebra", str(tmp_path))
    os.remove(tmp_path / "horse2zebra.zip")
    put(tmp_path, archive())
    monkeypatch.setattr(fetch, "LARGEST_DATA_SET", 1000)
    with pytest.raises(InputError, match="more than the limit of 0.0 GB. If you trust it, unpack it yourself"):
        prepare_dataset("horse2zebra", str(tmp_path))
    assert os.listdir(tmp_path) == ["horse2zebra.zip"]


# ----- several processes


def test_two_first_runs_at_once_make_one_complete_demo(tmp_path, monkeypatch):
    code = (
        "from get_data import demo, prepare_dataset; demo.N_TRAIN, demo.N_TEST = 6, 2;"
        "print(prepare_dataset('demo', 'data'))"
    )
    environment = os.environ | {"PYTHONPATH": ROOT}
    runs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0] and os.listdir(tmp_path / "data") == ["demo"]
    counts = {name: len(os.listdir(tmp_path / "data/demo" / name)) for name in os.listdir(tmp_path / "data/demo")}
    assert counts == {"trainA": 6, "trainB": 6, "testA": 2, "testB": 2, "test_mask": 2}
    assert sum("drawing" in output for output in outputs) == 1


def test_without_locks_the_first_complete_one_is_kept(tmp_path, monkeypatch):
    """Also beside an unfinished part of an earlier version, and a symbolic link."""
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    monkeypatch.setattr(demo, "N_TRAIN", 2)
    monkeypatch.setattr(demo, "N_TEST", 1)
    os.mkdir(tmp_path / "elsewhere")
    os.mkdir(tmp_path / "data")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/demo.part")
    root = str(tmp_path / "data/demo")
    with complete_folder(root) as ours:
        os.mkdir(os.path.join(ours, "trainA"))
        assert prepare_dataset("demo", str(tmp_path / "data")) == root  # a second process, meanwhile
    assert len(os.listdir(f"{root}/trainA")) == 2 and os.listdir(tmp_path / "elsewhere") == []
    assert sorted(os.listdir(tmp_path / "data")) == ["demo", "demo.part"]


def test_what_a_killed_process_left_is_removed_later(tmp_path):
    (tmp_path / "demo.abc.part").mkdir()
    os.utime(tmp_path / "demo.abc.part", (0, 0))
    with complete_folder(str(tmp_path / "demo")):
        pass
    assert os.listdir(tmp_path) == ["demo"] and os.stat(tmp_path / "demo").st_mode & 0o077 == 0o077 & ~os.umask(0o022)


def test_a_name_that_is_not_there_says_what_may_be_meant(tmp_path):
    (tmp_path / "Summer").mkdir()
    (tmp_path / "mine.zip").touch()
    with pytest.raises(InputError, match="Did you mean horse2zebra"):
        prepare_dataset("horse2zebr", str(tmp_path))
    with pytest.raises(InputError, match="Did you mean Summer"):
        prepare_dataset("summer", str(tmp_path))
    with pytest.raises(InputError, match="mine.zip is there: unpack it"):
        prepare_dataset("mine", str(tmp_path))


def test_the_progress_of_a_download_is_that_of_other_commands(tmp_path, serve, capsys, monkeypatch):
    url, _ = serve(archive(), break_after=1000, breaks=1)
    fetch_dataset("tiny", str(tmp_path / "a"), url)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"downloading {url}: 0 MB" and said[1].startswith(f"{url}: connection lost after 0.0 MB")
    assert said[2] == f"downloading {url}: 0 MB, of which 0 MB are already downloaded"
    assert re.fullmatch(r"downloading: 1/1 MB  ETA 0:00  .* MB/s", said[3]) and len(said) == 4  # no line in between
    # in a terminal the line is redrawn, fits, and ends before the next one
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    shown = fetch.DownloadProgress("http://x/tiny.zip", 2_000_000, 12_000_000)
    shown.progress.time = shown.started = shown.started - 5
    for have in (7_000_000, 12_000_000):
        shown.update(have)
    shown.end_line()
    said = capsys.readouterr().out
    assert said.startswith("downloading http://x/tiny.zip: 12 MB, of which 2 MB are already downloaded\n\r")
    lines = said.rstrip().split("\r")[1:]
    assert "downloading: 5/10 MB  ETA 0:0" in lines[0] and "downloading: 10/10 MB" in lines[1]
    assert all(len(line) < 60 + len("\033[32m\033[0m") for line in lines) and said.endswith("\n")


def test_the_progress_of_a_download_of_unknown_size(capsys):
    shown = fetch.DownloadProgress("http://x/tiny.zip", 0, 0)
    shown.progress.time = shown.started = shown.started - 40
    shown.update(3_000_000)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "downloading http://x/tiny.zip: size unknown" and said[1].startswith(
        "downloading: 3/? MB  ETA ..."
    )
