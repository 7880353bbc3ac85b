"""
Translating an image at a reduced size and carrying the change to the original size, for --keep_size. A generator
trained at 256 pixels translates best near that size, but people want their photo back as large as it was.
"""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

from inference.translator import Translator
from media.arrays import resize_array
from utils import InputError

WINDOW = 5  # pixels of the small image over which the change of contrast is measured
NOISE = 1e-4  # variance, of values in [0, 1], below which a region counts as flat
LARGEST_GAIN = 1.5  # detail may gain contrast, but not much, because it would be amplified noise


class KeepSize:
    """A Translator for images of the original size, which translates them at a reduced one.

    The result is the enlarged translation plus the detail that the input lost when it was reduced (a Laplacian pyramid
    of one level; Burt and Adelson, 1983). Where the translation changes the contrast, the detail is scaled likewise,
    with the local regression coefficient of the guided filter (He et al., 2010): the fur of a horse does not shine
    through the new stripes, and where nothing changes the result is exactly the input.

    translator: translates the reduced images; it must not change the number of channels
    resize:     function (width, height) -> (width, height) of the reduced image, see media.pictures.make_resize

    Attributes and call as of Translator.
    """

    def __init__(self, translator: Translator, resize):
        if translator.channels != translator.out_channels:
            raise InputError(
                f"--keep_size: {translator.channels} channels become {translator.out_channels}, so that the detail of "
                "the input does not fit"
            )
        self.translator, self.resize = translator, resize
        self.channels, self.out_channels = translator.channels, translator.out_channels
        self.batch_size, self.precision, self.ranges = translator.batch_size, translator.precision, translator.ranges

    def check_blending(self):
        self.translator.check_blending()

    def check_size(self, height, width, name="image"):
        self.translator.check_size(*self.resize(width, height)[::-1], name)

    def batch_for(self, height, width):
        return self.translator.batch_for(*self.resize(width, height)[::-1])

    def __call__(self, pixels, masks=None):
        """(N, H, W, channels), uint8 or uint16 -> the same; masks as in Translator"""
        size = self.resize(pixels.shape[2], pixels.shape[1])[::-1]
        small = np.stack([resize_array(image, size) for image in pixels])
        results = [carry_over(*images, self.translator.device) for images in zip(pixels, small, self.translator(small))]
        if masks is not None:
            weights = masks[..., None] / np.float32(255)
            results = [image + (new - image.astype(np.float32)) * w for image, new, w in zip(pixels, results, weights)]
        return np.stack(results).round().astype(pixels.dtype)


@torch.no_grad()
def carry_over(image, small, translated, device):
    """Carries the change from `small` to `translated` over to `image`.

    image:             (H, W, channels), uint8 or uint16
    small, translated: (h, w, channels), of the same type: the reduced image before and after
    -> float32 (H, W, channels), in the range of the type
    """
    top, size = np.iinfo(image.dtype).max, image.shape[:2]
    result = np.empty(image.shape, np.float32)
    for channel in range(image.shape[2]):  # one at a time, which takes less memory
        full, before, after = (
            torch.from_numpy(values[..., channel].astype(np.float32) / top).to(device)[None, None]
            for values in (image, small, translated)
        )
        gain = local_gain(
            before.cpu().double(), after.cpu().double()
        )  # variances need the digits, and MPS has no doubles
        gain = interpolate(gain.float().to(device), size, mode="bilinear", align_corners=False)
        detail = full - enlarge(before, size)
        result[..., channel] = ((enlarge(after, size) + gain * detail).clamp(0, 1) * top)[0, 0].cpu().numpy()
    return result


def local_gain(before, after):
    """By what factor the contrast changes around each pixel: the regression coefficient of `after` on `before`, both
    (1, 1, h, w), in a window -> the same shape"""
    variance = (local_mean(before**2) - local_mean(before) ** 2).clamp(min=0)
    covariance = local_mean(before * after) - local_mean(before) * local_mean(after)
    return ((covariance + NOISE) / (variance + NOISE)).clamp(-LARGEST_GAIN, LARGEST_GAIN)


def local_mean(x):
    return avg_pool2d(x, WINDOW, 1, WINDOW // 2, count_include_pad=False)


def enlarge(x, size):
    return interpolate(x, size, mode="bicubic", align_corners=False)
