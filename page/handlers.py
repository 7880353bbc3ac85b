"""
What the buttons of the page do. Values arrive as a browser has sent them (preprocess=False): each is checked here or by
the function that it is passed to, and Gradio opens none of the files itself.
"""

import os
import shutil
import threading
import time
import uuid

import gradio as gr

from command_line.paths import is_inside
from media.containers import is_video
from page.compare import through_checkpoints
from page.messages import failed, paragraphs, readable_errors, without_advice
from page.models_found import HOW_TO_TRAIN, LATEST, shown
from page.translate import (
    before_and_after,
    number,
    painted_mask,
    preview,
    read_settings,
    translate_file,
    write_mask,
)  # fmt: skip
from utils import InputError

PROGRESS = gr.Progress()  # as a default, Gradio replaces it by one that draws on the page
N_STOPPED = 1000  # sessions that are remembered as stopped; most of them have long ended
OLD = 600  # seconds after which the files of a translation are deleted; Gradio has copied them long before


class Handlers:
    """The functions of the tabs "Translate" and "Compare".

    translators: page.translate.Translators
    folder:      for uploads and results; nothing outside of it is taken for an upload
    """

    editor = None  # the gr.ImageEditor of the mask, which holds what browsers have painted

    def __init__(self, translators, folder):
        self.translators, self.models, self.folder = translators, translators.models, os.path.realpath(folder)
        self.stopped, self.lock = {}, threading.Lock()  # keys: sessions whose video is to be stopped, the oldest first
        self.frames = {}  # session: (frames done, frames in all or None) of the video that is translated for it

    ##############################
    #   Files
    ##############################

    def upload(self, data):
        """The path of an uploaded file, from what the browser says of it. Raises InputError."""
        if not data:
            raise InputError("there is no picture yet. Drop one, paste one, or choose a file")
        path = data.get("path") if isinstance(data, dict) else None
        real = os.path.realpath(path) if isinstance(path, str) and "\0" not in path else ""
        if not is_inside(real, self.folder) or not os.path.isfile(real):
            raise InputError("the upload is no longer here. Send it again")
        return real

    def new_folder(self):
        """A folder for the files of one translation. Deletes those of earlier ones."""
        results = os.path.join(self.folder, "results")
        with self.lock:
            os.makedirs(results, exist_ok=True)
            for name in os.listdir(results):
                if time.time() - os.path.getmtime(os.path.join(results, name)) > OLD:
                    shutil.rmtree(os.path.join(results, name), ignore_errors=True)
            folder = os.path.join(results, uuid.uuid4().hex)
            os.makedirs(folder)
        return folder

    def mask_of(self, painted, source, folder):
        """The path of the mask that was painted, None without one. Raises InputError."""
        if not isinstance(painted, dict):
            return None
        if isinstance(painted.get("id"), str):
            blobs = self.editor.blob_storage.pop(painted["id"], None)
            layers = [blob for blob in blobs.layers if blob] if blobs else []
        else:
            layers = []
            for layer in painted.get("layers") or []:
                with open(self.upload(layer), "rb") as file:
                    layers.append(file.read())
        mask = painted_mask(layers)
        return None if mask is None else write_mask(mask, source, os.path.join(folder, "mask.png"))

    ##############################
    #   Choices
    ##############################

    def translators_listed(self, chosen=None):
        """-> (dropdown of the runs, note if there are none). What was chosen before stays so."""
        names = self.models.translators()
        text = "" if names else f"<p>{HOW_TO_TRAIN}</p><p>Then reload this page.</p>"
        value = chosen if chosen in names else names[0] if names else None
        return gr.Dropdown(choices=names, value=value), gr.HTML(text, visible=not names)

    def second_listed(self, chosen=None):
        """-> dropdown of the runs for a second choice, which may be none"""
        names = self.models.translators()
        choices = [("none", ""), *((name, name) for name in names)]
        return gr.Dropdown(choices=choices, value=chosen if chosen in names else "")

    def checkpoints_of(self, run, chosen=None):
        """-> dropdown of the checkpoints of a run. What was chosen before stays so."""
        with readable_errors():
            names = self.models.checkpoints(run) if run else []
        return gr.Dropdown(choices=names, value=chosen if chosen in names else names[0] if names else None)

    def size_of(self, run):
        with readable_errors():
            return self.models.trained_size(run) if run else 256

    ##############################
    #   Translate
    ##############################

    def to_paint_on(self, data):
        """A new picture -> the background of the mask editor"""
        if not data:
            return None
        try:
            with readable_errors():
                image = preview(self.upload(data))
        except gr.Error:
            return None  # said when it is translated
        return {"background": image, "layers": [], "composite": image}

    def picture(self, data, painted, run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix,
                progress=PROGRESS):  # fmt: skip
        """-> (before and after, video, text, download button)"""
        values = run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix
        return self.translate(data, values, progress, painted=painted)

    def clip(self, data, smooth, run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix,
             progress=PROGRESS, request: gr.Request = None):  # fmt: skip
        """As `picture`, for a file in any format."""
        session = request.session_hash if request else None
        self.stopped.pop(session, None)

        def show(done, total):
            if session in self.stopped:
                raise InputError("stopped")
            self.frames[session] = done, total
            progress((done, total), desc="translating", unit="frames")

        values = run, checkpoint, direction, size, keep_size, strength, mix_run, mix_checkpoint, mix
        try:
            return self.translate(data, values, progress, smooth=smooth, show=show)
        finally:
            self.frames.pop(session, None)

    def translate(self, data, values, progress, painted=None, smooth=0, show=None):
        """values: the arguments of read_settings; show: called with the number of frames done, and of all frames.
        An error leaves the earlier result as it is, and its words below it."""
        try:
            source, folder = self.upload(data), self.new_folder()
            settings, smooth = read_settings(*values), number("smooth", smooth, 0, 1)
            progress(0.1, desc="loading the checkpoint")
            self.translators.open(settings)
            progress(0.3, desc="translating")
            started = time.monotonic()
            mask = self.mask_of(painted, source, folder)
            target, notes = translate_file(source, settings, self.translators, folder, mask, smooth, show)
            seconds = time.monotonic() - started
            progress(0.9, desc="drawing the preview")
            return self.results(source, target, [f"Translated in {seconds:.1f} s.", *map(without_advice, notes)])
        except (InputError, OSError, RuntimeError, MemoryError) as error:
            return gr.skip(), gr.skip(), failed(error), gr.skip()

    def results(self, source, target, words):
        """-> (before and after, video, text, download button) of a translated file"""
        download = gr.DownloadButton(label=f"Download {os.path.basename(target)}", value=target, interactive=True)
        if is_video(target):
            playable = target.lower().endswith((".mp4", ".webm"))
            words += [] if playable else ["Browsers may not play this kind of video. Download it."]
            video = gr.Video(value=target if playable else None, visible=playable)
            return gr.ImageSlider(visible=False), video, paragraphs(words), download
        pair = before_and_after(source, target)
        words += [] if pair else ["This kind of picture cannot be shown here. Download it."]
        return gr.ImageSlider(value=pair, visible=True), gr.Video(visible=False), paragraphs(words), download

    def stop(self, request: gr.Request):
        """Stops the video of a session -> HTML that says how far it came"""
        self.leave(request)
        done, total = self.frames.get(request.session_hash, (0, None))
        return paragraphs([f"Stopped after {done} of {total} frames." if total else "Stopped."])

    def leave(self, request: gr.Request):
        """Stops the video of a visitor who has closed the page. Gradio drops what still waits."""
        self.stopped.pop(request.session_hash, None)
        self.stopped[request.session_hash] = True
        while len(self.stopped) > N_STOPPED:
            del self.stopped[next(iter(self.stopped))]

    ##############################
    #   Compare
    ##############################

    def compare(self, data, run, other, direction, size, keep_size, progress=PROGRESS):
        """Yields (pictures of the run, of the other run, text) as they are made."""
        columns = [[], []]

        def state(text):
            left = gr.Gallery(value=columns[0], label=run)
            return left, gr.Gallery(value=columns[1], label=other or "", visible=bool(other)), paragraphs([text])

        try:
            source = self.upload(data)
            for column, name in zip(columns, [run, other] if other else [run]):
                settings = read_settings(name, LATEST, direction, size, keep_size, 1.0)
                column.append((preview(source), "the picture"))
                for checkpoint, n, total, image in through_checkpoints(
                    source, settings, self.translators, self.new_folder()
                ):
                    progress((n, total), desc=f"{name}, {checkpoint}", unit="checkpoints")
                    column.append((image, checkpoint))
                    yield state(f"{name}: {n} of {total} checkpoints")
                if len(column) == 1:
                    raise InputError(f"{shown(name)}: has no checkpoint for this direction")
        except (InputError, OSError, RuntimeError, MemoryError) as error:
            yield *(state("")[:2] if columns[0] else (gr.skip(), gr.skip())), failed(error)
            return
        n = len(columns[0] + columns[1]) - 1 - bool(other)
        yield state(f"{n} translations, the oldest checkpoint first." if n > 1 else "One checkpoint was kept.")


class Few(dict):
    """A dict of the last few entries: the mask editor keeps what browsers send until it is used."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        while len(self) > 20:
            del self[next(iter(self))]
