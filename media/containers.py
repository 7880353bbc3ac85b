"""
Which files are videos, and how they are opened. FFmpeg reads and writes them, through PyAV (pip install av).
"""

import os
import re

from media.images import IMAGE_EXTENSIONS

WRITABLE = (".mp4", ".mov", ".mkv", ".webm", ".avi")
# FFmpeg knows about 300 extensions, most of them of sound, subtitles and old games, so this is a list by hand
VIDEO_EXTENSIONS = (
    *WRITABLE,
    *".m4v .qt .mk3d .divx .f4v .flv .3gp .3gpp .3g2 .3gp2 .mj2 .insv .lrv .dav".split(),
    *".mpg .mpeg .mpe .m1v .m2v .m2p .mpv .vob .vro .evo .mod .tod .ts .m2ts .m2t .mts .tp .trp".split(),
    *".wmv .asf .wtv .dvr-ms .ogv .ogm .rm .rmvb .nut .nsv .amv .roq .bik .smk".split(),
    *".mxf .gxf .dv .dif .y4m .ivf .obu .ser".split(),
    *".mjpeg .mjpg .h263 .h264 .264 .avc .h265 .265 .hevc .h266 .vc1 .cavs".split(),
)
AMBIGUOUS = (".ts", ".mts", ".mod", ".tod")  # .ts and .mts are also TypeScript, .mod is also music


def is_video(path):
    return path.lower().endswith(VIDEO_EXTENSIONS)


def is_camera(path):
    """True for "webcam", "webcam:0", "webcam:1", ... unless it is a file."""
    return bool(re.fullmatch(r"webcam(:\d+)?", path)) and not os.path.lexists(path)


def holds_video(path):
    """True if an input is to be read as a video: a camera, or a file by its extension, or by its content if the
    extension is unknown."""
    if is_camera(path):
        return True
    if is_video(path) or path.lower().endswith(IMAGE_EXTENSIONS):
        return is_video(path)
    return os.path.isfile(path) and is_video_content(path)


def is_mpeg(path):
    """True if a file begins like an MPEG transport or program stream, the videos that have AMBIGUOUS extensions."""
    try:
        with open(path, "rb") as file:
            head = file.read(4 + 192 + 1)
    except OSError:
        return True  # reported when it is opened
    # a packet has 188 bytes and begins with 0x47; in .m2ts and .mts files, 4 bytes come before each packet
    is_transport = any(head[i : i + 1] == head[i + step : i + step + 1] == b"G" for i, step in ((0, 188), (4, 192)))
    return is_transport or head.startswith((b"\0\0\1\xba", b"\0\0\1\xb3"))


# Demuxers that read other files or the network, or show text as video. A file that looks like these is not opened
NOT_OPENED = {"hls", "dash", "concat", "imf", "image2", "mlv", "vobsub", "webm_dash_manifest", "lavfi", "tty",
              "sdp", "rtp", "rtsp", "sap", "smoothstreaming", "msnwctcp"}  # fmt: skip


def open_file(path, **options):
    """Opens a video file with PyAV -> av.container.InputContainer. The file cannot make FFmpeg read other files or
    the network."""
    import av

    allowed = {"format_whitelist": ",".join(av.formats_available - NOT_OPENED), "protocol_whitelist": "file"}
    # "file:", because FFmpeg would take the name "a:b.mp4" for an address
    return av.open("file:" + path, options=allowed, metadata_errors="replace", **options)


def is_video_content(path):
    """True if FFmpeg finds a video, not a picture, in a file. False without PyAV."""
    try:
        import av
    except ImportError:
        return False
    try:
        with open_file(path) as container:
            is_picture = container.format.name.endswith(("_pipe", "gif", "apng", "ico", "fits"))
            is_picture |= container.metadata.get("major_brand") in ("heic", "heix", "mif1", "avif")
            return not is_picture and any(map(is_moving, container.streams.video))
    except (av.FFmpegError, OSError):
        return False


def is_moving(stream):
    """False for cover art."""
    import av

    return not stream.disposition & av.stream.Disposition.attached_pic
