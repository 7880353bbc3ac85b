"""
Writes a trained generator in formats that run without this project: ONNX (float32, float16, INT8), torch.export and
TorchScript. Exported generators accept any batch size, height and width.
"""

import collections
import contextlib
import copy
import hashlib
import io
import json
import os
import tempfile

import torch
from torch import nn

from deploy.int8 import quantise
from inference.exported import CHECKSUM, FACTS, NO_SUM, without_warnings
from utils import InputError

# suffix: appended to the file name; limit: what deploy/comparison.py checks, "difference" or "psnr"
Format = collections.namedtuple("Format", "extension precision suffix limit")
FORMATS = {
    "onnx": Format(".onnx", "float32", "", "difference"),
    "pt2": Format(".pt2", "float32", "", "difference"),
    "ts": Format(".ts", "float32", "", "difference"),
    "fp16": Format(".onnx", "float16", "_fp16", "psnr"),
    "int8": Format(".onnx", "int8", "_int8", "psnr"),
}

##############################
#   Networks for any size
##############################


def at_least(low, n):
    """Returns max(low, n). While a network is traced or exported, n is symbolic."""
    return n.clamp(min=low) if torch.jit.is_tracing() else torch.sym_max(low, n)


class AnySize(nn.Module):
    """Wraps a generator so that it accepts images of any height and width from 2 pixels. Pads them by reflection to a
    size that the generator supports, translates, and crops the result.

    dtype: precision of the generator; inputs and outputs are float32
    """

    def __init__(self, G, dtype=torch.float32):
        super().__init__()
        self.G, self.dtype = G.to(dtype), dtype

    def forward(self, image):
        height, width = image.shape[2:]
        x = self.pad(self.pad(image, 2, height), 3, width)
        # .to() is skipped for float32, because an exported .to() fixes the device
        x = self.G(x) if self.dtype == torch.float32 else self.G(x.to(self.dtype)).float()
        return x.index_select(2, self.arange(image, height)).index_select(3, self.arange(image, width))

    def pad(self, image, dim, n):
        """Pads dimension `dim`, of length n, at its end. Uses indices, because torch's reflection padding cannot exceed
        the size of the image."""
        multiple = self.G.multiple
        padded = at_least(self.G.smallest, (n + multiple - 1) // multiple * multiple)
        period = image.new_full((1,), 2 * n - 2, dtype=torch.int64)  # to the last row and back
        at = self.arange(image, padded) % period.clamp(min=1)
        return image.index_select(dim, torch.minimum(at, period - at).clamp(min=0))

    def arange(self, image, n):
        """Returns 0, ..., n - 1 on the device of the image. torch.arange would fix the device in an exported file."""
        return image.new_ones(n, dtype=torch.int64).cumsum(0) - 1


def example_images(G):
    """Returns a batch to export with, of a size that has no special properties."""
    return torch.rand(2, G.channels, 2 * G.smallest + 3, 3 * G.smallest + 2) * 2 - 1


def exported_program(G, dtype=torch.float32):
    """Returns a torch.export.ExportedProgram with dynamic batch size, height and width."""
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    return torch.export.export(AnySize(G, dtype).eval(), (example_images(G),), dynamic_shapes=shapes)


def write_onnx(G, path, dtype=torch.float32):
    """Writes a generator as an ONNX file with input "image" and output "translation"."""
    import onnx

    with without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(exported_program(G, dtype), dynamo=True, input_names=["image"],
                                     output_names=["translation"], external_data=False, verbose=False)  # fmt: skip
    model = exported.model_proto
    # Stack traces of the nodes would take more space than a small network, and contain local paths
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (model.graph.input[0], model.graph.output[0]):
        for i, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[i].dim_param = name
    onnx.save(model, path)


##############################
#           Files
##############################


def trained_size(trained):
    """Returns the (height, width) that a TrainedGenerator was trained at, 256 if unknown."""
    return trained.options.get("img_height", 256), trained.options.get("img_width", 256)


def metadata(trained, precision):
    """Returns the metadata that an exported file stores, for users of the file and for inference/exported.py.

    trained:   TrainedGenerator
    precision: "float32", "float16" or "int8"
    """
    G, (height, width) = trained.network, trained_size(trained)
    return {
        "channels": G.channels, "out_channels": G.out_channels, "multiple": G.multiple, "smallest": G.smallest,
        "direction": trained.direction or "", "epoch": trained.epoch or "", "value_range": "-1 to 1",
        "colours": {1: "gray", 3: "RGB"}.get(G.channels, ""), "img_height": height, "img_width": width,
        "dataset_name": trained.options.get("dataset_name", ""), "precision": precision,
    }  # fmt: skip


def export(kind, trained, calibration=None, validation=None, least_psnr=35.0):
    """Exports a TrainedGenerator to a format of FORMATS -> the bytes of the file.

    calibration: int8 only: list of images (1, channels, H, W) in the training size, to measure ranges on
    validation:  int8 only: list of other images, in the sizes that the file is checked at
    least_psnr:  int8 only: required PSNR in dB
    """
    G, facts = trained.network, metadata(trained, FORMATS[kind].precision)
    data, extra_files = io.BytesIO(), {FACTS: json.dumps(facts)}
    if kind == "pt2":
        torch.export.save(exported_program(G), data, extra_files=extra_files)
        return data.getvalue()
    if kind == "ts":
        # warns that TorchScript is deprecated, which export.py prints, and that tracing fixes Python branches
        with without_warnings(), torch.no_grad():
            traced = torch.jit.trace(AnySize(G).eval(), (example_images(G),), check_trace=False)
            torch.jit.save(traced, data, _extra_files=extra_files)
        return data.getvalue()
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "float.onnx")
        if kind == "int8":
            path, _ = quantise(G, write_onnx, calibration, validation, least_psnr, folder)
        else:
            write_onnx(copy.deepcopy(G), path, torch.float16 if kind == "fp16" else torch.float32)
        model = onnx.load(path)
    return with_metadata(model, facts)


def with_metadata(model, facts):
    """Serialises an ONNX model with metadata, including a checksum of the file itself."""
    import onnx

    onnx.helper.set_model_props(model, {name: str(value) for name, value in (facts | {CHECKSUM: NO_SUM}).items()})
    data = model.SerializeToString()
    before, _, after = data.rpartition(NO_SUM.encode())  # the last match, because metadata follows the weights
    return before + hashlib.sha256(data).hexdigest().encode() + after


def write_bytes(data, path):
    """Writes a file. Raises InputError, for example if the disk is full."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path.removesuffix('.tmp')}: cannot be written ({error})")
