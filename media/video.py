"""
Translating videos: decodes a video, translates it batch by batch, and encodes the result. Keeps size, timing,
orientation, colours, transparency, sound, subtitles, chapters and metadata, as far as the new file's format can hold
them. Drops data tracks, interlacing, and all but 8 bits per colour; HDR becomes SDR.

A generator translates each frame on its own, so the result may flicker. Smoother (flicker.py) measures and reduces this.
"""

import contextlib
import dataclasses
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from media.flicker import Flicker, Smoother
from media.video_files import VideoReader
from media.video_metadata import lost_metadata
from media.video_writer import FORMATS, VideoWriter
from utils import InputError, whole_file


@dataclasses.dataclass
class VideoResult:
    """What translate_video wrote.

    frames:  number of frames
    broken:  what is wrong with the source, "" if nothing. All frames that could be decoded are in the target
    pix_fmt: "yuv420p", or "yuv444p" for H.264 of odd width or height, which some players cannot show
    flicker: with smoothing, a Flicker
    notes:   one line each on what was converted or left out
    """

    frames: int
    broken: str
    pix_fmt: str
    flicker: Flicker | None = None
    notes: list = dataclasses.field(default_factory=list)

    def describe(self, target):
        """-> list of lines on what was written to `target`."""
        lines = [f"{target}: {self.frames} frames", *(f"note: {target}: {note}" for note in self.notes)]
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
    Raises InputError, naming the file, if the source is not a video, or the target cannot be written.
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
            writer = stack.enter_context(VideoWriter(temporary, target, reader.look, reader))
            batches = stack.enter_context(contextlib.closing(ahead(reader.frame_batches(batch_size))))
            for batch in batches:
                writer.tracks.write(batch.packets)
                if not batch.times:  # the sound is longer than the video
                    continue
                translated = translate(batch.frames)
                if smoother:
                    translated = map(smoother.smooth, batch.frames, translated)
                for image, alpha, (start, length) in zip(translated, batch.alphas, batch.times):
                    writer.write(image, start, length, alpha)
                done += len(batch.frames)
                if progress:
                    progress(done, reader.total)
            stack.close()
            notes = collect_notes(reader, writer, temporary)
    except (av.FFmpegError, FileNotFoundError) as error:  # of the writer; the reader raises InputError
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
    return VideoResult(done, reader.broken, writer.pix_fmt, smoother.flicker() if smoother else None, notes)


def collect_notes(reader, writer, path):
    """-> one line each on what was converted or left out. path: the finished file"""
    lost = list(writer.tracks.left_out)
    if reader.was_transparent and not writer.keeps_alpha:
        how = " (use .webm or .mov to keep it)" if reader.look.has_alpha else ", which its first frame does not have"
        lost.insert(0, "transparency" + how)
    lost += lost_metadata(reader, path)
    return [*reader.notes, *writer.tracks.notes, *(["left out " + "; ".join(lost)] if lost else [])]


def ahead(iterator, n=1):
    """Yields the items of an iterator that runs in a thread, up to `n` items ahead. Closing it waits for the thread."""
    with ThreadPoolExecutor(1) as pool:
        futures = deque(pool.submit(next, iterator, None) for _ in range(n))
        while (item := futures.popleft().result()) is not None:
            futures.append(pool.submit(next, iterator, None))
            yield item
