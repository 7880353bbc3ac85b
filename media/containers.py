"""
Which files are videos, and how they are opened. FFmpeg reads and writes them, through PyAV (pip install av).
"""

import os
import re

from media.images import IMAGE_EXTENSIONS
from media.reading import check_regular
from utils import InputError

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


# FFmpeg's demuxers of single files that hold video. Many others read other files or the network (playlists: hls, dash,
# concat, sdp), or show any text as video (tty)
DEMUXERS = (  # the last ones are pictures
    "mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi flv kux live_flv mpeg mpegts mpegvideo asf asf_o wtv ogg rm nut nsv amv "
    "roq bink smk mxf gxf dv yuv4mpegpipe ivf obu ser mjpeg mpjpeg mjpeg_2000 h261 h263 h264 hevc vvc vc1 vc1test "
    "cavsvideo avs2 avs3 m4v dirac evc dhav swf gif apng webp avif flic ea film_cpk vmd nuv thp idcin iff r3d cine mtv "
    "png_pipe jpeg_pipe webp_pipe bmp_pipe tiff_pipe gif_pipe ppm_pipe pgm_pipe jpegxl_pipe j2k_pipe qoi_pipe tga_pipe"
).split()


def open_file(path, **options):
    """Opens a video file with PyAV -> av.container.InputContainer. It must be a regular file, and cannot make FFmpeg
    read other files or the network."""
    import av

    check_regular(path)
    allowed = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}
    return av.open(local_file(path, "rb"), options=allowed, metadata_errors="replace", **options)


def local_file(path, mode):
    """A file for av.open: its name, or the open file if PyAV cannot pass on the name, which is then not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return open(path, mode, buffering=0)
    return "file:" + path  # FFmpeg would take the name "a:b.mp4" for an address


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
    except (av.FFmpegError, OSError, InputError):
        return False


def is_moving(stream):
    """False for cover art."""
    import av

    return not stream.disposition & av.stream.Disposition.attached_pic
