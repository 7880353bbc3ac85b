"""
Translates pictures and videos with a trained generator, in one direction.

    python translate.py --checkpoint saved_models/horse2zebra/latest.pth --direction AB --input photo.jpg
    python translate.py --checkpoint saved_models/horse2zebra/G_AB_200.pth --input holiday/ --output zebras/
    python translate.py --checkpoint latest_net_G_A.pth --input clip.mp4 --output clip_zebra.mp4

The checkpoint says what the network looks like; those of cyclegan.py, of the authors' code, of PyTorch-GAN and of
aitorzip/PyTorch-CycleGAN will do. Names, folders, sizes, transparency and formats stay as they are.
"""

import argparse
import collections
import dataclasses
import errno
import itertools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from command_line.parser import between
from command_line.progress import Progress, duration
from command_line.run import out_of_memory, run_script
from inference.bands import goes_in_bands, translate_in_bands
from inference.exported import Exported
from inference.features import feature_maps
from inference.load import load_generator
from media.images import load_image, open_image
from media.inputs import is_video, mask_for, plan, resizer
from media.pictures import format_of, read_picture, write_picture
from media.sheets import draw_sheet
from media.video import translate_video
from models import GeneratorResNet
from utils import InputError, bfloat16_pays, choose_device


def get_parser():
    parser = argparse.ArgumentParser(description="Translate pictures and videos. In brackets: the default.")
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    # fmt: off
    add("--checkpoint", required=True, nargs="+", help="latest.pth, a generator, an exported one; two with --mix")
    add("--direction", choices=("AB", "BA"), help="which generator of a full checkpoint (AB)")
    add("--input", required=True, nargs="+", help="pictures, videos, folders (with all in them), or 'quoted/*.jpg'")
    add("--output", help="file or folder (NAME_translated beside one input, else translated)")
    add("--format", help="png, jpg, webp …: format of the pictures written (that of the input)")
    add("--resume", action="store_true", help="leave out what is there already, by its name")
    add("--overwrite", action="store_true", help="write over what is there already")
    # what is done to a picture
    add("--size", type=size_of, help="resize before: 512 for the shorter side, or WIDTHxHEIGHT (no)")
    add("--strength", type=between(0.0, 1.0), default=1.0, help="0: the input, 1: the translation (%(default)s)")
    add("--mask", help="gray picture, or folder of such with the inputs' names: white is translated, black stays")
    add("--mix", type=between(0.0, 1.0), help="share of the second checkpoint's translation in the result")
    add("--smooth", type=between(0.0, 1.0), nargs="?", const=0.8, default=0.0, help="less flicker of videos; alone 0.8")
    add("--features", action="store_true", help="write what each stage of the generator sees in one picture instead")
    # machine
    add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
    add("--amp", action=switch, help="bfloat16 matrix products (where the device has them)")
    add("--compile", action=switch, default=False, help="torch.compile: pays for some hundred pictures (%(default)s)")
    add("--batch_size", type=between(1, 4096), help="pictures of one size at a time (16 on a GPU, 1 on a CPU)")
    add("--tile", type=between(64, 65536), default=2048, help="more than TILE x TILE pixels go in parts (%(default)s)")
    add("--n_cpu", type=between(1, 256), default=4, help="threads that decode and encode pictures (%(default)s)")
    # fmt: on
    return parser


def size_of(text):
    """'512' -> 512; '640x480' -> (640, 480)"""
    try:
        sides = [between(1, 65535)(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor WIDTHxHEIGHT")
    return sides[0] if len(sides) == 1 else tuple(sides)


##############################
#        Translation
##############################


class Translator:
    """One generator, or a mixture of two, as a function from pixels to pixels.

    tile: pictures of more than tile^2 pixels are translated in bands, smaller ones in batches of at most that many
    """

    def __init__(self, generators, device, amp, mix=None, strength=1.0, tile=2048, batch_size=1, compile=False):
        # weights in bfloat16 give what autocast gives, which would convert them anew for each batch
        self.device, self.dtype = device, torch.bfloat16 if amp else torch.float32
        self.generators = [G.to(device, self.dtype) for G in generators]
        self.shares = [1.0] if mix is None else [1 - mix, mix]
        self.strength, self.tile, self.batch_size = strength, tile, batch_size
        self.channels, self.out_channels = generators[0].channels, generators[0].out_channels
        self.multiple, self.smallest = (max(getattr(G, of) for G in generators) for of in ("multiple", "smallest"))
        if compile:
            for G in self.generators:
                # a GPU would wait for Python at every kernel: the graph asks for all at once
                G.compile(mode="reduce-overhead" if device.type == "cuda" else None)

    def batch_for(self, height, width):
        """How many pictures of that size are translated at once."""
        return max(1, min(self.batch_size, self.tile**2 // (height * width)))

    def __call__(self, pixels, masks=None):
        """uint8 or uint16 (N, H, W, channels) of any H and W -> the same in out_channels, translated where the masks,
        uint8 (N, H, W), are white."""
        n = self.batch_for(*pixels.shape[1:3])
        batches = [slice(i, i + n) for i in range(0, len(pixels), n)]
        return np.concatenate([self._batch(pixels[b], masks if masks is None else masks[b]) for b in batches])

    def prepare(self, pixels):
        """Pixels -> float32 (N, channels, H, W) in [-1, 1] on the device; height and width are enlarged to what a
        generator takes, multiples of 4 from 32 on (GeneratorResNet), by reflection at the bottom and on the right."""
        sides = pixels.shape[1:3]
        bottom, right = (max(self.smallest, -(-n // self.multiple) * self.multiple) - n for n in sides)
        # numpy's, as it reflects to and fro where torch refuses to enlarge a picture of 3 pixels to 32
        pixels = np.pad(pixels, ((0, 0), (0, bottom), (0, right), (0, 0)), "reflect")
        middle = np.iinfo(pixels.dtype).max / 2
        pixels = torch.from_numpy(pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)).to(self.device)
        return pixels.permute(0, 3, 1, 2).float() / middle - 1

    @torch.no_grad()
    def _batch(self, pixels, masks):
        height, width = pixels.shape[1:3]
        middle = np.iinfo(pixels.dtype).max / 2
        x = self.prepare(pixels)
        low = x.to(self.dtype)
        fake = sum(
            share * self._generate(G, x if isinstance(G, Exported) else low).float()
            for share, G in zip(self.shares, self.generators)
        )
        if masks is not None:
            masks = torch.from_numpy(masks).to(self.device)[:, None].float() / 255
            masks = torch.nn.functional.pad(masks, (0, x.shape[3] - width, 0, x.shape[2] - height))
        if masks is not None or self.strength < 1:
            fake = torch.lerp(x, fake, self.strength * (1 if masks is None else masks))
        fake = ((fake + 1) * middle).round().clamp(0, 2 * middle)[:, :, :height, :width].permute(0, 2, 3, 1)
        return fake.to(torch.uint8 if pixels.dtype == np.uint8 else torch.int32).cpu().numpy().astype(pixels.dtype)

    def _generate(self, G, x):
        if x.shape[2] * x.shape[3] <= self.tile**2 or not goes_in_bands(G):
            return G(x)
        return translate_in_bands(G, x, self.tile**2)


def translate_pictures(jobs, translator, opt, tell):
    """Decodes and encodes in threads beside the network, and batches pictures of one size. What cannot be translated
    does not stop the rest.

    jobs: list of (source, target)
    tell: called without an argument for each picture that is written, with a line on each that cannot be
    """
    n_ahead = opt.n_cpu  # pictures in memory before the network, and as many behind it; soon a batch more
    resize, waiting, writing = resizer(opt.size), {}, collections.deque()

    def read(job):
        """-> (picture, mask or None), or the error"""
        try:
            picture = read_picture(job[0], translator.channels, resize)
            return picture, opt.mask and mask_for(job[0], picture.pixels.shape[1:3], opt)
        except InputError as error:
            return error

    def translate(group):
        """A group of equally sized pictures: through the network, and on to the writers."""
        pixels = np.concatenate([picture.pixels for _, picture, _ in group])
        masks = None
        if opt.mask:
            masks = np.concatenate([np.broadcast_to(mask, picture.pixels.shape[:3]) for _, picture, mask in group])
        try:
            pixels = translator(pixels, masks)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            for (source, _), _, _ in group:
                tell(f"{source}: out of memory. Try a smaller --tile, --batch_size or --size")
            return
        n_frames = [len(picture.pixels) for _, picture, _ in group]
        for ((source, target), picture, _), part in zip(group, np.split(pixels, np.cumsum(n_frames)[:-1])):
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            result = dataclasses.replace(picture, pixels=part)
            if translator.channels != translator.out_channels:
                result.info.pop("icc_profile", None)  # it describes other channels
            writing.append((target, pool.submit(write_picture, target, format_of(target), result)))
        while len(writing) > n_ahead:
            finish()

    def finish():
        """Waits for the picture that has been with the writers for longest."""
        target, future = writing[0]
        try:
            future.result()
            tell()
        except Exception as error:  # an encoder may raise nearly anything
            code = getattr(error, "errno", None)
            if code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
                raise OSError(code, error.strerror, target) from error  # the next one would fail as well
            tell(f"{target}: cannot be written ({type(error).__name__}: {error})")
        writing.popleft()

    try:
        with ThreadPoolExecutor(opt.n_cpu) as pool:  # Pillow works outside the interpreter's lock
            todo = iter(jobs)
            reading = collections.deque((job, pool.submit(read, job)) for job in itertools.islice(todo, n_ahead))
            while reading:
                job, future = reading.popleft()
                room = max(0 if reading else 1, n_ahead - len(reading) - sum(map(len, waiting.values())))
                reading.extend((job, pool.submit(read, job)) for job in itertools.islice(todo, room))
                result = future.result()
                if isinstance(result, InputError):
                    tell(str(result))
                    continue
                picture, mask = result
                key = picture.pixels.shape[1:], picture.pixels.dtype
                waiting.setdefault(key, []).append((job, picture, mask))
                batch = translator.batch_for(*key[0][:2])
                n_ahead = opt.n_cpu + batch
                if len(waiting[key]) >= batch:
                    translate(waiting.pop(key))
                elif sum(map(len, waiting.values())) >= n_ahead:  # of many sizes: the one that has waited longest
                    translate(waiting.pop(next(iter(waiting))))
            for group in waiting.values():
                translate(group)
    finally:  # also after Ctrl-C the writers have come to an end, and their pictures count
        while writing:
            finish()


def translate_videos(jobs, translator, opt, tell):
    """One video after the other; arguments as those of translate_pictures."""
    for source, target in jobs:
        progress, started, mask = Progress(), time.monotonic(), None

        def translate(frames):
            nonlocal mask
            if opt.mask and mask is None:
                mask = mask_for(source, frames.shape[1:3], opt)
            masks = None if mask is None else np.stack([mask] * len(frames))
            if translator.channels == 1:
                frames = np.stack([np.array(Image.fromarray(frame).convert("L")) for frame in frames])[..., None]
            frames = translator(frames, masks)
            return frames.repeat(3, axis=3) if translator.out_channels == 1 else frames

        def show(done, total):
            progress.tick(done, total, "frames", started)

        try:
            os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
            facts = translate_video(source, target, translate, opt.batch_size, opt.smooth, show, resizer(opt.size, 2))
        except InputError as error:
            progress.end_line()
            tell(str(error))
            continue
        progress.end_line()
        print(f"{target}: {facts['frames']} frames")
        if facts["pix_fmt"] == "yuv444p":
            print(
                f"note: {target}: of odd width or height, which not all players show; --size WIDTHxHEIGHT makes it even"
            )
        if opt.smooth:
            print(
                "flicker, the mean change between two frames after motion compensation, of 255: input "
                f"{facts['flicker_input']:.2f}, translated {facts['flicker_before']:.2f}, smoothed "
                f"{facts['flicker_after']:.2f}"
            )
        if facts["broken"]:
            tell(f"{source}: broken ({facts['broken']}); its first {facts['frames']} frames are in {target}")
        else:
            tell()


def note_size(path, trained, opt):
    """Tells somebody with large photos what to expect."""
    try:
        with open_image(path) as image:
            side = min(resizer(opt.size)(*image.size) if opt.size else image.size)
    except InputError:  # a video, or broken; that comes later
        return
    if side > 4 * trained:
        print(
            f"note: {path} is {side} pixels high or wide, the network was trained at {trained}: it sees little of what "
            f"it knows. --size {trained} is faster, and may look better"
        )


def write_features(jobs, translator, opt, tell):
    """A sheet for each picture, of what the stages of the network see; arguments as those of translate_pictures."""
    for source, target in jobs:
        try:
            picture = read_picture(source, translator.channels, resizer(opt.size))
        except InputError as error:
            tell(str(error))
            continue
        x = translator.prepare(picture.pixels[:1])
        size = (256, max(1, round(256 * x.shape[2] / x.shape[3])))
        cells = []
        for caption, values in feature_maps(translator.generators[0], x.to(translator.dtype)):
            image = Image.fromarray(values.squeeze(2) if values.shape[2:] == (1,) else values)
            cells.append((caption, image.convert("RGB").resize(size)))
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        try:
            rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
            draw_sheet(target, rows, f"{source}: mean activations", format_of(target))
            tell()
        except ValueError as error:  # not every format takes a picture as high as that
            tell(f"{target}: cannot be written ({error})")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if len(opt.checkpoint) != (1 if opt.mix is None else 2):
        raise InputError("--mix takes two checkpoints, --checkpoint A.pth B.pth --mix 0.3; without it there is one")
    opt.format = opt.format and opt.format.lstrip(".")
    if opt.resume and opt.overwrite:
        raise InputError("--resume --overwrite: one leaves out what is there, the other does not. Choose")
    if opt.format and not format_of("x." + opt.format):
        raise InputError(f"--format {opt.format}: not a format that is written here; png, jpg, webp, tif … are")
    if opt.mask and not os.path.exists(opt.mask):
        raise InputError(f"--mask {opt.mask}: no such file or folder")
    if opt.mask and not os.path.isdir(opt.mask):
        load_image(opt.mask, channels=1)  # if it is no good, nothing is started
    device = choose_device(opt.device)
    amp = bfloat16_pays(device) if opt.amp is None else opt.amp
    opt.batch_size = opt.batch_size or (1 if device.type == "cpu" else 16)
    if opt.features and (opt.mask or opt.mix is not None or opt.strength < 1 or opt.smooth):
        raise InputError("--features shows one network as it is: leave out --mask, --mix, --strength and --smooth")
    jobs, output, notes, failures = plan(opt)
    if opt.features and any(format_of(target) == "NPY" for _, target in jobs):
        raise InputError("--features: writes a picture, not .npy. Name another --output or --format")

    generators = []
    for path in opt.checkpoint:
        facts = load_generator(path, opt.direction)
        G = facts.network
        generators.append(G)
        direction, epoch = facts.direction, facts.epoch
        is_resnet = isinstance(G, GeneratorResNet)
        kind = f"{len(G.stages[1])} residual blocks" if is_resnet else type(G).__name__.removeprefix("Generator")
        if isinstance(G, Exported):
            kind = "file of export.py"
        if opt.features and not is_resnet:
            raise InputError(f"--features: knows the stages of a ResNet; {path} is a {kind}")
        if opt.compile and isinstance(G, Exported):
            raise InputError(f"--compile: {path} is exported, and as fast as its runtime makes it. Leave it out")
        what = f"{sum(p.numel() for p in G.parameters()) / 1e6:.2f} M parameters, {kind}"
        print(
            f"{path}: {G if isinstance(G, Exported) else what}"
            + (f", {direction[0]} -> {direction[1]}" if direction else "")
            + (f", epoch {epoch}" if epoch is not None else "")
        )
    n_in, n_out = generators[0].channels, generators[0].out_channels
    if len({(G.channels, G.out_channels) for G in generators}) > 1:
        raise InputError("--mix: the two checkpoints are for images of different channels")
    unfit = [target for _, target in jobs if format_of(target) not in ("NPY", "TIFF")]
    if n_out not in (1, 3) and unfit and not opt.features:
        raise InputError(f"{unfit[0]}: translations have {n_out} channels, which only .npy and .tif hold: --format npy")
    if n_in != n_out and (opt.mask or opt.strength < 1):
        raise InputError(f"--mask, --strength: {n_in} channels become {n_out}, which cannot be blended")
    if not {n_in, n_out} <= {1, 3} and any(is_video(target) for _, target in jobs):
        raise InputError(f"--input: {opt.checkpoint[0]} is for images of {n_in} and {n_out} channels, not for videos")
    if jobs and (trained := facts.options.get("img_height")):
        note_size(jobs[0][0], trained, opt)
    translator = Translator(generators, device, amp, opt.mix, opt.strength, opt.tile, opt.batch_size, opt.compile)
    precision = "" if all(isinstance(G, Exported) for G in generators) else ", bfloat16" if amp else ", float32"
    print(f"{len(jobs)} to translate, on {device}{precision}")

    started, written, stopped = time.monotonic(), 0, False
    videos = [job for job in jobs if is_video(job[1])]
    pictures = [job for job in jobs if not is_video(job[1])]
    progress = Progress()

    def tell(failure=None):
        nonlocal written
        if failure:
            failures.append(failure)
        else:
            written += 1
        if written + len(failures) <= len(pictures):  # videos, which follow, show their frames
            progress.tick(written + len(failures), len(pictures), "pictures", started)

    try:
        (write_features if opt.features else translate_pictures)(pictures, translator, opt, tell)
        progress.end_line()
        translate_videos(videos, translator, opt, tell)
    except KeyboardInterrupt:
        stopped = True
        progress.end_line()
    except OSError as error:  # a full disk
        progress.end_line()
        failures.append(f"{error.filename}: {error.strerror}; stopped here, --resume goes on")
    for line in notes:
        print("note: " + line)
    for line in failures:
        print("not translated: " + line.replace("\n", "\\n"), file=sys.stderr)
    print(f"{written} translated in {duration(time.monotonic() - started)}, {len(failures)} failed", end="")
    print(f"; written to {output}" if written else "")
    if stopped:
        print("stopped by Ctrl-C; --resume goes on from there")
    return 130 if stopped else 1 if failures else 0


if __name__ == "__main__":
    run_script(main)
