"""What several test files need: small options, and comparisons of checkpoints."""

import hashlib
import json
import os
import pathlib
import signal

import numpy as np
import torch
from PIL import Image

import cyclegan
import utils
from inference.load import load_generators
from training.run import Run

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = (
    "--dataset_name tiny --img_height 32 --img_width 32 --n_residual_blocks 1 --ngf 4 --ndf 4 --pool_size 3 "
    "--device cpu --no-amp --log_interval 2 --sample_interval 0"
).split()


def small(more):
    """SMALL, without the image size if --progressive sets it."""
    i = SMALL.index("--img_height")
    return SMALL[:i] + SMALL[i + 4 :] if "--progressive" in more else SMALL


def write_set(folder, size=(40, 40), name="tiny", **counts):
    """Writes a data set of random pictures into folder/data/name -> its folder. counts: trainA=3, ..."""
    rng = np.random.default_rng(0)
    root = pathlib.Path(folder, "data", name)
    for domain, count in (counts or dict(trainA=4, trainB=5, testA=2, testB=2)).items():
        (root / domain).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / domain / f"{i}.png")
    return str(root)


def load(path="saved_models/tiny/latest.pth"):
    """A checkpoint, without what is different in each run: dates and commands."""
    state = torch.load(path, weights_only=True)
    state.pop("provenance", None)
    return state


def losses_logged(run_name="tiny"):
    records = [json.loads(line) for line in open(f"saved_models/{run_name}/log.jsonl")]
    return [record for record in records if "loss_G" in record]


def assert_same(one, other, path=""):
    """Asserts that two nested dicts or lists are equal, bit for bit."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other)):
            assert_same(a, b, f"{path}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def interrupt_at(monkeypatch, step, number=signal.SIGINT):
    """Sends this process a signal in the middle of a step."""
    count = [0]
    original = utils.ReplayBuffer.push_and_pop

    def push_and_pop(self, *images):
        count[0] += 1
        if count[0] == 2 * step:
            signal.raise_signal(number)
        return original(self, *images)

    monkeypatch.setattr(utils.ReplayBuffer, "push_and_pop", push_and_pop)


def same_network(network, *more):
    """A key that is the same for networks that compute the same with the same code; None if that is not known."""
    found, forwards = hashlib.sha256(repr(more).encode()), []
    for name, part in network.named_modules():
        forwards.append(type(part).forward)  # a test may have replaced it
        found.update(f"{name} {type(part).__qualname__}".encode())
        for key, value in sorted(vars(part).items()):
            if isinstance(value, torch.Tensor):
                found.update(value.numpy(force=True).tobytes())
            elif not key.startswith("_"):
                if not isinstance(value, (bool, int, float, str, tuple, dict, type(None))) or "tensor(" in repr(value):
                    return None
                found.update(f"{key} {value}".encode())
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.numpy(force=True).tobytes())
    return found.hexdigest(), *forwards


def load_networks(path):
    """{"AB": G_AB, "BA": G_BA} from a checkpoint."""
    return {direction: found.network for direction, found in load_generators(path).items()}


def build(opt, **changes):
    """cyclegan.build without data -> (CycleGAN, Run); changes: attributes of Run, such as device or rank"""
    run = Run(opt)
    vars(run).update(changes)
    return cyclegan.build(opt, run), run
