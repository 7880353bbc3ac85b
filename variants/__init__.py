"""
Everything that is off by default: other networks, losses, schedules, augmentations and their options.

May import utils, media, models, datasets and get_data. cyclegan.py refers to it in a few named places only.
"""
