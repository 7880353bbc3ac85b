"""
A trained generator, together with what its file says about it.
"""

import dataclasses

from torch import nn


@dataclasses.dataclass
class TrainedGenerator:
    """A generator loaded from a file, see inference.load.load_generator.

    network:   maps images (N, channels, H, W) in [-1, 1] to (N, out_channels, H, W). On the CPU, in float32, in eval
               mode. Its attribute `multiple` must divide H and W, and neither may be less than `smallest`
    path:      the file
    direction: "AB", "BA", or None if unknown
    epoch:     number of epochs that it was trained for, or None if unknown
    options:   options of its training. {} if unknown; an exported file knows dataset_name, img_height, img_width and
               keep_aspect
    is_full:   True if the file holds both generators: a full checkpoint, or a file of safetensors with both
    provenance: what the checkpoint says of its making, see training/provenance.py. {} if unknown
    step:      number of updates that it was trained for, or None if unknown
    """

    network: nn.Module
    path: str
    direction: str | None = None
    epoch: int | None = None
    options: dict = dataclasses.field(default_factory=dict)
    is_full: bool = False
    provenance: dict = dataclasses.field(default_factory=dict)
    step: int | None = None
