"""
What the decoders of arrays.py and tiff.py return.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Decoded:
    """An image as its file holds it.

    values:      as stored: (H, W), (H, W, channels) or (channels, H, W)
    has_alpha:   whether the last channel is transparency; "premultiplied" if colours were multiplied by it
    orientation: as in EXIF, 1 to 8
    info:        as in arrays.Array
    colours:     function that converts them to sRGB, without a profile, see colours.described_colours
    top:         the largest value that an integer may have, such as 4095; None if it is that of its type
    inverted:    whether 1 is black, of floats
    """

    values: np.ndarray
    has_alpha: bool | str = False
    orientation: int = 1
    info: dict = dataclasses.field(default_factory=dict)
    colours: Callable | None = None
    top: int | None = None
    inverted: bool = False
