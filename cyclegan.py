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
import copy
import functools
import math
import os
import time

import torch

from get_data import prepare_dataset
from models import in_one_pass, weights_init_normal
from training.averages import average_weights
from training.checkpoints import copy_to_cpu, lock_run, prepare_folders, restore, save_run
from training.cuda_graph import recorded, use_graph
from training.health import check_finite
from training.loading import batches, open_data
from training.monitor import Monitor
from training.options import NOT_RESUMED, implied, is_done, read_options
from training.processes import (
    StopSignal,
    average_over_processes,
    first_process_first,
    gather,
    init_processes,
    random_state,
    set_random_state,
)
from training.progress import as_typed, describe, duration, what_was_written
from utils import ReplayBuffer, between, bfloat16_pays, choose_device, evaluating, run
from variants.augment import diff_augment
from variants.build import channels_of, make_discriminator, make_generator, use_spectral_norm
from variants.losses import extra_losses, hinge, load_vgg, needs_cycle, needs_vgg, vanilla
from variants.options import add_variants, loss_names
from variants.schedules import count_A, lr_scheduler, size_at, turns
from variants.weights import load_encoders

# What the demo needs to be done on a laptop; the command line wins over it. So short a training gains from a long decay
DEMO = dict(img_height=64, img_width=64, n_residual_blocks=3, ngf=24, ndf=32, upsample="nearest", n_epochs=6,
            decay_epoch=2, lr=0.0005, sample_interval=100)  # fmt: skip


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
    add("--channels", type=int, choices=(1, 3), default=3, help="1 gray, 3 RGB; others: --channels_A, _B (%(default)s)")
    # networks
    add("--n_residual_blocks", type=between(0, 1000), default=9, help="9 from 256 pixels on, 6 for 128 (%(default)s)")
    add("--ngf", type=between(1, 4096), default=64, help="filters of the generators' first layer (%(default)s)")
    add("--ndf", type=between(1, 4096), default=64, help="filters of the discriminators' first layer (%(default)s)")
    add("--upsample", default="transpose", choices=("transpose", "nearest"), help="nearest: no checkers (%(default)s)")
    # losses
    add("--lambda_cyc", type=between(0.0), default=10.0, help="weight of the cycle loss (%(default)s)")
    add("--lambda_id", type=between(0.0), default=5.0, help="weight of the identity loss: keeps colours (%(default)s)")
    add("--pool_size", type=between(0), default=50, help="past translations shown to the discriminators (%(default)s)")
    # optimisation
    add("--n_epochs", type=between(1, 10**9), default=200, help="steps: images of the larger domain (%(default)s)")
    add("--decay_epoch", type=between(0), help="epoch from which the learning rate falls to 0 (half of n_epochs)")
    add("--batch_size", type=between(1, 10**6), default=1, help="images a domain and step, per process (%(default)s)")
    add("--lr", type=between(0.0), default=0.0002, help="adam: learning rate (%(default)s)")
    add("--b1", type=between(0.0, 0.999999), default=0.5, help="adam: decay of the gradients' mean (%(default)s)")
    add("--b2", type=between(0.0, 0.999999), default=0.999, help="adam: decay of their squares' mean (%(default)s)")
    add("--seed", type=between(0, 2**32), default=0, help="of weights, data order, crops and pool (%(default)s)")
    # machine
    add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
    add("--amp", action=switch, help="bfloat16 matrix products, float32 weights and losses (where the device has them)")
    # results
    add("--run_name", help="results go to saved_models/RUN_NAME and images/RUN_NAME (the data set's name)")
    add("--resume", action="store_true", help="go on from the newest checkpoint, with its options")
    add("--epoch", type=between(0), default=0, help="go on from the checkpoint kept after that many epochs")
    add("--log_interval", type=between(1), default=50, help="steps between two lines of losses (%(default)s)")
    add("--sample_interval", type=int, default=500, help="steps between two sample grids, 0 for none (%(default)s)")
    add("--checkpoint_interval", type=int, default=10, help="epochs between two checkpoints to keep (%(default)s)")
    # fmt: on
    add_variants(parser)  # other networks, losses and schedules, all off by default: options.py
    return parser


def get_options(argv):
    return read_options(get_parser(), argv, DEMO)


##############################
#   One step
##############################


def criterion_GAN(scores, label, kind="lsgan", of_generator=False):
    """Least squares (paper, section 4; Mao et al., 2017): mean of (D(x) - label)^2, label 1 for real and 0 for fake.
    The mean is taken in float32."""
    if kind == "lsgan":
        return (scores.float() - label).square().mean()
    return vanilla(scores, label) if kind == "vanilla" else hinge(scores, label, of_generator)


criterion_cycle = torch.nn.L1Loss()
criterion_identity = torch.nn.L1Loss()


def generator_losses(networks, opt, real_A, real_B, paired=None):
    """What the generators minimise, for images of both domains, (N, channels, H, W) in [-1, 1]
    -> [loss_G, loss_GAN, loss_cycle, loss_identity, extra losses], fake_A, fake_B"""
    G_AB, G_BA, D_A, D_B = networks.values()
    zero = torch.zeros((), device=real_A.device)

    # An image of the target domain should stay as it is:
    #   L_identity = |G_BA(a) - a| + |G_AB(b) - b|               (paper, section 5.2)
    if opt.lambda_id > 0:
        # Each generator translates one domain and keeps the other, in one pass: instance norm looks at each image
        # alone, so the result is that of two passes.
        fake_B, same_B = in_one_pass(G_AB, real_A, real_B)
        fake_A, same_A = in_one_pass(G_BA, real_B, real_A)
        loss_identity = (criterion_identity(same_A, real_A) + criterion_identity(same_B, real_B)) / 2
    else:
        fake_B, fake_A, loss_identity = G_AB(real_A), G_BA(real_B), zero

    # A translation should look real to the other domain's discriminator:
    #   L_GAN = (D_B(G_AB(a)) - 1)^2 + (D_A(G_BA(b)) - 1)^2      (equation 1, least squares)
    loss_GAN_AB = criterion_GAN(D_B(fake_B), 1, opt.gan_loss, of_generator=True)
    loss_GAN_BA = criterion_GAN(D_A(fake_A), 1, opt.gan_loss, of_generator=True)
    loss_GAN = (loss_GAN_AB + loss_GAN_BA) / 2

    # There and back again should lead to where it began:
    #   L_cycle = |G_BA(G_AB(a)) - a| + |G_AB(G_BA(b)) - b|      (equation 2)
    loss_cycle, recov_A, recov_B = zero, None, None
    if needs_cycle(opt):
        recov_A, recov_B = G_BA(fake_B), G_AB(fake_A)
        loss_cycle = (criterion_cycle(recov_A, real_A) + criterion_cycle(recov_B, real_B)) / 2

    # equation 3; the means over both directions leave the ratio of the weights as in the paper
    loss_G = loss_GAN + opt.lambda_cyc * loss_cycle + opt.lambda_id * loss_identity

    # What else was asked for, by --lambda_ssim and others: none by default
    extra = extra_losses(opt, networks, real_A, real_B, fake_A, fake_B, recov_A, recov_B, paired)
    for name, loss in extra.items():
        loss_G = loss_G + getattr(opt, "lambda_" + name) * loss
    return [loss_G, loss_GAN, loss_cycle, loss_identity, *extra.values()], fake_A, fake_B


def discriminator_loss(D, opt, real, fake):
    """L_D = ((D(real) - 1)^2 + D(fake)^2) / 2                   (section 7.1 asks for the half)"""
    scores_real, scores_fake = in_one_pass(D, real, fake)
    loss_real = criterion_GAN(scores_real, 1 - opt.label_smoothing, opt.gan_loss)
    return (loss_real + criterion_GAN(scores_fake, 0, opt.gan_loss)) / 2


def train_step(networks, optimizers, buffers, opt, amp, real_A, real_B, draws_A, draws_B, paired=None,
               train_G=True, train_D=True):  # fmt: skip
    """One update of the generators and one of each discriminator -> their losses, in the order of loss_names.

    real_A, real_B:   (N, channels, H, W) in [-1, 1]; they go through in opt.accumulate parts, whose gradients add up
    draws_A, draws_B: what the pools are to do with the N translations, see ReplayBuffer.draw
    paired:           (N,), 1 where the images of A and B are counterparts, 0 elsewhere; for --lambda_paired
    train_G, train_D: whether it is their turn; see --n_critic and --n_gen
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
    pairs = [None] * n if paired is None else paired.chunk(n)
    for part_A, part_B, pair in zip(real_A.chunk(n), real_B.chunk(n), pairs):
        with autocast, torch.set_grad_enabled(train_G):
            losses, fake_A, fake_B = generator_losses(networks, opt, part_A, part_B, pair)
        if train_G:
            # `inputs`: the gradient flows through the discriminators, but theirs is not wanted here
            (losses[0] / n).backward(inputs=parameters_G)
        losses_G.append(torch.stack(losses).detach())
        fakes_A.append(fake_A.detach())
        fakes_B.append(fake_B.detach())
    # with several processes: the messages go out now, and are waited for when the discriminators are done
    finish_G = average_over_processes([p.grad for p in parameters_G if p.grad is not None])

    # ----------------------
    #  Train Discriminators
    # ----------------------

    losses_D = []
    pooled_A = fake_A_buffer.push_and_pop(torch.cat(fakes_A), draws_A)
    pooled_B = fake_B_buffer.push_and_pop(torch.cat(fakes_B), draws_B)
    for D, real, pooled in ((D_A, real_A, pooled_A), (D_B, real_B, pooled_B)):
        for part_real, part_pooled in zip(real.chunk(n), pooled.chunk(n)):
            with autocast, torch.set_grad_enabled(train_D):
                loss_D = discriminator_loss(D, opt, part_real, part_pooled)
            if train_D:
                (loss_D / n).backward()
            losses_D.append(loss_D.detach())
    finish_D = average_over_processes([p.grad for D in (D_A, D_B) for p in D.parameters() if p.grad is not None])

    finish_G()
    finish_D()
    if opt.clip_grad:
        for network in networks.values():
            torch.nn.utils.clip_grad_norm_(network.parameters(), opt.clip_grad)
    for name, optimizer in optimizers.items():
        turn = train_G if name == "optimizer_G" else train_D
        if turn:
            optimizer.step()
    return torch.stack((torch.stack(losses_D).mean(), *torch.stack(losses_G).mean(0)))


##############################
#   The run
##############################


def build(opt, device, graph=False, rank=0):
    """The networks, their optimizers and the pools of past translations -> three dicts by name."""
    torch.manual_seed(opt.seed)
    channels_A, channels_B = channels = channels_of(vars(opt))
    G_AB = make_generator(vars(opt), channels_A, channels_B)  # GeneratorResNet, if nothing else is asked for
    G_BA = make_generator(vars(opt), channels_B, channels_A)
    D_A, D_B = (make_discriminator(vars(opt), n) for n in channels)  # Discriminator
    networks = {"G_AB": G_AB, "G_BA": G_BA, "D_A": D_A, "D_B": D_B}
    for network in networks.values():
        network.apply(weights_init_normal).to(device)
    for D in (D_A, D_B):
        if opt.spectral_norm:
            use_spectral_norm(D)
        if opt.diffaugment:
            D.register_forward_pre_hook(lambda D, images: diff_augment(*images) if D.training else None)
    if needs_vgg(opt):
        load_vgg(opt.vgg_weights, device)  # now, as it may fail
    G_AB.checkpoint_activations = G_BA.checkpoint_activations = opt.checkpoint_activations
    torch.manual_seed(opt.seed + rank)  # from here on dice are thrown in each process: dropout, diffaugment

    def adam(lr, *networks):
        # A recorded step looks its learning rate up, so that must be a tensor. fused: one kernel for all weights
        lr = torch.tensor(lr, device=device) if graph else lr
        parameters = [p for network in networks for p in network.parameters()]
        fused = device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr, (opt.b1, opt.b2), fused=fused, capturable=graph)

    lr_G, lr_D = (opt.lr if lr is None else lr for lr in (opt.lr_G, opt.lr_D))
    optimizers = {"optimizer_G": adam(lr_G, G_AB, G_BA)}
    optimizers |= {"optimizer_D_A": adam(lr_D, D_A), "optimizer_D_B": adam(lr_D, D_B)}
    seed = 2 * (opt.seed + 1000 * rank)  # each pool of each process draws its own random numbers
    buffers = {f"fake_{domain}_buffer": ReplayBuffer(opt.pool_size, seed + i) for i, domain in enumerate("AB")}
    return networks, optimizers, buffers


def main(argv=None):
    opt, checkpoint = get_options(argv)
    saved, images = f"saved_models/{opt.run_name}", f"images/{opt.run_name}"
    if checkpoint and is_done(checkpoint, opt):
        return
    device = choose_device(opt.device)
    rank, world_size = init_processes(device)
    say = print if rank == 0 else lambda *text: None
    amp = bfloat16_pays(device) if opt.amp is None else opt.amp
    graph = use_graph(opt, device)
    torch.backends.cudnn.benchmark = True  # sizes hardly change, so the search for the fastest kernels pays

    # ----------
    #  Data
    # ----------

    root = first_process_first(lambda: prepare_dataset(opt.dataset_name, opt.data_dir))
    first_epoch, first_batch, step = 0, 0, 0
    if checkpoint:
        first_epoch, first_batch, step = (checkpoint[key] for key in ("epoch", "batch", "step"))
    open_at = functools.partial(open_data, opt, root, device, rank, world_size)
    dataset, sampler, dataloader, samples = open_at(size_at(opt, first_epoch))
    if opt.n_iters:
        opt.n_epochs = first_epoch + math.ceil((opt.n_iters - step + first_batch) / len(sampler))

    # ----------
    #  Networks
    # ----------

    networks, optimizers, buffers = build(opt, device, graph, rank)
    G_AB, G_BA, D_A, D_B = networks.values()
    if checkpoint:
        restore(checkpoint, networks | optimizers)
        if rank < len(checkpoint["ranks"]):  # on more processes than before, the others begin with empty pools
            restore(checkpoint["ranks"][rank] | {"path": checkpoint["path"]}, buffers)
            set_random_state(checkpoint["ranks"][rank], device)
    elif opt.generator == "pretrained":
        load_encoders((G_AB, G_BA), opt.encoder_weights)
    shown, averages = {"G_AB": G_AB, "G_BA": G_BA}, {}
    if opt.ema:  # what is shown, and used later, are the generators' averages over the last steps
        shown = copy.deepcopy(shown)
        averages = {"ema_" + name: G for name, G in shown.items()}
        if checkpoint and averages.keys() <= checkpoint.keys():
            restore(checkpoint, averages)
    next_lr = lr_scheduler(optimizers.values(), opt, len(sampler), first_epoch, step)
    if opt.compile:
        for network in networks.values():
            network.compile(dynamic=False)  # in place: torch.compile(network) would rename the keys of its state dict

    def new_step():
        step = functools.partial(train_step, networks, optimizers, buffers, opt, amp)
        return recorded(step, say) if graph else step

    # ----------
    #  Folders, and what is printed before the first step
    # ----------

    if rank == 0:
        lock = lock_run(saved)  # noqa: F841 (held as long as it is referred to)
        prepare_folders(saved, images, checkpoint, resume=opt.resume and not opt.epoch)
    changed = as_typed(opt, get_parser(), but_for=(*NOT_RESUMED, *implied(opt)))
    say(describe(root, dataset, networks, f"{device}, {'bfloat16' if amp else 'float32'}", world_size, changed))
    if checkpoint:
        say(f"going on from {checkpoint['path']}: {first_epoch} epochs and {first_batch} batches done, step {step}")
        if (len(dataset), len(sampler)) != tuple(checkpoint["data"]):
            say("note: number of images, batch size or processes changed; the data order differs from now on")
            first_batch = first_batch * len(sampler) // checkpoint["data"][1]

    # ----------
    #  Training
    # ----------

    history, names = [], loss_names(opt)  # losses since the last log line; on the device, so that nothing waits for it
    n_steps = opt.n_iters or step + (opt.n_epochs - first_epoch) * len(sampler) - first_batch
    monitor = Monitor(opt, saved, images, device, amp, step, n_steps, quiet=rank > 0)
    update, started = new_step(), time.monotonic()

    def log(epoch):
        losses = torch.stack(history)
        history.clear()
        average_over_processes([losses])()
        # but for samples and checkpoints, only here the device is waited for
        check_finite(losses, names, step, saved)
        images_per_step = (n_A + n_B) * world_size
        lr = float(optimizers["optimizer_G"].param_groups[0]["lr"])
        monitor.losses(step, images_per_step, epoch=epoch, lr=lr, **dict(zip(names, losses.mean(0).tolist())))

    def save(epoch, batch, keep=0):
        """All that a run needs to go on as if it had not stopped: after `epoch` epochs and `batch` batches."""
        weights = torch.stack([p.detach().sum() for n in networks.values() for p in n.parameters()]).sum()
        check_finite(weights.view(1, 1), ["sum of all weights"], step, saved)
        ranks = gather(random_state(device) | {name: b.state_dict() for name, b in buffers.items()})
        if rank == 0:
            state = {name: part.state_dict() for name, part in (networks | averages | optimizers).items()}
            state |= dict(epoch=epoch, batch=batch, step=step, ranks=ranks, data=[len(dataset), len(sampler)])
            state |= dict(version=1, options=vars(opt))
            monitor.background.start(save_run, copy_to_cpu(state), saved, keep)

    def rescue(epoch, batch):
        """If an image turns out to be broken, what was done so far is saved first."""
        if world_size == 1:  # one process alone cannot save for all
            save(epoch, batch)
            monitor.background.finish()

    stop = StopSignal()
    if step == 0 and opt.sample_interval > 0:
        monitor.samples(step, shown, D_A, D_B, samples)  # what untrained networks make of the images
    for epoch in range(first_epoch, opt.n_epochs):
        if size_at(opt, epoch) != dataset.img_size:  # --progressive: the same networks at the next size
            dataset, sampler, dataloader, samples = open_at(size_at(opt, epoch))
            update = new_step()
        n_A, n_B = count_A(opt, epoch), opt.batch_size * opt.accumulate
        sampler.set_position(epoch, first_batch, max(n_A, n_B))
        left = batches(dataloader, first_batch, n_A, n_B, functools.partial(rescue, epoch))
        for i, (real_A, real_B, *paired) in left:
            draws = buffers["fake_A_buffer"].draw(n_B), buffers["fake_B_buffer"].draw(n_A)
            tensors = (tensor.to(device, non_blocking=True) for tensor in (real_A, real_B, *draws, *paired))
            history.append(update(*tensors, **turns(opt, step)))
            step += 1
            if opt.ema:
                average_weights(shown, networks, opt.ema, step)
            if step % opt.log_interval == 0 or step == monitor.first_step + 1:
                log(epoch)
            if opt.n_iters:
                next_lr()
            if opt.sample_interval > 0 and step % opt.sample_interval == 0:
                monitor.samples(step, shown, D_A, D_B, samples)
            if step == opt.n_iters:
                break
            if stop.requested():
                if history:
                    log(epoch)
                save(epoch, i + 1)
                monitor.close()
                say(f"stopped by a signal after step {step}; all is in {saved}/latest.pth, --resume goes on from there")
                return 128 + stop.number

        first_batch = 0
        if history:
            log(epoch)
        if not opt.n_iters:
            next_lr()
        due = opt.checkpoint_interval > 0 and (epoch + 1) % opt.checkpoint_interval == 0
        within = step == opt.n_iters and i + 1 < len(sampler)
        position = (epoch, i + 1) if within else (epoch + 1, 0)
        save(*position, keep=epoch + 1 if due or epoch + 1 == opt.n_epochs else 0)
        if opt.val_interval and (epoch + 1) % opt.val_interval == 0:
            monitor.validate(step, epoch, shown, root, dataset.img_size)

    stop.restore()
    monitor.samples(step, shown, D_A, D_B, samples)
    monitor.close()
    say(f"done in {duration(time.monotonic() - started)}, {what_was_written(opt, saved, images, step)}")
    has_answers = os.path.isdir(f"{root}/test_mask") and channels_of(vars(opt)) == (3, 3)
    if opt.dataset_name == "demo" and has_answers and rank == 0:
        from get_data.demo import score

        with evaluating(*shown.values()):
            score(*shown.values(), root, device)


if __name__ == "__main__":
    run(main)
