# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2"]
# ///
"""
Exports a trained generator, so that it runs without this project: ONNX (C++, C#, Java, browsers, phones), torch.export
or TorchScript; in float32, float16 or INT8. Or as weights in safetensors, as a folder for the Hugging Face Hub, or as a
page that translates in the browser of its visitors.

    python export.py --checkpoint saved_models/horse2zebra/latest.pth --direction AB --format onnx
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --format int8
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --size 256x256
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --format web
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --benchmark
    python export.py --checkpoint saved_models/horse2zebra/latest.pth --format hub

An exported file takes images (N, channels, height, width) in [-1, 1], RGB, of any number and size, and returns
translations of the same shape; padding and cropping are included. With --size, it takes one image of that size at a
time; simple runtimes such as OpenCV need such a file. Every file is compared with the checkpoint on real
images before it replaces an existing file. translate.py and evaluate.py accept exported files as checkpoints.
docs/deployment.md shows how to use them in other programs.

ONNX needs optional packages: pip install onnx onnxscript onnxruntime. So do weights: pip install safetensors
"""

import importlib.util

from command_line.parser import argument_parser, between
from command_line.run import run_script
from command_line.sizes import parse_size
from deploy.benchmark import benchmark
from deploy.comparison import ExportImages, comparison_sizes
from deploy.files import export_file, fix_noise, names_a_folder, output_path
from deploy.formats import FORMATS, check_fixed_size, trained_size
from deploy.hub import ONNX_PACKAGES, export_hub
from deploy.weights import WEIGHTS, check_package, export_weights
from inference.exported import is_exported
from inference.load import load_generator, options_beside
from inference.weights import model_file
from utils import InputError

FOLDERS = ("web", "hub")  # formats that are folders


def get_parser():
    parser = argument_parser("Export a trained generator.", "python export.py --checkpoint FILE [options]")
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", required=True, metavar="FILE", help="latest.pth, or any other generator that translate.py accepts")
    add("--direction", choices=("AB", "BA"), help="generator of a full checkpoint (default: AB; web, hub: both)")
    add("--format", nargs="+", choices=(*FORMATS, *WEIGHTS, *FOLDERS),
        help="one or more formats; web: a folder with a page; ts is deprecated (default: onnx)")
    add("--size", type=height_and_width, metavar="WIDTHxHEIGHT", help="fixed input size, 256 is 256x256 (default: any size)")
    add("--output", metavar="PATH", help="output file, or folder (default: next to the checkpoint, such as G_AB_200.onnx)")
    add("--images", metavar="DIR", help="folder of images to compare on (default: test images of the data set)")
    add("--calibration", metavar="DIR", help="int8: folder of images, of which 32 are used (default: training images)")
    add("--psnr", type=between(10.0, 80.0), default=35.0, help="int8: required PSNR to float32, in dB")
    add("--benchmark", action="store_true",
        help="time PyTorch, TorchScript, ONNX and INT8, at --size or 256x256, instead of writing a file")
    add("--rounds", type=between(1, 1000), default=3, help="benchmark: rounds, each of which times all candidates")
    add("--runs", type=between(1, 1000), default=10, help="benchmark: runs per round")
    add("--device", default="cpu", help="benchmark: cpu, cuda, ...")
    # fmt: on
    return parser


def height_and_width(text):
    """'640x480' -> (480, 640); '256' -> (256, 256)"""
    size = parse_size(text, most=16384)
    return size[::-1] if isinstance(size, tuple) else (size, size)


height_and_width.__name__ = "size"  # for argparse's messages


def check_options(opt):
    if is_exported(opt.checkpoint):
        raise InputError(f"--checkpoint {opt.checkpoint}: is already exported. Pass its checkpoint instead")
    for kind in FOLDERS:
        if kind in opt.format and (len(opt.format) > 1 or opt.size or opt.benchmark):
            raise InputError(
                f"--format {kind}: writes a folder of its own; give it alone, without --size and --benchmark"
            )
    if WEIGHTS.keys() & {*opt.format} and (opt.size or opt.benchmark):
        raise InputError("--format safetensors: the weights are the same for every size; omit --size and --benchmark")
    if opt.output and len(opt.format) > 1 and not names_a_folder(opt.output):
        raise InputError(f"--output {opt.output}: names a single file; use it with one --format, or name a folder")


def check_packages(opt):
    if WEIGHTS.keys() & {*opt.format}:
        check_package()
    if opt.benchmark or {"onnx", "fp16", "int8", "web"} & set(opt.format):
        for package in ONNX_PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise InputError(f"export.py: ONNX needs {package}: pip install {' '.join(ONNX_PACKAGES)}")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    opt.format, opt.checkpoint = opt.format or ["onnx"], model_file(opt.checkpoint)
    check_options(opt)
    if opt.format == ["hub"]:
        return export_hub(opt.checkpoint, opt.direction, opt.output, opt.images)
    if opt.format == ["web"]:
        from deploy.web import export_page

        check_packages(opt)
        return export_page(opt)
    trained = load_generator(opt.checkpoint, opt.direction)
    trained.options = trained.options or options_beside(trained.path)
    paths = {kind: output_path(opt, trained, kind) for kind in opt.format}
    check_packages(opt)
    for kind in [kind for kind in WEIGHTS if kind in paths]:
        export_weights(kind, paths.pop(kind), trained)
    if not paths:
        return
    fix_noise(trained)
    if opt.size or opt.benchmark:
        check_fixed_size(trained.network, *(opt.size or (256, 256)))

    images = ExportImages(trained, opt.images, opt.calibration, for_int8="int8" in opt.format)
    size = opt.size or trained_size(trained)
    sizes = [size] if opt.size else comparison_sizes(trained.network, *size)
    compared = {each: images.load(images.compared, each) for each in sizes}
    calibration, validation = [], []
    if opt.benchmark or "int8" in opt.format:
        calibration, validation = images.load_for_int8(size, sizes)
        if not images.are_disjoint():
            print("note: too few images: some serve both to calibrate INT8 and to check it")

    if opt.benchmark:
        timed = images.load(images.compared, opt.size or (256, 256))
        benchmark(trained, timed, calibration, validation, least_psnr=opt.psnr, rounds=opt.rounds, runs=opt.runs,
                  device=opt.device, size=opt.size)  # fmt: skip
        return
    for kind, path in paths.items():
        if kind == "ts":
            print("note: TorchScript is deprecated in PyTorch; prefer pt2 or onnx")
        export_file(kind, path, trained, images, compared, (calibration, validation, opt.psnr), opt.size)


if __name__ == "__main__":
    run_script(main)
