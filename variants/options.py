"""
The options that the paper does not need: other networks, losses, schedules and data. All are off by default and then
cost nothing. docs/variants.md says what each one does.
"""

import argparse
import importlib.util

from command_line.parser import between, not_divisible, switch
from utils import InputError
from variants.build import channels_of
from variants.by_epoch import ratio_by_epoch, sizes_by_epoch
from variants.losses import EXTRA_LOSSES, needs_vgg
from variants.ranges import parse_range
from variants.schedules import stages

LOGGERS = ("tensorboard", "wandb", "trackio")  # names of the packages to install, see training/loggers.py
NORMS = ("instance", "batch", "layer", "none")


class HelpAll(argparse.Action):
    """--help_all: prints the help of all options. --help does not list those of add_variants."""

    def __call__(self, parser, *_):
        for action in self.const:
            action.help = action.full_help
        parser.print_help()
        parser.exit()


class ValueRange(argparse.Action):
    """--range_A LOW HIGH, stored as one string "LOW HIGH", as all options are numbers, strings or switches."""

    def __init__(self, option_strings, dest, **options):
        super().__init__(option_strings, dest, nargs=2, metavar=("LOW", "HIGH"), **options)

    def __call__(self, parser, namespace, words, option_string=None):
        text = " ".join(words)
        try:
            parse_range(text)
        except ValueError as error:
            parser.error(f"argument {option_string}: {error}")
        setattr(namespace, self.dest, text)


class Words(argparse.Action):
    """--logger wandb trackio, stored as one string "wandb trackio"."""

    def __init__(self, option_strings, dest, choices, **options):
        super().__init__(option_strings, dest, nargs="+", **options)
        self.words = choices

    def __call__(self, parser, namespace, words, option_string=None):
        for word in words:
            if word not in self.words:
                parser.error(f"argument {option_string}: {word}: choose from {', '.join(self.words)}")
        setattr(namespace, self.dest, " ".join(words))


def add_variants(parser):
    """Adds the options of all variants to a parser."""
    hidden = []
    parser.add_argument("--help_all", action=HelpAll, nargs=0, const=hidden, default=argparse.SUPPRESS,
                        help="show the options of the variants too and exit")  # fmt: skip
    for add_group in (add_networks, add_losses, add_schedules, add_machine):
        actions = add_group(parser)
        for action in actions:
            action.full_help, action.help = action.help, argparse.SUPPRESS
        hidden += actions


def adder(parser, title):
    """-> a function like parser.add_argument for a new group, and the list of what it has added"""
    group, actions = parser.add_argument_group(title), []

    def add(*names, **options):
        actions.append(group.add_argument(*names, **options))

    return add, actions


# fmt: off
def add_networks(parser):
    add, actions = adder(parser, "other networks")
    add("--generator", default="resnet", choices=("resnet", "unet", "multiscale", "pretrained"),
        help="architecture of the generators")
    add("--num_downs", type=between(3, 14), default=8, help="unet: number of downsamplings")
    add("--encoder_weights", metavar="FILE", help="pretrained: torchvision's resnet18 weights (default: download them)")
    add("--norm", default="instance", choices=NORMS, help="normalisation of the generators and, without --norm_D, the discriminators")
    add("--norm_D", choices=NORMS, help="normalisation of the discriminators (default: --norm)")
    add("--attention", action=switch, default=False, help="self-attention in the middle of the generators")
    add("--separable", action=switch, default=False, help="depthwise separable residual blocks, a ninth of the work")
    add("--dropout", type=between(0.0, 0.99), nargs="?", const=0.5, default=0.0,
        help="dropout in the generators; 0.5 without a value")
    add("--noise_channels", type=between(0, 4096), default=0, help="noise for several translations of one image: 8; 0 for none")
    add("--discriminator", default="patch", choices=("patch", "multiscale", "pixel"),
        help="architecture of the discriminators")
    add("--n_scales", type=between(1, 8), default=3, help="multiscale: number of discriminators, each at half the size")
    add("--antialias", action=switch, default=False, help="blur before each downsampling of all networks")
    add("--residual", action=switch, default=False, help="generators compute the change of their input")
    add("--batch_deviation", action=switch, default=False,
        help="discriminators see how much a batch varies; needs --batch_size 2 or more")
    add("--spectral_norm", action=switch, default=False, help="spectral normalisation of the discriminators")
    add("--freeze_D", type=between(0, 1000), default=0,
        help="keep the first N convolutions of the discriminators fixed; for --start_from")
    add("--channels_A", type=between(1, 4096), help="channels of domain A, any number for TIFF and .npy (default: --channels)")
    add("--channels_B", type=between(1, 4096), help="channels of domain B (default: --channels)")
    add("--dims", type=int, choices=(2, 3), default=2, help="3: networks in 3-D, for volumes in .npy, NIfTI or TIFF files")
    add("--img_depth", type=between(8, 16384), default=32, help="depth of the training crop with --dims 3")
    add("--slices", type=between(0, 4096), default=0,
        help="for volumes: networks in 2-D that take N neighbouring slices as channels; 0: images")
    return actions


def add_losses(parser):
    add, actions = adder(parser, "other losses; with weight 0 they are not computed")
    add("--gan_loss", default="lsgan", choices=("lsgan", "vanilla", "hinge"), help="adversarial loss")
    add("--label_smoothing", type=between(0.0, 0.5), default=0.0,
        help="discriminator target for real images is 1 minus this value")
    add("--lambda_A", type=between(0.0), help="weight of the cycle A -> B -> A, the identity loss in proportion (default: --lambda_cyc)")
    add("--lambda_B", type=between(0.0), help="weight of the cycle B -> A -> B, likewise (default: --lambda_cyc)")
    add("--lambda_cyc_end", type=between(0.0), help="weight of the cycle loss at the end; it falls along a line")
    add("--cycle_noise", type=between(0.0, 2.0), default=0.0,
        help="standard deviation of noise on translations before they are translated back, of values from -1 to 1")
    add("--lambda_gp", type=between(0.0), default=0.0, help="weight of the gradient penalty of the discriminators")
    add("--gp_at", default="real", choices=("real", "mix"),
        help="gradient penalty at real images (R1), or at a mix of real images and translations (UVCGAN v2)")
    for name, loss in EXTRA_LOSSES.items():
        add(f"--lambda_{name}", type=between(0.0), default=0.0, help=loss.help)
    add("--pairs", metavar="FILE", help="paired: list of pairs, one per line (default: files with the same stem)")
    add("--vgg_weights", metavar="FILE", help="perceptual: torchvision's vgg16 weights (default: download them); "
        "for style, use VGG instead of D")
    return actions


def add_schedules(parser):
    add, actions = adder(parser, "other schedules")
    add("--recipe", choices=("uvcgan",), help="set of options beyond the paper's, see training/presets.py")
    add("--n_iters", type=between(1, 10**12), help="number of steps, instead of --n_epochs")
    add("--lr_schedule", default="linear", choices=("linear", "cosine", "step"), help="decay of the learning rate")
    add("--lr_G", type=between(0.0), help="learning rate of the generators (default: --lr)")
    add("--lr_D", type=between(0.0), help="learning rate of the discriminators (default: --lr)")
    add("--n_critic", type=between(1, 1000), default=1, help="discriminator steps for each generator step")
    add("--n_gen", type=between(1, 1000), default=1, help="generator steps for each discriminator step")
    add("--clip_grad", type=between(0.0), default=0.0, help="largest gradient norm of a network; 0 does not clip")
    add("--ema", type=between(0.0, 0.999999), nargs="?", const=0.999, default=0.0,
        help="average the generators' weights for samples and translation; 0.999 without a value")
    add("--progressive", type=sizes_by_epoch, metavar="SIZE:EPOCHS,...",
        help="increase the image size: 128:50,256:150 is 50 epochs at 128 pixels, then 150 at 256")
    add("--ratio_A", type=ratio_by_epoch, metavar="RATIO[:RATIO]",
        help="images of A for each of B in a batch: 0.5, or 0.5:1 from the first to the last epoch")
    add("--color_jitter", type=between(0.0, 1.0), nargs="?", const=0.2, default=0.0,
        help="strength of random colour changes of training images; 0.2 without a value")
    add("--rotate", type=between(0.0, 180.0), nargs="?", const=10.0, default=0.0,
        help="rotate training images by up to this many degrees; 10 without a value")
    add("--diffaugment", action=switch, default=False, help="for small data sets: augment all images that D sees")
    return actions


def add_machine(parser):
    add, actions = adder(parser, "memory, speed, unusual data, logs")
    add("--cache", action=switch, help="keep decoded images in memory (default: if they fit into 4 GiB)")
    add("--n_cpu", type=between(0, 1024), help="worker processes that load images (default: 0 if cached; else up to 8 for a GPU, 1 for a CPU)")
    add("--skip_bad_images", action=switch, default=False, help="skip images that are corrupt or too small")
    add("--enlarge", action=switch, default=False, help="accept images smaller than the crop")
    add("--keep_aspect", action=switch, default=False, help="keep the shape of images: resize the shorter side, then crop")
    add("--flip", action=switch, default=True, help="mirror half of the training images, at random")
    add("--max_images", type=between(1, 10**9), help="use only this many training images of each domain, evenly spaced")
    add("--range_A", action=ValueRange, help="values in the files of A that are black and white, such as 500 8000")
    add("--range_B", action=ValueRange, help="the same for B; translate.py writes values in that range")
    add("--accumulate", type=between(1, 10**6), default=1, help="number of batches to sum gradients over before a step")
    add("--checkpoint_activations", action=switch, default=False, help="save memory; a step takes a third longer")
    add("--graph", action=switch, help="replay the step as one CUDA graph (default: with one process on CUDA)")
    add("--compile", action=switch, default=False, help="torch.compile: slower to start, faster steps")
    add("--val_interval", type=between(0), default=0, help="epochs between measurements of the losses on test images; 0: none")
    add("--save_minutes", type=between(0.0), default=15.0, help="minutes between saves of latest.pth within an epoch; 0: none")
    add("--keep_checkpoints", type=between(0), default=2, help="number of checkpoint_N.pth to keep, the last ones")
    add("--options", metavar="FILE", help="start with the options in this options.json of another run")
    add("--start_from", metavar="FILE", help="begin a new run with the networks of this full checkpoint")
    add("--report", action=switch, default=False, help="at the end, write a page on the run, images/NAME/report.html")
    add("--logger", action=Words, choices=LOGGERS, metavar="NAME", help="log elsewhere too: " + ", ".join(LOGGERS))
    add("--tensorboard", action=switch, default=False, help="--logger tensorboard")
    return actions
# fmt: on


def check(opt):
    """Raises InputError for options that cannot be combined."""
    if opt.dims == 3 or opt.slices:
        from variants.volumes import check_volumes

        check_volumes(opt)
    check_image_size(opt)
    check_data(opt)
    check_networks(opt)
    check_losses(opt)
    check_schedules(opt)


def require(condition, message):
    if not condition:
        raise InputError(message)


def check_image_size(opt):
    multiple, smallest = {"unet": (2**opt.num_downs,) * 2, "multiscale": (8, 64), "pretrained": (16, 64)}.get(
        opt.generator, (4, 32)
    )
    if opt.discriminator == "multiscale":
        smallest = max(smallest, 32 * 2 ** (opt.n_scales - 1))
    for_unet = f" for --generator unet --num_downs {opt.num_downs}" if opt.generator == "unet" else ""
    scales = "; try a smaller --n_scales" if opt.discriminator == "multiscale" else ""
    for (height, width), _ in stages(opt):
        size = f"--progressive {height}" if opt.progressive else f"--img_height {height} --img_width {width}"
        wrong = not_divisible((height, width), multiple, for_unet)
        require(not wrong, f"{size}: {wrong}{'; try a smaller --num_downs' if for_unet else ''}")
        require(min(height, width) >= smallest, f"{size}: must be at least {smallest} for these networks{scales}")
    fits = not opt.load_size or opt.load_size >= min(opt.img_height, opt.img_width)
    require(fits, f"--load_size {opt.load_size}: must not be smaller than the crop")


def check_data(opt):
    for name in ("range_A", "range_B"):
        try:
            parse_range(getattr(opt, name))
        except ValueError as error:
            raise InputError(f"--{name}: {error}")


def check_networks(opt):
    has_blocks = opt.generator in ("resnet", "multiscale")
    pretrained, photos = opt.generator == "pretrained", {*channels_of(vars(opt))} <= {1, 3}
    require(
        not opt.attention or (has_blocks and opt.n_residual_blocks),
        "--attention: is inserted between residual blocks; use --generator resnet or multiscale with at least one",
    )
    require(not opt.separable or has_blocks,
            "--separable: changes residual blocks; use --generator resnet or multiscale")  # fmt: skip
    require(not (opt.dropout and pretrained), "--dropout: not available with --generator pretrained")
    n_A, n_B = channels_of(vars(opt))
    require(not (opt.antialias and pretrained), "--antialias: not available with --generator pretrained")
    require(n_A == n_B or not opt.residual, "--residual: images of A and B must have the same number of channels")
    require(opt.discriminator != "pixel" or not opt.batch_deviation,
            "--batch_deviation: not available with --discriminator pixel")  # fmt: skip
    require(opt.batch_size > 1 or not opt.batch_deviation,
            "--batch_deviation: a single image does not vary; use --batch_size 2 or more")  # fmt: skip
    require(photos or not pretrained, "--generator pretrained: takes images with 1 or 3 channels only")
    require(pretrained or not opt.encoder_weights, "--encoder_weights: needs --generator pretrained")
    require(not opt.noise_channels or opt.norm != "none",
            "--noise_channels: enters after each normalisation; use --norm instance, layer or batch")  # fmt: skip
    require(not opt.checkpoint_activations or opt.generator == "resnet",
            "--checkpoint_activations: needs --generator resnet")  # fmt: skip
    if opt.freeze_D:
        from variants.parts import check_freezing

        check_freezing(opt)
    require(not (opt.checkpoint_activations and opt.norm == "batch"),
            "--checkpoint_activations --norm batch: running statistics would count each batch twice; "
            "give only one of these")  # fmt: skip


def check_losses(opt):
    n_A, n_B = channels_of(vars(opt))
    photos = {n_A, n_B} <= {1, 3}
    require(not (opt.gan_loss == "hinge" and opt.label_smoothing), "--label_smoothing: the hinge loss has no labels")
    weights = (opt.lambda_A, opt.lambda_B)
    require(opt.lambda_cyc or weights in ((None, None), (0, 0)), "--lambda_A --lambda_B: need --lambda_cyc above 0")
    falls = opt.lambda_cyc_end is not None
    require(not falls or weights == (None, None), "--lambda_cyc_end: cannot be used with --lambda_A and --lambda_B")
    require(not falls or opt.lambda_cyc, "--lambda_cyc_end: needs --lambda_cyc above 0, with which the training starts")
    require(not (opt.lambda_gp and opt.compile),
            "--lambda_gp: differentiates twice, which --compile does not support; omit one of them")  # fmt: skip
    require(not opt.lambda_cycfeat or opt.gan_loss == "lsgan",
            "--lambda_cycfeat: takes scores from 0 to 1 as weights; needs --gan_loss lsgan")  # fmt: skip
    require(not opt.lambda_nce or opt.generator == "resnet", "--lambda_nce: needs --generator resnet")
    require(n_A == n_B or not opt.lambda_nce, "--lambda_nce: images of A and B must have the same number of channels")
    require(not (opt.lambda_nce and opt.noise_channels), "--lambda_nce --noise_channels: cannot be used together")
    require(not opt.lambda_diversity or opt.noise_channels or opt.dropout,
            "--lambda_diversity: needs --noise_channels or --dropout; without, an image has one translation")  # fmt: skip
    require(opt.lambda_paired or not opt.pairs, "--pairs: has no effect without --lambda_paired")
    require(opt.lambda_perceptual or opt.lambda_style or not opt.vgg_weights,
            "--vgg_weights: has no effect without --lambda_perceptual or --lambda_style")  # fmt: skip
    require(photos or not needs_vgg(opt), "--vgg_weights: VGG takes images with 1 or 3 channels only")


def check_schedules(opt):
    require(opt.n_critic == 1 or opt.n_gen == 1, "--n_critic --n_gen: only one of them can be greater than 1")
    require(not (opt.progressive and opt.n_iters), "--progressive: counts epochs, so it cannot be used with --n_iters")
    for name in ["tensorboard"] * opt.tensorboard + (opt.logger or "").split():
        require(name in LOGGERS, f"--logger {name}: choose from {', '.join(LOGGERS)}")
        require(importlib.util.find_spec(name), f"--logger {name}: pip install {name}; log.jsonl needs no package")
    require(not opt.ratio_A or not opt.batch_deviation,
            "--ratio_A --batch_deviation: how much a batch varies depends on its size; give only one of these")  # fmt: skip
    if opt.ratio_A:
        fewest = round(min(map(float, opt.ratio_A.split(":"))) * opt.batch_size)
        require(
            fewest >= 1,
            f"--ratio_A {opt.ratio_A}: leaves no image of A in a batch of {opt.batch_size}; raise --batch_size",
        )
        require(not opt.lambda_paired and opt.accumulate == 1,
                "--ratio_A: cannot be used with --lambda_paired or --accumulate")  # fmt: skip
