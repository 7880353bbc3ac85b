"""
How much several translations of one image differ, and how good the best of them is (evaluate.py --n_samples).
"""

import itertools

import torch

from inference.samples import Sample, translate_sample
from measuring.images import from_uint8, image_batches, stack_images, to_float, to_uint8
from measuring.metrics import l1


@torch.no_grad()
def measure_samples(direction, G, data, scores, settings, paired, translate):
    """Translates each test image settings.n_samples times and adds to `scores`: the mean distance of two translations of an
    image, over all pairs; with `paired`, the measures of add_quality.

    direction: "AB" or "BA"
    scores:    scores.Scores
    settings:  evaluation.Settings; n_samples is at least 2, and the samples are those of translate.py with this seed
    translate: function (G, x) -> G(x), float32
    """
    source, target = direction
    samples = [Sample(settings.seed, number) for number in range(1, settings.n_samples + 1)]
    is_deep, truths, done = data.is_deep(direction), data.truths(direction), 0
    loading = settings.loading(source) | dict(
        channels=G.channels, deep=data.deep[source], label=f"{source} -> {target}, {len(samples)} samples"
    )
    for images in image_batches(data.test[source], **loading):
        x, batch = to_float(images), slice(done, done + len(images))
        done += len(images)
        fakes = [translate_sample(G, x, sample, translate) for sample in samples]
        seen = [fake.clamp(-1, 1) if is_deep else from_uint8(to_uint8(fake)) for fake in fakes]
        add_diversity(scores, seen)
        if paired:
            reading = settings.reading(target) | dict(channels=G.out_channels, deep=data.deep[target])
            add_quality(scores, seen, to_float(stack_images(truths[batch], **reading).to(settings.device)))


def add_diversity(scores, samples):
    """samples: list of (N, C, H, W) in [-1, 1], translations of the same N images"""
    for one, other in itertools.combinations(samples, 2):
        scores.add("diversity_l1", l1(one, other))
        scores.add_lpips("diversity_lpips", one, other)


def add_quality(scores, samples, truth):
    """L1, PSNR and SSIM to the truth: of the best of the samples by each measure, and the mean over the samples. L1 is
    better the lower it is, the others the higher. truth: (N, C, H, W)"""
    for name, measure in {"l1": l1, **scores.available.pair}.items():
        if measure:
            values = torch.stack([measure(sample, truth) for sample in samples])  # (samples, N)
            scores.add(f"best_{name}", values.amin(0) if name == "l1" else values.amax(0))
            scores.add(f"mean_{name}", values.mean(0))
