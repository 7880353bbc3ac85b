"""
Everything that is off by default: other networks, losses, schedules, augmentations and their options.

May import utils, command_line, media, models, datasets and get_data. cyclegan.py refers to it in a few places only: where
options are declared, networks are built, the losses are chosen, and where schedules and data are made.
"""


def add_variants(parser):
    """Adds the options of all variants to an argparse parser."""
    from variants import options  # here, so that importing cyclegan stays light

    options.add_variants(parser)
