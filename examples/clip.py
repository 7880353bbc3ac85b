"""
Draws a short video with sound: a camera moves past a horse of the demo, with the noise of a sensor. Requires av.

    python -m examples.clip clip.mp4
"""

import os

import numpy as np

from command_line.parser import argument_parser, between
from command_line.run import run_script
from get_data.scenes import draw_scene
from utils import InputError, whole_file

RATE, SOUND_RATE, PITCH = 25, 48_000, 440  # frames and sound samples per second; of the tone, in Hz


def get_parser():
    parser = argument_parser("Draw a short video with sound.", "python -m examples.clip FILE.mp4 [options]")
    parser.add_argument("file", metavar="FILE", help="video to write, .mp4")
    parser.add_argument("--seconds", type=between(0.1, 60.0), default=3.0, help="length (default: %(default)s)")
    parser.add_argument(
        "--size", type=between(32, 1024), default=128, help="height and width, even (default: %(default)s)"
    )
    parser.add_argument(
        "--noise", type=between(0.0, 100.0), default=4.0, help="of the sensor: standard deviation in levels of 255"
    )
    parser.add_argument("--seed", type=between(0, 2**32), default=0, help="random seed of the scene and of the noise")
    return parser


def draw_frames(n, size, noise, seed):
    """Yields n frames, uint8 (size, size, 3): a window that moves to the right over a larger scene, by whole pixels"""
    rng = np.random.default_rng(seed)
    scene = np.asarray(draw_scene(rng, size * 5 // 4)[0])
    room = len(scene) - size
    for i in range(n):
        left = round(room * i / max(1, n - 1))
        frame = scene[room // 2 : room // 2 + size, left : left + size].astype(np.float32)
        yield (frame + rng.normal(0, noise, frame.shape)).round().clip(0, 255).astype(np.uint8)


def write_clip(path, frames, n, size):
    """Writes an .mp4 of H.264, with a tone of the same length as AAC."""
    import av

    tone = np.sin(2 * np.pi * PITCH / SOUND_RATE * np.arange(n * SOUND_RATE // RATE)).astype(np.float32)[None] * 0.3
    with whole_file(path) as temporary, av.open(temporary, "w", format="mp4") as clip:
        video, sound = clip.add_stream("libx264", RATE), clip.add_stream("aac", SOUND_RATE, layout="mono")
        video.width, video.height, video.pix_fmt = size, size, "yuv420p"
        video.options = {"crf": "12"}
        for frame in frames:
            clip.mux(video.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        clip.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        samples.sample_rate, samples.pts = SOUND_RATE, 0
        clip.mux(sound.encode(samples))
        clip.mux(sound.encode(None))


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if not opt.file.lower().endswith(".mp4") or opt.size % 2:
        raise InputError(f"{opt.file}: name a file .mp4" if opt.size % 2 == 0 else f"--size {opt.size}: must be even")
    if os.path.lexists(opt.file):
        raise InputError(f"{opt.file}: already exists. Name another file, or remove it")
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError("writing videos requires av: pip install av")
    n = max(1, round(opt.seconds * RATE))
    write_clip(opt.file, draw_frames(n, opt.size, opt.noise, opt.seed), n, opt.size)
    print(f"{opt.file}: {n} frames of {opt.size} x {opt.size} pixels, {n / RATE:g} s with sound")


if __name__ == "__main__":
    run_script(main)
