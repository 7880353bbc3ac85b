"""
Several processes that act as one, and signals.
"""

import os
import signal
from datetime import timedelta

import torch
import torch.distributed as dist


def init_processes(device):
    """Joins the processes that torchrun started, if it did -> (rank, world_size), (0, 1) in a plain run."""
    if "RANK" not in os.environ:
        return 0, 1
    # gradients go by NCCL; the few words between processes by gloo, which needs no GPU and makes it wait for nothing
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))  # a data set may have to be fetched first
    return dist.get_rank(), dist.get_world_size()


def average_over_processes(tensors):
    """Replaces each tensor by its mean over all processes. Of gradients from equal shares of a batch that is the
    gradient of the whole batch: what DistributedDataParallel does, without a wrapper around the networks.

    -> a function to call before they are used: the messages go out at once, and meanwhile there is other work."""
    if not dist.is_initialized() or not tensors:
        return lambda: None
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message instead of one a tensor
    message = dist.all_reduce(flat, async_op=True)

    def finish():
        message.wait()
        flat.div_(dist.get_world_size())
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view_as(tensor))

    return finish


def first_process_first(function):
    """Calls it in one process, then in one of each machine, then in all: the first one prepares what the others find.
    -> its result"""
    result = None
    for my_turn in (int(os.environ.get("RANK", "0")) == 0, int(os.environ.get("LOCAL_RANK", "0")) == 0, True):
        if my_turn:
            result = function()
        gather(None)  # waits for all
    return result


def random_state(device):
    """Where torch's random numbers are: those of dropout, of --diffaugment."""
    state = {"rng": torch.get_rng_state()}
    return state | ({"cuda_rng": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state, device):
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], device)


def gather(value):
    """`value` of every process -> list by rank, on rank 0; other ranks get a list of None."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.gather_object(value, values if dist.get_rank() == 0 else None)
    return values


class StopSignal:
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into a request to stop after the current step; a second one stops at
    once."""

    def __init__(self):
        self.number = 0
        self.previous = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}

    def _request(self, number, frame):
        self.number = number
        self.restore()

    def restore(self):
        for s, handler in self.previous.items():
            signal.signal(s, handler)

    def requested(self):
        """The signal's number, 0 if there was none; the same answer on every process, at the same step."""
        if not dist.is_initialized():
            return self.number
        number = torch.tensor(self.number)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()  # a signal that came just now is asked for in the next step
