"""
Feature maps: what each stage of a generator responds to.
"""

import torch

from utils import as_rgb


@torch.no_grad()
def feature_maps(G, x):
    """Translates one image and records each stage of a GeneratorResNet.

    x: (1, channels, H, W) in [-1, 1]
    -> list of (caption, uint8 array): first the input (H, W, 3), then each stage (h, w), last the output (H, W, 3).
       Stages are named as in the paper (section 7.2). Their values are means over channels of absolute activations,
       scaled so that the smallest is 0 and the largest 255
    """
    encoder, blocks, decoder = G.stages
    relus = [layer for layer in encoder + decoder if isinstance(layer, torch.nn.ReLU)]
    names = [*zip(relus, ("c7s1-", "d", "d", "u", "u")), *((block, f"{i}. R") for i, block in enumerate(blocks, 1))]
    maps = []

    def record(name):
        def hook(layer, input, output):
            mean = output[0].float().abs().mean(0)
            mean = (mean - mean.min()) / (mean.max() - mean.min()).clamp(min=1e-12)
            channels, height, width = output.shape[1:]
            maps.append((f"{name}{channels}: {width} x {height}", (mean * 255).byte().cpu().numpy()))

        return hook

    hooks = [layer.register_forward_hook(record(name)) for layer, name in names]
    output = G(x)
    for hook in hooks:
        hook.remove()
    before, after = (
        ((as_rgb(values)[0].float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        for values in (x, output)
    )
    return [("input", before), *maps, ("output", after)]
