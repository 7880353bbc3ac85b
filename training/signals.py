"""
Signals that stop a training.
"""

import signal

import torch
import torch.distributed as dist


class StopSignal:
    """Turns the first SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal was closed) into a request to stop after the
    current step. A second SIGINT or SIGTERM stops immediately. A second SIGHUP does not, nor one after SIGTERM: both the
    kernel and the shell send it when a terminal is closed."""

    def __init__(self):
        self.number = 0
        self.previous = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}
        self.hangup = getattr(signal, "SIGHUP", None)  # not on Windows
        if self.hangup and signal.getsignal(self.hangup) == signal.SIG_IGN:  # nohup
            self.hangup = None
        self.before_hangup = self.hangup and signal.signal(self.hangup, self._request)

    def _request(self, number, frame):
        if number != self.hangup:
            self._restore_others()
        elif self.number:
            return
        self.number = number

    def _restore_others(self):
        for s, handler in self.previous.items():
            signal.signal(s, handler or signal.SIG_DFL)

    def restore(self):
        self._restore_others()
        if self.hangup:
            signal.signal(self.hangup, self.before_hangup or signal.SIG_DFL)

    def requested(self):
        """-> the number of the signal, or 0; the same in every process at the same step"""
        if not dist.is_initialized():
            return self.number
        number = torch.tensor(self.number)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()  # a signal since then counts in the next step
