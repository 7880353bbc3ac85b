"""
What a generator sees.
"""

import torch

from utils import as_rgb


@torch.no_grad()
def feature_maps(G, x):
    """What each stage of a generator sees in one picture x, (1, channels, H, W) in [-1, 1] -> list of (name, uint8
    (H, W) or (H, W, channels)): for each stage, by its name in the paper (section 7.2), the mean over its channels of
    the absolute activations, black where it is smallest, white where it is largest."""
    encoder, blocks, decoder = G.stages
    ends = [layer for layer in encoder + decoder if isinstance(layer, torch.nn.ReLU)]
    names = [*zip(ends, ("c7s1-", "d", "d", "u", "u")), *((block, f"{i}. R") for i, block in enumerate(blocks, 1))]
    seen = []

    def look(name):
        def hook(layer, input, output):
            mean = output[0].float().abs().mean(0)
            mean = (mean - mean.min()) / (mean.max() - mean.min()).clamp(min=1e-12)
            channels, height, width = output.shape[1:]
            seen.append((f"{name}{channels}: {width} x {height}", (mean * 255).byte().cpu().numpy()))

        return hook

    hooks = [layer.register_forward_hook(look(name)) for layer, name in names]
    output = G(x)
    for hook in hooks:
        hook.remove()
    ends = [
        ((as_rgb(values)[0].float() + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        for values in (x, output)
    ]
    return [("input", ends[0]), *seen, ("output", ends[1])]
