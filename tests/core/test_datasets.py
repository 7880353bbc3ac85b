import contextlib
import os
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets import ImageDataset
from get_data import prepare_dataset
from media.folders import ImageFiles
from media.images import load_image
from training.data import fixed_images
from training.loading import EpochSampler, outlive_signals
from utils import InputError

TINY = {"img_size": (32, 32), "load_size": (36, 36)}


# ----- one image


def gradient(height=20, width=30):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 8, y * 12, (x + y) * 5], -1).astype(np.uint8)


def save_and_load(tmp_path, image, name="x.png", channels=3, **options):
    image.save(tmp_path / name, **options)
    return load_image(str(tmp_path / name), channels)


def test_rgb_is_read_as_it_is(tmp_path):
    assert np.array_equal(save_and_load(tmp_path, Image.fromarray(gradient())), gradient())


def test_palette_and_its_transparency(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 100, 50, 0, 0, 255])
    palette.putdata([0, 1])
    assert save_and_load(tmp_path, palette).tolist() == [[[200, 100, 50], [0, 0, 255]]]
    assert save_and_load(tmp_path, palette, transparency=1).tolist() == [[[200, 100, 50], [255, 255, 255]]]


def test_transparency_lies_over_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    image.putdata([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)])
    pixels = save_and_load(tmp_path, image)[0]
    assert pixels[:2].tolist() == [[10, 20, 30], [255, 255, 255]] and pixels[2] == pytest.approx(127, abs=1)
    gray = Image.new("LA", (1, 1), (0, 0))
    assert save_and_load(tmp_path, gray).tolist() == [[[255, 255, 255]]]


def test_cmyk(tmp_path):
    pixels = save_and_load(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.jpg", quality=95)
    assert pixels[0, 0] == pytest.approx([255, 0, 0], abs=8)


def test_gray_and_one_channel(tmp_path):
    gray = Image.fromarray(gradient()[..., 1])
    assert np.array_equal(save_and_load(tmp_path, gray), np.repeat(gradient()[..., 1:2], 3, 2))
    assert np.array_equal(save_and_load(tmp_path, gray, channels=1), gradient()[..., 1:2])
    assert save_and_load(tmp_path, Image.fromarray(gradient()), channels=1).shape == (20, 30, 1)
    assert save_and_load(tmp_path, gray.convert("1")).max() == 255


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_is_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert save_and_load(tmp_path, Image.fromarray(values), name, channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_tiff(tmp_path):
    values = np.array([[0, 0.5, 1]], np.float32)
    assert save_and_load(tmp_path, Image.fromarray(values), "x.tif", channels=1)[0, :, 0].tolist() == [0, 128, 255]
    for bad in (3.0, np.nan):
        with pytest.raises(InputError, match="x.tif.*expected 0 to 1"):
            save_and_load(tmp_path, Image.fromarray(values * bad), "x.tif")


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = save_and_load(tmp_path, Image.fromarray(gradient()), exif=exif)
    assert np.array_equal(pixels, np.rot90(gradient(), -1))
    # its height is 30 and its width 20 when upright
    load_image(str(tmp_path / "x.png"), smallest=(30, 20))
    with pytest.raises(InputError, match="x.png: 20 x 30 pixels, smaller than the crop of 30 x 20"):
        load_image(str(tmp_path / "x.png"), smallest=(20, 30))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("P", (4, 4), i) for i in (0, 1)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 0, 255])
    pixels = save_and_load(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert pixels[0, 0].tolist() == [255, 0, 0]


def test_large_jpeg_is_resized_alike_with_and_without_scaled_decoding(tmp_path):
    y, x = np.mgrid[:800, :1200]
    picture = Image.fromarray(
        (np.stack([np.sin(x / 90), np.cos(y / 70), np.sin((x + y) / 120)], -1) * 100 + 128).astype("uint8")
    )
    picture.save(tmp_path / "x.jpg", quality=95)
    small = load_image(str(tmp_path / "x.jpg"), size=(40, 60))
    exact = np.asarray(Image.open(tmp_path / "x.jpg").resize((60, 40), Image.Resampling.BICUBIC))
    assert small.shape == (40, 60, 3) and np.abs(small.astype(int) - exact).mean() < 1.5


# ----- a data set


def test_item_is_a_function_of_seed_epoch_and_index(make_set):
    root = make_set(trainA=6, trainB=9)
    one, other = ImageDataset(root, seed=1, **TINY), ImageDataset(root, seed=1, cache=False, **TINY)
    assert len(one) == 9
    expected = {key: one[key] for key in [(0, 3), (4, 3), (4, 8)]}
    for key in reversed(expected):  # in another order, after other items, from the files instead of the cache
        other[1, 2]
        assert all(torch.equal(other[key][d], expected[key][d]) for d in "AB")
    assert not torch.equal(expected[0, 3]["A"], expected[4, 3]["A"])
    assert not torch.equal(expected[0, 3]["A"], ImageDataset(root, seed=2, **TINY)[0, 3]["A"])
    assert torch.equal(one[3]["A"], one[0, 3]["A"])


@pytest.mark.parametrize("cache", [True, False])
def test_workers_change_nothing(make_set, cache):
    dataset = ImageDataset(make_set(trainA=5, trainB=4), cache=cache, **TINY)

    def batches(n_workers):
        sampler = EpochSampler(len(dataset), batch_size=2, seed=3)
        loader = DataLoader(dataset, batch_sampler=sampler, num_workers=n_workers, worker_init_fn=outlive_signals)
        for epoch in range(2):
            sampler.set_position(epoch)
            yield from loader

    for plain, worker in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(plain[d], worker[d]) for d in "AB")


def test_crops_and_flips(make_set, tmp_path):
    root = make_set(trainA=1, trainB=1)
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.mgrid[:40, :40] * 6
    Image.fromarray(pixels).save(tmp_path / "data/tiny/trainA/0.png")
    dataset = ImageDataset(root, img_size=(32, 36), load_size=(40, 40))
    seen, flips = set(), 0
    for epoch in range(400):
        sample = ((dataset[epoch, 0]["A"] + 1) * 127.5).round()
        assert sample.shape == (3, 32, 36)
        columns = sample[1, 0]
        flipped = bool(columns[0] > columns[-1])
        flips += flipped
        seen.add((int(sample[0, 0, 0]) // 6, int(columns.min()) // 6))
    assert seen == {(top, left) for top in range(9) for left in range(5)}
    assert 160 < flips < 240


def test_b_is_drawn_at_random_and_all_of_a_is_seen(make_set):
    dataset = ImageDataset(make_set(trainA=8, trainB=3), img_size=(40, 40), load_size=(40, 40))
    drawn = [dataset[epoch, 2]["B"].sort().values.sum().item() for epoch in range(60)]
    assert len({round(value, 1) for value in drawn}) == 3
    assert len({round(dataset[0, i]["A"].sum().item(), 1) for i in range(8)}) == 8


def test_test_mode_has_no_randomness(make_set):
    root = make_set()
    dataset = ImageDataset(root, "test", img_size=(32, 32))
    expected = torch.from_numpy(load_image(f"{root}/testB/1.png", size=(32, 32)).copy()).permute(2, 0, 1) / 127.5 - 1
    for epoch in range(3):
        torch.testing.assert_close(dataset[epoch, 1]["B"], expected)


def test_values_are_from_minus_1_to_1(make_set, tmp_path):
    root = make_set(trainA=1, trainB=1)
    for domain, value in (("A", 0), ("B", 255)):
        Image.new("RGB", (40, 40), (value,) * 3).save(tmp_path / f"data/tiny/train{domain}/0.png")
    item = ImageDataset(root, **TINY)[0]
    assert (item["A"] == -1).all() and (item["B"] == 1).all() and item["A"].dtype == torch.float32


def test_layout_of_pytorch_gan(make_set):
    root = make_set()
    expected = ImageDataset(root, **TINY)[0, 1]
    for mode in ("train", "test"):
        os.mkdir(f"{root}/{mode}")
        for domain in "AB":
            shutil.move(f"{root}/{mode}{domain}", f"{root}/{mode}/{domain}")
    moved = ImageDataset(root, **TINY)[0, 1]
    assert all(torch.equal(moved[d], expected[d]) for d in "AB")
    assert fixed_images(ImageDataset(root, **TINY), root, "A", 2).shape == (2, 3, 32, 32)


def test_pairs_by_stem_share_crop_and_flip(make_set, tmp_path):
    root = make_set(trainA=6, trainB=1)
    shutil.rmtree(f"{root}/trainB")
    os.mkdir(f"{root}/trainB")
    for i in (5, 2, 9):
        source = f"{root}/trainA/{min(i, 5)}.png"
        Image.open(source).save(f"{root}/trainB/{i}.tif")
    dataset = ImageDataset(root, unaligned=False, **TINY)
    assert len(dataset) == 2
    for epoch in range(5):
        for i in range(2):
            item = dataset[epoch, i]
            assert torch.equal(item["A"], item["B"])
    make_set(trainA=1, trainB=1, name="other")
    os.rename(tmp_path / "data/other/trainB/0.png", tmp_path / "data/other/trainB/zero.png")
    with pytest.raises(InputError, match="no image of A has a counterpart in B"):
        ImageDataset(str(tmp_path / "data/other"), unaligned=False, **TINY)


@pytest.mark.slow
def test_many_names_are_held_in_little_memory(monkeypatch):
    """200,000 names, listed in one pass and never all as Python strings at once."""

    class Entry:
        def __init__(self, i):
            self.name = f"{i * 7919 % 200_000:07d}.jpg"

        def is_file(self):
            return True

    @contextlib.contextmanager
    def scandir(folder):
        yield map(Entry, range(200_000))

    monkeypatch.setattr(os, "scandir", scandir)
    tracemalloc.start()
    files = ImageFiles("folder")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(files) == 200_000 and [files[i] for i in (0, 199_999)] == ["folder/0000000.jpg", "folder/0199999.jpg"]
    assert files.names.nbytes == 2.2e6 and peak < 14e6


# ----- bad input


def bad_file(root, kind):
    path = f"{root}/trainA/9.png"
    if kind == "truncated":
        Image.effect_noise((200, 200), 50).save(path)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
    elif kind == "small":
        Image.new("RGB", (20, 33)).save(path)
    else:
        content = {"empty": b"", "text": b"I am a text"}[kind]
        open(path, "wb").write(content)
    return path


@pytest.mark.parametrize("kind", ["truncated", "small", "empty", "text"])
@pytest.mark.parametrize("cache", [True, False])
def test_bad_images_are_named_and_can_be_skipped(make_set, kind, cache, capfd):
    root = make_set(trainA=4, trainB=2)
    good = ImageDataset(root, **TINY)
    path = bad_file(root, kind)
    late = kind == "truncated" and not cache  # its header is right: only decoding shows it
    with pytest.raises(InputError) as error:
        dataset = ImageDataset(root, cache=cache, **TINY)
        assert late
        for i in range(len(dataset)):
            dataset[i]
    assert path in str(error.value) and "\n" not in str(error.value)
    assert late or "--skip_bad_images" in str(error.value)

    dataset = ImageDataset(root, cache=cache, skip_bad_images=True, **TINY)
    for i in range(len(dataset)):
        assert dataset[i]["A"].shape == (3, 32, 32)
    if late:
        assert path in capfd.readouterr().err
    else:
        assert len(dataset) == len(good) and any("skipped 1 of 5 images" in note for note in dataset.notes)
        assert torch.equal(dataset[2]["A"], good[2]["A"])


def test_small_images_can_be_enlarged(make_set):
    root = make_set()
    bad_file(root, "small")
    assert len(ImageDataset(root, enlarge=True, **TINY).A) == 5


def test_missing_and_empty_folders(make_set, tmp_path):
    root = make_set(trainA=1, testA=1)
    with pytest.raises(InputError, match="tiny/trainB: no such folder"):
        ImageDataset(root, **TINY)
    os.mkdir(f"{root}/trainB")
    open(f"{root}/trainB/notes.txt", "w").close()
    with pytest.raises(InputError, match="tiny/trainB: holds no image"):
        ImageDataset(root, **TINY)
    with pytest.raises(InputError, match="nosuchset: no such folder. Put your images into"):
        prepare_dataset("nosuchset", str(tmp_path))


def test_all_images_bad(make_set):
    root = make_set(trainA=1, trainB=1)
    open(f"{root}/trainA/0.png", "w").close()
    with pytest.raises(InputError, match="no image in this folder can be used"):
        ImageDataset(root, skip_bad_images=True, **TINY)


def test_other_files_are_left_out_and_hidden_ones_ignored(make_set):
    root = make_set(trainA=2, trainB=2)
    for name in ("notes.txt", ".DS_Store", "._0.png"):
        open(f"{root}/trainA/{name}", "w").close()
    os.mkdir(f"{root}/trainA/folder.png")
    dataset = ImageDataset(root, **TINY)
    assert len(dataset) == 2 and "ignored 2 other files" in dataset.notes[0]


def test_without_test_folders_samples_are_training_images(make_set):
    root = make_set(trainA=2, trainB=2)
    dataset = ImageDataset(root, **TINY)
    assert fixed_images(dataset, root, "B", 5).shape == (2, 3, 32, 32)
    assert "sample grids show training images" in dataset.notes[-1]
    for i in range(2):  # the first ones broken, which an uncached data set does not know
        bad_file(root, "truncated")
        os.rename(f"{root}/trainA/9.png", f"{root}/trainA/-{i}.png")
    dataset = ImageDataset(root, cache=False, skip_bad_images=True, **TINY)
    assert len(dataset) == 4 and fixed_images(dataset, root, "A", 2).shape == (2, 3, 32, 32)


# ----- batches


def test_shares_of_the_processes_make_up_the_batches_of_one():
    def epoch_of(epoch, **options):
        sampler = EpochSampler(21, seed=5, **options)
        sampler.set_position(epoch)
        return list(sampler)

    whole = epoch_of(2, batch_size=4)
    assert len(whole) == 5 and len({key for batch in whole for key in batch}) == 20
    shares = [epoch_of(2, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares)] == whole
    assert [index for batch in epoch_of(3, batch_size=4) for _, index in batch] != [i for b in whole for _, i in b]


def test_an_epoch_is_continued_where_it_broke_off():
    sampler = EpochSampler(10, 1, seed=1)
    sampler.set_position(4)
    whole = list(sampler)
    sampler.set_position(4, first_batch=7)
    assert list(sampler) == whole[7:]


def test_a_batch_larger_than_the_data_set():
    with pytest.raises(
        InputError, match="--batch_size x --accumulate x processes is 8, but the data set has only 5 samples"
    ):
        EpochSampler(5, 8)
