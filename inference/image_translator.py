"""
Translating images from Python, see inference.load_translator.
"""

import os

import numpy as np
from PIL import Image

from inference.detail import KeepSize
from inference.load import load_generator
from inference.ranges import from_unit_range, scale_input
from inference.samples import Sample, prepare_sampling
from inference.translator import Translator, check_count
from media.arrays import resize_array
from media.images import image_to_array, load_image
from media.masks import fit_mask
from media.picture_writer import picture_to_images
from media.pictures import image_to_picture, make_resize, replace_pixels
from utils import InputError, choose_device


def open_translator(
    checkpoint, direction, *, device, size, keep_size, strength, mask, mix, tile, batch_size, amp, compile, trust,
    sample, seed
):  # fmt: skip
    """See inference.load_translator."""
    paths = [checkpoint] if isinstance(checkpoint, (str, os.PathLike)) else list(checkpoint)
    check_count(paths, mix)
    for name, value in (("strength", strength), ("mix", mix)):
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"--{name} {value}: is not from 0 to 1")
    if size is not None and np.min(size) < 1:
        raise InputError(f"--size {size}: is not positive")
    if keep_size and size is None:
        raise InputError("--keep_size: requires --size, at which images are translated")
    size = size if np.isscalar(size) or size is None else tuple(size)
    device = choose_device(device)
    trained = [load_generator(os.fspath(path), direction, trust) for path in paths]
    if sample is not None:
        if sample < 1:
            raise InputError(f"sample={sample}: samples are numbered from 1")
        prepare_sampling(trained)
    translator = Translator(
        [one.network for one in trained], device, amp=amp, mix=mix, strength=strength, tile=tile,
        batch_size=batch_size, compile=compile,
    )  # fmt: skip
    translator.sample = sample and Sample(seed, sample)
    if keep_size:
        return ImageTranslator(KeepSize(translator, make_resize(size)), None, mask)
    return ImageTranslator(translator, size, mask)


class ImageTranslator:
    """Function from images to translated images, made by inference.load_translator.

    translate(image, mask=None)

    image: one of
        - PIL image of any mode -> PIL image of mode RGB, or L from a gray generator. RGBA if the input has
          transparency, which is kept; I;16 from a gray generator if the input is gray with more than 8 bits. The EXIF
          orientation is applied. Other EXIF data, colour profile and resolution are in `info`; to keep them in a file,
          use image.save(path, **image.info). Of an animation, the current frame is translated
        - uint8 or uint16 array (H, W, C), or (H, W) for gray -> array of the same kind and dtype
        - uint8 or uint16 array (N, H, W, C), a batch -> the same
        - for a generator trained with --range_A or --range_B: an array of values in that range, of any type, in one of
          these shapes -> values in the range of the other domain, as integers if the range consists of such
    mask:  255 translates, 0 keeps the input, values between blend the two. A uint8 or bool array (H, W), for a batch
           also (N, H, W); a PIL image; or the path of one. Resized to the image. None takes that of load_translator

    Raises TypeError for anything else, InputError (a ValueError) for a wrong dtype, shape or number of channels.
    """

    def __init__(self, translator, size=None, mask=None):
        self.translator, self.size, self.resize = translator, size, make_resize(size)
        self.mask = None if mask is None else read_mask(mask)
        if mask is not None:
            translator.check_blending()

    def __call__(self, image, mask=None):
        mask = self.mask if mask is None else read_mask(mask)
        if isinstance(image, Image.Image):
            return self.translate_image(image, mask)
        if isinstance(image, np.ndarray):
            return self.translate_array(image, mask)
        raise TypeError(f"expected a PIL image or a NumPy array, not {type(image).__name__}")

    def translate_image(self, image, mask):
        n_in, n_out = self.translator.channels, self.translator.out_channels
        if any(self.translator.ranges):
            raise InputError("this generator was trained with --range_A or --range_B; pass an array, not a PIL image")
        if not {n_in, n_out} <= {1, 3}:
            raise InputError(f"this generator translates {n_in} channels to {n_out}; pass an array, not a PIL image")
        picture = image_to_picture(image, n_in, self.resize)
        result = replace_pixels(picture, self.translate_pixels(picture.pixels, mask))
        (image,) = picture_to_images(result)
        image.info.update(result.info)
        return image

    def translate_array(self, array, mask):
        (range_in, range_out), is_float = self.translator.ranges, array.dtype.kind == "f"
        if range_in:
            array = scale_input(array, range_in)
        elif range_out and array.dtype == np.uint8:
            array = array * np.uint16(257)
        pixels = self.as_batch(array)
        if self.resize:
            size = self.resize(pixels.shape[2], pixels.shape[1])[::-1]
            pixels = np.stack([resize_array(image, size) for image in pixels])
        result = self.translate_pixels(pixels, mask)
        if range_out:
            result = from_unit_range(result / np.float32(65535), range_out, is_float)
        if array.ndim == 4:
            return result
        return result[0, :, :, 0] if array.ndim == 2 and result.shape[3] == 1 else result[0]

    def as_batch(self, array):
        """Checks an array -> (N, H, W, C)"""
        channels = self.translator.channels
        if array.dtype not in (np.uint8, np.uint16):
            raise InputError(f"array of {array.dtype}: expected uint8 (0 to 255) or uint16 (0 to 65535)")
        pixels = array[..., None] if array.ndim == 2 else array
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.shape[3] != channels or 0 in pixels.shape:
            gray = "(H, W), " if channels == 1 else ""
            raise InputError(
                f"array of shape {array.shape}: expected {gray}(H, W, {channels}) or (N, H, W, {channels}), not empty"
            )
        return pixels

    def translate_pixels(self, pixels, mask):
        """(N, H, W, channels) -> (N, H, W, out_channels), blended by a mask from read_mask, or None"""
        if mask is None:
            return self.translator(pixels)
        shape, stretch = pixels.shape[1:3], isinstance(self.size, tuple)
        masks = [fit_mask(one, shape, stretch) for one in (mask if mask.ndim == 3 else mask[None])]
        if len(masks) not in (1, len(pixels)):
            raise InputError(f"mask: {len(masks)} masks for {len(pixels)} images")
        return self.translator(pixels, np.stack(masks * (len(pixels) // len(masks))))


def read_mask(mask):
    """Path, PIL image or array -> uint8 array (H, W) or (N, H, W)."""
    if isinstance(mask, (str, os.PathLike)):
        return load_image(os.fspath(mask), channels=1)[..., 0]
    if isinstance(mask, Image.Image):
        return image_to_array(mask, channels=1)[..., 0]
    mask = np.asarray(mask)
    if mask.dtype not in (np.uint8, np.bool_) or mask.ndim not in (2, 3) or 0 in mask.shape:
        raise InputError(f"mask: array of {mask.dtype} {mask.shape}, expected uint8 or bool, (H, W) or (N, H, W)")
    return mask * np.uint8(255) if mask.dtype == np.bool_ else mask
