"""
Several processes that act as one.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist


def init_processes(device):
    """Joins the processes that torchrun started -> (rank, world_size); (0, 1) without torchrun."""
    if "RANK" not in os.environ:
        return 0, 1
    if dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    # NCCL for gradients; gloo for the few other messages, which should not make the GPU wait
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))  # the first process may have to download a data set
    return dist.get_rank(), dist.get_world_size()


def average_over_processes(tensors):
    """Replaces each tensor by its mean over all processes. For gradients from equal shares of a batch that is the
    gradient of the whole batch, as DistributedDataParallel computes it, without a wrapper around the networks."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message for all
    dist.all_reduce(flat)
    flat.div_(dist.get_world_size())
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(mean.view_as(tensor))


def first_process_first(function):
    """Calls a function in the first process, then in one of each machine, then in all others, which find what the first
    has prepared -> its result"""
    result = None
    for my_turn in (int(os.environ.get("RANK", "0")) == 0, int(os.environ.get("LOCAL_RANK", "0")) == 0, True):
        if my_turn:
            result = function()
        gather(None)  # waits for all processes
    return result


def random_state(device):
    """The state of torch's random numbers, which dropout and --diffaugment use."""
    state = {"rng": torch.get_rng_state()}
    return state | ({"cuda_rng": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state, device):
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], device)


def gather(value):
    """Collects `value` from every process -> list by rank on rank 0, a list of None on other ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.gather_object(value, values if dist.get_rank() == 0 else None)
    return values


def first_says(flag):
    """The flag of the first process, in every process."""
    if not dist.is_initialized():
        return flag
    number = torch.tensor(int(flag))
    dist.broadcast(number, 0)
    return bool(number)
