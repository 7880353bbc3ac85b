"""
CycleGAN: learns to translate images of a domain A into a domain B and back, from unpaired examples
(Zhu, Park, Isola, Efros, 2017, https://arxiv.org/abs/1703.10593).

    python cyclegan.py                                                    # demo data, minutes on a laptop
    python cyclegan.py --dataset_name horse2zebra                         # the paper's recipe, on a GPU
    python cyclegan.py --dataset_name horse2zebra --resume                # go on where it stopped
    torchrun --nproc_per_node=4 cyclegan.py --dataset_name horse2zebra    # on four GPUs

Read models.py, datasets.py and utils.py first. The names are arrows: G_AB translates A to B, D_B judges images of
domain B, and real_A -> fake_B -> recov_A is a cycle. In the paper A is X, B is Y, G_AB is G, G_BA is F, D_A is D_X and
D_B is D_Y.
"""

import argparse
import functools
import os
import time
import warnings

import torch

from checkpoints import copy_to_cpu, find_checkpoint, lock_run, prepare_folders, restore, save_run
from datasets import EpochSampler, ImageDataset, fixed_images, make_loader, prepare_dataset
from fast import may_record, recorded
from models import Discriminator, GeneratorResNet, weights_init_normal
from progress import Progress, as_typed, describe, duration, what_was_written
from utils import (
    Background, InputError, ReplayBuffer, StopSignal, average_over_processes, between, bfloat16_pays, check_finite,
    choose_device, first_process_first, gather, init_processes, linear_decay, run, sample_images, save_image,
)  # fmt: skip

# What the demo needs to be done on a laptop; the command line wins over it. So short a training gains from a long decay
DEMO = dict(img_height=64, img_width=64, n_residual_blocks=3, ngf=24, ndf=32, upsample="nearest", n_epochs=6,
            decay_epoch=2, lr=0.0005, sample_interval=100)  # fmt: skip
# A checkpoint only fits networks of the same shape ...
ARCHITECTURE = ("channels", "n_residual_blocks", "ngf", "ndf", "upsample")
# ... and its other options are taken over, but for these
NOT_RESUMED = ("epoch", "resume", "device", "run_name")


def get_parser():
    """The defaults are the configuration: the paper's, edit them here or override them on the command line."""
    parser = argparse.ArgumentParser(description="Train CycleGAN. In brackets: the default.")
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    # fmt: off
    # data
    add("--dataset_name", default="demo", help="folder in data_dir; official sets are fetched if missing (%(default)s)")
    add("--data_dir", default="data", help="folder of the data sets (%(default)s)")
    add("--img_height", type=between(32, 16384), default=256, help="height of a training crop, in pixels (%(default)s)")
    add("--img_width", type=between(32, 16384), default=256, help="width of a training crop, in pixels (%(default)s)")
    add("--load_size", type=between(32, 16384), help="shorter side before the crop, in pixels (286 for 256)")
    add("--channels", type=int, choices=(1, 3), default=3, help="1 gray, 3 RGB (%(default)s)")
    add("--cache", action=switch, help="keep decoded images in memory (if they fit into 4 GiB)")
    add("--n_cpu", type=between(0), help="processes that load images (0 if cached, else 1, or 8 beside a GPU)")
    add("--skip_bad_images", action=switch, default=False, help="go on without unusable images (%(default)s)")
    add("--enlarge", action=switch, default=False, help="accept images smaller than the crop (%(default)s)")
    # networks
    add("--n_residual_blocks", type=between(0, 1000), default=9, help="9 from 256 pixels on, 6 for 128 (%(default)s)")
    add("--ngf", type=between(1, 4096), default=64, help="filters of the generators' first layer (%(default)s)")
    add("--ndf", type=between(1, 4096), default=64, help="filters of the discriminators' first layer (%(default)s)")
    add("--upsample", default="transpose", choices=("transpose", "nearest"), help="nearest leaves no checkerboard")
    # losses
    add("--lambda_cyc", type=between(0.0), default=10.0, help="weight of the cycle loss (%(default)s)")
    add("--lambda_id", type=between(0.0), default=5.0, help="weight of the identity loss: keeps colours (%(default)s)")
    add("--pool_size", type=between(0), default=50, help="past translations shown to the discriminators (%(default)s)")
    # optimisation
    add("--n_epochs", type=between(1, 10**9), default=200, help="as long as the larger domain has images (%(default)s)")
    add("--decay_epoch", type=between(0), help="epoch from which the learning rate falls to 0 (half of n_epochs)")
    add("--batch_size", type=between(1, 10**6), default=1, help="images a domain and step, per process (%(default)s)")
    add("--accumulate", type=between(1, 10**6), default=1, help="batches whose gradients make one step (%(default)s)")
    add("--lr", type=between(0.0), default=0.0002, help="adam: learning rate (%(default)s)")
    add("--b1", type=between(0.0, 0.999999), default=0.5, help="adam: decay of the gradients' mean (%(default)s)")
    add("--b2", type=between(0.0, 0.999999), default=0.999, help="adam: decay of their squares' mean (%(default)s)")
    add("--seed", type=between(0, 2**32), default=0, help="of weights, data order, crops and pool (%(default)s)")
    # machine
    add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
    add("--amp", action=switch, help="bfloat16 matrix products, float32 weights and losses (where the device has them)")
    add("--checkpoint_activations", action=switch, default=False, help="less memory, a third more time (%(default)s)")
    add("--graph", action=switch, help="replay the step as one CUDA graph (with one process on CUDA)")
    add("--compile", action=switch, default=False, help="torch.compile: slow to start, then faster (%(default)s)")
    # results
    add("--run_name", help="results go to saved_models/RUN_NAME and images/RUN_NAME (the data set's name)")
    add("--resume", action="store_true", help="go on from the newest checkpoint, with its options")
    add("--epoch", type=between(0), default=0, help="go on from the checkpoint kept after that many epochs")
    add("--log_interval", type=between(1), default=50, help="steps between two lines of losses (%(default)s)")
    add("--sample_interval", type=int, default=500, help="steps between two sample grids, 0 for none (%(default)s)")
    add("--checkpoint_interval", type=int, default=10, help="epochs between two checkpoints to keep (%(default)s)")
    # fmt: on
    return parser


def get_options(argv):
    """Command line -> (options, checkpoint to go on from or None). The command line wins over a checkpoint's options,
    those over the demo's defaults, and those over the parser's."""
    parser = get_parser()
    opt = parser.parse_args(argv)
    if opt.dataset_name == "demo":
        parser.set_defaults(**DEMO)
        opt = parser.parse_args(argv)
    run_name = opt.run_name or opt.dataset_name
    for flag, name in (("--dataset_name", opt.dataset_name), ("--run_name", run_name)):
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise InputError(f"{flag} {name!r}: must be the name of a folder, not a path; --data_dir takes a path")

    checkpoint = find_checkpoint(f"saved_models/{run_name}", opt.epoch) if opt.resume or opt.epoch else None
    if checkpoint:
        stored = {k: v for k, v in checkpoint["options"].items() if k not in NOT_RESUMED and hasattr(opt, k)}
        parser.set_defaults(**stored)
        opt = parser.parse_args(argv)
        for key in ARCHITECTURE:
            if getattr(opt, key) != stored.get(key):
                raise InputError(
                    f"--{key} {getattr(opt, key)}: {checkpoint['path']} was trained with {stored.get(key)}. "
                    "Leave the option out, or train anew without --resume and --epoch"
                )
    opt.run_name = run_name
    if opt.img_height % 4 or opt.img_width % 4:
        raise InputError(f"--img_height {opt.img_height} --img_width {opt.img_width}: must be divisible by 4")
    if opt.load_size and opt.load_size < min(opt.img_height, opt.img_width):
        raise InputError(f"--load_size {opt.load_size}: must not be smaller than the crop")
    return opt, checkpoint


##############################
#   One step
##############################

LOSS_NAMES = ("loss_D", "loss_G", "loss_GAN", "loss_cycle", "loss_identity")


def criterion_GAN(scores, label):
    """Least squares (paper, section 4; Mao et al., 2017): mean of (D(x) - label)^2, label 1 for real and 0 for fake.
    The mean is taken in float32."""
    return (scores.float() - label).square().mean()


criterion_cycle = torch.nn.L1Loss()
criterion_identity = torch.nn.L1Loss()


def generator_losses(networks, opt, real_A, real_B):
    """What the generators minimise, for images of both domains, (N, channels, H, W) in [-1, 1]
    -> (loss_G, loss_GAN, loss_cycle, loss_identity), fake_A, fake_B"""
    G_AB, G_BA, D_A, D_B = networks.values()
    zero = torch.zeros((), device=real_A.device)

    # An image of the target domain should stay as it is:
    #   L_identity = |G_BA(a) - a| + |G_AB(b) - b|               (paper, section 5.2)
    if opt.lambda_id > 0:
        # Each generator translates one domain and keeps the other, in one pass: instance norm looks at each image
        # alone, so the result is that of two passes.
        fake_B, same_B = G_AB(torch.cat((real_A, real_B))).chunk(2)
        fake_A, same_A = G_BA(torch.cat((real_B, real_A))).chunk(2)
        loss_identity = (criterion_identity(same_A, real_A) + criterion_identity(same_B, real_B)) / 2
    else:
        fake_B, fake_A, loss_identity = G_AB(real_A), G_BA(real_B), zero

    # A translation should look real to the other domain's discriminator:
    #   L_GAN = (D_B(G_AB(a)) - 1)^2 + (D_A(G_BA(b)) - 1)^2      (equation 1, least squares)
    loss_GAN_AB = criterion_GAN(D_B(fake_B), 1)
    loss_GAN_BA = criterion_GAN(D_A(fake_A), 1)
    loss_GAN = (loss_GAN_AB + loss_GAN_BA) / 2

    # There and back again should lead to where it began:
    #   L_cycle = |G_BA(G_AB(a)) - a| + |G_AB(G_BA(b)) - b|      (equation 2)
    if opt.lambda_cyc > 0:
        recov_A, recov_B = G_BA(fake_B), G_AB(fake_A)
        loss_cycle = (criterion_cycle(recov_A, real_A) + criterion_cycle(recov_B, real_B)) / 2
    else:
        loss_cycle = zero

    # equation 3; the means over both directions leave the ratio of the weights as in the paper
    loss_G = loss_GAN + opt.lambda_cyc * loss_cycle + opt.lambda_id * loss_identity
    return (loss_G, loss_GAN, loss_cycle, loss_identity), fake_A, fake_B


def discriminator_loss(D, real, fake):
    """L_D = ((D(real) - 1)^2 + D(fake)^2) / 2                   (section 7.1 asks for the half)"""
    scores_real, scores_fake = D(torch.cat((real, fake))).chunk(2)
    return (criterion_GAN(scores_real, 1) + criterion_GAN(scores_fake, 0)) / 2


def train_step(networks, optimizers, buffers, opt, amp, real_A, real_B, draws_A, draws_B):
    """One update of the generators and one of each discriminator -> their losses, (5,), in the order of LOSS_NAMES.

    real_A, real_B:   (N, channels, H, W) in [-1, 1]; they go through in opt.accumulate parts, whose gradients add up
    draws_A, draws_B: what the pools are to do with the N translations, see ReplayBuffer.draw
    """
    G_AB, G_BA, D_A, D_B = networks.values()
    fake_A_buffer, fake_B_buffer = buffers.values()
    parameters_G = [*G_AB.parameters(), *G_BA.parameters()]
    autocast = torch.autocast(real_A.device.type, torch.bfloat16, enabled=amp)
    n = opt.accumulate
    for optimizer in optimizers.values():
        optimizer.zero_grad()

    # ------------------
    #  Train Generators
    # ------------------

    losses_G, fakes_A, fakes_B = [], [], []
    for part_A, part_B in zip(real_A.chunk(n), real_B.chunk(n)):
        with autocast:
            losses, fake_A, fake_B = generator_losses(networks, opt, part_A, part_B)
        # `inputs`: the gradient flows through the discriminators, but theirs is not wanted here
        (losses[0] / n).backward(inputs=parameters_G)
        losses_G.append(torch.stack(losses).detach())
        fakes_A.append(fake_A.detach())
        fakes_B.append(fake_B.detach())
    # with several processes: the messages go out now, and are waited for when the discriminators are done
    finish_G = average_over_processes([p.grad for p in parameters_G])

    # ----------------------
    #  Train Discriminators
    # ----------------------

    losses_D = []
    pooled_A = fake_A_buffer.push_and_pop(torch.cat(fakes_A), draws_A)
    pooled_B = fake_B_buffer.push_and_pop(torch.cat(fakes_B), draws_B)
    for D, real, pooled in ((D_A, real_A, pooled_A), (D_B, real_B, pooled_B)):
        for part_real, part_pooled in zip(real.chunk(n), pooled.chunk(n)):
            with autocast:
                loss_D = discriminator_loss(D, part_real, part_pooled)
            (loss_D / n).backward()
            losses_D.append(loss_D.detach())
    finish_D = average_over_processes([p.grad for D in (D_A, D_B) for p in D.parameters()])

    finish_G()
    finish_D()
    for optimizer in optimizers.values():
        optimizer.step()
    return torch.stack((torch.stack(losses_D).mean(), *torch.stack(losses_G).mean(0)))


##############################
#   The run
##############################


def build(opt, device, graph=False, rank=0):
    """The networks, their optimizers and the pools of past translations -> three dicts by name."""
    torch.manual_seed(opt.seed)
    G_AB, G_BA = (GeneratorResNet(opt.channels, opt.n_residual_blocks, opt.ngf, opt.upsample) for _ in "AB")
    D_A, D_B = (Discriminator(opt.channels, opt.ndf) for _ in "AB")
    networks = {"G_AB": G_AB, "G_BA": G_BA, "D_A": D_A, "D_B": D_B}
    for network in networks.values():
        network.apply(weights_init_normal).to(device)
    G_AB.checkpoint_activations = G_BA.checkpoint_activations = opt.checkpoint_activations

    def adam(*networks):
        # A recorded step looks its learning rate up, so that must be a tensor. fused: one kernel for all weights
        lr = torch.tensor(opt.lr, device=device) if graph else opt.lr
        parameters = [p for network in networks for p in network.parameters()]
        fused = device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr, (opt.b1, opt.b2), fused=fused, capturable=graph)

    optimizers = {"optimizer_G": adam(G_AB, G_BA), "optimizer_D_A": adam(D_A), "optimizer_D_B": adam(D_B)}
    seed = 2 * (opt.seed + 1000 * rank)  # each pool of each process draws its own random numbers
    buffers = {f"fake_{domain}_buffer": ReplayBuffer(opt.pool_size, seed + i) for i, domain in enumerate("AB")}
    return networks, optimizers, buffers


def main(argv=None):
    opt, checkpoint = get_options(argv)
    saved, images = f"saved_models/{opt.run_name}", f"images/{opt.run_name}"
    if checkpoint and checkpoint["epoch"] >= opt.n_epochs:
        print(f"{checkpoint['path']}: {checkpoint['epoch']} epochs are done; a larger --n_epochs than that goes on")
        return
    device = choose_device(opt.device)
    rank, world_size = init_processes(device)
    say = print if rank == 0 else lambda *text: None
    amp = bfloat16_pays(device) if opt.amp is None else opt.amp
    graph = may_record(device) if opt.graph is None else opt.graph
    if graph and device.type != "cuda":
        raise InputError(f"--graph: {device} has no CUDA graphs. Leave it out")
    torch.backends.cudnn.benchmark = True  # all batches have one size, so the search for the fastest kernels pays

    # ----------
    #  Data
    # ----------

    img_size = (opt.img_height, opt.img_width)
    scale = opt.load_size / min(img_size) if opt.load_size else 286 / 256
    load_size = tuple(round(side * scale) for side in img_size)
    root = first_process_first(lambda: prepare_dataset(opt.dataset_name, opt.data_dir))
    dataset = ImageDataset(root, "train", True, img_size, load_size, opt.channels, opt.seed, opt.cache,
                           opt.skip_bad_images, opt.enlarge)  # fmt: skip
    sampler = EpochSampler(len(dataset), opt.batch_size * opt.accumulate, opt.seed, rank, world_size)
    dataloader = make_loader(dataset, sampler, opt.n_cpu, device)
    samples_A, samples_B = (fixed_images(dataset, root, domain, n=5).to(device) for domain in "AB")

    # ----------
    #  Networks
    # ----------

    networks, optimizers, buffers = build(opt, device, graph, rank)
    G_AB, G_BA, D_A, D_B = networks.values()
    decay = linear_decay(opt.n_epochs, opt.n_epochs // 2 if opt.decay_epoch is None else opt.decay_epoch)
    schedulers = {"lr_" + name: torch.optim.lr_scheduler.LambdaLR(o, decay) for name, o in optimizers.items()}

    first_epoch, first_batch, step = 0, 0, 0
    parts = networks | optimizers | schedulers  # what a checkpoint holds, by name
    if checkpoint:
        first_epoch, first_batch, step = (checkpoint[key] for key in ("epoch", "batch", "step"))
        # a run that was stopped after the last step of an epoch goes on with the schedulers' step, which is right
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        restore(checkpoint, parts)
        if rank < len(checkpoint["ranks"]):  # on more processes than before, the others begin with empty pools
            restore(checkpoint["ranks"][rank] | {"path": checkpoint["path"]}, buffers)
            torch.set_rng_state(checkpoint["ranks"][rank]["rng"])
    for optimizer, scheduler in zip(optimizers.values(), schedulers.values()):
        # --lr and --n_epochs as they are now, whatever they were when the run was started
        scheduler.base_lrs, lr = [opt.lr], opt.lr * decay(first_epoch)
        optimizer.param_groups[0]["lr"] = torch.tensor(lr, device=device) if graph else lr
    if opt.compile:
        for network in networks.values():
            network.compile(dynamic=False)  # in place: torch.compile(network) would rename the keys of its state dict
    update = functools.partial(train_step, networks, optimizers, buffers, opt, amp)
    update = recorded(update, say) if graph else update

    # ----------
    #  Folders, and what is printed before the first step
    # ----------

    if rank == 0:
        lock = lock_run(saved)  # noqa: F841 (held as long as it is referred to)
        prepare_folders(saved, images, checkpoint, resume=opt.resume and not opt.epoch)
    changed = as_typed(opt, get_parser(), but_for=(*NOT_RESUMED, "dataset_name", "data_dir"))
    say(describe(root, dataset, networks, f"{device}, {'bfloat16' if amp else 'float32'}", world_size, changed))
    if checkpoint:
        say(f"going on from {checkpoint['path']}: {first_epoch} epochs and {first_batch} batches done, step {step}")
        if (len(dataset), len(sampler)) != tuple(checkpoint["data"]):
            say("note: number of images, batch size or processes changed; the data order differs from now on")
            first_batch = first_batch * len(sampler) // checkpoint["data"][1]

    # ----------
    #  Training
    # ----------

    history = []  # losses since the last log line; they stay on the device, so that nothing waits for it
    n_steps = step + (opt.n_epochs - first_epoch) * len(sampler) - first_batch
    progress = Progress(f"{saved}/log.jsonl", step, n_steps, quiet=rank > 0)
    writer, started = Background(), time.monotonic()

    def log(epoch):
        losses = torch.stack(history)
        history.clear()
        average_over_processes([losses])()
        check_finite(
            losses, LOSS_NAMES, step, saved
        )  # but for samples and checkpoints, only here the device is waited for
        values = dict(zip(LOSS_NAMES, losses.mean(0).tolist()))
        images_per_step = 2 * opt.batch_size * opt.accumulate * world_size
        lr = float(optimizers["optimizer_G"].param_groups[0]["lr"])
        progress.update(step, images_per_step, device, epoch=epoch, lr=lr, **values)

    def save(epoch, batch, keep=False):
        """All that a run needs to go on as if it had not stopped: after `epoch` epochs and `batch` batches."""
        weights = torch.stack([p.detach().sum() for n in networks.values() for p in n.parameters()]).sum()
        check_finite(weights.view(1, 1), ["sum of all weights"], step, saved)
        ranks = gather({"rng": torch.get_rng_state(), **{name: b.state_dict() for name, b in buffers.items()}})
        if rank == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= dict(epoch=epoch, batch=batch, step=step, ranks=ranks, data=[len(dataset), len(sampler)])
            state |= dict(version=1, options=vars(opt))
            writer.start(save_run, copy_to_cpu(state), saved, keep)

    def sample():
        if rank == 0:
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                grid = sample_images(G_AB, G_BA, samples_A, samples_B)
            writer.start(save_image, grid, f"{images}/{step:06d}.png")

    def batches(epoch, done):
        """The batches of an epoch. If an image turns out to be broken, what was done so far is saved first."""
        try:
            for batch in dataloader:
                yield done, batch
                done += 1
        except InputError:
            if world_size == 1:  # one process alone cannot save for all
                save(epoch, done)
                writer.finish()
            raise

    stop = StopSignal()
    if step == 0 and opt.sample_interval > 0:
        sample()  # what untrained networks make of the images
    for epoch in range(first_epoch, opt.n_epochs):
        sampler.set_position(epoch, first_batch)
        for i, batch in batches(epoch, first_batch):
            draws = (buffer.draw(len(batch["A"])) for buffer in buffers.values())
            inputs = (tensor.to(device, non_blocking=True) for tensor in (batch["A"], batch["B"], *draws))
            history.append(update(*inputs))
            step += 1
            if step % opt.log_interval == 0 or step == progress.first_step + 1:
                log(epoch)
            if opt.sample_interval > 0 and step % opt.sample_interval == 0:
                sample()
            if stop.requested():
                if history:
                    log(epoch)
                save(epoch, i + 1)
                writer.finish()
                progress.end_line()
                say(f"stopped by a signal after step {step}; all is in {saved}/latest.pth, --resume goes on from there")
                return 128 + stop.number

        first_batch = 0
        if history:
            log(epoch)
        for scheduler in schedulers.values():
            scheduler.step()
        due = opt.checkpoint_interval > 0 and (epoch + 1) % opt.checkpoint_interval == 0
        save(epoch + 1, 0, keep=due or epoch + 1 == opt.n_epochs)

    stop.restore()
    sample()
    writer.finish()
    progress.end_line()
    say(f"done in {duration(time.monotonic() - started)}, {what_was_written(opt, saved, images, step)}")
    if opt.dataset_name == "demo" and opt.channels == 3 and rank == 0 and os.path.isdir(f"{root}/test_mask"):
        from demo_data import score

        score(G_AB, G_BA, root, device)


if __name__ == "__main__":
    run(main)
