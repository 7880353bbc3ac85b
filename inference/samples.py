"""
Several translations of one image (--n_samples), from generators trained with --noise_channels or with --dropout.

A sample is determined by --seed and its number alone: sample 2 of every image has the same noise and the same dropout
masks, whatever else is translated. So has every frame of a video, which therefore does not flicker more than without.
"""

import contextlib
import dataclasses

import numpy as np
import torch
from torch import nn

from inference.exported import Exported
from inference.load import options_beside
from utils import InputError
from variants.noise import with_noise
from variants.parts import use_dropout

AUTHORS_DROPOUT = 0.5  # of files that do not say what they were trained with


@dataclasses.dataclass(frozen=True)
class Sample:
    """One of several translations of an image. seed: 0 to 2^32, --seed; number: from 1"""

    seed: int
    number: int

    def random_seed(self):
        """-> int, different for each seed and number"""
        return int(np.random.SeedSequence((self.seed, self.number)).generate_state(1, np.uint64)[0] >> 1)

    def noise(self, generator, device):
        """-> the noise of a generator, (1, noise_channels), drawn on the CPU: the same on each device"""
        dice = torch.Generator().manual_seed(self.random_seed())
        return torch.randn(1, generator.noise_channels, generator=dice).to(device)


def has_noise(G):
    return getattr(G, "noise_channels", 0) > 0


def dropouts(G):
    """-> list of the dropout layers of a generator"""
    return [part for part in G.modules() if isinstance(part, nn.Dropout)]


def prepare_sampling(trained):
    """Makes TrainedGenerators ready for `sampling`. In place: state dicts do not hold dropout, so it is added again,
    with the probability of the training. Raises InputError if none of them has more than one translation of an image.

    trained: list of TrainedGenerator"""
    for one in trained:
        if getattr(one.network, "had_dropout", False):
            use_dropout(one.network, dropout_of(one))
            one.network.eval()
    if not any(has_noise(one.network) or dropouts(one.network) for one in trained):
        exported = isinstance(trained[0].network, Exported)
        why = "an exported file" if exported else "trained without --noise_channels and --dropout"
        raise InputError(f"--n_samples: {trained[0].path} has one translation of each image only, as it is {why}")


def dropout_of(trained):
    """The dropout of the training of a TrainedGenerator whose state dict shows that it had some."""
    return (trained.options or options_beside(trained.path)).get("dropout") or AUTHORS_DROPOUT


@contextlib.contextmanager
def sampling(G, sample, device):
    """In a `with` block, G translates as a Sample says: its noise is fixed, its dropout layers are on, and the masks
    depend on the sample and on the size of the image only. Other layers stay in eval mode. The random numbers of the
    rest of the program are not changed."""
    layers, fixed = dropouts(G), contextlib.nullcontext()
    if has_noise(G):
        fixed = with_noise(G, sample.noise(G, device))
    with fixed, torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=bool(layers)):
        if layers:
            torch.manual_seed(sample.random_seed())
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()


def translate_sample(G, x, sample, translate):
    """The translations of images (N, C, H, W) for one Sample. One image at a time, because the dropout masks of a batch,
    and its last digits, depend on the size of the batch.

    translate: function (G, x) -> G(x)"""
    results = []
    for image in (x.contiguous() if dropouts(G) else x).split(1):  # masks are drawn in the order of the memory
        with sampling(G, sample, x.device):
            results.append(translate(G, image))
    return torch.cat(results)
