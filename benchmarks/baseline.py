"""
Training steps of other projects, to compare this one with: PyTorch-GAN's CycleGAN and the authors' code.
"""

import functools
import importlib.util
import inspect
import os
import sys
import types

import torch

from measuring.timing import noise
from utils import InputError, ReplayBuffer


@functools.cache
def load_baseline(folder):
    """Imports the networks of another project, with that project's defaults.

    folder: PyTorch-GAN's implementations/cyclegan, a checkout of the authors' pytorch-CycleGAN-and-pix2pix, or another
            version of this project

    Returns two functions, make_G(size) and make_D(size), which build a network for images of size x size pixels. Raises
    InputError if the folder contains none of these projects or cannot be imported.
    """

    def load(*names):
        try:
            return import_file(folder, *names)
        except Exception as error:  # another project's code may raise anything
            path = os.path.join(folder, *names)
            raise InputError(f"--baseline {folder}: {path} cannot be imported ({type(error).__name__}: {error})")

    if os.path.exists(os.path.join(folder, "models", "networks.py")):  # the authors' code
        networks = load("models", "networks.py")
        norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return (
            lambda size: networks.ResnetGenerator(3, 3, 64, norm_layer=norm, n_blocks=9),
            lambda size: networks.NLayerDiscriminator(3, 64, 3, norm_layer=norm),
        )
    if not os.path.exists(os.path.join(folder, "models.py")):
        raise InputError(
            f"--baseline {folder}: contains neither models.py (PyTorch-GAN) nor models/networks.py (the authors)"
        )
    models = load("models.py")
    if not (hasattr(models, "GeneratorResNet") and hasattr(models, "Discriminator")):
        raise InputError(f"--baseline {folder}: models.py has no GeneratorResNet or no Discriminator")
    if "input_shape" in inspect.signature(models.GeneratorResNet).parameters:  # PyTorch-GAN
        return (
            lambda size: models.GeneratorResNet((3, size, size), 9),
            lambda size: models.Discriminator((3, size, size)),
        )
    return lambda size: models.GeneratorResNet(), lambda size: models.Discriminator()  # this project


def import_file(folder, *names):
    """Imports the file FOLDER/NAME/... of another project, with its relative imports and those of its own packages, and
    leaves this project's modules of the same names as they are -> module. The __init__.py of its packages do not run."""
    theirs = {entry.name.removesuffix(".py") for entry in os.scandir(folder)}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in theirs}
    packages = {"baseline": folder}
    if len(names) == 2:
        packages |= dict.fromkeys((names[0], f"baseline.{names[0]}"), os.path.join(folder, names[0]))
    for name, path in packages.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    name = ".".join(["baseline", *names]).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, *names))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] in theirs]:
            del sys.modules[name]
        sys.modules.update(hidden)
    return module


def baseline_step(make_G, make_D, device, size, batch_size):
    """Returns a function that runs one training step as those projects do, on random images, and returns its losses.

    Differences from cyclegan.py: everything is float32, every loss has a forward pass of its own, the generators' step
    also computes gradients of the discriminators, and each step creates the labels and reads the losses.

    make_G, make_D: see `load_baseline`
    size:           height and width of the images
    batch_size:     images per domain
    """
    G_AB, G_BA, D_A, D_B = (make(size).to(device) for make in (make_G, make_G, make_D, make_D))
    adam = functools.partial(torch.optim.Adam, lr=0.0002, betas=(0.5, 0.999))
    optimizer_G = adam([*G_AB.parameters(), *G_BA.parameters()])
    optimizers_D = adam(D_A.parameters()), adam(D_B.parameters())
    buffers = ReplayBuffer(50, 0), ReplayBuffer(50, 1)
    mse, l1 = torch.nn.MSELoss(), torch.nn.L1Loss()
    real_A, real_B = noise(batch_size, size, device, 0), noise(batch_size, size, device, 1)

    def criterion_GAN(scores, label):
        return mse(scores, torch.full(scores.shape, label).to(device))

    def step():
        optimizer_G.zero_grad()
        loss_identity = (l1(G_BA(real_A), real_A) + l1(G_AB(real_B), real_B)) / 2
        fake_B, fake_A = G_AB(real_A), G_BA(real_B)
        loss_GAN = (criterion_GAN(D_B(fake_B), 1.0) + criterion_GAN(D_A(fake_A), 1.0)) / 2
        loss_cycle = (l1(G_BA(fake_B), real_A) + l1(G_AB(fake_A), real_B)) / 2
        loss_G = loss_GAN + 10 * loss_cycle + 5 * loss_identity
        loss_G.backward()
        optimizer_G.step()
        losses = [loss_G, loss_GAN, loss_cycle, loss_identity]
        for D, optimizer, buffer, real, fake in zip(
            (D_A, D_B), optimizers_D, buffers, (real_A, real_B), (fake_A, fake_B)
        ):
            optimizer.zero_grad()
            losses.append((criterion_GAN(D(real), 1.0) + criterion_GAN(D(buffer.push_and_pop(fake)), 0.0)) / 2)
            losses[-1].backward()
            optimizer.step()
        return [loss.item() for loss in losses]

    return step
