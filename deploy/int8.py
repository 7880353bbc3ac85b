"""
Quantises a trained generator to INT8 for ONNX Runtime. The file is a quarter of the size. It is two to three times as
fast on processors that multiply bytes (AVX-512 VNNI, ARM dot product).

Convolutions get 8-bit weights with one scale per channel, and 8-bit activations whose ranges are measured on real
images. First the network is rewritten into an equivalent one that loses less accuracy. Then the convolutions that lose
the most stay in float, as many as the required PSNR takes.
"""

import contextlib
import copy
import functools
import inspect
import io
import itertools
import os

import numpy as np
import torch
from torch import nn

from inference.exported import open_session, without_warnings
from measuring.metrics import psnr_of_error
from models import GeneratorResNet
from utils import InputError

CPU = torch.device("cpu")


##############################
#   The rewritten network
##############################


class Subpixel(nn.Module):
    """Computes a 3x3 transposed convolution of stride 2 as a 2x2 convolution with four outputs per pixel, followed by a
    pixel shuffle: (N, n_in, H, W) -> (N, 4 n_out, H, W) -> (N, n_out, 2H, 2W). ONNX Runtime cannot run transposed
    convolutions in INT8."""

    def __init__(self, transposed):
        super().__init__()
        n_in, n_out = transposed.weight.shape[:2]
        # An input row produces two output rows. The first sees it through the middle row of the kernel. The second
        # sees it through the last row, and the next input row through the first. The same holds for columns.
        taps = {0: [(0, 1)], 1: [(0, 2), (1, 0)]}
        weight = torch.zeros(n_out, 2, 2, n_in, 2, 2)
        for row, column in itertools.product((0, 1), repeat=2):
            for (i, k), (j, m) in itertools.product(taps[row], taps[column]):
                weight[:, row, column, :, i, j] = transposed.weight[:, :, k, m].T
        self.conv = nn.Conv2d(n_in, 4 * n_out, 2)
        self.conv.weight = nn.Parameter(weight.reshape(4 * n_out, n_in, 2, 2))
        self.conv.bias = nn.Parameter(transposed.bias.repeat_interleave(4))

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(nn.functional.pad(x, (0, 1, 0, 1))), 2)


class FourPixels(nn.Module):
    """Computes a convolution with few output channels, such as the last one, with stride 2 and four pixels per output:
    (N, n_in, H + k - 1, W + k - 1) -> (N, 4 n_out, H / 2, W / 2) -> (N, n_out, H, W), with even H and W. Processors
    multiply bytes for 16 channels at a time; with 3 channels they would waste most of that."""

    def __init__(self, conv):
        super().__init__()
        n_out, n_in, height, width = conv.weight.shape
        weight = torch.zeros(n_out, 2, 2, n_in, height + 1, width + 1)
        for row, column in itertools.product((0, 1), repeat=2):
            weight[:, row, column, :, row : row + height, column : column + width] = conv.weight
        self.conv = nn.Conv2d(n_in, 4 * n_out, (height + 1, width + 1), stride=2)
        self.conv.weight = nn.Parameter(weight.flatten(0, 2))
        self.conv.bias = nn.Parameter(conv.bias.repeat_interleave(4))

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(x), 2)


class Shift(nn.Module):
    """Adds a constant to the input of a layer."""

    def __init__(self, layer, by):
        super().__init__()
        self.layer, self.by = layer, by

    def forward(self, x):
        return self.layer(x + self.by)


@torch.no_grad()
def rewrite(G, images, in_float=()):
    """Returns a network equivalent to G, up to rounding, that loses less accuracy when it is quantised.

    images:   list of (1, channels, H, W) to measure ranges on
    in_float: names of layers that are not quantised and stay unchanged
    """
    G = copy.deepcopy(G).eval()
    replace_layers(G, kept=[G.get_submodule(name) for name in in_float])
    if isinstance(G, GeneratorResNet):
        shift_input(G)
    normalise_ranges(G, images)
    return G


def replace_layers(G, kept):
    """Replaces layers by equivalents that ONNX Runtime supports in INT8 or runs faster, except those in `kept`."""
    last = [layer for layer in G.modules() if isinstance(layer, nn.Conv2d)][-1]
    for parent, name, layer in [(p, n, c) for p in G.modules() for n, c in p.named_children()]:
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer in kept:
            continue
        shape = layer.kernel_size, layer.stride, layer.padding
        if isinstance(layer, nn.ConvTranspose2d) and shape == ((3, 3), (2, 2), (1, 1)):
            setattr(parent, name, Subpixel(layer))
        elif layer is last and shape == ((7, 7), (1, 1), (0, 0)) and layer.out_channels <= 4:
            setattr(parent, name, FourPixels(layer))


def shift_input(G):
    """Makes quantisation of the input lossless. 8-bit images have the values k / 127.5 - 1. INT8 has multiples of a
    scale, which are half a gray level apart from those. Shifting the input by half a level aligns the two grids, and
    the bias of the first convolution compensates for the shift."""
    first = G.model[1]
    G.model[0] = Shift(G.model[0], 1 / 255)
    first.bias -= first.weight.sum((1, 2, 3)) / 255


def normalise_ranges(G, images):
    """Scales the channels of every convolution before an instance norm to [-1, 1], measured on the images, so that each
    channel uses all 255 steps. The norm removes scale and offset, so the output does not change."""
    measured = {}

    def measure(layer, inputs, output):
        current = output.amin((0, 2, 3)), output.amax((0, 2, 3)), output.var((2, 3)).amin(0)
        low, high, var = measured.get(layer, current)
        measured[layer] = low.minimum(current[0]), high.maximum(current[1]), var.minimum(current[2])

    sequences = [list(part) for part in G.modules() if isinstance(part, nn.Sequential)]
    followed_by = {a: b for s in sequences for a, b in zip(s, s[1:]) if isinstance(a, (nn.Conv2d, Subpixel))}
    norms = {a: b for a, b in followed_by.items() if isinstance(b, nn.InstanceNorm2d)}
    hooks = [layer.register_forward_hook(measure) for layer in norms]
    for image in images:
        G(image)
    for hook in hooks:
        hook.remove()
    for layer, norm in norms.items():
        low, high, var = measured[layer]
        middle, half = (low + high) / 2, (high - low) / 2
        # The norm's epsilon damps a channel with almost no variance; a scale of its own would amplify it. Such a channel
        # gets the median scale, and epsilon is divided by the square of that. In the other channels the variance is
        # more than 100 times epsilon, so the change there is negligible.
        usual = half.median().clamp(min=1e-6)
        half = torch.where(var > 100 * norm.eps, half, usual)
        norm.eps /= usual.item() ** 2
        if isinstance(layer, Subpixel):  # the norm treats the four outputs as one channel
            layer, middle, half = layer.conv, middle.repeat_interleave(4), half.repeat_interleave(4)
        layer.weight /= half.view(-1, 1, 1, 1)
        layer.bias.copy_((layer.bias - middle) / half)


##############################
#       Quantisation
##############################


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
    options = {
        "QuantizeBias": False
    }  # ONNX Runtime quantises biases when it loads the file, which keeps the file smaller
    if "model.1" in nodes:  # the input, see shift_input: the exact grid, not the range measured on these images
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
