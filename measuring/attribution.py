"""
Draws what the networks of a run see in one image: the stages of the generator, and which pixels of the translation decide
on the discriminator's score of one patch.

    python -m measuring.attribution icons data/icons/testA/banana.png                  # -> images/icons/seen_banana_AB.png
    python -m measuring.attribution icons data/icons/testB/banana.png --direction BA --patch 0 5

Two methods answer which pixels matter. The gradient of the score is fast and says where small changes matter (Simonyan et
al., 2014, arXiv:1312.6034). Occlusion covers one square after the other with gray, and says where large changes matter
(Zeiler and Fergus, 2014, arXiv:1311.2901).
"""

import dataclasses
import os

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.functional import to_pil_image

import cyclegan
from command_line.parser import argument_parser, between
from command_line.run import run_script
from inference.features import feature_maps
from inference.generator import TrainedGenerator
from inference.load import load_generator
from measuring.images import from_uint8, in_8_bits, stack_images, to_float, to_uint8
from media.images import stem
from media.sheets import draw_sheet
from models import GeneratorResNet
from training.options import check_name
from training.start import read_start
from utils import InputError, as_rgb, evaluating
from variants.build import channels_of, make_discriminator

COLUMNS = 5  # pictures in a row of the sheet


def get_parser():
    parser = argument_parser(
        "Draw what the networks of a run see.", "python -m measuring.attribution NAME IMAGE [options]"
    )
    # fmt: off
    parser.add_argument("name", metavar="NAME", help="name of a run, a folder in saved_models")
    parser.add_argument("image", metavar="IMAGE", help="image to translate; it is resized to the size of the training")
    parser.add_argument("--direction", choices=("AB", "BA"), default="AB", help="generator to use (default: AB)")
    parser.add_argument("--patch", type=between(0, 4096), nargs=2, metavar=("ROW", "COLUMN"), help="score to explain (default: the lowest)")
    parser.add_argument("--square", type=between(2, 1024), default=8, help="side of the gray square of the occlusion, in pixels")
    parser.add_argument("--output", metavar="FILE", help="PNG file to write (default: images/NAME/seen_IMAGE_AB.png)")
    # fmt: on
    return parser


##############################
#   Which pixels matter
##############################


@dataclasses.dataclass
class Field:
    """The pixels that one score of a discriminator sees along each axis: score i sees `size` pixels from
    start + i * stride on. Those outside the image are padding. Instance norm also lets the rest of the image act on a
    score, through the mean and the variance of each channel."""

    start: int
    size: int
    stride: int


def receptive_field(D):
    """Computes the receptive field of the convolutions of a discriminator -> Field. 70 pixels for the paper's."""
    field = Field(0, 1, 1)
    for layer in D.modules():
        if isinstance(layer, torch.nn.Conv2d):
            (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
            field = Field(
                field.start - padding * field.stride, field.size + (kernel - 1) * field.stride, field.stride * stride
            )
    return field


def seen_along(field, i):
    """The pixels of an image that score i sees along an axis -> slice"""
    start = field.start + i * field.stride
    return slice(max(0, start), max(0, start + field.size))


def gradient_map(D, image, patch):
    """The gradient of one score with respect to the pixels of an image -> (H, W), its absolute value, mean over channels.

    image: (1, C, H, W) in [-1, 1]; patch: (row, column) of the score"""
    image = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(image)[0, 0, patch[0], patch[1]], image)
    return gradient[0].abs().mean(0)


@torch.no_grad()
def occlusion_map(D, image, patch, square=8):
    """How much one score falls if a square of the image becomes gray (0) -> (H, W), the mean over the squares that cover
    a pixel. Negative where the score rises: what is there makes the patch look less real.

    square: side of the squares in pixels; they overlap by half
    """
    height, width = image.shape[2:]
    step = max(1, square // 2)
    tops, lefts = (sorted({*range(0, max(1, side - square), step), max(0, side - square)}) for side in (height, width))
    places = [(top, left) for top in tops for left in lefts]
    before = D(image)[0, 0, patch[0], patch[1]]
    falls, counts = torch.zeros(height, width), torch.zeros(height, width)
    for top, left in places:
        covered = image.clone()
        covered[:, :, top : top + square, left : left + square] = 0
        fall = (before - D(covered)[0, 0, patch[0], patch[1]]).item()
        falls[top : top + square, left : left + square] += fall
        counts[top : top + square, left : left + square] += 1
    return falls / counts


##############################
#   The sheet
##############################


def load_networks(name, direction):
    """Loads a generator and the discriminator of its target domain from saved_models/NAME/latest.pth -> (TrainedGenerator,
    discriminator). Raises InputError."""
    path = f"saved_models/{name}/latest.pth"
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file. Name a run of cyclegan.py, a folder in saved_models")
    state, target = read_start(path, cyclegan.get_parser()), direction[1]
    options = state["options"]
    if f"D_{target}" not in state or options.get("discriminator", "patch") == "multiscale":
        raise InputError(f"{path}: needs one trained discriminator for each domain, not of pretraining or multiscale")
    D = make_discriminator(options, channels_of(options)["AB".index(target)])
    if options.get("spectral_norm"):
        from variants.parts import use_spectral_norm

        use_spectral_norm(D)
    D.load_state_dict(state[f"D_{target}"])
    return load_generator(path, direction), D.requires_grad_(False)


def read_image(path, trained: TrainedGenerator):
    """An image at the size of the training -> (1, channels, H, W) in [-1, 1]. Raises InputError."""
    size = (trained.options["img_height"], trained.options["img_width"])
    value_range = getattr(trained.network, "ranges", (None, None))[0]
    return to_float(stack_images([path], size, trained.network.channels, bool(value_range), value_range=value_range))


def as_picture(image):
    """(1, C, H, W) in [-1, 1] -> PIL.Image"""
    return to_pil_image(as_rgb(in_8_bits(image))[0])


def heat(values, size):
    """A map (h, w) -> PIL.Image of `size` (width, height): black is 0, white the largest value. With negative values, 0 is
    white, positive ones are red and negative ones blue."""
    values = values.float().cpu() / values.abs().max().clamp(min=1e-12).cpu()
    if values.min() < 0:
        positive, negative = values.clamp(min=0), (-values).clamp(min=0)
        colours = torch.stack([1 - negative, 1 - positive - negative, 1 - positive])
    else:
        colours = values.expand(3, -1, -1)
    return to_pil_image(to_uint8(colours * 2 - 1)).resize(size, Image.Resampling.NEAREST)


def framed(picture, field, patch):
    """The picture with a frame around what the convolutions of the patch's score see."""
    picture = picture.copy()
    rows, columns = (seen_along(field, i) for i in patch)
    right, bottom = min(picture.width, columns.stop), min(picture.height, rows.stop)
    corners = [columns.start, rows.start, right - 1, bottom - 1]
    ImageDraw.Draw(picture).rectangle(corners, outline=(255, 0, 0))
    return picture


def choose_patch(scores, patch):
    """scores: (h, w) -> (row, column), by default of the lowest score. Raises InputError if there is no such patch."""
    height, width = scores.shape
    if patch is None:
        return divmod(int(scores.argmin()), width)
    if patch[0] >= height or patch[1] >= width:
        raise InputError(f"--patch {patch[0]} {patch[1]}: there are {height} rows and {width} columns of scores")
    return tuple(patch)


def look(trained, D, image, patch=None, square=8):
    """Translates an image and explains a score of the translation -> (list of (caption, PIL image), facts: {name: value}).

    trained: TrainedGenerator; D: discriminator of its target domain; image: (1, C, H, W) in [-1, 1]; patch: (row, column)
    """
    G = trained.network
    with evaluating(G, D):
        with torch.no_grad():
            fake = G(image).float()
            fake = fake if getattr(G, "ranges", (None, None))[1] else from_uint8(to_uint8(fake))
            scores = D(fake)[0, 0]
        patch = choose_patch(scores, patch)
        gradient, occlusion = gradient_map(D, fake, patch), occlusion_map(D, fake, patch, square)
        stages = feature_maps(G, image) if isinstance(G, GeneratorResNet) else []
    picture, field = as_picture(fake), receptive_field(D)
    size = picture.size
    sheet = [
        ("input", as_picture(image)),
        ("translation, patch", framed(picture, field, patch)),
        (f"scores {scores.shape[1]} x {scores.shape[0]}", heat(scores - scores.min(), size)),
        ("gradient", heat(gradient, size)),
        ("occlusion", heat(occlusion, size)),
    ]
    for caption, values in stages[1:-1]:
        sheet.append((caption, Image.fromarray(values).convert("RGB").resize(size, Image.Resampling.NEAREST)))
    rows, columns = (seen_along(field, i) for i in patch)
    inside = gradient[rows, columns].sum() / gradient.sum().clamp(min=1e-12)
    facts = {"patch": patch, "score": scores[patch].item(), "mean score": scores.mean().item(), "inside": inside.item()}
    return sheet, facts


def main(argv=None):
    opt = get_parser().parse_args(argv)
    check_name("NAME", opt.name)
    trained, D = load_networks(opt.name, opt.direction)
    sheet, facts = look(trained, D, read_image(opt.image, trained), opt.patch, opt.square)
    path = opt.output or f"images/{opt.name}/seen_{stem(opt.image)}_{opt.direction}.png"
    blank = ("", Image.new("RGB", sheet[0][1].size, "white"))
    rows = [sheet[i : i + COLUMNS] for i in range(0, len(sheet), COLUMNS)]
    rows[-1] += [blank] * (COLUMNS - len(rows[-1]))
    row, column = facts["patch"]
    draw_sheet(path, rows, f"what {opt.name} sees in {os.path.basename(opt.image)}, {opt.direction}")
    print(
        f"score {facts['score']:.3f} of the patch in row {row}, column {column}; mean over all patches {facts['mean score']:.3f} "
        "(1 real, 0 translated)"
    )
    print(f"{facts['inside']:.0%} of the gradient is inside the frame, which the convolutions of this score see")
    print(f"{path}: the sheet")


if __name__ == "__main__":
    run_script(main)
