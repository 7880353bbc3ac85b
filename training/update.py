"""
Calls the training step for each batch, and does what surrounds it: accumulation, pools, averages, CUDA graphs.
"""

import torch


class Update:
    """`losses = update(real_A, real_B)` calls `train_step` once, or for each part of the batch with --accumulate, and
    counts the step. The random draws of the pools are made ahead, so that on CUDA the whole step can be recorded and
    replayed as one CUDA graph.

    train_step: function (gan, opt, *tensors) -> {name: loss}, scalars
    gan:        has networks(), optimizers() and buffers(), each a dict by name
    """

    def __init__(self, train_step, gan, opt, run):
        self.train_step, self.gan, self.opt, self.run = train_step, gan, opt, run
        self.shapes, self.step, self.falling_weight = None, None, None
        if getattr(opt, "lambda_cyc_end", None) is not None:
            from variants.regularisation import FallingWeight

            self.falling_weight = FallingWeight(opt, run)
        for optimizer in gan.optimizers().values():
            mine = set(map(id, optimizer.parameters))
            optimizer.networks = [n for n in gan.networks().values() if mine & set(map(id, n.parameters()))]
            optimizer.n_parts, optimizer.clip_grad = opt.accumulate, opt.clip_grad

    def __call__(self, *tensors):
        """tensors: of the batch, on the device -> the losses, a tensor in the order of run.loss_names"""
        shapes = [tensor.shape for tensor in tensors]
        if shapes != self.shapes:  # the first batch, or another image size: a recording fits one size only
            self.shapes, self.step = shapes, self.in_parts
            if self.run.graph:
                from training.cuda_graph import recorded

                self.step = recorded(self.in_parts, self.run.say)
        for buffer, images in zip(self.gan.buffers().values(), reversed(tensors[:2])):  # fake A is made from real B
            buffer.prepare(len(images), self.run.device)
        for name, optimizer in self.gan.optimizers().items():
            every = self.opt.n_critic if name == "optimizer_G" else self.opt.n_gen
            optimizer.has_turn = self.run.step % every == 0
        if self.falling_weight:
            self.falling_weight.update()
        losses = self.step(*tensors)
        self.run.step += 1
        if self.opt.ema:
            from training.averages import average_weights

            average_weights(self.gan, self.opt.ema, self.run.step)
        return losses

    def in_parts(self, *tensors):
        """The training step on each part of the batch -> the mean losses"""
        n, losses = self.opt.accumulate, []
        opt = self.falling_weight.opt if self.falling_weight else self.opt
        for part, images in enumerate(zip(*(tensor.chunk(n) for tensor in tensors))):
            for optimizer in self.gan.optimizers().values():
                optimizer.part = part
            losses.append(self.train_step(self.gan, opt, *images))
        self.run.loss_names = tuple(losses[0])
        return torch.stack([torch.stack([*part.values()]).detach() for part in losses]).mean(0)
