"""
Metrics for the quality of translations. They process one batch at a time and keep sums, so memory use does not grow
with the number of images.

FID, KID, LPIPS and PSNR are torchmetrics' implementation, the Inception network is torch-fidelity's. The weights of the
networks are downloaded on first use, or read from a file.
"""

import contextlib
import math
import os
import tempfile
import warnings

import numpy as np
import torch
from PIL import Image

from get_data.pairs import SSIM_WINDOW, l1, psnr_of_pairs, ssim  # noqa: F401 (part of what this module offers)
from media.files import load_published
from utils import InputError

KID_LIMIT = 10_000  # KID stores features; it gets at most this many images a set, evenly spaced. KID stays unbiased.


class Unavailable(InputError):
    """A metric cannot be computed here: a package is missing, or its weights cannot be downloaded."""


def weights_error(flag, path, file, error):
    """Returns the exception to raise when the weights of a network cannot be loaded.

    flag: the option that names a local file
    path: that file, or None if the weights were to be downloaded
    file: the URL of the expected weights
    """
    reason = " ".join(str(error).split())[:100]
    if path:
        return InputError(f"{flag} {path}: does not contain the expected weights, {file} ({reason})")
    return Unavailable(f"cannot download {file} ({reason}). Download it on another machine and pass it with {flag}")


##############################
#       Sets of images
##############################


class SetDistance(torch.nn.Module):
    """FID (Heusel et al., 2017, arXiv:1706.08500) and KID (Bińkowski et al., 2018, arXiv:1801.01401) between a set of
    real images and a set of translations.

    The formula of FID is torch-fidelity's and the original authors'. KID is the mean over 100 random subsets of 1000
    images of each set, as published. If a set is smaller, the subsets have its size; if both sets have at most that
    size, there is one subset, which is everything.

    n_features:     number of features that describe an image
    n_real, n_fake: number of images in each set
    subsets, subset_size: (attributes) number of subsets of KID, and the number of images of each set in them
    """

    def __init__(self, n_features, n_real, n_fake):
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        super().__init__()
        # Both metrics receive features instead of images, so the Inception network runs once per image.
        features = torch.nn.Identity()
        features.num_features = n_features
        self.fid = FrechetInceptionDistance(features, reset_real_features=False).set_dtype(torch.float64)
        self.strides = {True: -(-n_real // KID_LIMIT), False: -(-n_fake // KID_LIMIT)}
        kept = [-(-n_real // self.strides[True]), -(-n_fake // self.strides[False])]
        self.subset_size = min(1000, *kept)
        self.subsets = 100 if max(kept) > self.subset_size else 1  # of all images, they would be equal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns about memory, which KID_LIMIT bounds
            self.kid = KernelInceptionDistance(
                features, subsets=self.subsets, subset_size=self.subset_size, reset_real_features=False
            )
        self.seen = {True: 0, False: 0}

    def update(self, features, real):
        """Adds features (N, n_features) of real images or of translations."""
        self.fid.update(features.double(), real=real)
        indices = torch.arange(self.seen[real], self.seen[real] + len(features))
        self.seen[real] += len(features)
        chosen = features[(indices % self.strides[real] == 0).to(features.device)]
        if len(chosen):
            self.kid.update(chosen, real=real)

    def compute(self):
        """Returns (FID, KID). Resets the translations and keeps the real images for the next set of translations."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # KID draws random subsets
            values = self.fid.compute().item(), self.kid.compute()[0].item()
        self.fid.reset()
        self.kid.reset()
        self.seen[False] = 0
        return values


# How images get to the 299 x 299 pixels of the Inception network: name of the package with that definition, and what
# it does. Numbers are only comparable if they were measured in the same way.
RESIZING = {
    "torch-fidelity": "bilinear as in TensorFlow 1, without antialiasing",
    "clean-fid": "bicubic with antialiasing, by Pillow, per channel in float32",
}


class Inception(torch.nn.Module):
    """The Inception network of the published FID and KID: uint8 images (N, 3, H, W) -> features (N, 2048).

    network: torch-fidelity's FeatureExtractorInceptionV3
    resize:  "torch-fidelity" for the features of that package, bit for bit, which are those of the original
             implementation; "clean-fid" resizes as Parmar et al., 2022, arXiv:2104.11222
    """

    def __init__(self, network, resize="torch-fidelity"):
        super().__init__()
        self.network, self.resize = network, resize

    def forward(self, images):
        if self.resize == "torch-fidelity":
            return self.network(images)[0]
        x = (resize_clean(images) - 128) / 128
        for name, layer in self.network.named_children():  # they are in the order in which forward calls them
            if name != "fc":
                x = layer(x)
        return x.flatten(1)


def resize_clean(images, size=299):
    """Resizes images as clean-fid does: uint8 (N, C, H, W) -> float32 (N, C, size, size), from 0 to 255, not rounded.
    The filter is Pillow's bicubic, which is as wide as the scale requires, on one channel at a time."""
    planes = images.flatten(0, 1).cpu().float().numpy()
    resized = [np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized).clip(0, 255)).unflatten(0, images.shape[:2]).to(images.device)


def inception(weights=None, resize="torch-fidelity"):
    """Loads the network of the published FID and KID -> Inception.

    weights: path of weights-inception-2015-12-05-6726825d.pth; None downloads it
    resize:  see Inception
    Raises Unavailable if a package is missing or the download fails, InputError if the file is wrong.
    """
    try:
        import torchmetrics  # noqa: F401 (SetDistance needs it)
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError:
        raise Unavailable("pip install torchmetrics torch-fidelity")
    try:
        with weights_folder(weights, URL_INCEPTION_V3) as folder:
            path = f"{folder}/checkpoints/{os.path.basename(URL_INCEPTION_V3)}"
            return Inception(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path), resize)
    except Exception as error:  # no network, a proxy, a corrupt file
        raise weights_error("--inception_weights", weights, URL_INCEPTION_V3, error)


@contextlib.contextmanager
def weights_folder(path, url):
    """For a `with` block: a temporary folder in which torch.hub finds the weights of `url`, or those in the file `path`.

    The packages load weights with torch.load(weights_only=False), which executes code in a file, and not all of them
    check what they downloaded. So they get a copy, written here from what load_published accepts.
    """
    hub = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/checkpoints")
        torch.save(load_published(url, path), f"{folder}/checkpoints/{os.path.basename(url)}")
        try:
            torch.hub.set_dir(folder)
            yield folder
        finally:
            torch.hub.set_dir(hub)


def lpips(weights=None):
    """Loads LPIPS with AlexNet (Zhang et al., 2018, arXiv:1801.03924), which maps two batches of images in [-1, 1] to
    distances (N,).

    weights: path of torchvision's alexnet-owt-7be5be79.pth; None downloads it
    Raises Unavailable if a package is missing or the download fails, InputError if the file is wrong.
    """
    try:
        from torchmetrics.functional.image import learned_perceptual_image_patch_similarity  # noqa: F401
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError:
        raise Unavailable("pip install torchmetrics")
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.IMAGENET1K_V1.url
    try:
        with weights_folder(weights, url):
            return LearnedPerceptualImagePatchSimilarity("alex", reduction="none")
    except Exception as error:
        raise weights_error("--lpips_weights", weights, url, error)


##############################
#       Pairs of images
##############################


def psnr(a, b):
    """Returns the PSNR in dB of two batches in [-1, 1], from the mean squared error over the whole batch. It is
    infinite for equal batches."""
    return psnr_of_error((a - b).square().mean().item())


def psnr_of_error(mean_squared_error):
    """Returns the PSNR in dB for a mean squared error between images in [-1, 1]."""
    return 10 * math.log10(4 / mean_squared_error) if mean_squared_error else math.inf
