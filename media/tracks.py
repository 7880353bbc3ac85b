"""
What a video file holds beside its pictures: sound, subtitles and attachments. They are copied where the new file's
container can hold them. Otherwise sound and subtitles are converted, or left out with a note.
"""

import io
import itertools
from fractions import Fraction

from media.containers import is_moving, open_file

SOUND = {".webm": "libopus", ".avi": "libmp3lame"}  # what sound is re-encoded to, by FFmpeg's names; others: AAC
LAYOUTS = {"libmp3lame": ("mono", "stereo")}
SUBTITLES = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "srt", ".webm": "webvtt"}  # what text is converted to
NAMES = {"audio": "sound", "subtitle": "subtitles", "attachment": "an attachment"}


class Tracks:
    """Writes the tracks of a VideoReader to an output container, all but the pictures.

    container: av.container.OutputContainer whose header is not written yet
    format:    FFmpeg's name of the container
    extension: its extension, such as ".mp4"

    Attributes:
    notes:    one line on each kind of track that was converted
    left_out: what could not be kept, in words
    """

    def __init__(self, container, reader, format, extension):
        self.reader, self.extension = reader, extension
        self.notes, self.left_out = [], list(reader.left_out)
        self.tracks = {}  # index of the source's stream -> object with write(packet) and finish()
        for kind in ("audio", "subtitle", "attachment"):
            for stream in (stream for stream in reader.container.streams if stream.type == kind):
                if kind != "attachment" and stream.index not in reader.tracks:
                    continue  # of an unknown codec; in reader.left_out
                if can_hold(format, stream):
                    self.tracks[stream.index] = Copy(container, stream)
                else:
                    self.convert(container, stream)
        container.metadata.update(reader.metadata)
        container.set_chapters(reader.chapters)

    def convert(self, container, stream):
        """Adds a track in another codec, or a line to left_out."""
        old = codec_name(stream)
        try:
            if stream.type == "audio" and can_decode(self.reader.path, stream.index):
                new, what = SOUND.get(self.extension, "aac"), "sound was"
                self.tracks[stream.index] = Sound(container, stream, new)
            elif stream.type == "subtitle" and self.extension in SUBTITLES and stream.codec_context.codec.text_sub:
                new, what = SUBTITLES[self.extension], "subtitles were"
                self.tracks[stream.index] = Subtitles(container, stream, new)
            else:
                raise ValueError("no conversion exists")
        except (OSError, ValueError, *ffmpeg_errors()):
            self.left_out.append(f"{NAMES[stream.type]} ({old})" if old else NAMES[stream.type])
            return
        new = codec_name(self.tracks[stream.index].stream)
        self.notes.append(f"{what} converted from {old} to {new}, as {self.extension} requires")

    def write(self, packets):
        """Writes packets of the reader, with times from the start of the file. The container interleaves them."""
        for packet in packets:
            if track := self.tracks.get(packet.stream_index):
                track.write(packet)

    def finish(self):
        """Writes what is still buffered."""
        for track in self.tracks.values():
            track.finish()


def ffmpeg_errors():
    import av

    return (av.FFmpegError,)


def codec_name(stream):
    """FFmpeg's name of the codec, such as "mp3"; "" if it is unknown."""
    return stream.codec_context.codec.canonical_name if stream.codec_context else ""


def can_hold(format, stream):
    """Whether a container can hold a stream as it is. Only an attempt can tell: containers say yes to some codecs and
    then fail at the header."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=format) as container:
            container.add_stream_from_template(stream)
            if stream.type == "attachment":  # not alone
                return format == "matroska"
            container.start_encoding()
        return True
    except (ValueError, OSError, av.FFmpegError):
        return False


def can_decode(path, index, n=200):
    """Whether FFmpeg decodes one of the first n packets of the stream `index` of a file."""
    with open_file(path) as container:
        stream = container.streams[index]
        for packet in itertools.islice(container.demux(stream), n):
            try:
                if packet.size and stream.codec_context.decode(packet):
                    return True
            except ffmpeg_errors():
                pass
    return False


class Copy:
    """A track that is copied packet by packet."""

    def __init__(self, container, source):
        self.container = container
        self.stream, self.last = container.add_stream_from_template(source), None
        self.stream.metadata.update(source.metadata)  # its language
        self.stream.disposition = source.disposition

    def write(self, packet):
        if self.last is not None and packet.dts <= self.last:  # containers refuse times that do not increase
            packet.dts = self.last + 1
            packet.pts = max(packet.pts, packet.dts)
        self.last = packet.dts
        packet.stream = self.stream
        self.container.mux(packet)

    def finish(self):
        pass


class Sound:
    """A track of sound that is decoded and encoded with the encoder `codec`. Raises ValueError if that is impossible."""

    def __init__(self, container, source, codec):
        import av

        self.container, self.source = container, source
        decoder = source.codec_context
        decoder.open(strict=False)
        if not decoder.sample_rate or not decoder.layout.nb_channels:
            raise ValueError("nothing is known about this sound")
        set_up(trial := av.CodecContext.create(codec, "w"), decoder)
        trial.open()  # may fail, and a stream that is added cannot be removed again
        self.stream = container.add_stream(codec)
        self.encoder = set_up(self.stream.codec_context, decoder)
        self.stream.metadata.update(source.metadata)
        self.stream.disposition = source.disposition
        self.graph, self.kind = None, None

    def write(self, packet):
        if packet.size:  # an empty one would end decoding
            self.decode(packet)

    def decode(self, packet):
        try:
            frames = self.source.codec_context.decode(packet)
        except ffmpeg_errors():  # a broken packet
            return
        for frame in frames:
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != self.kind:
                self.flush()
                self.graph, self.kind = resampler(frame, self.encoder), kind
            self.graph.push(frame)
            self.encode_all()

    def encode_all(self):
        """Encodes the samples that the resampler has ready."""
        import av

        while True:
            try:
                frame = self.graph.pull()
            except (av.error.EOFError, av.error.BlockingIOError):
                return
            self.container.mux(self.stream.encode(frame))

    def flush(self):
        if self.graph:
            self.graph.push(None)
            self.encode_all()

    def finish(self):
        self.decode(None)
        self.flush()
        self.container.mux(self.stream.encode(None))


def set_up(encoder, decoder):
    """Chooses an audio encoder's settings for the sound of a decoder: its rate and channels if possible."""
    n_channels, rates = decoder.layout.nb_channels, encoder.codec.audio_rates
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(n_channels, "stereo")
    encoder.layout = layout if layout in LAYOUTS.get(encoder.name, (layout,)) else "stereo"
    encoder.sample_rate = decoder.sample_rate if not rates or decoder.sample_rate in rates else 48000
    encoder.format = encoder.codec.audio_formats[0]
    encoder.bit_rate = (96_000 if encoder.sample_rate >= 32000 else 32_000) * encoder.layout.nb_channels
    encoder.time_base = Fraction(1, encoder.sample_rate)
    return encoder


def resampler(frame, encoder):
    """-> FFmpeg's filter graph that converts sound like an av.AudioFrame into what an encoder takes. It fills gaps with
    silence, because an encoder joins what it gets."""
    import av

    graph = av.filter.Graph()
    source = graph.add(
        "abuffer",
        time_base=str(frame.time_base),
        sample_rate=str(frame.sample_rate),
        sample_fmt=frame.format.name,
        channel_layout=frame.layout.name,
    )
    steps = [
        source,
        graph.add("aresample", "async=1000"),
        graph.add(
            "aformat",
            sample_rates=str(encoder.sample_rate),
            sample_fmts=encoder.format.name,
            channel_layouts=encoder.layout.name,
        ),
        graph.add("abuffersink"),
    ]
    for a, b in itertools.pairwise(steps):
        a.link_to(b)
    graph.configure()
    return graph


class Subtitles:
    """A track of text that is converted to another format. Raises ValueError if that is impossible."""

    def __init__(self, container, source, codec):
        self.container, self.source = container, source
        source.codec_context.open(strict=False)
        self.stream = container.add_stream(codec)
        self.stream.codec_context.subtitle_header = source.codec_context.subtitle_header
        self.stream.codec_context.time_base = Fraction(1, 1000)
        self.stream.metadata.update(source.metadata)
        self.stream.disposition = source.disposition

    def write(self, packet):
        try:
            text = self.source.codec_context.decode2(packet) if packet.size else None
            if not text:  # MP4 stores the time between two subtitles as an empty one
                return
            result = self.stream.codec_context.encode_subtitle(text)
        except (ValueError, *ffmpeg_errors()):  # a broken packet
            return
        result.pts = result.dts = packet.pts
        result.duration, result.time_base, result.stream = packet.duration, packet.time_base, self.stream
        self.container.mux(result)

    def finish(self):
        pass


def describe_unreadable(container):
    """-> what the tracks of a source are that cannot be carried over, in words."""
    lost = []
    for stream in container.streams:
        if stream.type == "audio" and not stream.codec_context:
            lost.append("sound of an unknown codec")
        elif stream.type == "subtitle" and not stream.codec_context:
            lost.append("subtitles of an unknown codec")
    n_videos = sum(map(is_moving, container.streams.video))
    if n_videos > 1:
        lost.append("1 more video track" if n_videos == 2 else f"{n_videos - 1} more video tracks")
    if n_videos < len(container.streams.video):  # it shows the input
        lost.append("the cover picture")
    has_chapters = bool(container.chapters())  # in MP4 these are a data track, too
    if (n := sum(stream.type in ("data", "unknown") for stream in container.streams) - has_chapters) > 0:
        lost.append("1 data track" if n == 1 else f"{n} data tracks")
    return lost
