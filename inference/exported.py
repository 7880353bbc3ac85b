"""
Generators that export.py wrote, in place of a checkpoint: for translate.py and evaluate.py. Each file is run by its
own runtime: .onnx by ONNX Runtime, .pt2 (torch.export) and .ts (TorchScript) by PyTorch.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings

import torch
from torch import nn

from inference.generator import TrainedGenerator
from media.files import check_zip
from utils import InputError

RUNTIMES = {".onnx": "ONNX", ".pt2": "torch.export", ".ts": "TorchScript"}
FACTS = "facts.json"  # the name of what .pt2 and .ts files hold beside the network
CHECKSUM, NO_SUM = "sha256", 64 * "0"  # .onnx files: of the file, with zeros where it stands itself


def is_exported(path):
    return os.path.splitext(path)[1].lower() in RUNTIMES


class Exported(nn.Module):
    """An exported generator, to be used as the one that it was made of: images (N, channels, H, W) in [-1, 1] to the
    same, float32 whatever comes in.

    facts: (attribute) what export.py wrote about it, see there
    """

    def __init__(self, path, extension=None):
        super().__init__()
        self.path, self.extension = path, extension or os.path.splitext(path)[1].lower()
        self.load(torch.device("cpu"))
        try:
            self.channels, self.out_channels, self.multiple, self.smallest = (
                int(self.facts[name]) for name in ("channels", "out_channels", "multiple", "smallest")
            )
        except (KeyError, ValueError):
            raise InputError(f"{path}: not written by export.py, so what images it takes is not known")

    def load(self, device):
        load = {".onnx": load_onnx, ".pt2": load_program, ".ts": load_torchscript}[self.extension]
        try:
            self.run, self.facts = load(self.path, device)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except Exception as error:  # of a broken file the runtimes raise nearly anything
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(f"{self.path}: broken, or not for this version ({type(error).__name__}: {reason})")

    def to(self, device, dtype=None):
        """dtype is ignored: the file fixes its precision. Once on a GPU, it stays there."""
        if torch.device(device).type != "cpu":
            self.load(torch.device(device))
        return self

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return self.run(x.float())

    def __str__(self):
        return f"{RUNTIMES[self.extension]}, {self.facts.get('precision', 'float32')}"


def load_onnx(path, device):
    session = open_session(path, device)
    facts = session.get_modelmeta().custom_metadata_map
    if expected := facts.get(CHECKSUM):
        with open(path, "rb") as file:
            data = file.read().replace(expected.encode(), NO_SUM.encode())
        if hashlib.sha256(data).hexdigest() != expected:
            raise InputError(f"{path}: damaged, or changed since export.py wrote it. Export it again")

    def run(x):
        (y,) = session.run(None, {"image": x.cpu().numpy()})
        return torch.from_numpy(y).to(x.device)

    return run, facts


def open_session(path, device):
    """An ONNX Runtime session on a device, with as many threads as PyTorch has."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: needs ONNX Runtime: pip install onnxruntime")
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError(f"{path}: ONNX Runtime has no CUDA here: --device cpu, or pip install onnxruntime-gpu")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=providers)


def checked(path):
    """The bytes of a zip file that PyTorch wrote, once its checksums are found right."""
    with open(path, "rb") as file:
        data = io.BytesIO(file.read())
    check_zip(data)
    data.seek(0)
    return data


@contextlib.contextmanager
def without_warnings():
    """Silences warnings, and log messages below errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def load_program(path, device):
    facts = {FACTS: ""}
    with without_warnings():  # of a broken file it tells at length what we say in a line
        program = torch.export.load(checked(path), extra_files=facts)
    return without_grad(program.module().to(device)), json.loads(facts[FACTS] or "{}")


def load_torchscript(path, device):
    facts = {FACTS: ""}
    with without_warnings():  # deprecated, which export.py says
        module = torch.jit.load(checked(path), map_location=device, _extra_files=facts)
    return without_grad(module), json.loads(facts[FACTS] or "{}")


def without_grad(module):
    return torch.no_grad()(lambda x: module(x))


def load_exported(path, direction=None):
    """As load.load_generator -> TrainedGenerator, whose network is an Exported."""
    G = Exported(path)
    made_for = G.facts.get("direction") or None
    if direction and made_for and direction != made_for:
        raise InputError(f"--direction {direction}: {path} translates {made_for}")
    options = {name: int(G.facts[name]) for name in ("img_height", "img_width") if G.facts.get(name)}
    options |= {"dataset_name": G.facts["dataset_name"]} if G.facts.get("dataset_name") else {}
    epoch = int(G.facts["epoch"]) if G.facts.get("epoch") else None
    return TrainedGenerator(G, path, direction or made_for, epoch, options)
