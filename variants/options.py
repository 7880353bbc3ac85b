"""
The options that the paper does not need: other networks, losses, schedules and data. And how those of the command line,
of a checkpoint and of the demo come together. The ones that everybody needs stand in cyclegan.py.

All of these are off by default, and cost nothing then. docs/variants.md shows what each does.
"""

import argparse
import importlib.util

from utils import InputError, between
from variants.build import channels_of
from variants.losses import EXTRA_LOSSES, needs_vgg
from variants.schedules import stages


def add_variants(parser):
    """All of them are off by default."""
    switch = argparse.BooleanOptionalAction
    # fmt: off
    add = parser.add_argument_group("other networks").add_argument
    add("--generator", default="resnet", choices=("resnet", "unet", "multiscale", "pretrained"),
        help="docs/variants.md tells what each one is for (%(default)s)")
    add("--num_downs", type=between(3, 14), default=8, help="unet: how often the size is halved (%(default)s)")
    add("--encoder_weights", help="pretrained: file of torchvision's resnet18 weights, where there is no network")
    add("--norm", default="instance", choices=("instance", "batch", "none"), help="in all networks (%(default)s)")
    add("--attention", action=switch, default=False, help="self-attention in the middle of the generators")
    add("--separable", action=switch, default=False, help="depthwise separable: a ninth of the residual blocks' work")
    add("--dropout", type=between(0.0, 0.99), nargs="?", const=0.5, default=0.0, help="in the generators; alone 0.5")
    add("--discriminator", default="patch", choices=("patch", "multiscale", "pixel"), help="see there (%(default)s)")
    add("--n_scales", type=between(1, 8), default=3, help="multiscale: discriminators, at halved sizes (%(default)s)")
    add("--spectral_norm", action=switch, default=False, help="discriminators whose scores cannot become steep")
    add("--channels_A", type=between(1, 4096), help="of domain A: any number, as TIFF or .npy (--channels)")
    add("--channels_B", type=between(1, 4096), help="of domain B (--channels)")
    add = parser.add_argument_group("other losses; a weight of 0, the default, is without").add_argument
    add("--gan_loss", default="lsgan", choices=("lsgan", "vanilla", "hinge"), help="see there (%(default)s)")
    add("--label_smoothing", type=between(0.0, 0.5), default=0.0, help="D wants 1 less this of real ones (%(default)s)")
    add("--lambda_ssim", type=between(0.0), default=0.0, help="1 - SSIM of there and back: keeps structure")
    add("--lambda_freq", type=between(0.0), default=0.0, help="frequencies of there and back: keeps sharpness")
    add("--lambda_perceptual", type=between(0.0), default=0.0, help="VGG features of there and back: keeps objects")
    add("--lambda_style", type=between(0.0), default=0.0, help="Gram matrices of D's features: textures of the target")
    add("--lambda_feat", type=between(0.0), default=0.0, help="means of D's features: a steadier aim than D's scores")
    add("--lambda_paired", type=between(0.0), default=0.0, help="L1 to the counterpart, for files that have one")
    add("--pairs", help="paired: list of 'file of A<tab>file of B' (files of the same stem)")
    add("--vgg_weights", help="file of torchvision's vgg16 weights, for perceptual, and for style instead of D")
    add = parser.add_argument_group("other ways to train").add_argument
    add("--n_iters", type=between(1, 10**12), help="steps in all, instead of --n_epochs")
    add("--lr_schedule", default="linear", choices=("linear", "cosine", "step"), help="from decay_epoch (%(default)s)")
    add("--lr_G", type=between(0.0), help="learning rate of the generators (--lr)")
    add("--lr_D", type=between(0.0), help="learning rate of the discriminators (--lr)")
    add("--n_critic", type=between(1, 1000), default=1, help="steps of D for one of G (%(default)s)")
    add("--n_gen", type=between(1, 1000), default=1, help="steps of G for one of D (%(default)s)")
    add("--clip_grad", type=between(0.0), default=0.0, help="largest norm of gradients, 0 for any (%(default)s)")
    add("--ema", type=between(0.0, 0.999999), nargs="?", const=0.999, default=0.0,
        help="average the generators' weights, for samples and translation; alone 0.999")
    add("--progressive", type=sizes_by_epoch, help="sizes: 128:50,256:150 is 50 epochs at 128 pixels, then 150 at 256")
    add("--ratio_A", type=ratio_by_epoch, help="images of A for one of B in a batch: 0.5, or 0.5:1 from first to last")
    add("--color_jitter", type=between(0.0, 1.0), nargs="?", const=0.2, default=0.0, help="of training images (0.2)")
    add("--rotate", type=between(0.0, 180.0), nargs="?", const=10.0, default=0.0, help="by up to so many degrees (10)")
    add("--diffaugment", action=switch, default=False, help="for small sets: D sees all images changed at random")
    add = parser.add_argument_group("memory, speed and odd data").add_argument
    add("--cache", action=switch, help="keep decoded images in memory (if they fit into 4 GiB)")
    add("--n_cpu", type=between(0), help="processes that load images (0 if cached, else 1, or 8 beside a GPU)")
    add("--skip_bad_images", action=switch, default=False, help="go on without unusable images (%(default)s)")
    add("--enlarge", action=switch, default=False, help="accept images smaller than the crop (%(default)s)")
    add("--accumulate", type=between(1, 10**6), default=1, help="batches whose gradients make one step (%(default)s)")
    add("--checkpoint_activations", action=switch, default=False, help="less memory, a third more time (%(default)s)")
    add("--graph", action=switch, help="replay the step as one CUDA graph (with one process on CUDA)")
    add("--compile", action=switch, default=False, help="torch.compile: slow to start, then faster (%(default)s)")
    add = parser.add_argument_group("seeing more").add_argument
    add("--val_interval", type=between(0), default=0, help="epochs between test losses, 0: never (%(default)s)")
    add("--tensorboard", action=switch, default=False, help="log for TensorBoard, too: pip install tensorboard")
    # fmt: on


def sizes_by_epoch(text):
    """'128:50,256:150' -> as it is, checked; read by stages()"""
    for stage in text.split(","):
        size, _, epochs = stage.partition(":")
        if not (size.isdecimal() and epochs.isdecimal() and int(size) >= 32 and int(epochs) >= 1):
            raise argparse.ArgumentTypeError(f"{text}: not SIZE:EPOCHS,SIZE:EPOCHS …, such as 128:50,256:150")
    return text


def ratio_by_epoch(text):
    """'0.5' or '0.5:1' -> as it is, checked; read by count_A()"""
    try:
        if 1 <= len([between(0.01, 100.0)(value) for value in text.split(":")]) <= 2:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text}: neither a number from 0.01 to 100, nor two such as 0.5:1")


def check(opt):
    """Raises InputError for options that do not go together."""
    multiple, smallest = 4, 32
    if opt.generator == "unet":
        multiple = smallest = 2**opt.num_downs
    elif opt.generator != "resnet":
        multiple, smallest = {"multiscale": (8, 64), "pretrained": (16, 64)}[opt.generator]
    if opt.discriminator == "multiscale":
        smallest = max(smallest, 32 * 2 ** (opt.n_scales - 1))
    for (height, width), _ in stages(opt):
        size = f"--img_height {height} --img_width {width}" if not opt.progressive else f"--progressive {height}"
        if height % multiple or width % multiple:
            unet = f" for --generator unet --num_downs {opt.num_downs}; a smaller --num_downs may do"
            way_out = unet if opt.generator == "unet" else ""
            raise InputError(f"{size}: must be divisible by {multiple}{way_out}")
        if min(height, width) < smallest:
            hint = "; a smaller --n_scales may do" if opt.discriminator == "multiscale" else ""
            raise InputError(f"{size}: must be at least {smallest} for these networks{hint}")
    if opt.load_size and opt.load_size < min(opt.img_height, opt.img_width):
        raise InputError(f"--load_size {opt.load_size}: must not be smaller than the crop")

    has_blocks = opt.generator in ("resnet", "multiscale")
    # fmt: off
    wrong = {
        "--attention: stands between residual blocks, so it needs some, and --generator resnet or multiscale":
            opt.attention and not (has_blocks and opt.n_residual_blocks),
        "--separable: is made for residual blocks, so it needs --generator resnet or multiscale":
            opt.separable and not has_blocks,
        "--dropout: not in --generator pretrained": opt.dropout and opt.generator == "pretrained",
        "--generator pretrained: knows pictures of 1 or 3 channels only":
            opt.generator == "pretrained" and not {*channels_of(vars(opt))} <= {1, 3},
        "--encoder_weights: is for --generator pretrained": opt.encoder_weights and opt.generator != "pretrained",
        "--checkpoint_activations: only with --generator resnet":
            opt.checkpoint_activations and opt.generator != "resnet",
        "--checkpoint_activations --norm batch: running statistics would count each batch twice. Choose one":
            opt.checkpoint_activations and opt.norm == "batch",
        "--label_smoothing: hinge loss has no labels": opt.gan_loss == "hinge" and opt.label_smoothing,
        "--pairs: without --lambda_paired it does nothing": opt.pairs and not opt.lambda_paired,
        "--vgg_weights: without --lambda_perceptual or --lambda_style it does nothing":
            opt.vgg_weights and not (opt.lambda_perceptual or opt.lambda_style),
        "--vgg_weights: VGG knows pictures of 1 or 3 channels only":
            needs_vgg(opt) and not {*channels_of(vars(opt))} <= {1, 3},
        "--n_critic --n_gen: only one of them can be more than 1": opt.n_critic > 1 and opt.n_gen > 1,
        "--progressive: counts epochs, so not together with --n_iters": opt.progressive and opt.n_iters,
        "--tensorboard: pip install tensorboard; log.jsonl and plot.py do without":
            opt.tensorboard and importlib.util.find_spec("tensorboard") is None,
        f"--ratio_A {opt.ratio_A}: would leave no image of A in a batch of {opt.batch_size}. Raise --batch_size":
            opt.ratio_A and round(min(map(float, opt.ratio_A.split(":"))) * opt.batch_size) < 1,
        "--ratio_A: not together with --lambda_paired or --accumulate":
            opt.ratio_A and (opt.lambda_paired or opt.accumulate > 1),
    }
    # fmt: on
    for message, holds in wrong.items():
        if holds:
            raise InputError(message)


def loss_names(opt):
    """What is logged of a step, in the order of train_step's result."""
    extra = [f"loss_{name}" for name in EXTRA_LOSSES if getattr(opt, "lambda_" + name) > 0]
    return ("loss_D", "loss_G", "loss_GAN", "loss_cycle", "loss_identity", *extra)
