"""
What surrounds a training: options, processes, checkpoints, the loader, the log.

May import utils, media, models, datasets, get_data and variants. Does not import inference.
"""
