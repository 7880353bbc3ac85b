"""
Which requests are answered. Gradio offers more than this page needs, such as fetching addresses for a visitor; what is
not in the lists below is refused before Gradio sees it.
"""

import asyncio
import json
import os
import re
from urllib.parse import unquote, urlsplit

from command_line.paths import is_inside, sizes_in

GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(static|assets|svelte)/[^?]*|/gradio_api/"
    r"(heartbeat/\w+|queue/data|queue/status|upload_progress|startup-events|app_id/?|theme\.css|user/?|login_check/?)"
)
POST = re.compile(r"/gradio_api/(queue/join/?|upload/?|component_server/?|cancel/?|reset/?)")
FILE = "/gradio_api/file="
JSON_BYTES = 2_000_000  # of a request that is no upload
BLOCK = 4096  # bytes of a disk that a small file takes
MASK_BYTES = 10_000_000  # of a layer of a painted mask
HEADERS = {
    # nothing comes from other hosts. Gradio's own scripts are inline and compile templates
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Refused(Exception):
    """status: of HTTP; the message is for the visitor"""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Guard:
    """ASGI middleware in front of Gradio.

    folder:     of uploads and results; no other file is served or taken for an upload
    max_upload: bytes of an upload
    most_kept:  bytes of all files in the folder and of the uploads on their way; None for any number
    counts:     {number of a function: how many values it takes}, the only functions that are called
    hosts:      names by which the page may be called, None for any. A site that a visitor of it has open could otherwise
                call a page on 127.0.0.1 by a name of its own (DNS rebinding)
    """

    def __init__(self, app, folder, max_upload, counts, hosts=None, most_kept=None):
        self.app, self.folder, self.max_upload = app, os.path.realpath(folder), max_upload
        self.counts, self.hosts, self.most_kept = counts, hosts, most_kept
        self.arriving = 0  # bytes of the uploads on their way

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        n_bytes = 0
        try:
            self.check_request(scope)
            n_bytes = self.size_of_upload(scope)
            self.arriving += n_bytes
            await self.check_room(n_bytes)
            await self.answer(scope, await self.checked_body(scope, receive), send)
        except Refused as error:
            await refuse(send, error)
        finally:
            self.arriving -= n_bytes

    async def answer(self, scope, receive, send):
        """Has Gradio answer a request, and adds HEADERS."""
        begun = False

        async def send_with_headers(message):
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:  # of Gradio, on a request that its own script does not make
            if begun:
                raise
            print(f"note: a request for {scope['path'][:80]} failed ({type(error).__name__})", flush=True)
            await refuse(send, Refused(400, "not possible"))

    def check_request(self, scope):
        """Raises Refused for a path, a method or a host that is not served."""
        path, method = scope["path"], scope["method"]
        host = re.sub(r":\d+$", "", header(scope, b"host"))
        if self.hosts is not None and host not in self.hosts:
            raise Refused(403, "this page is for this machine only")
        if header(scope, b"sec-fetch-site") == "cross-site" and method != "GET":
            raise Refused(403, "another site must not use this page")
        if method != "GET" and not self.is_same_site(
            scope
        ):  # browsers send no Sec-Fetch-Site over http in a local network
            raise Refused(403, "another site must not use this page")
        if path.startswith(FILE) and method in ("GET", "HEAD"):
            return self.check_file(path[len(FILE) :], 404)
        allowed = {"GET": GET, "HEAD": GET, "POST": POST}.get(method)
        if allowed is None or not allowed.fullmatch(path):
            raise Refused(404, "not found")

    @staticmethod
    def is_same_site(scope):
        """Whether a request comes from this page, by its Origin, if it has one. A proxy may have changed the Host."""
        origin, hosts = header(scope, b"origin"), {header(scope, b"host"), header(scope, b"x-forwarded-host")}
        return not origin or urlsplit(origin).netloc in hosts - {""}

    def check_file(self, path, status=400):
        """Raises Refused unless a path is inside of the folder. It need not exist."""
        if not isinstance(path, str) or "\0" in path or not self.is_inside(path) or not self.is_inside(unquote(path)):
            raise Refused(status, "no such file")

    def is_inside(self, path):
        real = os.path.realpath(path)
        return os.path.isabs(path) and real != self.folder and is_inside(real, self.folder)

    def size_of_upload(self, scope):
        """-> the most bytes that a request may add to the folder, 0 unless it is an upload. Raises Refused."""
        if not is_upload(scope):
            return 0
        limit = self.max_upload + 100_000  # of the form around the file
        return content_length(scope, limit) or limit

    async def check_room(self, n_bytes):
        """Raises Refused if an upload, which is among those on their way, may take more room than there is."""
        if not n_bytes or self.most_kept is None:
            return
        sizes = await asyncio.to_thread(sizes_in, self.folder)
        if sum(max(size, BLOCK) for size in sizes) + self.arriving > self.most_kept:
            raise Refused(507, "there is no room for more uploads. Try again in an hour")

    async def checked_body(self, scope, receive):
        """-> `receive` for the application. JSON is read here and checked; the bytes of others are counted."""
        if scope["method"] != "POST":
            return receive
        is_json = scope["path"].startswith("/gradio_api/queue/join")
        if is_upload(scope):
            return counted(receive, self.size_of_upload(scope))
        limit = JSON_BYTES if is_json else MASK_BYTES
        content_length(scope, limit)
        body = await read_all(receive, limit)
        if is_json:
            self.check_json(body)
        elif header(scope, b"content-type").startswith("multipart/form-data"):
            await check_layer(scope, body)
        return replayed(body, receive)

    def check_json(self, body):
        """Raises Refused unless a call is of a function of the page. It may name uploads, but no other file, and no address:
        Gradio would fetch it."""
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(400, "not JSON")
        data, number = (call.get("data"), call.get("fn_index")) if isinstance(call, dict) else (None, None)
        if type(number) is not int or not isinstance(data, list) or self.counts.get(number) != len(data):
            raise Refused(400, "no such function")
        if not re.fullmatch(r"\w{1,64}", str(call.get("session_hash"))):
            raise Refused(400, "no session")
        todo = [call]
        while todo:
            value = todo.pop()
            if isinstance(value, dict):
                if "path" in value:
                    self.check_file(value["path"])
                todo.extend(value.values())
            elif isinstance(value, list):
                todo.extend(value)


async def read_all(receive, limit):
    """-> the body of a request, bytes. Raises Refused if it is longer than `limit`."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "incomplete")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise Refused(413, f"larger than {limit // 10**6} MB")
    return bytes(body)


async def check_layer(scope, body):
    """Raises Refused unless a form is a layer of a painted mask with a small number: Gradio makes room for as many layers
    as the number says. Parsed as Gradio does."""
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream():
        yield body

    try:
        form = await MultiPartParser(Headers(scope=scope), stream()).parse()
    except (MultiPartException, KeyError, ValueError):
        raise Refused(400, "not a form")
    if not all(isinstance(n, str) and re.fullmatch("[0-9]?|null", n) for n in form.getlist("index")):
        raise Refused(400, "no such layer")


def header(scope, name):
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def is_upload(scope):
    return scope["method"] == "POST" and scope["path"].startswith("/gradio_api/upload")


def content_length(scope, limit):
    """-> the length that the header says, None without. Raises Refused if it is more than `limit`."""
    length = header(scope, b"content-length")
    if length and (not length.isdecimal() or int(length) > limit):
        raise Refused(413, f"larger than {limit // 10**6} MB")
    return int(length) if length else None


def counted(receive, limit):
    """-> a `receive` that ends the connection after `limit` bytes"""
    seen = 0

    async def receive_some():
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > limit else message

    return receive_some


def replayed(body, receive):
    """-> a `receive` that gives a body that has been read"""
    given = False

    async def receive_again():
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def refuse(send, error):
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": str(error).encode()})
