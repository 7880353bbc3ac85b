"""
Encoding video files with PyAV (pip install av), which includes FFmpeg.
"""

import os

import numpy as np

from media.containers import local_file
from media.tracks import Tracks
from media.video_metadata import muxer_options
from utils import InputError

X264 = {"crf": "18", "preset": "medium"}  # crf 18 is visually lossless
VP9 = {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "3"}
FORMATS = {  # extension of the target -> FFmpeg's names of the container and the encoder, and the encoder's options
    ".mp4": ("mp4", "libx264", X264),
    ".mov": ("mov", "libx264", X264),
    ".mkv": ("matroska", "libx264", X264),
    ".webm": ("webm", "libvpx-vp9", VP9),
    ".avi": ("avi", "libx264", X264 | {"bf": "0"}),  # AVI stores frames in display order, so B-frames are not possible
}
WITH_ALPHA = {  # the same for transparent videos, and the pixel format. Alternate reference frames exclude alpha
    ".mov": ("mov", "prores_ks", {"profile": "4444"}, "yuva444p10le"),
    ".mkv": ("matroska", "libvpx-vp9", VP9 | {"auto-alt-ref": "0"}, "yuva420p"),
    ".webm": ("webm", "libvpx-vp9", VP9 | {"auto-alt-ref": "0"}, "yuva420p"),
}


class VideoWriter:
    """Encodes frames in a `with` block. Copies everything else that a VideoReader's file holds, see tracks.py.

    path:   file to write. It is complete if the block ends without an error
    target: name whose extension decides the format, see FORMATS
    look:   Look of the frames
    reader: VideoReader, or None if there are only frames
    live:   True to encode as fast as a camera needs, into larger files
    """

    def __init__(self, path, target, look, reader=None, live=False):
        import av

        extension = os.path.splitext(target)[1].lower()
        is_square = look.aspect in (None, 1)
        self.keeps_alpha = look.has_alpha and extension in WITH_ALPHA and (is_square or extension == ".mov")
        name, codec, options, *pix_fmt = (WITH_ALPHA if self.keeps_alpha else FORMATS)[extension]
        if live:
            options = options | {"libx264": {"preset": "veryfast"}, "libvpx-vp9": {"deadline": "realtime"}}[codec]
        odd = look.width % 2 or look.height % 2
        self.look, self.last = look, None
        # 4:2:0 needs even sides
        self.pix_fmt = pix_fmt[0] if pix_fmt else "yuv444p" if odd and codec == "libx264" else "yuv420p"
        muxer = muxer_options(reader.metadata, extension) if reader else {}
        self.container = av.open(local_file(path, "w+b"), "w", format=name, container_options=muxer)
        self.video = self.container.add_stream(codec, look.rate, options=options)
        video = self.video.codec_context
        video.width, video.height, video.pix_fmt = look.width, look.height, self.pix_fmt
        # AVI has a fixed frame rate; in other formats each frame keeps its time
        video.time_base = self.base = 1 / look.rate if name == "avi" else look.time_base
        video.sample_aspect_ratio = look.aspect or 0
        video.colorspace, video.color_range = look.matrix_tag, look.range_tag
        video.color_primaries, video.color_trc = look.primaries, look.transfer
        # VP9 cannot store the aspect ratio, and PyAV does not set it in WebM
        if not is_square and codec == "libvpx-vp9":
            shape = f"{look.aspect.numerator}:{look.aspect.denominator}"
            raise InputError(
                f"{target}: a {extension} file cannot hold pixels of aspect ratio {shape}. Use .mkv instead"
            )
        self.tracks = Tracks(self.container, reader, name, extension) if reader else None
        try:
            self.container.start_encoding()
        except ValueError as error:
            raise InputError(f"{target}: cannot be written ({error})") from error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self.container:
            if kind is None:
                self.container.mux(self.video.encode(None))
                if self.tracks:
                    self.tracks.finish()

    def write(self, image, time, length, alpha=None):
        """Encodes one frame, uint8 (H, W, 3), RGB, shown at `time` for `length` seconds (0: until the next frame). With
        `alpha`, uint8 (H, W), the image is what is seen on a white page."""
        import av

        name = "rgb24"
        if self.keeps_alpha:
            alpha = np.full(image.shape[:2], 255, np.uint8) if alpha is None else alpha
            image, name = np.dstack((without_white(image, alpha), alpha)), "rgba"
        frame = av.VideoFrame.from_ndarray(image, name)
        frame.colorspace, frame.color_range = self.look.matrix, self.look.range
        frame = frame.reformat(format=self.pix_fmt)
        pts = round(time / self.base)
        self.last = pts if self.last is None else max(pts, self.last + 1)  # two frames cannot have the same time
        frame.pts, frame.duration, frame.time_base = self.last, round(length / self.base), self.base
        self.container.mux(self.video.encode(frame))


def without_white(seen, alpha):
    """The inverse of over_white, as far as there is one; white where alpha is 0."""
    share = np.maximum(alpha, 1)[..., None].astype(np.float32) / 255
    return (255 - (255 - seen.astype(np.float32)) / share).round().clip(0, 255).astype(np.uint8)
