"""Every variant trains, is resumed exactly, and translates from its checkpoint alone."""

import os
import signal

import numpy as np
import pytest
import torch
import torchvision
from helpers import assert_same, interrupt_at, load, small
from PIL import Image

import cyclegan
import translate
from inference.load import load_generator
from models import GeneratorResNet
from utils import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of the shape of ImageNet's weights -> paths by name."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18.pth")
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])  # without the large classifier
    torch.save({f"features.{k}": v for k, v in layers.state_dict().items()}, folder / "vgg16.pth")
    return {"RESNET": str(folder / "resnet18.pth"), "VGG": str(folder / "vgg16.pth")}


@pytest.fixture
def tiny(make_set, tmp_path, monkeypatch, weights):
    """tiny("--option VALUE ...") runs main in tmp_path, on 4 + 5 images."""
    make_set(size=(72, 72))
    monkeypatch.chdir(tmp_path)

    def train(options="", *more):
        words = [weights.get(word, word) for word in options.split()]
        return cyclegan.main([*small(words), *words, *more])

    return train


VARIANTS = [
    "--generator unet --num_downs 5 --dropout",
    "--generator unet --num_downs 3 --upsample nearest",
    "--generator multiscale --img_height 64 --img_width 64",
    "--generator multiscale --attention --separable --dropout 0.3 --img_height 64 --img_width 64",
    "--generator pretrained --encoder_weights RESNET --img_height 64 --img_width 64",
    "--norm batch",
    "--norm batch --batch_size 2 --generator unet --num_downs 4 --ema",
    "--norm none --spectral_norm",
    "--attention --checkpoint_activations",
    "--separable --dropout",
    "--dropout --checkpoint_activations",
    "--noise_channels 3 --lambda_diversity 1",
    "--noise_channels 2 --checkpoint_activations --ema 0.9 --accumulate 2",
    "--generator unet --num_downs 5 --noise_channels 2 --norm batch --lambda_diversity 1",
    "--dropout --lambda_diversity 1",
    "--discriminator multiscale --n_scales 2 --img_height 64 --img_width 64 --spectral_norm",
    "--discriminator pixel",
    "--discriminator multiscale --n_scales 2 --img_height 64 --img_width 64 --freeze_D 3",
    "--freeze_D 2 --spectral_norm --norm batch --clip_grad 0.1",
    "--gan_loss vanilla --label_smoothing 0.1",
    "--gan_loss hinge",
    "--lambda_ssim 1 --lambda_freq 1 --lambda_feat 1 --lambda_style 1 --lambda_paired 1",
    "--lambda_perceptual 1 --lambda_style 1 --vgg_weights VGG",
    "--lambda_cyc 0 --lambda_ssim 1 --lambda_id 0",
    "--lr_schedule cosine --lr_G 0.001 --lr_D 0.0001",
    "--lr_schedule step --n_critic 2",
    "--n_gen 2 --clip_grad 0.1",
    "--ema 0.9",
    "--n_iters 15",
    "--ratio_A 0.5:2 --batch_size 2",
    "--color_jitter --rotate",
    "--diffaugment",
    "--lambda_gp 4 --gp_at mix --spectral_norm",
    "--lambda_cyc_end 1 --cycle_noise 0.1",
    "--lambda_cycfeat 1",
    "--lambda_nce 1 --ema 0.9",
    "--lambda_nce 1 --lambda_cyc 0 --lambda_id 0 --checkpoint_activations",
    "--antialias --residual",
    "--antialias --residual --generator unet --num_downs 4",
    "--batch_deviation --batch_size 2 --antialias",
    "--progressive 32:2,40:2",
]


@pytest.mark.parametrize("options", VARIANTS)
def test_every_variant_trains_resumes_and_translates(tiny, monkeypatch, options):
    more = () if "progressive" in options or "n_iters" in options else ("--n_epochs", "4")
    tiny(options, *more, "--run_name", "whole")
    whole = load("saved_models/whole/latest.pth")
    assert whole["step"] >= 8
    with monkeypatch.context() as patch:
        interrupt_at(patch, step=3 * whole["step"] // 5)
        assert tiny(options, *more) == 128 + signal.SIGINT
    assert 0 < load()["step"] < whole["step"]
    cyclegan.main(["--dataset_name", "tiny", "--device", "cpu", "--resume"])  # its options are in the checkpoint
    resumed = load()
    whole["options"] = resumed["options"] = None
    assert_same(whole, resumed)

    last = max(name for name in os.listdir("saved_models/tiny") if name.startswith("G_AB_"))
    Image.effect_noise((71, 90), 80).convert("RGB").save("photo.png")
    pixels = {}
    for path in (f"saved_models/tiny/{last}", "saved_models/tiny/latest.pth"):
        arguments = [
            "--checkpoint",
            path,
            "--input",
            "photo.png",
            "--output",
            "out.png",
            "--overwrite",
            "--device",
            "cpu",
        ]
        assert translate.main([*arguments, "--no-amp"]) == 0
        pixels[path] = np.asarray(Image.open("out.png"))
        assert pixels[path].shape == (90, 71, 3) and pixels[path].std() > 0
    assert np.array_equal(*pixels.values())


def test_a_generator_edited_in_models_is_translated_from_its_full_checkpoint(tiny, monkeypatch):
    class Edited(GeneratorResNet):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.model.insert(0, torch.nn.Conv2d(3, 3, 1))

    full, alone = (f"saved_models/tiny/{name}.pth" for name in ("latest", "G_AB_1"))
    with monkeypatch.context() as edit:
        edit.setattr("variants.build.GeneratorResNet", Edited)
        tiny("--n_epochs 1")
        assert isinstance(load_generator(full, "AB").network, Edited)
    with pytest.raises(InputError, match=f"{alone}: not a known generator .*Expected a checkpoint of cyclegan.py"):
        load_generator(alone)
    with pytest.raises(InputError, match=f"{full}: .*not the one that make_generator in variants/build.py builds here"):
        load_generator(full, "AB")


def test_a_resumed_run_keeps_the_projections_of_nce(tiny):
    resume = ["--dataset_name", "tiny", "--resume", "--lambda_nce"]
    for trained, other, word in (("1", "0", "with"), ("0", "1", "without")):
        tiny(f"--lambda_nce {trained}", "--n_epochs", "1")
        path = "saved_models/tiny/latest.pth"
        with pytest.raises(InputError, match=f"--lambda_nce {other}: {path} was trained {word} .*--start_from {path}"):
            cyclegan.get_options([*resume, other])
        assert cyclegan.get_options([*resume, trained])[0].lambda_nce == float(trained)
    state = torch.load(path)
    torch.save(state | {"options": state["options"] | {"lambda_nce": 1.0, "generator": "unet"}}, path)
    with pytest.raises(InputError, match="damaged, its options for G_AB do not fit together") as error:
        cyclegan.get_options(resume[:-1])
    assert "\n" not in str(error.value)


def test_damaged_files_of_other_networks_are_one_line(tiny):
    tiny("--attention --norm batch", "--n_epochs", "1")
    full, alone = load("saved_models/tiny/latest.pth"), load("saved_models/tiny/G_AB_1.pth")
    assert alone.keys() == {"generator", "weights"} and alone["generator"]["norm"] == "batch"
    nan = {key: tensor.clone() for key, tensor in alone["weights"].items()}
    nan["model.1.weight"][0] = float("nan")
    for state, message in (
        (full | {"options": []}, "damaged, its options are a list"),
        (full | {"options": full["options"] | {"channels_A": 5}}, "damaged, or its generator is not"),
        (alone | {"weights": None}, "damaged, or its generator is not"),
        (alone | {"generator": alone["generator"] | {"norm": "instance"}}, "damaged, or its generator is not"),
        (alone | {"generator": alone["generator"] | {"generator": "unet"}}, "damaged, .*do not fit together"),
        (alone | {"generator": alone["generator"] | {"generator": "vae"}}, "damaged, its option generator is 'vae'"),
        (alone | {"weights": nan}, "has weights that are not finite"),
    ):
        torch.save(state, "odd.pth")
        with pytest.raises(InputError, match=f"odd.pth: .*{message}") as error:
            load_generator("odd.pth")
        assert "\n" not in str(error.value)
    torch.save(full | {"options": {k: v for k, v in full["options"].items() if k != "num_downs"}}, "older.pth")
    G = load_generator("older.pth").network  # an option that came later
    assert_same(dict(G.state_dict()), dict(full["G_AB"]))
