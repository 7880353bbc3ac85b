"""
The colours that a person sees. A file says what its numbers mean: with an ICC profile, with the PNG chunks gAMA and
cHRM, or with EXIF. Networks are trained on sRGB, so every image is converted to it.
"""

import contextlib
import functools
import io

import numpy as np
from PIL import ExifTags, Image, ImageCms

from utils import InputError

D65, SRGB = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x and y of white, and of red, green and blue
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # its white is D65, too
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
TOLERANCE = 3  # a profile that changes no 8-bit value by more is a variant of sRGB, and is not applied


def to_srgb(image):
    """PIL image with 8 bits per channel -> PIL image in sRGB, of mode L or RGB; transparency is dropped.

    The values of an image that is in sRGB, or does not say what it is in, do not change. A broken profile counts as
    none, and so does a profile for another kind of colours.
    """
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    is_gray = is_gray_mode(image.mode)
    plain = image if image.mode == "CMYK" else image.convert("L" if is_gray else "RGB")
    if profile := image.info.get("icc_profile"):
        mode, transform = profile_transform(profile, plain.mode)
        if transform:
            plain = ImageCms.applyTransform(plain.convert(mode), transform)
    elif description := described_colours(image):
        values = np.asarray(plain.convert("RGB"), np.float32) / 255
        plain = Image.fromarray((convert_colours(values, *description) * 255).round().astype(np.uint8))
    return plain.convert("L" if is_gray else "RGB")


def is_gray_mode(mode):
    return mode in ("1", "L", "LA", "La") or mode[0] in "IF"


def is_converted(image):
    """Whether a PIL image is not in the colours that its profile describes after to_srgb: they are converted, or the
    profile cannot be used."""
    if profile := image.info.get("icc_profile"):
        kind = "L" if is_gray_mode(image.mode) else "CMYK" if image.mode == "CMYK" else "RGB"
        is_used = profile_transform(profile, kind)[1] is not None
        return is_used or image.mode == "CMYK" or open_profile(profile, kind)[1] is None
    return described_colours(image) is not None


##############################
#   ICC profiles
##############################


@functools.lru_cache(maxsize=32)
def profile_transform(profile, mode):
    """What a profile does to images of mode L, RGB or CMYK -> (mode that the transform takes, transform to RGB).

    The transform is None if nothing is to be done: the profile is sRGB, or broken, or for another kind of colours.

    profile: the bytes of an ICC profile
    """
    takes, transform = open_profile(profile, mode)
    if transform is None:
        return mode, None
    if takes != "CMYK":
        before = samples(takes)
        after = ImageCms.applyTransform(before, transform)
        change = np.asarray(after, int) - np.asarray(before.convert("RGB"), int)
        if np.abs(change).max() <= TOLERANCE:
            return mode, None
    return takes, transform


@functools.lru_cache(maxsize=32)
def open_profile(profile, mode):
    """As profile_transform, also for sRGB. The transform is None if the profile cannot be used: it is broken, or for
    another kind of colours."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        takes = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
        if takes != mode and (takes, mode) != ("RGB", "L"):  # gray is also stored with a profile for RGB
            return mode, None
        return takes, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), takes, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return mode, None


def samples(mode):
    """-> PIL image with all values of gray, or with 17 values of each of R, G, B"""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, -1, 3))


def deep_to_srgb(pixels, profile, description=None):
    """to_srgb for more than 8 bits -> (pixels, the profile that describes them, or None)

    pixels:      float32 (H, W, channels) in [0, 1]; of other than 1 or 3 channels they do not change
    profile:     the bytes of an ICC profile, or None
    description: see described_colours; without a profile
    Raises InputError if a conversion is needed and imagecodecs is not installed.
    """
    channels = pixels.shape[2]
    if description and channels in (1, 3):
        return convert_colours(pixels.repeat(3 // channels, axis=2), *description)[..., :channels], None
    if not profile or channels not in (1, 3):
        return pixels, profile
    mode = "L" if channels == 1 else "RGB"
    takes, transform = profile_transform(profile, mode)
    if not transform:
        return pixels, (profile if open_profile(profile, mode)[1] else None)
    try:
        import imagecodecs  # Pillow converts 8 bits only
    except ImportError:
        raise InputError("a colour profile with more than 8 bits requires imagecodecs: pip install imagecodecs")
    values = (pixels * 65535).round().astype(np.uint16)
    values = values.repeat(3, axis=2) if takes == "RGB" and channels == 1 else values
    values = np.ascontiguousarray(values[..., 0] if takes == "L" else values)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    spaces = dict(colorspace="gray" if takes == "L" else "rgb", outcolorspace="rgb", outdtype="uint16")
    flags = imagecodecs.CMS.FLAGS.NOOPTIMIZE  # its tables for 16 bits are wrong by up to 19 of 255 in dark colours
    result = imagecodecs.cms_transform(values, profile, srgb, flags=flags, **spaces)
    return result[..., :channels] / np.float32(65535), None


##############################
#   Without a profile
##############################


def described_colours(image):
    """What an image without a profile says about its colours -> arguments for convert_colours, or None for sRGB.

    PNG: gAMA and cHRM. EXIF: the mark of cameras that are set to Adobe RGB (DCF 2.0, section 3.2).
    """
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity")
    if (gamma or primaries) and "srgb" not in image.info:
        curve = None if not gamma or abs(gamma * 2.2 - 1) < 0.05 else 1 / gamma  # libpng's threshold for sRGB
        white, primaries = (primaries[:2], primaries[2:]) if is_plausible(primaries) else (D65, SRGB)
        if curve or not np.allclose((*white, *primaries), D65 + SRGB, atol=0.005):
            return white, primaries, curve
    with contextlib.suppress(Exception):  # Pillow raises many kinds of errors on invalid EXIF
        exif = image.getexif() if image.info.get("exif") else {}
        if exif and (
            exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03" or exif.get_ifd(ExifTags.IFD.Exif).get(0xA001) == 2
        ):
            return D65, ADOBE_RGB, 563 / 256
    return None


def is_plausible(chromaticity):
    """Whether the numbers of cHRM, x and y of white, red, green and blue, describe a space of colours, with white inside
    of the triangle"""
    if not chromaticity or min(chromaticity[1::2]) <= 0:
        return False
    try:
        return bool((np.linalg.solve(np.stack([xyz(chromaticity[i : i + 2]) for i in (2, 4, 6)], 1),
                                     xyz(chromaticity[:2])) > 1e-4).all())  # fmt: skip
    except np.linalg.LinAlgError:
        return False


def convert_colours(values, white, primaries, gamma):
    """float32 (..., 3) in [0, 1] -> the same in sRGB

    white, primaries: chromaticities x, y of white, and of red, green and blue one after the other
    gamma:            exponent from values to light; None is the curve of sRGB
    """
    light = values**gamma if gamma else np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    adapt = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ xyz(D65) / (BRADFORD @ xyz(white))) @ BRADFORD
    matrix = np.linalg.inv(to_xyz(D65, SRGB)) @ adapt @ to_xyz(white, primaries)
    light = (light @ matrix.T.astype(np.float32)).clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def xyz(chromaticity):
    """x, y -> X, Y, Z with Y = 1"""
    x, y = chromaticity
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(white, primaries):
    """-> matrix from linear R, G, B to X, Y, Z"""
    columns = np.stack([xyz(primaries[i : i + 2]) for i in (0, 2, 4)], 1)
    return columns * np.linalg.solve(columns, xyz(white))
