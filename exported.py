"""
Generators that export.py wrote, for whoever used to have a checkpoint: translate.py, evaluate.py. Each file is run by
its own runtime: .onnx by ONNX Runtime, .pt2 (torch.export) and .ts (TorchScript) by PyTorch.
"""

import io
import json
import logging
import os
import warnings
import zipfile

import torch
from torch import nn

from utils import InputError

FORMATS = {".onnx": "ONNX", ".pt2": "torch.export", ".ts": "TorchScript"}
FACTS = "facts.json"  # the name of what .pt2 and .ts files hold beside the network


def is_exported(path):
    return os.path.splitext(path)[1].lower() in FORMATS


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
        """dtype: taken and left aside, the file says in which precision it computes. From a GPU there is no way back"""
        if torch.device(device).type != "cpu":
            self.load(torch.device(device))
        return self

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            return self.run(x.float())

    def __str__(self):
        return f"{FORMATS[self.extension]}, {self.facts.get('precision', 'float32')}"


def load_onnx(path, device):
    session = open_session(path, device)

    def run(x):
        (y,) = session.run(None, {"image": x.cpu().numpy()})
        return torch.from_numpy(y).to(x.device)

    return run, session.get_modelmeta().custom_metadata_map


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
    """What is in a zip file, as PyTorch writes it, if its checksums are right: PyTorch does not look at them."""
    with open(path, "rb") as file:
        data = io.BytesIO(file.read())
    with zipfile.ZipFile(data) as archive:
        if archive.testzip():
            raise ValueError("a checksum is wrong")
    data.seek(0)
    return data


def load_program(path, device):
    facts = {FACTS: ""}
    data = checked(path)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of a broken file it tells at length what we say in a line
    try:
        program = torch.export.load(data, extra_files=facts)
    finally:
        logging.disable(level)
    return no_grad(program.module().to(device)), json.loads(facts[FACTS] or "{}")


def load_torchscript(path, device):
    facts = {FACTS: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, which export.py says
        module = torch.jit.load(checked(path), map_location=device, _extra_files=facts)
    return no_grad(module), json.loads(facts[FACTS] or "{}")


def no_grad(module):
    return torch.no_grad()(lambda x: module(x))


def load_exported(path, direction=None):
    """As checkpoints.load_generator -> (Exported, facts)."""
    G = Exported(path)
    made_for = G.facts.get("direction") or None
    if direction and made_for and direction != made_for:
        raise InputError(f"--direction {direction}: {path} translates {made_for}")
    options = {name: int(G.facts[name]) for name in ("img_height", "img_width") if G.facts.get(name)}
    options |= {"dataset_name": G.facts["dataset_name"]} if G.facts.get("dataset_name") else {}
    epoch = int(G.facts["epoch"]) if G.facts.get("epoch") else None
    return G, {"full": False, "direction": direction or made_for, "epoch": epoch, "options": options}
