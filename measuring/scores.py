"""
Collects the measures of one direction over the batches of an evaluation.
"""

import torch

from measuring import metrics
from measuring.images import from_uint8, image_batches, to_uint8
from measuring.labels import LabelScore, load_labels, nearest_class
from utils import as_rgb


class AvailableMetrics:
    """The metrics that can be computed on this machine, and the features of the real images.

    extractor, lpips:       the Inception network and LPIPS; None where unavailable
    pair:                   {name: function} for pairs, or {name: None} where unavailable
    fid_resize:             how images are resized for FID and KID, see metrics.Inception
    size:                   (height, width) of the images, or None if it does not limit what can be measured
    missing:                {metric: reason} for the unavailable ones
    distances:              {domain: {protocol: metrics.SetDistance}}, filled by `add_real_images`
    """

    def __init__(self, device, inception_weights=None, lpips_weights=None, fid_resize="torch-fidelity", size=None):
        self.missing, self.distances, self.fid_resize = {}, {}, fid_resize
        self.extractor = self._load("FID, KID", lambda: metrics.inception(inception_weights, fid_resize).to(device))
        self.lpips = self._load("LPIPS", lambda: metrics.lpips(lpips_weights).to(device))
        self.pair = {"psnr": metrics.psnr_of_pairs, "ssim": metrics.ssim}
        if size and min(size) < metrics.SSIM_WINDOW:
            self.pair["ssim"] = None
            self.missing["SSIM"] = f"images of {size[1]} x {size[0]} pixels are smaller than its window of 11 x 11"

    def _load(self, name, load):
        try:
            return load()
        except metrics.Unavailable as error:
            self.missing[name] = str(error)

    @torch.no_grad()
    def add_real_images(self, domain, files, n_fake, channels, settings):
        """Extracts the features of all real images of a domain, once for all checkpoints.

        files:    {"test": paths, "train": paths}
        n_fake:   number of translations into this domain
        settings: see evaluation.Settings
        """
        if self.extractor is None or n_fake < 2:
            return
        blank = torch.zeros(1, 3, *settings.size, dtype=torch.uint8, device=settings.device)
        n_features = self.extractor(blank).shape[1]
        sets = {"test": files["test"], "train_test": files["test"] + files["train"]}
        distances = {
            protocol: metrics.SetDistance(n_features, len(paths), n_fake).to(settings.device)
            for protocol, paths in sets.items()
            if len(paths) > 1
        }
        for part in ("test", "train"):
            label = f"real images of {domain}"
            for images in image_batches(files[part], channels=channels, label=label, **settings.loading(domain)):
                features = self.extractor(as_rgb(images))
                for protocol, distance in distances.items():
                    if part == "test" or protocol == "train_test":
                        distance.update(features, real=True)
        self.distances[domain] = distances


class Scores:
    """Accumulates the measures of one direction.

    Images are float batches (N, C, H, W) in [-1, 1] unless a method asks for uint8. `add_change`, `add_cycle` and
    `add_labels` return the error of each image, (N,).

    target_domain: "A" or "B", for the distances of sets; None does not measure them
    deep:          images have more than 8 bits; LPIPS then sees them rounded to 8
    """

    def __init__(self, available, target_domain=None, deep=False):
        self.available, self.deep = available, deep
        self.distances = available.distances.get(target_domain, {})
        self.labels = None
        self.sums, self.counts = {}, {}

    def add(self, name, values):
        """Adds values (N,) of a measure; `compute` reports their mean."""
        self.sums[name] = self.sums.get(name, 0.0) + values.double().sum().item()
        self.counts[name] = self.counts.get(name, 0) + len(values)

    def add_lpips(self, name, a, b):
        """Adds the LPIPS distance between images, if available."""
        if self.available.lpips:
            if self.deep:
                a, b = from_uint8(to_uint8(a)), from_uint8(to_uint8(b))
            self.add(name, self.available.lpips(as_rgb(a), as_rgb(b)))

    def add_distribution(self, translated):
        """Adds uint8 translations to the distributions that FID and KID compare."""
        if self.distances:
            features = self.available.extractor(as_rgb(translated))
            for distance in self.distances.values():
                distance.update(features, real=False)

    def add_change(self, source, translated):
        """Adds the distances between inputs and translations, L1 and LPIPS. They may differ in channels; L1 is then not
        measured. Returns the L1 of each image, or zeros."""
        self.add_lpips("change_lpips", source, translated)
        if source.shape[1] != translated.shape[1]:
            return torch.zeros(len(source))
        changes = metrics.l1(translated, source)
        self.add("change_l1", changes)
        return changes

    def add_cycle(self, source, recovered):
        """Adds the distances between inputs and their reconstructions, L1 and LPIPS."""
        errors = metrics.l1(recovered, source)
        self.add("cycle_l1", errors)
        self.add_lpips("cycle_lpips", source, recovered)
        return errors

    def add_pairs(self, translated, truth):
        """Adds L1, PSNR, SSIM and LPIPS between translations and their counterparts. Returns the L1 of each image."""
        errors = metrics.l1(translated, truth)
        self.add("paired_l1", errors)
        for name, measure in self.available.pair.items():
            if measure:
                self.add(f"paired_{name}", measure(translated, truth))
        self.add_lpips("paired_lpips", translated, truth)
        return errors

    def add_labels(self, translated, truths, palette, keep_aspect=False):
        """Compares uint8 translations with the true label images at the paths `truths`. keep_aspect: see
        images.ResizedImages"""
        self.labels = self.labels or LabelScore(palette)
        size = tuple(translated.shape[2:])
        predicted = nearest_class(translated.permute(0, 2, 3, 1).cpu().numpy(), palette)
        correct = [
            self.labels.update(p, load_labels(path, size, palette, keep_aspect)) for p, path in zip(predicted, truths)
        ]
        return 1 - torch.tensor(correct)

    def compute(self):
        """Returns {name in report.MEASURES: value}, and with labels "iou_by_class": {class: value}."""
        values = {name: self.sums[name] / self.counts[name] for name in self.sums}
        if self.labels:
            values |= self.labels.compute() | {"iou_by_class": self.labels.ious()}
        for protocol, distance in self.distances.items():
            fid, kid = distance.compute()
            values |= {f"fid_{protocol}": fid, f"kid_{protocol}": kid * 1000}
        return values
