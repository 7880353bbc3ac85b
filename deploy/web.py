"""
A folder that any web server can serve: a page on which visitors translate pictures in their own browser, with ONNX
Runtime Web. No picture leaves the visitor's computer.

The page itself is in web_page/ and is copied as it is. networks.json tells it what there is to load.
"""

import json
import os
import re
import shlex
import shutil

import torch

from deploy.comparison import ExportImages, comparison_sizes
from deploy.files import export_file, fix_noise, output_path
from deploy.formats import set_name, trained_size
from inference.load import load_generator, load_generators, options_beside
from utils import InputError, whole_file

PAGE = os.path.join(os.path.dirname(__file__), "web_page")
MARK = b"CycleGAN export.py --format web"  # in our index.html
PACKAGE = os.path.join("node_modules", "onnxruntime-web")
HINT = "npm install onnxruntime-web"
# For browsers without and with WebGPU: the script, and the binary that it loads. Without WebGPU, the first binary does,
# which is half as large
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
# Memory of ONNX Runtime, in multiples of the largest input and output of a layer. Measured: 2.2 in a browser for 8
# filters, 2.6 to 3.3 in Python for 16
PEAK = 3

MIT = """\
ONNX Runtime Web {version}, from the package onnxruntime-web. Copyright (c) Microsoft Corporation.

MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def check_generator(trained):
    """Raises InputError if a generator does not translate pictures as browsers have them: 8 bits, gray or RGB."""
    G = trained.network
    if any(getattr(G, "ranges", (None, None))):
        raise InputError(
            f"--format web: {trained.path} was trained with --range_A or --range_B; browsers read pictures of 8 bits only"
        )
    if not {G.channels, G.out_channels} <= {1, 3}:
        raise InputError(
            f"--format web: {trained.path} translates {G.channels} channels to {G.out_channels}; browsers read gray and "
            "RGB pictures only"
        )


def make_folder(path):
    """Creates the folder to write to. Raises InputError if it is a file, or holds a page of somebody else."""
    index = os.path.join(path, "index.html")
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"--output {path}: is a file. Name a folder")
    if os.path.lexists(index):
        with open(index, "rb") as file:
            if MARK not in file.read(10_000):
                raise InputError(f"--output {path}: contains another index.html. Name another folder")
    elif os.path.isdir(path):
        for name in (*sorted(os.listdir(PAGE)), "networks.json", "runtime"):
            if os.path.lexists(os.path.join(path, name)):
                raise InputError(f"--output {path}: contains another {name}. Name another folder")
    os.makedirs(path, exist_ok=True)


def label(trained):
    """What a direction is called on the page: "horse → zebra" for AB of horse2zebra, otherwise "A → B"."""
    first, last = trained.direction or "AB"
    named = re.fullmatch(r"([a-z]+)2([a-z]+)", trained.options.get("dataset_name") or "")
    names = dict(zip("AB", named.groups())) if named else {"A": "A", "B": "B"}
    return f"{names[first]} → {names[last]}"


@torch.no_grad()
def bytes_per_pixel(G):
    """An estimate of the memory of a translation, in bytes per pixel of the image, without the weights."""
    sizes, side = [], -(-max(G.smallest, 64) // G.multiple) * G.multiple

    def measure(layer, inputs, output):
        values = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
        sizes.append(sum(value.numel() * 4 for value in values))

    hooks = [part.register_forward_hook(measure) for part in G.modules() if not list(part.children())]
    try:
        G(torch.zeros(1, G.channels, side, side))
    finally:
        for hook in hooks:
            hook.remove()
    return PEAK * -(-max(sizes) // side**2)


def describe_network(trained, file):
    """The entry of networks.json for a TrainedGenerator that has been exported to an ONNX file."""
    G = trained.network
    return {
        "label": label(trained), "file": os.path.basename(file), "bytes": os.path.getsize(file), "channels": G.channels,
        "out_channels": G.out_channels, "size": min(trained_size(trained)), "bytes_per_pixel": bytes_per_pixel(G),
    }  # fmt: skip


def copy_runtime(folder):
    """Copies what the page needs of onnxruntime-web from node_modules/ in the current folder to runtime/ of `folder` ->
    (what networks.json says of it, version). Without the package, files of an earlier export are used; (None, None) if
    there are none either."""
    dist, target = os.path.join(PACKAGE, "dist"), os.path.join(folder, "runtime")
    installed = all(os.path.isfile(os.path.join(dist, name)) for names in RUNTIMES.values() for name in names)
    version, found = None, {}
    if installed:
        os.makedirs(target, exist_ok=True)
        version = package_version()
        with whole_file(os.path.join(target, "LICENSE.txt")) as temporary, open(temporary, "w") as file:
            file.write(MIT.format(version=version))
    for kind, (script, binary) in RUNTIMES.items():
        # .js, because some servers do not know .mjs, and browsers run no script of an unknown type
        to = os.path.join(target, script.replace(".mjs", ".js")), os.path.join(target, binary)
        for source, path in zip((script, binary), to) if installed else ():
            with whole_file(path) as temporary:
                shutil.copyfile(os.path.join(dist, source), temporary)
        if not all(map(os.path.isfile, to)):
            return None, None
        names = [f"runtime/{os.path.basename(path)}" for path in to]
        found[kind] = {"script": names[0], "binary": names[1], "bytes": os.path.getsize(to[1])}
    return found, version


def package_version():
    try:
        with open(os.path.join(PACKAGE, "package.json"), encoding="utf-8") as file:
            return str(json.load(file)["version"])[:40]
    except (OSError, ValueError, LookupError, TypeError):
        return "of an unknown version"


def write_page(folder, found):
    """Writes everything but the networks. Prints what was written, and how to look at it.

    folder: of make_folder, with the ONNX files
    found:  list of (TrainedGenerator, path of its ONNX file), in the order of the page
    """
    runtimes, version = copy_runtime(folder)
    name = set_name(found[0][0].options) or ""
    facts = {"name": name, "networks": [describe_network(*each) for each in found], "runtimes": runtimes}
    with whole_file(os.path.join(folder, "networks.json")) as temporary, open(temporary, "w") as file:
        json.dump(facts, file, indent=1)
    for page in sorted(os.listdir(PAGE)):
        with whole_file(os.path.join(folder, page)) as temporary:
            shutil.copyfile(os.path.join(PAGE, page), temporary)
    if runtimes:
        total = sum(entry.stat().st_size for entry in os.scandir(os.path.join(folder, "runtime")))
        print(f"{folder}: complete, with onnxruntime-web {version or 'of the earlier export'} ({total / 1e6:.0f} MB)")
    else:
        print(f"note: {folder} lacks onnxruntime-web. Run this, then export again: {HINT}")


def export_page(opt):
    """What export.py --format web does: exports both directions of a full checkpoint, unless --direction names one, and
    writes the page."""
    first = load_generator(opt.checkpoint, opt.direction)
    both = first.is_full and not opt.direction
    generators = list(load_generators(opt.checkpoint).values()) if both else [first]
    for trained in generators:
        check_generator(trained)
        trained.options = trained.options or options_beside(trained.path)
        fix_noise(trained)
    images = [ExportImages(trained, opt.images) for trained in generators]
    folder = opt.output or os.path.join(os.path.dirname(opt.checkpoint), "web")
    make_folder(folder)
    opt.output = os.path.join(folder, "")
    paths = [output_path(opt, trained, "onnx") for trained in generators]
    for trained, path, chosen in zip(generators, paths, images):
        sizes = comparison_sizes(trained.network, *trained_size(trained))
        compared = {each: chosen.load(chosen.compared, each) for each in sizes}
        export_file("onnx", path, trained, chosen, compared, ([], [], opt.psnr), public={})
    write_page(folder, list(zip(generators, paths)))
    others = [name for name in sorted(os.listdir(folder)) if name.endswith(".onnx")]
    others = [name for name in others if name not in map(os.path.basename, paths)]
    if others:
        print(
            f"note: {folder} also holds {', '.join(others)}, which this page does not use. Delete them before you publish it"
        )
    print(f"    python -m http.server --directory {shlex.quote(folder)}")
