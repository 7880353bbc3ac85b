"""translate.py --n_samples: several translations of one image, each determined by the seed and its number alone."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import translate as command
from inference import load_translator
from inference.exported import Exported
from inference.generator import TrainedGenerator
from inference.jobs import translate_video_file
from inference.load import load_generator
from inference.samples import AUTHORS_DROPOUT, Sample, dropouts, prepare_sampling, sampling
from inference.translator import Translator
from media.targets import plan_jobs
from models import weights_init_normal
from utils import InputError
from variants.build import make_generator as build_generator
from variants.noise import without_noise

CPU = torch.device("cpu")
NOISE, DROPOUT = dict(noise_channels=3), dict(dropout=0.5, norm="batch")


def pixels(height=33, width=36, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, height=33, width=36, seed=0):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Image.fromarray(pixels(height, width, seed)).save(path)
    return path


def load(path):
    return np.asarray(Image.open(path))


def write_generator(path="noisy.pth", seed=0, **options):
    """Writes a small generator as training does, with its options -> the network in eval mode."""
    torch.manual_seed(seed)
    options = dict(n_residual_blocks=1, ngf=4) | options
    G = build_generator(options, 3, 3).apply(weights_init_normal)
    with torch.no_grad():
        for name, buffer in G.named_buffers():
            if name.endswith("running_var"):
                buffer.fill_(0.01)  # so that the output is not gray
    torch.save({"generator": options | {"channels": 3, "out_channels": 3}, "weights": G.state_dict()}, path)
    return G.eval()


def by_hand(G, array, sample):
    """uint8 (H, W, 3) with sides that are multiples of 4 -> the translation for a Sample"""
    x = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad(), torch.random.fork_rng([]):
        if getattr(G, "noise_channels", 0):
            dice = torch.Generator().manual_seed(sample.random_seed())
            y = G(x, noise=torch.randn(1, G.noise_channels, generator=dice))
        else:
            torch.manual_seed(sample.random_seed())
            for part in G.modules():
                part.training = isinstance(part, torch.nn.Dropout)
            y = G(x)
            G.eval()
    return ((y + 1) * 127.5).round()[0].permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("options", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_samples_are_what_the_seed_and_the_number_say(translate, capsys, options):
    G = write_generator(**options)
    save("x.png", 32, 36)
    run = ("--input", "x.png", "--n_samples", "3", "--seed")
    assert translate(*run, "7", checkpoint="noisy.pth") == 0
    assert "3 translated" in (text := capsys.readouterr().out) and "x_translated_1.png to x_translated_3.png" in text
    found = [load(f"x_translated_{n}.png") for n in (1, 2, 3)]
    for n, result in enumerate(found, 1):
        assert np.array_equal(result, by_hand(G, pixels(32, 36), Sample(7, n)))
    assert all(np.abs(a.astype(int) - b).mean() > 0.5 for a, b in zip(found, found[1:]))
    assert translate(*run, "8", "--output", "other.png", checkpoint="noisy.pth") == 0
    assert not any(np.array_equal(load("other_1.png"), result) for result in found)
    assert translate(*run, "7", "--overwrite", checkpoint="noisy.pth") == 0
    assert all(np.array_equal(load(f"x_translated_{n}.png"), found[n - 1]) for n in (1, 2, 3))
    sample = load_translator("noisy.pth", device="cpu", amp=False, sample=2, seed=7)
    dice = torch.get_rng_state()
    assert np.array_equal(sample(pixels(32, 36)), found[1]) and torch.equal(torch.get_rng_state(), dice)
    with pytest.raises(InputError, match="sample=0: samples are numbered from 1"):
        load_translator("noisy.pth", sample=0)


@pytest.mark.parametrize("options", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_an_image_alone_gives_what_it_gives_in_a_folder(translate, options):
    write_generator(**options)
    sizes = [(32, 32), (40, 52), (32, 32), (33, 36), (32, 32)]
    for i, size in enumerate(sizes):
        save(f"in/{'sub/' * (i == 1)}{i}.png", *size, seed=i)
    run = ("--n_samples", "2", "--seed", "1")
    assert translate(*run, "--input", "in", "--batch_size", "3", "--n_cpu", "4", checkpoint="noisy.pth") == 0
    assert sum(len(names) for *_, names in os.walk("in_translated")) == 10
    for name in ("0", "sub/1", "2", "3", "4"):
        assert (
            translate(*run, "--input", f"in/{name}.png", "--output", "one.png", "--overwrite", checkpoint="noisy.pth")
            == 0
        )
        for n in (1, 2):
            assert np.array_equal(load(f"one_{n}.png"), load(f"in_translated/{name}_{n}.png"))


@pytest.mark.parametrize("options", [NOISE, dict(dropout=0.5)], ids=["noise", "dropout"])
def test_without_the_option_nothing_is_drawn(translate, options):
    """The one translation is that of the network without its noise and its dropout, byte for byte."""
    G = write_generator(**options)
    plain = without_noise(G) if options == NOISE else write_generator("plain.pth")
    for name, part in plain.named_modules() if options != NOISE else ():
        assert not isinstance(part, torch.nn.Dropout), name
    save("x.png", 32, 36)
    assert translate("--input", "x.png", checkpoint="noisy.pth") == 0
    assert sorted(name for name in os.listdir() if name.endswith(".png")) == ["x.png", "x_translated.png"]
    assert np.array_equal(load("x_translated.png"), by_hand(plain, pixels(32, 36), Sample(0, 1)))


def test_frames_and_pages_of_one_file_have_the_same_noise(translate, tmp_path):
    av = pytest.importorskip("av")
    write_generator(**DROPOUT)
    still = Image.fromarray(pixels(32, 64)).resize((64, 32))
    still.save("pages.tif", save_all=True, append_images=[still, still.resize((32, 32)), still])
    assert translate("--input", "pages.tif", "--n_samples", "1", checkpoint="noisy.pth") == 0
    with Image.open("pages_translated_1.tif") as result:
        frames = []
        for i in (0, 1, 3):
            result.seek(i)
            frames.append(np.asarray(result))
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[0], frames[2])

    trained = load_generator("noisy.pth")
    translator = Translator([trained.network], CPU, amp=False, batch_size=2)
    translator.sample = Sample(3, 1)
    three = translator(np.stack([pixels(32, 64)] * 3))
    assert np.array_equal(three[0], three[1]) and np.array_equal(three[0], three[2])
    with av.open("clip.mp4", "w") as clip:
        stream = clip.add_stream("libx264", 10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for _ in range(3):
            clip.mux(stream.encode(av.VideoFrame.from_image(still)))
        clip.mux(stream.encode(None))
    run = ("--input", "clip.mp4", "--n_samples", "2", "--seed", "3")
    assert translate(*run, checkpoint="noisy.pth") == 0
    for n in (1, 2):
        translator.sample = Sample(3, n)
        translate_video_file("clip.mp4", "again.mp4", translator)
        assert open(f"clip_translated_{n}.mp4", "rb").read() == open("again.mp4", "rb").read()
    assert open("clip_translated_1.mp4", "rb").read() != open("clip_translated_2.mp4", "rb").read()


def test_large_images(translate):
    """With noise in bands, as without; with dropout in one piece, as bands would differ where they overlap."""
    save("x.png", 203, 66)
    for options, levels in ((NOISE, 1), (dict(dropout=0.5), 0)):
        write_generator(**options)
        run = ("--input", "x.png", "--n_samples", "1", "--overwrite", "--output")
        assert translate(*run, "whole.png", checkpoint="noisy.pth") == 0
        assert translate(*run, "bands.png", "--tile", "64", checkpoint="noisy.pth") == 0
        assert np.abs(load("whole_1.png").astype(int) - load("bands_1.png")).max() <= levels


def test_with_the_other_options(translate):
    write_generator(**NOISE)
    write_generator("second.pth", seed=1)
    save("x.png", 32, 36)
    Image.fromarray(np.repeat(np.uint8([0, 255]), 18)[None].repeat(32, 0)).save("mask.png")
    run = ("--input", "x.png", "--n_samples", "2", "--overwrite")
    assert translate(*run, checkpoint="noisy.pth") == 0
    plain = [load(f"x_translated_{n}.png").astype(int) for n in (1, 2)]
    assert translate(*run, "--mask", "mask.png", checkpoint="noisy.pth") == 0
    for n in (1, 2):
        masked = load(f"x_translated_{n}.png")
        assert np.array_equal(masked[:, :18], pixels(32, 36)[:, :18]) and np.array_equal(
            masked[:, 18:], plain[n - 1][:, 18:]
        )
    assert translate(*run, "--strength", "0.5", checkpoint="noisy.pth") == 0
    assert np.abs(load("x_translated_2.png") - (plain[1] + pixels(32, 36)) / 2).max() <= 1
    assert translate(*run, "--output", "mixed.png", "--mix", "0", checkpoint="noisy.pth second.pth") == 0
    assert np.array_equal(load("mixed_2.png"), plain[1])
    assert translate(*run, "--output", "kept.png", "--size", "32", "--keep_size", checkpoint="noisy.pth") == 0
    assert not np.array_equal(load("kept_1.png"), load("kept_2.png")) and load("kept_1.png").shape == (32, 36, 3)
    assert command.main(["--checkpoint", "noisy.pth", *run, "--device", "cpu", "--amp", "--output", "low.png"]) == 0
    for n in (1, 2):
        assert np.abs(load(f"low_{n}.png") - plain[n - 1]).mean() < 2


def test_existing_files(translate, capsys):
    write_generator(**NOISE)
    save("x.png", 32, 32)
    run = ("--input", "x.png", "--n_samples", "3")
    assert translate(*run, checkpoint="noisy.pth") == 0
    with pytest.raises(InputError, match="x_translated_1.png: already exists, and so do 2 more"):
        translate(*run, checkpoint="noisy.pth")
    before = open("x_translated_2.png", "rb").read()
    os.remove("x_translated_2.png")
    open("x_translated_1.png", "wb").close()
    assert translate(*run, "--resume", checkpoint="noisy.pth") == 0
    assert "skipping 2 of 3 outputs" in capsys.readouterr().out
    assert open("x_translated_2.png", "rb").read() == before and os.path.getsize("x_translated_1.png") == 0


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x.png", "x_1.png", "x.jpg", "data/tiny/testA/y.png"):
        save(f"in/{name}", 8, 8)
    plan = plan_jobs(["in"], n_samples=2, format="png")
    targets = [target for _, target in plan.jobs]
    assert len({*targets}) == 8 and f"{'in_translated'}/x_1_2.png" in targets and plan.output == "in_translated"
    assert [(n, len(jobs)) for n, jobs in plan.rounds()] == [(1, 4), (2, 4)]
    assert dict(map(reversed, plan.jobs))["in_translated/x_1_2.png"] == "in/x_1.png"
    plan = plan_jobs(["in/data/tiny/testA/y.png"], n_samples=1)
    assert plan.jobs == [("in/data/tiny/testA/y.png", "y_translated_1.png")] and plan.output == "y_translated_1.png"
    assert "the result is written to y_translated_1.png" in plan.notes[0]
    save("in/x_translated_1.png", 8, 8)  # an earlier result beside its input
    assert len(plan_jobs(["in"], format="png").jobs) == 4
    assert plan_jobs(["in"]).rounds() == [(None, plan_jobs(["in"]).jobs)]


def test_a_generator_with_one_translation_says_so(translate):
    save("x.png", 32, 32)
    with pytest.raises(
        InputError, match="--n_samples: G.pth has one translation .*without --noise_channels and --dropout"
    ):
        translate("--input", "x.png", "--n_samples", "2")
    exported = TrainedGenerator(Exported.__new__(Exported), "G.onnx")
    torch.nn.Module.__init__(exported.network)
    with pytest.raises(InputError, match="--n_samples: G.onnx has one translation .* an exported file"):
        prepare_sampling([exported])
    for words, message in (
        (("--input", "x.png", "--n_samples", "2", "--features"), "--n_samples: cannot be combined with --features"),
        (
            ("--input", "webcam", "--n_samples", "2"),
            "--n_samples: cannot be combined with --features or --input webcam",
        ),
        (("--input", "x.png", "--seed", "2"), "--seed: has no effect without --n_samples"),
    ):
        with pytest.raises(InputError, match=message):
            translate(*words)
    assert [name for name in os.listdir() if name.endswith(".png")] == ["x.png"]


def test_dropout_of_plain_files(tmp_path, make_generator):
    """State dicts do not hold the probability: it is that of latest.pth beside, or the authors'."""
    make_generator("plain.pth", n_residual_blocks=2)
    weights = torch.load(tmp_path / "plain.pth", weights_only=True)
    moved = {key.replace("conv_block.5", "conv_block.6"): value for key, value in weights.items()}
    torch.save(moved, tmp_path / "net_G_A.pth")
    trained = load_generator(str(tmp_path / "net_G_A.pth"))
    assert dropouts(trained.network) == []
    prepare_sampling([trained])
    assert [layer.p for layer in dropouts(trained.network)] == [AUTHORS_DROPOUT] * 2
    assert not any(part.training for part in trained.network.modules())
    torch.save({"version": 1, "options": {"dropout": 0.25}, "epoch": 1, "G_AB": moved}, tmp_path / "latest.pth")
    for name in ("net_G_A.pth", "latest.pth"):
        trained = load_generator(str(tmp_path / name))
        prepare_sampling([trained])
        assert [layer.p for layer in dropouts(trained.network)] == [0.25] * 2
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        plain = trained.network(x)
        with sampling(trained.network, Sample(0, 1), CPU):
            assert not torch.equal(trained.network(x), plain)
        assert torch.equal(trained.network(x), plain)


def test_seeds_and_numbers_are_all_different():
    seeds = {Sample(seed, number).random_seed() for seed in range(40) for number in range(1, 41)}
    assert len(seeds) == 1600 and all(0 <= seed < 2**63 for seed in seeds)
    assert Sample(7, 1).random_seed() == Sample(7, 1).random_seed()
