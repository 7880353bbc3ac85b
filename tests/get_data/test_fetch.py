"""Downloading a data set from local servers, some of which fail."""

import http.server
import io
import os
import re
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from get_data import official as fetch
from get_data import prepare_dataset
from get_data.official import fetch_dataset
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
