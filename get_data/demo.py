"""
The demo data set: 64 x 64 scenes with horses (domain A) and zebras (domain B), and a score for translations of them.

The scenes are drawn, so nothing is downloaded, and a training run takes minutes on a laptop. The correct translation of
each test scene is known, because it is drawn with both animals.

    data/demo/trainA  trainB     unpaired: every scene is different and has animals of one kind
    data/demo/testA   testB      paired: files of the same name show the same scene
    data/demo/test_mask          255 inside the animals, 0 outside

CycleGAN itself does not need this module. You can skip it on a first reading.
"""

import os
import time

import numpy as np
import torch
from PIL import Image, ImageFilter

from command_line.progress import Progress
from command_line.terminal import say
from get_data.part import complete_folder
from get_data.scenes import DEMO, draw_scene

N_TRAIN, N_TEST = 300, 50


def write_demo(root, colours=DEMO):
    """Draws the data set into the folder `root`, which only appears once the data set is complete.

    colours: scenes.Colours of the animals. With OTHER, the shapes and landscapes are those of the demo"""
    say(f"drawing {root}: {N_TRAIN} scenes with horses, {N_TRAIN} others with zebras, {N_TEST} with both")
    progress, started, done = Progress(), time.monotonic(), 0
    with complete_folder(root) as temporary:
        for number, split in enumerate(("trainA", "trainB", "test")):
            for i in range(N_TEST if split == "test" else N_TRAIN):
                horse, zebra, mask = draw_scene(np.random.default_rng((number, i)), colours=colours)
                pictures = {"testA": horse, "testB": zebra, "test_mask": mask}
                if split != "test":
                    pictures = {split: horse if split == "trainA" else zebra}
                for folder, picture in pictures.items():
                    os.makedirs(os.path.join(temporary, folder), exist_ok=True)
                    picture.save(os.path.join(temporary, folder, f"{i:04d}.png"))
                done += 1
                progress.tick(done, 2 * N_TRAIN + N_TEST, "scenes", started)
    progress.end_line()


##############################
#   The score
##############################


def colour_shares(picture, original, mask, animal):
    """Measures whether a translation recoloured the animals and kept the background.

    picture:  the translation, uint8 (H, W, 3)
    original: the scene that was translated, uint8 (H, W, 3)
    mask:     255 inside the animals and 0 outside, uint8 (H, W)
    animal:   the target, "horse" or "zebra"

    Returns (inside, outside), both from 0 to 1:
    inside:  share of the animals' pixels that are brown (horse), or black or white in stripes (zebra)
    outside: share of the background's pixels that kept their colour: no channel changed by more than 40 of 255
    Pixels on the edge of an animal mix both and are not counted.
    """
    rgb = picture.astype(int)
    inside, outside = mask > 230, mask < 25
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    if animal == "horse":
        correct = (red - blue > 20) & (red > green) & (green >= blue - 8) & (red < 225)
    else:
        gray = rgb.mean(-1)
        neutral = rgb.max(-1) - rgb.min(-1) < 50
        dark, light = neutral & (gray < 115), neutral & (gray > 140)
        # in a stripe, the other colour is at most 4 pixels away
        correct = (dark & dilate(light & inside)) | (light & dilate(dark & inside))
    kept = np.abs(rgb - original.astype(int)).max(-1) <= 40
    return correct[inside].mean(), kept[outside].mean()


def dilate(mask, distance=4):
    """Returns a boolean array (H, W) that is True within `distance` rows and columns of a True pixel of `mask`."""
    picture = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * distance + 1))) > 0


@torch.no_grad()
def score(G_AB, G_BA, root, device):
    """Translates all test scenes in both directions and prints the mean `colour_shares`.

    Two more results are there for comparison: the scenes without any translation, and the correct translations.
    Returns {direction: {"translated" | "untranslated" | "true answer": [inside, outside]}}.
    """
    shares = {}
    for direction, G, source, target, animal in (
        ("A->B", G_AB, "testA", "testB", "zebra"),
        ("B->A", G_BA, "testB", "testA", "horse"),
    ):
        rows = {"translated": [], "untranslated": [], "true answer": []}
        for name in sorted(os.listdir(os.path.join(root, "test_mask"))):
            original, truth, mask = (
                np.array(Image.open(os.path.join(root, f, name))) for f in (source, target, "test_mask")
            )
            image = torch.from_numpy(original).permute(2, 0, 1)[None].to(device) / 127.5 - 1
            fake = ((G(image)[0].float().cpu().permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
            for row, picture in zip(rows.values(), (fake, original, truth)):
                row.append(colour_shares(picture, original, mask, animal))
        shares[direction] = {name: np.mean(row, axis=0).tolist() for name, row in rows.items()}
    say("share of the animal's pixels in the other animal's colours | share of the background that kept its colour")
    for direction, rows in shares.items():
        say(f"  {direction}  " + "   ".join(f"{name} {a:.3f} | {b:.3f}" for name, (a, b) in rows.items()))
    return shares
