"""
Finds near duplicates among many images by perceptual hashes (imagehash.phash, 64 bits), and splits images so that no
near duplicates are on both sides.

All functions compare one image with all others at once, so that 20,000 images take seconds and a few MB. A pair is alike
if few bits of the hashes differ and thumbnails of 8 x 8 pixels are close. Measured on 360 photos and paintings of horses:
of 64,620 pairs, only the 4 true duplicates are within either limit. JPEG of quality 40 at half the size, and a shift by 1%
of the width, stay within NEAR in all images, a shift by 2% in 98%. A shift by 4% stays within SAME_SHOT in all of them,
one by 6% in 83%.
"""

import dataclasses

import numpy as np

from get_data.looking import THUMB
from media.arrays import LUMA

NEAR = (6, 8.0)  # most bits and levels (mean over the thumbnail) between near duplicates
SAME_SHOT = (16, 12.0)  # between pictures that are kept together by the split: burst shots, crops, gray versions
BURST = 2  # seconds between two photos of a camera that are kept together


@dataclasses.dataclass
class Prints:
    """The fingerprints of n images. hashes: uint64 (n,); thumbs: uint8 (n, 192)"""

    hashes: np.ndarray
    thumbs: np.ndarray

    @classmethod
    def of(cls, facts):
        thumbs = np.frombuffer(b"".join(one.thumb for one in facts), np.uint8).reshape(len(facts), THUMB * THUMB * 3)
        return cls(np.array([one.print for one in facts], np.uint64), thumbs)

    def alike(self, one, i, limits, among):
        """Which of the images `among`, an array of numbers, are like image i of other Prints -> their numbers"""
        close = among[np.bitwise_count(self.hashes[among] ^ one.hashes[i]) <= limits[0]]
        if len(close):
            change = self.thumbs[close].astype(np.int16) - one.thumbs[i]
            if limits is SAME_SHOT:  # in brightness
                change = change.reshape(len(close), -1, 3) @ LUMA
            close = close[np.abs(change).mean(1) <= limits[1]]
        return close


def near_duplicates(prints, order):
    """Goes through images in an order, and finds those that are nearly like an earlier one that was kept
    -> {number: number of the one that is kept}"""
    kept, n_kept, found = np.zeros(len(order), np.int64), 0, {}
    for i in order:
        close = prints.alike(prints, i, NEAR, kept[:n_kept])
        if len(close):
            found[int(i)] = int(close[0])
        else:
            kept[n_kept] = i
            n_kept += 1
    return found


def counterparts(prints, others, limits=NEAR):
    """-> {number of an image: number of one of `others` that is alike}"""
    everything, found = np.arange(len(others.hashes)), {}
    for i in range(len(prints.hashes)):
        close = others.alike(prints, i, limits, everything)
        if len(close):
            found[i] = int(close[0])
    return found


def series_of(facts):
    """Numbers the frames of one clip, and the photos of one burst: by one camera, with at most BURST seconds from each to
    the next -> int array (n,), -1 for others

    facts: list of looking.Facts"""
    series, numbers = np.full(len(facts), -1), {}
    for i, one in enumerate(facts):
        if one.clip:
            series[i] = numbers.setdefault(one.clip, len(numbers))
    n, photos = len(numbers), sorted((*one.taken, i) for i, one in enumerate(facts) if one.taken)
    for (camera, seconds, i), (next_camera, next_seconds, j) in zip(photos, photos[1:]):
        if camera == next_camera and next_seconds - seconds <= BURST:
            if series[i] < 0:
                series[i], n = n, n + 1
            series[j] = series[i]
    return series


def groups_of(prints, series, limits=SAME_SHOT):
    """Numbers the groups of images that belong together: alike, directly or through others, or of one series
    -> int array (n,)

    series: int array (n,), see series_of"""
    n = len(prints.hashes)
    group, rest, n_groups = np.full(n, -1), np.arange(n), 0
    while len(rest):
        todo = [rest[0]]
        group[rest[0]], rest = n_groups, rest[1:]
        while todo and len(rest):
            i = todo.pop()
            close = prints.alike(prints, i, limits, rest)
            if series[i] >= 0:
                close = np.union1d(close, rest[series[rest] == series[i]])
            if len(close):
                group[close] = n_groups
                rest = rest[group[rest] < 0]
                todo += close.tolist()
        n_groups += 1
    return group


def choose_test(group, side, wanted, seed):
    """Chooses test images, whole groups at random -> bool array (n,).

    group:  int array (n,), see groups_of
    side:   int array (n,), 0 for A and 1 for B
    wanted: number of test images of A, of B
    Each side gets at most as many as are wanted. If only larger groups are left for a side, it gets the smallest one,
    unless that is more than half of the side's images.
    """
    is_test = np.zeros(len(group), bool)
    counts = np.zeros((group.max(initial=-1) + 1, 2), int)
    np.add.at(counts, (group, side), 1)
    order, needed = np.random.default_rng(seed).permutation(len(counts)), np.array(wanted)
    chosen = np.zeros(len(counts), bool)
    for g in order:
        if (counts[g] <= needed).all():
            chosen[g] = True
            needed = needed - counts[g]
    for s in (0, 1):
        if wanted[s] and not counts[chosen, s].any():
            fitting = [g for g in order if counts[g, s] and (2 * counts[g] <= counts.sum(0)).all()]
            if fitting:
                chosen[min(fitting, key=lambda g: counts[g].sum())] = True
    is_test[:] = chosen[group]
    return is_test
