"""The training step against the plainest form of it, and the recorded step against the one that is not."""

import contextlib
import functools

import pytest
import torch
from helpers import build
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import cyclegan
from pretraining import inpainting
from training.cuda_graph import recorded
from training.update import Update

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DEVICES = [CPU, pytest.param(CUDA, marks=ON_GPU)]


def options(*argv):
    small = "--dataset_name x --img_height 32 --img_width 32 --n_residual_blocks 2 --ngf 4 --ndf 4 --pool_size 3"
    return cyclegan.get_options([*small.split(), *argv])[0]


def batches(n, size, device=CPU, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.rand(size, 3, 32, 32, generator=generator).to(device, dtype) * 2 - 1 for _ in "AB"] for _ in range(n)
    ]


class PlainMSE:
    """cyclegan.MSE, but in the precision of the scores."""

    def generator_loss(self, fake):
        return ((fake - 1) ** 2).mean()

    def discriminator_loss(self, real, fake):
        return (((real - 1) ** 2).mean() + (fake**2).mean()) / 2


def plain_step(gan, opt, real_A, real_B):
    """Each image through each network by itself; one optimizer after the other; the formulas of the paper."""
    G_AB, G_BA, D_A, D_B = gan.G_AB, gan.G_BA, gan.D_A, gan.D_B
    means = []
    fakes_A, fakes_B, loss_G = [], [], 0
    for a, b in zip(real_A.split(1), real_B.split(1)):
        fake_B, fake_A = G_AB(a), G_BA(b)
        adversarial = (((D_B(fake_B) - 1) ** 2).mean() + ((D_A(fake_A) - 1) ** 2).mean()) / 2
        cycle = ((G_BA(fake_B) - a).abs().mean() + (G_AB(fake_A) - b).abs().mean()) / 2
        identity = ((G_BA(a) - a).abs().mean() + (G_AB(b) - b).abs().mean()) / 2
        total = adversarial + opt.lambda_cyc * cycle + opt.lambda_id * identity
        loss_G = loss_G + total / len(real_A)
        means.append(torch.stack((total, adversarial, cycle, identity)).detach())
        fakes_A.append(fake_A.detach())
        fakes_B.append(fake_B.detach())
    plain_update(gan.optimizer_G, loss_G)

    losses_D = []
    for D, optimizer, buffer, reals, fakes in (
        (D_A, gan.optimizer_D_A, gan.fake_A_buffer, real_A, fakes_A),
        (D_B, gan.optimizer_D_B, gan.fake_B_buffer, real_B, fakes_B),
    ):
        fakes = buffer.push_and_pop(torch.cat(fakes))
        loss_D = 0
        for real, fake in zip(reals.split(1), fakes.split(1)):
            loss_D = loss_D + (((D(real) - 1) ** 2).mean() + (D(fake) ** 2).mean()) / 2 / len(reals)
        plain_update(optimizer, loss_D)
        losses_D.append(loss_D.detach())
    return torch.stack((sum(losses_D) / 2, *torch.stack(means).mean(0)))


def plain_update(optimizer, loss):
    torch.optim.Optimizer.zero_grad(optimizer)
    loss.backward()
    torch.optim.Adam.step(optimizer)


def trained(opt, step=cyclegan.train_step, device=CPU, dtype=torch.float32, n_steps=8, amp=False, graph=False,
            record=False, say=print, criterion=None):  # fmt: skip
    """-> losses (n_steps, 5) and the networks' weights after these steps; the learning rate halves on the way.

    graph: as for a recorded step, with the learning rate on the device; record: record it"""
    gan, run = build(opt, device=device, amp=amp, graph=graph, say=say)
    gan.criterion_GAN = criterion or gan.criterion_GAN
    for network in gan.networks().values():
        network.to(dtype)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.5**t) for o in gan.optimizers().values()]
    originals = batches(n_steps, opt.batch_size * opt.accumulate, device, dtype)
    run.graph = record
    update = functools.partial(step, gan, opt) if step is plain_step else Update(step, gan, opt, run)
    losses = []
    for i, batch in enumerate(batches(n_steps, opt.batch_size * opt.accumulate, device, dtype)):
        losses.append(update(*batch))
        if i in (4, 6):
            for scheduler in schedulers:
                scheduler.step()
        assert torch.equal(batch[0], originals[i][0])  # the caller's images are the caller's
    weights = {f"{n}/{k}": w.cpu() for n, net in gan.networks().items() for k, w in net.state_dict().items()}
    return torch.stack(losses).cpu(), weights


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """A GPU's float32 convolutions have ten bits of mantissa by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def assert_alike(one, other, **tolerance):
    torch.testing.assert_close(one[0], other[0], **tolerance)
    assert one[1].keys() == other[1].keys()
    for key in one[1]:
        # biases before a norm have no gradient but rounding, which Adam blows up to full steps
        if key.endswith("weight"):
            torch.testing.assert_close(one[1][key], other[1][key], msg=key, **tolerance)


VARIANTS = [
    (),
    ("--batch_size", "4"),
    ("--accumulate", "4"),
    ("--batch_size", "2", "--accumulate", "2"),
    ("--checkpoint_activations",),
    ("--batch_size", "2", "--accumulate", "2", "--checkpoint_activations"),
]


@pytest.mark.slow
@pytest.mark.parametrize("argv", VARIANTS, ids=" ".join)
def test_the_step_is_the_plain_one(argv):
    """In float64, so that what differs would show."""
    opt = options(*argv)
    reference = trained(opt, plain_step, dtype=torch.float64)
    assert_alike(trained(opt, dtype=torch.float64, criterion=PlainMSE()), reference, atol=1e-9, rtol=1e-7)
    assert (reference[0][0] - reference[0][-1]).abs().min() > 1e-4  # and it did learn


@pytest.mark.parametrize("argv", [(), ("--batch_size", "2", "--accumulate", "2")], ids=" ".join)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_step_is_the_plain_one_in_float32(argv, device):
    opt = options(*argv)
    one, other = (trained(opt, step, device, n_steps=4) for step in (cyclegan.train_step, plain_step))
    assert_alike(one, other, atol=1e-4 if device == CPU else 1e-3, rtol=1e-3)


def test_bfloat16_stays_near():
    low, high = (trained(options(), n_steps=6, amp=amp) for amp in (True, False))
    assert 0 < (low[0] - high[0]).abs().max() < 0.05 * high[0].max()


def test_checkpointed_activations_are_not_kept():
    """What autograd keeps for the backward pass of a generator, in bytes."""
    kept = {}
    for argv in ((), ("--checkpoint_activations",)):
        G_AB, storages = build(options(*argv, "--n_residual_blocks", "9"))[0].G_AB, {}

        def pack(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            G_AB(batches(1, 1)[0][0])
        weights = sum(p.numel() * 4 for p in G_AB.parameters())
        kept[argv] = sum(storages.values()) - weights * (argv == ())
    assert 0 < kept[("--checkpoint_activations",)] < 0.2 * kept[()]


def test_no_gradient_of_the_generators_reaches_the_discriminators():
    opt = options("--lr", "0")
    gan, _ = build(opt, amp=False)
    (a, b), G_BA, D_A = batches(1, 1)[0], gan.G_BA, gan.D_A
    cyclegan.train_step(gan, opt, a, b)
    with torch.no_grad():
        fake_A = G_BA(b)
    expected = torch.autograd.grad((((D_A(a) - 1) ** 2).mean() + (D_A(fake_A) ** 2).mean()) / 2, D_A.parameters())
    for p, gradient in zip(D_A.parameters(), expected):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-4)


# ----- the recorded step


class Tape(TorchDispatchMode):
    """What a CUDA graph is, on the CPU: operations with the addresses that they read and write. Numbers and decisions
    of Python are fixed in it, and what asks for a value fails, as it would there."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        result = operation(*args, **(kwargs or {}))
        # the same memory, but nothing that autograd has to say of it
        bare = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}, result))
        self.operations.append((operation, *bare))
        return result

    @torch.no_grad()
    def run(self):
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again)):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class FakeGraph:
    """A recording is also the first run, so the replay that follows it is left out."""

    def replay(self):
        if self.fresh:
            self.fresh = False
        else:
            self.tape.run()


class FakeStream:
    waits = []  # (who waits, for whom), of all streams

    def __init__(self, name="side"):
        self.name = name

    def wait_stream(self, other):
        self.waits.append((self.name, other.name))


@pytest.fixture
def cuda_of_paper(monkeypatch):
    """torch.cuda's graphs, played on the CPU -> list of the graphs that were recorded."""
    recordings = []

    @contextlib.contextmanager
    def record(graph, stream, capture_error_mode):
        with Tape() as graph.tape:
            yield
        graph.fresh = True
        recordings.append(graph)

    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(FakeStream, "waits", [])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream("current"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: FakeStream.waits.append(stream.name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    return recordings


# What may be in a recorded step; only what throws dice cannot be compared (--dropout, --diffaugment)
RECORDED = VARIANTS + [
    ("--spectral_norm", "--clip_grad", "1"),
    ("--freeze_D", "2"),
    ("--norm", "batch", "--batch_size", "2"),
    ("--attention", "--separable"),
    ("--lambda_ssim", "1", "--lambda_freq", "1", "--lambda_style", "1", "--lambda_feat", "1"),
    ("--gan_loss", "hinge", "--discriminator", "pixel"),
    ("--lambda_gp", "1", "--lambda_cycfeat", "1"),
    ("--lambda_cyc_end", "1", "--n_iters", "8"),
    ("--antialias", "--residual"),
    ("--batch_deviation", "--batch_size", "2"),
    ("--generator", "unet", "--num_downs", "5", "--gan_loss", "vanilla", "--label_smoothing", "0.1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("argv", RECORDED, ids=" ".join)
def test_the_recorded_step_is_the_step(argv, amp, cuda_of_paper):
    opt = options(*argv)
    one, other = (trained(opt, amp=amp, graph=True, record=record) for record in (False, True))
    assert len(cuda_of_paper) == 1 and len(cuda_of_paper[0].tape.operations) > 500
    assert FakeStream.waits == [("side", "current"), ("current", "side")] * 3  # around each call that warms up
    assert_alike(one, other, atol=0, rtol=0)
    assert len(set(map(tuple, one[0].tolist()))) == 8  # no step is like the one before


@pytest.mark.slow
@pytest.mark.parametrize("argv", [("--noise_channels", "2"), ("--noise_channels", "2", "--lambda_diversity", "1")])
def test_a_recorded_step_draws_new_noise_each_time(argv, cuda_of_paper):
    """On the CPU the dice come in the same order from a recording, so that they can be compared."""
    opt = options(*argv)
    one, other = (trained(opt, graph=True, record=record) for record in (False, True))
    assert len(cuda_of_paper) == 1
    drawn = [operation for operation, *_ in cuda_of_paper[0].tape.operations if "randn" in str(operation)]
    assert len(drawn) == 4 + 2 * (len(argv) > 2)  # per generator: translation with identity, cycle, and the extra loss
    assert_alike(one, other, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("argv", ["--lambda_nce 1", "--cycle_noise 0.1", "--lambda_gp 4 --gp_at mix --spectral_norm"])
def test_a_recorded_step_throws_new_dice_for_its_losses(argv, amp, cuda_of_paper):
    opt = options(*argv.split())
    one, other = (trained(opt, amp=amp, graph=True, record=record) for record in (False, True))
    assert len(cuda_of_paper) == 1
    assert any("aten.rand" in str(operation) for operation, *_ in cuda_of_paper[0].tape.operations)
    assert_alike(one, other, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("argv", [(), ("--accumulate", "2"), ("--norm", "batch", "--batch_size", "2")], ids=" ".join)
def test_the_recorded_step_of_pretraining_is_the_step(argv, cuda_of_paper, monkeypatch):
    monkeypatch.setattr(inpainting, "black_out", lambda images: images.masked_fill(images > 0.5, -1.0))  # without dice
    one, other = (trained(options(*argv), inpainting.pretrain_step, graph=True, record=r) for r in (False, True))
    assert len(cuda_of_paper) == 1
    assert_alike(one, other, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("argv", RECORDED, ids=" ".join)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_recorded_step_is_the_step_on_a_gpu(argv):
    opt, said = options(*argv), []
    one = trained(opt, device=CUDA, graph=True)
    other = trained(opt, device=CUDA, graph=True, record=True, say=said.append)
    assert said == []
    assert_alike(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_tape_notices_what_a_graph_would_not_follow(cuda_of_paper):
    """The stand-in is as strict as what it stands for: a learning rate in Python would stay what it was."""
    one, other = trained(options()), trained(options(), graph=False, record=True)
    assert not torch.equal(one[0][-1], other[0][-1])


@pytest.mark.slow
def test_a_step_that_cannot_be_recorded_runs_as_it_is(cuda_of_paper):
    def waits(*arguments):
        arguments[-1].max().item()
        return cyclegan.train_step(*arguments)

    said = []
    one = trained(options(), graph=True)
    other = trained(options(), waits, graph=True, record=True, say=said.append)
    assert_alike(one, other, atol=0, rtol=0)
    assert len(said) == 1 and "operation not permitted" in said[0] and "\n" not in said[0]
    assert FakeStream.waits.count("current") == 1  # it is left on the stream that it came from


def test_the_note_gives_the_first_reason(cuda_of_paper, monkeypatch):
    """A recording that went wrong fails a second time when it ends, with words that say nothing."""
    original = torch.cuda.graph

    @contextlib.contextmanager
    def record(*arguments, **options):
        try:
            with original(*arguments, **options):
                yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", record)
    said = []
    step = recorded(lambda x: x * x.max().item(), said.append)
    assert [step(torch.tensor([2.0])).item() for _ in range(6)] == [4.0] * 6
    assert len(said) == 1 and "operation not permitted" in said[0]


def test_the_adversarial_loss_is_taken_in_float32():
    loss = cyclegan.MSE().generator_loss(torch.full((1, 1, 30, 30), 0.3, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(0.4888, abs=1e-3)
