"""
Translator: trained generators as a function from pixels to pixels, for images of any size.
"""

import copy

import numpy as np
import torch
from torch import nn

from inference.bands import goes_in_bands, translate_in_bands
from inference.exported import Exported
from inference.samples import dropouts, translate_sample
from utils import InputError, bfloat16_pays


def pad_to_multiple(x, multiple, smallest, dims=(2, 3)):
    """Enlarges images to a size that a generator accepts, by reflection at the bottom and on the right. Unlike
    torch.nn.functional.pad, reflects more than once if an image is smaller than its padding.

    x:        (N, channels, H, W), of any dtype
    multiple: the sides of the result are divisible by it, see TrainedGenerator
    smallest: the sides of the result are at least this long
    dims:     the dimensions of height and width, if not the last two
    """
    for dim in dims:
        length = x.shape[dim]
        enlarged = max(smallest, -(-length // multiple) * multiple)
        if enlarged > length:
            period = max(1, 2 * (length - 1))  # 0 1 2 1 | 0 1 2 1 | 0 ... for a length of 3
            index = torch.arange(enlarged, device=x.device) % period
            x = x.index_select(dim, torch.minimum(index, period - index))
    return x


class Translator:
    """Translates arrays of pixels with one generator, or with a mixture of two.

    generators: networks, as loaded by inference.load.load_generator
    device:     torch.device to translate on
    amp:        True for bfloat16, False for float32. None for bfloat16 where the device supports it, but float32 for
                images of more than 8 bits, of which bfloat16 would lose the lowest. Exported generators ignore it
    mix:        with two generators, the share of the second one in the result, 0 to 1
    strength:   0 returns the input, 1 the translation
    tile:       images of more than tile^2 pixels, or volumes of so many voxels, are translated in bands (bands.py), which
                takes less memory
    batch_size: number of images per batch, fewer if they are large. None for 16 on a GPU and 1 on a CPU
    compile:    use torch.compile

    Attributes:
    channels, out_channels: number of channels of input and result
    precision: "float32" or "bfloat16", or "" if exported files decide
    ranges:    (value_range of the input, of the result), see inference.ranges; (None, None) for usual images
    sample:    the inference.samples.Sample to translate, None for the one translation of a network in eval mode

    Raises InputError if the options do not fit together.
    """

    def __init__(
        self,
        generators,
        device,
        *,
        amp=None,
        mix=None,
        strength=1.0,
        tile=2048,
        batch_size=None,
        compile=False,
    ):
        check_generators(generators, mix, compile)
        self.device, self.shares = device, [1.0] if mix is None else [1 - mix, mix]
        self.amp = bfloat16_pays(device) if amp is None else amp
        self.amp_if_deep = bool(amp)
        self.precision = "bfloat16" if self.amp else "float32"
        if all(isinstance(G, Exported) for G in generators):
            self.precision = ""
        self.generators, self.compile, self.prepared = [G.to(device) for G in generators], compile, {}
        self.strength, self.tile, self.in_bands, self.sample = strength, tile, {}, None
        self.batch_size = batch_size or (1 if device.type == "cpu" else 16)
        self.channels, self.out_channels = generators[0].channels, generators[0].out_channels
        self.ranges = tuple(getattr(generators[0], "ranges", (None, None)))
        if strength < 1:
            self.check_blending()
        self.multiple = max(G.multiple for G in generators)
        self.smallest = max(G.smallest for G in generators)

    def generators_for(self, pixels):
        """-> (generators, dtype of their input) for an array of pixels"""
        amp = self.amp if pixels.dtype == np.uint8 else self.amp_if_deep
        if amp not in self.prepared:
            # bfloat16 weights give the same result as autocast, which would convert them again for each batch
            generators = self.generators
            if amp:
                generators = [G if isinstance(G, Exported) else copy.deepcopy(G).bfloat16() for G in generators]
            self.prepared[amp] = generators
            for G in self.prepared[amp] if self.compile else ():
                # on a GPU, CUDA graphs launch all kernels at once, so that it does not wait for Python
                G.compile(mode="reduce-overhead" if self.device.type == "cuda" else None)
        return self.prepared[amp], torch.bfloat16 if amp else torch.float32

    def check_blending(self):
        """Raises InputError unless translations can be blended with their inputs, as masks and strength do."""
        n_in, n_out = self.channels, self.out_channels
        if n_in != n_out:
            raise InputError(f"--mask, --strength: {n_in} channels become {n_out}, which cannot be blended")

    def check_size(self, height, width, name="image"):
        """Raises InputError, naming the image, if a generator is an exported file for images of another size."""
        for G in self.generators:
            if isinstance(G, Exported):
                G.check_size(height, width, name)

    def batch_for(self, height, width):
        """The number of images of this size to translate at once."""
        return max(1, min(self.batch_size, self.tile**2 // (height * width)))

    def __call__(self, pixels, masks=None):
        """Translates images of one size, in as many batches as needed.

        pixels: uint8 or uint16 (N, H, W, channels), of any H and W
        masks:  uint8 (N, H, W); 255 translates, 0 keeps the input. None translates everything
        -> (N, H, W, out_channels), of the same dtype
        """
        self.check_size(*pixels.shape[1:3])
        if masks is not None:
            self.check_blending()
        n = self.batch_for(*pixels.shape[1:3])
        batches = [slice(i, i + n) for i in range(0, len(pixels), n)]
        return np.concatenate(
            [self.translate_batch(pixels[batch], masks if masks is None else masks[batch]) for batch in batches]
        )

    def to_input(self, pixels):
        """Pixels as in __call__ -> float32 (N, channels, height, width) in [-1, 1] on the device, padded to a size that
        the generators accept."""
        middle = np.iinfo(pixels.dtype).max / 2
        pixels = pixels.astype(np.uint8 if pixels.dtype == np.uint8 else np.int32, order="C")
        x = pad_to_multiple(torch.from_numpy(pixels).to(self.device), self.multiple, self.smallest, dims=(1, 2))
        return x.permute(0, 3, 1, 2).float() / middle - 1

    @torch.no_grad()
    def translate_batch(self, pixels, masks):
        """As __call__, in a single batch."""
        height, width = pixels.shape[1:3]
        middle = np.iinfo(pixels.dtype).max / 2
        x = self.to_input(pixels)
        generators, dtype = self.generators_for(pixels)
        low = x.to(dtype)
        fake = sum(
            share * self.generate(G, x if isinstance(G, Exported) else low).float()
            for share, G in zip(self.shares, generators)
        )
        if masks is not None:
            masks = torch.from_numpy(masks).to(self.device)[:, None].float() / 255
            masks = torch.nn.functional.pad(masks, (0, x.shape[3] - width, 0, x.shape[2] - height))
        if masks is not None or self.strength < 1:
            fake = torch.lerp(x, fake, self.strength * (1 if masks is None else masks))
        fake = ((fake + 1) * middle).round().clamp(0, 2 * middle)[:, :, :height, :width].permute(0, 2, 3, 1)
        return fake.to(torch.uint8 if pixels.dtype == np.uint8 else torch.int32).cpu().numpy().astype(pixels.dtype)

    def generate(self, G, x):
        if self.sample is None or isinstance(G, Exported):
            return self.generate_one(G, x)
        # not in bands with dropout: they overlap, and would have other masks where they do
        return translate_sample(G, x, self.sample, nn.Module.__call__ if dropouts(G) else self.generate_one)

    def generate_one(self, G, x):
        if x.shape[2:].numel() <= self.tile**2:
            return G(x)
        if G not in self.in_bands:
            self.in_bands[G] = goes_in_bands(G)
        return translate_in_bands(G, x, self.tile**2) if self.in_bands[G] else G(x)


def check_count(checkpoints, mix):
    """Raises InputError unless there is one checkpoint, or two with a value for `mix`."""
    if len(checkpoints) != (1 if mix is None else 2):
        raise InputError("--mix requires two checkpoints: --checkpoint A.pth B.pth --mix 0.3. Otherwise give one")


def check_generators(generators, mix, compile):
    """Raises InputError if Translator cannot use these generators together, or cannot compile them."""
    check_count(generators, mix)
    if len({(G.channels, G.out_channels) for G in generators}) > 1:
        raise InputError("--mix: the two generators are for different numbers of channels")
    if any(getattr(G, "ranges", None) != getattr(generators[0], "ranges", None) for G in generators):
        raise InputError("--mix: the two generators are for different ranges of values (--range_A, --range_B)")
    for size, path in [(G.size, G.path) for G in generators if isinstance(G, Exported) and G.size]:
        if not all(accepts(G, *size) for G in generators):
            raise InputError("--mix: {2} takes only {1}x{0} pixels, the other generator does not".format(*size, path))
    for G in generators:
        if compile and isinstance(G, Exported):
            raise InputError(f"--compile: {G.path} is an exported file, which cannot be compiled")


def accepts(G, height, width):
    """Whether a generator takes images of this size as they are."""
    if isinstance(G, Exported) and G.size:
        return G.size == (height, width)
    return not (height % G.multiple or width % G.multiple or min(height, width) < G.smallest)
