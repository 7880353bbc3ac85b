"""
The demo data set: small painted scenes with horses (domain A) and zebras (domain B), drawn by code, and the score of a
translation of them. It needs no download, trains in minutes on a laptop, and its true answers are known: each test
scene is drawn twice, once with each animal.

    data/demo/trainA  trainB     different scenes, of one animal each: unpaired, as CycleGAN needs them
    data/demo/testA   testB      the same scene under the same name
    data/demo/test_mask          where the animals are: 255 inside, 0 outside

Skip this file on first reading: CycleGAN itself knows nothing of it.
"""

import os
import shutil

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64  # pixels of a side
SUPERSAMPLE = 3  # drawn so many times larger, then reduced: smooth edges
N_TRAIN, N_TEST = 300, 50

SKIES = [((92, 160, 226), (206, 230, 246)), ((104, 168, 224), (214, 234, 242)), ((82, 146, 214), (190, 220, 242))]
GRASSES = [((126, 172, 84), (82, 134, 58)), ((146, 178, 86), (102, 142, 60)), ((112, 166, 80), (70, 126, 60))]
COATS = [(158, 90, 42), (132, 72, 36), (176, 110, 60), (112, 62, 34)]  # chestnut, bay, light and dark brown

# Outline of body, neck and head, facing right. Unit: the length of the body; x to the right, y down.
OUTLINE = [
    (-0.50, -0.14), (-0.42, -0.24), (-0.20, -0.22), (0.02, -0.19), (0.20, -0.26), (0.34, -0.47), (0.47, -0.66),
    (0.53, -0.69), (0.60, -0.62), (0.69, -0.49), (0.755, -0.40), (0.75, -0.34), (0.69, -0.325), (0.60, -0.40),
    (0.53, -0.41), (0.48, -0.24), (0.45, -0.06), (0.37, 0.07), (0.18, 0.12), (-0.06, 0.11), (-0.26, 0.06),
    (-0.44, 0.06), (-0.52, -0.03),
]  # fmt: skip


def smooth(points, steps=8):
    """A closed Catmull-Rom curve through `points`, an array (n, 2) -> (n * steps, 2)."""
    p0, p1, p2, p3 = (np.roll(points, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = p1 + t * (p2 - p0) / 2 + t**2 * (p0 - 2.5 * p1 + 2 * p2 - p3 / 2) + t**3 * (1.5 * (p1 - p2) + (p3 - p0) / 2)
    return curve.reshape(-1, 2)


def draw_background(rng, size):
    """Sky, sun or clouds, hills, a meadow with tufts and flowers, sometimes a tree -> RGB picture."""
    x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    top, bottom = (np.array(c) + rng.integers(-10, 11, 3) for c in SKIES[rng.integers(len(SKIES))])
    horizon = rng.uniform(0.40, 0.54)
    scene = top + (bottom - top) * np.clip(y / horizon, 0, 1)[..., None]

    for depth in range(2):  # two ranges of hills, the farther one bluer
        ridge = horizon - (0.13 - 0.07 * depth) + 0.05 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6))
        ridge = ridge + 0.015 * np.sin(x * rng.uniform(15, 25) + rng.uniform(0, 6))
        colour = np.array([(118, 150, 176), (98, 146, 116)][depth]) + rng.integers(-10, 11, 3)
        scene = np.where((y > ridge)[..., None], colour, scene)

    near, far = (np.array(c) + rng.integers(-8, 9, 3) for c in GRASSES[rng.integers(len(GRASSES))][::-1])
    meadow = far + (near - far) * np.clip((y - horizon) / (1 - horizon), 0, 1)[..., None]
    scene = np.where((y > horizon + 0.01 * np.sin(x * 7))[..., None], meadow, scene)
    picture = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))

    draw = ImageDraw.Draw(picture, "RGBA")
    if rng.random() < 0.5:  # sun
        cx, cy, r = rng.uniform(0.1, 0.9) * size, rng.uniform(0.08, 0.2) * size, rng.uniform(0.05, 0.08) * size
        for grow, alpha in ((1.7, 50), (1.3, 80), (1.0, 255)):
            draw.ellipse([cx - grow * r, cy - grow * r, cx + grow * r, cy + grow * r], fill=(255, 232, 140, alpha))
    for _ in range(rng.integers(0, 3)):  # clouds
        cx, cy, r = rng.uniform(0, 1) * size, rng.uniform(0.06, 0.22) * size, rng.uniform(0.03, 0.05) * size
        for dx, grow in ((-1.6, 0.8), (-0.4, 1.2), (0.9, 1.0), (1.9, 0.7)):
            box = [cx + (dx - grow) * r, cy - 0.8 * grow * r, cx + (dx + grow) * r, cy + 0.6 * grow * r]
            draw.ellipse(box, fill=(246, 248, 252, 235))
    if rng.random() < 0.5:  # a tree at the horizon
        cx, r = rng.uniform(0.08, 0.92) * size, rng.uniform(0.07, 0.12) * size
        foot = (horizon + 0.03) * size
        draw.rectangle([cx - r * 0.12, foot - 1.4 * r, cx + r * 0.12, foot], fill=(84, 92, 70))
        for dx, dy, grow in ((-0.6, -1.5, 0.7), (0.6, -1.5, 0.7), (0, -2.0, 0.9)):
            shade = int(rng.integers(-10, 11))
            box = [cx + (dx - grow) * r, foot + (dy - grow) * r, cx + (dx + grow) * r, foot + (dy + grow) * r]
            draw.ellipse(box, fill=(64 + shade, 124 + shade, 66 + shade))
    for _ in range(70):  # tufts of grass, and a few flowers
        tx, ty = rng.uniform(0, 1) * size, rng.uniform(horizon + 0.05, 1) * size
        height = (0.015 + 0.03 * (ty / size - horizon)) * size
        shade = (40, 92, 36, 110) if rng.random() < 0.5 else (196, 214, 120, 110)
        draw.line([tx, ty, tx + rng.uniform(-0.5, 0.5) * height, ty - height], fill=shade, width=2)
    flower = [(240, 214, 70, 255), (226, 120, 160, 255), (150, 130, 214, 255)][rng.integers(3)]
    for _ in range(rng.integers(0, 12)):
        tx, ty, r = rng.uniform(0, 1) * size, rng.uniform(horizon + 0.08, 1) * size, 0.008 * size
        draw.ellipse([tx - r, ty - r, tx + r, ty + r], fill=flower)
    return picture, horizon


def write_demo(root):
    """Draws the whole data set into `root`, which appears only when all of it is there."""
    temporary = root + ".part"
    shutil.rmtree(temporary, ignore_errors=True)
    print(f"drawing {root}: {N_TRAIN} scenes with horses, {N_TRAIN} others with zebras, {N_TEST} with both", flush=True)
    for number, split in enumerate(("trainA", "trainB", "test")):
        for i in range(N_TEST if split == "test" else N_TRAIN):
            horse, zebra, mask = draw_scene(np.random.default_rng((number, i)))
            pictures = {"testA": horse, "testB": zebra, "test_mask": mask}
            if split != "test":
                pictures = {split: horse if split == "trainA" else zebra}
            for folder, picture in pictures.items():
                os.makedirs(os.path.join(temporary, folder), exist_ok=True)
                picture.save(os.path.join(temporary, folder, f"{i:04d}.png"))
    os.rename(temporary, root)


def draw_scene(rng, size=SIZE):
    """One random scene, drawn with a horse and with a zebra in the same place.

    Returns (horse, zebra, mask): two RGB pictures and an 'L' picture of the animals' coverage, size x size pixels.
    """
    big = size * SUPERSAMPLE
    background, horizon = draw_background(rng, big)
    pictures = {"horse": background.copy(), "zebra": background.copy()}
    coverage = Image.new("L", (big, big))

    cx, cy, length = rng.uniform(0.40, 0.60), rng.uniform(0.54, 0.62), rng.uniform(0.50, 0.60)
    if rng.random() < 0.25:  # a second one, smaller and farther away, behind the first one's back
        side = rng.choice([-1, 1])
        cx = 0.5 - side * 0.07
        draw_animal(rng, pictures, coverage, big * (0.5 + side * 0.34), big * horizon, big * rng.uniform(0.36, 0.40))
    draw_animal(rng, pictures, coverage, big * cx, big * cy, big * length)

    small = [p.resize((size, size), Image.Resampling.BOX) for p in (*pictures.values(), coverage)]
    return tuple(small)


def draw_animal(rng, pictures, coverage, cx, cy, length):
    """Draws the same animal into both pictures, as a horse and as a zebra, and adds it to `coverage`."""
    size = coverage.size[0]
    facing = rng.choice([-1, 1])

    def to_pixels(points):
        return [(cx + facing * length * px, cy + length * py) for px, py in points]

    # --- shapes: masks of the parts, all in one place for both animals
    def mask_of(*polygons):
        mask = Image.new("L", (size, size))
        for polygon in polygons:
            ImageDraw.Draw(mask).polygon(to_pixels(polygon), fill=255)
        return np.asarray(mask) > 0

    outline = np.array(OUTLINE) + rng.normal(0, 0.006, (len(OUTLINE), 2))
    nod = rng.uniform(-0.06, 0.16)  # the head lower or higher
    outline[5:16, 1] += nod * np.clip((outline[5:16, 0] - 0.2) / 0.4, 0, 1)
    body = mask_of(smooth(outline))
    ear_x, ear_y = outline[6]
    head = mask_of([(ear_x - 0.02, ear_y + 0.03), (ear_x + 0.03, ear_y - 0.13), (ear_x + 0.075, ear_y + 0.01)])

    near_legs, far_legs = [], []
    for hip_x, back in ((-0.36, 1), (0.31, 0)):
        for legs, offset in ((near_legs, 0.0), (far_legs, 0.10 if back else 0.06)):
            swing = rng.uniform(-0.12, 0.12)
            x0, x1, x2 = hip_x + offset, hip_x + offset + swing * 0.4 - 0.04 * back, hip_x + offset + swing
            top, knee, hoof = (0.13 if back else 0.095), 0.048, 0.052
            legs.append([(x0 - top, -0.02), (x1 - knee, 0.33), (x2 - knee, 0.58), (x2 - hoof, 0.64),
                         (x2 + hoof, 0.64), (x2 + knee, 0.58), (x1 + knee, 0.33), (x0 + top, -0.02)])  # fmt: skip
    near, far = mask_of(*near_legs), mask_of(*far_legs)
    sway = rng.uniform(-0.06, 0.06)
    tail = mask_of(smooth(np.array([(-0.47, -0.17), (-0.56, -0.10), (-0.60 + sway, 0.10), (-0.58 + sway, 0.34),
                                    (-0.53 + sway, 0.30), (-0.52 + sway, 0.10), (-0.49, -0.05)])))  # fmt: skip
    crest = outline[4:8]
    mane = mask_of(np.concatenate([crest + (-0.035, -0.03), crest[::-1] + (0.035, 0.02)]))

    # --- coordinates of the animal, for the stripes and the shading
    py, px = np.mgrid[:size, :size]
    u, v = facing * (px - cx) / length, (py - cy) / length
    neck = np.clip((u - 0.16) / 0.25, 0, 1) * np.clip((0.05 - v) / 0.25, 0, 1)
    along = u + 0.22 * v * np.abs(u + 0.1) * 2 - neck * (v + 0.2) * 0.9  # across the body; on the neck along its axis
    along = along + 0.02 * np.sin(9 * v + rng.uniform(0, 6))
    legs_only = (near | far) & (v > 0.10)
    along = np.where(legs_only, v, along)
    period = max(0.25, 6.5 * SUPERSAMPLE / length)  # at least 6.5 pixels: thinner stripes would blur to gray
    dark = np.sin(2 * np.pi * along / period + rng.uniform(0, 6)) > 0.0
    light = np.clip(1.06 - 0.42 * (v + 0.1), 0.72, 1.12)[..., None]  # from above

    shadow = Image.new("L", (size, size))
    ImageDraw.Draw(shadow).ellipse(
        [*to_pixels([(-0.55 * facing, 0.585)])[0], *to_pixels([(0.55 * facing, 0.69)])[0]], 80
    )
    shadow = shadow.filter(ImageFilter.GaussianBlur(size / 100))

    animal = body | head | near | far | tail | mane
    muzzle = body & (u > 0.66) & (v < -0.2 + nod)
    hooves = (near | far) & (v > 0.60)
    coat = np.array(COATS[rng.integers(len(COATS))]) + rng.integers(-8, 9, 3)
    white, black = np.array([242, 240, 234]), np.array([26, 25, 27])

    horse = np.broadcast_to(coat, (size, size, 3)) * light
    horse = np.where((far & ~near & ~body)[..., None], horse * 0.72, horse)
    horse = np.where((mane | tail | hooves)[..., None], coat * 0.48, horse)
    zebra = np.where(dark[..., None], black, white * np.clip(light, 0.9, 1.0))
    zebra = np.where((far & ~near & ~body & ~dark)[..., None], zebra * 0.9, zebra)
    zebra = np.where((muzzle | hooves | (tail & (v > 0.12)))[..., None], black, zebra)
    eye_x, eye_y = to_pixels([(0.56, -0.555 + nod * 0.95)])[0]
    for name, colours in (("horse", horse), ("zebra", zebra)):
        picture = pictures[name]
        picture.paste((38, 62, 34), mask=shadow)
        paint = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
        picture.paste(paint, mask=Image.fromarray((animal * 255).astype(np.uint8)))
        if name == "horse":
            r = length * 0.022
            ImageDraw.Draw(picture).ellipse([eye_x - r, eye_y - r, eye_x + r, eye_y + r], fill=(40, 20, 10))
    coverage.paste(255, mask=Image.fromarray((animal * 255).astype(np.uint8)))


# ----------
#  Score
# ----------


def colour_shares(picture, original, mask, animal):
    """How well `picture` shows `animal` ('horse' or 'zebra') where `mask` says, and `original` elsewhere.

    picture, original: uint8 (H, W, 3); mask: uint8 (H, W). Returns (inside, outside), two shares from 0 to 1:
    inside:  pixels of the animal that are brown (a horse), or black or white in stripes (a zebra)
    outside: pixels of the background whose colour stayed: no channel differs by more than 40 of 255
    Pixels on the edge of an animal, which mix both, do not count.
    """
    rgb = picture.astype(int)
    inside, outside = mask > 230, mask < 25
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    if animal == "horse":
        right = (red - blue > 20) & (red > green) & (green >= blue - 8) & (red < 225)
    else:
        gray = rgb.mean(-1)
        neutral = rgb.max(-1) - rgb.min(-1) < 50
        dark, light = neutral & (gray < 115), neutral & (gray > 140)
        # a stripe has the other colour near it: within 4 pixels
        right = (dark & near(light & inside)) | (light & near(dark & inside))
    kept = np.abs(rgb - original.astype(int)).max(-1) <= 40
    return right[inside].mean(), kept[outside].mean()


def near(where, distance=4):
    """Boolean (H, W) -> True at most `distance` pixels (in rows and columns) from a True pixel."""
    picture = Image.fromarray((where * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MaxFilter(2 * distance + 1))) > 0


@torch.no_grad()
def score(G_AB, G_BA, root, device):
    """Translates all test scenes, prints the mean `colour_shares` of both directions, and returns them as a dict.
    Two rows to compare with: the scenes as they are, and drawn with the other animal."""
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
            fake = ((G(image)[0].float().cpu().permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
            for row, picture in zip(rows.values(), (fake, original, truth)):
                row.append(colour_shares(picture, original, mask, animal))
        shares[direction] = {name: np.mean(row, axis=0).tolist() for name, row in rows.items()}
    print("share of the animal's pixels in the other animal's colours | share of the background that kept its colour")
    for direction, rows in shares.items():
        print(f"  {direction}  " + "   ".join(f"{name} {a:.3f} | {b:.3f}" for name, (a, b) in rows.items()))
    return shares
