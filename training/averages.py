"""
Exponential moving averages of the generators' weights, for --ema.
"""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def average_weights(gan, decay, step):
    """Updates the averages sample_G_AB and sample_G_BA with the weights of G_AB and G_BA, in place. Averages over about
    1 / (1 - decay) steps smooth the oscillations of adversarial training (Yazici et al., 2019, arXiv:1806.04498).

    decay: weight of the old average, from 0 to 1; smaller in early steps, which would keep the initial weights for long
    step:  number of training steps so far
    """
    update_averages = get_ema_multi_avg_fn(min(decay, step / (step + 9)))
    for average, network in ((gan.sample_G_AB, gan.G_AB), (gan.sample_G_BA, gan.G_BA)):
        update_averages(list(average.parameters()), list(network.parameters()), None)
        for average_buffer, buffer in zip(average.buffers(), network.buffers()):
            average_buffer.copy_(buffer)
