"""
Detects training runs that go wrong. The losses of competing networks do not show this on their own, so each sample grid
is also checked for the usual failures of CycleGAN. Each one has a name and advice.
"""

import os

import torch

from utils import DivergedError

# Usual ranges of the averaged losses, with least squares, means over both directions and the default weights. Measured
# on the demo and on Cityscapes (0.12 to 0.27, 0.26 to 0.51, 0.08 to 0.18) and widened a little.
USUAL = {"loss_D": (0.1, 0.3), "loss_GAN": (0.2, 0.6), "loss_cycle": (0.03, 0.2)}

COLOURS_COLLAPSE = (
    "all translations have nearly the same mean colour, and real images do not. Try --norm layer: instance norm removes "
    "the mean colour of an image, which may be what the translation depends on"
)
ADVICE = {
    "D too strong": "the generators learn little. Try --lr_D at half of --lr, --label_smoothing 0.1 or "
    "--spectral_norm, and with few images --diffaugment",
    "cycle loss stuck": "translating there and back does not restore the input. Try a smaller --lr or a larger "
    "--lambda_cyc",
    "output equals input": "the generators change almost nothing. Try a smaller --lambda_id (0.5 or 0), then a smaller "
    "--lambda_cyc",
    "colours inverted": "bright becomes dark and dark becomes bright. Try --lambda_id 5 or more, --lambda_ssim 1, or "
    "another --seed",
    "collapse": "different inputs give the same output. Try a larger --lambda_cyc, a smaller --lr, or --diffaugment",
    "colours collapse, A -> B": COLOURS_COLLAPSE,
    "colours collapse, B -> A": COLOURS_COLLAPSE,
}
# Colours only count as collapsed if those of real images of the target domain differ by more than this, in gray
# levels of 255. The mean colours of the demo's scenes differ by 6, those of horses and their paintings by 35 and 45,
# those of Cityscapes' photos by 11. Five images are few: the thresholds in look_at raise a false alarm for 0 to 0.7%
# of random samples of such sets (1.6% of Cityscapes' photos, which have outliers). A collapsed run had 0.14 to 0.23
# of the target's differences.
VARIED = 8
SETTLED = 200  # steps to average over; nothing is reported as unusual before this step


class Health:
    """Averages the losses and measures the translations of a training run, and reports what goes wrong.

    gan_loss:   'lsgan', 'vanilla' or 'hinge'. It determines which scores mean "real". Only 'lsgan' has usual ranges for
                the adversarial losses
    lambda_cyc: weight of the cycle loss, which is only reported if this is above 0
    """

    def __init__(self, gan_loss="lsgan", lambda_cyc=10.0):
        self.is_lsgan, self.lambda_cyc = gan_loss == "lsgan", lambda_cyc
        self.threshold = 0.5 if self.is_lsgan else 0.0
        self.ranges = {n: r for n, r in USUAL.items() if self.is_lsgan or n == "loss_cycle"}
        self.step, self.recent, self.averages, self.measures = None, [], {}, {}
        self.few_colours = []  # directions whose translations have nearly the same mean colour

    def losses(self, step, values):
        """Updates the averages, which are taken over the last SETTLED steps or slightly more.

        values: {name: mean since the last call}
        """
        self.recent.append((1 if self.step is None else step - self.step, values))
        self.step = step
        while sum(n for n, _ in self.recent[1:]) >= SETTLED:
            del self.recent[0]
        total = sum(n for n, _ in self.recent)
        for name in ("loss_D", "loss_G", "loss_GAN", *["loss_cycle"] * (self.lambda_cyc > 0)):
            if name in values:
                self.averages[name] = sum(n * values[name] for n, values in self.recent) / total

    def look_at(self, columns, scores_A, scores_B):
        """Measures the translations of a sample grid. Returns {measure: mean of both directions}, and the measures that
        end in AB or BA, which are of one direction.

        columns:  see utils.sample_images
        scores_A: scores that D_A gives to (real A, fake A)
        scores_B: scores that D_B gives to (real B, fake B)

        The measures are:
        tells:   accuracy of the discriminators over all patches, from 0 to 1; 0.5 is chance
        change:  mean absolute difference between input and translation, from 0 to 255; missing if their numbers of
                 channels differ
        inverts: correlation between the brightness of input and translation, from -1 to 1
        variety: mean difference between translations, divided by that between inputs; 1 if there is only one
        colours_AB, colours_BA: mean difference between the mean colours of translations, divided by that between real
                 images of the target domain; missing if there is only one
        """
        real_A, fake_B, _, real_B, fake_A, _ = columns
        measured = {"tells": [], "change": [], "inverts": [], "variety": []}
        for source, fake, scores in ((real_A, fake_B, scores_B), (real_B, fake_A, scores_A)):
            of_real, of_fake = ((score.float() > self.threshold).float().mean() for score in scores)
            measured["tells"].append((of_real + 1 - of_fake) / 2)
            if source.shape[1] == fake.shape[1]:
                measured["change"].append(127.5 * (fake - source).abs().mean())
            measured["inverts"].append(correlation(source.mean(1), fake.mean(1)))
            measured["variety"].append(spread(fake) / spread(source) if len(source) > 1 else fake.new_ones(()))
        self.measures = {name: torch.stack(values).mean().item() for name, values in measured.items() if values}
        self.few_colours = []
        for direction, source, fake, real in (("AB", real_A, fake_B, real_B), ("BA", real_B, fake_A, real_A)):
            if min(len(fake), len(real)) > 1:
                of_source, of_fake, of_real = (spread_of_colours(images) for images in (source, fake, real))
                self.measures[f"colours_{direction}"] = of_fake / of_real
                if of_fake < 0.2 * of_real and of_fake < 0.4 * of_source and of_real > VARIED:
                    self.few_colours.append(direction)
        return self.measures

    def conditions(self, step):
        """Returns the names of the failures in ADVICE that are detected at `step`."""
        if step <= SETTLED or not self.measures or not self.averages:
            return []
        measures, averages = self.measures, self.averages
        # with least squares, a loss near 0 leaves the generators little gradient; the other losses have no such limit
        too_strong = measures["tells"] > 0.97 and (not self.is_lsgan or averages["loss_D"] < 0.05)
        found = {
            "D too strong": too_strong,
            # a discriminator that is too strong also causes this, and is the better explanation
            "cycle loss stuck": averages.get("loss_cycle", 0.0) > 0.3 and not too_strong,
            "output equals input": measures.get("change", 255) < 5 and measures["tells"] > 0.7,
            "colours inverted": measures["inverts"] < -0.3,
            "collapse": measures["variety"] < 0.15,
        }
        for direction in ("AB", "BA"):  # if all of the output is the same, that is the better explanation
            few = direction in self.few_colours and not found["collapse"]
            found[f"colours collapse, {direction[0]} -> {direction[1]}"] = few
        return [name for name in ADVICE if found[name]]

    def line(self, step):
        """Returns the lines to print: averages and measures, then one line of advice for each failure. The usual range
        of a loss is only shown if the loss is outside it."""
        words = []
        for name, value in self.averages.items():
            low, high = self.ranges.get(name, (-float("inf"), float("inf")))
            usual = "" if low <= value <= high or step <= SETTLED else f" (usual: {low} to {high})"
            words.append(f"{name.removeprefix('loss_')} {value:.2f}{usual}")
        if self.measures:
            words.append(f"D accuracy {self.measures['tells']:.0%}")
            if "change" in self.measures:
                words.append(f"change {self.measures['change']:.0f} of 255")
            words.append(f"variety {self.measures['variety']:.0%}")
        lines = [f"health at step {step}: {', '.join(words)}"]
        return lines + [f"  {name}: {ADVICE[name]}" for name in self.conditions(step)]


def correlation(x, y):
    """Returns the correlation of two tensors of the same shape, from -1 to 1. It is 0 if one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x.norm() * y.norm()).clamp(min=1e-6)


def spread(images):
    """Returns the mean absolute difference between any two of the images (N, C, H, W)."""
    n = len(images)
    differences = (images[:, None] - images[None]).abs().mean((2, 3, 4))
    return (differences.sum() / (n * (n - 1))).clamp(min=1e-6)


def spread_of_colours(images):
    """Returns the mean absolute difference between the mean colours of any two images (N, C, H, W) in [-1, 1], in gray
    levels of 255."""
    return 127.5 * spread(images.mean((2, 3), keepdim=True)).item()


def check_finite(values, names, step, folder):
    """Raises DivergedError if a loss is NaN or infinite.

    values: losses of the last steps, a tensor (steps, len(names))
    step:   number of the last step
    folder: of the checkpoints, for the message
    """
    bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        first = step - len(values) + 1 + bad[0]
        losses = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values[bad[0]].tolist()))
        latest = os.path.join(folder, "latest.pth")
        way_out = f"Continue from {latest} with --resume and" if os.path.exists(latest) else "Start again with"
        raise DivergedError(f"diverged at step {first}: {losses}. {way_out} a smaller --lr or --no-amp")
