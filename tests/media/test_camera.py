"""Live translation, of FFmpeg's test pattern instead of a camera."""

import os
import signal
import threading
import time

import av
import numpy as np
import pytest

from media import camera
from media.camera import Camera, open_camera, open_window, translate_camera
from utils import InputError

pytestmark = pytest.mark.slow


def pattern(seconds=60, rate=20, name="testsrc=size=64x48"):
    """A source like a camera: frames come at their time, not before."""
    return av.open(f"{name}:rate={rate}:duration={seconds},realtime", format="lavfi")


def read(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(frame.pts * frame.time_base) for frame in frames], [f.to_ndarray(format="rgb24") for f in frames]


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".webm"])
def test_what_a_camera_sees_is_translated_and_recorded(tmp_path, extension):
    target, shown, told = str(tmp_path / f"out{extension}"), [], []
    source = Camera(pattern(seconds=2, name="color=red:size=64x48"), "webcam")
    result = translate_camera(
        source,
        target,
        lambda frames: frames[..., ::-1],
        show=lambda frame: shown.append(frame) or True,
        progress=lambda *numbers: told.append(numbers),
    )
    times, frames = read(target)
    assert result.frames == len(frames) == len(shown) and told[-1] == (len(frames), None)
    assert 10 <= len(frames) <= 40 and result.notes == [] and result.broken == ""
    assert np.abs(np.array(frames).astype(int) - (0, 0, 253)).max() <= 6
    assert np.all(np.diff(times) > 0) and abs(times[-1] - 1.95) < 0.4
    assert os.listdir(tmp_path) == [os.path.basename(target)]


def test_ctrl_c_ends_the_recording_with_a_complete_file(tmp_path):
    calls, target = [], str(tmp_path / "out.mp4")

    def translate(frames):
        calls.append(1)
        if len(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return frames

    before = signal.getsignal(signal.SIGINT)
    result = translate_camera(Camera(pattern(), "webcam"), target, translate)
    assert result.frames == len(read(target)[1]) == 10
    assert signal.getsignal(signal.SIGINT) == before and os.listdir(tmp_path) == ["out.mp4"]


def test_a_second_ctrl_c_interrupts(tmp_path):
    def translate(frames):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return frames

    with pytest.raises(KeyboardInterrupt):
        translate_camera(Camera(pattern(), "webcam"), str(tmp_path / "out.mp4"), translate)
    assert os.listdir(tmp_path) == []


def test_closing_the_window_ends_it(tmp_path):
    shown = []
    result = translate_camera(
        Camera(pattern(), "webcam"),
        str(tmp_path / "out.mp4"),
        lambda f: f,
        show=lambda f: shown.append(f) or len(shown) < 5,
    )
    assert result.frames == len(shown) == 5 == len(read(tmp_path / "out.mp4")[1])


def test_a_slow_network_sees_new_frames(tmp_path):
    """A camera that sends 7 frames while one is translated."""
    source, seen = pattern(rate=20, name="testsrc=size=64x48"), []

    def slow(frames):
        seen.append(frames[0])
        time.sleep(0.35)
        return frames

    result = translate_camera(Camera(source, "webcam"), str(tmp_path / "out.mp4"), slow, show=lambda f: len(seen) < 4)
    times, _ = read(tmp_path / "out.mp4")
    assert result.frames == 4 and (np.diff(times) > 0.25).all()


def test_resized_and_smoothed(tmp_path):
    pytest.importorskip("cv2")
    source = Camera(pattern(seconds=1), "webcam", lambda width, height: (width // 2, height // 2))
    result = translate_camera(source, str(tmp_path / "out.mp4"), lambda frames: frames, smooth=0.5)
    assert read(tmp_path / "out.mp4")[1][0].shape == (24, 32, 3) and result.flicker.before >= 0


def test_from_another_thread(tmp_path):
    """Where no signals can be handled."""
    results = []
    source = Camera(pattern(seconds=1), "webcam")
    thread = threading.Thread(
        target=lambda: results.append(translate_camera(source, str(tmp_path / "out.mp4"), lambda f: f))
    )
    thread.start()
    thread.join()
    assert results[0].frames == len(read(tmp_path / "out.mp4")[1]) > 10


@pytest.mark.parametrize("name, number", [("webcam", 0), ("webcam:97", 97)])
def test_no_camera(monkeypatch, name, number):
    def missing(path, format, **_):
        assert str(number) in path and format in ("v4l2", "avfoundation", "dshow")
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(av, "open", missing)
    monkeypatch.setattr(camera.sys, "platform", "linux")
    with pytest.raises(InputError, match=rf"--input {name}: camera {number} cannot be opened \(No such file") as error:
        open_camera(name)
    assert "\n" not in str(error.value)


def test_a_camera_without_pictures(tmp_path):
    with pytest.raises(InputError, match="webcam: sends no pictures"):
        Camera(av.open("sine=duration=1", format="lavfi"), "webcam")


def test_no_window_without_a_screen(monkeypatch):
    monkeypatch.setattr(camera.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert open_window("webcam") is None
