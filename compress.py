# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2"]
# ///
"""
Makes a trained CycleGAN smaller, in one of two ways.

    python compress.py prune --checkpoint saved_models/horse2zebra/latest.pth --keep 0.7
    python compress.py distill --checkpoint saved_models/horse2zebra/latest.pth --direction AB

prune removes the channels with the smallest weights from both generators and continues training like cyclegan.py; the
result is an ordinary run. distill trains a new, small generator to imitate the trained one, in one direction. Both end
with a table of cost and quality before and after, on the same test images.

Pruning needs torch-pruning: pip install torch-pruning
"""

from command_line.parser import HelpFormatter, argument_parser, between, switch
from command_line.run import run_script
from deploy.distill import distill
from deploy.prune import prune


def get_parser():
    parser = argument_parser("Make a trained CycleGAN smaller.", "python compress.py {prune,distill} [options]")
    ways = parser.add_subparsers(dest="way", required=True, help="each has its own --help")
    for name, text in (("prune", "remove channels from both generators and continue training"),
                       ("distill", "train a small generator to imitate the trained one")):  # fmt: skip
        way = ways.add_parser(name, help=text, usage=f"python compress.py {name} --checkpoint FILE [options]",
                              description=text[0].upper() + text[1:] + ".", formatter_class=HelpFormatter)  # fmt: skip
        add_common(way, "the training's, with _pruned" if name == "prune" else "the training's, with _student")
    add = ways.choices["prune"].add_argument
    add("--keep", type=between(0.01, 1.0), default=0.7, help="share of the channels to keep")
    add("--lr", type=between(0.0), default=0.0001, help="learning rate, decays in the second half")
    add_distill(ways.choices["distill"])
    return parser


# fmt: off
def add_common(parser, run_name):
    """Adds the options that prune and distill share. run_name: description of the default"""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="latest.pth or checkpoint_N.pth of a training")
    add("--run_name", metavar="NAME", help=f"name of the output folders (default: {run_name})")
    add("--data_dir", metavar="DIR", help="folder of the data sets (default: the training's)")
    add("--n_epochs", type=between(0, 10**9), help="epochs of training (default: 20)")
    add("--batch_size", type=between(1, 10**6), help="images per domain (default: the training's)")
    add("--sample_interval", type=int, default=500, help="steps between sample grids, 0: none")
    add("--paired", action="store_true", help="also measure what evaluate.py --paired does")
    add("--palette", choices=("cityscapes",), help="also measure what evaluate.py --palette does")
    add("--resume", action="store_true", help="continue an interrupted run with its options, except --n_epochs")
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--amp", action=switch, help="train with bfloat16 (default: if the device supports it)")


def add_distill(parser):
    add = parser.add_argument
    add("--direction", choices=("AB", "BA"), default="AB", help="the generator to imitate")
    add("--n_residual_blocks", type=between(0, 1000), help="of the student (default: at most half the teacher's)")
    add("--separable", action=switch, default=False, help="depthwise separable residual blocks")
    add("--ngf", type=between(1, 4096), help="width of the student's first layer (default: from the next two)")
    add("--fewer_products", type=between(1.0), default=20.0, help="at least this many times fewer multiply-adds")
    add("--fewer_parameters", type=between(1.0), default=30.0, help="at least this many times fewer parameters")
    add("--lr", type=between(0.0), default=0.0005, help="learning rate, decays in the second half")
    add("--lambda_out", type=between(0.0), default=10.0, help="weight of L1 to the teacher's translation")
    add("--lambda_feat", type=between(0.0), default=1.0, help="weight of the distance to the teacher's features")
    add("--lambda_gan", type=between(0.0), default=1.0, help="weight of the adversarial loss")
    add("--lambda_perceptual", type=between(0.0), default=0.0, help="weight of L1 of VGG features")
    add("--vgg_weights", metavar="FILE", help="torchvision's vgg16 weights (default: download them)")
    add("--log_interval", type=between(1), default=50, help="steps between log lines")
# fmt: on


def main(argv=None):
    parser = get_parser()
    opt = parser.parse_args(argv)
    (ways,) = (action.choices for action in parser._actions if action.dest == "way")
    return {"prune": prune, "distill": distill}[opt.way](opt, ways[opt.way])


if __name__ == "__main__":
    run_script(main, needs_reader=False)
