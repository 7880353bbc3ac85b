"""
How long a training will take, and whether it has become slow.
"""

import statistics
import time
from collections import deque

import torch

from command_line.progress import roughly

TOLD_AFTER = 3  # seconds until the time that a run will take is estimated
LONG = 3 * 3600  # seconds; on a CPU, a run that takes longer is told of --preset laptop
FIRST, RECENT = 60, 21  # seconds at the beginning, and number of steps later, that are compared
SLOW = 4  # so many times slower than in the beginning is worth a line


class Pace:
    """Watches the time that each step takes, on the clock: on a GPU, steps are queued, so `Pace` only estimates there.

    preset: the one that was named, or None
    """

    def __init__(self, device, preset, last_step):
        self.is_cpu, self.preset, self.last_step = device.type == "cpu", preset, last_step
        self.warm, self.is_told = None, False  # step and time of the first step, which is slower than others
        self.begin(None, time.monotonic())

    def begin(self, size, now):
        """Starts to measure; again if the size of the images changes."""
        self.size, self.began, self.before, self.is_slow = size, now, now, False
        self.first, self.recent = [], deque(maxlen=RECENT)

    def step(self, step, size, now=None):
        """Call after each step -> lines to print, mostly none. size: of the images"""
        now = time.monotonic() if now is None else now
        lines = [] if self.is_told else self.estimate(step, now)
        if size != self.size:
            self.begin(size, now)
            return lines
        seconds, self.before = now - self.before, now
        if now - self.began < FIRST or len(self.first) < RECENT:
            self.first.append(seconds)
        else:
            self.recent.append(seconds)
        if self.is_cpu and not self.is_slow and len(self.recent) == RECENT:
            lines += self.compare()
        return lines

    def estimate(self, step, now):
        """Once: how long the run will take."""
        if self.warm is None:
            self.warm = step, now
            return []
        done, left, seconds = step - self.warm[0], self.last_step - step, now - self.warm[1]
        if seconds < TOLD_AFTER or left <= 0:
            return []
        self.is_told = True
        total = seconds / done * left
        if total < 90:  # the line of progress says enough
            return []
        text = f"at this pace it will take about {roughly(total)}"
        if self.is_cpu and total > LONG and self.preset != "laptop":
            text = f"note: {text} on this CPU. --preset laptop trains smaller networks in fewer steps; or use a GPU"
        return [text]

    def compare(self):
        """Once: that steps have become much slower, and the way out."""
        usual, now = statistics.median(self.first), statistics.median(self.recent)  # grids and checkpoints do not count
        if now < SLOW * usual:
            return []
        self.is_slow = True
        way_out = "End them"
        if torch.get_num_threads() > 1:
            n = torch.get_num_threads() - 1  # leaves them a core
            way_out += (
                f", or press Ctrl-C and continue with OMP_NUM_THREADS={n} and --resume: threads wait for each other"
            )
        return [
            f"note: a step takes {now:.2g} s, and took {usual:.2g} s in the beginning. Other programs use the processor. "
            + way_out
        ]
