"""
The colours that a person sees. A file says what its numbers mean: with an ICC profile, with the PNG chunks gAMA and
cHRM, with the code points of ITU-T H.273 (cICP in PNG, nclx in HEIC and AVIF), or with EXIF. Networks are trained on
sRGB, so every image is converted to it.
"""

import contextlib
import functools
import io
import re
import struct

import numpy as np
from PIL import ExifTags, Image, ImageCms

from utils import InputError

D65, SRGB = (0.3127, 0.3290), (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x and y of white, and of red, green and blue
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)  # its white is D65, too
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# Code points of H.273: white and primaries; the exponent from values to light. Others count as those of sRGB, which is how
# browsers show them
CODED_PRIMARIES = {
    5: (D65, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (D65, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: (D65, (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    9: (D65, (0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: (D65, (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
}
CODED_GAMMA = {4: 2.2, 5: 2.8, 8: 1.0}
HDR = (16, 18)  # code points of PQ and HLG
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
    elif convert := described_colours(image):
        values = np.asarray(plain.convert("RGB"), np.float32) / 255
        plain = Image.fromarray((convert(values) * 255).round().astype(np.uint8))
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


def deep_to_srgb(pixels, profile, convert=None):
    """to_srgb for more than 8 bits -> (pixels, the profile that describes them, or None)

    pixels:  float32 (H, W, channels) in [0, 1]; of other than 1 or 3 channels they do not change
    profile: the bytes of an ICC profile, or None
    convert: of an image without a profile, see described_colours
    Raises InputError if a conversion is needed and imagecodecs is not installed.
    """
    channels = pixels.shape[2]
    if convert and channels in (1, 3):
        return convert(pixels.repeat(3 // channels, axis=2))[..., :channels], None
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


def note_coded_colours(image, file):
    """Adds the code points of H.273 that describe the colours of an image to its `info`, which Pillow does not read:
    "coded" is then (primaries, transfer). Removes what they take precedence over.

    image: an open PIL image of a PNG, HEIC or AVIF file; file: that file
    """
    position = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(position)
    if image.format == "PNG":  # cICP comes first (PNG, third edition, section 4.3)
        match = re.search(rb"\0\0\0\x04cICP(..)\0\x01", head[: head.find(b"IDAT")], re.DOTALL)
        if match:
            for name in ("icc_profile", "gamma", "chromaticity"):
                image.info.pop(name, None)
            image.info["coded"] = tuple(match[1])
    elif not image.info.get("icc_profile"):
        if match := re.search(rb"colrnclx(....)", head, re.DOTALL):
            image.info["coded"] = struct.unpack(">HH", match[1])


def described_colours(image):
    """What an image without a profile says about its colours -> function that converts them to sRGB, float32
    (H, W, 3) in [0, 1] -> the same; or None, if they are in sRGB.

    Code points of H.273, see note_coded_colours. PNG: gAMA and cHRM. EXIF: the mark of cameras that are set to Adobe
    RGB (DCF 2.0, section 3.2).
    """
    if "coded" in image.info:
        primaries, transfer = image.info["coded"]
        if transfer in HDR:
            return functools.partial(hdr_to_srgb, primaries=primaries, transfer=transfer)
        if primaries not in CODED_PRIMARIES and transfer not in CODED_GAMMA:
            return None
        white, primaries = CODED_PRIMARIES.get(primaries, (D65, SRGB))
        return conversion(white, primaries, CODED_GAMMA.get(transfer))
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity")
    if (gamma or primaries) and "srgb" not in image.info:
        curve = None if not gamma or abs(gamma * 2.2 - 1) < 0.05 else 1 / gamma  # libpng's threshold for sRGB
        white, primaries = (primaries[:2], primaries[2:]) if is_plausible(primaries) else (D65, SRGB)
        if curve or not np.allclose((*white, *primaries), D65 + SRGB, atol=0.005):
            return conversion(white, primaries, curve)
    with contextlib.suppress(Exception):  # Pillow raises many kinds of errors on invalid EXIF
        exif = image.getexif() if image.info.get("exif") else {}
        if exif and (
            exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03" or exif.get_ifd(ExifTags.IFD.Exif).get(0xA001) == 2
        ):
            return conversion(D65, ADOBE_RGB, 563 / 256)
    return None


def conversion(white, primaries, gamma):
    """-> convert_colours with these arguments, as a function of the values; None if no colours have these primaries"""
    if not is_plausible((*white, *primaries)):
        return None
    return functools.partial(convert_colours, white=white, primaries=primaries, gamma=gamma)


def hdr_to_srgb(values, primaries, transfer):
    """Like convert_colours, for images of high dynamic range, see hdr.Converter"""
    from media.hdr import Converter

    return Converter(transfer, primaries)((values * 65535).round().astype(np.uint16)) / np.float32(255)


def is_plausible(chromaticity):
    """Whether the numbers of cHRM, x and y of white, red, green and blue, describe a space of colours, with white inside
    of the triangle"""
    if not chromaticity or min(chromaticity[1::2]) <= 0:
        return False
    try:
        return bool((np.linalg.solve(columns_of(chromaticity[2:]), xyz(chromaticity[:2])) > 1e-4).all())
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
    columns = columns_of(primaries)
    return columns * np.linalg.solve(columns, xyz(white))


def columns_of(primaries):
    """-> matrix with the X, Y, Z of red, green and blue, each with Y = 1"""
    return np.stack([xyz(primaries[i : i + 2]) for i in (0, 2, 4)], 1)
