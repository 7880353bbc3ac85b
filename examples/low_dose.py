"""
Makes a data set of CT slices at low dose (A) and at full dose (B), in Hounsfield units.

    python -m examples.low_dose data/ct                      # draws slices of a chest
    python -m examples.low_dose data/ct --slices scans/      # takes yours: DICOM, .npy or TIFF in Hounsfield units

Both versions of a slice are reconstructed from its projections by filtered back projection. At low dose, the number of
photons that arrive at the detector is random, and the detector adds noise of its own. It is a simplification: one energy,
parallel beams, no scatter. Nothing that is made with it is for diagnosis.

    data/ct/trainA  trainB     different slices
    data/ct/testA   testB      the same slices, under the same names
    int16 .npy of SIZE x SIZE pixels. Train with --channels 1 and the window of interest, such as --range_A -160 240
    --range_B -160 240
"""

import math
import os
import time

import numpy as np
import torch

from command_line.parser import argument_parser, between
from command_line.progress import Progress
from command_line.run import run_script
from get_data.part import complete_folder
from media.arrays import raw_values, resize_array
from utils import InputError

WATER = 0.2  # attenuation of water in 1/cm, at the mean energy of a CT scanner, about 70 keV
WIDTH = 36.0  # of the field of view, in cm
LOWEST, HIGHEST = -1000, 1000  # Hounsfield units of the images


def get_parser():
    parser = argument_parser("Make CT slices of low dose.", "python -m examples.low_dose FOLDER [options]")
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="folder to write, such as data/ct")
    add(
        "--slices",
        metavar="FOLDER",
        help="slices of full dose in Hounsfield units: .dcm, .npy, .tif (default: draw them)",
    )
    add("--n", type=between(3, 10_000), default=108, help="number of slices to draw")
    add("--n_test", type=between(1, 10_000), default=8, help="slices for testing, the first ones by name")
    add("--size", type=between(32, 1024), default=128, help="height and width in pixels")
    add("--photons", type=between(10.0), default=2_000.0, help="photons of each ray before the body")
    add("--electronic", type=between(0.0), default=5.0, help="noise of the detector: standard deviation in photons")
    add("--views", type=between(8, 4096), default=360, help="number of directions, over 180 degrees")
    add("--seed", type=between(0, 2**32), default=0, help="random seed of the drawing and of the noise")
    return parser


##############################
#   Physics
##############################


def rays(size, views):
    """The points along all rays -> (views, size, size, 2), x and y in the coordinates of grid_sample. Ray j of view i is at
    the distance of pixel column j from the centre; its points are one pixel apart."""
    angles = torch.arange(views) * (math.pi / views)
    cos, sin = angles.cos().view(-1, 1, 1), angles.sin().view(-1, 1, 1)
    at = (torch.arange(size) + 0.5) * (2 / size) - 1
    t, s = at.view(1, 1, -1), at.view(1, -1, 1)  # across and along the rays
    return torch.stack((t * cos - s * sin, t * sin + s * cos), -1)


def project(image, views):
    """Line integrals of an image (size, size) in pixels -> (views, size). The image is 0 outside the inner circle."""
    points = rays(len(image), views)
    sums = [
        torch.nn.functional.grid_sample(image.expand(len(p), 1, -1, -1), p, align_corners=False).sum(2)[:, 0]
        for p in points.split(64)
    ]
    return torch.cat(sums)


def reconstruct(projections):
    """Filtered back projection with the ramp filter (Kak and Slaney, 1988, chapter 3) -> image (size, size)

    projections: (views, size), line integrals over 180 degrees"""
    views, size = projections.shape
    n = 2 ** math.ceil(math.log2(2 * size))
    at = torch.arange(n)
    at = torch.minimum(at, n - at).double()
    ramp = torch.where(at % 2 == 1, -1 / (math.pi * at.clamp(min=1)) ** 2, 0.0)  # equation 61, sampled in space
    ramp[0] = 0.25
    spectrum = torch.fft.fft(projections.double(), n, dim=1) * torch.fft.fft(ramp)
    filtered = torch.fft.ifft(spectrum, dim=1).real[:, :size]
    at = np.arange(size) - (size - 1) / 2
    image = np.zeros((size, size))
    for values, angle in zip(filtered.numpy(), np.arange(views) * (math.pi / views)):
        image += np.interp(at * math.cos(angle) + at[:, None] * math.sin(angle), at, values)
    return torch.from_numpy(image * (math.pi / views)).float()


def scan(slice_, photons, electronic, views, generator):
    """A slice in Hounsfield units -> the same slice at low dose and at full dose, int16 (size, size) each.

    slice_:     float32 (size, size)
    photons:    number per ray before the body
    electronic: standard deviation of the detector's noise, in photons
    """
    size = len(slice_)
    pixel = WIDTH / size  # cm
    at = (torch.arange(size) + 0.5) * (2 / size) - 1
    inside = at.view(1, -1) ** 2 + at.view(-1, 1) ** 2 <= 1
    attenuation = WATER * (1 + slice_.clamp(min=LOWEST) / 1000) * inside
    full = project(attenuation, views) * pixel
    counts = torch.poisson(photons * torch.exp(-full), generator)
    counts = counts + electronic * torch.randn(counts.shape, generator=generator)
    low = -torch.log(counts.clamp(min=1) / photons)
    return tuple(
        (((reconstruct(p) / pixel / WATER - 1) * 1000 * inside + LOWEST * ~inside).round().clamp(LOWEST, HIGHEST))
        .to(torch.int16)
        .numpy()
        for p in (low, full)
    )


##############################
#   Slices
##############################


def draw_slice(rng, size):
    """A random slice of a chest in Hounsfield units, drawn from ellipses -> float32 (size, size)"""
    n = 2 * size  # drawn twice as large
    y, x = np.mgrid[0:n, 0:n] * (2 / n) - 1 + 1 / n
    image = np.full((n, n), -1000.0, np.float32)

    def ellipse(value, cx, cy, rx, ry, angle=0.0):
        u, v = (
            (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle),
            (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle),
        )
        image[(u / rx) ** 2 + (v / ry) ** 2 < 1] = value

    width, depth, fat = rng.uniform(0.78, 0.9), rng.uniform(0.55, 0.66), rng.uniform(0.03, 0.09)
    ellipse(-100, 0, 0, width, depth)
    ellipse(45, 0, 0, width - fat, depth - fat)
    for side in (-1, 1):
        cx, cy = side * width * rng.uniform(0.44, 0.5), rng.uniform(-0.06, 0.04)
        rx, ry = width * rng.uniform(0.28, 0.36), depth * rng.uniform(0.6, 0.72)
        ellipse(rng.uniform(-870, -780), cx, cy, rx, ry, side * rng.uniform(0, 0.2))
        for _ in range(rng.integers(8, 20)):  # vessels, and now and then a nodule
            r, phi = math.sqrt(rng.uniform(0, 0.7)), rng.uniform(0, 2 * math.pi)
            radius = rng.uniform(0.008, 0.03) if rng.random() < 0.9 else rng.uniform(0.03, 0.06)
            ellipse(
                rng.uniform(-50, 60),
                cx + rx * r * math.cos(phi),
                cy + ry * r * math.sin(phi),
                radius,
                radius * rng.uniform(0.6, 1.6),
            )
        for rib in range(5):
            phi = rng.uniform(-0.1, 0.1) + (rib - 2) * 0.5
            ellipse(
                rng.uniform(500, 800),
                side * (width - fat - 0.03) * math.cos(phi),
                (depth - fat - 0.03) * math.sin(phi),
                0.03,
                0.02,
            )
    ellipse(
        rng.uniform(35, 55),
        rng.uniform(0.0, 0.12),
        rng.uniform(-0.1, 0.05),
        rng.uniform(0.2, 0.28),
        rng.uniform(0.2, 0.26),
    )
    ellipse(
        rng.uniform(120, 250), rng.uniform(-0.02, 0.02), depth * 0.62, rng.uniform(0.09, 0.12), rng.uniform(0.08, 0.1)
    )
    ellipse(rng.uniform(600, 900), 0, depth * 0.62, 0.05, 0.04)
    return image.reshape(size, 2, size, 2).mean((1, 3))


def find_slices(folder):
    """The slices in a folder and its subfolders -> paths, by name. Raises InputError."""
    if not os.path.isdir(folder):
        raise InputError(f"--slices {folder}: no such folder")
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    paths = sorted(path for path in paths if path.lower().endswith((".dcm", ".npy", ".tif", ".tiff")))
    if len(paths) < 3:
        raise InputError(f"--slices {folder}: holds {len(paths)} files .dcm, .npy or .tif, at least 3 are needed")
    return paths


def read_slice(path, size):
    """A slice in Hounsfield units -> float32 (size, size). Raises InputError."""
    if path.lower().endswith(".dcm"):
        values = read_dicom(path)
    else:
        values = raw_values(path, 1)[0][..., 0].astype(np.float32)
    if values.ndim != 2 or not np.isfinite(values).all() or values.min() > -200 or values.max() < -200:
        raise InputError(f"{path}: not a slice in Hounsfield units, in which air is -1000 and water 0")
    low, high = float(values.min()), float(values.max())
    scaled = resize_array(((values - low) / (high - low)).astype(np.float32)[..., None], (size, size))[..., 0]
    return scaled * (high - low) + low


def read_dicom(path):
    """The values of a DICOM file in Hounsfield units -> float32. Raises InputError."""
    try:
        import pydicom
    except ImportError:
        raise InputError(f"{path}: reading DICOM requires pydicom: pip install pydicom")
    try:
        file = pydicom.dcmread(path)
        if "RescaleSlope" not in file:
            raise ValueError("it has no RescaleSlope, so its values are not in Hounsfield units")
        return file.pixel_array.astype(np.float32) * float(file.RescaleSlope) + float(file.RescaleIntercept)
    except Exception as error:  # pydicom and its decoders raise many kinds of errors on damaged files
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})")


##############################
#   The data set
##############################


def main(argv=None):
    opt = get_parser().parse_args(argv)
    root = os.path.normpath(opt.folder)
    if os.path.lexists(root):
        raise InputError(f"{root}: already exists. Name a new folder, or remove it")
    paths = find_slices(opt.slices) if opt.slices else [None] * opt.n
    if opt.n_test > len(paths) - 2:
        raise InputError(f"--n_test {opt.n_test}: of {len(paths)} slices, at most {len(paths) - 2} can be for testing")
    half, generator = (len(paths) - opt.n_test) // 2, torch.Generator().manual_seed(opt.seed)
    progress, started, differences = Progress(), time.monotonic(), []
    with complete_folder(root) as temporary:
        for folder in ("trainA", "trainB", "testA", "testB"):
            os.makedirs(os.path.join(temporary, folder))
        for i, path in enumerate(paths):
            values = read_slice(path, opt.size) if path else draw_slice(np.random.default_rng((opt.seed, i)), opt.size)
            low, full = scan(torch.from_numpy(values), opt.photons, opt.electronic, opt.views, generator)
            if i < opt.n_test:
                chosen = {"testA": low, "testB": full}
                differences.append(np.square(low.astype(float) - full).mean())
            else:
                chosen = {"trainA": low} if i < opt.n_test + half else {"trainB": full}
            for folder, image in chosen.items():
                np.save(os.path.join(temporary, folder, f"{i:04d}.npy"), image)
            progress.tick(i + 1, len(paths), "slices", started)
        progress.end_line()
    print(
        f"{root}: {half} slices of low dose, {len(paths) - opt.n_test - half} others of full dose, {opt.n_test} of both, "
        f"{opt.size} x {opt.size} pixels; RMSE of low dose to full dose {math.sqrt(np.mean(differences)):.1f} Hounsfield units"
    )


if __name__ == "__main__":
    run_script(main)
