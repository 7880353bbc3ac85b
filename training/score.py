"""
The score at the end of a training whose true answers are known: the demo and the data sets that come with the project.
"""

import os

import torch

from datasets import ImageDataset, find_folder, to_float
from media.domain import Domain
from utils import evaluating
from variants.build import channels_of, dataset_options


def print_score(gan, opt, root, device):
    """Translates the test images with the generators of the sample grids, and prints how near they are to the true
    answers. Does so for the data sets alone that come with the project.

    root: folder of the data set"""
    from get_data.embedded import SETS, is_ours

    generators = gan.sample_G_AB, gan.sample_G_BA
    if opt.dataset_name == "demo" and os.path.isdir(f"{root}/test_mask") and channels_of(vars(opt)) == (3, 3):
        from get_data.demo import score

        with evaluating(*generators):
            score(*generators, root, device)
    elif opt.dataset_name == "demo_volumes" and os.path.isdir(f"{root}/test_mask"):
        from training.volumes import score_demo

        score_demo(opt, gan, root, device)
    elif opt.dataset_name in SETS and is_ours(opt.dataset_name, opt.data_dir) and os.path.isdir(f"{root}/testA"):
        from get_data.pairs import score

        pairs, colours = pairs_and_colours(opt, root)
        with evaluating(*generators):
            score(*generators, ((pair["A"], pair["B"]) for pair in pairs), colours, device)


def pairs_and_colours(opt, root):
    """-> (the test images of equal names, a dataset; {"A" and "B": (channels,), the median of the training images})"""
    size, channels, ranges = (opt.img_height, opt.img_width), channels_of(vars(opt)), dataset_options(opt)["ranges"]
    colours = {}
    for name, n, value_range in zip("AB", channels, ranges):
        domain = Domain(find_folder(root, "train", name), size, n, value_range=value_range)
        images = torch.stack([to_float(domain[i]) for i in range(len(domain))])
        colours[name] = images.transpose(0, 1).flatten(1).median(1).values
    return ImageDataset(root, "test", unaligned=False, img_size=size, channels=channels, ranges=ranges), colours
