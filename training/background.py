"""
Writing files while training continues.
"""

from concurrent.futures import ThreadPoolExecutor


class Background:
    """Runs tasks in a thread during training: compressing an image or writing a checkpoint takes as long as many steps
    on a GPU. One at a time: `start` waits for the previous task, and raises its error if it had one.

    Not for torch computations: on a CPU, a second set of OpenMP threads permanently competes with that of the
    training, which cost 40% of its speed when measured (benchmarks/NOTES.md)."""

    def __init__(self):
        self.executor, self.task = ThreadPoolExecutor(1), None

    def start(self, function, *arguments):
        before, self.task = self.task, self.executor.submit(function, *arguments)
        if before:
            before.result()

    def finish(self):
        """Waits for the last task."""
        if self.task:
            task, self.task = self.task, None
            task.result()
