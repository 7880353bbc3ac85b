"""Translating volumes: the whole, block by block, slice by slice, and files."""

import numpy as np
import pytest
import torch

import translate as command
from inference.bands import band_size, goes_in_bands, translate_in_bands
from inference.load import load_generator
from inference.translator import Translator
from inference.volumes import to_stored, translate_volume
from media.volume_files import open_volume
from utils import InputError
from variants.build import make_generator

SMALL = dict(dims=3, n_residual_blocks=1, ngf=4)


def generator(seed=0, n_in=1, n_out=1, **options):
    torch.manual_seed(seed)
    return make_generator(SMALL | options, n_in, n_out).eval()


def save(path, seed=0, n_in=1, n_out=1, **options):
    """Writes the file of a generator -> the generator"""
    G = generator(seed, n_in, n_out, **options)
    torch.save(
        {"generator": SMALL | dict(channels=n_in, out_channels=n_out) | options, "weights": G.state_dict()}, path
    )
    return G


@pytest.mark.parametrize("options", [{}, {"upsample": "nearest", "antialias": True}, {"norm": "layer"},
                                     {"norm": "batch", "residual": True}, {"noise_channels": 2}], ids=str)  # fmt: skip
@pytest.mark.parametrize("sides", [(40, 68, 36), (8, 32, 100)])
def test_blocks_give_the_same_as_the_whole(options, sides):
    G = generator(**options)
    assert goes_in_bands(G)
    x = torch.rand(1, 1, *sides) * 2 - 1
    x[..., sides[2] // 2 :] *= 0.1  # blocks of other statistics
    with torch.no_grad():
        whole, blocks = G(x), translate_in_bands(G, x, 1)
    assert whole.std() > 0.01 and (whole - blocks).abs().max() < 1e-5
    with torch.no_grad():
        alone = G(x[..., :32]) - whole[..., :32]
    if options.get("norm") != "batch":  # a part alone has other statistics
        assert alone[..., :16].abs().max() > 1e-3


def test_only_a_block_is_in_memory_at_full_resolution():
    """The largest feature map of a long volume is that of a block with its overlaps, however long the volume is."""
    G, x, largest = generator(), torch.zeros(1, 1, 32, 32, 256), []
    for layer in G.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, inputs, output: largest.append(output.numel()))
    with torch.no_grad():
        translate_in_bands(G, x, 32**3)
    # the decoder sees 3 rows of a quarter of the resolution beyond a block, on both sides, and pads by 3 before its end
    assert max(largest) == 4 * (32 + 6) * (32 + 6) * (32 + 24 + 6)
    largest.clear()
    with torch.no_grad():
        G(x)
    assert max(largest) == 4 * (32 + 6) * (32 + 6) * (256 + 6)


def test_size_of_blocks():
    assert band_size((400, 300), 40_000) == (132, 300)  # as before: the width of an image
    assert band_size((512, 512, 64), 2048**2) == (128, 512, 64) or band_size((512, 512, 64), 2048**2) == (256, 256, 64)
    assert band_size((40, 68, 36), 1) == (32, 32, 32) and band_size((8, 100, 100), 8000) == (8, 32, 32)
    assert band_size((64, 64, 64), 64**3) == (64, 64, 64)


def test_other_generators_are_translated_whole():
    assert not goes_in_bands(generator(attention=True))
    assert not goes_in_bands(generator(generator="unet", num_downs=3))


@pytest.mark.parametrize("tile", [2048, 64])
def test_translator_takes_volumes_of_any_size(tile):
    G, x = generator(), torch.rand(1, 1, 13, 38, 45) * 2 - 1
    found = translate_volume(Translator([G], torch.device("cpu"), tile=tile, amp=False), x)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 2, 0, 3), "reflect")
    assert found.shape == x.shape
    assert torch.allclose(found, G(padded)[:, :, :13, :38, :45], atol=1e-5)
    half = translate_volume(Translator([G], torch.device("cpu"), tile=tile, amp=False, strength=0.25), x)
    assert torch.allclose(half, torch.lerp(x, found, 0.25), atol=1e-5)


def test_mixtures():
    one, other, x = generator(0), generator(1), torch.rand(1, 1, 8, 32, 32) * 2 - 1
    mixed = translate_volume(Translator([one, other], torch.device("cpu"), mix=0.3, amp=False), x)
    assert torch.allclose(mixed, 0.7 * one(x) + 0.3 * other(x), atol=1e-6)


def test_slices_are_each_translated_with_their_neighbours():
    torch.manual_seed(0)
    G = make_generator(dict(slices=3, n_residual_blocks=1, ngf=4), 3, 3).eval()
    x = torch.rand(1, 1, 5, 32, 36) * 2 - 1
    found = translate_volume(Translator([G], torch.device("cpu"), amp=False), x)
    with torch.no_grad():
        assert torch.allclose(found[0, 0, 2], G(x[0, :, 1:4])[0, 1], atol=1e-5)
        assert torch.allclose(found[0, 0, 4], G(x[0, :, [3, 4, 4]])[0, 1], atol=1e-5)


##############################
#   Files
##############################


def run(*words):
    return command.main(["--checkpoint", "G.pth", "--device", "cpu", "--no-amp", *words])


def test_a_nifti_file_keeps_type_affine_header_and_range(tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    monkeypatch.chdir(tmp_path)
    G = save("G.pth", range_in="-1000 1000", range_out="-500 1500")
    affine = np.array([[-0.9, 0.1, 0, 40], [0, 1.1, 0, -3], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    hu = np.random.default_rng(0).integers(-1200, 1000, (36, 32, 12)).astype(np.int16)
    image = nibabel.Nifti1Image((hu + 1000).astype(np.int16), affine)  # stored with an offset
    image.header.set_slope_inter(1, -1000)
    image.header["descrip"] = b"a scan"
    nibabel.save(image, "scan.nii.gz")
    assert run("--input", "scan.nii.gz") == 0
    before, after = nibabel.load("scan.nii.gz"), nibabel.load("scan_translated.nii.gz")
    assert np.array_equal(before.affine, after.affine) and after.header["descrip"] == b"a scan"
    assert after.get_data_dtype() == np.int16 and (after.dataobj.slope, after.dataobj.inter) == (1, -1000)
    x = torch.from_numpy(hu.transpose(2, 1, 0).clip(-1000, 1000)).float()[None, None] / 1000
    with torch.no_grad():
        expected = G(x)[0, 0].numpy().transpose(2, 1, 0) * 1000 + 500
    assert np.abs(np.asanyarray(after.dataobj) - expected).max() <= 0.51
    assert (np.asanyarray(before.dataobj) == hu).all()  # the orientation is that of the file


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_a_folder(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    G = save("G.pth")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    volume = np.random.default_rng(0).integers(0, 256, (9, 33, 34), np.uint8)
    if name == "a.tif":
        pytest.importorskip("tifffile").imwrite(f"in/deep/{name}", volume, photometric="minisblack")
    else:
        np.save(f"in/deep/{name}", volume)
    (tmp_path / "in" / "broken.npy").write_bytes(b"x")
    assert run("--input", "in", "--output", "out") == 1  # one of them is broken
    assert "not translated: in/broken.npy" in capsys.readouterr().err
    result = open_volume(f"out/deep/{name}")
    with torch.no_grad():
        x = torch.nn.functional.pad(torch.from_numpy(volume)[None, None] / 127.5 - 1, (0, 2, 0, 3, 0, 3), "reflect")
        expected = (G(x)[0, 0, :9, :33, :34].numpy() + 1) * 127.5
    assert result.dtype == np.uint8 and np.abs(result.stored()[..., 0] - expected).max() <= 0.51
    with pytest.raises(InputError, match="already exists"):
        run("--input", "in", "--output", "out")
    assert run("--input", f"in/deep/{name}", "--output", f"out/deep/{name}", "--resume") == 0
    assert "skipping 1 of 1" in capsys.readouterr().out


def test_results_of_translation_are_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("G.pth")
    np.save("a.npy", np.zeros((8, 32, 32), np.uint8))
    assert run("--input", "a.npy") == 0
    from media.volumes import VolumeFiles

    (tmp_path / "b_translated.nii.gz").write_bytes(b"x")
    assert [path[len(str(tmp_path)) + 1 :] for path in VolumeFiles(str(tmp_path))] == ["a.npy"]


def test_a_type_that_cannot_hold_the_range_is_changed():
    class like:
        dtype, slope, inter = np.dtype(np.uint8), 1.0, 0.0

    fake = torch.tensor([-1.0, 0, 1]).view(1, 1, 3, 1)
    stored, slope, inter, notes = to_stored(fake, like, (-1000, 3000))
    assert stored.dtype == np.int16 and stored.flatten().tolist() == [-1000, 1000, 3000] and "int16" in notes[0]
    stored, *_, notes = to_stored(fake, like, (0.0, 0.5))
    assert stored.dtype == np.float32 and stored.flatten().tolist() == [0, 0.25, 0.5] and notes
    stored, *_, notes = to_stored(fake, like, None)
    assert stored.dtype == np.uint8 and stored.flatten().tolist() == [0, 128, 255] and not notes
    like.dtype, like.slope, like.inter = np.dtype(np.int16), 0.5, 100.0
    stored, slope, inter, notes = to_stored(fake, like, (-1000, 3000))
    assert stored.dtype == np.int16 and (stored * slope + inter).flatten().tolist() == [-1000, 1000, 3000] and not notes
    like.dtype, like.slope, like.inter = np.dtype(np.float64), 1.0, 0.0
    assert to_stored(fake, like, None)[0].flatten().tolist() == [0, 0.5, 1]


REFUSED = {"--size 64": "--size", "--mask G.pth": "--mask", "--n_samples 2": "--n_samples", "--features": "--features"}


@pytest.mark.parametrize("words", REFUSED)
def test_options_for_images_are_refused(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    save("G.pth")
    np.save("a.npy", np.zeros((8, 32, 32), np.uint8))
    monkeypatch.setattr(command, "check_options", lambda opt: None)  # of images
    with pytest.raises(InputError, match=REFUSED[words] + ": is for images"):
        run("--input", "a.npy", *words.split())


def test_wrong_files_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save("G.pth")
    np.save("a.npy", np.zeros((8, 32, 32), np.uint8))
    for words, message in ((["--input", "x.npy"], "x.npy: no such file"), (["--input", "G.pth"], "G.pth: not a volume"),
                           (["--input", "a.npy", "--output", "b.nii"], "format of its input")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            run(*words)
    np.save("a.npy", np.zeros((8, 32, 32, 3), np.uint8))
    assert run("--input", "a.npy") == 1
    assert "expected depth x height x width x 1" in capsys.readouterr().err


def test_what_takes_images_refuses_generators_of_volumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("G.pth")
    save("S.pth", n_in=3, n_out=3, dims=2, slices=3)
    import export
    from inference import load_translator

    for path in ("G.pth", "S.pth"):
        assert load_generator(path, volumes=True).network is not None
        for function, argument in (
            (load_generator, path),
            (load_translator, path),
            (export.main, ["--checkpoint", path, "--format", "safetensors"]),
        ):
            with pytest.raises(InputError, match=f"{path}: a generator of volumes"):
                function(argument)
