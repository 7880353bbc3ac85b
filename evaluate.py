# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2"]
# ///
"""
Measures the quality of a trained CycleGAN. Evaluates both directions on the test images, prints a table, appends it to
metrics.jsonl in the folder of the checkpoint, and draws the best and worst cases.

    python evaluate.py --checkpoint saved_models/horse2zebra/latest.pth
    python evaluate.py --checkpoint saved_models/horse2zebra/latest.pth --all_checkpoints
    python evaluate.py --checkpoint saved_models/facades/latest.pth --paired
    python evaluate.py --checkpoint saved_models/icons/latest.pth --paired --n_samples 8

FID, KID, LPIPS, PSNR and SSIM need optional packages: pip install -r requirements-optional.txt
"""

from command_line.parser import argument_parser, between, switch
from command_line.run import run_script
from measuring.evaluation import evaluate
from measuring.metrics import RESIZING
from utils import InputError


def get_parser():
    parser = argument_parser(
        "Measure the quality of a trained CycleGAN on test images.", "python evaluate.py --checkpoint FILE [options]"
    )
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", required=True, metavar="FILE", help="latest.pth, one generator (its counterpart is found) or an exported file")
    add("--counterpart", metavar="FILE", help="generator of the other direction, if it is not in the same folder")
    add("--trust", action="store_true", help="load a .pt2 or .ts file, which is a program that may do anything")
    add("--direction", choices=("AB", "BA"), help="measure one direction (default: both)")
    add("--all_checkpoints", action="store_true", help="measure all generators in the folder and plot curves")
    add("--dataset_name", metavar="NAME", help="folder in data_dir (default: as trained)")
    add("--data_dir", metavar="DIR", help="folder of the data sets (default: as trained, or data)")
    add("--img_height", type=between(32, 16384), help="height in pixels (default: as trained, or 256)")
    add("--img_width", type=between(32, 16384), help="width in pixels (default: as trained, or 256)")
    add("--keep_aspect", action=switch, help="keep the shape of images and take their centre (default: as trained)")
    add("--paired", action="store_true", help="compare with the ground truth: images of A and B with equal file stems")
    add("--palette", help="score label images by class: cityscapes, auto (their own colours), or a file of classes")
    add("--n_samples", type=between(2, 1000), metavar="N", help="measure how much N translations of one input differ")
    add("--seed", type=between(0, 2**32), default=0, help="random seed of --n_samples, as in translate.py")
    add("--inception_weights", metavar="FILE", help="local file with the weights for FID and KID (default: download)")
    add("--lpips_weights", metavar="FILE", help="local file with AlexNet's weights for LPIPS (default: download)")
    add("--fid_resize", choices=tuple(RESIZING), default="torch-fidelity", help="how FID and KID resize images to 299")
    add("--batch_size", type=between(1, 4096), default=8, help="images per batch")
    add("--n_cpu", type=between(0, 256), default=2, help="worker processes that load images")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--amp", action=switch, help="translate with bfloat16 autocast (default: if the device supports it)")
    # fmt: on
    return parser


def main(argv=None):
    opt = get_parser().parse_args(argv)
    if opt.seed and not opt.n_samples:
        raise InputError("--seed: has no effect without --n_samples")
    evaluate(**vars(opt))


if __name__ == "__main__":
    run_script(main)
