"""
The student of a distillation: a small ResNet generator, and the comparison of its features with those of the teacher.
"""

import bisect
import functools

import torch
from torch import nn

from measuring.timing import costs
from models import weights_init_normal
from utils import InputError
from variants.build import make_generator
from variants.parts import residual_blocks


def make_student(teacher, options, *, n_residual_blocks=None, ngf=None, separable=False, fewer_products=20.0,
                 fewer_parameters=30.0):  # fmt: skip
    """Builds a narrow, shallow ResNet generator with new weights, whatever architecture the teacher has.

    teacher:           trained generator
    options:           Namespace of the teacher's training options; the costs are for its image size
    n_residual_blocks: by default half of the teacher's, or fewer if that allows a better width, see `choose_shape`
    ngf:               filters of the first convolution; by default as many as the next two arguments allow
    separable:         use depthwise separable residual blocks
    fewer_products:    the student needs at most 1 / fewer_products of the teacher's multiply-adds
    fewer_parameters:  the student has at most 1 / fewer_parameters of the teacher's parameters

    Returns (dict of the options that describe the student, the student). Raises InputError if even one filter exceeds
    the limits.
    """
    size = options.img_height, options.img_width
    teacher_parameters, teacher_products = costs(teacher, size)

    def describe(n_blocks, ngf):
        return dict(generator="resnet", n_residual_blocks=n_blocks, ngf=ngf, upsample=options.upsample,
                    separable=separable, attention=False, dropout=0.0, norm="instance", antialias=False, residual=False,
                    noise_channels=0)  # fmt: skip

    @functools.cache
    def costs_of(n_blocks, ngf):
        if not ngf:
            return 0, 0
        with torch.device("meta"):
            return costs(make_generator(describe(n_blocks, ngf), teacher.channels, teacher.out_channels), size)

    def fits(n_blocks, ngf):
        parameters, products = costs_of(n_blocks, ngf)
        few_parameters = teacher_parameters >= fewer_parameters * parameters
        return few_parameters and teacher_products >= fewer_products * products

    n_blocks = fewest_blocks = n_residual_blocks
    if n_blocks is None:
        n_blocks = len(residual_blocks(teacher)) // 2
        fewest_blocks = (n_blocks + 1) // 2
    if not ngf:
        n_blocks, ngf = choose_shape(costs_of, fits, range(fewest_blocks, n_blocks + 1), options.ngf)
    if not ngf:
        raise InputError(
            f"--fewer_products {fewer_products} --fewer_parameters {fewer_parameters}: no student with "
            f"{n_blocks} residual blocks is that small. Lower the limits or give --ngf"
        )
    student = describe(n_blocks, ngf)
    G = make_generator(student, teacher.channels, teacher.out_channels).apply(weights_init_normal)
    return student, G


def choose_shape(costs_of, fits, numbers_of_blocks, max_ngf):
    """Chooses the number of residual blocks and the width of a student.

    The first candidate has the largest number of blocks and is as wide as the limits allow. A shape whose width is a
    multiple of 8 is preferred, even with fewer blocks, if it has more than 75% of the candidate's parameters, because
    processors compute 8 or 16 channels at a time.

    costs_of:          function (n_blocks, ngf) to (parameters, multiply-adds)
    fits:              function (n_blocks, ngf) to True if this shape is within the limits
    numbers_of_blocks: range of allowed numbers of residual blocks
    max_ngf:           largest allowed width

    Returns (n_blocks, ngf); ngf is 0 if no width is within the limits.
    """

    def widest(n_blocks, step=1):
        widths = range(0, max_ngf + 1, step)
        return n_blocks, widths[bisect.bisect_left(widths, True, key=lambda ngf: not fits(n_blocks, ngf)) - 1]

    shape = widest(numbers_of_blocks[-1])
    multiple_of_8 = max((widest(n, step=8) for n in numbers_of_blocks), key=lambda shape: costs_of(*shape))
    return multiple_of_8 if costs_of(*multiple_of_8)[0] > 0.75 * costs_of(*shape)[0] else shape


def translate_with_features(G, x):
    """Translates images with a ResNet generator and returns its features at three depths as well.

    Returns (G(x), [features before, halfway through, and after the residual blocks]).
    """
    _, blocks, (following, *_) = G.stages
    features = {}
    hooks = [  # the inputs of each block and of the layer after them; there may be no blocks
        layer.register_forward_pre_hook(lambda layer, inputs, i=i: features.update({i: inputs[0]}))
        for i, layer in enumerate([*blocks, following])
    ]
    translated = G(x)
    for hook in hooks:
        hook.remove()
    return translated, [features[i] for i in (0, len(blocks) // 2, len(blocks))]


def width_of_blocks(G):
    """The number of channels of the residual blocks of a ResNet generator, which may have none: that of the last
    convolution before them."""
    layers = nn.Sequential(*G.stages[0]).modules()
    return [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)][-1]


def feature_loss(adapters, student_features, teacher_features):
    """Mean squared error between features of student and teacher, relative to the variance of the teacher's (FitNets,
    Romero et al., 2015, arXiv:1412.6550).

    adapters:         1x1 convolutions that map the student's channels to the teacher's, one for each depth
    student_features: list of tensors (N, C, h, w), see `translate_with_features`
    teacher_features: list of tensors of the same sizes, except for the number of channels

    Returns the mean over all depths, a scalar. It is 0 if the features are equal, and 1 if the adapted features are
    constant and equal to the teacher's mean.
    """
    pairs = [(adapter(x).float(), y.float()) for adapter, x, y in zip(adapters, student_features, teacher_features)]
    return torch.stack([(x - y).square().mean() / y.var() for x, y in pairs]).mean()
