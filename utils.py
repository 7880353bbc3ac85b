"""
What a training run needs around the mathematics: the pool of past translations, the learning rate's decay, sample
grids, and several processes that act as one. Each part can be used alone.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
import traceback
import warnings
import zipfile
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.optim.swa_utils import get_ema_multi_avg_fn
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


def check_zip(file):
    """Raises ValueError if a checksum in a zip file, or one at that path, is wrong: PyTorch does not look at them."""
    with zipfile.ZipFile(file) as archive:
        if archive.testzip():
            raise ValueError("a checksum is wrong")


def out_of_memory(error):
    """Whether a RuntimeError or MemoryError says so; torch has several ways."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "alloc" in str(error)


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


@contextlib.contextmanager
def reading(path):
    """For decoders: whatever goes wrong in the `with` block is an InputError that names the path."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(f"{path}: no regular file")  # to open a pipe would wait for ever
        yield
    except InputError:
        raise
    except Exception as error:  # on a broken file the decoders raise nearly anything
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise InputError(f"{path}: broken, or no image ({reason})") from error


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


def lr_factor(schedule, n_epochs, decay_epoch):
    """'linear': see there; 'cosine': half a cosine instead of the line; 'step': a tenth from `decay_epoch` on, and a
    hundredth from half way between there and the end."""
    line = linear_decay(n_epochs, decay_epoch)
    if schedule == "cosine":
        return lambda epoch: (1 - math.cos(math.pi * line(epoch))) / 2
    if schedule == "step":
        return lambda epoch: 1.0 if epoch < decay_epoch else 0.1 if line(epoch) > 0.5 else 0.01
    return line


def lr_scheduler(optimizers, opt, steps_per_epoch, epochs_done=0, steps_done=0):
    """Lets the learning rates fall, epoch by epoch, or with --n_iters step by step -> a function to call after each.
    What the options say now counts, whatever they were when the run was started."""
    n, unit, done = (opt.n_iters, steps_per_epoch, steps_done) if opt.n_iters else (opt.n_epochs, 1, epochs_done)
    factor = lr_factor(opt.lr_schedule, n, n // 2 if opt.decay_epoch is None else opt.decay_epoch * unit)
    # a run that was stopped after the last step of an epoch goes on with the schedulers' step, which is right
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor) for optimizer in optimizers]
    for optimizer, scheduler in zip(optimizers, schedulers):
        base, now = float(optimizer.defaults["lr"]), optimizer.param_groups[0]["lr"]
        scheduler.base_lrs, scheduler.last_epoch = [base], done
        lr = base * factor(done)
        optimizer.param_groups[0]["lr"] = torch.full_like(now, lr) if isinstance(now, torch.Tensor) else lr

    def next_lr():
        for scheduler in schedulers:
            scheduler.step()

    return next_lr


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


def check_finite(values, names, step, folder):
    """Raises DivergedError if one of `values`, a tensor (steps, len(names)) that ends at `step`, is nan or inf."""
    bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        first = step - len(values) + 1 + bad[0]
        losses = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values[bad[0]].tolist()))
        good = os.path.join(folder, "latest.pth")
        way_out = f"{good} is from before: go on with --resume" if os.path.exists(good) else "Start again"
        raise DivergedError(f"diverged at step {first}: {losses}. {way_out} and a smaller --lr, or --no-amp")


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


def init_processes(device):
    """Joins the processes that torchrun started, if it did -> (rank, world_size), (0, 1) in a plain run."""
    if "RANK" not in os.environ:
        return 0, 1
    # gradients go by NCCL; the few words between processes by gloo, which needs no GPU and makes it wait for nothing
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))  # a data set may have to be fetched first
    return dist.get_rank(), dist.get_world_size()


def average_over_processes(tensors):
    """Replaces each tensor by its mean over all processes. Of gradients from equal shares of a batch that is the
    gradient of the whole batch: what DistributedDataParallel does, without a wrapper around the networks.

    -> a function to call before they are used: the messages go out at once, and meanwhile there is other work."""
    if not dist.is_initialized() or not tensors:
        return lambda: None
    flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message instead of one a tensor
    message = dist.all_reduce(flat, async_op=True)

    def finish():
        message.wait()
        flat.div_(dist.get_world_size())
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view_as(tensor))

    return finish


def first_process_first(function):
    """Calls it in one process, then in one of each machine, then in all: the first one prepares what the others find.
    -> its result"""
    result = None
    for my_turn in (int(os.environ.get("RANK", "0")) == 0, int(os.environ.get("LOCAL_RANK", "0")) == 0, True):
        if my_turn:
            result = function()
        gather(None)  # waits for all
    return result


def random_state(device):
    """Where torch's random numbers are: those of dropout, of --diffaugment."""
    state = {"rng": torch.get_rng_state()}
    return state | ({"cuda_rng": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state, device):
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], device)


def gather(value):
    """`value` of every process -> list by rank, on rank 0; other ranks get a list of None."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.gather_object(value, values if dist.get_rank() == 0 else None)
    return values


class StopSignal:
    """Turns the first SIGINT (Ctrl-C) or SIGTERM into a request to stop after the current step; a second one stops at
    once."""

    def __init__(self):
        self.number = 0
        self.previous = {s: signal.signal(s, self._request) for s in (signal.SIGINT, signal.SIGTERM)}

    def _request(self, number, frame):
        self.number = number
        self.restore()

    def restore(self):
        for s, handler in self.previous.items():
            signal.signal(s, handler)

    def requested(self):
        """The signal's number, 0 if there was none; the same answer on every process, at the same step."""
        if not dist.is_initialized():
            return self.number
        number = torch.tensor(self.number)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return number.item()  # a signal that came just now is asked for in the next step


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
