"""
Generators in files written by export.py, for use in place of a checkpoint. ONNX Runtime runs .onnx files; PyTorch runs
.pt2 (torch.export) and .ts (TorchScript) files.
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
FACTS = "facts.json"  # name of the metadata in .pt2 and .ts files
CHECKSUM, NO_SUM = "sha256", 64 * "0"  # metadata of .onnx files: hash of the file with this placeholder in its place


def is_exported(path):
    return os.path.splitext(path)[1].lower() in RUNTIMES


def load_exported(path, direction=None):
    """As inference.load.load_generator -> TrainedGenerator, whose network is an Exported."""
    G = Exported(path)
    if direction and G.direction and direction != G.direction:
        raise InputError(f"--direction {direction}: {path} translates {G.direction}")
    return TrainedGenerator(G, path, direction or G.direction, G.epoch, G.options)


class Exported(nn.Module):
    """An exported generator with the interface of the original: images (N, channels, H, W) in [-1, 1] -> (N,
    out_channels, H, W). Input and output are float32.

    path:      a file written by export.py
    extension: tells the format of a file without the usual extension

    Attributes, from the file's metadata:
    channels, out_channels, multiple, smallest: as of models.GeneratorResNet
    size:      (height, width) of the only images that a file of export.py --size takes, None for any size
    precision: of the weights, such as "float32" or "int8"
    direction, epoch, options: as in TrainedGenerator

    Raises InputError, naming the path.
    """

    def __init__(self, path, extension=None):
        super().__init__()
        self.path, self.extension = path, extension or os.path.splitext(path)[1].lower()
        metadata = self.load(torch.device("cpu"))
        try:
            self.channels, self.out_channels = int(metadata["channels"]), int(metadata["out_channels"])
            self.multiple, self.smallest = int(metadata["multiple"]), int(metadata["smallest"])
            self.size = (int(metadata["height"]), int(metadata["width"])) if metadata.get("height") else None
        except (KeyError, ValueError):
            raise InputError(f"{path}: not written by export.py, so the size of its input is unknown")
        self.precision = metadata.get("precision", "float32")
        self.direction = metadata.get("direction") or None  # "" if export.py did not know
        self.epoch = int(metadata["epoch"]) if metadata.get("epoch") else None
        self.options = {name: int(metadata[name]) for name in ("img_height", "img_width") if metadata.get(name)}
        if metadata.get("dataset_name"):
            self.options["dataset_name"] = metadata["dataset_name"]

    def load(self, device):
        """Loads the file onto a device -> its metadata, a dict."""
        load = {".onnx": load_onnx, ".pt2": load_program, ".ts": load_torchscript}[self.extension]
        try:
            self.run, metadata = load(self.path, device)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except Exception as error:  # the runtimes raise many kinds of errors on broken files
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(f"{self.path}: broken, or not for this version ({type(error).__name__}: {reason})")
        return metadata

    def to(self, device, dtype=None):
        """Moves the generator to a GPU. There is no way back to the CPU, and dtype is ignored: the file fixes its
        precision."""
        if torch.device(device).type != "cpu":
            self.load(torch.device(device))
        return self

    def check_size(self, height, width, name="image"):
        """Raises InputError, naming the image, if the file takes only images of another size."""
        if self.size not in (None, (height, width)):
            only = "{1}x{0}".format(*self.size)
            raise InputError(f"{name}: {width}x{height} pixels, but {self.path} takes only {only}: use --size {only}")

    def forward(self, x):
        self.check_size(*x.shape[2:])
        with torch.autocast(x.device.type, enabled=False):
            if self.size:  # the batch size is fixed, too
                return torch.cat([self.run(image) for image in x.float().split(1)])
            return self.run(x.float())

    def __str__(self):
        fixed = ", {1}x{0} only".format(*self.size) if self.size else ""
        return f"{RUNTIMES[self.extension]}, {self.precision}{fixed}"


##############################
#   One loader per format
##############################

# Each one: path, device -> (function from images to images, metadata). The values of the metadata are text or numbers.


def load_onnx(path, device):
    session = open_session(path, device)
    metadata = session.get_modelmeta().custom_metadata_map
    if expected := metadata.get(CHECKSUM):
        with open(path, "rb") as file:
            data = file.read().replace(expected.encode(), NO_SUM.encode())
        if hashlib.sha256(data).hexdigest() != expected:
            raise InputError(f"{path}: damaged, or modified since export.py wrote it. Export it again")

    def run(x):
        (y,) = session.run(None, {"image": x.cpu().numpy()})
        return torch.from_numpy(y).to(x.device)

    return run, metadata


def open_session(path, device):
    """Opens an .onnx file -> ONNX Runtime session, with as many threads as PyTorch uses."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: requires ONNX Runtime: pip install onnxruntime")
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError(
                f"{path}: this ONNX Runtime does not support CUDA. Use --device cpu, or pip install onnxruntime-gpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=providers)


def load_program(path, device):
    metadata = {FACTS: ""}
    with without_warnings():  # on broken files torch logs at length what we say in one line
        program = torch.export.load(read_zip(path), extra_files=metadata)
    return without_grad(program.module().to(device)), json.loads(metadata[FACTS] or "{}")


def load_torchscript(path, device):
    metadata = {FACTS: ""}
    with without_warnings():  # TorchScript is deprecated; export.py says so
        module = torch.jit.load(read_zip(path), map_location=device, _extra_files=metadata)
    return without_grad(module), json.loads(metadata[FACTS] or "{}")


def read_zip(path):
    """The contents of a zip file, as written by PyTorch, after verifying its checksums -> io.BytesIO."""
    with open(path, "rb") as file:
        data = io.BytesIO(file.read())
    check_zip(data)
    data.seek(0)
    return data


@contextlib.contextmanager
def without_warnings():
    """Silences warnings, and log messages below the level of errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def without_grad(module):
    return torch.no_grad()(lambda x: module(x))
