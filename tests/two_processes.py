"""What each of two processes does in tests/training/test_processes.py: spawned processes import it from here."""

import os
import sys
import time

import pytest
import torch

import cyclegan
import models
from measuring import timing
from training.processes import average_over_processes, gather, init_processes


def join(rank, port):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip
    torch.set_num_threads(1)


def generator_and_batch():
    torch.manual_seed(0)
    network = models.GeneratorResNet(n_residual_blocks=1, ngf=4).apply(models.weights_init_normal).double()
    return network, torch.rand(4, 3, 32, 32, dtype=torch.double) * 2 - 1


def loss(network, batch):
    return (network(batch) - batch).abs().mean()


def run_in_one_of_two(rank, port, folder, runs):
    """Does everything that the tests need, because starting two processes takes longer. runs: {name: options of a
    training}"""
    join(rank, port)
    assert init_processes(torch.device("cpu")) == (rank, 2)
    os.chdir(folder)
    average(rank)
    steps_timed(rank)
    for name, options in runs.items():
        train(rank, name, options)
    torch.distributed.destroy_process_group()


def average(rank):
    network, batch = generator_and_batch()
    loss(network, batch[2 * rank : 2 * rank + 2]).backward()
    average_over_processes([p.grad for p in network.parameters()])
    assert gather(rank * 10) == ([0, 10] if rank == 0 else [None, None])
    torch.save([p.grad for p in network.parameters()], f"gradients_{rank}.pt")


def train(rank, name, options):
    """main, and then the networks of this process into a file."""
    networks = []
    with pytest.MonkeyPatch.context() as patch, open(f"out_{name}_{rank}.txt", "w") as file:
        for kind in ("make_generator", "make_discriminator"):
            original = getattr(cyclegan, kind)
            patch.setattr(cyclegan, kind, lambda *a, o=original: (networks.append(o(*a)), networks[-1])[1])
        patch.setattr(sys, "stdout", file)
        cyclegan.main(options)
    torch.save([network.state_dict() for network in networks], f"networks_{name}_{rank}.pt")


def steps_timed(rank):
    calls = [0]

    def step():
        calls[0] += 1
        time.sleep(0.001 * rank)  # their clocks disagree on what is short
        average_over_processes([torch.ones(1)])

    timing.seconds(step, torch.device("cpu"), 2, at_least=0.02)
    torch.save(calls[0], f"calls_{rank}.pt")
