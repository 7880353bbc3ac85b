"""
What a checkpoint may hold. Every field of a file is checked here before anything is built, read or written because of
it: types, ranges, shapes, positions, random states. A file is data, and nobody knows who wrote it.

Its options are checked in stored_options.py. Networks are built without memory first, on the device "meta", and
compared with the weights in the file, so nothing can be larger than the file itself.
"""

import contextlib
import reprlib

import torch

from utils import InputError, ReplayBuffer
from variants.build import GENERATOR_OPTIONS, channels_of, is_papers, make_discriminator, make_generator
from variants.stored_options import actions_of, check_options

NETWORKS, OPTIMIZERS = ("G_AB", "G_BA", "D_A", "D_B"), ("optimizer_G", "optimizer_D_A", "optimizer_D_B")
BUFFERS, POSITION = ("fake_A_buffer", "fake_B_buffer"), ("epoch", "batch", "step")


def check_training(state, path):
    """Raises InputError unless `state`, the contents of `path`, is a full checkpoint that can be continued. Of its
    options, those that determine networks and data are checked; check_options does so for all of a parser."""
    needed = {"version", "options", "data", "ranks", *POSITION, *NETWORKS}
    if not isinstance(state, dict) or not needed <= state.keys():
        raise InputError(f"{path}: not a full checkpoint of cyclegan.py")
    check_version(state, path)
    check_options(state["options"], path)
    defaults = {name: action.default for name, action in actions_of().items()}
    options = defaults | {name: value for name, value in state["options"].items() if name in defaults}
    with damaged(path):
        check_position(state)
        expect("pretraining", state.get("pretraining"), state.get("pretraining", True) is True)  # of pretraining
        networks = check_networks(state, options)
        for name, trained in zip(OPTIMIZERS, (NETWORKS[:2], NETWORKS[2:3], NETWORKS[3:])):
            shapes = [p.shape for network in trained for p in networks[network].parameters()]
            check_optimizer(name, state.get(name), shapes)
        for rank in as_list("ranks", state["ranks"]):
            check_rank(rank)


def check_distillation(state, path, parser):
    """Raises InputError unless `state` can be continued by compress.py distill.

    parser: of that command"""
    check_options(state["distill"], path, parser)
    check_options(state.get("options"), path)
    with damaged(path):
        teacher = state["distill"].get("checkpoint")
        expect("checkpoint of distill", teacher, type(teacher) is str)
        check_position(state)
        for rank in as_list("ranks", state.get("ranks", [state])):  # older versions have one, at the top
            check_rank(rank, ["buffer"])


def check_generator(state, path, direction):
    """Raises InputError unless the parts of a full checkpoint that translation uses are what they should be."""
    check_version(state, path)
    check_options(state["options"], path)
    with damaged(path):
        expect("epoch", state["epoch"], is_count(state["epoch"], 10**9))
        for name in (f"G_{direction}", f"ema_G_{direction}"):
            weights = state.get(name, {})
            expect(name, weights, isinstance(weights, dict))
            for key, value in weights.items():
                expect(f"{key} of {name}", value, isinstance(value, torch.Tensor) and value.dtype in FLOATS + INTEGERS)
        expect("channels of options", None, "channels" in state["options"] or is_papers(state["options"]))


def epochs_begun(state):
    """The number that kept files of a full checkpoint's weights have in their names, such as 3 of G_AB_3.pth. `epoch` counts
    those that are finished; a run with --n_iters mostly ends inside of one."""
    return state["epoch"] + (is_count(state.get("batch"), 10**9, least=1))


def check_described(state, path):
    """Raises InputError unless `state` is as variants.build.described_generator makes it."""
    options, weights = state["generator"], state["weights"]
    check_options(options, path)
    with damaged(path):
        for name in ("channels", "out_channels"):
            expect(name, options.get(name), is_count(options.get(name), 4096, least=1))
    try:
        build_on_meta("the generator", weights, options, options["channels"], options["out_channels"], finite=False)
    except ValueError as error:
        raise InputError(
            f"{path}: damaged, or its generator is not the one that make_generator in variants/build.py builds here ({error})"
        )


##############################
#   Fields
##############################


@contextlib.contextmanager
def damaged(path):
    """Turns a ValueError in the `with` block into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: damaged, {error}") from error


def expect(name, value, fits):
    """Raises ValueError unless `fits`."""
    if not fits:
        kind = (
            f"of shape {tuple(value.shape)}, {value.dtype}" if isinstance(value, torch.Tensor) else reprlib.repr(value)
        )
        raise ValueError(f"{name} is {kind}")


def as_list(name, value):
    expect(name, value, isinstance(value, (list, tuple)) and 1 <= len(value) <= 10**5)
    return value


def is_count(value, most, least=0):
    return type(value) is int and least <= value <= most


def check_version(state, path):
    version = state["version"]
    if version != 1 or type(version) is not int:
        if is_count(version, 10**6):
            raise InputError(f"{path}: written by a newer cyclegan.py (format {version}). Update this copy")
        raise InputError(f"{path}: damaged, version is {reprlib.repr(version)}")


def check_position(state):
    """Raises ValueError unless epoch, batch, step and the size of the data are possible."""
    for name, most in zip(POSITION, (10**9, 10**12, 10**15)):
        expect(name, state[name], is_count(state[name], most))
    data = state.get("data")
    if data is not None:
        sizes = as_list("data", data)[:2]
        expect("data", data, len(sizes) == 2 and all(is_count(size, 10**12, least=1) for size in sizes))
        expect("batch", state["batch"], state["batch"] <= sizes[1])


def check_networks(state, options):
    """Raises ValueError unless the weights in a full checkpoint are those of the networks that its options describe ->
    {name: network without memory}"""
    n_A, n_B = channels_of(options)
    expect("channels", (n_A, n_B), is_count(n_A, 4096, least=1) and is_count(n_B, 4096, least=1))
    networks = {}
    for name, channels, out_channels in zip(NETWORKS, (n_A, n_B, n_A, n_B), (n_B, n_A, None, None)):
        networks[name] = build_on_meta(name, state[name], options, channels, out_channels)
    for name in ("G_AB", "G_BA"):
        if f"ema_{name}" in state:
            check_module(f"ema_{name}", state[f"ema_{name}"], networks[name])
    return networks


def build_on_meta(name, weights, options, channels, out_channels, finite=True):
    """Raises ValueError unless `weights` are a state dict of the network that `options` describe -> the network, without
    memory. A generator; without `out_channels` a discriminator. finite: the weights must be"""
    expect(name, weights, isinstance(weights, dict))
    n_blocks = options.get("n_residual_blocks", GENERATOR_OPTIONS["n_residual_blocks"])
    if out_channels and options.get("generator", "resnet") in ("resnet", "multiscale") and len(weights) < 2 * n_blocks:
        raise ValueError(f"{name} has {len(weights)} tensors, too few for {n_blocks} residual blocks")
    try:
        with torch.device("meta"):
            if out_channels:
                network = make_generator(options, channels, out_channels)
            else:
                network = make_discriminator(options, channels)
                if options.get("spectral_norm"):
                    from variants.parts import use_spectral_norm

                    use_spectral_norm(network)
    except (AttributeError, IndexError) as error:  # --attention or --lambda_nce without residual blocks
        raise ValueError(f"its options for {name} do not fit together ({type(error).__name__}: {error})")
    check_module(name, weights, network, finite)
    return network


def check_module(name, weights, network, finite=True):
    """Raises ValueError unless `weights` is a state dict of `network`, and finite if they must be."""
    expect(name, weights, isinstance(weights, dict))
    expected = network.state_dict()
    found = {key for key in weights if not str(key).endswith(UNUSED)} | (weights.keys() & expected.keys())
    if odd := sorted(map(str, expected.keys() ^ found)):
        raise ValueError(
            f"{name} does not fit the options: {odd[0]} is {'missing' if odd[0] in expected else 'unknown'}"
        )
    for key, tensor in expected.items():
        check_tensor(f"{key} of {name}", weights[key], tensor.shape, tensor.is_floating_point(), finite)


FLOATS, INTEGERS = (torch.float32, torch.float64, torch.float16, torch.bfloat16), (torch.int64, torch.int32)
UNUSED = ("running_mean", "running_var", "num_batches_tracked")  # of instance norms, see models.drop_running_statistics


def check_tensor(name, value, shape=None, is_float=True, finite=True):
    expect(name, value, isinstance(value, torch.Tensor) and (shape is None or value.shape == shape))
    expect(name, value, value.dtype in (FLOATS if is_float else INTEGERS))
    if finite and not value.isfinite().all():
        raise ValueError(f"{name} has values that are not finite, because training diverged. Use an earlier checkpoint")


def check_optimizer(name, state, shapes):
    """Raises ValueError unless `state` is a state dict of Adam, for parameters of these shapes. Its moments go into a
    kernel that does not check their sizes."""
    expect(name, state, isinstance(state, dict))
    moments, groups = state.get("state"), state.get("param_groups")
    is_group = isinstance(groups, list) and len(groups) == 1 and isinstance(groups[0], dict)
    expect(f"param_groups of {name}", groups, is_group and groups[0].get("params") == list(range(len(shapes))))
    expect(f"state of {name}", moments, isinstance(moments, dict))
    for i, values in moments.items():
        known = is_count(i, len(shapes) - 1) and isinstance(values, dict)
        expect(f"state of {name}", values, known and values.keys() == {"step", "exp_avg", "exp_avg_sq"})
        for key in ("exp_avg", "exp_avg_sq"):
            check_tensor(f"{key} of {name}", values[key], shapes[i])
        expect(f"exp_avg_sq of {name}", values["exp_avg_sq"], bool((values["exp_avg_sq"] >= 0).all()))
        step = values["step"]
        if isinstance(step, torch.Tensor):
            check_tensor(f"step of {name}", step, torch.Size([]))
            step = step.item()
        expect(f"step of {name}", step, type(step) in (int, float) and 0 <= step <= 10**15)


def check_rank(state, buffers=BUFFERS):
    """Raises ValueError unless `state` is what one process saves: random states and pools."""
    expect("ranks", state, isinstance(state, dict))
    check_random_state(state)
    for name in buffers:
        check_pool(name, state.get(name))


def check_random_state(state):
    rng = state.get("rng")
    is_bytes = isinstance(rng, torch.Tensor) and rng.dtype == torch.uint8
    expect("rng", rng, is_bytes)
    try:
        torch.Generator().set_state(rng)
    except RuntimeError as error:
        raise ValueError(f"rng is no state of a random number generator ({str(error).splitlines()[0]})")
    cuda = state.get("cuda_rng", rng)
    expect("cuda_rng", cuda, isinstance(cuda, torch.Tensor) and cuda.dtype == torch.uint8 and cuda.ndim == 1)


def check_pool(name, state):
    """Raises ValueError unless `state` is a state dict of utils.ReplayBuffer."""
    expect(name, state, isinstance(state, dict))
    images = state.get("data")
    expect(f"images of {name}", images, isinstance(images, (list, tuple, torch.Tensor)))
    if isinstance(images, torch.Tensor):
        expect(f"images of {name}", images, images.ndim in (4, 5))  # of volumes 5
    for image in images:
        first = images[0].shape if isinstance(images[0], torch.Tensor) else None
        check_tensor(f"images of {name}", image, first)
        expect(f"images of {name}", image, image.ndim in (3, 4) and 0 not in image.shape)
    check_random_state(state)


def check_part(name, part, state):
    """Raises ValueError unless `state` is a state dict that `part`, a network, an optimizer or a pool, can load."""
    if isinstance(part, torch.optim.Optimizer):
        check_optimizer(name, state, [p.shape for group in part.param_groups for p in group["params"]])
    elif isinstance(part, ReplayBuffer):
        check_pool(name, state)
    else:
        check_module(name, state, part)
