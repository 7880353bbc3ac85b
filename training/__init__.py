"""
Everything around the training step: options, processes, checkpoints, data loading, logging.

May import utils, command_line, media, models, datasets, get_data and variants. Does not import inference.
"""
