# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2"]
# ///
"""
Translates images and videos with a trained generator, in one direction.

    python translate.py --checkpoint saved_models/horse2zebra/latest.pth --direction AB --input photo.jpg
    python translate.py --checkpoint saved_models/horse2zebra/G_AB_200.pth --input holiday/ --output zebras/
    python translate.py --checkpoint latest_net_G_A.pth --input clip.mp4 --output clip_zebra.mp4
    python translate.py --checkpoint latest_net_G_A.pth --input webcam --size 256
    python translate.py --checkpoint saved_models/icons/latest.pth --input photo.jpg --n_samples 4 --seed 7

The architecture is read from the checkpoint. Checkpoints of cyclegan.py, of the authors' code, of PyTorch-GAN and of
aitorzip/PyTorch-CycleGAN work, and so do files written by export.py. Results keep the name, folder, size, transparency
and format of their input.
"""

import os
import sys
import time

from command_line.parser import argument_parser, between, switch
from command_line.progress import duration
from command_line.run import run_script
from command_line.sizes import parse_size
from inference.detail import KeepSize
from inference.jobs import check_jobs, is_too_large
from inference.load import describe, load_generator
from inference.reporting import Report, translate_all, translate_all_volumes
from inference.samples import Sample, prepare_sampling
from inference.translator import Translator, check_count
from media.containers import is_camera, is_video
from media.images import load_image
from media.limits import decoding
from media.picture_writer import format_of
from media.pictures import make_resize
from media.targets import plan_jobs
from utils import InputError, choose_device
from variants.volumes import is_volumetric


def get_parser():
    parser = argument_parser(
        "Translate images and videos with a trained generator.",
        "python translate.py --checkpoint FILE --input PATH [PATH ...] [options]",
    )
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", required=True, nargs="+", metavar="FILE",
        help="latest.pth, one generator, or an exported one; two files with --mix")
    add("--direction", choices=("AB", "BA"), help="generator to take from a full checkpoint (default: AB)")
    add("--trust", action="store_true", help="load a .pt2 or .ts checkpoint, which is a program that may do anything")
    add("--input", required=True, nargs="+", metavar="PATH",
        help="images, videos, folders (recursive), 'quoted/*.jpg', or webcam")
    add("--output", help="file or folder (default: NAME_translated, or translated for several inputs)")
    add("--format", help="format of the images written: png, jpg, webp, ... (default: as the input)")
    add("--resume", action="store_true", help="skip outputs that already exist")
    add("--overwrite", action="store_true", help="replace outputs that already exist")
    # what is done to an image
    add("--size", type=parse_size, help="resize first: 512 for the shorter side, or WIDTHxHEIGHT")
    add("--keep_size", action="store_true", help="with --size: enlarge the result again, with the detail of the input")
    add("--strength", type=between(0.0, 1.0), default=1.0, help="0 is the input, 1 the translation")
    add("--mask", help="gray image, or folder with one per input: white is translated, black is kept")
    add("--mix", type=between(0.0, 1.0), help="share of the second checkpoint's translation in the result")
    add("--n_samples", type=between(1, 1000), metavar="N", help="write N different translations of each input, NAME_1.png and so on")
    add("--seed", type=between(0, 2**32), default=0, help="random seed of --n_samples")
    add("--smooth", type=between(0.0, 1.0), nargs="?", const=0.8, default=0.0,
        help="reduce the flicker of videos, 0 to 1; 0.8 if no value is given")
    add("--features", action="store_true", help="write a sheet of feature maps instead of a translation")
    add("--allow_truncated", action="store_true", help="translate the part of a damaged image that can be decoded")
    add("--max_pixels", type=between(1, 10**11), default=178_956_970,
        help="refuse larger images (default: %(default)s)")
    # machine
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--amp", action=switch, help="compute in bfloat16 (default: where the device supports it)")
    add("--compile", action=switch, default=False, help="use torch.compile; pays off from a few hundred images")
    add("--batch_size", type=between(1, 4096), help="images of one size per batch (default: 16 on a GPU, 1 on a CPU)")
    add("--tile", type=between(64, 65536), default=2048, help="translate images above TILE x TILE pixels in bands")
    add("--n_cpu", type=between(1, 256), default=4, help="threads that decode and encode images")
    # fmt: on
    return parser


def check_options(opt):
    """Raises InputError for options that are wrong or do not fit together, before any file is written."""
    check_count(opt.checkpoint, opt.mix)
    opt.format = opt.format and opt.format.lstrip(".")
    if opt.resume and opt.overwrite:
        raise InputError("--resume --overwrite: one skips existing files, the other replaces them. Give only one")
    if opt.format and is_video("x." + opt.format):
        raise InputError(
            f"--format {opt.format}: is for images. For a video, name the result: --output NAME.{opt.format}"
        )
    if opt.format and not format_of("x." + opt.format):
        raise InputError(f"--format {opt.format}: cannot be written. Use png, jpg, webp, tif or another image format")
    if opt.mask and not os.path.exists(opt.mask):
        raise InputError(f"--mask {opt.mask}: no such file or folder")
    if opt.mask and not os.path.isdir(opt.mask):
        load_image(opt.mask, channels=1)  # raises InputError if the mask is broken
    if opt.features and (opt.mask or opt.mix is not None or opt.strength < 1 or opt.smooth or opt.keep_size):
        raise InputError("--features cannot be combined with --mask, --mix, --strength, --smooth or --keep_size")
    if opt.n_samples and (opt.features or any(map(is_camera, opt.input))):
        raise InputError("--n_samples: cannot be combined with --features or --input webcam")
    if opt.seed and not opt.n_samples:
        raise InputError("--seed: has no effect without --n_samples")
    if opt.keep_size and not opt.size:
        raise InputError("--keep_size: requires --size, at which images are translated")


def main(argv=None):
    opt = get_parser().parse_args(argv)
    with decoding(opt.max_pixels, opt.allow_truncated):
        check_options(opt)
        return translate_inputs(opt)


def translate_inputs(opt):
    """What translate.py does, with parsed options -> exit status"""
    device = choose_device(opt.device)
    trained = [load_generator(path, opt.direction, opt.trust, volumes=True) for path in opt.checkpoint]
    if is_volumetric(vars(trained[0].network)):
        return translate_volumes(opt, trained, device)
    plan = plan_jobs(
        opt.input, output=opt.output, format=opt.format, features=opt.features, resume=opt.resume,
        overwrite=opt.overwrite, n_samples=opt.n_samples,
    )  # fmt: skip
    say_plan(plan, trained)
    if opt.n_samples:
        prepare_sampling(trained)
    check_jobs(plan.jobs, trained, opt.features)
    translator = make_translator(opt, trained, device)
    if opt.mask:
        translator.check_blending()
    if plan.jobs and is_too_large(plan.jobs[0][0], trained[-1], opt.size):
        size = trained[-1].options["img_height"]
        print(
            f"note: {plan.jobs[0][0]} is much larger than the {size} pixels that the generator was trained at, so it "
            f"may not recognise objects. --size {size} is faster and may look better"
        )
    print(f"{len(plan.jobs)} to translate, on {device}, {translator.precision}".removesuffix(", "))

    def choose_sample(number, of=translator):
        of.sample = number and Sample(opt.seed, number)

    size = opt.size  # to resize the inputs to
    if opt.keep_size:
        translator, size = KeepSize(translator, make_resize(opt.size)), None  # it resizes them itself
    report = Report(sum(not is_video(target) for _, target in plan.jobs), plan.failures, plan.notes)
    stopped = translate_all(plan, translator, choose_sample, report, size, opt)
    return finish(report, plan, stopped)


def say_plan(plan, trained):
    if plan.n_skipped:
        print(f"skipping {plan.n_skipped} of {plan.n_skipped + len(plan.jobs)} outputs, which already exist")
    for one in trained:
        print(describe(one))


def make_translator(opt, trained, device):
    return Translator(
        [one.network for one in trained], device, amp=opt.amp, mix=opt.mix, strength=opt.strength,
        tile=opt.tile, batch_size=opt.batch_size, compile=opt.compile,
    )  # fmt: skip


def translate_volumes(opt, trained, device):
    """translate_inputs for generators of --dims 3 and --slices"""
    from inference.volumes import check_generators, plan_volumes

    check_generators(opt, trained)
    plan = plan_volumes(opt.input, opt.output, opt.resume, opt.overwrite)
    say_plan(plan, trained)
    translator = make_translator(opt, trained, device)
    print(f"{len(plan.jobs)} to translate, on {device}, {translator.precision}")
    report = Report(len(plan.jobs), [], [], "volumes")
    return finish(report, plan, translate_all_volumes(plan, translator, report))


def finish(report, plan, stopped):
    """Prints what was written and what was not -> exit status"""
    for line in report.notes:
        print("note: " + line)
    for line in report.failures:
        print("not translated: " + line.replace("\n", "\\n"), file=sys.stderr)
    written = f"; written to {plan.output}" if report.n_written else ""
    seconds = time.monotonic() - report.started
    print(f"{report.n_written} translated in {duration(seconds)}, {len(report.failures)} failed{written}")
    if stopped:
        print("stopped by Ctrl-C. Continue with --resume")
    return 130 if stopped else 1 if report.failures else 0


if __name__ == "__main__":
    run_script(main)
