"""
Exponential moving averages of the generators' weights.
"""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def average_weights(averages, networks, decay, step):
    """Moves each of `averages` a little towards the network of the same name: an exponential moving average over about
    1 / (1 - decay) steps, which leaves out the to and fro of adversarial training (Yazici et al., 2019,
    arXiv:1806.04498).

    step: how many there have been; the first ones are averaged over fewer, so that what was drawn at random is soon
          forgotten"""
    move = get_ema_multi_avg_fn(min(decay, step / (step + 9)))
    for name, average in averages.items():
        move(list(average.parameters()), list(networks[name].parameters()), None)
        for mine, its in zip(average.buffers(), networks[name].buffers()):
            mine.copy_(its)
