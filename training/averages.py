"""
Exponential moving averages of the generators' weights, for --ema.
"""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def average_weights(gan, decay, step):
    """Moves sample_G_AB and sample_G_BA a little towards G_AB and G_BA: an average over about 1 / (1 - decay) steps, which
    smooths the oscillations of adversarial training (Yazici et al., 2019, arXiv:1806.04498).

    step: number of steps so far. Early averages are over fewer steps, so that the initial weights are soon forgotten
    """
    move = get_ema_multi_avg_fn(min(decay, step / (step + 9)))
    for average, network in ((gan.sample_G_AB, gan.G_AB), (gan.sample_G_BA, gan.G_BA)):
        move(list(average.parameters()), list(network.parameters()), None)
        for mine, its in zip(average.buffers(), network.buffers()):
            mine.copy_(its)
