"""
Masks: gray images that say which part of an image to translate. 255 translates, 0 keeps the input, and values between
blend the two.
"""

import glob
import os

import numpy as np
from PIL import Image

from media.images import IMAGE_EXTENSIONS, load_image, stem
from utils import InputError


def load_mask(mask, path, shape, stretch=False):
    """Finds and reads the mask of an image -> uint8 (height, width).

    mask:    a gray image, or a folder with an image of the same name as `path`, in any format
    path:    the image or video that it belongs to
    shape:   (height, width) of the image
    stretch: as in fit_mask
    Raises InputError, naming the file.
    """
    if os.path.isdir(mask):
        mask = find_mask(mask, path)
    return fit_mask(load_image(mask, channels=1)[..., 0], shape, stretch, mask, path)


def find_mask(folder, path):
    """The image in `folder` that has the name of `path`, whatever its format."""
    candidates = sorted(glob.glob(os.path.join(glob.escape(folder), glob.escape(stem(path)) + ".*")))
    for candidate in candidates:
        if stem(candidate) == stem(path) and candidate.lower().endswith(IMAGE_EXTENSIONS):  # not x.y.png for x
            return candidate
    raise InputError(f"{path}: no mask named {stem(path)} in {folder}")


def fit_mask(mask, shape, stretch=False, mask_name="mask", image_name="an image"):
    """Resizes a mask, uint8 (H, W), to `shape` (height, width), bilinear.

    stretch: True accepts another aspect ratio; otherwise that is an InputError, which names the mask and the image
    """
    if mask.shape == shape:
        return mask
    height, width = mask.shape
    distorted = abs(height * shape[1] - width * shape[0]) > max(shape)  # by more than a rounded pixel
    if distorted and not stretch:
        raise InputError(f"{mask_name}: {width} x {height} pixels do not fit {image_name} of {shape[1]} x {shape[0]}")
    return np.array(Image.fromarray(mask).resize(shape[::-1], Image.Resampling.BILINEAR))
