"""Reading and writing volumes: .npy, NIfTI and TIFF, whole and in part."""

import gzip
import struct

import numpy as np
import pytest

from media.volume_files import open_volume, split_extension, write_volume
from media.volumes import VolumeDomain, unit_values
from utils import InputError

BOX = (slice(1, 3), slice(0, 2), slice(2, 5))


def numbers(dtype=np.int16, shape=(4, 3, 6)):
    return (np.arange(np.prod(shape)).reshape(shape) - (20 if np.dtype(dtype).kind != "u" else 0)).astype(dtype)


def write_nifti(path, values, affine=None, slope=None, inter=None, kind="Nifti1Image"):
    nibabel = pytest.importorskip("nibabel")
    image = getattr(nibabel, kind)(values.transpose(2, 1, 0), np.eye(4) if affine is None else affine)
    image.header.set_slope_inter(slope, inter)
    image.header["descrip"] = b"a scan"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    nibabel.save(image, path)
    return image


def write(path, values):
    if path.endswith(".npy"):
        np.save(path, values)
    elif path.endswith((".tif", ".tiff")):
        pytest.importorskip("tifffile").imwrite(path, values, photometric="minisblack", metadata=None)
    else:
        write_nifti(path, values)


@pytest.mark.parametrize("name", ["a.npy", "a.nii", "a.nii.gz", "a.tif", "A.TIFF"])
def test_a_part_is_that_of_the_whole(tmp_path, name):
    values, path = numbers(), str(tmp_path / name)
    write(path.replace("A.TIFF", "a.tiff"), values)
    if name == "A.TIFF":
        (tmp_path / "a.tiff").rename(path)
    volume = open_volume(path)
    assert volume.shape == (4, 3, 6, 1) and volume.dtype == np.int16
    assert np.array_equal(volume.stored()[..., 0], values)
    assert np.array_equal(volume.stored(BOX)[..., 0], values[BOX])
    write_volume(str(tmp_path / f"b{name[1:]}"), volume, volume.stored() + 1)
    again = open_volume(str(tmp_path / f"b{name[1:]}"))
    assert again.dtype == np.int16 and np.array_equal(again.stored()[..., 0], values + 1)


def test_names_of_two_extensions():
    assert split_extension("a.b/head.NII.gz") == ("a.b/head", ".NII.gz")
    assert split_extension("head.v2.npy") == ("head.v2", ".npy")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
def test_nifti_keeps_affine_header_and_scaling(tmp_path, name, kind):
    nibabel = pytest.importorskip("nibabel")
    affine = np.array([[-0.9, 0.1, 0, 40], [0, 1.1, 0, -3], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    path, result = str(tmp_path / name), str(tmp_path / f"b{name}")
    write_nifti(path, numbers(), affine, slope=2.0, inter=-1000.0, kind=kind)
    volume = open_volume(path)
    assert (volume.slope, volume.inter) == (2, -1000)
    assert np.array_equal(volume.scaled(volume.stored(BOX))[..., 0], numbers()[BOX] * 2.0 - 1000)
    write_volume(result, volume, volume.stored(), volume.slope, volume.inter)
    before, after = nibabel.load(path), nibabel.load(result)
    assert type(after).__name__ == kind and np.array_equal(before.affine, after.affine)
    assert np.array_equal(np.asanyarray(before.dataobj), np.asanyarray(after.dataobj))
    for key in before.header:
        assert np.array_equal(before.header[key], after.header[key], equal_nan=before.header[key].dtype.kind == "f"), (
            key
        )
    assert after.header.extensions[0].get_content() == b"kept"
    start = gzip.open if name.endswith("gz") else open
    with start(path, "rb") as one, start(result, "rb") as other:
        assert one.read() == other.read()  # bit for bit


def test_tiff_keeps_resolution_and_spacing(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path, result = str(tmp_path / "a.tif"), str(tmp_path / "b.tif")
    tifffile.imwrite(path, numbers(np.uint16), imagej=True, resolution=(4.0, 5.0),
                     metadata={"spacing": 2.5, "unit": "um", "axes": "ZYX"})  # fmt: skip
    volume = open_volume(path)
    assert np.array_equal(volume.stored(BOX)[..., 0], numbers(np.uint16)[BOX])
    write_volume(result, volume, volume.stored())
    with tifffile.TiffFile(result) as file:
        assert file.imagej_metadata["spacing"] == 2.5 and file.pages[0].tags.valueof(282) == (4, 1)
        assert np.array_equal(file.asarray(), numbers(np.uint16))


def test_several_values_per_voxel(tmp_path):
    values = np.arange(4 * 3 * 6 * 2, dtype=np.uint8).reshape(4, 3, 6, 2)
    np.save(tmp_path / "a.npy", values)
    volume = open_volume(str(tmp_path / "a.npy"), 2)
    assert volume.shape == (4, 3, 6, 2) and np.array_equal(volume.stored(BOX), values[BOX])
    write_volume(str(tmp_path / "b.npy"), volume, values)
    assert np.array_equal(np.load(tmp_path / "b.npy"), values)
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0, 3), np.eye(4)), str(tmp_path / "a.nii"))
    volume = open_volume(str(tmp_path / "a.nii"), 2)
    assert np.array_equal(volume.stored(BOX), values[BOX])
    write_volume(str(tmp_path / "b.nii"), volume, values)
    assert np.array_equal(np.asanyarray(nibabel.load(str(tmp_path / "b.nii")).dataobj), values.transpose(2, 1, 0, 3))


def test_broken_files_are_one_line(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    np.save(tmp_path / "complex.npy", np.zeros((4, 4, 4), complex))
    np.save(tmp_path / "whole.npy", np.zeros((8, 8, 8)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-9])
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "text.nii.gz").write_bytes(b"hello")
    (tmp_path / "text.tif").write_bytes(b"hello")
    write(str(tmp_path / "good.nii"), numbers())
    (tmp_path / "short.nii").write_bytes((tmp_path / "good.nii").read_bytes()[:-5])
    write(str(tmp_path / "good.nii.gz"), numbers(shape=(40, 40, 40)))
    (tmp_path / "short.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes()[:-500])
    names = ["objects.npy", "flat.npy", "complex.npy", "short.npy", "empty.nii", "text.nii.gz", "text.tif", "short.nii",
             "short.nii.gz", "missing.nii", "photo.png"]  # fmt: skip
    for name in names:
        with pytest.raises(InputError, match=name) as caught:
            open_volume(str(tmp_path / name)).stored()
        assert "\n" not in str(caught.value), name


def test_a_small_file_that_would_fill_the_memory_is_refused(tmp_path):
    pytest.importorskip("nibabel")
    write_nifti(str(tmp_path / "a.nii"), np.zeros((2, 2, 2), np.int16))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[40:56] = np.array([3, 2000, 2000, 100, 1, 1, 1, 1], np.int16).tobytes()  # dim
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write(data)
    with pytest.raises(InputError, match="fill the memory"):
        open_volume(str(tmp_path / "bomb.nii.gz"))


def test_unit_values_are_of_the_range(tmp_path):
    np.save(tmp_path / "a.npy", np.array([-1000, 0, 1000, 3000], np.int16).reshape(1, 2, 2))
    volume = open_volume(str(tmp_path / "a.npy"))
    assert unit_values(volume, (-1000, 1000)).flatten().tolist() == [0, 0.5, 1, 1]
    with pytest.raises(InputError, match="a.npy: negative values.*--range_A -1000 3000"):
        unit_values(volume)


def test_an_affine_that_is_not_finite_is_one_line(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="requires nibabel")
    path = str(tmp_path / "a.nii")
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    image.header["sform_code"], image.header["srow_x"] = 1, np.nan
    image.to_filename(path)
    data = bytearray(open(path, "rb").read())
    struct.pack_into("<2h", data, 252, 0, 1)  # qform_code, sform_code
    struct.pack_into("<f", data, 280, np.nan)  # srow_x
    open(path, "wb").write(data)
    with pytest.raises(InputError, match="a.nii: its affine is not finite"):
        open_volume(path)


def test_tiff_files_that_fill_the_memory_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="requires tifffile")
    path = str(tmp_path / "zeros.tif")
    tifffile.imwrite(path, np.zeros((20, 2048, 2048), np.uint8), compression="zstd")
    with pytest.raises(InputError, match="zeros.tif: .* which may be made to fill the memory"):
        open_volume(path)


##############################
#   A domain
##############################


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("name", ["a.npy", "a.nii.gz"])
def test_sub_volumes(tmp_path, cache, name):
    values = numbers(np.uint8, (5, 6, 7))
    write(str(tmp_path / name), values)
    domain = VolumeDomain(str(tmp_path), (2, 3, 4))
    domain.check(cache)
    assert domain.n_bytes() == 5 * 6 * 7
    for place, start in (((0, 0, 0), (0, 0, 0)), ((0.999,) * 3, (3, 3, 3)), ((0.5,) * 3, (2, 2, 2))):
        part = domain.sub_volume(0, place)
        z, y, x = start
        assert part.dtype == np.float32 and part.shape == (2, 3, 4, 1)
        assert np.allclose(part[..., 0] * 255, values[z : z + 2, y : y + 3, x : x + 4])


def test_small_and_broken_volumes_are_named_or_skipped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 4), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "c.npy").write_bytes(b"x")
    with pytest.raises(InputError, match="b.npy: 4 x 4 x 3 voxels.*smaller than the crop of 4 x 4 x 4"):
        VolumeDomain(str(tmp_path), (4, 4, 4)).check(False)
    domain = VolumeDomain(str(tmp_path), (4, 4, 4), skip_bad_images=True)
    domain.check(True)
    assert list(domain.usable) == [0] and "skipped 2 of 3" in domain.notes[-1]
