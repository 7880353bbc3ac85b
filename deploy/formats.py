"""
Writes a trained generator in formats that run without this project: ONNX (float32, float16, INT8), torch.export and
TorchScript. Exported generators accept any batch size, height and width, or only images of one size, one at a time.
"""

import collections
import contextlib
import copy
import functools
import hashlib
import io
import json
import os
import re
import tempfile

import torch
from torch import nn

from command_line.provenance import provenance
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
#   Networks to export
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


class FixedSize(nn.Module):
    """Wraps a generator for images of one size that it accepts as they are: nothing is padded or computed from the size,
    so that simple runtimes can run the exported graph.

    dtype: precision of the generator; inputs and outputs are float32
    """

    def __init__(self, G, dtype=torch.float32):
        super().__init__()
        self.G, self.dtype = G.to(dtype), dtype

    def forward(self, image):
        return self.G(image) if self.dtype == torch.float32 else self.G(image.to(self.dtype)).float()


def check_fixed_size(G, height, width):
    """Raises InputError if a generator cannot take images of this size as they are."""
    sides = [max(G.smallest, round(side / G.multiple) * G.multiple) for side in (width, height)]
    if sides != [width, height]:
        raise InputError(
            f"--size {width}x{height}: this generator needs a width and height divisible by {G.multiple} and at least "
            f"{G.smallest}, such as --size {sides[0]}x{sides[1]}"
        )


def example_images(G, size=None):
    """Returns images to export with: one of a fixed size, or a batch of a size that has no special properties."""
    n, height, width = (1, *size) if size else (2, 2 * G.smallest + 3, 3 * G.smallest + 2)
    return torch.rand(n, G.channels, height, width) * 2 - 1


def exported_program(G, dtype=torch.float32, size=None):
    """Returns a torch.export.ExportedProgram with dynamic batch size, height and width, or for a single image of the
    size (height, width)."""
    if size:
        return torch.export.export(FixedSize(G, dtype).eval(), (example_images(G, size),))
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    return torch.export.export(AnySize(G, dtype).eval(), (example_images(G),), dynamic_shapes=shapes)


def write_onnx(G, path, dtype=torch.float32, size=None):
    """Writes a generator as an ONNX file with input "image" and output "translation". size: see exported_program"""
    import onnx

    with without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(exported_program(G, dtype, size), dynamo=True, input_names=["image"],
                                     output_names=["translation"], external_data=False, verbose=False)  # fmt: skip
    model = exported.model_proto
    # Stack traces of the nodes would take more space than a small network, and contain local paths
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (model.graph.input[0], model.graph.output[0]) if size is None else ():
        for i, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[i].dim_param = name
    onnx.save(model, path)


##############################
#           Files
##############################


def trained_size(trained):
    """Returns the (height, width) that a TrainedGenerator was trained at, 256 if unknown."""
    return trained.options.get("img_height", 256), trained.options.get("img_width", 256)


def set_name(options):
    """The name of the data set of a training, without folders. None if it is unknown."""
    return re.split(r"[/\\\\]", options.get("dataset_name") or "")[-1] or None


def metadata(trained, precision, size=None, public=None):
    """Returns the metadata that an exported file stores, for users of the file and for inference/exported.py.

    trained:   TrainedGenerator
    precision: "float32", "float16" or "int8"
    size:      (height, width) of the only images that the file takes, None for any size
    public:    for files that are published: what to say in place of exported_by and trained_by, a dict of two dicts or
               none. By default these hold commands, which name files of this machine
    """
    G, (height, width) = trained.network, trained_size(trained)
    more = {"height": size[0], "width": size[1]} if size else {}
    for name, value_range in zip(("range_in", "range_out"), getattr(G, "ranges", (None, None))):
        if value_range:  # the values in the files that are -1 and 1 for the network
            more[name] = "{!r} {!r}".format(*value_range)
    if trained.options.get("keep_aspect"):
        more["keep_aspect"] = 1
    made = {"exported_by": provenance(), "trained_by": trained.provenance} if public is None else public
    name = trained.options.get("dataset_name", "") if public is None else set_name(trained.options) or ""
    return more | {
        "channels": G.channels, "out_channels": G.out_channels, "multiple": G.multiple, "smallest": G.smallest,
        "direction": trained.direction or "", "epoch": trained.epoch or "", "value_range": "-1 to 1",
        "colours": {1: "gray", 3: "RGB"}.get(G.channels, ""), "img_height": height, "img_width": width,
        "dataset_name": name, "precision": precision,
    } | {key: json.dumps(value, default=str) for key, value in made.items()}  # fmt: skip


def export(kind, trained, calibration=None, validation=None, least_psnr=35.0, size=None, public=None):
    """Exports a TrainedGenerator to a format of FORMATS -> the bytes of the file.

    calibration: int8 only: list of images (1, channels, H, W) in the training or fixed size, to measure ranges on
    validation:  int8 only: list of other images, in the sizes that the file is checked at
    least_psnr:  int8 only: required PSNR in dB
    size:        (height, width): the file takes single images of this size only. None for any number and size
    public:      see metadata
    """
    G, facts = trained.network, metadata(trained, FORMATS[kind].precision, size, public)
    data, extra_files = io.BytesIO(), {FACTS: json.dumps(facts)}
    if kind == "pt2":
        program = exported_program(G, size=size)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names the folders of this machine
        torch.export.save(program, data, extra_files=extra_files)
        return data.getvalue()
    if kind == "ts":
        # warns that TorchScript is deprecated, which export.py prints, and that tracing fixes Python branches
        with without_warnings(), torch.no_grad():
            wrapped = FixedSize(G) if size else AnySize(G)
            traced = torch.jit.trace(wrapped.eval(), (example_images(G, size),), check_trace=False)
            torch.jit.save(traced, data, _extra_files=extra_files)
        return data.getvalue()
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "float.onnx")
        if kind == "int8":
            write = functools.partial(write_onnx, size=size)
            path, _ = quantise(G, write, calibration, validation, least_psnr, folder)
        else:
            write_onnx(copy.deepcopy(G), path, torch.float16 if kind == "fp16" else torch.float32, size)
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
        target = re.sub(r"(\.[0-9a-f]{8})?\.tmp$", "", path)  # of utils.whole_file
        raise InputError(f"{target}: cannot be written ({error.strerror})")
