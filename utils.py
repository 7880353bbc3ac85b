"""
The rest of the recipe: the pool of past translations and the learning rate schedule. Also what all commands share:
sample grids, devices and errors.
"""

import contextlib
import os

import torch

##############################
#   Parts of the recipe
##############################


class ReplayBuffer:
    """A pool of past translations. The discriminators are trained on a mix of these and new ones, so that they do not
    forget what the generators did before (paper, section 4, after Shrivastava et al., 2017, arXiv:1612.07828).
    `draw` decides which images are stored and returned, `push_and_pop` moves them.

    max_size: number of images to keep, 50 in the paper; 0 disables the pool
    seed:     seed of the pool's own random number generator, which nothing else in a run uses
    """

    def __init__(self, max_size=50, seed=0):
        self.max_size = max_size
        self.count = 0  # images kept so far
        self.data = None  # these images, and one extra row for images that are not kept
        self.generator = torch.Generator().manual_seed(seed)
        self.draws, self.next = None, 0  # see prepare; `next` is the first draw not yet used

    def draw(self, n):
        """Decides what happens to the next n images -> int64 (n, 2): for each the row of the pool it is written to, and
        1 if it is swapped for the image in that row. While the pool fills, each image is stored and returned. After
        that, with probability 1/2 it is swapped for a stored one; otherwise it is returned and not kept."""
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

    def prepare(self, n, device):
        """Makes the random decisions for the next n images before they exist. push_and_pop then does not draw random
        numbers on the CPU, so the GPU does not wait, and the training step can be recorded as a CUDA graph."""
        draws = self.draw(n)
        if self.draws is None or self.draws.shape != draws.shape:
            self.draws = draws.to(device)
        self.draws.copy_(draws, non_blocking=True)  # in place, because a recorded CUDA graph reads this tensor
        self.next = 0

    def push_and_pop(self, images):
        """Takes N new images (N, C, H, W), or volumes, and returns N images, some of them past ones, without gradients."""
        images = images.detach()
        if self.max_size == 0:
            return images
        if self.draws is None or self.next >= len(self.draws):
            self.prepare(len(images), images.device)
        draws, self.next = self.draws[self.next : self.next + len(images)], self.next + len(images)
        if self.data is not None and self.data.shape[1:] != images.shape[1:]:  # the image size has changed
            self.data, self.count = None, 0
        if self.data is None:
            self.data = images[:1].repeat(self.max_size + 1, *[1] * (images.ndim - 1))
        self.data = self.data.to(images)  # a restored pool is on the CPU, perhaps in another precision
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
    """The paper's schedule, for LambdaLR (section 7.1): a factor of 1 up to epoch `decay_epoch`, counted from 0, then a
    straight line that would reach 0 at `n_epochs`, after the last epoch. No decay if decay_epoch >= n_epochs."""
    return lambda epoch: 1.0 - max(0, epoch - decay_epoch) / max(1, n_epochs - decay_epoch)


##############################
#   Sample grids and files
##############################


@contextlib.contextmanager
def evaluating(*networks):
    """Puts networks into eval mode in a `with` block: no dropout, no --diffaugment; batch norm uses its running
    statistics."""
    before = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, training in zip(networks, before):
            network.train(training)


@torch.no_grad()
def sample_images(G_AB, G_BA, real_A, real_B):
    """-> the six columns of a sample grid: real A | fake B | recovered A | real B | fake A | recovered B, each float32
    (N, C, H, W) in [-1, 1]."""
    fake_B, fake_A = G_AB(real_A), G_BA(real_B)
    columns = [real_A, fake_B, G_BA(fake_B), real_B, fake_A, G_AB(fake_A)]
    return [column.float() for column in columns]


def as_rgb(x):
    """(N, C, H, W) -> (N, 3, H, W), for display. Repeats a gray channel; of more than 3 channels, keeps the first 3."""
    x = x[:, :3]
    return torch.cat((x, x[:, -1:].expand(-1, 3 - x.shape[1], -1, -1)), 1)


def draw_grid(columns):
    """Columns of images, see sample_images -> PIL.Image with one row per pair of images, as many as the shortest
    column has. -1 is black and 1 is white in every grid; the contrast is not stretched."""
    from torchvision.transforms.functional import to_pil_image  # here, because it takes as long to import as torch
    from torchvision.utils import make_grid

    n = min(map(len, columns))
    rows = torch.stack([as_rgb(column[:n]).cpu() for column in columns], 1).flatten(0, 1)
    grid = make_grid(rows, nrow=len(columns), normalize=True, value_range=(-1, 1))
    return to_pil_image(grid.mul(255).round().byte())


@contextlib.contextmanager
def whole_file(path):
    """Gives a temporary name to write to in a `with` block and renames it to `path` afterwards, so `path` is always the
    old file or the complete new one. After an error, the temporary file is removed."""
    folder, name = os.path.split(path)
    # short enough for any file system, and not the name that another process writes to
    temporary = os.path.join(folder, f"{name[:40]}.{os.urandom(4).hex()}.tmp")
    try:
        open(temporary, "xb").close()  # never a file that exists
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    except OSError as error:  # a full disk, for example: name the file, and not the temporary one
        if error.errno is not None:
            with contextlib.suppress(AttributeError):  # errors of PyAV cannot be changed
                error.filename = path
        raise


##############################
#   Devices and errors
##############################


class InputError(ValueError):
    """The user's input cannot be used. The message is one line: the file or flag, what is wrong, and what to do."""


class DivergedError(RuntimeError):
    """Training produced values that are not finite. The message is one line."""


def choose_device(name=None):
    """'cuda', 'cuda:1', 'mps', 'cpu', or None for the best one available -> torch.device. Under torchrun each process
    uses the GPU of its local rank. Raises InputError."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cuda", "mps", "cpu"):
            raise RuntimeError("not one of cuda, mps, cpu")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}. Omit --device to use the best one available")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def bfloat16_pays(device):
    """Whether the device multiplies bfloat16 in hardware. It has the range of float32, so losses need no scaling."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
