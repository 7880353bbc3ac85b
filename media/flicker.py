"""
The flicker of translated videos: measuring and reducing it. Requires OpenCV (pip install opencv-python-headless).
"""

import dataclasses

import numpy as np

from utils import InputError

SIGMA = 20  # gray levels; where the input changes by much more, nothing is smoothed


@dataclasses.dataclass
class Flicker:
    """Mean absolute change from one frame to the next at the same point of the scene, in gray levels (0 to 255). Motion
    is compensated; points that leave the frame do not count.

    input:  of the source, where noise and changing light count too
    before: of its translation
    after:  of its translation, smoothed
    """

    input: float
    before: float
    after: float


class Smoother:
    """Blends each translated frame with the previous result, warped by the optical flow between the input frames:

        out_t = w * warp(out_{t-1}) + (1 - w) * translated_t
        w     = strength * exp(-(|input_t - warp(input_{t-1})| / SIGMA)^2)     per pixel, 0 outside of the frame

    After Bonneel et al., "Blind Video Temporal Consistency", 2015. The weight is from Lai et al., "Learning Blind Video
    Temporal Consistency", 2018, arXiv:1808.00449.

    strength: 0 (off) to 1 (where the input does not change, neither does the output)
    """

    def __init__(self, strength):
        try:
            import cv2
        except ImportError:
            raise InputError("--smooth requires OpenCV: pip install opencv-python-headless")
        self.strength, self.gray, self.past = strength, None, None
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.changes, self.n = np.zeros(3), 0

    def smooth(self, frame, translated):
        """The next input frame and its translation, both uint8 (H, W, 3) -> the smoothed translation, the same."""
        import cv2

        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        frame, translated = frame.astype(np.float32), translated.astype(np.float32)
        out = translated
        if self.past is not None:
            height, width = gray.shape
            margins = [(0, max(0, 16 - side)) for side in gray.shape]  # OpenCV's DIS flow crashes below 16 pixels
            now, before = (np.pad(image, margins, "edge") for image in (gray, self.gray))
            flow = self.dis.calc(now, before, None)[:height, :width]  # (H, W, 2), from this frame to the previous one
            x, y = flow[..., 0] + np.arange(width, dtype=np.float32), flow[..., 1] + np.arange(height)[:, None]
            y = y.astype(np.float32)
            inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
            # cubic, because results are warped again and again, and bilinear interpolation would blur them
            past = [cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for image in self.past]

            difference = np.abs(frame - past[0]).mean(2)
            # average over neighbours and the frame, too: across a scene cut, single pixels match by chance
            local, whole = cv2.blur(difference, (5, 5)), difference.mean()
            weight = self.strength * np.exp(-(local**2 + whole**2) / SIGMA**2) * inside
            out = translated + weight[..., None] * (past[2] - translated)

            if inside.any():
                mask = inside.astype(np.uint8)
                changes = [cv2.absdiff(a, b) for a, b in zip(past, (frame, translated, out))]
                self.changes += [np.mean(cv2.mean(change, mask)[:3]) for change in changes]
                self.n += 1
        self.gray, self.past = gray, (frame, translated, out)
        return out.round().clip(0, 255).astype(np.uint8)

    def flicker(self):
        """-> Flicker of the frames so far."""
        return Flicker(*(self.changes / max(1, self.n)).tolist())
