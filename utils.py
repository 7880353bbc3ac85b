"""
What a training run needs around the mathematics: the pool of past translations, the learning rate's decay, sample
grids, and several processes that act as one. Each part can be used alone.
"""

import argparse
import contextlib
import math
import os
import sys
import traceback

import torch
import torch.distributed as dist
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid


class InputError(ValueError):
    """The user's input cannot be used. The message is one line that names the file or the flag, and the way out."""


class DivergedError(RuntimeError):
    """The training produced numbers that are not finite. The message is one line too."""


def run(main):
    """Runs a script's `main` as a command: an error that the user can mend is one line and exit status 1."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a file may have a name that cannot be printed
    try:
        status = main()
        if dist.is_initialized():
            dist.destroy_process_group()
        sys.exit(status)
    except KeyboardInterrupt:  # before the training started; after that, StopSignal takes care
        sys.exit(130)
    except (InputError, DivergedError) as error:
        # one that comes from a worker process of the data loader carries that one's traceback before it
        message = str(error).rsplit("utils.InputError: ", 1)[-1].strip()
        traceback.clear_frames(error.__traceback__)  # lets go of the data loader, which then dismisses its workers
    except OSError as error:  # a full disk, no permission, a file where a folder should be
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (RuntimeError, MemoryError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # there is no C++ compiler, say
            message = f"--compile: does not work here ({str(error).splitlines()[0]}). Leave it out"
        elif out_of_memory(error):
            message = (
                "out of memory. Try a smaller --batch_size, or smaller images; in training, also --accumulate, "
                "--checkpoint_activations, --ngf or --no-cache"
            )
        else:
            raise
    sys.exit("error: " + message.replace("\n", "\\n"))


@contextlib.contextmanager
def whole_file(path):
    """A temporary name to write to in a `with` block; afterwards it is renamed to `path`, so whoever looks at `path`
    sees the old file or the whole new one. After an error nothing is left."""
    temporary = path + ".tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def out_of_memory(error):
    """Whether a RuntimeError or MemoryError says so; torch has several ways."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in str(error)


class HelpFormatter(argparse.MetavarTypeHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """argparse's: "--lr float  learning rate (default: 0.0002)". Defaults of None and False are not worth a word."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action):
        is_plain = action.default is None or action.default is False
        return action.help if is_plain else super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action):
        return super()._get_default_metavar_for_optional(action) if action.type else action.dest.upper()

    def _get_default_metavar_for_positional(self, action):
        return super()._get_default_metavar_for_positional(action) if action.type else action.dest


def argument_parser(description, usage):
    """argparse.ArgumentParser with short lines of help. usage: the command line in short, such as
    "python plot.py NAME [NAME ...] [options]"."""
    return argparse.ArgumentParser(usage=usage, description=description, formatter_class=HelpFormatter)


def between(low, high=math.inf):
    """For argparse: a finite number of low's type, low <= number <= high."""

    def parse(text):
        value = type(low)(text)
        if not (low <= value <= high and value < math.inf):
            raise argparse.ArgumentTypeError(
                f"{text} is not {f'at least {low}' if high == math.inf else f'from {low} to {high}'}"
            )
        return value

    parse.__name__ = type(low).__name__  # argparse's message for text that is no number names it
    return parse


##############################
#   Parts of the recipe
##############################


class ReplayBuffer:
    """A pool of past translations that the discriminators are trained on, so that they do not forget (paper, section 4,
    after Shrivastava et al., 2017, arXiv:1612.07828).

    max_size: images kept; 0 switches the pool off. The paper keeps 50.
    seed:     of its own random numbers, so that nothing else in a run can shift them
    """

    def __init__(self, max_size=50, seed=0):
        self.max_size = max_size
        self.count = 0  # images kept so far
        self.data = None  # these images, and one more row to write to what is not to be kept
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, n):
        """The dice for the next n images -> int64 (n, 2): the row of the pool that each one goes to, and 1 if it is
        swapped for what is stored there. While the pool fills, each image is stored and returned. After that each one
        is, with probability 1/2, swapped for a stored one, otherwise only returned: it goes to the last row.

        Apart from push_and_pop, so that the step is a function of tensors alone: no device waits for the dice."""
        draws = []
        for _ in range(n):
            if self.count < self.max_size:
                draws.append((self.count, 0))
                self.count += 1
            elif self.max_size and torch.rand((), generator=self.generator) < 0.5:
                draws.append((torch.randint(self.max_size, (), generator=self.generator).item(), 1))
            else:
                draws.append((self.max_size, 0))
        return torch.tensor(draws)

    def push_and_pop(self, images, draws=None):
        """Takes images (N, C, H, W), returns as many. No gradient flows through.

        draws: what `draw` said, on the images' device; without it, that is drawn here"""
        images = images.detach()
        draws = self.draw(len(images)).to(images.device) if draws is None else draws
        if self.max_size == 0:
            return images
        if self.data is not None and self.data.shape[1:] != images.shape[1:]:  # another size from now on
            self.data, self.count = None, 0
        if self.data is None:
            self.data = images[:1].repeat(self.max_size + 1, 1, 1, 1)
        self.data = self.data.to(images)  # a resumed pool lies on the CPU, perhaps in another precision
        to_return = []
        for image, (row, swap) in zip(images.split(1), draws):
            to_return.append(torch.where(swap.bool(), self.data.index_select(0, row), image))
            self.data.index_copy_(0, row[None], image)
        return torch.cat(to_return)

    def state_dict(self):
        images = [] if self.data is None else self.data[: self.count].clone().cpu()
        return {"data": images, "rng": self.generator.get_state()}

    def load_state_dict(self, state):
        self.count = min(self.max_size, len(state["data"]))
        if self.count:
            images = torch.stack(list(state["data"][: self.count]))
            self.data = images.new_zeros(self.max_size + 1, *images.shape[1:])
            self.data[: self.count] = images
        self.generator.set_state(state["rng"])


def linear_decay(n_epochs, decay_epoch):
    """The paper's schedule for torch's LambdaLR (section 7.1): a factor of 1 up to `decay_epoch`, then a straight line
    that would reach 0 at `n_epochs`, so the last epoch still learns. No decay if decay_epoch >= n_epochs."""
    return lambda epoch: 1.0 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


##############################
#   Devices and processes
##############################


def choose_device(name=None):
    """'cuda', 'cuda:1', 'mps', 'cpu', or None for the best one at hand -> torch.device. Under torchrun each process
    takes the GPU of its local rank."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cuda", "mps", "cpu"):
            raise RuntimeError("not one of cuda, mps, cpu")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}. Without --device the best one is taken")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def bfloat16_pays(device):
    """Whether this device multiplies bfloat16 in hardware. It has float32's range: no gradient scaling is needed."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


##############################
#   What a person sees
##############################


def as_rgb(x):
    """(N, C, H, W) -> (N, 3, H, W) to look at: gray as it is, of many channels the first three."""
    x = x[:, :3]
    return torch.cat((x, x[:, -1:].expand(-1, 3 - x.shape[1], -1, -1)), 1)


@contextlib.contextmanager
def evaluating(*networks):
    """Meanwhile the networks are in eval mode: no dropout, running statistics of batch norms, no --diffaugment."""
    before = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, training in zip(networks, before):
            network.train(training)


@torch.no_grad()
def sample_images(G_AB, G_BA, images_A, images_B):
    """-> six columns of images, real A | fake B | recovered A | real B | fake A | recovered B, each (N, C, H, W) in
    [-1, 1], float32."""
    fake_B, fake_A = G_AB(images_A), G_BA(images_B)
    columns = [images_A, fake_B, G_BA(fake_B), images_B, fake_A, G_AB(fake_A)]
    return [column.float() for column in columns]


def draw_grid(columns):
    """Columns of images, see sample_images -> PIL.Image, one row a pair of images, as many as the shortest column has:
    -1 is drawn black, 1 white, so contrast is not stretched."""
    n = min(map(len, columns))
    columns = [column[:n] for column in columns]
    rows = torch.stack([as_rgb(column).cpu() for column in columns], 1).flatten(0, 1)
    grid = make_grid(rows, nrow=len(columns), normalize=True, value_range=(-1, 1))
    return to_pil_image(grid.mul(255).round().byte())


def save_image(image, path):
    with whole_file(path) as temporary:
        image.save(temporary, format="png")
