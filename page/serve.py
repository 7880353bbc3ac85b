"""
Starts the page, and serves it until Ctrl-C.
"""

import os
import signal
import threading

import gradio as gr
from starlette.middleware import Middleware

from measuring.curves import STYLE as CURVES
from page.guard import Guard
from page.handlers import Handlers
from page.models_found import HOW_TO_TRAIN, Models
from page.translate import Translators
from utils import InputError

LOCAL = {"127.0.0.1", "localhost", "::1", "[::1]"}
MOST_UPLOADS = 20  # the largest uploads that there is room for at a time
FONTS = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none from other hosts

SCRIPT, STYLE = (os.path.join(os.path.dirname(__file__), name) for name in ("slider.js", "style.css"))


def exposure(opt):
    """-> lines on who can use the page"""
    lines = []
    if opt.share:
        lines.append(
            "note: --share: everyone who has the link can use the page and this machine's processor for a week. What is "
            "sent goes through Gradio's servers"
        )
    if opt.host not in LOCAL:
        lines.append(
            f"note: --host {opt.host}: everyone who can reach this machine can use the page, without a password and "
            "unencrypted"
        )
    if lines:
        lines.append("visitors see the runs and sample grids in saved_models and images, and can read no other file")
    return lines


def start(build_page, opt, device, folder):
    """Starts the page -> gr.Blocks, which runs in a thread. Raises InputError.

    build_page: function Handlers -> gr.Blocks
    opt:        options of app.py
    folder:     for uploads and results
    """
    do = Handlers(Translators(Models(files=tuple(opt.checkpoint)), device), folder)
    max_upload = opt.max_upload * 2**20  # the MB that Gradio shows
    hosts = LOCAL if opt.host in LOCAL and not opt.share else None
    page = build_page(do)
    counts = {number: len(fn.inputs) for number, fn in page.fns.items()}
    guard = Middleware(Guard, folder=folder, max_upload=max_upload, counts=counts, hosts=hosts,
                       most_kept=MOST_UPLOADS * max_upload)  # fmt: skip
    with open(SCRIPT, encoding="utf-8") as file:
        head = f'<script type="module">{file.read()}</script>'
    try:
        page.launch(
            server_name=opt.host, server_port=opt.port, share=opt.share, max_file_size=max_upload, quiet=True,
            prevent_thread_lock=True, app_kwargs={"middleware": [guard]}, css=CURVES, css_paths=STYLE, head=head, theme=gr.themes.Default(**FONTS),
            footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False,
            allowed_paths=[], inbrowser=False, show_error=False,
        )  # fmt: skip
    except OSError:
        port = "port: 7860 and the next ones are" if opt.port is None else f"port {opt.port}: is"
        raise InputError(f"--{port} in use, or --host {opt.host} is not an address of this machine")
    if not do.models.translators():
        print(f"note: {HOW_TO_TRAIN}")
    return page


def serve(build_page, opt, device, folder):
    """Starts the page, prints where it is, and returns after Ctrl-C or SIGTERM."""
    print("".join(line + "\n" for line in exposure(opt)), end="", flush=True)
    page = start(build_page, opt, device, folder)
    print(f"open {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    if opt.share:
        print(f"the link to share: {page.share_url}" if page.share_url else "note: --share: there is no link; is there a "
              "connection to the internet?", flush=True)  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one would leave the uploads behind
            signal.signal(number, signal.SIG_IGN)
        page.close(verbose=False)
