"""
One picture through every kept checkpoint of a run, so that a person sees when it was best.
"""

import dataclasses
import os

from media.folders import evenly_spaced
from page.translate import preview, translate_file

N_SHOWN = 24  # checkpoints at most


def through_checkpoints(source, settings, translators, folder):
    """Translates a picture by the checkpoints of settings.run, the oldest first. Yields (name of the checkpoint, number of
    it, how many there are, PIL image). Raises InputError."""
    names = evenly_spaced(translators.models.kept(settings.run, settings.direction), N_SHOWN, with_last=True)
    for number, name in enumerate(names, 1):
        place = os.path.join(folder, str(number))
        os.makedirs(place)
        path, _ = translate_file(source, dataclasses.replace(settings, checkpoint=name), translators, place)
        yield name, number, len(names), preview(path)
