"""
Takes a trained generator to where there is no training code: ONNX (C++, C#, Java, browsers, phones), torch.export,
TorchScript; in float, half precision or INT8.

    python export.py --checkpoint saved_models/horse2zebra/latest.pth --direction AB --format onnx
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --format int8
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --benchmark

An exported file takes images (N, channels, height, width) in [-1, 1], RGB, of any number and size, and gives as many:
padding and cropping are part of it. It is compared with the checkpoint on real pictures before it is put in its place,
and translate.py takes it instead of one. docs/deployment.md shows how to use it elsewhere.

Needs, for ONNX: pip install onnx onnxscript onnxruntime
"""

import argparse
import collections
import contextlib
import copy
import functools
import hashlib
import importlib.util
import io
import json
import os
import tempfile

import torch
from torch import nn

from datasets import find_folder
from deploy.int8 import psnr, quantise
from inference.exported import CHECKSUM, FACTS, NO_SUM, Exported, is_exported, without_warnings
from inference.load import load_generator, options_beside
from measuring.images import ResizedImages as Files
from measuring.images import from_uint8 as from_8_bit
from measuring.timing import digits, in_rounds, name_of
from media.files import file_size
from media.images import ImageFiles, stem
from utils import InputError, between, bfloat16_pays, choose_device, run, whole_file
from variants.losses import ssim

# suffix: what is added to the file's name; limit: what the comparison must keep to
Format = collections.namedtuple("Format", "extension precision suffix limit")
FORMATS = {
    "onnx": Format(".onnx", "float32", "", "difference"),
    "pt2": Format(".pt2", "float32", "", "difference"),
    "ts": Format(".ts", "float32", "", "difference"),
    "fp16": Format(".onnx", "float16", "_fp16", "psnr"),
    "int8": Format(".onnx", "int8", "_int8", "psnr"),
}
LARGEST_DIFFERENCE = 1e-4  # of float32 formats, on the CPU, in [-1, 1]: one gray level is 0.0078
FP16_PSNR = 50.0  # dB
N_CALIBRATION, N_VALIDATION, N_COMPARED = 32, 4, 3  # pictures


def get_parser():
    parser = argparse.ArgumentParser(description="Export a trained generator. In brackets: the default.")
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", required=True, help="latest.pth, or one generator; all that translate.py takes")
    add("--direction", choices=("AB", "BA"), help="which generator of a full checkpoint (AB)")
    add("--format", nargs="+", choices=FORMATS, default=["onnx"], help="one or more; ts is deprecated (default: onnx)")
    add("--output", help="file to write (beside the checkpoint, as G_AB_200.onnx)")
    add("--images", help="folder of pictures to compare on (the data set's test images)")
    add("--calibration", help="int8: folder of pictures, 32 are used (training images)")
    add("--psnr", type=between(10.0, 80.0), default=35.0, help="int8: at least so many dB from float (%(default)s)")
    add("--benchmark", action="store_true", help="time PyTorch, TorchScript, ONNX and INT8; writes no file")
    add("--size", type=between(32, 16384), default=256, help="benchmark: height and width, in pixels (%(default)s)")
    add("--rounds", type=between(1, 1000), default=3, help="benchmark: how often all are timed in turn (%(default)s)")
    add("--runs", type=between(1, 1000), default=10, help="benchmark: times taken in each round (%(default)s)")
    add("--device", default="cpu", help="benchmark: cpu, cuda … (%(default)s)")
    # fmt: on
    return parser


##############################
#   Networks that take any size
##############################


def at_least(low, n):
    """The larger of two numbers, of which n may only be known when the exported network runs."""
    return n.clamp(min=low) if torch.jit.is_tracing() else torch.sym_max(low, n)


class AnySize(nn.Module):
    """A generator that takes any height and width from 2 on: enlarged by reflection, translated, cut back.

    dtype: that the generator computes in; what comes in and goes out is float32
    """

    def __init__(self, G, dtype=torch.float32):
        super().__init__()
        self.G, self.dtype = G.to(dtype), dtype

    def forward(self, image):
        height, width = image.shape[2:]
        x = self.enlarge(self.enlarge(image, 2, height), 3, width)
        # no conversion where there is nothing to convert: an exported one would insist on its device
        x = self.G(x) if self.dtype == torch.float32 else self.G(x.to(self.dtype)).float()
        return x.index_select(2, self.count(image, height)).index_select(3, self.count(image, width))

    def enlarge(self, image, dim, n):
        """To what the generator takes, at the bottom and on the right. By indices, as a padding cannot be larger than
        the image."""
        multiple = self.G.multiple
        enlarged = at_least(self.G.smallest, (n + multiple - 1) // multiple * multiple)
        period = image.new_full((1,), 2 * n - 2, dtype=torch.int64)  # to the last row and back
        at = self.count(image, enlarged) % period.clamp(min=1)
        return image.index_select(dim, torch.minimum(at, period - at).clamp(min=0))

    def count(self, image, n):
        """0 … n - 1, on whatever device the image is then."""
        return image.new_ones(n, dtype=torch.int64).cumsum(0) - 1


def example(G):
    """Images to export with, of no size that might be special."""
    return torch.rand(2, G.channels, 2 * G.smallest + 3, 3 * G.smallest + 2) * 2 - 1


def program(G, dtype=torch.float32):
    """-> torch.export.ExportedProgram of any batch, height and width"""
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    return torch.export.export(AnySize(G, dtype).eval(), (example(G),), dynamic_shapes=shapes)


def write_onnx(G, path, dtype=torch.float32):
    import onnx

    with without_warnings(), contextlib.redirect_stdout(io.StringIO()):
        exported = torch.onnx.export(program(G, dtype), dynamo=True, input_names=["image"],
                                     output_names=["translation"], external_data=False, verbose=False)  # fmt: skip
    model = exported.model_proto
    # what is known about where each node comes from is larger than a small network, and holds paths of this machine
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (model.graph.input[0], model.graph.output[0]):
        for i, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[i].dim_param = name
    onnx.save(model, path)


##############################
#   Files, and whether they do what they should
##############################


def export(kind, G, facts, calibration=None, validation=None, least=35.0):
    """G in a format of FORMATS -> the bytes of its file.

    facts:       what is to be known about it
    calibration: int8: list of images (1, channels, H, W) of the size that it was trained at
    validation:  int8: others, of the sizes that it is compared at later
    least:       int8: PSNR in dB
    """
    data, extra = io.BytesIO(), {FACTS: json.dumps(facts)}
    if kind == "pt2":
        torch.export.save(program(G), data, extra_files=extra)
        return data.getvalue()
    if kind == "ts":
        # of the deprecation, which main says, and of check_size's Python branches
        with without_warnings(), torch.no_grad():
            traced = torch.jit.trace(AnySize(G).eval(), (example(G),), check_trace=False)
            torch.jit.save(traced, data, _extra_files=extra)
        return data.getvalue()
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "made.onnx")
        if kind == "int8":
            made, _ = quantise(G, write_onnx, calibration, validation, least, folder)
        else:
            write_onnx(copy.deepcopy(G), made, torch.float16 if kind == "fp16" else torch.float32)
        model = onnx.load(made)
    onnx.helper.set_model_props(model, {name: str(value) for name, value in (facts | {CHECKSUM: NO_SUM}).items()})
    data = model.SerializeToString()
    before, _, behind = data.rpartition(NO_SUM.encode())  # the last, as metadata stand behind the weights
    return before + hashlib.sha256(data).hexdigest().encode() + behind


def write(data, path):
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path.removesuffix('.tmp')}: cannot be written ({error})")


def sizes_to_compare(G, height, width):
    """The size of the training, half of it, and an odd one."""
    half = [max(G.smallest, side // 2) for side in (height, width)]
    return [(height, width), tuple(half), (height * 3 // 4 | 1, width * 9 // 8 | 1)]


def padded(G, x):
    """G(x) for any size; not by AnySize, as that is to be compared with it"""
    height, width = x.shape[2:]
    bottom, right = (max(G.smallest, -(-n // G.multiple) * G.multiple) - n for n in (height, width))
    return G(nn.functional.pad(x, (0, right, 0, bottom), "reflect"))[:, :, :height, :width]


@torch.no_grad()
def compare(G, exported, images):
    """-> rows (size, batch, largest difference, PSNR in dB, SSIM) of an exported generator and its original.

    images: {(height, width): (N, channels, height, width)}; each size is translated one by one and N at once"""
    rows = []
    for size, batch in images.items():
        wanted = padded(G, batch)
        for n in sorted({1, len(batch)}):
            made = torch.cat([exported(part) for part in batch.split(n)])
            if made.shape != wanted.shape or not made.isfinite().all():
                raise InputError(f"{exported.path}: gives {tuple(made.shape)} or what is not finite, at {size}")
            similarity = ssim(made, wanted).item()
            rows.append((size, n, (made - wanted).abs().max().item(), psnr(made, wanted), similarity))
    return rows


def show(kind, rows, paths):
    n = len(paths)
    print(f"{kind}, compared with PyTorch on {n} picture{'s' if n > 1 else ''} of {os.path.dirname(paths[0])}:")
    print(f"{'size':>14}{'batch':>8}{'largest difference':>22}{'PSNR, dB':>12}{'SSIM':>10}")
    for (height, width), n, difference, decibels, similarity in rows:
        print(f"{f'{width} x {height}':>14}{n:>8}{difference:>22.2g}{decibels:>12.1f}{similarity:>10.5f}")


def check(kind, rows, goal):
    """Raises InputError if an exported file is further from its original than its format may be."""
    for (height, width), n, difference, decibels, _ in rows:
        where = f"at {width} x {height}, batch {n}"
        if FORMATS[kind].limit == "difference" and not difference <= LARGEST_DIFFERENCE:
            raise InputError(f"--format {kind}: differs by {difference:.2g} from PyTorch {where}; nothing was written")
        needed = goal if kind == "int8" else FP16_PSNR
        if FORMATS[kind].limit == "psnr" and not decibels >= needed:
            way_out = "; try a lower --psnr, or other --calibration pictures" if kind == "int8" else ""
            raise InputError(
                f"--format {kind}: {decibels:.1f} dB from PyTorch {where}, not {needed}{way_out}; nothing was written"
            )


class Pictures:
    """The real pictures that are needed: resized, (channels, height, width) each, in [-1, 1]. None is used twice, if
    there are enough.

    calibration, validation, compared: (attributes) paths: for INT8's ranges, for its choice of layers, for the end
    """

    def __init__(self, opt, G, known):
        options, direction = known.options, known.direction or "AB"
        root = os.path.join(options.get("data_dir", "data"), options.get("dataset_name", ""))

        def files(folder, mode):
            try:
                return list(ImageFiles(folder or find_folder(root, mode, direction[0])))
            except (InputError, OSError):
                if folder:
                    raise
                return []

        self.channels = G.channels
        test = files(opt.images, "test") or files(opt.calibration, "train")
        train = files(opt.calibration, "train") or test
        if not test:
            flag = "--calibration" if "int8" in opt.format else "--images"
            raise InputError(f"{flag}: name a folder with pictures of domain {direction[0]}; {root} has none")
        self.calibration = evenly(train, min(N_CALIBRATION, max(1, len(train) // 2)))
        self.validation = evenly(but_for(train, self.calibration), N_VALIDATION)
        self.compared = evenly(but_for(test, self.calibration + self.validation), N_COMPARED)

    def take(self, paths, size):
        """-> tensor (N, channels, height, width)"""
        return from_8_bit(torch.stack(list(Files(paths, size, self.channels))))


def evenly(paths, n):
    """n of them, or all, from the first to the last."""
    n = min(n, len(paths))
    return [paths[i * len(paths) // n] for i in range(n)]


def but_for(paths, others):
    """The paths that are not among the others; all, if none would be left."""
    return [path for path in paths if path not in others] or paths


def target(opt, facts, kind):
    """Where the file of a format goes."""
    extension, _, suffix, _ = FORMATS[kind]
    if opt.output:
        if os.path.splitext(opt.output)[1] != extension:
            raise InputError(f"--output {opt.output}: --format {kind} makes a file that ends in {extension}")
        return opt.output
    folder, name = os.path.dirname(opt.checkpoint), stem(opt.checkpoint)
    if facts.is_full:
        name = f"G_{facts.direction}_{facts.epoch}"
    return os.path.join(folder, name + suffix + extension)


##############################
#         The table
##############################


def benchmark(opt, G, facts, x, calibration, validation):
    """Times the generator as it is and in each format, on the first of the real pictures x."""
    device = choose_device(opt.device)
    print("writing and timing all of them: some minutes", flush=True)
    with torch.no_grad():
        wanted = torch.cat([G(image) for image in x.split(1)])
    weights, quality, sizes = file_size(G.state_dict()), {}, {}

    def torch_row(name, dtype=torch.float32, compile=False):
        network = copy.deepcopy(G).to(device, dtype)
        if compile:
            network.compile(dynamic=False)
        quality[name] = psnr_of(lambda image: network(image.to(dtype)))
        sizes[name] = weights * dtype.itemsize / 4
        image = x[:1].to(device, dtype)
        return torch.no_grad()(lambda: network(image))

    def file_row(name, path):
        exported = Exported(path).to(device)
        quality[name] = psnr_of(exported)
        sizes[name] = os.path.getsize(path)
        image = x[:1].to(device)
        return lambda: exported(image)

    @torch.no_grad()
    def psnr_of(function):
        return psnr(torch.cat([function(image.to(device)).float().cpu() for image in x.split(1)]), wanted)

    rows = {"PyTorch": {}}
    if bfloat16_pays(device):
        rows["PyTorch, bfloat16"] = dict(dtype=torch.bfloat16)
    rows["PyTorch, compiled"] = dict(compile=True)
    if bfloat16_pays(device):
        rows["PyTorch, bfloat16, compiled"] = dict(dtype=torch.bfloat16, compile=True)
    candidates = {name: functools.partial(torch_row, name, **how) for name, how in rows.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (("TorchScript", "ts"), ("ONNX Runtime", "onnx"), ("ONNX Runtime, INT8", "int8")):
            path = os.path.join(folder, kind + FORMATS[kind].extension)
            write(export(kind, G, facts, calibration, validation, opt.psnr), path)
            candidates[name] = functools.partial(file_row, name, path)
        measured = in_rounds(candidates, device, rounds=opt.rounds, runs=opt.runs, at_least=0)
    first = next(iter(measured.values()))["seconds"]
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    print(f"\n{name_of(device)}{threads}, {opt.size} x {opt.size}, one picture at a time, torch {torch.__version__}")
    print(f"{'images/s':>38}{'ratio':>8}{'ms, median':>12}{'p95':>8}{'file, MB':>10}{'memory, MB':>12}{'PSNR, dB':>10}")
    for name, row in measured.items():
        ms = [digits(1000 * row[key]) for key in ("seconds", "p95")]
        print(
            f"{name:28}{digits(1 / row['seconds']):>10}{first / row['seconds']:>8.2f}{ms[0]:>12}{ms[1]:>8}"
            f"{sizes[name] / 1e6:>10.2f}{row['memory_gib'] * 1073.7:>12.0f}{quality[name]:>10.1f}"
        )
    print(f"memory: what the process takes on top of what it had; PSNR: to PyTorch in float32, of {len(x)} pictures")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if is_exported(opt.checkpoint):
        raise InputError(f"--checkpoint {opt.checkpoint}: is exported already; name what it was made of")
    if opt.output and len(opt.format) > 1:
        raise InputError("--output: names one file, so ask for one --format")
    known = load_generator(opt.checkpoint, opt.direction)
    G, known.options = known.network, known.options or options_beside(opt.checkpoint)
    options = known.options
    paths = {kind: target(opt, known, kind) for kind in opt.format}
    for path in paths.values():
        if not os.path.isdir(os.path.dirname(path) or ".") or os.path.isdir(path):
            raise InputError(f"--output {path}: must be a file in a folder that is there")
    if opt.benchmark or {"onnx", "fp16", "int8"} & set(opt.format):
        for package in ("onnx", "onnxscript", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise InputError(f"export.py: for ONNX it needs {package}: pip install onnx onnxscript onnxruntime")
    pictures = Pictures(opt, G, known)
    size = options.get("img_height", 256), options.get("img_width", 256)
    sizes = sizes_to_compare(G, *size)
    images = {each: pictures.take(pictures.compared, each) for each in sizes}
    calibration, validation = [], []
    if opt.benchmark or "int8" in opt.format:
        calibration = list(pictures.take(pictures.calibration, size).split(1))
        validation = [image for each in sizes for image in pictures.take(pictures.validation, each).split(1)]
        used = pictures.calibration + pictures.validation + pictures.compared
        if len(set(used)) < len(used):
            print("note: too few pictures: INT8 is held against some that its ranges were measured on")
    facts = {
        "channels": G.channels, "out_channels": G.out_channels, "multiple": G.multiple, "smallest": G.smallest,
        "direction": known.direction or "", "epoch": known.epoch or "", "value_range": "-1 to 1",
        "colours": {1: "gray", 3: "RGB"}.get(G.channels, ""), "img_height": size[0], "img_width": size[1],
        "dataset_name": options.get("dataset_name", ""),
    }  # fmt: skip
    if opt.benchmark:
        x = pictures.take(pictures.compared, (opt.size, opt.size))
        return benchmark(opt, G, facts, x, calibration, validation)
    for kind, path in paths.items():
        if kind == "ts":
            print("note: TorchScript is deprecated in PyTorch; pt2 and onnx are what is kept up")
        described = facts | {"precision": FORMATS[kind].precision}
        replaces = ", in place of an earlier one" if os.path.exists(path) else ""
        with whole_file(path) as temporary:
            write(export(kind, G, described, calibration, validation, opt.psnr), temporary)
            rows = compare(G, Exported(temporary, FORMATS[kind].extension), images)
            show(kind, rows, pictures.compared)
            check(kind, rows, opt.psnr)
        print(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB{replaces}; to use it:")
        print(f"    python translate.py --checkpoint {path} --input photo.jpg --size {min(size)}")


if __name__ == "__main__":
    run(main)
