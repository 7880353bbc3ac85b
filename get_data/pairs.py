"""
Compares translations with the true answers: L1, PSNR and SSIM of pairs of images, and the score that a training on one of
the data sets of embedded.py ends with.
"""

import torch

from command_line.terminal import say

##############################
#   Measures of a pair
##############################

SSIM_WINDOW = 11  # pixels


def ssim(a, b):
    """Returns the structural similarity of each pair, float64 (N,), as defined by Wang et al., 2004: a Gaussian window
    of 11 x 11 pixels with a standard deviation of 1.5, and the mean over all windows inside the image and over the
    channels. It is 1 for equal images. Equals scikit-image's with the options of that paper.

    a, b: (N, C, H, W) in [-1, 1], at least 11 x 11 pixels
    """
    # float32 has too few digits for variances in flat areas, and torchmetrics reflects images at their border
    a, b = ((z if z.device.type != "mps" else z.cpu()).double().add(1).div(2) for z in (a, b))
    gauss = torch.exp(-((torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * 1.5**2)).double()
    gauss = (gauss / gauss.sum()).tolist()

    def blur(z):  # along columns, then along rows
        for axis in (2, 3):
            length = z.shape[axis] - SSIM_WINDOW + 1
            blurred = z.narrow(axis, 0, length) * gauss[0]
            for i, weight in enumerate(gauss[1:], 1):
                blurred.add_(z.narrow(axis, i, length), alpha=weight)
            z = blurred
        return z

    mean_a, mean_b = blur(a), blur(b)
    variances = blur(a * a + b * b) - mean_a**2 - mean_b**2  # their sum
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2  # relative to the range of values, which is 1
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3))


def l1(a, b):
    """Returns the mean absolute difference of each pair, (N,), in gray levels of 255. Images are (N, C, H, W) in
    [-1, 1]."""
    return (a - b).abs().mean((1, 2, 3)) * 127.5


def psnr_of_pairs(a, b):
    """Returns the PSNR of each pair in dB, (N,), at most 100. Images are (N, C, H, W) in [-1, 1]."""
    return (10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))).clamp(max=100)


##############################
#   The score
##############################

MEASURES = {"L1": (l1, 1), "SSIM": (ssim, 3), "PSNR": (psnr_of_pairs, 2)}  # name: (function, digits)


@torch.no_grad()
def score(G_AB, G_BA, pairs, colours, device):
    """Translates test images in both directions and prints the mean L1, SSIM and PSNR to their counterparts.

    pairs:   iterable of (a, b), float32 (C, H, W) in [-1, 1], at least 11 x 11 pixels
    colours: {"A": (C,), "B": (C,)}, a colour of each domain in [-1, 1], for comparison: a translation that is one colour
    Two more results are there for comparison: that of one colour, and of the images without any translation, if both
    domains have as many channels. Returns {direction: {"translated" | "untranslated" | "one colour": {measure: mean}}}.
    """
    found, pairs = {"A->B": {}, "B->A": {}}, list(pairs)
    for a, b in pairs:
        for rows, G, source, truth, colour in (
            (found["A->B"], G_AB, a, b, colours["B"]),
            (found["B->A"], G_BA, b, a, colours["A"]),
        ):
            fake = G(source[None].to(device))[0].float().cpu()
            images = {"translated": ((fake + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1}  # as it is saved
            if len(a) == len(b):
                images["untranslated"] = source
            images["one colour"] = colour[:, None, None].expand_as(truth)
            for row, image in images.items():
                sums = rows.setdefault(row, dict.fromkeys(MEASURES, 0.0))
                for name, (measure, _) in MEASURES.items():
                    sums[name] += measure(image[None], truth[None]).item() / len(pairs)
    say(
        f"{len(pairs)} test pairs, compared with the true counterparts: L1 of 255 (lower is better) | SSIM | PSNR in dB (higher)"
    )
    for direction, rows in found.items():
        cells = (" | ".join(f"{row[k]:.{d}f}" for k, (_, d) in MEASURES.items()) for row in rows.values())
        say(f"  {direction}  " + "   ".join(f"{name} {cell}" for name, cell in zip(rows, cells)))
    return found
