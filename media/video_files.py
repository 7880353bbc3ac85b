"""
Decoding and encoding video files with PyAV (pip install av), which includes FFmpeg.
"""

import os
from fractions import Fraction

import numpy as np

from utils import InputError

X264 = {"crf": "18", "preset": "medium"}  # crf 18 is visually lossless
FORMATS = {  # extension of the target -> FFmpeg's names of the container and the encoder, and the encoder's options
    ".mp4": ("mp4", "libx264", X264),
    ".mov": ("mov", "libx264", X264),
    ".mkv": ("matroska", "libx264", X264),
    ".webm": ("webm", "libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "3"}),
    ".avi": ("avi", "libx264", X264 | {"bf": "0"}),  # AVI stores frames in display order, so B-frames are not possible
}
# FFmpeg's constants (AVCOL_*) for how a video encodes colours. The matrices are BT.709, FCC, BT.601 twice, SMPTE 240M
# and BT.2020
MATRICES, BT709, BT601, UNSPECIFIED = (1, 4, 5, 6, 7, 9), 1, 6, 2
LIMITED_RANGE, FULL_RANGE = 1, 2


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


class VideoReader:
    """A video file, open for reading in a `with` block. Times are in seconds (Fraction) from the start of the file.

    The first frame decides for the whole file: width and height in pixels as displayed, the aspect ratio of one pixel
    (width / height, or None), and colours.
    Raises InputError, naming the path.
    """

    def __init__(self, path, resize=None):
        self.path, self.broken, self.audio = path, "", {}
        self.start, self.end = Fraction(0), 0.0
        container, stream = self._open()
        with container:
            first = next(self._frames(container, stream, []), None)
            if first is None:
                raise InputError(f"{path}: broken, no frame can be decoded ({self.broken or 'it is empty'})")
        self.container, self.stream = self._open()  # again from the start, because some formats cannot seek
        # phones write extra sound tracks with codecs that FFmpeg does not know
        self.audio = {track.index: track for track in self.container.streams.audio if track.codec_context}
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.start = Fraction(self.container.start_time or 0, 1_000_000)
        self.duration, self.end = (self.container.duration or 0) / 1_000_000, 0.0  # by the header; decoded so far
        # a trimmed video may hold more frames than it shows
        self.total = min(filter(None, (self.stream.frames, round(self.duration * self.rate))), default=None)

        # A phone held upright stores frames lying on their side, and a matrix [[a, b], [c, d]] that rotates them:
        # displayed x = a x + c y, displayed y = b x + d y
        matrix = first.side_data.get("DISPLAYMATRIX")
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5] if matrix else (1, 0, 0, 0, 1)
        self.transpose = abs(int(b)) > abs(int(a))
        self.flips = [axis for axis, x in enumerate((b, c) if self.transpose else (d, a)) if x < 0]
        self.width, self.height = (first.height, first.width) if self.transpose else (first.width, first.height)
        guess = BT709 if max(self.width, self.height) >= 1280 else BT601
        if resize:
            self.width, self.height = resize(self.width, self.height)
        self.lying_size = (self.height, self.width) if self.transpose else (self.width, self.height)
        self.aspect = self.stream.sample_aspect_ratio or None
        if self.aspect and self.transpose:
            self.aspect = 1 / self.aspect

        # an untagged video stays untagged, so that a player treats the translation like the original
        self.matrix = first.colorspace if first.colorspace in MATRICES else guess
        untagged = first.colorspace == UNSPECIFIED and not first.format.is_rgb
        self.matrix_tag = UNSPECIFIED if untagged else self.matrix
        self.range_tag = LIMITED_RANGE if first.format.is_rgb else first.color_range
        self.range = FULL_RANGE if self.range_tag == FULL_RANGE else LIMITED_RANGE
        self.primaries, self.transfer = first.color_primaries, first.color_trc

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def _open(self):
        """-> (container, its video stream)"""
        import av

        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise InputError(f"{self.path}: not a regular file")  # opening a pipe would block
        try:
            container = open_file(self.path)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: broken, or not a video ({error.strerror})") from error
        for stream in container.streams.video:
            if is_moving(stream):
                stream.thread_type = "AUTO"
                return container, stream
        container.close()
        raise InputError(f"{self.path}: holds no video")

    def _packets(self, container):
        """Yields all packets of the file, then None."""
        import av

        try:
            yield from container.demux()
        except av.FFmpegError as error:
            self.broken = self.broken or error.strerror
        yield None

    def _frames(self, container, stream, audio):
        """Yields the decoded frames and appends the audio packets in between to `audio`. Skips what cannot be
        decoded."""
        import av

        for packet in self._packets(container):
            if packet is not None:
                if packet.dts is not None:
                    end = (packet.dts + (packet.duration or 0)) * packet.time_base - self.start
                    self.end = max(self.end, float(end))
                    if packet.stream_index in self.audio:
                        audio.append(packet)
                if packet.stream_index != stream.index or packet.size == 0:
                    continue  # an empty packet would end decoding
                if packet.is_corrupt:
                    self.broken = self.broken or "a part is missing"
            try:
                yield from stream.decode(packet)  # None flushes the decoder
            except av.FFmpegError as error:
                self.broken = self.broken or error.strerror

    def frame_batches(self, size):
        """Yields (frames, times, audio).

        frames: uint8 array (N, H, W, 3), RGB, with N = size. In the last batch N may be smaller, even 0
        times:  N pairs (time, duration)
        audio:  list of the audio packets between these frames
        """
        frames, times, audio = [], [], []
        base, step = self.stream.time_base, 1 / self.rate
        time = -step
        for frame in self._frames(self.container, self.stream, audio):
            pts = frame.dts if frame.pts is None else frame.pts
            time = time + step if pts is None else pts * base - self.start
            times.append((time, frame.duration * base))
            frames.append(self._pixels(frame))
            if len(frames) == size:
                yield np.stack(frames), times, self._shift(audio)
                frames, times = [], []
                audio.clear()
        if self.end < self.duration - max(0.5, 2 / self.rate):  # a truncated file may not raise an error
            self.broken = self.broken or f"it ends after {self.end:.1f} of {self.duration:.1f} seconds"
        yield np.array(frames), times, self._shift(audio)

    def _pixels(self, frame):
        """A decoded frame -> uint8 (height, width, 3), RGB, upright."""
        frame.colorspace, frame.color_range = self.matrix, self.range
        frame.color_primaries = frame.color_trc = UNSPECIFIED  # convert YUV to RGB, but not gamut or gamma
        image = frame.reformat(*self.lying_size, "rgb24").to_ndarray()
        return np.flip(image.transpose(1, 0, 2) if self.transpose else image, self.flips)

    def _shift(self, packets):
        """Shifts the times of packets so that they count from the start of the file -> list of packets."""
        for packet in packets:
            start = round(self.start / packet.time_base)
            packet.dts -= start
            packet.pts = packet.dts if packet.pts is None else packet.pts - start
        return list(packets)


class VideoWriter:
    """Encodes frames in a `with` block, and copies the sound of a VideoReader without re-encoding it.

    path:   file to write. It is complete if the block ends without an error
    target: name whose extension decides the format, see FORMATS
    """

    def __init__(self, path, target, reader):
        import av

        extension = os.path.splitext(target)[1].lower()
        name, codec, options = FORMATS[extension]
        odd = reader.width % 2 or reader.height % 2
        self.reader, self.last = reader, None
        self.pix_fmt = "yuv444p" if odd and codec == "libx264" else "yuv420p"  # 4:2:0 needs even sides
        self.container = av.open("file:" + path, "w", format=name)
        self.video = self.container.add_stream(codec, reader.rate, options=options)
        video = self.video.codec_context
        video.width, video.height, video.pix_fmt = reader.width, reader.height, self.pix_fmt
        # AVI has a fixed frame rate; in other formats each frame keeps its time
        video.time_base = self.base = 1 / reader.rate if name == "avi" else reader.stream.time_base
        video.sample_aspect_ratio = reader.aspect or 0
        video.colorspace, video.color_range = reader.matrix_tag, reader.range_tag
        video.color_primaries, video.color_trc = reader.primaries, reader.transfer
        # VP9 cannot store the aspect ratio, and PyAV does not set it in WebM
        if reader.aspect not in (None, 1) and codec == "libvpx-vp9":
            shape = f"{reader.aspect.numerator}:{reader.aspect.denominator}"
            raise InputError(
                f"{target}: a {extension} file cannot hold pixels of aspect ratio {shape}. Use .mkv instead"
            )
        self.tracks = {}
        try:
            for index, track in reader.audio.items():
                self.tracks[index] = self.container.add_stream_from_template(track)
                self.tracks[index].metadata.update(track.metadata)  # its language
            self.container.start_encoding()
        except ValueError as error:
            # do not re-encode the sound, which costs quality; .mkv can hold any codec
            sound = ", ".join(track.name or "unknown" for track in reader.audio.values())
            raise InputError(
                f"{target}: a {extension} file cannot hold the sound of {reader.path} ({sound}). Use .mkv instead"
                if sound
                else f"{target}: cannot be written ({error})"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self.container:
            if kind is None:
                self.container.mux(self.video.encode(None))

    def write(self, image, time, length):
        """Encodes one frame, uint8 (H, W, 3), RGB, shown at `time` for `length` seconds (0: until the next frame)."""
        import av

        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.colorspace, frame.color_range = self.reader.matrix, self.reader.range
        frame = frame.reformat(format=self.pix_fmt)
        pts = round(time / self.base)
        self.last = pts if self.last is None else max(pts, self.last + 1)  # two frames cannot have the same time
        frame.pts, frame.duration, frame.time_base = self.last, round(length / self.base), self.base
        self.container.mux(self.video.encode(frame))

    def copy(self, packets):
        """Writes audio packets of the reader. The container interleaves them with the frames."""
        for packet in packets:
            packet.stream = self.tracks[packet.stream_index]
            self.container.mux(packet)
