"""
What a user should know about a data set before training on it: findings with advice.
"""

import dataclasses

import numpy as np

from get_data.alike import Prints, counterparts
from get_data.collecting import shown
from get_data.training_command import SMALLEST_CROP
from media.folders import count_of
from media.survey import SQUASHED

FEW, VERY_FEW = 100, 20  # training images of a domain
TOO_SMALL = 0.1  # noted if more images than this share of those that are used are too small
MANY_COPIES = 0.1  # a problem if more images of a data set than this share are duplicates
LOPSIDED = 4  # one domain has more than so many times as many images as the other
SPREAD = 4  # noted if the largest images of a domain are so many times as large as the smallest, without 5% at each end
MUCH_SMALLER = 1.5  # images of one domain are so many times as large as those of the other, at the size of training
CLIPPED, MANY = 0.25, 0.2  # an image is clipped if so much of it is at a limit; noted if so many images are
SQUASHED_SHARE = 0.1  # --keep_aspect is advised if more images than this have another shape than the crop
ENOUGH_TO_COMPARE, ALIKE = 30, 0.6  # images of each domain; the accuracy below which they hardly differ


@dataclasses.dataclass
class Finding:
    """kind: one of "few", "small", "lopsided", "no test", "duplicates", "sizes", "overlap", "alike", "clipped",
    "mixed channels", "mixed kinds", "shape", "turned", "leak", "clips"; is_problem: whether it should be put right;
    files: those that it is about"""

    kind: str
    text: str
    is_problem: bool = True
    files: list = dataclasses.field(default_factory=list)


def judge(facts, left, size, only_looking=False):
    """What was found in a data set -> list of Finding

    facts, left: list of looking.Facts, list of collecting.LeftOut
    size: of training before the crop, in pixels; only_looking: the data set was not made from them, but is there already"""
    findings = []
    both = {side: [one for one in facts if one.side == side] for side in "AB"}
    findings += judge_numbers(facts, left)
    if only_looking:
        findings += judge_split(both) + judge_duplicates(facts, left)
    findings += judge_overlap(both)
    if (accuracy := tells_apart(both["A"], both["B"])) is not None and accuracy < ALIKE:
        findings.append(Finding(
            "alike", f"A and B hardly differ: by brightness, colours and sharpness, {accuracy:.0%} of images are told apart, "
            "where guessing gives 50%. Check that the folders are the right ones. If only small details differ, training "
            "is hard, and needs many images"))  # fmt: skip
    for side in "AB":
        findings += judge_sizes(side, both[side])
        findings += judge_colours(side, both[side])
        findings += judge_kinds(side, both[side])
    findings += compare_sizes(both, size)
    findings += judge_shapes(both)
    turned = [one.path for one in facts if one.turned]
    if turned:
        how = "are turned upright whenever they are read" if only_looking else "were turned upright"
        findings.append(Finding("turned", f"{count_of(len(turned), 'photo')} {how}", False, turned))
    clips = {one.clip for one in facts if one.clip}
    if clips:
        n_frames = sum(bool(one.clip) for one in facts)
        text = (
            f"{n_frames} images are frames of {count_of(len(clips), 'video')}. Those of one video are all in "
            "train or in test"
        )
        findings.append(Finding("clips", text, False, sorted(clips)))
    return findings


def n_images(side, facts, left):
    """-> numbers of training and test images of a domain. Of a data set that is only looked at, duplicates and empty
    ones are counted, too: training reads them."""
    splits = [one.split for one in (*facts, *left) if one.side == side]
    return splits.count("train"), splits.count("test")


def judge_numbers(facts, left):
    findings = []
    n, n_test = ({side: n_images(side, facts, left)[i] for side in "AB"} for i in (0, 1))
    if min(n.values()) < FEW:
        text = (
            f"there are only {n['A']} training images of A and {n['B']} of B. A few hundred of each are a good start. "
        )
        text += "Collect more, or start from a trained model with --start_from"
        findings.append(Finding("few", text, min(n.values()) < VERY_FEW))
    for side in "AB":
        if n[side] and not n_test[side]:
            text = f"{side} has no test images; sample grids then show training images"
            findings.append(Finding("no test", text, False))
        too_small = [one.path for one in left if one.side == side and one.reason == "small"]
        n_used = sum(one.side == side for one in facts)
        if len(too_small) > TOO_SMALL * n_used:
            size, n_more = size_for([one for one in left if one.side == side])
            text = f"{count_of(len(too_small), 'image')} of {side} {'is' if len(too_small) == 1 else 'are'} too small"
            text += f". --size {size} uses {n_more} of them" if n_more else ""
            findings.append(Finding("small", text, len(too_small) > n_used, too_small))
    few, many = sorted("AB", key=n.get)
    if n[few] * LOPSIDED < n[many]:
        text = (
            f"{few} has {n[few]} training images and {many} has {n[many]}. Images of {few} are repeated more "
            "often; more of them help"
        )
        findings.append(Finding("lopsided", text, False))
    return findings


def size_for(left):
    """Of files that are left out -> (the --size that uses 90% of the images that are too small, how many of those it uses)"""
    sides = sorted(one.shorter for one in left if one.reason == "small" and one.shorter >= SMALLEST_CROP)
    if not sides:
        return None, 0
    smallest = sides[len(sides) // 10]
    return max(36, round(smallest * 286 / 256)), sum(side >= smallest for side in sides)


def judge_split(both):
    """Test images of a data set that nearly equal training images"""
    findings = []
    for side, those in both.items():
        train, test = ([one for one in those if one.split == split] for split in ("train", "test"))
        leaks = counterparts(Prints.of(test), Prints.of(train))
        if leaks:
            pairs = [f"{test[i].path} and {train[j].path}" for i, j in leaks.items()]
            text = (
                f"{count_of(len(leaks), 'test image')} of {side} nearly equal a training image, so results "
                "look too good"
            )
            findings.append(Finding("leak", text, True, pairs))
    return findings


def judge_duplicates(facts, left):
    """Images of a data set that are there more than once"""
    findings = []
    for side in "AB":
        copies = [one.path for one in left if one.side == side and one.reason in ("exact", "near")]
        n = sum(n_images(side, facts, left))
        if copies:
            text = (
                f"{len(copies)} of {n} images of {side} (nearly) equal another one. Training sees those more often than "
                "others; keep one of each"
            )
            findings.append(Finding("duplicates", text, len(copies) > MANY_COPIES * n, copies))
    return findings


def judge_overlap(both):
    A, B = both["A"], both["B"]
    found = counterparts(Prints.of(A), Prints.of(B))
    if not found:
        return []
    hashes = {one.sha for one in B if one.sha}
    n_exact = sum(A[i].sha in hashes for i in found)
    exact = f", {n_exact} of them as the same file" if n_exact else ""
    pairs = [f"{A[i].path} and {B[j].path}" for i, j in found.items()]
    text = (
        f"{count_of(len(found), 'image')} of A {'is' if len(found) == 1 else 'are'} nearly the same in "
        f"B{exact}. Unless they are pairs on purpose, remove them from one side"
    )
    return [Finding("overlap", text, True, pairs)]


def tells_apart(A, B):
    """How well a linear classifier tells A from B by Facts.traits -> accuracy on images it was not fitted to, the mean of
    both domains; None for too few images. Least squares with a small ridge, in 5 parts."""
    if min(len(A), len(B)) < ENOUGH_TO_COMPARE:
        return None
    A, B = (those[:: -(-len(those) // 2000)] for those in (A, B))
    x = np.array([one.traits for one in (*A, *B)], float)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    x = np.hstack([x, np.ones((len(x), 1))])
    is_B = np.arange(len(x)) >= len(A)
    y = np.where(is_B, 1.0, -1.0)
    weight = np.where(is_B, 1 / len(B), 1 / len(A))[:, None]
    part = np.hstack([np.arange(len(A)) % 5, np.arange(len(B)) % 5])
    correct = np.zeros(len(x), bool)
    for k in range(5):
        fit = part != k
        weighted = x[fit] * weight[fit]
        w = np.linalg.solve(weighted.T @ x[fit] + 0.01 * np.eye(x.shape[1]), weighted.T @ y[fit])
        correct[~fit] = (x[~fit] @ w > 0) == is_B[~fit]
    return float((correct[is_B].mean() + correct[~is_B].mean()) / 2)


def judge_sizes(side, those):
    shorter = np.array([min(one.width, one.height) for one in those])
    if len(shorter) < 2:
        return []
    low, high = np.quantile(shorter, [0.05, 0.95])
    if high <= SPREAD * low:
        return []
    text = (
        f"the shorter sides of {side} are from {low:.0f} to {high:.0f} pixels (without 5% at each end). Small "
        "ones are less sharp, and may show things at another scale"
    )
    return [Finding("sizes", text, False)]


def compare_sizes(both, size):
    """Whether images of one domain are smaller, at the size of training: they are less sharp, which networks learn"""
    medians = {s: np.median([min(one.width, one.height, size) for one in those]) for s, those in both.items() if those}
    if len(medians) < 2:
        return []
    small, large = sorted("AB", key=medians.get)
    if medians[large] < MUCH_SMALLER * medians[small]:
        return []
    text = (
        f"images of {small} are much smaller than those of {large} (shorter side {medians[small]:.0f} and "
        f"{medians[large]:.0f} pixels) and are enlarged. The networks may learn the blur: use larger images, "
        "or a smaller --size"
    )
    return [Finding("sizes", text)]


def judge_colours(side, those):
    clipped = [one.path for one in those if one.clipped > CLIPPED]
    if len(clipped) <= MANY * len(those):
        return []
    text = (
        f"{len(clipped)} of {len(those)} images of {side} have clipped colours: more than a quarter of the "
        "pixels of a channel are 0 or 255. Right for drawings on white; photos may be overexposed, or have "
        "black borders"
    )
    return [Finding("clipped", text, False, clipped)]


def judge_kinds(side, those):
    """Gray images among coloured ones, and arrays among photos"""
    findings = []
    kinds = {kind: [one for one in those if one.kind == kind] for kind in ("gray", "colour", "array")}
    arrays, others = kinds["array"], [*kinds["gray"], *kinds["colour"]]
    if arrays and others:
        few, name = (arrays, "arrays") if len(arrays) <= len(others) else (others, "8-bit images")
        text = (
            f"{side} mixes 8-bit images and arrays (.npy, or more than 8 bits); {count_of(len(few), name[:-1])} "
            "should be removed or converted, because the first file decides how all are read"
        )
        findings.append(Finding("mixed kinds", text, True, [one.path for one in few]))
    channels = {one.channels for one in arrays}
    if len(channels) > 1:
        text = f"arrays of {side} have different numbers of channels: {', '.join(map(str, sorted(channels)))}. Use one"
        findings.append(Finding("mixed channels", text, True, [one.path for one in arrays]))
    if kinds["gray"] and kinds["colour"]:
        kind, other = ("gray", "coloured") if len(kinds["gray"]) <= len(kinds["colour"]) else ("colour", "gray")
        word = "gray" if kind == "gray" else "coloured"
        few = kinds[kind]
        text = (
            f"{count_of(len(few), f'{word} image')} of {side} among {len(others) - len(few)} {other}. Remove "
            "them, or train with --channels 1"
        )
        findings.append(Finding("mixed channels", text, True, [one.path for one in few]))
    return findings


def judge_shapes(both):
    everything = [*both["A"], *both["B"]]
    squashed = [one.path for one in everything if is_squashed(one)]
    if len(squashed) <= SQUASHED_SHARE * len(everything):
        return []
    text = (
        f"{len(squashed)} of {len(everything)} images are more than {SQUASHED} times as wide as high, or as "
        "high as wide. By default they are squashed to a square; --keep_aspect crops instead, and is in the "
        "command below"
    )
    return [Finding("shape", text, False, squashed)]


def is_squashed(one):
    return max(one.width, one.height) > SQUASHED * min(one.width, one.height)


##############################
#   In words
##############################


def headline(findings):
    """-> the verdict in one line"""
    n = sum(finding.is_problem for finding in findings)
    more = len(findings) - n
    if n:
        return f"verdict: {count_of(n, 'problem')} to look at before training" + (
            f", and {count_of(more, 'remark')}" if more else ""
        )
    return f"verdict: ready for training, with {count_of(more, 'remark')}" if more else "verdict: ready for training"


def describe(finding, most=3):
    """A finding with the names of a few of its files"""
    names = [shown(file) for file in finding.files[:most]]
    if not names:
        return finding.text
    more = f" and {len(finding.files) - most} more" if len(finding.files) > most else ""
    return f"{finding.text} ({', '.join(names)}{more})"
