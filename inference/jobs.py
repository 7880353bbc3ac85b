"""
Translating files: images in batches, videos, and sheets of feature maps. Independent of the command line;
translate.py decides what to translate.

A job is a pair (source, target) of paths. A file that cannot be translated does not stop the others:

    report: an object that is told what happens, translate.Report: written() is called for each file that was written,
            failed(message) for each that was not, and note(message) for what a written file lacks
"""

import collections
import dataclasses
import errno
import itertools
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from command_line.run import out_of_memory
from inference.features import feature_maps
from inference.load import architecture
from inference.ranges import check_ranges, read_in_range, write_in_range
from media import camera
from media.containers import is_camera, is_video
from media.images import open_image
from media.masks import load_mask
from media.picture_writer import format_of
from media.pictures import Picture, make_resize, replace_pixels
from media.sheets import draw_sheet
from media.video import translate_video
from models import GeneratorResNet
from utils import InputError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # the next file would fail, too


def check_jobs(jobs, trained, features=False):
    """Raises InputError for jobs that generators cannot do.

    trained:  list of TrainedGenerator
    features: True for sheets of feature maps instead of translations
    """
    G, path = trained[0].network, trained[0].path
    n_in, n_out = G.channels, G.out_channels
    kinds = {target: format_of(target) for _, target in jobs}
    if features and not isinstance(G, GeneratorResNet):
        raise InputError(f"--features: requires a ResNet generator; {path} is a {architecture(G)}")
    if features and "NPY" in kinds.values():
        raise InputError("--features: writes an image, not .npy. Choose another --output or --format")
    unfit = [target for target, kind in kinds.items() if kind not in ("NPY", "TIFF")]
    ranges = getattr(G, "ranges", (None, None))
    if not features:
        check_ranges(kinds, ranges)
    if any(ranges) and any(is_video(target) for target in kinds):
        raise InputError(f"--input: {path} was trained with --range_A or --range_B; videos hold 8 bits only")
    if n_out not in (1, 3) and unfit and not features:
        raise InputError(f"{unfit[0]}: {n_out} channels fit into .npy and .tif only: --format npy")
    if not {n_in, n_out} <= {1, 3} and any(is_video(target) for target in kinds):
        raise InputError(f"--input: {path} has {n_in} input and {n_out} output channels; videos need 1 or 3")


def is_too_large(path, trained, size=None):
    """True if an image, resized to `size`, is more than 4 times as high and wide as the training images of a
    TrainedGenerator. False if either size is unknown."""
    try:
        with open_image(path) as image:
            sides = make_resize(size)(*image.size) if size else image.size
    except InputError:  # a video, or a broken file, which is reported later
        return False
    return min(sides) > 4 * (trained.options.get("img_height") or float("inf"))


##############################
#           Images
##############################


@dataclasses.dataclass
class Loaded:
    """A decoded image on its way through the generator. masks: one for each of `pages`, uint8 (H, W), or None"""

    source: str
    target: str
    picture: Picture
    masks: list

    @property
    def pages(self):
        return [self.picture, *self.picture.pages]


def translate_pictures(jobs, translator, report, *, size=None, mask=None, n_threads=4):
    """Translates image files. Threads decode and encode while the generator works on batches of images of one size.

    translator: Translator
    report:     see above
    size:       resize the inputs before translation, see media.pictures.make_resize
    mask:       gray image, or folder with one for each input, see media.masks.load_mask
    n_threads:  number of threads. About this many images and one batch wait before the generator, and as many after it
    Raises OSError if the disk is full or read-only.
    """
    resize = make_resize(size)

    def load(source, target):
        picture = read_in_range(source, translator.channels, resize, translator.ranges)
        shapes = [page.pixels.shape[1:3] for page in (picture, *picture.pages)]
        for shape in shapes:
            translator.check_size(*shape, source)
        masks = [mask and load_mask(mask, source, shape, isinstance(size, tuple)) for shape in shapes]
        return Loaded(source, target, picture, masks)

    def write(target, picture):
        make_folder_of(target)
        return write_in_range(target, format_of(target), picture, translator.ranges[1])

    writing = collections.deque()
    try:
        with ThreadPoolExecutor(n_threads) as pool:  # Pillow releases the interpreter's lock
            for batch in load_in_batches(jobs, load, pool, translator, report, n_threads):
                for loaded, result in translate_together(batch, translator, report):
                    future = pool.submit(write, loaded.target, result)
                    writing.append((loaded.target, future))
                while len(writing) > n_threads + len(batch):
                    finish_oldest(writing, report)
    finally:  # after Ctrl-C, too: leaving the pool waited for the writers, so count what they wrote
        while writing:
            finish_oldest(writing, report)


def load_in_batches(jobs, load, pool, translator, report, n_threads):
    """Loads images in the threads of `pool`, a bounded number ahead, and yields lists of Loaded of one size and type.
    If there are many sizes, the one that has waited longest is yielded before its batch is full."""
    todo, waiting, n_ahead = iter(jobs), {}, n_threads
    loading = collections.deque(pool.submit(load, *job) for job in itertools.islice(todo, n_ahead))
    while loading:
        future = loading.popleft()
        # images that are loading or wait for their batch take memory, so only n_ahead of them may; but one is always
        # loading, or the loop would end
        n_held = len(loading) + sum(map(len, waiting.values()))
        room = max(n_ahead - n_held, 0 if loading else 1)
        loading.extend(pool.submit(load, *job) for job in itertools.islice(todo, room))
        try:
            loaded = future.result()
        except InputError as error:
            report.failed(str(error))
            continue
        pixels = loaded.picture.pixels
        key = pixels.shape[1:], pixels.dtype
        waiting.setdefault(key, []).append(loaded)
        batch_size = translator.batch_for(*pixels.shape[1:3])
        n_ahead = n_threads + batch_size
        if len(waiting[key]) >= batch_size:
            yield waiting.pop(key)
        elif sum(map(len, waiting.values())) >= n_ahead:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def translate_together(batch, translator, report):
    """Translates a list of Loaded of one size -> list of pairs (Loaded, Picture), empty if there is not enough memory.
    Reports the latter."""
    try:
        first = translate_pages([loaded.picture for loaded in batch], [loaded.masks[0] for loaded in batch], translator)
        others = [
            [translate_pages([page], [mask], translator)[0] for page, mask in zip(loaded.pages[1:], loaded.masks[1:])]
            for loaded in batch
        ]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        for loaded in batch:
            report.failed(f"{loaded.source}: out of memory. Try a smaller --tile, --batch_size or --size")
        return []
    results = [dataclasses.replace(picture, pages=pages) for picture, pages in zip(first, others)]
    return list(zip(batch, results))


def translate_pages(pictures, masks, translator):
    """Translates Pictures of one size, without their further `pages` -> list of Picture"""
    if masks[0] is None:
        masks = None
    else:  # an animation has one mask for all frames
        masks = np.concatenate([np.broadcast_to(m, picture.pixels.shape[:3]) for m, picture in zip(masks, pictures)])
    pixels = translator(np.concatenate([picture.pixels for picture in pictures]), masks)
    ends = np.cumsum([len(picture.pixels) for picture in pictures])
    return list(map(replace_pixels, pictures, np.split(pixels, ends[:-1])))


def make_folder_of(target):
    """Makes the folder that a file is written to. Raises InputError if a file is in its place."""
    try:
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{target}: cannot be written, because {error.filename} is not a folder. Name another --output"
        )


def finish_oldest(writing, report):
    """Waits for the first of the files being written, a deque of (target, future), and reports it."""
    target, future = writing[0]
    try:
        for note in future.result():
            report.note(note)
        report.written()
    except InputError as error:
        report.failed(str(error))
    except Exception as error:  # encoders raise many kinds of errors
        code = getattr(error, "errno", None)
        if code is None and shutil.disk_usage(os.path.dirname(target) or ".").free < 2**16:
            code = errno.ENOSPC  # encoders of TIFF and arrays do not say so
        if code in DISK_ERRORS:
            raise OSError(code, os.strerror(code), target) from error
        report.failed(f"{target}: cannot be written ({type(error).__name__}: {error})")
    writing.popleft()


##############################
#           Videos
##############################


def translate_video_file(source, target, translator, *, size=None, mask=None, smooth=0.0, progress=None):
    """Translates one video, or what a camera sees until Ctrl-C -> media.video.VideoResult.

    source:           path, or "webcam", or "webcam:1" for the second camera
    translator:       Translator. Used are its call, batch_size, channels and out_channels
    size, mask:       as in translate_pictures. A single length gives even sides, which all players show
    smooth, progress: as in media.video.translate_video
    Raises InputError, naming the file.
    """
    translate, resize = frame_translator(source, translator, size, mask), make_resize(size, step=2)
    if is_camera(source):
        live = camera.Camera(camera.open_camera(source), source, resize)
        make_folder_of(target)
        return camera.translate_camera(live, target, translate, smooth, camera.open_window(source), progress)
    make_folder_of(target)
    return translate_video(source, target, translate, translator.batch_size, smooth, progress, resize)


def frame_translator(source, translator, size, mask):
    """-> function that translates frames, uint8 (N, H, W, 3), with a mask if there is one, also by a gray generator."""
    loaded_mask = None

    def translate(frames):
        nonlocal loaded_mask
        translator.check_size(*frames.shape[1:3], source)
        if mask and loaded_mask is None:
            loaded_mask = load_mask(mask, source, frames.shape[1:3], isinstance(size, tuple))
        masks = None if loaded_mask is None else np.stack([loaded_mask] * len(frames))
        if translator.channels == 1:
            frames = np.stack([np.array(Image.fromarray(frame).convert("L")) for frame in frames])[..., None]
        frames = translator(frames, masks)
        return frames.repeat(3, axis=3) if translator.out_channels == 1 else frames

    return translate


##############################
#        Feature maps
##############################


def write_features(jobs, translator, report, *, size=None):
    """Writes a sheet of feature maps for each image, see inference.features.

    translator: Translator with one GeneratorResNet
    report:     see above
    size:       as in translate_pictures
    """
    for source, target in jobs:
        try:
            picture = read_in_range(source, translator.channels, make_resize(size), translator.ranges)
        except InputError as error:
            report.failed(str(error))
            continue
        x = translator.to_input(picture.pixels[:1])
        cell = (256, max(1, round(256 * x.shape[2] / x.shape[3])))
        (G,), dtype = translator.generators_for(picture.pixels)
        maps = feature_maps(G, x.to(dtype))
        cells = [(caption, Image.fromarray(values).convert("RGB").resize(cell)) for caption, values in maps]
        try:
            make_folder_of(target)
            rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
            draw_sheet(target, rows, f"{source}: mean activations", format_of(target))
            report.written()
        except InputError as error:
            report.failed(str(error))
        except ValueError as error:  # some formats limit the height of an image
            report.failed(f"{target}: cannot be written ({error})")
