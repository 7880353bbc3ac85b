"""What a video holds beside pictures and sound: transparency, subtitles, chapters, metadata."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from media.video import translate_video
from media.video_files import over_white
from media.video_metadata import general_metadata
from media.video_writer import without_white

pytestmark = pytest.mark.slow

SUBTITLES = """1
00:00:00,200 --> 00:00:00,700
First <i>line</i>

2
00:00:01,000 --> 00:00:01,900
Second, line

"""
METADATA = {
    "title": "My holiday",
    "artist": "me",
    "creation_time": "2020-05-06T07:08:09.000000Z",
    "location": "+48.8577+002.2950/",
    "comment": "sunny",
}
CHAPTERS = [
    {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
    {"id": 2, "start": 1000, "end": 2000, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
]


def identity(frames):
    return frames


def add_pictures(container, codec="libx264", n=20, stream=None):
    stream = stream or container.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"

    def write():
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 100, np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    return write


def write_with_subtitles(path, folder):
    (folder / "text.srt").write_text(SUBTITLES)
    with av.open(str(folder / "text.srt")) as text, av.open(str(path), "w") as container:
        write = add_pictures(container)
        track = container.add_stream_from_template(text.streams.subtitles[0])
        track.metadata["language"] = "fra"
        track.disposition = av.stream.Disposition.forced
        for packet in text.demux():
            if packet.size:
                packet.stream = track
                container.mux(packet)
        write()
    return str(path)


def read_subtitles(path):
    """-> codec, language, and (from, to, text) of each subtitle"""
    with av.open(str(path)) as container:
        track = container.streams.subtitles[0]
        found = []
        for packet in container.demux(track):
            for text in track.codec_context.decode(packet) if packet.size else []:
                if text.dialogue:
                    time = float(packet.pts * packet.time_base)
                    found.append((time, time + float(packet.duration * packet.time_base), text.dialogue.decode()))
        is_forced = bool(track.disposition & av.stream.Disposition.forced)
        assert is_forced or str(path).endswith(".mov")
        return track.codec_context.name, track.language, found


@pytest.mark.parametrize(
    "extension, codec", [(".mkv", "srt"), (".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt")]
)
def test_subtitles(tmp_path, extension, codec):
    source, target = write_with_subtitles(tmp_path / "clip.mkv", tmp_path), tmp_path / f"out{extension}"
    result = translate_video(source, str(target), identity, batch_size=4)
    name, language, found = read_subtitles(target)
    assert (name.replace("subrip", "srt"), language) == (codec, "fra")
    assert [(start, end) for start, end, _ in found] == [(0.2, 0.7), (1.0, 1.9)]
    assert [text.replace("{\\i1}", "").replace("{\\i0}", "") for _, _, text in found] == ["First line", "Second, line"]
    notes = [] if codec == "srt" else [f"subtitles were converted from subrip to {codec}, as {extension} requires"]
    assert result.notes == notes
    # and from there to another format
    translate_video(str(target), str(tmp_path / "again.mov"), identity)
    assert [(start, end) for start, end, _ in read_subtitles(tmp_path / "again.mov")[2]] == [(0.2, 0.7), (1.0, 1.9)]


def test_subtitles_that_do_not_fit(tmp_path):
    source = write_with_subtitles(tmp_path / "clip.mkv", tmp_path)
    result = translate_video(source, str(tmp_path / "out.avi"), identity)
    assert result.frames == 20
    assert result.notes == ["left out subtitles (subrip)"]


def test_fonts_are_kept_in_matroska_only(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        write = add_pictures(container)
        container.add_attachment("font.ttf", "application/x-truetype-font", b"a font")
        write()
    assert translate_video(str(tmp_path / "clip.mkv"), str(tmp_path / "out.mkv"), identity).notes == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        (attachment,) = container.streams.attachments
        assert attachment.data == b"a font" and attachment.metadata["filename"] == "font.ttf"
    notes = translate_video(str(tmp_path / "clip.mkv"), str(tmp_path / "out.mp4"), identity).notes
    assert len(notes) == 1 and notes[0].startswith("left out an attachment")


def write_with_metadata(path, metadata, chapters=(), options=None):
    with av.open(str(path), "w", container_options=options) as container:
        write = add_pictures(container, "libvpx-vp9" if str(path).endswith(".webm") else "libx264")
        container.metadata.update(metadata)
        container.set_chapters(list(chapters))
        write()
    return str(path)


def read_metadata(path):
    with av.open(str(path)) as container:
        chapters = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]), c["metadata"]["title"])
            for c in container.chapters()
        ]
        return {key.lower(): value for key, value in container.metadata.items()}, chapters


@pytest.mark.parametrize("source", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv", ".webm"])
def test_metadata_and_chapters(tmp_path, source, target):
    path = write_with_metadata(tmp_path / f"clip{source}", METADATA, CHAPTERS)
    result = translate_video(path, str(tmp_path / f"out{target}"), identity)
    metadata, chapters = read_metadata(tmp_path / f"out{target}")
    assert {key: metadata.get(key) for key in METADATA} == METADATA
    assert chapters == [(0, 1, "One"), (1, 2, "Two")]
    assert result.notes == []
    assert ("major_brand" in metadata) == (target in (".mp4", ".mov"))  # of the new container, not of the old one


def test_what_avi_cannot_hold_is_told(tmp_path):
    path = write_with_metadata(tmp_path / "clip.mp4", METADATA, CHAPTERS)
    result = translate_video(path, str(tmp_path / "out.avi"), identity)
    assert read_metadata(tmp_path / "out.avi")[0]["title"] == "My holiday"
    assert result.notes == ["left out 2 chapters; metadata: creation_time, location"]


def test_metadata_of_phones(tmp_path):
    phone = {"com.apple.quicktime.model": "iPhone 12", "com.apple.quicktime.location.ISO6709": "+48.8577+002.2950+035/"}
    options = {"movflags": "use_metadata_tags"}
    path = write_with_metadata(tmp_path / "clip.mov", phone, options=options)
    for target in (".mov", ".mp4", ".mkv"):
        result = translate_video(path, str(tmp_path / f"out{target}"), identity)
        metadata = read_metadata(tmp_path / f"out{target}")[0]
        assert result.notes == []
        assert {key.lower(): value for key, value in phone.items()}.items() <= metadata.items()
        assert metadata["location"].startswith("+48.8577+002.2950+")


def test_names_of_metadata():
    source = {"major_brand": "qt", "com.apple.quicktime.creationdate": "2020", "Title": "x", "encoder": "y"}
    source["com.apple.quicktime.title"] = "z"
    assert general_metadata(source) == {
        "com.apple.quicktime.creationdate": "2020",
        "com.apple.quicktime.title": "z",
        "date": "2020",
        "Title": "x",
    }


##############################
#        Transparency
##############################


def shape_with_holes():
    """Red, opaque on the left, half transparent in the middle, transparent on the right: uint8 (48, 96, 4)."""
    image = np.zeros((48, 96, 4), np.uint8)
    image[...] = (200, 40, 40, 255)
    image[:, 32:64, 3] = 128
    image[:, 64:] = 0
    return image


def write_alpha(path, codec, pix_fmt, image, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = pix_fmt
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(image, "rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def read_alpha(path):
    """-> the second frame, uint8 (H, W, 4), and its codec"""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        if decoder.name == "vp9":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [
            frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)
        ]
        return frames[1].reformat(format="rgba").to_ndarray(), stream.codec_context.name


SOURCES = {
    "clip.webm": ("libvpx-vp9", "yuva420p", {"auto-alt-ref": "0"}),
    "old.webm": ("libvpx", "yuva420p", {"auto-alt-ref": "0"}),
    "clip.mov": ("prores_ks", "yuva444p10le", {"profile": "4444"}),
    "animation.mov": ("qtrle", "argb", {}),
    "png.mov": ("png", "rgba", {}),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("target, codec", [(".webm", "vp9"), (".mov", "prores"), (".mkv", "vp9"), (".mp4", "h264")])
def test_transparency(tmp_path, name, target, codec):
    kind, pix_fmt, options = SOURCES[name]
    source, target = (
        write_alpha(tmp_path / name, kind, pix_fmt, shape_with_holes(), **options),
        tmp_path / f"out{target}",
    )
    seen = []

    def swapped(frames):  # blue instead of red; white stays white
        seen.append(frames)
        return frames[..., ::-1]

    result = translate_video(source, str(target), swapped)
    # the network sees the frames on white
    middles = seen[0][1, 24, [16, 48, 80]].astype(int)
    assert np.abs(middles - [(200, 40, 40), (227, 147, 147), (255, 255, 255)]).max() <= 8
    image, name = read_alpha(target)
    assert name == codec
    middles = image[24, [16, 48, 80]].astype(int)
    if codec == "h264":
        assert np.abs(middles[:, :3] - [(40, 40, 200), (147, 147, 227), (255, 255, 255)]).max() <= 10
        assert result.notes == ["left out transparency (use .webm or .mov to keep it)"]
    else:
        assert np.abs(middles[:, 3] - [255, 128, 0]).max() <= 3
        assert np.abs(middles[:2, :3] - (40, 40, 200)).max() <= 14
        assert result.notes == []


def test_opaque_files_with_an_alpha_channel(tmp_path):
    image = shape_with_holes()
    image[..., 3] = 255
    source = write_alpha(tmp_path / "clip.mov", "qtrle", "argb", image)
    assert translate_video(source, str(tmp_path / "out.mov"), identity).notes == []
    assert read_alpha(tmp_path / "out.mov")[1] == "h264"


def test_transparency_that_begins_later(tmp_path):
    opaque = shape_with_holes()
    opaque[..., 3] = 255
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "argb"
        for i, image in enumerate((opaque, shape_with_holes())):
            frame = av.VideoFrame.from_ndarray(image, "rgba").reformat(format="argb")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = translate_video(str(tmp_path / "clip.mov"), str(tmp_path / "out.mov"), identity)
    assert result.notes == ["left out transparency, which its first frame does not have"]
    assert np.abs(read_alpha(tmp_path / "out.mov")[0][24, 80].astype(int) - 255).max() <= 4  # over white


def test_further_tracks_are_told(tmp_path):
    """A second video track, and a cover picture, which would show the input."""
    cover = av.CodecContext.create("mjpeg", "w")
    cover.width, cover.height, cover.pix_fmt, cover.time_base = 64, 48, "yuvj420p", Fraction(1, 25)
    image = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 100, np.uint8), "rgb24").reformat(format="yuvj420p")
    image.pts, image.time_base = 0, Fraction(1, 25)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        picture = container.add_stream("mjpeg", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        writers = [add_pictures(container, stream=stream) for stream in streams]
        for write in writers:
            write()
        container.mux(picture.encode(image))
        container.mux(picture.encode(None))
    result = translate_video(str(tmp_path / "clip.mp4"), str(tmp_path / "out.mp4"), identity)
    assert result.frames == 20 and result.notes == ["left out 1 more video track; the cover picture"]


def test_white_is_added_and_removed():
    rng = np.random.default_rng(0)
    pixels, alpha = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8), rng.integers(0, 256, (16, 16), dtype=np.uint8)
    seen = over_white(pixels[0], alpha[..., None])
    exact = pixels[0] * (alpha[..., None] / 255) + 255 - alpha[..., None].astype(float)
    assert np.abs(seen - exact).max() <= 0.51
    again = over_white(without_white(seen, alpha), alpha[..., None])
    assert np.abs(again.astype(int) - seen).max() <= 1
    opaque = np.full_like(alpha, 255)
    assert np.array_equal(without_white(pixels[1], opaque), pixels[1])
    assert np.array_equal(over_white(pixels[1], opaque[..., None]), pixels[1])


def test_nothing_is_left_over(tmp_path):
    source = write_with_metadata(tmp_path / "clip.mkv", METADATA, CHAPTERS)
    translate_video(source, str(tmp_path / "out.mkv"), identity)
    assert sorted(os.listdir(tmp_path)) == ["clip.mkv", "out.mkv"]
