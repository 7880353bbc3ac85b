"""
Generators in files written by export.py, for use in place of a checkpoint. ONNX Runtime runs .onnx files; PyTorch runs
.pt2 (torch.export) and .ts (TorchScript) files.

A .pth file is data and an .onnx file is a formula. But .pt2 and .ts files are programs: loading a .pt2 unpickles objects,
and a .ts can read and write files. So they are only loaded if the caller trusts them.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import warnings

import torch
from torch import nn

from command_line.run import out_of_memory
from inference.generator import TrainedGenerator
from media.files import check_zip
from media.reading import check_regular
from utils import InputError
from variants.ranges import parse_range

PROGRAMS = (".pt2", ".ts")
RUNTIMES = {".onnx": "ONNX", ".pt2": "torch.export", ".ts": "TorchScript"}
FACTS = "facts.json"  # name of the metadata in .pt2 and .ts files
CHECKSUM, NO_SUM = "sha256", 64 * "0"  # metadata of .onnx files: hash of the file with this placeholder in its place


def is_exported(path):
    return os.path.splitext(path)[1].lower() in RUNTIMES


def load_exported(path, direction=None, trust=False):
    """As inference.load.load_generator -> TrainedGenerator, whose network is an Exported."""
    G = Exported(path, trust=trust)
    if direction and G.direction and direction != G.direction:
        raise InputError(f"--direction {direction}: {path} translates {G.direction}")
    return TrainedGenerator(G, path, direction or G.direction, G.epoch, G.options)


class Exported(nn.Module):
    """An exported generator with the interface of the original: images (N, channels, H, W) in [-1, 1] -> (N,
    out_channels, H, W). Input and output are float32.

    path:      a file written by export.py
    extension: tells the format of a file without the usual extension
    trust:     load .pt2 and .ts files, which are programs

    Attributes, from the file's metadata:
    channels, out_channels, multiple, smallest: as of models.GeneratorResNet
    size:      (height, width) of the only images that a file of export.py --size takes, None for any size
    ranges:    only if trained with --range_A or --range_B, see inference.ranges
    precision: of the weights, such as "float32" or "int8"
    direction, epoch, options: as in TrainedGenerator

    Raises InputError, naming the path.
    """

    def __init__(self, path, extension=None, trust=False):
        super().__init__()
        self.path, self.extension = path, extension or os.path.splitext(path)[1].lower()
        if self.extension in PROGRAMS and os.path.exists(path) and not trust:
            raise InputError(
                f"{path}: is a program, and loading it runs what its author wrote. If you trust it, add --trust. Files "
                "that are not programs: .pth and .onnx"
            )
        metadata = self.load(torch.device("cpu"))
        try:
            facts = check_facts(metadata)
        except (KeyError, TypeError, ValueError) as error:
            reason = f" ({error})" if type(error) is ValueError else ""
            raise InputError(f"{path}: not written by export.py, so the size of its input is unknown{reason}")
        self.channels, self.out_channels = facts["channels"], facts["out_channels"]
        self.multiple, self.smallest = facts["multiple"], facts["smallest"]
        self.size = (facts["height"], facts["width"]) if facts.get("height") else None
        self.precision, self.direction, self.epoch = facts["precision"], facts["direction"], facts["epoch"]
        known = ("img_height", "img_width", "dataset_name", "keep_aspect")
        self.options = {name: facts[name] for name in known if facts.get(name)}
        if any(facts["ranges"]):
            self.ranges = facts["ranges"]

    def load(self, device):
        """Loads the file onto a device -> its metadata, a dict."""
        load = {".onnx": load_onnx, ".pt2": load_program, ".ts": load_torchscript}[self.extension]
        check_regular(self.path)
        try:
            self.run, metadata = load(self.path, device)
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file")
        except Exception as error:  # the runtimes raise many kinds of errors on broken files
            reason = (str(error).splitlines() or [""])[0][:200]
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
            # if the size is fixed, so is the batch size
            result = torch.cat([self.run_part(part) for part in x.float().split(1 if self.size else len(x))])
        if result.shape != (len(x), self.out_channels, *x.shape[2:]):
            raise InputError(f"{self.path}: returns {tuple(result.shape)} for images {tuple(x.shape)}. Export it again")
        return result

    def run_part(self, x):
        try:
            result = self.run(x)
        except Exception as error:  # the runtimes raise many kinds of errors
            if out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [""])[0][:200]
            raise InputError(f"{self.path}: cannot translate {tuple(x.shape)} ({type(error).__name__}: {reason})")
        if not isinstance(result, torch.Tensor) or result.ndim != 4:
            raise InputError(f"{self.path}: returns no images. Export it again")
        return result.float()

    def __str__(self):
        fixed = ", {1}x{0} only".format(*self.size) if self.size else ""
        return f"{RUNTIMES[self.extension]}, {self.precision}{fixed}"


def check_facts(metadata):
    """The metadata of an exported file, whose values are text or numbers -> the same, with numbers of type int. Raises
    KeyError, TypeError or ValueError, the latter with a message."""
    if not isinstance(metadata, dict):
        raise TypeError
    facts = {"precision": metadata.get("precision", "float32"), "dataset_name": metadata.get("dataset_name") or None}
    facts |= {"direction": metadata.get("direction") or None, "epoch": None}  # "" if export.py did not know
    limits = {"channels": 4096, "out_channels": 4096, "multiple": 2**14, "smallest": 2**14}
    optional = {"height": 2**14, "width": 2**14, "img_height": 2**14, "img_width": 2**14, "epoch": 10**9}
    optional |= {"keep_aspect": 1}
    for name, most in (limits | optional).items():
        if name in limits or metadata.get(name):
            facts[name] = int(metadata[name])
            if not (name != "epoch") <= facts[name] <= most:
                raise ValueError(f"{name} is {str(metadata[name])[:40]}")
    if bool(facts.get("height")) != bool(facts.get("width")):
        raise KeyError
    ranges = [metadata.get(name) for name in ("range_in", "range_out")]
    facts["ranges"] = [parse_range(str(value)[:80]) if value else None for value in ranges]
    name = facts["dataset_name"]
    is_folder = name is None or isinstance(name, str) and os.path.basename(name) == name and name not in (".", "..")
    for name, fits in {
        "precision": facts["precision"] in ("float32", "float16", "int8"),
        "direction": facts["direction"] in (None, "AB", "BA"),
        "dataset_name": is_folder,
    }.items():
        if not fits:
            raise ValueError(f"{name} is {str(facts[name])[:40]!r}")
    return facts


##############################
#   One loader per format
##############################

# Each one: path, device -> (function from images to images, metadata). The values of the metadata are text or numbers.


def load_onnx(path, device):
    with open(path, "rb") as file:
        data = file.read(2**31)  # the format holds less
    # A tensor may be in another file, whose place it tells under the key "location". The byte before is the end of a
    # length, 8 or, as numbers may be written with superfluous bytes, 0. ORTM is another format
    if len(data) == 2**31 or data[4:8] == b"ORTM" or re.search(rb"[\x00\x08]location", data):
        raise InputError(f"{path}: not written by export.py: too large, or it refers to other files")
    session = open_session(path, device, data)
    metadata = session.get_modelmeta().custom_metadata_map
    if expected := metadata.get(CHECKSUM):
        if hashlib.sha256(data.replace(expected.encode(), NO_SUM.encode())).hexdigest() != expected:
            raise InputError(f"{path}: damaged, or modified since export.py wrote it. Export it again")

    def run(x):
        (y,) = session.run(None, {"image": x.cpu().numpy()})
        return torch.from_numpy(y).to(x.device)

    return run, metadata


def open_session(path, device, data=None):
    """Opens an .onnx file -> ONNX Runtime session, with as many threads as PyTorch uses.

    data: the contents of the file, if they have been read. They cannot refer to other files"""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(f"{path}: requires ONNX Runtime: pip install onnxruntime")
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError(
                f"{path}: this ONNX Runtime does not support CUDA. Use --device cpu, or pip install onnxruntime-gpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # fatal; other errors are exceptions
    return onnxruntime.InferenceSession(path if data is None else data, options, providers=providers)


def load_program(path, device):
    data, metadata = read_zip(path), {FACTS: ""}
    with without_warnings():  # on broken files torch logs at length what we say in one line
        program = torch.export.load(data, extra_files=metadata)
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
    check_zip(data, unpacked=2**26)
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
