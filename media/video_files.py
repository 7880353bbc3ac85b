"""
Decoding video files with PyAV (pip install av), which includes FFmpeg. See video_writer.py for encoding.
"""

import dataclasses
from fractions import Fraction

import numpy as np

from media import hdr
from media.containers import is_moving, open_file
from media.limits import max_pixels, too_large
from media.tracks import describe_unreadable
from media.video_metadata import general_metadata, shifted
from utils import InputError

# FFmpeg's constants (AVCOL_*) for how a video encodes colours. The matrices are BT.709, FCC, BT.601 twice, SMPTE 240M
# and BT.2020
MATRICES, BT709, BT601, BT2020, UNSPECIFIED = (1, 4, 5, 6, 7, 9), 1, 6, 9, 2
LIMITED_RANGE, FULL_RANGE = 1, 2


@dataclasses.dataclass
class Look:
    """How the frames of a video are shown. Colours are FFmpeg's constants.

    width, height: in pixels, as displayed
    aspect:        width / height of one pixel, or None for square ones
    rate:          frames per second; times are multiples of time_base seconds
    matrix, range: from RGB to YUV; the tags are what the file says, which may be nothing
    has_alpha:     True for transparency
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    aspect: Fraction | None = None
    matrix: int = BT709
    matrix_tag: int = BT709
    range: int = LIMITED_RANGE
    range_tag: int = LIMITED_RANGE
    primaries: int = BT709
    transfer: int = BT709
    has_alpha: bool = False


@dataclasses.dataclass
class Batch:
    """Decoded frames.

    frames:  uint8 (N, H, W, 3), RGB; transparent ones over white
    alphas:  N arrays, uint8 (H, W), or N times None
    times:   N pairs (time, duration)
    packets: the packets of sound and subtitles between these frames
    """

    frames: np.ndarray
    alphas: list
    times: list
    packets: list


class VideoReader:
    """A video file, open for reading in a `with` block. Times are in seconds (Fraction) from the start of the file.

    The first frame decides for the whole file: size, rotation, aspect ratio, colours and transparency, see Look.
    HDR and wide colours are converted to SDR, see hdr.py.
    Raises InputError, naming the path.

    Attributes:
    look:     Look
    tracks:   the streams of sound and subtitles that can be read, by their index
    metadata, chapters: those of the file, to be written to the new one
    left_out: what cannot be read, in words
    notes:    what was converted, in words
    was_transparent: whether some frame so far was
    """

    def __init__(self, path, resize=None):
        self.path, self.broken, self.tracks, self.was_transparent = path, "", {}, False
        self.start, self.end = Fraction(0), 0.0
        container, stream = self._open()
        with container:
            first = next(self._frames(container, stream, []), None)
            if first is None:
                raise InputError(f"{path}: broken, no frame can be decoded ({self.broken or 'it is empty'})")
        self.container, self.stream = self._open()  # again from the start, because some formats cannot seek
        # phones write extra sound tracks with codecs that FFmpeg does not know
        known = (*self.container.streams.audio, *self.container.streams.subtitles)
        self.tracks = {track.index: track for track in known if track.codec_context}
        self.left_out, self.notes = describe_unreadable(self.container), []
        self.start = Fraction(self.container.start_time or 0, 1_000_000)
        self.metadata = general_metadata(self.container.metadata)
        self.chapters = shifted(self.container.chapters(), self.start)
        self.duration, self.end = (self.container.duration or 0) / 1_000_000, 0.0  # by the header; decoded so far

        # A phone held upright stores frames lying on their side, and a matrix [[a, b], [c, d]] that rotates them:
        # displayed x = a x + c y, displayed y = b x + d y
        matrix = first.side_data.get("DISPLAYMATRIX")
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5] if matrix else (1, 0, 0, 0, 1)
        self.transpose = abs(int(b)) > abs(int(a))
        self.flips = [axis for axis, x in enumerate((b, c) if self.transpose else (d, a)) if x < 0]
        self.look = self._look(first, resize)
        self._set_colours(first)
        self.lying_size = (self.look.width, self.look.height)
        if self.transpose:
            self.lying_size = self.lying_size[::-1]
        self.look.has_alpha = is_transparent(first)
        # a trimmed video may hold more frames than it shows
        self.total = min(filter(None, (self.stream.frames, round(self.duration * self.look.rate))), default=None)

    def _look(self, first, resize):
        """-> Look of the displayed frames, all but the colours."""
        width, height = (first.height, first.width) if self.transpose else (first.width, first.height)
        self.guess = BT709 if max(width, height) >= 1280 else BT601
        if resize:
            width, height = resize(width, height)
        aspect = self.stream.sample_aspect_ratio or None
        if aspect and self.transpose:
            aspect = 1 / aspect
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        return Look(width, height, rate, self.stream.time_base, aspect)

    def _set_colours(self, first):
        """Decides how colours are decoded, and sets those of the Look."""
        look, primaries, transfer = self.look, first.color_primaries, first.color_trc
        self.convert = None
        if hdr.needs_conversion(transfer, primaries):
            self.guess = BT709 if primaries in (BT709, hdr.DISPLAY_P3) else BT2020
            self.convert = hdr.Converter(transfer, primaries, hdr.mastering_peak(first))
            self.notes.append(hdr.describe(transfer, primaries))
        # an untagged video stays untagged, so that a player treats the translation like the original
        self.matrix = first.colorspace if first.colorspace in MATRICES else self.guess
        untagged = first.colorspace == UNSPECIFIED and not first.format.is_rgb
        range_tag = LIMITED_RANGE if first.format.is_rgb else first.color_range
        self.range = FULL_RANGE if range_tag == FULL_RANGE else LIMITED_RANGE
        if not self.convert:  # otherwise a Look's defaults, BT.709
            look.matrix, look.range, look.range_tag = self.matrix, self.range, range_tag
            look.matrix_tag = UNSPECIFIED if untagged else self.matrix
            look.primaries, look.transfer = primaries, transfer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.container.close()

    def _open(self):
        """-> (container, its video stream)"""
        import av

        try:
            container = open_file(self.path)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except av.FFmpegError as error:
            raise InputError(f"{self.path}: broken, or not a video ({error.strerror})") from error
        for stream in container.streams.video:
            if is_moving(stream):
                if stream.width * stream.height > max_pixels():
                    raise too_large(self.path, (stream.width, stream.height))
                self.decoder = alpha_decoder(stream) or stream
                stream.thread_type = "AUTO"
                return container, stream
        container.close()
        raise InputError(f"{self.path}: holds no video")

    def _packets(self, container):
        """Yields all packets of the file, then None."""
        import av

        try:
            yield from continuous(container)
        except av.FFmpegError as error:
            self.broken = self.broken or error.strerror
        yield None

    def _frames(self, container, stream, packets):
        """Yields the decoded frames and appends the packets of other tracks in between to `packets`. Skips what cannot
        be decoded."""
        import av

        for packet in self._packets(container):
            if packet is not None:
                if packet.dts is not None:
                    # pts is later than dts where frames are stored in another order than shown
                    shown = packet.dts if packet.pts is None else max(packet.dts, packet.pts)
                    end = (shown + (packet.duration or 0)) * packet.time_base - self.start
                    self.end = max(self.end, float(end))
                    if packet.stream_index in self.tracks:
                        packets.append(packet)
                if packet.stream_index != stream.index or packet.size == 0:
                    continue  # an empty packet would end decoding
                if packet.is_corrupt:
                    self.broken = self.broken or "a part is missing"
            try:
                yield from self.decoder.decode(packet)  # None flushes the decoder
            except av.FFmpegError as error:
                self.broken = self.broken or error.strerror

    def frame_batches(self, size):
        """Yields Batches of `size` frames. The last one may be smaller, even without frames."""
        frames, alphas, times, packets = [], [], [], []
        base, step = self.stream.time_base, 1 / self.look.rate
        time = -step
        for frame in self._frames(self.container, self.stream, packets):
            pts = frame.dts if frame.pts is None else frame.pts
            time = time + step if pts is None else pts * base - self.start
            times.append((time, frame.duration * base))
            pixels, alpha = self._pixels(frame)
            frames.append(pixels)
            alphas.append(alpha)
            if len(frames) == size:
                yield Batch(np.stack(frames), alphas, times, self._shift(packets))
                frames, alphas, times = [], [], []
                packets.clear()
        if self.end < self.duration - max(0.5, 2 / self.look.rate):  # a truncated file may not raise an error
            self.broken = self.broken or f"it ends after {self.end:.1f} of {self.duration:.1f} seconds"
        yield Batch(np.array(frames), alphas, times, self._shift(packets))

    def _pixels(self, frame):
        """A decoded frame -> uint8 (height, width, 3), RGB, upright, over white; alpha, uint8 (height, width), or None
        if the first frame has none."""
        frame.colorspace, frame.color_range = self.matrix, self.range
        frame.color_primaries = frame.color_trc = UNSPECIFIED  # convert YUV to RGB, but not gamut or gamma
        has_alpha = has_alpha_channel(frame)
        names = ("rgb48le", "rgba64le") if self.convert else ("rgb24", "rgba")
        image = frame.reformat(*self.lying_size, names[has_alpha]).to_ndarray()
        pixels, alpha = image[..., :3], image[..., 3:]
        if self.convert:
            pixels, alpha = self.convert(pixels), (alpha >> 8).astype(np.uint8)
        if has_alpha and (alpha < 255).any():
            pixels, self.was_transparent = over_white(pixels, alpha), True
        image = np.dstack((pixels, alpha)) if self.look.has_alpha and has_alpha else pixels
        image = np.flip(image.transpose(1, 0, 2) if self.transpose else image, self.flips)
        return image[..., :3], image[..., 3] if image.shape[2] == 4 else None

    def _shift(self, packets):
        """Shifts the times of packets so that they count from the start of the file -> list of packets."""
        for packet in packets:
            start = round(self.start / packet.time_base)
            packet.dts -= start
            packet.pts = packet.dts if packet.pts is None else packet.pts - start
        return list(packets)


def continuous(container):
    """Yields the packets of a file. In MPEG streams time may start over, where recordings were joined, or jump; the
    packets after that get times that follow on, as with FFmpeg's command."""
    if container.format.name not in ("mpegts", "mpeg"):
        yield from container.demux()
        return
    offsets, part, ends = [Fraction(0)], {}, {}  # of each recording, in s; number of the recording, end, by stream
    for packet in container.demux():
        i, n = packet.stream_index, len(offsets) - 1
        if packet.dts is not None and packet.stream.type in ("video", "audio"):
            n = part.setdefault(i, n)
            time = packet.dts * packet.time_base + offsets[n]
            end = ends.get(i, time)
            if not end - Fraction(1, 10) <= time <= end + 10:
                # the first stream that jumps decides for all, and the others keep in step with it
                n = part[i] = n + 1
                if n == len(offsets):
                    offsets.append(offsets[-1] + end - time)
                time = packet.dts * packet.time_base + offsets[n]
            ends[i] = time + (packet.duration or 0) * packet.time_base
        if packet.dts is not None and offsets[n]:
            shift = round(offsets[n] / packet.time_base)
            packet.pts = packet.pts if packet.pts is None else packet.pts + shift
            packet.dts += shift
        yield packet


def has_alpha_channel(frame):
    return any(component.is_alpha for component in frame.format.components)


def is_transparent(frame):
    """Whether some pixel of an av.VideoFrame is not opaque."""
    return has_alpha_channel(frame) and bool((frame.reformat(format="rgba").to_ndarray()[..., 3] < 255).any())


def alpha_decoder(stream):
    """-> the decoder for a VP8 or VP9 stream with transparency, which FFmpeg's own decoders ignore; None for others."""
    import av

    tag = next((value for key, value in stream.metadata.items() if key.lower() == "alpha_mode"), "0")
    decoder = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name if stream.codec_context else "")
    if tag != "1" or decoder is None:
        return None
    try:
        return av.CodecContext.create(decoder, "r")
    except ValueError:  # this FFmpeg has no libvpx
        return None


def over_white(pixels, alpha):
    """RGB uint8 (H, W, 3) and alpha (H, W, 1) -> what is seen on a white page"""
    alpha = alpha.astype(np.uint16)
    return ((pixels * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
