"""
Video files: decoded, translated a batch at a time, and encoded again. Size, timing, orientation, colours and sound stay
what they were. Not kept: subtitles and data tracks, more than 8 bits a colour, interlacing, titles.

A translation that knows single pictures only may flicker from frame to frame: Smoother measures that, and reduces it.

Needs PyAV (pip install av), which brings FFmpeg along; smoothing needs OpenCV (pip install opencv-python-headless).
"""

import contextlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np

from utils import InputError, whole_file

X264 = {"crf": "18", "preset": "medium"}  # crf 18: hardly to be told from the original
FORMATS = {  # by the target's extension: FFmpeg's names of the container and the encoder, and the encoder's options
    ".mp4": ("mp4", "libx264", X264),
    ".mov": ("mov", "libx264", X264),
    ".mkv": ("matroska", "libx264", X264),
    ".webm": ("webm", "libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "3"}),
    ".avi": ("avi", "libx264", X264 | {"bf": "0"}),  # knows no order but that of display: no frames from the future
}
# FFmpeg's numbers (AVCOL_*) where a video says how its colours are to be read; those of the matrices are BT.709, FCC,
# BT.601 twice, SMPTE 240M, BT.2020
MATRICES, BT709, BT601, UNSPECIFIED = (1, 4, 5, 6, 7, 9), 1, 6, 2
LIMITED_RANGE, FULL_RANGE = 1, 2
SIGMA = 20  # gray levels: where the input changes by more than that, smoothing is all but off


def translate_video(source, target, translate, batch_size=8, smooth=0.0, progress=None, resize=None):
    """Writes `target`, the video `source` with its frames translated. Of a video only a few batches are in memory at a
    time. Whatever happens, `target` is the old file or the whole new one.

    translate: uint8 array (N, H, W, 3), N <= batch_size, RGB and upright -> one of the same shape and type
    smooth:    strength of Smoother, 0 to 1; 0 leaves the translations as they are
    progress:  called as progress(frames done, frames in all or None if the file does not tell) after each batch
    resize:    function (width, height) -> (width, height), what the frames are resized to before

    -> dict: frames   the number written
             broken   what is wrong with the source, "" if nothing: all that could be decoded is in `target`
             pix_fmt  "yuv420p", or "yuv444p" for H.264 of odd width or height, which some players do not show
             and with smoothing flicker_input, flicker_before, flicker_after, see Smoother
    Raises InputError, naming the file: no video, a target that cannot be written, or whose kind cannot hold the sound.
    """
    try:
        import av
    except ImportError:
        raise InputError(f"{source}: reading video needs PyAV: pip install av")
    if os.path.splitext(target)[1].lower() not in FORMATS:
        raise InputError(f"{target}: not a known kind of video. Name it {', '.join(FORMATS)}")
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(source, target):
        raise InputError(f"{target}: would replace the video that is read. Choose another name")
    smoother = Smoother(smooth) if smooth else None
    done = 0
    try:
        # the order matters: decoding has ended, in its thread, before the files are closed
        with whole_file(target) as temporary, contextlib.ExitStack() as stack:
            reader = stack.enter_context(VideoReader(source, resize))
            writer = stack.enter_context(VideoWriter(temporary, target, reader))
            batches = stack.enter_context(contextlib.closing(ahead(reader.batches(batch_size))))
            for frames, times, audio in batches:
                writer.copy(audio)
                if not times:  # sound that is longer than the pictures
                    continue
                translated = translate(frames)
                if smoother:
                    translated = map(smoother.smooth, frames, translated)
                for image, (start, length) in zip(translated, times):
                    writer.write(image, start, length)
                done += len(frames)
                if progress:
                    progress(done, reader.total)
    except av.FFmpegError as error:  # not the reader's: it words its own
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
    return {
        "frames": done,
        "broken": reader.broken,
        "pix_fmt": writer.pix_fmt,
        **(smoother.flicker() if smoother else {}),
    }


def ahead(iterator, n=1):
    """The items of an iterator, which runs in a thread up to `n` items ahead. Closing this waits for the thread."""
    with ThreadPoolExecutor(1) as pool:
        futures = deque(pool.submit(next, iterator, None) for _ in range(n))
        while (item := futures.popleft().result()) is not None:
            futures.append(pool.submit(next, iterator, None))
            yield item


##############################
#     Reading, writing
##############################


class VideoReader:
    """A video file, open for reading; use it in a `with` block. What the first frame tells holds for all: `width` and
    `height` in pixels as displayed, `aspect` of one pixel (width / height, or None), colours. Times are in seconds
    (Fraction) from the beginning of the file. Raises InputError, naming the path."""

    def __init__(self, path, resize=None):
        self.path, self.broken, self.audio = path, "", {}
        self.start, self.end = Fraction(0), 0.0
        container, stream = self._open()
        with container:
            first = next(self._frames(container, stream, []), None)
            if first is None:
                raise InputError(f"{path}: broken, not one frame can be decoded ({self.broken or 'it is empty'})")
        self.container, self.stream = self._open()  # again, from the start: not every kind of file can be wound back
        # phones write sound of kinds that FFmpeg does not know beside the usual one
        self.audio = {track.index: track for track in self.container.streams.audio if track.codec_context}
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.start = Fraction(self.container.start_time or 0, 1_000_000)
        self.duration, self.end = (self.container.duration or 0) / 1_000_000, 0.0  # as promised; as found so far
        # of a trimmed video, a file may hold more frames than it shows
        self.total = min(filter(None, (self.stream.frames, round(self.duration * self.rate))), default=None)

        # a phone held upright writes frames that lie on their side, and a matrix [[a, b], [c, d]] that turns them:
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

        # an untagged video stays untagged, so that each player guesses the same for the translation as for the original
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
        """-> the container, its video stream"""
        import av

        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise InputError(f"{self.path}: no regular file")  # to open a pipe would wait for ever
        try:
            container = av.open(self.path, metadata_errors="replace")
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: broken, or no video ({error.strerror})") from error
        for stream in container.streams.video:
            if not stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a song
                stream.thread_type = "AUTO"
                return container, stream
        container.close()
        raise InputError(f"{self.path}: holds no video")

    def _packets(self, container):
        """All packets of the file, and None at the end."""
        import av

        try:
            yield from container.demux()
        except av.FFmpegError as error:
            self.broken = self.broken or error.strerror
        yield None

    def _frames(self, container, stream, audio):
        """The decoded frames; audio packets are appended to `audio` on the way. What cannot be decoded is left out."""
        import av

        for packet in self._packets(container):
            if packet is not None:
                if packet.dts is not None:
                    end = (packet.dts + (packet.duration or 0)) * packet.time_base - self.start
                    self.end = max(self.end, float(end))
                    if packet.stream_index in self.audio:
                        audio.append(packet)
                if packet.stream_index != stream.index or packet.size == 0:
                    continue  # an empty packet would end the decoding
                if packet.is_corrupt:
                    self.broken = self.broken or "a part of it is missing"
            try:
                yield from stream.decode(packet)  # None asks for the frames that the decoder still holds
            except av.FFmpegError as error:
                self.broken = self.broken or error.strerror

    def batches(self, size):
        """Yields (frames, times, audio): a uint8 array (N, H, W, 3), RGB, N = size but in the last batch; N pairs (time
        to show it, for how long); the audio packets that were found beside. N may be 0 in the last batch."""
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
        if self.end < self.duration - max(0.5, 2 / self.rate):  # a file that was cut off need not give an error
            self.broken = self.broken or f"it ends after {self.end:.1f} of {self.duration:.1f} seconds"
        yield np.array(frames), times, self._shift(audio)

    def _pixels(self, frame):
        """A decoded frame -> uint8 (height, width, 3), RGB, upright."""
        frame.colorspace, frame.color_range = self.matrix, self.range
        frame.color_primaries = frame.color_trc = UNSPECIFIED  # only YUV to RGB is wanted, no change of gamut or gamma
        image = frame.reformat(*self.lying_size, "rgb24").to_ndarray()
        return np.flip(image.transpose(1, 0, 2) if self.transpose else image, self.flips)

    def _shift(self, packets):
        """The packets, with times that count from the beginning of the file."""
        for packet in packets:
            start = round(self.start / packet.time_base)
            packet.dts -= start
            packet.pts = packet.dts if packet.pts is None else packet.pts - start
        return list(packets)


class VideoWriter:
    """Encodes frames into the file `path`, of the kind that the name `target` says, and copies the sound of `reader` as
    it is. Use it in a `with` block; without an error in it, the file is whole afterwards."""

    def __init__(self, path, target, reader):
        import av

        extension = os.path.splitext(target)[1].lower()
        name, codec, options = FORMATS[extension]
        odd = reader.width % 2 or reader.height % 2
        self.reader, self.last = reader, None
        self.pix_fmt = "yuv444p" if odd and codec == "libx264" else "yuv420p"  # x264 halves the size of the colours
        self.container = av.open(path, "w", format=name)
        self.video = self.container.add_stream(codec, reader.rate, options=options)
        video = self.video.codec_context
        video.width, video.height, video.pix_fmt = reader.width, reader.height, self.pix_fmt
        # AVI has a fixed frame rate; elsewhere each frame keeps its time
        video.time_base = self.base = 1 / reader.rate if name == "avi" else reader.stream.time_base
        video.sample_aspect_ratio = reader.aspect or 0
        video.colorspace, video.color_range = reader.matrix_tag, reader.range_tag
        video.color_primaries, video.color_trc = reader.primaries, reader.transfer
        if reader.aspect not in (None, 1) and codec == "libvpx-vp9":  # VP9 cannot tell, and PyAV does not let WebM tell
            shape = f"{reader.aspect.numerator}:{reader.aspect.denominator}"
            raise InputError(f"{target}: pixels of {shape} cannot be kept in a {extension} file. Name it .mkv instead")
        self.tracks = {}
        try:
            for index, track in reader.audio.items():
                self.tracks[index] = self.container.add_stream_from_template(track)
                self.tracks[index].metadata.update(track.metadata)  # its language
            self.container.start_encoding()
        except ValueError as error:
            # not encoded again: that costs quality, and .mkv holds whatever sound there is
            sound = ", ".join(track.name or "unknown" for track in reader.audio.values())
            raise InputError(
                f"{target}: a {extension} file cannot hold the sound of {reader.path} ({sound}). Name it .mkv instead"
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
        """Encodes one frame, uint8 (H, W, 3), RGB, to be shown at `time` for `length` seconds (0: until the next)."""
        import av

        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.colorspace, frame.color_range = self.reader.matrix, self.reader.range
        frame = frame.reformat(format=self.pix_fmt)
        pts = round(time / self.base)
        self.last = pts if self.last is None else max(pts, self.last + 1)  # two frames at once cannot be written
        frame.pts, frame.duration, frame.time_base = self.last, round(length / self.base), self.base
        self.container.mux(self.video.encode(frame))

    def copy(self, packets):
        """Writes audio packets of the reader. The container puts sound and pictures in order."""
        for packet in packets:
            packet.stream = self.tracks[packet.stream_index]
            self.container.mux(packet)


##############################
#         Flicker
##############################


class Smoother:
    """Blends each translated frame with the one before, moved to where the optical flow between the input frames says
    that its parts have gone (after Bonneel et al., "Blind Video Temporal Consistency", 2015; the weight is the one of
    Lai et al., "Learning Blind Video Temporal Consistency", 2018, arXiv:1808.00449):

        out_t = w * warp(out_{t-1}) + (1 - w) * translated_t
        w     = strength * exp(-(|input_t - warp(input_{t-1})| / SIGMA)^2)     per pixel, 0 outside of the picture

    strength: 0 (off) to 1 (what does not change in the input never changes in the output)
    """

    def __init__(self, strength):
        try:
            import cv2
        except ImportError:
            raise InputError("smoothing needs OpenCV: pip install opencv-python-headless")
        self.strength, self.gray, self.past = strength, None, None
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.changes, self.n = np.zeros(3), 0

    def smooth(self, frame, translated):
        """The next input frame and its translation, uint8 (H, W, 3) -> the smoothed translation, alike."""
        import cv2

        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        frame, translated = frame.astype(np.float32), translated.astype(np.float32)
        out = translated
        if self.past is not None:
            height, width = gray.shape
            margins = [(0, max(0, 16 - side)) for side in gray.shape]  # OpenCV's DIS crashes below 16 pixels
            now, before = (np.pad(image, margins, "edge") for image in (gray, self.gray))
            flow = self.dis.calc(now, before, None)[:height, :width]  # (H, W, 2): from now back to the frame before
            x, y = flow[..., 0] + np.arange(width, dtype=np.float32), flow[..., 1] + np.arange(height)[:, None]
            y = y.astype(np.float32)
            inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
            # cubic: a frame goes through many of these, and linear ones would blur it
            past = [cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for image in self.past]

            difference = np.abs(frame - past[0]).mean(2)
            # neighbours and the whole picture count too: across a scene cut, single pixels are alike by chance
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
        """-> dict: mean absolute change, in gray levels of 255, from a frame to the next at the same place of the scene
        (after motion compensation, where the place stays in the picture): flicker_input of the input, which has noise
        and lights too, flicker_before of the translation, flicker_after of what was made of it."""
        values = self.changes / max(1, self.n)
        return dict(zip(("flicker_input", "flicker_before", "flicker_after"), values.tolist()))
