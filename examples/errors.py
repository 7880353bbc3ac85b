"""
Measures the error of each channel in the values of the files, such as Hounsfield units, and the angle between spectra.

    python -m examples.errors --checkpoint saved_models/landsat/latest.pth
    python -m examples.errors --checkpoint saved_models/ct/latest.pth --direction AB

The test images of A and B with equal file stems are pairs. evaluate.py --paired measures L1, PSNR and SSIM.
"""

import os

import torch

from command_line.parser import argument_parser, between
from command_line.run import run_script
from inference.load import load_generators
from inference.translator import pad_to_multiple
from measuring.data import find_data
from measuring.evaluation import find_dataset
from measuring.images import stack_images
from utils import InputError, choose_device
from variants.stored_options import confirm_paths


def get_parser():
    parser = argument_parser("Measure errors per channel.", "python -m examples.errors --checkpoint FILE [options]")
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="latest.pth, or one generator")
    add("--direction", choices=("AB", "BA"), help="measure one direction (default: both)")
    add("--dataset_name", metavar="NAME", help="folder in data_dir (default: as trained)")
    add("--data_dir", metavar="DIR", help="folder of the data sets (default: as trained, or data)")
    add("--size", type=between(32, 16384), help="height and width in pixels (default: as trained)")
    add(
        "--values",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of black and white (default: as trained, or 0 255)",
    )
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    return parser


##############################
#   Measures
##############################


def rmse(found, truth):
    """The root mean squared error of each channel over all images and pixels, (N, C, H, W) -> (C,)"""
    return (found - truth).square().mean((0, 2, 3)).sqrt()


def spectral_angle(found, truth):
    """The mean angle in degrees between the vectors of channels of each pixel (spectral angle mapper: Kruse et al., 1993,
    doi.org/10.1016/0034-4257(93)90013-N). It does not depend on brightness. Pixels that are 0 in all channels do not count.

    (N, C, H, W) twice, C at least 2 -> float
    """
    found, truth = found.double(), truth.double()
    lengths = found.norm(dim=1) * truth.norm(dim=1)
    cosines = (found * truth).sum(1)[lengths > 0] / lengths[lengths > 0]
    return cosines.clamp(-1, 1).acos().rad2deg().mean().item()


def in_values(images, limits):
    """Images in [-1, 1] -> in the values of their files, of which `limits` are black and white"""
    low, high = limits
    return low + (images + 1) / 2 * (high - low)


##############################
#   Table
##############################


@torch.no_grad()
def compare(G, sources, truths, mean):
    """Translates images -> {"translated" | "mean of the training images" | "untranslated": (N, C, H, W) in [-1, 1]}

    mean: (C, 1, 1), the mean colour of the training images of the target domain"""
    device = next(G.parameters()).device
    height, width = sources.shape[2:]
    padded = pad_to_multiple(sources, G.multiple, G.smallest)
    fakes = [G(x.to(device))[:, :, :height, :width].float().clamp(-1, 1).cpu() for x in padded.split(1)]
    rows = {"translated": torch.cat(fakes)}
    rows["mean of the training images"] = mean.expand_as(truths)
    if sources.shape == truths.shape:
        rows["untranslated"] = sources
    return rows


def table(rows, truths, limits):
    """-> (lines, {row: {"rmse": list, one per channel, "all": float, "angle": degrees, or None for one channel}})"""
    n, found = truths.shape[1], {}
    truths = in_values(truths, limits)
    lines = [f"{'RMSE of channel':30}" + "".join(f"{c + 1:9}" for c in range(n)) + "      all" + "    angle" * (n > 1)]
    for name, images in rows.items():
        images = in_values(images, limits)
        errors, whole = rmse(images, truths).tolist(), (images - truths).square().mean().sqrt().item()
        angle = spectral_angle(images, truths) if n > 1 else None
        lines.append(
            f"{name:30}" + "".join(f"{e:9.2f}" for e in (*errors, whole)) + (f"{angle:8.2f}°" if n > 1 else "")
        )
        found[name] = {"rmse": errors, "all": whole, "angle": angle}
    return lines, found


def measure(direction, G, data, size, limits, device):
    """Prints the table of one direction -> as `table`"""
    source, target = direction
    read = {
        domain: lambda paths, domain=domain, n=n: stack_images(
            paths, size, n, deep=True, value_range=data.ranges[domain]
        )
        for domain, n in ((source, G.channels), (target, G.out_channels))
    }
    train = read[target](data.real[target]["train"] or data.real[target]["test"])
    sources, truths = read[source](data.test[source]), read[target](data.test[target])
    limits = limits or data.ranges[target] or (0, 255)
    lines, found = table(compare(G.to(device), sources, truths, train.mean((0, 2, 3))[:, None, None]), truths, limits)
    print(f"\n{source} -> {target}: {len(truths)} test pairs, values from {limits[0]:g} to {limits[1]:g}")
    print("\n".join(lines))
    return found


def measure_errors(opt):
    """opt: options of get_parser -> {direction: {row: ...}}, see `table`. Raises InputError."""
    device = choose_device(opt.device)
    trained = load_generators(opt.checkpoint, opt.direction)
    options = next(iter(trained.values())).options
    confirm_paths(options, {"dataset_name": opt.dataset_name, "data_dir": opt.data_dir}, opt.checkpoint)
    name, data_dir = opt.dataset_name or options.get("dataset_name"), opt.data_dir or options.get("data_dir")
    root = find_dataset(opt.checkpoint, name, data_dir)
    generators = {direction: found.network for direction, found in trained.items()}
    data = find_data(root, generators, matched=True)
    size = (opt.size, opt.size) if opt.size else (options.get("img_height", 256), options.get("img_width", 256))
    print(f"{os.path.normpath(root)}, {size[1]} x {size[0]} pixels")
    directions = [opt.direction] if opt.direction else sorted(generators)
    return {d: measure(d, generators[d], data, size, opt.values, device) for d in directions}


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if opt.values and not opt.values[0] < opt.values[1]:
        raise InputError(f"--values {opt.values[0]:g} {opt.values[1]:g}: black must be below white")
    measure_errors(opt)


if __name__ == "__main__":
    run_script(main)
