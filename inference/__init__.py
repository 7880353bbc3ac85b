"""
A finished generator, from whatever file, applied to images of any size.

May import utils, media, models, datasets and variants. Does not import training.
"""
