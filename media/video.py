"""
Video files: decodes a video, translates it batch by batch, and encodes the result. Keeps size, timing, orientation,
colours and sound. Drops subtitles, data tracks, titles, interlacing, and all but 8 bits per colour.

A generator translates each frame on its own, so the result may flicker. Smoother measures and reduces this.

Requires PyAV (pip install av), which includes FFmpeg. Smoothing also requires OpenCV
(pip install opencv-python-headless).
"""

import contextlib
import dataclasses
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np

from utils import InputError, whole_file

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
SIGMA = 20  # gray levels; where the input changes by much more, nothing is smoothed


@dataclasses.dataclass
class Flicker:
    """Mean absolute change from one frame to the next at the same point of the scene, in gray levels (0 to 255). Motion
    is compensated; points that leave the frame do not count.

    input:  of the source, where noise and changing light count too
    before: of its translation
    after:  of its translation, smoothed
    """

    input: float
    before: float
    after: float


@dataclasses.dataclass
class VideoResult:
    """What translate_video wrote.

    frames:  number of frames
    broken:  what is wrong with the source, "" if nothing. All frames that could be decoded are in the target
    pix_fmt: "yuv420p", or "yuv444p" for H.264 of odd width or height, which some players cannot show
    flicker: with smoothing, a Flicker
    """

    frames: int
    broken: str
    pix_fmt: str
    flicker: Flicker | None = None

    def describe(self, target):
        """-> list of lines on what was written to `target`."""
        lines = [f"{target}: {self.frames} frames"]
        if self.pix_fmt == "yuv444p":
            lines.append(
                f"note: {target}: some players cannot show an odd width or height. --size WIDTHxHEIGHT makes it even"
            )
        if self.flicker:
            lines.append(
                "flicker, the mean change between two frames after motion compensation, in gray levels of 255: input "
                f"{self.flicker.input:.2f}, translated {self.flicker.before:.2f}, smoothed {self.flicker.after:.2f}"
            )
        return lines


def translate_video(source, target, translate, batch_size=8, smooth=0.0, progress=None, resize=None):
    """Translates the video `source` and writes it to `target` -> VideoResult. Holds only a few batches in memory.
    `target` is either written completely or not changed.

    translate: function from a uint8 array (N, H, W, 3), N <= batch_size, RGB and upright, to one of the same shape
    smooth:    strength of Smoother, 0 to 1; 0 is off
    progress:  called after each batch as progress(frames done, frames in all); the latter is None if not known
    resize:    function (width, height) -> (width, height), applied to the frames before translation
    Raises InputError, naming the file, if the source is not a video, the target cannot be written, or its format cannot
    hold the sound.
    """
    try:
        import av
    except ImportError:
        raise InputError(f"{source}: reading a video requires PyAV: pip install av")
    if os.path.splitext(target)[1].lower() not in FORMATS:
        raise InputError(f"{target}: not a video format that can be written. Use one of {', '.join(FORMATS)}")
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise InputError(f"{target}: would replace the video that is being read. Choose another name")
    smoother = Smoother(smooth) if smooth else None
    done = 0
    try:
        # this order closes the files last, after the decoding thread has ended
        with whole_file(target) as temporary, contextlib.ExitStack() as stack:
            reader = stack.enter_context(VideoReader(source, resize))
            writer = stack.enter_context(VideoWriter(temporary, target, reader))
            batches = stack.enter_context(contextlib.closing(ahead(reader.frame_batches(batch_size))))
            for frames, times, audio in batches:
                writer.copy(audio)
                if not times:  # the sound is longer than the video
                    continue
                translated = translate(frames)
                if smoother:
                    translated = map(smoother.smooth, frames, translated)
                for image, (start, length) in zip(translated, times):
                    writer.write(image, start, length)
                done += len(frames)
                if progress:
                    progress(done, reader.total)
    except av.FFmpegError as error:  # of the writer; the reader raises InputError
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
    return VideoResult(done, reader.broken, writer.pix_fmt, smoother.flicker() if smoother else None)


def ahead(iterator, n=1):
    """Yields the items of an iterator that runs in a thread, up to `n` items ahead. Closing it waits for the thread."""
    with ThreadPoolExecutor(1) as pool:
        futures = deque(pool.submit(next, iterator, None) for _ in range(n))
        while (item := futures.popleft().result()) is not None:
            futures.append(pool.submit(next, iterator, None))
            yield item


##############################
#     Reading, writing
##############################


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
            container = av.open(self.path, metadata_errors="replace")
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: broken, or not a video ({error.strerror})") from error
        for stream in container.streams.video:
            if not stream.disposition & av.stream.Disposition.attached_pic:  # cover art
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
        """Yields the decoded frames, and appends the audio packets in between to `audio`. Skips what cannot be decoded."""
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
        self.container = av.open(path, "w", format=name)
        self.video = self.container.add_stream(codec, reader.rate, options=options)
        video = self.video.codec_context
        video.width, video.height, video.pix_fmt = reader.width, reader.height, self.pix_fmt
        # AVI has a fixed frame rate; in other formats each frame keeps its time
        video.time_base = self.base = 1 / reader.rate if name == "avi" else reader.stream.time_base
        video.sample_aspect_ratio = reader.aspect or 0
        video.colorspace, video.color_range = reader.matrix_tag, reader.range_tag
        video.color_primaries, video.color_trc = reader.primaries, reader.transfer
        if (
            reader.aspect not in (None, 1) and codec == "libvpx-vp9"
        ):  # VP9 cannot store it, and PyAV does not set it in WebM
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


##############################
#         Flicker
##############################


class Smoother:
    """Blends each translated frame with the previous result, warped by the optical flow between the input frames:

        out_t = w * warp(out_{t-1}) + (1 - w) * translated_t
        w     = strength * exp(-(|input_t - warp(input_{t-1})| / SIGMA)^2)     per pixel, 0 outside of the frame

    After Bonneel et al., "Blind Video Temporal Consistency", 2015. The weight is from Lai et al., "Learning Blind Video
    Temporal Consistency", 2018, arXiv:1808.00449.

    strength: 0 (off) to 1 (where the input stands still, so does the output)
    """

    def __init__(self, strength):
        try:
            import cv2
        except ImportError:
            raise InputError("--smooth requires OpenCV: pip install opencv-python-headless")
        self.strength, self.gray, self.past = strength, None, None
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.changes, self.n = np.zeros(3), 0

    def smooth(self, frame, translated):
        """The next input frame and its translation, both uint8 (H, W, 3) -> the smoothed translation, the same."""
        import cv2

        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        frame, translated = frame.astype(np.float32), translated.astype(np.float32)
        out = translated
        if self.past is not None:
            height, width = gray.shape
            margins = [(0, max(0, 16 - side)) for side in gray.shape]  # OpenCV's DIS flow crashes below 16 pixels
            now, before = (np.pad(image, margins, "edge") for image in (gray, self.gray))
            flow = self.dis.calc(now, before, None)[:height, :width]  # (H, W, 2), from this frame to the previous one
            x, y = flow[..., 0] + np.arange(width, dtype=np.float32), flow[..., 1] + np.arange(height)[:, None]
            y = y.astype(np.float32)
            inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
            # cubic, because results are warped again and again, and bilinear interpolation would blur them
            past = [cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for image in self.past]

            difference = np.abs(frame - past[0]).mean(2)
            # average over neighbours and the frame, too: across a scene cut, single pixels match by chance
            local, whole = cv2.blur(difference, (5, 5)), difference.mean()
            weight = self.strength * np.exp(-(local**2 + whole**2) / SIGMA**2) * inside
            out = translated + weight[..., None] * (past[2] - translated)

            if inside.any():
                mask = inside.astype(np.uint8)
                changes = [cv2.absdiff(a, b) for a, b in zip(past, (frame, translated, out))]
                self.changes += [np.mean(cv2.mean(change, mask)[:3]) for change in changes]
                self.n += 1
        self.gray, self.past = gray, (frame, translated, out)
        return out.round().clip(0, 255).astype(np.uint8)

    def flicker(self):
        """-> Flicker of the frames so far."""
        return Flicker(*(self.changes / max(1, self.n)).tolist())
