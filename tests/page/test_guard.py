"""page/guard.py: which requests reach Gradio."""

import asyncio
import json
import os
import time

import pytest

from page.guard import Guard, read_all


@pytest.fixture
def ask(tmp_path):
    """ask(method, path, body=..., ...) -> (HTTP status, the body that the application saw, or None, headers)"""
    os.makedirs(tmp_path / "uploads")

    def request(method, path, body=b"", hosts=None, host="127.0.0.1:7860", length=None, max_upload=1000, kind="http",
                more=(), most_kept=None):  # fmt: skip
        seen, sent = [], []

        async def application(scope, receive, send):
            text, more = b"", scope["method"] == "POST"
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                text, more = text + message.get("body", b""), message.get("more_body", False)
            seen.append(text)
            if text == b"fail":
                raise KeyError(99999)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        chunks = [body[i : i + 400] for i in range(0, len(body), 400)] or [b""]
        messages = [{"type": "http.request", "body": c, "more_body": i < len(chunks)} for i, c in enumerate(chunks, 1)]
        headers = [(b"host", host.encode())] + [(b"content-length", str(length).encode())] * (length is not None)
        headers += more
        scope = {"type": kind, "method": method, "path": path, "headers": headers}

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        guard = Guard(application, tmp_path / "uploads", max_upload, {0: 4, 1: 1}, hosts, most_kept)
        asyncio.run(guard(scope, receive, send))
        assert guard.arriving == 0
        status = sent[0].get("status") if sent else None
        return status, seen[0] if seen else None, dict(sent[0].get("headers", ())) if sent else {}

    return request


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/assets/index-x.js", "/gradio_api/queue/data",
                                  "/gradio_api/heartbeat/abc123", "/gradio_api/startup-events"])  # fmt: skip
def test_what_the_page_needs_is_answered(ask, path):
    status, _, headers = ask("GET", path)
    assert status == 200
    assert (
        b"default-src 'self'" in headers[b"content-security-policy"]
        and headers[b"x-content-type-options"] == b"nosniff"
    )


@pytest.mark.parametrize("method, path", [
    ("GET", "/gradio_api/proxy=https://example.com"), ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/run-history/buckets"), ("POST", "/gradio_api/run/picture"), ("POST", "/gradio_api/call/picture"),
    ("POST", "/gradio_api/vibe-edit"), ("GET", "/gradio_api/deep_link"), ("GET", "/monitoring"), ("DELETE", "/"),
    ("GET", "/gradio_api/custom_component/1/client/component/x.js"), ("PUT", "/gradio_api/upload"), ("GET", "/docs"),
    ("GET", "/gradio_api/info"), ("GET", "/openapi.json"),
])  # fmt: skip
def test_the_rest_of_gradio_is_not(ask, method, path):
    assert ask(method, path)[:2] == (404, None)


def test_files_are_served_from_one_folder_only(ask, tmp_path):
    inside = tmp_path / "uploads" / "a.png"
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", tmp_path / "uploads" / "link.txt")
    assert ask("GET", f"/gradio_api/file={inside}")[0] == 200
    for path in ("/etc/passwd", "saved_models/a/latest.pth", "https://example.com/x.png", f"{tmp_path}/secret.txt",
                 f"{inside}/../../secret.txt", f"{tmp_path}/uploads/link.txt", f"{tmp_path}/uploads/%2e%2e/secret.txt",
                 f"{tmp_path}/uploads2/a.png", "", f"{inside}\0", "file:///etc/passwd"):  # fmt: skip
        assert ask("GET", f"/gradio_api/file={path}")[:2] == (404, None), path


def test_calls_may_only_name_uploads(ask, tmp_path):
    def call(data, number=1, session="ab12"):
        body = {"data": data, "fn_index": number, "session_hash": session}
        return ask("POST", "/gradio_api/queue/join", json.dumps(body).encode())

    good = {"path": str(tmp_path / "uploads" / "a.png"), "url": "http://127.0.0.1:7860/x", "meta": {"_type": "x"}}
    status, seen, _ = call([good, 1, None, "latest"], 0)
    assert status == 200 and json.loads(seen)["data"][0] == good
    for path in (
        "/etc/passwd",
        "https://example.com/x.png",
        "http://169.254.169.254/",
        "../x",
        None,
        5,
        ["/etc/passwd"],
    ):
        assert call([good | {"path": path}])[:2] == (400, None), path
        assert call([{"layers": [[{"deep": good | {"path": path}}]]}])[:2] == (400, None), path
    for number, session in ((2, "ab12"), (-1, "ab12"), ("1", "ab12"), (True, "ab12"), (None, "ab12"), (1, "a/b")):
        assert call([good], number, session)[:2] == (400, None)
    assert call([good, 1])[:2] == call({"a": 1})[:2] == call(None)[:2] == (400, None)
    assert ask("POST", "/gradio_api/queue/join", b"[]")[:2] == (400, None)
    assert ask("POST", "/gradio_api/queue/join", b"{")[:2] == (400, None)
    assert ask("POST", "/gradio_api/queue/join", b"[" * 200_000)[:2] == (400, None)


def test_sizes(ask):
    assert ask("POST", "/gradio_api/upload", b"x" * 900)[:2] == (200, b"x" * 900)
    assert ask("POST", "/gradio_api/upload", b"x" * 101_100)[1] is None  # without saying how long it is
    assert ask("POST", "/gradio_api/upload", length=10**12)[:2] == (413, None)
    assert ask("POST", "/gradio_api/upload", length=-1)[:2] == (413, None)
    assert ask("POST", "/gradio_api/queue/join", b" " * 2_000_001)[:2] == (413, None)


def test_all_uploads_together_are_limited(ask, tmp_path):
    os.makedirs(tmp_path / "uploads" / "hash")
    (tmp_path / "uploads" / "hash" / "a.png").write_bytes(bytes(50_000))
    (tmp_path / "uploads" / "small.png").write_bytes(b"x")  # takes a block of 4,096 bytes
    room = 50_000 + 4096
    assert ask("POST", "/gradio_api/upload", b"x" * 900, length=900, most_kept=room + 900)[0] == 200
    assert ask("POST", "/gradio_api/upload", b"x" * 900, length=900, most_kept=room + 899)[:2] == (507, None)
    # without saying how long it is, it may be as long as the limit
    assert ask("POST", "/gradio_api/upload", b"x" * 900, most_kept=room + 101_000)[0] == 200
    assert ask("POST", "/gradio_api/upload", b"x" * 900, most_kept=room + 100_999)[:2] == (507, None)
    assert ask("POST", "/gradio_api/cancel", b"{}", most_kept=1)[0] == ask("GET", "/", most_kept=1)[0] == 200


def test_uploads_on_their_way_are_counted(tmp_path):
    """The second of two that come at the same time finds no room, although nothing has been written yet."""
    answers = []

    async def application(scope, receive, send):
        await asyncio.gather(upload("second")) if len(answers) == 0 else None
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Guard(application, tmp_path, 1000, {}, most_kept=1500)

    async def upload(name):
        async def send(message):
            if "status" in message:
                answers.append((name, message["status"]))

        headers = [(b"host", b"127.0.0.1"), (b"content-length", b"900")]
        await guard({"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}, None, send)

    asyncio.run(upload("first"))
    assert answers == [("second", 507), ("first", 200)] and guard.arriving == 0


def test_a_body_in_many_parts_is_put_together_once():
    """Of 4 MB in parts of 100 bytes, 80 GB would be copied if each part made a new body."""
    parts = [{"type": "http.request", "body": b"x" * 100, "more_body": i < 40_000} for i in range(1, 40_001)]
    left = iter(parts)

    async def receive():
        return next(left)

    started = time.monotonic()
    body = asyncio.run(read_all(receive, 5_000_000))
    assert len(body) == 4_000_000 and type(body) is bytes and time.monotonic() - started < 2


def test_names_of_the_host(ask):
    local = {"127.0.0.1", "localhost", "[::1]"}
    for host in ("127.0.0.1:7860", "localhost", "[::1]:7860"):
        assert ask("GET", "/", hosts=local, host=host)[0] == 200, host
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example:7860", ""):
        assert ask("GET", "/", hosts=local, host=host)[:2] == (403, None), host
    assert ask("GET", "/", host="any.example")[0] == 200


def test_no_sockets(ask):
    assert ask("GET", "/", kind="websocket")[1] is None


def test_an_error_of_gradio_is_one_line(ask, capsys):
    status, _, headers = ask("POST", "/gradio_api/component_server", b"fail")
    assert status == 400 and headers[b"content-type"].startswith(b"text/plain")
    assert capsys.readouterr().out == "note: a request for /gradio_api/component_server failed (KeyError)\n"


def layer(index):
    """The body of a form with a layer of a mask, and its header"""
    fields = {
        "type": "layer",
        "index": index,
        "id": "x",
        "component_id": "9",
        "session_hash": "s",
        "fn_name": "accept_blobs",
    }
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    parts.append('--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nPNG\r\n--b--\r\n')
    return "".join(parts).encode(), [(b"content-type", b"multipart/form-data; boundary=b")]


@pytest.mark.parametrize("index, status", [("0", 200), ("9", 200), ("null", 200), ("", 200), ("10", 400), ("2000000000", 400),
                                           ("-1", 400), ("1e9", 400)])  # fmt: skip
def test_layers_of_a_mask_have_small_numbers(ask, index, status):
    pytest.importorskip("multipart")
    body, headers = layer(index)
    answer, seen, _ = ask("POST", "/gradio_api/component_server", body, more=headers)
    assert answer == status and seen == (body if status == 200 else None)


def test_a_form_that_is_none_is_refused(ask):
    pytest.importorskip("multipart")
    assert ask("POST", "/gradio_api/component_server", b"x", more=[(b"content-type", b"multipart/form-data")])[0] == 400


def test_other_sites_cannot_send_anything(ask):
    headers = [(b"sec-fetch-site", b"cross-site")]
    assert ask("POST", "/gradio_api/upload", b"x", more=headers)[0] == 403
    assert ask("GET", "/", more=headers)[0] == 200  # a link to the page
    assert ask("POST", "/gradio_api/upload", b"x", more=[(b"sec-fetch-site", b"same-origin")])[0] == 200
    for origin in (b"http://evil.test:8099", b"null"):
        assert ask("POST", "/gradio_api/upload", b"x", more=[(b"origin", origin)])[0] == 403
