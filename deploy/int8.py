"""
A trained generator in INT8, for ONNX Runtime: a quarter of the size, and two to three times as fast on a processor that
multiplies bytes (AVX-512 VNNI, ARM dot product).

Each convolution gets weights of 8 bits, with a scale for each of its channels, and activations of 8 bits, whose range
is measured on real images. Before that, the network is rewritten into one that computes the same and loses less. The
convolutions that lose most stay in float, as many as it takes to be as close to the float network as is asked for.
"""

import contextlib
import copy
import functools
import inspect
import io
import itertools
import math
import os

import numpy as np
import torch
from torch import nn

from inference.exported import open_session, without_warnings
from models import GeneratorResNet
from utils import InputError

CPU = torch.device("cpu")


def decibels(error):
    """PSNR of a mean squared error between images in [-1, 1]."""
    return 10 * math.log10(4 / error) if error else math.inf


def psnr(x, y):
    """In dB, of images in [-1, 1]; of a batch that of the mean squared error over all of it."""
    return decibels((x - y).square().mean().item())


##############################
#   The same network, rewritten
##############################


class Subpixel(nn.Module):
    """A transposed convolution of 3x3 and stride 2 as what it is: a convolution of 2x2 that gives four pixels for each
    one, which a pixel shuffle puts in place: (N, n_in, H, W) -> (N, 4 n_out, H, W) -> (N, n_out, 2H, 2W).
    ONNX Runtime has no transposed convolution in INT8."""

    def __init__(self, transposed):
        super().__init__()
        n_in, n_out = transposed.weight.shape[:2]
        # Of two rows that come out of one, the first sees it through the kernel's middle; the second sees it through
        # the kernel's last row, and the row below through its first. Columns likewise.
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


class FourAtOnce(nn.Module):
    """A convolution with few channels coming out, such as that which makes the picture, as one that steps by two and
    gives four pixels at once: (N, n_in, H + k - 1, W + k - 1) -> (N, 4 n_out, H / 2, W / 2) -> (N, n_out, H, W), H
    and W even. A processor multiplies bytes for 16 channels at a time; with 3 it would waste most."""

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
    """-> a network that computes the same as G, but for rounding, and loses less when it is quantised

    images:   list of (1, channels, H, W), to measure ranges on
    in_float: names of layers that stay as they are
    """
    G = copy.deepcopy(G).eval()
    exchange_layers(G, kept=[G.get_submodule(name) for name in in_float])
    if isinstance(G, GeneratorResNet):
        shift_picture(G)
    fill_ranges(G, images)
    return G


def exchange_layers(G, kept):
    """Replaces layers by ones that ONNX Runtime has in INT8, or runs faster; but for those in `kept`."""
    last = [layer for layer in G.modules() if isinstance(layer, nn.Conv2d)][-1]
    for parent, name, layer in [(p, n, c) for p in G.modules() for n, c in p.named_children()]:
        if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer in kept:
            continue
        shape = layer.kernel_size, layer.stride, layer.padding
        if isinstance(layer, nn.ConvTranspose2d) and shape == ((3, 3), (2, 2), (1, 1)):
            setattr(parent, name, Subpixel(layer))
        elif layer is last and shape == ((7, 7), (1, 1), (0, 0)) and layer.out_channels <= 4:
            setattr(parent, name, FourAtOnce(layer))


def shift_picture(G):
    """A picture of 8 bits is k / 127.5 - 1, INT8 a scale times an integer: two grids that are half a level apart. Moved
    by that they coincide, and the picture goes in without a loss; the first convolution takes it back."""
    first = G.model[1]
    G.model[0] = Shift(G.model[0], 1 / 255)
    first.bias -= first.weight.sum((1, 2, 3)) / 255


def fill_ranges(G, images):
    """An instance norm undoes the scale and the offset of each channel, so they are ours to choose: each channel of the
    convolution before one is brought to [-1, 1] on these images, and has all of the 255 steps."""
    measured = {}

    def measure(layer, inputs, output):
        of_this = output.amin((0, 2, 3)), output.amax((0, 2, 3)), output.var((2, 3)).amin(0)
        low, high, var = measured.get(layer, of_this)
        measured[layer] = low.minimum(of_this[0]), high.maximum(of_this[1]), var.minimum(of_this[2])

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
        # A channel that hardly varies is held down by the norm's epsilon, and a scale of its own would lift it. So it
        # gets the median of the scales, and epsilon is divided by that one's square: beside a variance of over 100
        # times as much this changes next to nothing in the other channels.
        usual = half.median().clamp(min=1e-6)
        half = torch.where(var > 100 * norm.eps, half, usual)
        norm.eps /= usual.item() ** 2
        if isinstance(layer, Subpixel):  # the norm sees its four pixels as one channel
            layer, middle, half = layer.conv, middle.repeat_interleave(4), half.repeat_interleave(4)
        layer.weight /= half.view(-1, 1, 1, 1)
        layer.bias.copy_((layer.bias - middle) / half)


##############################
#         To INT8
##############################


class Reader:
    """Hands images to ONNX Runtime's calibration."""

    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"image": image.numpy()}


def to_int8(source, target, images, nodes, cache):
    """Quantises those convolutions of an ONNX file that are `nodes`, as of convolutions(), with ranges measured on
    images, or kept in the file `cache`."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # ONNX Runtime 1.23, the last one for Python 3.10, keeps no ranges and measures them each time
    kept = "calibration_cache_path" in inspect.signature(quantize_static).parameters
    options = {"QuantizeBias": False}  # ONNX Runtime does that on loading: smaller
    if "model.1" in nodes:  # the picture, moved by half a level: all of its range, whatever these images have of it
        exact = {"scale": np.array(2 / 255, np.float32), "zero_point": np.array(127, np.uint8)}
        options["TensorQuantOverrides"] = {nodes["model.1"].input[0]: [exact]}
    with without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            source, target, Reader(images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
            nodes_to_quantize=[node.name for node in nodes.values()], calibrate_method=CalibrationMethod.MinMax,
            extra_options=options, **({"calibration_cache_path": cache} if kept else {}),
        )  # fmt: skip


def convolutions(path):
    """-> {name of the layer: its node} of an ONNX file"""
    import onnx

    nodes = onnx.load(path).graph.node
    return {n.input[1].removeprefix("G.").removesuffix(".weight"): n for n in nodes if n.op_type == "Conv"}


def shrink(path):
    """Leaves out of an ONNX file what can be told from the rest, and stores weights that are left in float in half
    precision: ONNX Runtime makes float of them on loading, and bytes lose more."""
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
    """-> {name of the layer: multiply-adds for that image} of all convolutions"""
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
def quantise(G, export, calibration, validation, least, folder, say=print):
    """-> path of an INT8 ONNX file in `folder`, and the names of the layers that are in float there.

    export:      function (generator, path) that writes a float ONNX file
    calibration: list of images (1, channels, H, W), as they come in the network's use: to measure ranges on
    validation:  others, to measure errors on
    least:       PSNR in dB that translations must have, compared with those in float; those of `validation` have one
                 more, at each of their sizes
    """
    goal = least + 1
    float_path, int8_path, cache = (os.path.join(folder, name) for name in ("float.onnx", "int8.onnx", "ranges.json"))
    prepared = rewrite(G, calibration)
    export(prepared, float_path)
    nodes, products = convolutions(float_path), count_products(prepared, calibration[0])

    def translate(path):
        session = open_session(path, CPU)
        return [session.run(None, {"image": image.numpy()})[0] for image in validation]

    wanted = translate(float_path)

    def measured(names):
        """Mean squared error with these layers in INT8, at the size where it is largest."""
        to_int8(float_path, int8_path, calibration, {name: nodes[name] for name in names}, cache)
        errors = {}
        for x, y in zip(translate(int8_path), wanted):
            errors.setdefault(x.shape, []).append(np.square(x - y).mean())
        return max(map(np.mean, errors.values()))

    left, in_float, alone = list(nodes), [], {}
    error = measured(left)
    say(f"all {len(left)} convolutions in INT8: {decibels(error):.1f} dB")
    while decibels(error) < goal:
        alone = alone or {name: measured([name]) for name in left}
        if len(left) == 1:
            raise InputError(
                f"--psnr {least:g}: with a single convolution in INT8 it is {decibels(error):.1f} dB, no more. Ask "
                "for less, or for --format fp16"
            )
        worst = max(left, key=lambda name: alone[name] / products[name])  # the most harm for the work that it saves
        left.remove(worst)
        in_float.append(worst)
        error = measured(left)
        name = worst.removesuffix(".conv")
        harm = f"{decibels(alone[worst]):.1f} dB if it alone is in INT8"
        say(f"{name} stays in float ({harm}), the others in INT8: {decibels(error):.1f} dB")
    # what stays in float stays what it was
    in_float = [name.removesuffix(".conv") for name in in_float]
    if in_float:
        export(rewrite(G, calibration, in_float), float_path)
        nodes = {name: node for name, node in convolutions(float_path).items() if name not in in_float}
        to_int8(float_path, int8_path, calibration, nodes, os.path.join(folder, "other_ranges.json"))
    shrink(int8_path)
    return int8_path, in_float
