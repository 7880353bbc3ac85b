import os
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from media import tracks
from media.containers import holds_video, is_mpeg
from media.flicker import Smoother
from media.targets import plan_jobs
from media.video import VideoResult, ahead, translate_video
from media.video_files import VideoReader
from utils import InputError

pytestmark = pytest.mark.slow

RED, GREEN, BLUE, GRAY = (200, 40, 40), (40, 180, 60), (50, 60, 190), (128, 128, 128)
LOSSLESS = {"qp": "0", "bf": "2"}


def identity(frames):
    return frames


def quarters(height=48, width=64, colours=(RED, GREEN, BLUE, GRAY)):
    """A picture with a colour in each corner, so that each turn or flip of it shows: uint8 (height, width, 3)."""
    image = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    image[:h, :w], image[:h, w:], image[h:, :w], image[h:, w:] = colours
    return image


def to_yuv(rgb, kr, kb, full):
    """BT.601, BT.709 and the like from their definition: (H, W, 3) -> uint8 planes (3, H, W)."""
    r, g, b = np.moveaxis(rgb.astype(float), 2, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    planes = np.stack(
        [y, cb + 128, cr + 128] if full else [16 + y * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255]
    )
    return planes.round().astype(np.uint8)


def write_clip(
    path, images, rate=10, ticks=None, sound=(), pix_fmt="yuv420p", options=LOSSLESS, codec="libx264", **video
):
    """images: uint8 (H, W, 3), RGB; ticks: when they are shown, in 1/1000 s; sound: an audio codec for each track."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if str(path).endswith(".mp4") else {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        base = stream.codec_context.time_base = Fraction(1, 1000) if ticks else Fraction(1, rate)
        for name, value in video.items():
            setattr(stream.codec_context, name, value)
        tracks = [container.add_stream(name, rate=48000) for name in sound]
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = ticks[i] if ticks else i, base
            container.mux(stream.encode(frame))
            for number, track in enumerate(tracks, 1):
                n = 48000 // rate
                wave = np.sin(np.arange(i * n, (i + 1) * n) * 0.03 * number).astype(np.float32)
                samples = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
                samples.sample_rate, samples.pts = 48000, i * n
                container.mux(track.encode(samples))
        for encoder in (stream, *tracks):
            container.mux(encoder.encode(None))
    return str(path)


def read_clip(path):
    """-> list of decoded frames"""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path):
    return [frame.pts * frame.time_base for frame in read_clip(path)]


def sound(path, track=0):
    """-> what the packets of an audio track hold, and when each one is played, in seconds"""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=track) if p.size]
        return [bytes(p) for p in packets], [float(p.pts * p.time_base) for p in packets]


def difference(a, b):
    return np.abs(a.astype(float) - b.astype(float)).mean()


def noise(n):
    """n gray pictures that do not compress, so that a place in the file belongs to a frame."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 64, 1), dtype=np.uint8).repeat(3, axis=2) for _ in range(n)]


##############################
#   The file stays the same
##############################


@pytest.mark.parametrize("extension", [".mp4", ".mov", ".mkv", ".webm"])
def test_the_translated_frames_are_in_the_file(tmp_path, extension):
    source = write_clip(tmp_path / "clip.mp4", [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(12)])
    target, sizes, told = str(tmp_path / f"out{extension}"), [], []

    def negative(frames):
        sizes.append(len(frames))
        return 255 - frames

    result = translate_video(source, target, negative, batch_size=5, progress=lambda *numbers: told.append(numbers))
    assert result == VideoResult(frames=12, broken="", pix_fmt="yuv420p")
    assert sizes == [5, 5, 2] and told == [(5, 12), (10, 12), (12, 12)]
    means = [frame.to_ndarray(format="rgb24").mean() for frame in read_clip(target)]
    assert np.allclose(means, [255 - 10 * i for i in range(12)], atol=2)
    assert sorted(os.listdir(tmp_path)) == sorted(["clip.mp4", f"out{extension}"])


def test_avi_has_all_frames(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(12)])
    translate_video(source, str(tmp_path / "out.avi"), identity)
    means = [frame.to_ndarray(format="rgb24").mean() for frame in read_clip(tmp_path / "out.avi")]
    assert np.allclose(means, [10 * i for i in range(12)], atol=2)
    assert np.allclose(np.diff(np.array(times(tmp_path / "out.avi"), float)), 0.1)


@pytest.mark.parametrize("extension", [".mp4", ".mkv"])
def test_variable_frame_rate_keeps_each_time(tmp_path, extension):
    ticks = [0, 40, 80, 500, 520, 1000, 1033, 1066, 1900, 2000]
    source = write_clip(tmp_path / "clip.mkv", [quarters()] * 10, ticks=ticks)
    translate_video(source, str(tmp_path / f"out{extension}"), identity, batch_size=4)
    assert times(tmp_path / f"out{extension}") == [Fraction(tick, 1000) for tick in ticks]


def test_frames_stored_in_another_order_than_shown_are_not_missing(tmp_path):
    source, target = str(tmp_path / "in.mkv"), str(tmp_path / "out.mkv")
    milliseconds = [0, 40, 200, 210, 800, 1500, 1501, 1600, 2300, 2400, 2450, 4000]
    with av.open(source, "w") as container:
        stream = container.add_stream("libx264", 10, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, pts in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    result = translate_video(source, target, identity)
    assert (result.frames, result.broken) == (12, "")
    assert times(target) == pytest.approx([t / 1000 for t in milliseconds])


def test_fractional_rate_and_duration(tmp_path):
    rate = Fraction(30000, 1001)
    source = str(tmp_path / "clip.mp4")
    with av.open(source, "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=LOSSLESS)
        stream.width, stream.height = 64, 48
        for _ in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), "rgb24")))
        container.mux(stream.encode(None))
    translate_video(source, str(tmp_path / "out.mp4"), identity)
    with av.open(source) as a, av.open(str(tmp_path / "out.mp4")) as b:
        assert a.streams.video[0].average_rate == b.streams.video[0].average_rate == rate
        assert a.duration == b.duration
    assert times(source) == times(tmp_path / "out.mp4") == [i / rate for i in range(12)]


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ".ts"])
def test_sound_is_copied_packet_by_packet(tmp_path, kind):
    source = write_clip(tmp_path / f"clip{kind}", [quarters()] * 12, sound=["aac", "aac"])
    translate_video(source, str(tmp_path / "out.mp4"), identity, batch_size=3)
    lag = float(times(tmp_path / "out.mp4")[0] - times(source)[0])  # MPEG-TS does not begin at 0
    for track in (0, 1):
        packets, played = sound(source, track)
        copied, copied_played = sound(tmp_path / "out.mp4", track)
        # AAC has a header of 7 bytes before each packet in MPEG-TS, and none elsewhere
        assert copied == [packet[7 if kind == ".ts" else 0 :] for packet in packets] and len(packets) > 50
        assert np.allclose(np.array(copied_played) - lag, played, atol=0.002)
    assert sound(source, 0)[0] != sound(source, 1)[0]
    # interleaved: nowhere in the file does one stream run far ahead of the others
    with av.open(str(tmp_path / "out.mp4")) as container:
        order = sorted((p.pos, float(p.dts * p.time_base), p.stream_index) for p in container.demux() if p.size)
    latest = [0.0] * 3
    for _, time, index in order:
        latest[index] = time
        assert max(latest) - min(latest) < 1.01  # what the muxer gathers of one stream in a row


def test_sound_of_an_unknown_kind_is_left_out(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 4, sound=["aac", "aac"])
    data = open(source, "rb").read()
    for old, new in ((b"mp4a", b"apac"), (b"esds", b"free")):  # in the header of the second track
        at = data.rindex(old)
        data = data[:at] + new + data[at + 4 :]
    open(source, "wb").write(data)
    result = translate_video(source, str(tmp_path / "out.mp4"), identity)
    assert result.broken == "" and result.notes == ["left out sound of an unknown codec"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert sound(tmp_path / "out.mp4")[0] == sound(source)[0]


def test_language_of_a_track(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 4, sound=["aac"])
    data = open(source, "rb").read()
    at = data.rindex(b"mdhd") + 4 + 20  # three letters of five bits
    french = sum((ord(letter) - 0x60) << shift for letter, shift in zip("fra", (10, 5, 0)))
    open(source, "wb").write(data[:at] + struct.pack(">H", french) + data[at + 2 :])
    translate_video(source, str(tmp_path / "out.mkv"), identity)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.audio[0].language == "fra"


def waveform(path):
    """-> the decoded sound of the first track, float (channels, samples), its rate, and the time of the first sample"""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    resampler = av.AudioResampler("fltp")
    samples = np.concatenate([out.to_ndarray() for frame in frames for out in resampler.resample(frame)], axis=1)
    return samples, frames[0].sample_rate, float(frames[0].pts * frames[0].time_base)


def pitch(samples, rate):
    """The frequency in Hz that is loudest in samples (n,)."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def write_sound(path, codec, rate, layout="mono", seconds=2, pitch=440, gap=None, format=None):
    """A short video with a tone. gap: (from, to) in seconds, where the file has no sound packets."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec, rate=rate)
        track.codec_context.layout = layout
        n_channels = track.codec_context.layout.nb_channels
        for i in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(quarters(), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
            wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(i * rate // 10, (i + 1) * rate // 10) / rate)
            samples = av.AudioFrame.from_ndarray(np.tile(wave.astype(np.float32), (n_channels, 1)), "fltp", layout)
            samples.sample_rate, samples.pts, samples.time_base = rate, i * rate // 10, Fraction(1, rate)
            packets = track.encode(samples)
            if not gap or not gap[0] <= i / 10 < gap[1]:
                container.mux(packets)
        for encoder in (stream, track):
            container.mux(encoder.encode(None))
    return str(path)


@pytest.mark.parametrize(
    "source, codec, rate, layout, target, expected",
    [
        ("clip.3gp", "libopencore_amrnb", 8000, "mono", ".mp4", ("aac", 8000, 1)),  # a phone's
        ("clip.mkv", "aac", 44100, "stereo", ".webm", ("opus", 48000, 2)),
        ("clip.mkv", "libmp3lame", 44100, "mono", ".webm", ("opus", 48000, 1)),
        ("clip.mov", "pcm_s16be", 48000, "stereo", ".mp4", ("pcm_s16be", 48000, 2)),  # fits
        ("clip.mov", "pcm_s16be", 96000, "stereo", ".avi", ("mp3float", 48000, 2)),
        ("clip.mkv", "flac", 48000, "5.1", ".mov", ("aac", 48000, 6)),
        ("clip.mkv", "libopus", 48000, "5.1", ".avi", ("mp3float", 48000, 2)),
        ("clip.avi", "pcm_mulaw", 11025, "mono", ".webm", ("opus", 48000, 1)),
    ],
)
def test_sound_that_the_target_cannot_hold_is_converted(tmp_path, source, codec, rate, layout, target, expected):
    source, target = write_sound(tmp_path / source, codec, rate, layout), str(tmp_path / f"out{target}")
    result = translate_video(source, target, identity, batch_size=3)
    with av.open(target) as container:
        track = container.streams.audio[0].codec_context
        assert (track.name, track.sample_rate, track.layout.nb_channels) == expected
    if codec == expected[0]:
        assert result.notes == [] and b"".join(sound(target)[0]) == b"".join(sound(source)[0])
        return
    old = {"libopencore_amrnb": "amr_nb", "libmp3lame": "mp3", "libopus": "opus"}.get(codec, codec)
    new, extension = expected[0].removesuffix("float"), os.path.splitext(target)[1]
    assert result.notes == [f"sound was converted from {old} to {new}, as {extension} requires"]
    samples, rate, start = waveform(target)
    assert abs(samples.shape[1] / rate - 2) < 0.1 and abs(start) < 0.06
    for channel in samples[:3]:
        assert abs(pitch(channel[rate // 4 : -rate // 4], rate) - 440) < 2
    assert 0.2 < np.abs(samples[0]).max() < 1  # as loud as before, within what downmixing to stereo does


def test_a_gap_in_converted_sound_stays(tmp_path):
    source = write_sound(tmp_path / "clip.mkv", "libmp3lame", 48000, seconds=3, gap=(1, 2))
    translate_video(source, str(tmp_path / "out.webm"), identity)
    samples, rate, _ = waveform(tmp_path / "out.webm")
    assert abs(samples.shape[1] / rate - 3) < 0.1
    loud = [np.abs(samples[0, int(t * rate) : int((t + 0.3) * rate)]).max() > 0.1 for t in (0.3, 1.4, 2.4)]
    assert loud == [True, False, True]


def test_sound_that_cannot_be_decoded_is_left_out(tmp_path):
    source = write_sound(tmp_path / "clip.mkv", "ac3", 48000)
    with av.open(source) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = open(source, "rb").read()
    for packet in packets:
        data = data.replace(packet, b"\0" * len(packet))
    open(source, "wb").write(data)
    result = translate_video(source, str(tmp_path / "out.webm"), identity)
    assert result.frames == 20 and result.notes == ["left out sound (ac3)"]
    with av.open(str(tmp_path / "out.webm")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize("encoder", ["no_such_encoder", "libopencore_amrnb"])  # the latter takes 8000 Hz only
def test_an_encoder_that_does_not_work_costs_the_sound_only(tmp_path, monkeypatch, encoder):
    source = write_sound(tmp_path / "clip.mkv", "libopus", 48000, "stereo", seconds=1)
    monkeypatch.setitem(tracks.SOUND, ".avi", encoder)
    result = translate_video(source, str(tmp_path / "out.avi"), identity)
    assert result.frames == 10 and result.notes == ["left out sound (opus)"]
    with av.open(str(tmp_path / "out.avi")) as container:
        assert not container.streams.audio


def turn(path, matrix):
    """Writes the display matrix [[a, b], [c, d]] into the track header of an mp4 file."""
    data = bytearray(open(path, "rb").read())
    at = data.index(b"tkhd") + 4 + 40
    (a, b), (c, d) = matrix
    fixed = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = struct.pack(">9i", *fixed)
    open(path, "wb").write(data)


@pytest.mark.parametrize(
    "matrix, displayed",
    [
        ([[0, 1], [-1, 0]], lambda image: np.rot90(image, -1)),  # a phone held upright: turned clockwise by the player
        ([[0, -1], [1, 0]], lambda image: np.rot90(image, 1)),
        ([[-1, 0], [0, -1]], lambda image: np.rot90(image, 2)),
        ([[-1, 0], [0, 1]], np.fliplr),
        ([[0, 1], [1, 0]], lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_rotation_is_in_the_pixels(tmp_path, matrix, displayed):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 3, sample_aspect_ratio=Fraction(4, 3))
    turn(source, matrix)
    seen = []
    translate_video(source, str(tmp_path / "out.mp4"), lambda frames: seen.append(frames) or frames)
    truth = displayed(quarters())
    frame = read_clip(tmp_path / "out.mp4")[0]
    assert seen[0].shape == (3, *truth.shape)
    assert difference(seen[0][0], truth) < 2
    assert difference(frame.to_ndarray(format="rgb24"), truth) < 4
    assert frame.rotation == 0 and not frame.side_data.get("DISPLAYMATRIX")
    with av.open(str(tmp_path / "out.mp4")) as container:  # pixels that were wide are high once they are turned
        turned = truth.shape[0] > truth.shape[1]
        assert container.streams.video[0].sample_aspect_ratio == (Fraction(3, 4) if turned else Fraction(4, 3))


def test_rotation_agrees_with_pyav(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()])
    turn(source, [[0, 1], [-1, 0]])
    assert read_clip(source)[0].rotation == -90  # counterclockwise
    with VideoReader(source) as reader:
        assert (reader.look.width, reader.look.height) == (48, 64)


@pytest.mark.parametrize("extension, pix_fmt", [(".mp4", "yuv444p"), (".webm", "yuv420p")])
def test_odd_sizes(tmp_path, extension, pix_fmt):
    image = quarters(47, 63)
    source = write_clip(tmp_path / "clip.mp4", [image] * 3, pix_fmt="yuv444p")
    target = str(tmp_path / f"out{extension}")
    assert translate_video(source, target, identity).pix_fmt == pix_fmt
    frame = read_clip(target)[0].to_ndarray(format="rgb24")
    assert frame.shape == image.shape and difference(frame, image) < 6


def test_pixels_that_are_not_square(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 3, sample_aspect_ratio=Fraction(16, 11))
    for name in ("out.mkv", "out.mp4", "out.avi"):
        translate_video(source, str(tmp_path / name), identity)
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
    with pytest.raises(InputError, match=r"out.webm: .*16:11.*\.mkv"):
        translate_video(source, str(tmp_path / "out.webm"), identity)


@pytest.mark.parametrize(
    "tags, kr, kb",
    [
        ((1, 1), 0.2126, 0.0722),  # BT.709
        ((6, 1), 0.299, 0.114),  # BT.601
        ((5, 2), 0.299, 0.114),  # full range, as phones write it
        ((1, 2), 0.2126, 0.0722),
        ((9, 1), 0.2627, 0.0593),  # BT.2020
        ((2, 0), 0.299, 0.114),  # not told: small pictures are BT.601
    ],
)
@pytest.mark.parametrize("extension", [".mp4", ".webm"])
def test_colours(tmp_path, tags, kr, kb, extension):
    image, source, target = quarters(), str(tmp_path / "clip.mkv"), str(tmp_path / f"out{extension}")
    planes = to_yuv(image, kr, kb, full=tags[1] == 2)
    with av.open(source, "w") as container:
        stream = container.add_stream("libx264", rate=10, options=LOSSLESS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tags
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv444p", channel_last=False)))
        container.mux(stream.encode(None))
    seen = []
    translate_video(source, target, lambda frames: seen.append(frames) or frames)
    assert np.abs(seen[0][0].astype(int) - image).max() <= 3  # the network sees the true colours
    frame = read_clip(target)[0]
    y, (u, v) = frame.to_ndarray()[:48], frame.to_ndarray()[48:].reshape(2, 24, 32)
    for plane, original in zip((y, u, v), (planes[0], planes[1][::2, ::2], planes[2][::2, ::2])):
        error = np.abs(plane.astype(int) - original)
        h, w = error.shape[0] // 2, error.shape[1] // 2
        middles = [error[i * h + 4 : i * h + h - 4, j * w + 4 : j * w + w - 4] for i in (0, 1) for j in (0, 1)]
        assert np.max(middles) <= 3 and np.mean(middles) < 1.5
    # said as it was, in the names that the codec has: 5 and 6 are both BT.601
    assert {5: 6}.get(frame.colorspace, frame.colorspace) == {5: 6}.get(tags[0], tags[0])
    assert frame.color_range == tags[1] or tags[1] == 0 and frame.color_range == 1


def test_gif(tmp_path):
    images = [Image.fromarray(np.roll(quarters(), 8 * i, axis=1)) for i in range(4)]
    images[0].save(tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=[100, 300, 100, 200])
    assert translate_video(str(tmp_path / "clip.gif"), str(tmp_path / "out.mp4"), identity).broken == ""
    assert np.allclose(np.array(times(tmp_path / "out.mp4"), float), [0, 0.1, 0.4, 0.5])
    for frame, image in zip(read_clip(tmp_path / "out.mp4"), images):
        assert difference(frame.to_ndarray(format="rgb24"), np.asarray(image)) < 4


##############################
#         Containers
##############################

CONTAINERS = {
    ".flv": ("flv", "libx264"),
    ".m2ts": ("mpegts", "libx264"),
    ".ts": ("mpegts", "mpeg2video"),
    ".vob": ("vob", "mpeg2video"),
    ".mpg": ("mpeg", "mpeg1video"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".mxf": ("mxf", "mpeg2video"),
    ".asf": ("asf", "msmpeg4"),
    ".ogv": ("ogg", "libvpx"),
    ".3g2": ("3g2", "libx264"),
    ".divx": ("avi", "mpeg4"),
    ".mjpeg": ("mjpeg", "mjpeg"),
    ".h264": ("h264", "libx264"),
    ".nut": ("nut", "ffv1"),
    ".rm": ("rm", "rv10"),
}


def write_container(path, name, codec):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(str(path), "w", format=name) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, pix_fmt
        for i in range(12):
            image = np.full((144, 176, 3), 100 + 10 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("extension", CONTAINERS)
def test_containers_of_a_folder_and_files_without_a_known_extension(tmp_path, extension):
    os.mkdir(tmp_path / "in")
    source = tmp_path / "in" / f"clip{extension}"
    write_container(source, *CONTAINERS[extension])
    plan = plan_jobs([str(tmp_path / "in")], output=str(tmp_path / "out"))
    assert plan.jobs == [(str(source), str(tmp_path / "out" / "clip.mp4"))]
    assert translate_video(str(source), str(tmp_path / "out.mp4"), identity).frames == 12
    means = [frame.to_ndarray(format="rgb24").mean() for frame in read_clip(tmp_path / "out.mp4")]
    assert np.allclose(means, [100 + 10 * i for i in range(12)], atol=6)
    os.rename(source, tmp_path / "clip.dat")
    plan = plan_jobs([str(tmp_path / "clip.dat")])
    assert plan.jobs == [(str(tmp_path / "clip.dat"), str(tmp_path / "clip_translated.mp4"))]


@pytest.mark.parametrize("target", ["out.mp4", "out.webm"])
def test_joined_recordings_in_mpeg(tmp_path, target):
    """The second one's time starts over."""
    source = write_clip(tmp_path / "clip.ts", [quarters()] * 12, sound=["aac"])
    data = open(source, "rb").read()
    open(source, "wb").write(data * 2)
    assert translate_video(source, str(tmp_path / target), identity).frames == 24
    assert np.allclose(np.diff(np.array(times(tmp_path / target), float)), 0.1, atol=0.04)
    samples, rate, _ = waveform(tmp_path / target)
    assert abs(samples.shape[1] / rate - 2.4) < 0.15


def test_what_is_no_video_by_its_content(tmp_path):
    for name, text in (
        ("a.ts", "export const x = 1;\n" * 20),
        ("b.mts", "import x\n"),
        ("c.mod", "music"),
        ("d.txt", ""),
    ):
        (tmp_path / name).write_text(text)
    Image.fromarray(quarters()).save(tmp_path / "e.dat", format="PNG")
    Image.fromarray(quarters()).save(tmp_path / "f.mp4.png")
    assert not any(is_mpeg(str(tmp_path / name)) for name in ("a.ts", "b.mts", "c.mod"))
    assert [holds_video(str(tmp_path / name)) for name in ("d.txt", "e.dat", "f.mp4.png", "none")] == [False] * 4
    plan = plan_jobs([str(tmp_path)], output=str(tmp_path / "out"))
    assert [source for source, _ in plan.jobs] == [str(tmp_path / "f.mp4.png")]
    assert "skipped 5 files that are neither image nor video" in plan.notes[0]
    assert plan_jobs([str(tmp_path / "e.dat")]).jobs[0][1] == str(tmp_path / "e_translated.png")


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_playlists_do_not_open_other_files(tmp_path, text):
    write_container(tmp_path / "secret.ts", "mpegts", "libx264")
    (tmp_path / "clip.mp4").write_text(text.format("secret.ts"))
    with pytest.raises(InputError, match="clip.mp4: broken, or not a video"):
        translate_video(str(tmp_path / "clip.mp4"), str(tmp_path / "out.mp4"), identity)
    os.rename(tmp_path / "clip.mp4", tmp_path / "clip.dat")
    assert not holds_video(str(tmp_path / "clip.dat"))


def test_a_name_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", [quarters()] * 3)
    os.rename("clip.mp4", "concat:x.mp4")
    assert translate_video("concat:x.mp4", "a:b.mp4", identity).frames == 3
    assert sorted(os.listdir()) == ["a:b.mp4", "concat:x.mp4"]


##############################
#        What goes wrong
##############################


def test_files_that_are_no_video(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        track = container.add_stream("aac", rate=48000)
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 48000), np.float32), "fltp", "stereo")
        samples.sample_rate = 48000
        container.mux([*track.encode(samples), *track.encode(None)])
    reasons = {
        "empty.mp4": "broken, or not a video",
        "noise.mp4": "broken, or not a video",
        "sound.mp4": "holds no video",
    }
    for name, reason in {**reasons, "missing.mp4": "no such file"}.items():
        with pytest.raises(InputError, match=f"{name}: {reason}") as error:
            translate_video(str(tmp_path / name), str(tmp_path / "out.mp4"), identity)
        assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == sorted(reasons)


def test_a_first_frame_that_cannot_be_decoded(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 3)
    data = bytearray(open(source, "rb").read())
    at = data.index(b"mdat") + 4
    data[at:] = bytes(len(data) - at)
    open(source, "wb").write(data)
    with pytest.raises(InputError, match="clip.mp4: broken, no frame can be decoded"):
        translate_video(source, str(tmp_path / "out.mp4"), identity)


@pytest.mark.parametrize("kind", [".mp4", ".mkv", ".avi"])
def test_what_is_left_of_a_file_that_was_cut_off(tmp_path, kind):
    images = noise(30)
    source = write_clip(tmp_path / f"clip{kind}", images, options={**LOSSLESS, "bf": "0"})
    data = open(source, "rb").read()
    open(source, "wb").write(data[: len(data) // 2])
    result = translate_video(source, str(tmp_path / "out.mp4"), identity)
    assert 12 <= result.frames <= 17 and result.broken
    frames = read_clip(tmp_path / "out.mp4")
    assert len(frames) == result.frames
    assert difference(frames[5].to_ndarray(format="rgb24"), images[5]) < 8


def test_a_hole_in_the_middle(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", noise(30), options={**LOSSLESS, "g": "5"})
    data = bytearray(open(source, "rb").read())
    at = len(data) // 2
    data[at : at + 8000] = b"\xff" * 8000
    open(source, "wb").write(data)
    result = translate_video(source, str(tmp_path / "out.mp4"), identity)
    assert result.broken and 20 <= result.frames <= 30
    assert times(tmp_path / "out.mp4")[-1] == Fraction(29, 10)  # what comes after it is still at its time


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_or_ctrl_c_leaves_the_old_file(tmp_path, error):
    source, target = write_clip(tmp_path / "clip.mp4", [quarters()] * 12), tmp_path / "out.mp4"
    target.write_text("old")
    calls = []

    def translate(frames):
        calls.append(1)
        if len(calls) == 3:
            raise error("stop")
        return frames

    with pytest.raises(error):
        translate_video(source, str(target), translate, batch_size=2)
    assert target.read_text() == "old" and sorted(os.listdir(tmp_path)) == ["clip.mp4", "out.mp4"]


def test_targets_that_cannot_be_written(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", [quarters()] * 3)
    with pytest.raises(InputError, match=r"out.gif: .* \.mp4, \.mov, \.mkv, \.webm, \.avi"):
        translate_video(source, str(tmp_path / "out.gif"), identity)
    with pytest.raises(InputError, match="none/out.mp4: cannot be written"):
        translate_video(source, str(tmp_path / "none" / "out.mp4"), identity)
    before = open(source, "rb").read()
    with pytest.raises(InputError, match="would replace"):
        translate_video(source, str(tmp_path / "." / "clip.mp4"), identity)
    assert open(source, "rb").read() == before


def test_a_full_disk(tmp_path):
    resource = pytest.importorskip("resource")  # Windows has none
    source = write_clip(tmp_path / "clip.mp4", noise(60))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(InputError, match="out.mkv: cannot be written"):
            translate_video(source, str(tmp_path / "out.mkv"), identity)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("module, hint", [("av", "pip install av"), ("cv2", "pip install opencv-python-headless")])
def test_missing_packages(tmp_path, monkeypatch, module, hint):
    source = write_clip(tmp_path / "clip.mp4", [quarters()])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=hint):
        translate_video(source, str(tmp_path / "out.mp4"), identity, smooth=0.5)


def test_only_a_few_batches_are_alive():
    made, used = [], []

    def numbers():
        for i in range(20):
            made.append(i)
            yield i

    for i in ahead(numbers(), n=2):
        used.append(i)
        assert len(made) <= len(used) + 2
    assert used == list(range(20))


def test_an_error_of_the_thread_arrives():
    def broken():
        yield 1
        raise InputError("file.mp4: broken")

    batches = ahead(broken())
    assert next(batches) == 1
    with pytest.raises(InputError, match="file.mp4"):
        next(batches)


##############################
#          Flicker
##############################


def texture(height, width, seed=0):
    """A smooth random pattern, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(30, 226, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_flicker_of_alternating_brightness():
    smoother, still = Smoother(0.8), texture(48, 64)
    outs = [smoother.smooth(still, still // 2 + np.uint8(60 + d)) for d in [10, -10] * 6]
    flicker = smoother.flicker()
    assert flicker.input < 0.01
    assert abs(flicker.before - 20) < 0.01
    # out_t = 0.8 out_{t-1} + 0.2 x_t settles to +-10 * 0.2 / 1.8
    change = np.abs(outs[-1].astype(float) - outs[-2]).mean()
    assert abs(change - 2 * 10 * 0.2 / 1.8) < 0.5
    assert flicker.after < 4


def test_motion_is_no_flicker():
    wide = texture(64, 160)
    smoother, plain = Smoother(0.5), []
    frames = [np.ascontiguousarray(wide[:, 3 * i : 3 * i + 96]) for i in range(8)]
    for frame in frames:
        out = smoother.smooth(frame, 255 - frame)
        assert difference(out, 255 - frame) < 2  # and smoothing does not blur or drag what moves
    plain = np.mean([difference(a, b) for a, b in zip(frames, frames[1:])])
    flicker = smoother.flicker()
    assert plain > 12
    assert flicker.input < 1.5 and flicker.before < 1.5 and flicker.after < 1.5


def test_smoothing_follows_the_motion():
    wide, rng = texture(64, 160), np.random.default_rng(1)
    smoother, errors = Smoother(0.8), []
    for i in range(10):
        frame = np.ascontiguousarray(wide[:, 3 * i : 3 * i + 96])
        noisy = (255.0 - frame + rng.normal(0, 12, frame.shape)).clip(0, 255).astype(np.uint8)
        errors.append((difference(noisy, 255 - frame), difference(smoother.smooth(frame, noisy), 255 - frame)))
    assert errors[-1][1] < 0.5 * errors[-1][0]
    assert smoother.flicker().after < 0.5 * smoother.flicker().before


def test_a_scene_cut_leaves_no_ghost():
    first, second = texture(48, 64, seed=1), texture(48, 64, seed=2)
    smoother = Smoother(1.0)
    for frame in (first, first, second):
        out = smoother.smooth(frame, 255 - frame)
    assert np.abs(out.astype(int) - (255 - second)).max() <= 3


def test_strength_1_holds_a_still_picture_and_0_changes_nothing():
    still = texture(48, 64)
    for strength, expected in ((1.0, 100), (0.0, 140)):
        smoother = Smoother(strength)
        smoother.smooth(still, np.full_like(still, 100))
        assert np.abs(smoother.smooth(still, np.full_like(still, 140)).astype(int) - expected).max() <= 1


def test_a_smoothed_video(tmp_path):
    source, calls = write_clip(tmp_path / "clip.mp4", [texture(48, 64)] * 12), []

    def flickers(frames):
        calls.extend(range(len(frames)))
        first = len(calls) - len(frames)
        return np.stack([frame // 2 + np.uint8(50 + 20 * ((first + i) % 2)) for i, frame in enumerate(frames)])

    result = translate_video(source, str(tmp_path / "out.mp4"), flickers, batch_size=5, smooth=0.8)
    assert abs(result.flicker.before - 20) < 0.5
    assert result.flicker.input < 0.5 and result.flicker.after < 4.5
    means = [frame.to_ndarray(format="rgb24").mean() for frame in read_clip(tmp_path / "out.mp4")]
    assert abs(means[-1] - means[-2]) < 4
