"""
Is this training going well? Losses of networks that fight each other do not say. So this looks for what goes wrong with
CycleGAN, each thing by a name and with what mends it.
"""

import os

import torch

from utils import DivergedError

# Usual ranges of the moving averages once a training is under way, for the losses as they are here (least squares,
# means over both directions, default weights): from runs on the demo and on Cityscapes
# (0.12 to 0.27, 0.26 to 0.51, 0.08 to 0.18), widened a little
USUAL = {"loss_D": (0.1, 0.3), "loss_GAN": (0.2, 0.6), "loss_cycle": (0.03, 0.2)}

ADVICE = {
    "D too strong": "the generators learn little: try --lr_D a half of --lr, --label_smoothing 0.1, --spectral_norm; "
    "with few images --diffaugment",
    "cycle loss stuck": "there and back does not lead to where it began: try a smaller --lr, or a larger --lambda_cyc",
    "output equals input": "nothing is translated: try a smaller --lambda_id (0.5, or 0), then a smaller --lambda_cyc",
    "colours inverted": "bright becomes dark, and back: try --lambda_id 5 or more, --lambda_ssim 1, another --seed",
    "collapse": "different inputs give one output: try a larger --lambda_cyc, a smaller --lr, or --diffaugment",
}
SETTLED = 200  # steps that are averaged over, and up to which nothing is usual


class Health:
    """Moving averages of the losses, and the state of the translations, over a training.

    gan_loss:   'lsgan', 'vanilla' or 'hinge': which scores mean "real"; there are usual ranges for the first only
    lambda_cyc: weight of the cycle loss; without it, nothing is said of it
    """

    def __init__(self, gan_loss="lsgan", lambda_cyc=10.0):
        self.is_lsgan, self.lambda_cyc = gan_loss == "lsgan", lambda_cyc
        self.threshold = 0.5 if self.is_lsgan else 0.0
        self.ranges = {n: r for n, r in USUAL.items() if self.is_lsgan or n == "loss_cycle"}
        self.step, self.recent, self.averages, self.seen = None, [], {}, {}

    def losses(self, step, values):
        """values: {name: mean since the last call}. Averages are taken over the last SETTLED steps, or a few more."""
        self.recent.append((1 if self.step is None else step - self.step, values))
        self.step = step
        while sum(n for n, _ in self.recent[1:]) >= SETTLED:
            del self.recent[0]
        total = sum(n for n, _ in self.recent)
        for name in ("loss_D", "loss_G", "loss_GAN", *["loss_cycle"] * (self.lambda_cyc > 0)):
            if name in values:
                self.averages[name] = sum(n * values[name] for n, values in self.recent) / total

    def look_at(self, columns, scores_A, scores_B):
        """Measures the translations of a sample grid -> {measure: value}, means of both directions.

        columns: as of sample_images
        scores:  what D_A makes of (real A, fake A), and D_B of (real B, fake B)
        tells:   share of the patches that the discriminators tell right, half of them of real images, half translated
        change:  mean absolute difference of input and translation, of 255; left out where they differ in channels
        inverts: correlation of the brightness of input and translation
        variety: mean difference between translations, of that between the inputs; 1.0 for a single one
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
        self.seen = {name: torch.stack(values).mean().item() for name, values in measured.items() if values}
        return self.seen

    def conditions(self, step):
        """-> names of ADVICE that hold, after `step` steps."""
        if step <= SETTLED or not self.seen or not self.averages:
            return []
        seen, averages = self.seen, self.averages
        # least squares: near 0 there is no more to learn from it; the other losses have no such scale
        too_strong = seen["tells"] > 0.97 and (not self.is_lsgan or averages["loss_D"] < 0.05)
        found = {
            "D too strong": too_strong,
            "cycle loss stuck": averages.get("loss_cycle", 0.0) > 0.3 and not too_strong,  # that would be the cause
            "output equals input": seen.get("change", 255) < 5 and seen["tells"] > 0.7,
            "colours inverted": seen["inverts"] < -0.3,
            "collapse": seen["variety"] < 0.15,
        }
        return [name for name in ADVICE if found[name]]

    def line(self, step):
        """What is printed: the averages, beside them their usual range if they are out of it; and the conditions."""
        words = []
        for name, value in self.averages.items():
            low, high = self.ranges.get(name, (-float("inf"), float("inf")))
            usual = "" if low <= value <= high or step <= SETTLED else f" (usual: {low} to {high})"
            words.append(f"{name.removeprefix('loss_')} {value:.2f}{usual}")
        if self.seen:
            words.append(f"D tells {self.seen['tells']:.0%}")
            if "change" in self.seen:
                words.append(f"changes {self.seen['change']:.0f} of 255")
            words.append(f"variety {self.seen['variety']:.0%}")
        lines = [f"health at step {step}: {', '.join(words)}"]
        return lines + [f"  {name}: {ADVICE[name]}" for name in self.conditions(step)]


def correlation(x, y):
    """Of two equally shaped tensors, from -1 to 1; 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x.norm() * y.norm()).clamp(min=1e-6)


def spread(images):
    """(N, C, H, W) -> mean absolute difference between any two of them."""
    n = len(images)
    differences = (images[:, None] - images[None]).abs().mean((2, 3, 4))
    return (differences.sum() / (n * (n - 1))).clamp(min=1e-6)


def check_finite(values, names, step, folder):
    """Raises DivergedError if one of `values`, a tensor (steps, len(names)) that ends at `step`, is nan or inf."""
    bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        first = step - len(values) + 1 + bad[0]
        losses = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values[bad[0]].tolist()))
        good = os.path.join(folder, "latest.pth")
        way_out = f"{good} is from before: go on with --resume" if os.path.exists(good) else "Start again"
        raise DivergedError(f"diverged at step {first}: {losses}. {way_out} and a smaller --lr, or --no-amp")
