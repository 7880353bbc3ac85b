"""
The optimizer of the training step. With one process, no accumulation and no clipping it is torch.optim.Adam.
"""

import torch

from training.processes import average_over_processes


class Adam(torch.optim.Adam):
    """torch.optim.Adam that also does what would clutter a training step: it adds up the gradients of several parts of
    a batch, averages them over processes, clips them, and skips steps in which its networks are not updated.

    run: training.run.Run, for the device and whether the step is recorded as a CUDA graph

    Set by training.update.Update, with the values of a plain optimizer until then:
        n_parts, part: into how many parts a batch is cut, and the part that is being computed
        has_turn:      False: the gradients are not needed in this step (--n_critic, --n_gen)
        clip_grad:     largest norm of the gradients of each of `networks`, 0 for no limit
    """

    def __init__(self, parameters, lr, betas, run, fused=True):
        # a recorded step reads its learning rate from the device; `fused` is one kernel for all weights
        device_lr = torch.tensor(lr, device=run.device) if run.graph else lr
        fused = run.device.type in ("cpu", "cuda") if fused else None
        super().__init__(list(parameters), device_lr, betas, fused=fused, capturable=run.graph)
        self.param_groups[0]["initial_lr"] = float(device_lr)  # what LambdaLR multiplies
        self.trained = [p for p in self.parameters if p.requires_grad]  # all, except with --freeze_D
        self.n_parts, self.part, self.has_turn, self.clip_grad, self.networks = 1, 0, True, 0.0, ()

    @property
    def parameters(self):
        return self.param_groups[0]["params"]

    def zero_grad(self, set_to_none=True):
        """Resets the gradients before the first part of a batch."""
        if self.part == 0:
            super().zero_grad(set_to_none)

    def backward(self, loss):
        """loss.backward(), for the parameters of this optimizer alone: gradients flow through other networks, but are
        not computed for their weights."""
        if self.has_turn:
            (loss / self.n_parts).backward(inputs=self.trained)

    def step(self, closure=None):
        """Updates the weights after the last part of a batch."""
        if not self.has_turn or self.part < self.n_parts - 1:
            return None
        average_over_processes([p.grad for p in self.parameters if p.grad is not None])
        if self.clip_grad:
            for network in self.networks:
                torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip_grad)
        return super().step(closure)
