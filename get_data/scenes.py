"""
Draws the scenes of the demo data set: horses and zebras in front of sky, hills and grass.

All random choices come from one NumPy generator, so a seed always gives the same picture. The drawing is three times
larger than the result and is then averaged down, which smooths the edges.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 64  # height and width of a scene, in pixels
SUPERSAMPLE = 3  # scenes are drawn this many times larger

# Each sky and each meadow is a gradient between two RGB colours.
SKIES = [((92, 160, 226), (206, 230, 246)), ((104, 168, 224), (214, 234, 242)), ((82, 146, 214), (190, 220, 242))]
GRASSES = [((126, 172, 84), (82, 134, 58)), ((146, 178, 86), (102, 142, 60)), ((112, 166, 80), (70, 126, 60))]


@dataclasses.dataclass(frozen=True)
class Colours:
    """RGB colours of the animals: the coats of horses, the light and the dark stripes of zebras."""

    coats: tuple
    light: tuple
    dark: tuple


# chestnut, bay, light brown and dark brown horses, and zebras in black and white
DEMO = Colours(((158, 90, 42), (132, 72, 36), (176, 110, 60), (112, 62, 34)), (242, 240, 234), (26, 25, 27))
# black and gray horses, and zebras in brown and cream: another data set of the same shapes
OTHER = Colours(((56, 54, 60), (84, 82, 88), (116, 114, 118), (44, 42, 46)), (240, 216, 168), (126, 62, 26))

# Outline of the body, neck and head of an animal that faces right. The unit is the length of the body. x points right
# and y points down.
OUTLINE = [
    (-0.50, -0.14), (-0.42, -0.24), (-0.20, -0.22), (0.02, -0.19), (0.20, -0.26), (0.34, -0.47), (0.47, -0.66),
    (0.53, -0.69), (0.60, -0.62), (0.69, -0.49), (0.755, -0.40), (0.75, -0.34), (0.69, -0.325), (0.60, -0.40),
    (0.53, -0.41), (0.48, -0.24), (0.45, -0.06), (0.37, 0.07), (0.18, 0.12), (-0.06, 0.11), (-0.26, 0.06),
    (-0.44, 0.06), (-0.52, -0.03),
]  # fmt: skip


def draw_scene(rng, size=SIZE, colours=DEMO):
    """Draws one random scene twice, with a horse and with a zebra in the same place.

    rng:     numpy.random.Generator
    size:    height and width in pixels
    colours: Colours of the animals; nothing else depends on them

    Returns (horse, zebra, mask): two RGB images, and a grayscale image that is 255 inside the animals and 0 outside.
    """
    big = size * SUPERSAMPLE
    background, horizon = draw_background(rng, big)
    pictures = {"horse": background.copy(), "zebra": background.copy()}
    coverage = Image.new("L", (big, big))

    cx, cy, length = rng.uniform(0.40, 0.60), rng.uniform(0.54, 0.62), rng.uniform(0.50, 0.60)
    if rng.random() < 0.25:  # a second, smaller animal in the distance
        side = rng.choice([-1, 1])
        cx = 0.5 - side * 0.07
        far = big * (0.5 + side * 0.34), big * horizon, big * rng.uniform(0.36, 0.40)
        draw_animal(rng, pictures, coverage, *far, colours)
    draw_animal(rng, pictures, coverage, big * cx, big * cy, big * length, colours)

    small = [p.resize((size, size), Image.Resampling.BOX) for p in (*pictures.values(), coverage)]
    return tuple(small)


##############################
#   The background
##############################


def draw_background(rng, size):
    """Draws a landscape of size x size pixels. Returns (RGB image, height of the horizon as a fraction of `size`)."""
    picture, horizon = draw_land(rng, size)
    draw = ImageDraw.Draw(picture, "RGBA")
    if rng.random() < 0.5:
        draw_sun(draw, rng, size)
    draw_clouds(draw, rng, size)
    if rng.random() < 0.5:
        draw_tree(draw, rng, size, horizon)
    draw_meadow(draw, rng, size, horizon)
    return picture, horizon


def draw_land(rng, size):
    """Draws the sky, two ranges of hills and a plain meadow. Returns (RGB image, horizon), see draw_background."""
    x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    top, bottom = (np.array(c) + rng.integers(-10, 11, 3) for c in SKIES[rng.integers(len(SKIES))])
    horizon = rng.uniform(0.40, 0.54)
    scene = top + (bottom - top) * np.clip(y / horizon, 0, 1)[..., None]

    for depth in range(2):  # the farther range is bluer
        ridge = horizon - (0.13 - 0.07 * depth) + 0.05 * np.sin(x * rng.uniform(4, 9) + rng.uniform(0, 6))
        ridge = ridge + 0.015 * np.sin(x * rng.uniform(15, 25) + rng.uniform(0, 6))
        colour = np.array([(118, 150, 176), (98, 146, 116)][depth]) + rng.integers(-10, 11, 3)
        scene = np.where((y > ridge)[..., None], colour, scene)

    near, far = (np.array(c) + rng.integers(-8, 9, 3) for c in GRASSES[rng.integers(len(GRASSES))][::-1])
    meadow = far + (near - far) * np.clip((y - horizon) / (1 - horizon), 0, 1)[..., None]
    scene = np.where((y > horizon + 0.01 * np.sin(x * 7))[..., None], meadow, scene)
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8)), horizon


def draw_sun(draw, rng, size):
    cx, cy, r = rng.uniform(0.1, 0.9) * size, rng.uniform(0.08, 0.2) * size, rng.uniform(0.05, 0.08) * size
    for grow, alpha in ((1.7, 50), (1.3, 80), (1.0, 255)):  # a faint halo around the disc
        draw.ellipse([cx - grow * r, cy - grow * r, cx + grow * r, cy + grow * r], fill=(255, 232, 140, alpha))


def draw_clouds(draw, rng, size):
    for _ in range(rng.integers(0, 3)):
        cx, cy, r = rng.uniform(0, 1) * size, rng.uniform(0.06, 0.22) * size, rng.uniform(0.03, 0.05) * size
        for dx, grow in ((-1.6, 0.8), (-0.4, 1.2), (0.9, 1.0), (1.9, 0.7)):
            box = [cx + (dx - grow) * r, cy - 0.8 * grow * r, cx + (dx + grow) * r, cy + 0.6 * grow * r]
            draw.ellipse(box, fill=(246, 248, 252, 235))


def draw_tree(draw, rng, size, horizon):
    cx, r = rng.uniform(0.08, 0.92) * size, rng.uniform(0.07, 0.12) * size
    foot = (horizon + 0.03) * size
    draw.rectangle([cx - r * 0.12, foot - 1.4 * r, cx + r * 0.12, foot], fill=(84, 92, 70))
    for dx, dy, grow in ((-0.6, -1.5, 0.7), (0.6, -1.5, 0.7), (0, -2.0, 0.9)):
        shade = int(rng.integers(-10, 11))
        box = [cx + (dx - grow) * r, foot + (dy - grow) * r, cx + (dx + grow) * r, foot + (dy + grow) * r]
        draw.ellipse(box, fill=(64 + shade, 124 + shade, 66 + shade))


def draw_meadow(draw, rng, size, horizon):
    """Draws tufts of grass and a few flowers below the horizon."""
    for _ in range(70):
        x, y = rng.uniform(0, 1) * size, rng.uniform(horizon + 0.05, 1) * size
        height = (0.015 + 0.03 * (y / size - horizon)) * size
        shade = (40, 92, 36, 110) if rng.random() < 0.5 else (196, 214, 120, 110)
        draw.line([x, y, x + rng.uniform(-0.5, 0.5) * height, y - height], fill=shade, width=2)
    flower = [(240, 214, 70, 255), (226, 120, 160, 255), (150, 130, 214, 255)][rng.integers(3)]
    for _ in range(rng.integers(0, 12)):
        x, y, r = rng.uniform(0, 1) * size, rng.uniform(horizon + 0.08, 1) * size, 0.008 * size
        draw.ellipse([x - r, y - r, x + r, y + r], fill=flower)


##############################
#   An animal
##############################


@dataclasses.dataclass
class Placement:
    """The position of an animal in a square image. Converts between the units of OUTLINE and pixels."""

    size: int  # height and width of the image
    cx: float  # centre of the body, in pixels
    cy: float
    length: float  # of the body, in pixels
    facing: int  # 1 right, -1 left

    def to_pixels(self, points):
        """Converts points (x, y) in the units of OUTLINE to a list of points in pixels."""
        return [(self.cx + self.facing * self.length * x, self.cy + self.length * y) for x, y in points]

    def mask_of(self, *polygons):
        """Returns a boolean array (size, size) that is True inside the polygons, which are in the units of OUTLINE."""
        mask = Image.new("L", (self.size, self.size))
        for polygon in polygons:
            ImageDraw.Draw(mask).polygon(self.to_pixels(polygon), fill=255)
        return np.asarray(mask) > 0

    def coordinates(self):
        """Returns two arrays (size, size): the x and the y of each pixel in the units of OUTLINE."""
        y, x = np.mgrid[: self.size, : self.size]
        return self.facing * (x - self.cx) / self.length, (y - self.cy) / self.length


@dataclasses.dataclass
class Parts:
    """The shape of an animal: boolean arrays (size, size) that are True in each part of it."""

    body: np.ndarray
    ear: np.ndarray
    near_legs: np.ndarray
    far_legs: np.ndarray
    tail: np.ndarray
    mane: np.ndarray
    nod: float  # how far the head is lowered, in the units of OUTLINE

    @property
    def animal(self):
        return self.body | self.ear | self.legs | self.tail | self.mane

    @property
    def legs(self):
        return self.near_legs | self.far_legs

    @property
    def far_side(self):
        return self.far_legs & ~self.near_legs & ~self.body


def draw_animal(rng, pictures, coverage, cx, cy, length, colours):
    """Draws one animal as a horse into pictures["horse"] and as a zebra into pictures["zebra"].

    coverage: grayscale image, in which the animal is drawn in white
    cx, cy:   centre of the body, in pixels
    length:   of the body, in pixels
    colours:  Colours
    """
    place = Placement(coverage.size[0], cx, cy, length, facing=rng.choice([-1, 1]))
    parts = random_parts(rng, place)
    dark = random_stripes(rng, place, parts)
    coat = np.array(colours.coats[rng.integers(len(colours.coats))]) + rng.integers(-8, 9, 3)
    drawn = {"horse": horse_colours(place, parts, coat), "zebra": zebra_colours(place, parts, dark, colours)}

    shadow = draw_shadow(place)
    animal = Image.fromarray((parts.animal * 255).astype(np.uint8))
    for name, picture in pictures.items():
        picture.paste((38, 62, 34), mask=shadow)
        picture.paste(Image.fromarray(np.clip(drawn[name], 0, 255).astype(np.uint8)), mask=animal)
    (x, y), r = place.to_pixels([(0.56, -0.555 + parts.nod * 0.95)])[0], length * 0.022
    ImageDraw.Draw(pictures["horse"]).ellipse([x - r, y - r, x + r, y + r], fill=(40, 20, 10))  # the eye
    coverage.paste(255, mask=animal)


def random_parts(rng, place):
    """Returns the Parts of an animal with a random outline, head position, gait and tail."""
    outline = np.array(OUTLINE) + rng.normal(0, 0.006, (len(OUTLINE), 2))
    nod = rng.uniform(-0.06, 0.16)
    outline[5:16, 1] += nod * np.clip((outline[5:16, 0] - 0.2) / 0.4, 0, 1)
    ear_x, ear_y = outline[6]
    ear = [(ear_x - 0.02, ear_y + 0.03), (ear_x + 0.03, ear_y - 0.13), (ear_x + 0.075, ear_y + 0.01)]
    near_legs, far_legs = random_legs(rng)
    sway = rng.uniform(-0.06, 0.06)
    tail = [(-0.47, -0.17), (-0.56, -0.10), (-0.60 + sway, 0.10), (-0.58 + sway, 0.34), (-0.53 + sway, 0.30),
            (-0.52 + sway, 0.10), (-0.49, -0.05)]  # fmt: skip
    crest = outline[4:8]
    mane = np.concatenate([crest + (-0.035, -0.03), crest[::-1] + (0.035, 0.02)])
    return Parts(
        body=place.mask_of(smooth(outline)), ear=place.mask_of(ear), mane=place.mask_of(mane),
        near_legs=place.mask_of(*near_legs), far_legs=place.mask_of(*far_legs),
        tail=place.mask_of(smooth(np.array(tail))), nod=nod,
    )  # fmt: skip


def random_legs(rng):
    """Returns (near, far): the polygons of the two legs on each side of the body, in the units of OUTLINE."""
    near, far = [], []
    for hip_x, back in ((-0.36, 1), (0.31, 0)):
        for legs, offset in ((near, 0.0), (far, 0.10 if back else 0.06)):
            swing = rng.uniform(-0.12, 0.12)
            x0, x1, x2 = hip_x + offset, hip_x + offset + swing * 0.4 - 0.04 * back, hip_x + offset + swing
            top, knee, hoof = (0.13 if back else 0.095), 0.048, 0.052
            legs.append([(x0 - top, -0.02), (x1 - knee, 0.33), (x2 - knee, 0.58), (x2 - hoof, 0.64),
                         (x2 + hoof, 0.64), (x2 + knee, 0.58), (x1 + knee, 0.33), (x0 + top, -0.02)])  # fmt: skip
    return near, far


def random_stripes(rng, place, parts):
    """Returns a boolean array (size, size) that is True in the dark stripes of a zebra."""
    u, v = place.coordinates()
    neck = np.clip((u - 0.16) / 0.25, 0, 1) * np.clip((0.05 - v) / 0.25, 0, 1)
    # stripes run across the body, the neck and the legs: this is the coordinate along each of them
    along = u + 0.22 * v * np.abs(u + 0.1) * 2 - neck * (v + 0.2) * 0.9
    along = along + 0.02 * np.sin(9 * v + rng.uniform(0, 6))
    along = np.where(parts.legs & (v > 0.10), v, along)
    period = max(0.25, 6.5 * SUPERSAMPLE / place.length)  # at least 6.5 pixels: thinner stripes would blur to gray
    return np.sin(2 * np.pi * along / period + rng.uniform(0, 6)) > 0.0


def light_from_above(v):
    """Returns the brightness (size, size, 1) at the height `v`, in the units of OUTLINE."""
    return np.clip(1.06 - 0.42 * (v + 0.1), 0.72, 1.12)[..., None]


def horse_colours(place, parts, coat):
    """Returns the colours of a horse, (size, size, 3), in the RGB colour `coat` with a darker mane, tail and hooves."""
    _, v = place.coordinates()
    colours = np.broadcast_to(coat, (place.size, place.size, 3)) * light_from_above(v)
    colours = np.where(parts.far_side[..., None], colours * 0.72, colours)
    hooves = parts.legs & (v > 0.60)
    return np.where((parts.mane | parts.tail | hooves)[..., None], coat * 0.48, colours)


def zebra_colours(place, parts, dark, stripes):
    """Returns the colours of a zebra, (size, size, 3), that has the dark colour of `stripes` (Colours) where the array
    `dark` is True, and the light one elsewhere."""
    u, v = place.coordinates()
    white, black = np.array(stripes.light), np.array(stripes.dark)
    colours = np.where(dark[..., None], black, white * np.clip(light_from_above(v), 0.9, 1.0))
    colours = np.where((parts.far_side & ~dark)[..., None], colours * 0.9, colours)
    muzzle = parts.body & (u > 0.66) & (v < -0.2 + parts.nod)
    hooves = parts.legs & (v > 0.60)
    return np.where((muzzle | hooves | (parts.tail & (v > 0.12)))[..., None], black, colours)


def draw_shadow(place):
    """Returns a grayscale image of the strength of the shadow on the ground."""
    shadow = Image.new("L", (place.size, place.size))
    # `facing` cancels out, because the left side of an ellipse must come first
    corners = place.to_pixels([(-0.55 * place.facing, 0.585), (0.55 * place.facing, 0.69)])
    ImageDraw.Draw(shadow).ellipse([*corners[0], *corners[1]], 80)
    return shadow.filter(ImageFilter.GaussianBlur(place.size / 100))


def smooth(points, steps=8):
    """Returns a closed Catmull-Rom curve through `points`: (n, 2) becomes (n * steps, 2)."""
    p0, p1, p2, p3 = (np.roll(points, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = p1 + t * (p2 - p0) / 2 + t**2 * (p0 - 2.5 * p1 + 2 * p2 - p3 / 2) + t**3 * (1.5 * (p1 - p2) + (p3 - p0) / 2)
    return curve.reshape(-1, 2)
