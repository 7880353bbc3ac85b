"""
Volumes in files: .npy, NIfTI (.nii, .nii.gz) and TIFF with a slice on each page. Parts of them are read without reading
the rest, where the format allows that: .npy, .nii, and TIFF page by page.

A volume is (D, H, W, channels). An .npy file is stored so, without the channels if there is one. NIfTI files are (X, Y, Z),
which is W, H, D: their slices along z are the slices here. Nothing is reoriented or resampled; results are written in the
order of their input.
"""

import dataclasses
import gzip
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from media.limits import check_density, check_pixels
from media.reading import reading
from utils import InputError, whole_file

EXTENSIONS = (".npy", ".nii", ".nii.gz", ".tif", ".tiff")
NIFTI = (".nii", ".nii.gz")
EVERYTHING = (slice(None),) * 3


@dataclasses.dataclass
class Volume:
    """An open file.

    shape:  (D, H, W, channels)
    dtype:  of the stored values
    read:   function (three slices, of D, H and W) -> array (d, h, w, channels) of stored values
    slope, inter: the values that the file stands for are slope * stored + inter (NIfTI)
    header: what is kept on writing. NIfTI: the nibabel image; TIFF: arguments of tifffile; .npy: number of dimensions
    """

    path: str
    shape: tuple
    dtype: np.dtype
    read: Callable
    slope: float = 1.0
    inter: float = 0.0
    header: Any = None

    def stored(self, box=EVERYTHING):
        """The stored values of a part of the volume -> array (d, h, w, channels). Raises InputError."""
        with reading(self.path):
            return self.read(box)

    def scaled(self, stored):
        """Stored values -> the values that they stand for"""
        if (self.slope, self.inter) == (1, 0):
            return stored
        return stored * np.float64(self.slope) + np.float64(self.inter)


def extension_of(path):
    """'.nii.gz' of 'head.NII.gz'; None unless it is a file of a volume"""
    return max((e for e in EXTENSIONS if path.lower().endswith(e)), key=len, default=None)


def split_extension(path):
    """'scans/head.nii.gz' -> ('scans/head', '.nii.gz')"""
    n = len(extension_of(path) or os.path.splitext(path)[1])
    return path[: len(path) - n], path[len(path) - n :]


def open_volume(path, channels=1):
    """Opens a file and reads its header -> Volume. Raises InputError, naming the path, also if it has other than
    `channels` values per voxel."""
    kind = extension_of(path)
    if kind is None:
        raise InputError(f"{path}: not a volume. Expected {', '.join(EXTENSIONS)}")
    with reading(path):
        volume = (open_nifti if kind in NIFTI else open_npy if kind == ".npy" else open_tiff)(path, channels)
        if volume.dtype.kind not in "iuf":
            raise InputError(f"{path}: holds {volume.dtype}, expected integers or floats")
        if len(volume.shape) != 4 or 0 in volume.shape or volume.shape[3] != channels:
            shape = " x ".join(map(str, volume.shape))
            raise InputError(
                f"{path}: shape is {shape}, expected depth x height x width x {channels} (--channels, _A, _B)"
            )
        check_pixels(path, *volume.shape[1:3], math.prod(volume.shape))
        return volume


def open_npy(path, channels):
    array = np.lib.format.open_memmap(path, mode="r")  # refuses objects, which may hold code
    shape = (*array.shape, 1) if array.ndim == 3 and channels == 1 else array.shape
    return Volume(path, shape, array.dtype, lambda box: np.array(array[box]).reshape(*array[box].shape[:3], -1),
                  header=array.ndim)  # fmt: skip


def open_nifti(path, channels):
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{path}: reading NIfTI requires nibabel: pip install nibabel")
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        start = file.read(4)
    is_second = int.from_bytes(start, "little") == 540 or int.from_bytes(start, "big") == 540
    image = (nibabel.Nifti2Image if is_second else nibabel.Nifti1Image).from_filename(path)  # and not by its contents
    sides = image.shape
    shape = (*sides[2::-1], math.prod(sides[3:])) if len(sides) >= 3 else sides
    n_bytes = math.prod(shape) * image.dataobj.dtype.itemsize
    if path.lower().endswith(".gz"):
        check_density(path, n_bytes)
    elif n_bytes > os.path.getsize(path):
        raise ValueError(f"a shape of {sides} takes {n_bytes} bytes, which the file does not have")
    if not np.isfinite(image.affine).all():
        raise InputError(f"{path}: its affine is not finite (NaN). Repair the header, for example with nibabel")
    proxy = image.dataobj
    plain = nibabel.arrayproxy.ArrayProxy(path, (proxy.shape, proxy.dtype, proxy.offset, 1.0, 0.0))

    def read(box):
        values = np.asanyarray(plain[box[2], box[1], box[0]])
        return values.reshape(*values.shape[:3], -1).transpose(2, 1, 0, 3)

    return Volume(path, shape, proxy.dtype, read, float(proxy.slope), float(proxy.inter), image)


def open_tiff(path, channels):
    try:
        import tifffile
    except ImportError:
        raise InputError(f"{path}: reading volumes in TIFF requires tifffile: pip install tifffile imagecodecs")

    def opened():  # not the other files that OME-TIFF, Micro-Manager and NDTiff name
        return tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False)

    with opened() as file:
        series, page = file.series[0], file.series[0].keyframe
        n_pages, shape = len(series), series.shape
        header = dict(photometric=int(page.photometric) if int(page.photometric) in (0, 1) else 1)
        header |= tags_to_keep(file, page)
    if int(page.compression) != 1:
        check_density(path, math.prod(shape) * np.dtype(series.dtype).itemsize)
    by_page = n_pages > 1 and n_pages == shape[0]
    shape = (*shape, 1) if len(shape) == 3 and channels == 1 else shape

    def read(box):
        with opened() as file:
            if by_page:
                numbers = range(*box[0].indices(n_pages))
                values = np.stack([file.series[0][i].asarray() for i in numbers])
                values = values[:, box[1], box[2]]
            else:
                values = file.series[0].asarray()[box]
        return values.reshape(*values.shape[:3], -1)

    return Volume(path, shape, np.dtype(series.dtype), read, header=header)


def tags_to_keep(file, page):
    """The voxel size and the compression of a TIFF -> arguments of tifffile.imwrite"""
    kept = {}
    if page.tags.valueof(282) and page.tags.valueof(283):  # XResolution, YResolution: fractions
        kept["resolution"] = tuple(n / max(1, d) for n, d in (page.tags.valueof(282), page.tags.valueof(283)))
        kept["resolutionunit"] = int(page.tags.valueof(296, default=1))
    if int(page.compression) in (5, 8, 32773, 32946):  # lossless ones that tifffile writes: LZW, deflate, PackBits
        kept["compression"] = "lzw" if int(page.compression) == 5 else "zlib"
    if file.is_imagej and (spacing := (file.imagej_metadata or {}).get("spacing")):
        kept["metadata"] = {"axes": "ZYX", "spacing": spacing, "unit": (file.imagej_metadata or {}).get("unit", "")}
    return kept


##############################
#   Writing
##############################


def write_volume(path, like, stored, slope=1.0, inter=0.0):
    """Writes a volume in the format of another one, with its header.

    like:         Volume that was translated
    stored:       (D, H, W, channels), of the type to write
    slope, inter: as in Volume, for NIfTI
    """
    kind = extension_of(path)
    with whole_file(path) as temporary:
        if kind == ".npy":
            with open(temporary, "wb") as file:
                np.save(file, stored[..., 0] if stored.shape[3] == 1 and like.header == 3 else stored)
        elif kind in NIFTI:
            write_nifti(temporary, kind, like, stored, slope, inter)
        else:
            import tifffile

            options = dict(like.header)
            if "metadata" in options and stored.shape[3] == 1 and stored.dtype in (np.uint8, np.uint16, np.float32):
                options["imagej"] = True
                options.pop("compression", None)
            values = stored[..., 0] if stored.shape[3] == 1 else stored
            big = values.nbytes > 2**32 - 2**25
            tifffile.imwrite(temporary, values, bigtiff=big and "imagej" not in options, **options)


def write_nifti(temporary, kind, like, stored, slope, inter):
    image, n_channels = like.header, stored.shape[3]
    more = image.shape[3:] if math.prod(image.shape[3:]) == n_channels else (n_channels,)
    values = stored.transpose(2, 1, 0, 3).reshape(*stored.shape[2::-1], *more)
    header = image.header.copy()
    header.set_data_dtype(values.dtype)
    if values.dtype != like.dtype or (slope, inter) != (like.slope, like.inter):
        header["cal_min"] = header["cal_max"] = 0  # the brightness to show is of other values
    result = type(image)(values, image.affine, header)
    result.header.set_slope_inter(slope, inter)  # `values` are written as they are
    with gzip.open(temporary, "wb", compresslevel=6) if kind == ".nii.gz" else open(temporary, "wb") as file:
        result.to_stream(file)
