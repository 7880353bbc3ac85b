"""
Translating what a camera sees, live: FFmpeg reads the camera (pip install av), OpenCV shows the result in a window
if it can (pip install opencv-python), and a video file records it.
"""

import contextlib
import glob
import os
import re
import signal
import sys
import threading
import time
from fractions import Fraction

import numpy as np

from media.flicker import Smoother
from media.video import VideoResult
from media.video_files import Look
from media.video_writer import VideoWriter
from utils import InputError, whole_file


def open_camera(name):
    """Opens "webcam", the first camera, or "webcam:1" for the second one -> av.container.InputContainer. Raises InputError."""
    try:
        import av
    except ImportError:
        raise InputError(f"--input {name}: requires PyAV: pip install av")
    number = int(re.sub(r"\D", "", name) or 0)
    try:
        if sys.platform == "darwin":  # it wants to be told a rate that the camera has
            return av.open(str(number), format="avfoundation", options={"framerate": "30"})
        if sys.platform == "win32":
            devices = av.enumerate_input_devices("dshow")
            names = [device.name for device in devices if "video" in device.media_types]
            if number >= len(names):
                raise FileNotFoundError(2, f"{len(names)} cameras found")
            return av.open("video=" + names[number], format="dshow")
        return av.open(f"/dev/video{number}", format="v4l2")
    except (OSError, ValueError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        others = ", ".join(sorted(glob.glob("/dev/video*")))
        hint = f". Found: {others}" if others else ". Is one connected, and may this program use it?"
        raise InputError(f"--input {name}: camera {number} cannot be opened ({reason}){hint}") from error


class Camera:
    """The newest frames of a live source, in a `with` block. Frames that come while the last one is being translated
    are skipped, so the result does not lag behind.

    container: av.container.InputContainer of a camera, or of anything else that FFmpeg plays in real time
    name:      for messages
    resize:    function (width, height) -> (width, height), applied to the frames, or None
    """

    def __init__(self, container, name, resize=None):
        import av

        self.container, self.name = container, name
        try:
            self.stream = container.streams.video[0]
            first = next(container.decode(self.stream))
        except (IndexError, StopIteration, av.FFmpegError) as error:
            container.close()
            raise InputError(f"{name}: sends no pictures") from error
        size = (first.width, first.height)
        rate = self.stream.average_rate or Fraction(30)
        self.look = Look(*(resize(*size) if resize else size), rate, Fraction(1, 1000))
        self.started = time.monotonic()
        self.newest, self.ended, self.changed = (first, self.started), False, threading.Condition()
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.thread.join(5)
        if not self.thread.is_alive():  # a camera that hangs is left to the end of the program
            self.container.close()

    def _read(self):
        import av

        try:
            for frame in self.container.decode(self.stream):
                with self.changed:
                    self.newest = (frame, time.monotonic())
                    self.changed.notify()
                if self.closing.is_set():
                    return
        except av.FFmpegError:  # unplugged
            pass
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify()

    def frames(self, stop):
        """Yields pairs (frame, uint8 (H, W, 3), RGB; seconds since the start) until the source ends or `stop`, a
        threading.Event, is set."""
        while not stop.is_set():
            with self.changed:
                if self.newest is None and not self.ended:
                    self.changed.wait(0.1)
                newest, self.newest = self.newest, None
                if newest is None and self.ended:
                    return
            if newest is not None:
                frame, when = newest
                pixels = frame.reformat(self.look.width, self.look.height, "rgb24").to_ndarray()
                yield pixels, when - self.started


def translate_camera(camera, target, translate, smooth=0.0, show=None, progress=None):
    """Translates a Camera and records the result, until Ctrl-C, or the end of the source -> VideoResult. The file is
    complete in any case.

    target:    video file to write
    translate: function from uint8 (1, H, W, 3) to the same
    smooth:    strength of flicker.Smoother, 0 to 1; 0 is off
    show:      called with each translated frame; False as its result ends the translation
    progress:  called as progress(frames done, None)
    """
    smoother, done = Smoother(smooth) if smooth else None, 0
    with whole_file(target) as temporary, stop_by_ctrl_c() as stop, camera:
        with VideoWriter(temporary, target, camera.look, live=True) as writer:
            for frame, seconds in camera.frames(stop):
                translated = translate(frame[None])[0]
                if smoother:
                    translated = smoother.smooth(frame, translated)
                writer.write(translated, seconds, 0)
                done += 1
                if progress:
                    progress(done, None)
                if show and not show(translated):
                    break
    return VideoResult(done, "", writer.pix_fmt, smoother.flicker() if smoother else None)


@contextlib.contextmanager
def stop_by_ctrl_c():
    """Gives a threading.Event that Ctrl-C sets. A second Ctrl-C raises KeyboardInterrupt as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only that one can handle signals
        yield stop
        return

    def handle(*_):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def open_window(title):
    """-> function that shows a frame, uint8 (H, W, 3), RGB, and returns False once the user presses q or Esc or closes
    the window. None if there is no screen, or OpenCV cannot use it."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None  # OpenCV would end the program
    try:
        import cv2
    except ImportError:
        return None
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error:  # opencv-python-headless
        return None

    def show(frame):
        cv2.imshow(title, np.ascontiguousarray(frame[..., ::-1]))
        is_open = cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
        return is_open and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1

    return show
