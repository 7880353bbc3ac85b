"""
Quantises a trained generator to INT8 for ONNX Runtime. The file is a quarter of the size, and two to three times as
fast on processors that multiply bytes (AVX-512 VNNI, ARM dot product).

Convolutions get 8-bit weights with one scale per channel, and 8-bit activations whose ranges are measured on real
images. First deploy/rewriting.py changes the network into an equivalent one that loses less accuracy. Then the
convolutions that lose the most accuracy stay in float, as many as needed to reach the required PSNR.
"""

import contextlib
import functools
import inspect
import io
import os

import numpy as np
import torch
from torch import nn

from deploy.rewriting import rewrite
from inference.exported import open_session, without_warnings
from measuring.metrics import psnr_of_error
from utils import InputError

CPU = torch.device("cpu")


class CalibrationReader:
    """Feeds images to ONNX Runtime's calibration."""

    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"image": image.numpy()}


def quantise_convolutions(source, target, images, nodes, cache):
    """Quantises convolutions of an ONNX file.

    source, target: paths of the float file and the INT8 file
    images:         list of (1, channels, H, W) to measure the ranges of activations on
    nodes:          {layer: node} to quantise, see conv_nodes
    cache:          file that keeps the measured ranges for the next call
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # ONNX Runtime 1.23, the last version for Python 3.10, has no cache and measures the ranges every time
    has_cache = "calibration_cache_path" in inspect.signature(quantize_static).parameters
    # ONNX Runtime quantises biases when it loads the file, which keeps the file smaller
    options = {"QuantizeBias": False}
    # the input, see rewriting.shift_input: the exact grid, not the range measured on these images
    if "model.1" in nodes:
        exact = {"scale": np.array(2 / 255, np.float32), "zero_point": np.array(127, np.uint8)}
        options["TensorQuantOverrides"] = {nodes["model.1"].input[0]: [exact]}
    with without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            source, target, CalibrationReader(images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
            nodes_to_quantize=[node.name for node in nodes.values()], calibrate_method=CalibrationMethod.MinMax,
            extra_options=options, **({"calibration_cache_path": cache} if has_cache else {}),
        )  # fmt: skip


def conv_nodes(path):
    """Returns {layer: node} for all convolutions of an ONNX file."""
    import onnx

    nodes = onnx.load(path).graph.node
    return {n.input[1].removeprefix("G.").removesuffix(".weight"): n for n in nodes if n.op_type == "Conv"}


def shrink_file(path):
    """Reduces the size of an ONNX file. Removes redundant information, and stores float weights in half precision; ONNX
    Runtime converts them back when it loads the file. The rounding is small compared with that of INT8."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for tensor in list(graph.initializer):
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            with np.errstate(over="ignore"):
                half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            if not np.isfinite(half).all():
                continue
            graph.initializer.remove(tensor)
            graph.initializer.append(onnx.numpy_helper.from_array(half, tensor.name + "_half"))
            cast = onnx.helper.make_node("Cast", [tensor.name + "_half"], [tensor.name], to=onnx.TensorProto.FLOAT)
            graph.node.insert(0, cast)
    del graph.value_info[:]
    for node in graph.node:
        node.name = ""
    onnx.save(model, path)


@torch.no_grad()
def count_products(G, image):
    """Returns {layer: multiply-adds for this image} for all convolutions of a network."""
    counts = {}

    def count(name, layer, inputs, output):
        counts[name] = output.shape[2] * output.shape[3] * layer.weight.numel()

    hooks = [
        layer.register_forward_hook(functools.partial(count, name))
        for name, layer in G.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    G(image)
    for hook in hooks:
        hook.remove()
    return counts


@torch.no_grad()
def quantise(G, export, calibration, validation, least_psnr, folder, say=print):
    """Writes an INT8 ONNX file to `folder` -> (path, names of the layers that stay in float).

    If INT8 for all convolutions is not accurate enough, layers are moved to float one by one. The first is the layer
    with the largest error per multiply-add, when it alone is quantised.

    export:      function (generator, path) that writes a float ONNX file
    calibration: list of typical images (1, channels, H, W), to measure ranges on
    validation:  list of other images, to measure errors on
    least_psnr:  required PSNR in dB between INT8 and float translations. On `validation` it is exceeded by 1 dB at
                 every size, as a margin for other images.
    """
    goal = least_psnr + 1
    float_path, int8_path, cache = (os.path.join(folder, name) for name in ("float.onnx", "int8.onnx", "ranges.json"))
    prepared = rewrite(G, calibration)
    export(prepared, float_path)
    nodes, products = conv_nodes(float_path), count_products(prepared, calibration[0])

    def translate(path):
        session = open_session(path, CPU)
        return [session.run(None, {"image": image.numpy()})[0] for image in validation]

    expected = translate(float_path)

    def error_of(names):
        """Returns the mean squared error with these layers in INT8, at the size where it is largest."""
        quantise_convolutions(float_path, int8_path, calibration, {name: nodes[name] for name in names}, cache)
        errors = {}
        for x, y in zip(translate(int8_path), expected):
            errors.setdefault(x.shape, []).append(np.square(x - y).mean())
        return max(map(np.mean, errors.values()))

    in_int8, in_float, alone = list(nodes), [], {}
    error = error_of(in_int8)
    say(f"all {len(in_int8)} convolutions in INT8: {psnr_of_error(error):.1f} dB")
    while psnr_of_error(error) < goal:
        alone = alone or {name: error_of([name]) for name in in_int8}
        if len(in_int8) == 1:
            raise InputError(
                f"--psnr {least_psnr:g}: even a single convolution in INT8 only reaches {psnr_of_error(error):.1f} dB. "
                "Lower --psnr or use --format fp16"
            )
        worst = max(in_int8, key=lambda name: alone[name] / products[name])
        in_int8.remove(worst)
        in_float.append(worst)
        error = error_of(in_int8)
        say(
            f"{worst.removesuffix('.conv')} stays in float ({psnr_of_error(alone[worst]):.1f} dB if only this layer is "
            f"in INT8), the others in INT8: {psnr_of_error(error):.1f} dB"
        )
    in_float = [name.removesuffix(".conv") for name in in_float]
    if in_float:  # start again from a network in which these layers are not rewritten
        export(rewrite(G, calibration, in_float), float_path)
        nodes = {name: node for name, node in conv_nodes(float_path).items() if name not in in_float}
        quantise_convolutions(float_path, int8_path, calibration, nodes, os.path.join(folder, "other_ranges.json"))
    shrink_file(int8_path)
    return int8_path, in_float
