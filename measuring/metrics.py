"""
Measures of how good translations are. Each one is given batches and keeps sums, so that 100,000 images need no more
memory than 100.

Distances between two sets of images (FID, KID) and perceptual distance (LPIPS) are those of torchmetrics; its networks'
weights are downloaded on first use, or come from a file.
"""

import os
import shutil
import tempfile
import warnings

import numpy as np
import torch
from PIL import Image

from media.images import load_image, open_image
from utils import InputError

KID_LIMIT = 10_000  # images of a set: KID keeps all features it is given. It has no bias that falls with their number

# The 19 classes that Cityscapes scores, in the colours of its label images; all other colours are not scored
CITYSCAPES = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30), "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180), "person": (220, 20, 60),
    "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100), "train": (0, 80, 100),
    "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
# unlabeled, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan, trailer
CITYSCAPES_VOID = [
    (0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180), (150, 100, 100),
    (150, 120, 90), (0, 0, 90), (0, 0, 110),
]  # fmt: skip
VOID = 255


class Unavailable(InputError):
    """A package or a file that is not here, and cannot be fetched."""


def cannot_load(flag, path, file, error):
    """-> the error to raise if a network's weights could not be loaded from `path`, or if None, not be downloaded"""
    reason = " ".join(str(error).split())[:100]
    if path:
        return InputError(f"{flag} {path}: not the weights that are needed, {file} ({reason})")
    return Unavailable(f"{file} cannot be downloaded ({reason}). Download it elsewhere and give it as {flag}")


##############################
#       Sets of images
##############################


class SetDistance(torch.nn.Module):
    """FID (Heusel et al., 2017, arXiv:1706.08500) and KID (Bińkowski et al., 2018, arXiv:1801.01401) of translated
    images to one set of real ones.

    n_features:     of the network that describes the images
    n_real, n_fake: numbers of images that will come
    """

    def __init__(self, n_features, n_real, n_fake):
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        super().__init__()
        # Features are given to both, so that the expensive network runs once an image
        given = torch.nn.Identity()
        given.num_features = n_features
        self.fid = FrechetInceptionDistance(given, reset_real_features=False).set_dtype(torch.float64)
        self.strides = {True: -(-n_real // KID_LIMIT), False: -(-n_fake // KID_LIMIT)}
        kept = [-(-n_real // self.strides[True]), -(-n_fake // self.strides[False])]
        subset_size = min(1000, *kept)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the memory it takes, which is bounded here
            self.kid = KernelInceptionDistance(
                given,
                subsets=100 if max(kept) > subset_size else 1,
                subset_size=subset_size,
                reset_real_features=False,
            )
        self.seen = {True: 0, False: 0}

    def update(self, features, real):
        """features: (N, n_features), of real or translated images"""
        self.fid.update(features.double(), real=real)
        numbers = torch.arange(self.seen[real], self.seen[real] + len(features))
        self.seen[real] += len(features)
        chosen = features[(numbers % self.strides[real] == 0).to(features.device)]
        if len(chosen):
            self.kid.update(chosen, real=real)

    def compute(self):
        """-> (FID, KID); forgets the translated images, keeps the real ones."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # KID draws subsets
            values = self.fid.compute().item(), self.kid.compute()[0].item()
        self.fid.reset()
        self.kid.reset()
        self.seen[False] = 0
        return values


def inception(weights=None):
    """The network of FID and KID as published -> module, uint8 (N, 3, H, W) -> (N, 2048).

    weights: the file weights-inception-2015-12-05-6726825d.pth; None downloads it"""
    try:
        import torch_fidelity  # noqa: F401 (what torchmetrics takes the network from)
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError:
        raise Unavailable("pip install torchmetrics torch-fidelity")
    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except Exception as error:  # no network, a proxy, a broken file
        raise cannot_load("--inception_weights", weights, "weights-inception-2015-12-05-6726825d.pth", error)


def lpips(weights=None):
    """LPIPS with AlexNet (Zhang et al., 2018, arXiv:1801.03924) -> function of two batches in [-1, 1], (N,) distances.

    weights: torchvision's file of AlexNet, alexnet-owt-7be5be79.pth; None downloads it"""
    try:
        from torchmetrics.functional.image import learned_perceptual_image_patch_similarity  # noqa: F401
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError:
        raise Unavailable("pip install torchmetrics")
    from torchvision.models import AlexNet_Weights

    hub = torch.hub.get_dir()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if weights:  # where torch looks before it downloads
                os.makedirs(f"{folder}/checkpoints")
                shutil.copyfile(weights, f"{folder}/checkpoints/{os.path.basename(AlexNet_Weights.IMAGENET1K_V1.url)}")
                torch.hub.set_dir(folder)
            metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none")
    except Exception as error:
        raise cannot_load("--lpips_weights", weights, AlexNet_Weights.IMAGENET1K_V1.url, error)
    finally:
        torch.hub.set_dir(hub)
    return metric


##############################
#       Pairs of images
##############################


def pair_measures():
    """-> {"psnr", "ssim"}, functions of two batches in [-1, 1], (N,) values: the peak signal to noise ratio in dB; the
    structural similarity (Wang et al., 2004; 11 pixels wide, images reflected at the border), 1 for equal images."""
    try:
        from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    except ImportError:
        raise Unavailable("pip install torchmetrics")

    def psnr(a, b):
        each = [peak_signal_noise_ratio(x, y, data_range=(-1.0, 1.0)) for x, y in zip(a, b)]
        return torch.stack(each).clamp(max=100)  # of equal images it is infinite

    def ssim(a, b):
        a, b = (a + 1) / 2, (b + 1) / 2  # its term for brightness is meant for values that are not negative
        return structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")

    return {"psnr": psnr, "ssim": ssim}


def l1(a, b):
    """Mean absolute difference of each pair, (N, C, H, W) in [-1, 1] -> (N,), in gray levels of 255."""
    return (a - b).abs().mean((1, 2, 3)) * 127.5


##############################
#           Labels
##############################


def nearest_class(pixels, with_void=False):
    """uint8 (..., 3) in colours of Cityscapes -> uint8 (...): the class, 0 to 18, of the nearest colour; with_void lets
    the colours of what is not scored take part, as VOID."""
    colours = list(CITYSCAPES.values()) + (CITYSCAPES_VOID if with_void else [])
    palette = torch.tensor(colours, dtype=torch.float32)
    flat = torch.from_numpy(np.ascontiguousarray(pixels)).reshape(-1, 3).float()
    nearest = torch.cat([torch.cdist(part, palette).argmin(1) for part in flat.split(1 << 20)])
    nearest[nearest >= len(CITYSCAPES)] = VOID
    return nearest.to(torch.uint8).numpy().reshape(pixels.shape[:-1])


def load_labels(path, size):
    """A label image -> uint8 (height, width) of classes and VOID; nothing is interpolated between two colours."""
    with open_image(path) as image:
        image = image.convert("RGB")
        return nearest_class(np.array(image.resize(size[::-1], Image.Resampling.NEAREST)), with_void=True)


class LabelScore:
    """Per-pixel accuracy, per-class accuracy and class IoU (CycleGAN paper, section 5.1.1) over the classes that
    occur in the truth; what is VOID there is left out."""

    def __init__(self):
        n = len(CITYSCAPES)
        self.confusion = np.zeros((n, n), np.int64)  # [true class, predicted class]

    def update(self, predicted, truth):
        """Two uint8 arrays of classes, of one shape; `truth` may hold VOID -> share that is right, nan if none count"""
        n = len(CITYSCAPES)
        scored = truth != VOID
        pairs = truth[scored].astype(np.int64) * n + predicted[scored]
        self.confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
        return (predicted[scored] == truth[scored]).mean() if scored.any() else np.nan

    def compute(self):
        hits, true, predicted = np.diag(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        there = true > 0
        return {
            "pixel_accuracy": float(hits.sum() / max(1, true.sum())),
            "class_accuracy": float((hits[there] / true[there]).mean()) if there.any() else 0.0,
            "class_iou": float((hits[there] / (true + predicted - hits)[there]).mean()) if there.any() else 0.0,
        }


def share_of_palette(path):
    """Share of a picture's pixels that have exactly a colour of Cityscapes' labels, 0 to 1."""
    pixels = load_image(path).reshape(-1, 1, 3)
    return (pixels == np.array([*CITYSCAPES.values(), *CITYSCAPES_VOID], np.uint8)).all(2).any(1).mean()


def label_references(train, test, size):
    """What the score of label images means: that of the class most frequent at each pixel in training, and that of the
    true labels. Paths of label images -> {title: score}"""
    truth_score, constant_score = LabelScore(), LabelScore()
    constant = most_frequent_labels(train, size) if train else None
    for path in test:
        truth = load_labels(path, size)
        truth_score.update(nearest_class(load_image(path, size=size)), truth)
        if train:
            constant_score.update(constant, truth)
    references = {"the true labels": truth_score.compute()}
    if train:
        references["the most frequent training label at each pixel"] = constant_score.compute()
    return references


def most_frequent_labels(paths, size):
    """The class that is most frequent at each pixel over some label images -> uint8 (height, width)."""
    counts = np.zeros((len(CITYSCAPES), *size), np.int32)
    rows, columns = np.indices(size)
    for path in paths:
        labels = load_labels(path, size)
        scored = labels != VOID
        counts[labels[scored], rows[scored], columns[scored]] += 1
    return counts.argmax(0).astype(np.uint8)
