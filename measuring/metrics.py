"""
Metrics for the quality of translations. They process one batch at a time and keep sums, so memory use does not grow
with the number of images.

FID, KID and LPIPS are torchmetrics' implementations. The weights of their networks are downloaded on first use, or
read from a file.
"""

import math
import os
import shutil
import tempfile
import warnings

import torch

from utils import InputError

KID_LIMIT = 10_000  # KID stores features; it gets at most this many images a set, evenly spaced. KID stays unbiased.


class Unavailable(InputError):
    """A metric cannot be computed here: a package is missing, or its weights cannot be downloaded."""


def weights_error(flag, path, file, error):
    """Returns the exception to raise when the weights of a network cannot be loaded.

    flag: the option that names a local file
    path: that file, or None if the weights were to be downloaded
    file: the name or URL of the expected weights
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

    n_features:     number of features that describe an image
    n_real, n_fake: number of images in each set
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
        subset_size = min(1000, *kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns about memory, which KID_LIMIT bounds
            self.kid = KernelInceptionDistance(
                features,
                subsets=100 if max(kept) > subset_size else 1,
                subset_size=subset_size,
                reset_real_features=False,
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


def inception(weights=None):
    """Loads the Inception network of the published FID and KID, which maps uint8 images (N, 3, H, W) to features
    (N, 2048).

    weights: path of weights-inception-2015-12-05-6726825d.pth; None downloads it
    Raises Unavailable if a package is missing or the download fails, InputError if the file is wrong.
    """
    try:
        import torch_fidelity  # noqa: F401 (torchmetrics takes the network from it)
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError:
        raise Unavailable("pip install torchmetrics torch-fidelity")
    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except Exception as error:  # no network, a proxy, a corrupt file
        raise weights_error("--inception_weights", weights, "weights-inception-2015-12-05-6726825d.pth", error)


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

    hub = torch.hub.get_dir()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if weights:  # torch looks in this folder before it downloads
                os.makedirs(f"{folder}/checkpoints")
                shutil.copyfile(weights, f"{folder}/checkpoints/{os.path.basename(AlexNet_Weights.IMAGENET1K_V1.url)}")
                torch.hub.set_dir(folder)
            metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none")
    except Exception as error:
        raise weights_error("--lpips_weights", weights, AlexNet_Weights.IMAGENET1K_V1.url, error)
    finally:
        torch.hub.set_dir(hub)
    return metric


##############################
#       Pairs of images
##############################


def pair_measures():
    """Returns {"psnr": function, "ssim": function}. Each maps two batches in [-1, 1] to one value per pair, (N,).

    PSNR is in dB and at most 100. SSIM (Wang et al., 2004) has an 11 x 11 window and reflects images at the border; it
    is 1 for equal images. Both are torchmetrics', so they can be compared with published numbers. `psnr` below and the
    loss in variants/losses.py serve other purposes: they average over a batch and need no extra package.
    """
    try:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    except ImportError:
        raise Unavailable("pip install torchmetrics")

    def psnr(a, b):
        each = [peak_signal_noise_ratio(x, y, data_range=(-1.0, 1.0)) for x, y in zip(a, b)]
        return torch.stack(each).clamp(max=100)  # it is infinite for equal images

    def ssim(a, b):
        a, b = (a + 1) / 2, (b + 1) / 2  # SSIM's luminance term is defined for values that are not negative
        return structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")

    return {"psnr": psnr, "ssim": ssim}


def l1(a, b):
    """Returns the mean absolute difference of each pair, (N,), in gray levels of 255. Images are (N, C, H, W) in
    [-1, 1]."""
    return (a - b).abs().mean((1, 2, 3)) * 127.5


def psnr(a, b):
    """Returns the PSNR in dB of two batches in [-1, 1], from the mean squared error over the whole batch. It is
    infinite for equal batches."""
    return psnr_of_error((a - b).square().mean().item())


def psnr_of_error(mean_squared_error):
    """Returns the PSNR in dB for a mean squared error between images in [-1, 1]."""
    return 10 * math.log10(4 / mean_squared_error) if mean_squared_error else math.inf
