"""
Converts videos of high dynamic range (HDR) or of a wide range of colours to what a network was trained on: SDR with the
colours of BT.709, which are those of sRGB.

References: ITU-R BT.2100 (PQ, HLG), BT.2408 (white at 203 cd/m2), BT.2390 (the tone curve), BT.1886 (SDR displays).
"""

import struct

import numpy as np

from media.colours import D65, to_xyz

# FFmpeg's constants (AVCOL_*)
PQ, HLG = 16, 18  # transfer characteristics
BT709, BT2020, DISPLAY_P3 = 1, 9, 12  # primaries
CHROMATICITIES = {  # x and y of red, green and blue; white is D65 in each
    BT709: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    BT2020: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    DISPLAY_P3: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
WHITE = 203.0  # cd/m2 of diffuse white in HDR. It becomes about 230 of 255, so that highlights can be brighter
GAMMA = 2.4  # of SDR displays
HLG_PEAK = 1000.0  # cd/m2 of the display that HLG is shown on


def needs_conversion(transfer, primaries):
    return transfer in (PQ, HLG) or primaries in (BT2020, DISPLAY_P3)


def describe(transfer, primaries):
    """-> a note on what Converter does."""
    if transfer in (PQ, HLG):
        return f"HDR ({'PQ' if transfer == PQ else 'HLG'}) was converted to SDR"
    return f"colours of {'BT.2020' if primaries == BT2020 else 'Display P3'} were converted to BT.709"


class Converter:
    """A function from uint16 RGB (H, W, 3), where 65535 is the largest signal, to 8-bit SDR RGB of BT.709.

    transfer, primaries: FFmpeg's constants. Unknown primaries of HDR are BT.2020
    peak: the largest luminance of a PQ video in cd/m2, see mastering_peak; None if unknown
    """

    def __init__(self, transfer, primaries, peak=None):
        self.is_hlg, self.is_hdr = transfer == HLG, transfer in (PQ, HLG)
        if primaries not in CHROMATICITIES:
            primaries = BT2020
        from_rgb = to_xyz(D65, CHROMATICITIES[primaries])
        self.matrix = (np.linalg.inv(to_xyz(D65, CHROMATICITIES[BT709])) @ from_rgb).astype(np.float32)
        self.luma = from_rgb[1].astype(np.float32)
        signal = np.linspace(0, 1, 65536)
        decode = {PQ: lambda x: pq_to_luminance(x) / WHITE, HLG: hlg_to_scene}.get(transfer, lambda x: x**GAMMA)
        self.table = decode(signal).astype(np.float32)  # signal -> light, linear
        peak = max(WHITE, HLG_PEAK if self.is_hlg else peak or 1000.0)
        # tables: square root of the largest channel -> factor of the tone curve; square root of light -> 8 bits
        luminance = np.maximum(np.linspace(0, 1, 65536) ** 2 * 10_000, 1e-6)
        self.gain = (tone_curve(luminance, peak, WHITE) / luminance).astype(np.float32)
        self.encode = np.rint(255 * np.linspace(0, 1, 65536) ** (2 / GAMMA)).astype(np.uint8)

    def __call__(self, pixels):
        out = np.empty(pixels.shape, np.uint8)
        for row in range(0, len(pixels), 32):  # a few rows at a time stay in the processor's cache
            out[row : row + 32] = self.convert(pixels[row : row + 32])
        return out

    def convert(self, pixels):
        light = self.table[pixels.transpose(2, 0, 1)].reshape(3, -1)
        if self.is_hlg:  # BT.2100's OOTF: gamma 1.2 on luminance, at 1000 cd/m2
            light *= (HLG_PEAK / WHITE) * np.maximum(self.luma @ light, 1e-6) ** np.float32(0.2)
        light = np.maximum(self.matrix @ light, 0)
        if self.is_hdr:
            # one factor for the three channels keeps the hue
            largest = np.sqrt(light.max(axis=0) * np.float32(WHITE / 10_000))
            light *= self.gain[to_16_bit(largest)]
        return self.encode[to_16_bit(np.sqrt(light))].reshape(3, *pixels.shape[:2]).transpose(1, 2, 0)


def to_16_bit(x):
    return (np.minimum(x, 1) * 65535 + 0.5).astype(np.uint16)


def pq_to_luminance(signal):
    """BT.2100's PQ: signal in [0, 1] -> cd/m2"""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = np.asarray(signal) ** (1 / m2)
    return 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def luminance_to_pq(luminance):
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (np.asarray(luminance) / 10_000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg_to_scene(signal):
    """BT.2100's HLG, inverse OETF: signal in [0, 1] -> light of the scene in [0, 1]"""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def tone_curve(luminance, peak, target):
    """BT.2390's EETF: compresses luminance in [0, peak] to [0, target], in cd/m2. Below a knee nothing changes: for a
    peak of 1000 and a target of 203, below 82 cd/m2. Values above `peak` become `target`."""
    top = luminance_to_pq(peak)
    x, largest = np.minimum(luminance_to_pq(luminance) / top, 1), luminance_to_pq(target) / top
    knee = 1.5 * largest - 0.5
    t = (x - knee) / max(1e-6, 1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * largest
    return pq_to_luminance(np.where(x < knee, x, spline) * top)


def mastering_peak(frame):
    """The largest luminance in cd/m2 of the display that a PQ video was made on, or None if an av.VideoFrame does not
    tell."""
    data = frame.side_data.get("MASTERING_DISPLAY_METADATA")
    if data is None or len(bytes(data)) < 88:
        return None
    # AVMasteringDisplayMetadata: 8 rationals for the colours, the smallest and the largest luminance, 2 flags
    numerator, denominator, _, has_luminance = struct.unpack("4i", bytes(data)[72:88])
    return numerator / denominator if has_luminance and denominator and numerator > 0 else None
