"""
A finished generator, and what its file says about it.
"""

import dataclasses

from torch import nn


@dataclasses.dataclass
class TrainedGenerator:
    """What `inference.load.load_generator` returns.

    network:   maps images (N, channels, H, W) in [-1, 1] to (N, out_channels, H, W); on the CPU, in float32, in eval mode
    path:      the file that it comes from
    direction: "AB", "BA", or None if the file does not say
    epoch:     number of epochs that it was trained for, or None if the file does not say
    options:   of its training, {} if the file does not say
    is_full:   whether the file is a full checkpoint, with both generators and the discriminators
    """

    network: nn.Module
    path: str
    direction: str | None = None
    epoch: int | None = None
    options: dict = dataclasses.field(default_factory=dict)
    is_full: bool = False
