"""
The data set demo_volumes: balls in a gray volume, bright in domain A and dark in domain B, and a score for translations of
them. It is to --dims 3 and --slices what get_data/demo.py is to images.

The volumes are drawn, so the correct translation of each test volume is known: the balls change, the rest stays.

    data/demo_volumes/trainA  trainB    unpaired: every volume is different
    data/demo_volumes/testA   testB     paired: files of the same name show the same balls
    data/demo_volumes/test_mask         255 inside the balls, 0 outside
"""

import os

import numpy as np

from command_line.terminal import say
from get_data.part import complete_folder

SHAPE = (40, 48, 48)  # depth, height, width of a volume
N_TRAIN, N_TEST = 40, 8
VALUES = {"A": 215, "B": 30}  # of the balls. The rest is between 85 and 135


def draw_volume(rng, shape=SHAPE):
    """Draws one random volume twice, with bright and with dark balls in the same places.

    rng: numpy.random.Generator
    Returns (A, B, mask): uint8 (D, H, W); the mask is 255 inside the balls, 0 outside, and between on their surfaces."""
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) + 0.5
    background = np.full(shape, 110.0)
    for _ in range(4):  # waves of low frequency
        wave = at @ (rng.normal(size=3) * 0.12) + rng.uniform(0, 6.3)
        background += 5 * np.sin(wave)
    background += rng.normal(0, 2, shape)
    coverage = np.zeros(shape)
    for _ in range(rng.integers(2, 5)):
        radii, centre = rng.uniform(5, 9, 3), rng.uniform(0.2, 0.8, 3) * shape
        distance = np.sqrt((((at - centre) / radii) ** 2).sum(-1))
        coverage = np.maximum(coverage, np.clip((1 - distance) * radii.min() + 0.5, 0, 1))  # 1 voxel of transition
    shade = rng.normal(0, 8)
    drawn = [background * (1 - coverage) + (VALUES[domain] + shade) * coverage for domain in "AB"]
    return tuple(np.clip(np.round(values), 0, 255).astype(np.uint8) for values in (*drawn, coverage * 255))


def write_demo_volumes(root):
    """Draws the data set into the folder `root`, which only appears once the data set is complete."""
    say(f"drawing {root}: {N_TRAIN} volumes with bright balls, {N_TRAIN} others with dark ones, {N_TEST} with both")
    with complete_folder(root) as temporary:
        for number, split in enumerate(("trainA", "trainB", "test")):
            for i in range(N_TEST if split == "test" else N_TRAIN):
                A, B, mask = draw_volume(np.random.default_rng((number, i)))
                volumes = {"testA": A, "testB": B, "test_mask": mask}
                if split != "test":
                    volumes = {split: A if split == "trainA" else B}
                for folder, volume in volumes.items():
                    os.makedirs(os.path.join(temporary, folder), exist_ok=True)
                    np.save(os.path.join(temporary, folder, f"{i:04d}.npy"), volume)


##############################
#   The score
##############################


def shares(volume, original, mask, target):
    """Measures whether a translation changed the balls and kept the rest.

    volume:   the translation; original: what was translated; uint8 (D, H, W)
    mask:     255 inside the balls and 0 outside; the surfaces are not counted
    target:   the domain of the translation, "A" or "B"
    Returns (inside, outside), both from 0 to 1: the share of the balls' voxels that are nearer to the balls of the target
    than to the background, and the share of the other voxels that changed by at most 25 of 255."""
    inside, outside = mask > 230, mask < 25
    middle = (VALUES[target] + 110) / 2
    correct = volume > middle if target == "A" else volume < middle
    kept = np.abs(volume.astype(int) - original.astype(int)) <= 25
    return correct[inside].mean(), kept[outside].mean()


def score(translate, root):
    """Translates all test volumes in both directions and prints the mean `shares` and the error.

    translate: {direction: function uint8 (D, H, W) -> the same}
    Also scored are the volumes without translation and the correct translations.
    Returns {direction: {"translated" | "untranslated" | "true answer": [inside, outside, L1 to the true answer]}}."""
    results = {}
    for direction, function in translate.items():
        source, target = direction
        rows = {"translated": [], "untranslated": [], "true answer": []}
        for name in sorted(os.listdir(os.path.join(root, "test_mask"))):
            folders = (f"test{source}", f"test{target}", "test_mask")
            original, truth, mask = (np.load(os.path.join(root, folder, name)) for folder in folders)
            for row, volume in zip(rows.values(), (function(original), original, truth)):
                error = np.abs(volume.astype(int) - truth.astype(int)).mean()
                row.append([*shares(volume, original, mask, target), error])
        results[direction] = {name: np.mean(row, axis=0).tolist() for name, row in rows.items()}
    say(
        "share of the balls' voxels with the other domain's values | share of the others kept | L1 to the true answer, of 255"
    )
    for direction, rows in results.items():
        texts = [f"{name} {a:.3f} | {b:.3f} | {c:.1f}" for name, (a, b, c) in rows.items()]
        say(f"  {direction[0]}->{direction[1]}  " + "   ".join(texts))
    return results
