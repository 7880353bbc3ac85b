"""
Makes a trained CycleGAN smaller, in one of two ways.

    python compress.py prune --checkpoint saved_models/horse2zebra/latest.pth --keep 0.7
    python compress.py distill --checkpoint saved_models/horse2zebra/latest.pth --direction AB

prune takes the channels with the smallest weights out of both generators and trains them on, as cyclegan.py does: the
result is an ordinary run. distill teaches a new, small generator what the trained one does, in one direction. Both end
with a table of what it cost before and after, and how good it was, on the same test images.

Pruning needs torch-pruning: pip install torch-pruning
"""

import argparse
import copy
import functools
import os
import time

import torch
from torch import nn

import cyclegan
from datasets import find_folder
from deploy.distillation import distill_step, make_student
from get_data import prepare_dataset
from inference.exported import is_exported
from inference.load import generator_in
from measuring.evaluation import evaluate
from measuring.report import before_and_after
from measuring.timing import COUNTING, costs, in_rounds, noise
from media.files import file_size, load_file, save_file
from models import GeneratorResNet
from training.checkpoints import copy_to_cpu, lock_run, prepare_folders, restore
from training.health import check_finite
from training.loading import batches, open_data
from training.options import check_name
from training.processes import StopSignal, random_state, set_random_state
from training.progress import Progress, duration
from utils import InputError, ReplayBuffer, between, bfloat16_pays, choose_device, draw_grid, run, save_image
from variants.build import GENERATOR_OPTIONS, generator_file, make_generator
from variants.schedules import lr_factor

# What --resume takes over from a distillation that was begun
DISTILL_OPTIONS = ("direction", "n_residual_blocks", "separable", "ngf", "fewer_products", "fewer_parameters", "lr",
                   "lambda_out", "lambda_feat", "lambda_gan", "lambda_perceptual", "batch_size")  # fmt: skip


def get_parser():
    parser = argparse.ArgumentParser(description="Make a trained CycleGAN smaller.")
    ways = parser.add_subparsers(dest="way", required=True, help="each has a --help of its own")
    switch = argparse.BooleanOptionalAction
    prune = ways.add_parser("prune", help="take channels out of both generators, and train them on")
    distill = ways.add_parser("distill", help="teach a small generator what the trained one does")
    # fmt: off
    for name, way in (("pruned", prune), ("student", distill)):
        way.description, add = "In brackets: the default.", way.add_argument
        add("--checkpoint", required=True, help="latest.pth or checkpoint_N.pth of a training")
        add("--run_name", help=f"results go to saved_models/RUN_NAME, images/RUN_NAME (the training's + _{name})")
        add("--data_dir", help="folder of the data sets (that of the training)")
        add("--n_epochs", type=between(0, 10**9), help="epochs of training (20)")
        add("--batch_size", type=between(1, 10**6), help="images a domain and step (that of the training)")
        add("--sample_interval", type=int, default=500, help="steps between two sample grids, 0: none (%(default)s)")
        add("--paired", action="store_true", help="measure as evaluate.py --paired does, too")
        add("--palette", choices=("cityscapes",), help="measure as evaluate.py --palette does, too")
        add("--resume", action="store_true", help="go on where it stopped, with its options (but --n_epochs)")
        add("--device", help="cuda, cuda:1, mps or cpu (the best one at hand)")
        add("--amp", action=switch, help="train with bfloat16 matrix products (where the device has them)")
    add = prune.add_argument
    add("--keep", type=between(0.01, 1.0), default=0.7, help="share of the channels that stay (%(default)s)")
    add("--lr", type=between(0.0), default=0.0001, help="learning rate; falls from half of the epochs on (%(default)s)")
    add = distill.add_argument
    add("--direction", choices=("AB", "BA"), default="AB", help="which generator teaches (%(default)s)")
    add("--n_residual_blocks", type=between(0, 1000), help="of the student (half of the teacher's or a bit less)")
    add("--separable", action=switch, default=False, help="depthwise separable residual blocks (%(default)s)")
    add("--ngf", type=between(1, 4096), help="filters of the student's first layer (as many as the next two allow)")
    add("--fewer_products", type=between(1.0), default=20.0, help="times fewer multiply-adds, at least (%(default)s)")
    add("--fewer_parameters", type=between(1.0), default=30.0, help="times fewer parameters, at least (%(default)s)")
    add("--lr", type=between(0.0), default=0.0005, help="learning rate; falls from half of the epochs on (%(default)s)")
    add("--lambda_out", type=between(0.0), default=10.0, help="L1 to the teacher's translation (%(default)s)")
    add("--lambda_feat", type=between(0.0), default=1.0, help="distance to the teacher's features (%(default)s)")
    add("--lambda_gan", type=between(0.0), default=1.0, help="adversarial loss (%(default)s)")
    add("--lambda_perceptual", type=between(0.0), default=0.0, help="L1 of VGG's features (%(default)s)")
    add("--vgg_weights", help="perceptual: file of torchvision's vgg16 weights, where there is no network")
    add("--log_interval", type=between(1), default=50, help="steps between two lines of losses (%(default)s)")
    # fmt: on
    return parser


##############################
#   What is made smaller, and what came of it
##############################


def read_training(opt):
    """-> the checkpoint, the options of its training with what is asked for now laid over them, and with --resume the
    checkpoint to go on from, else None. What `opt` leaves open is filled in."""
    if is_exported(opt.checkpoint):
        raise InputError(f"--checkpoint {opt.checkpoint}: is exported already; name the training that it was made of")
    state = load_file(opt.checkpoint)
    needed = {"options", "epoch", "data", "G_AB", "G_BA", "D_A", "D_B"}
    if not isinstance(state, dict) or not needed <= state.keys() or not isinstance(state["options"], dict):
        raise InputError(f"{opt.checkpoint}: {opt.way} needs a whole training, its latest.pth or checkpoint_N.pth")
    trained = os.path.basename(os.path.dirname(os.path.abspath(opt.checkpoint)))
    run_name = opt.run_name or trained + {"prune": "_pruned", "distill": "_student"}[opt.way]
    check_name("--run_name", run_name)
    if run_name == trained:
        raise InputError(f"--run_name {run_name}: is the training's own, which is to stay as it is")
    begun = None
    if opt.resume:
        path = f"saved_models/{run_name}/latest.pth"
        if not os.path.exists(path):
            raise InputError(f"--resume: there is no {path} to go on from. Leave --resume out")
        begun = load_file(path) | {"path": path}
        stored = begun.get("distill" if opt.way == "distill" else "options")
        if not isinstance(stored, dict) or begun.get("step") is None:
            raise InputError(f"--resume: {path} is not of compress.py {opt.way}")
        n_begun = begun["epoch"] + (begun["batch"] > 0)
        opt.n_epochs = max(n_begun, stored["n_epochs"] if opt.n_epochs is None else opt.n_epochs)
        if opt.way == "distill":
            if os.path.abspath(stored["checkpoint"]) != os.path.abspath(opt.checkpoint):
                raise InputError(
                    f"--resume: {path} learns from {stored['checkpoint']}. Name that, or another --run_name"
                )
            vars(opt).update({name: stored[name] for name in DISTILL_OPTIONS})
    opt.n_epochs = 20 if opt.n_epochs is None else opt.n_epochs

    defaults = vars(cyclegan.get_parser().parse_args([]))
    options = defaults | {name: value for name, value in state["options"].items() if name in defaults}
    # the schedule is that of this training, not of the one before
    options |= dict(n_iters=None, progressive=None, decay_epoch=None, lr_schedule="linear", lr_G=None, lr_D=None)
    options |= dict(resume=False, epoch=0, checkpoint_interval=0, n_epochs=opt.n_epochs, lr=opt.lr, amp=opt.amp)
    options |= dict(device=opt.device, sample_interval=opt.sample_interval, run_name=run_name)
    options |= {name: getattr(opt, name) for name in ("data_dir", "batch_size") if getattr(opt, name)}
    return state, argparse.Namespace(**options), begun


def quality(opt, options, checkpoint, counterpart=None):
    """What evaluate.py says -> {direction: {measure: value}}; {} where it cannot."""
    try:
        (values,) = evaluate(
            checkpoint, counterpart=counterpart, direction=getattr(opt, "direction", None),
            dataset_name=options.dataset_name, data_dir=options.data_dir, img_height=options.img_height,
            img_width=options.img_width, paired=opt.paired, palette=opt.palette, device=opt.device,
            amp=False if opt.amp is False else None,
        ).values()  # fmt: skip
        return values
    except InputError as error:
        print(f"note: no quality: {error}")
        return {}


def report(before, after, qualities, options, device, path):
    """The table at the end. before, after: a generator, and what its file holds; qualities: of both, as quality();
    path: of the result"""
    size = options.img_height, options.img_width

    def forward(G):
        x = noise(1, max(size), device)[:, :1, : size[0], : size[1]].repeat(1, G.channels, 1, 1)
        G = copy.deepcopy(G).to(device).eval()
        return torch.no_grad()(lambda: G(x))

    builds = {"before": lambda: forward(before[0]), "after": lambda: forward(after[0])}
    times = in_rounds(builds, device, rounds=3, runs=5)
    (parameters, products), (parameters_after, products_after) = costs(before[0], size), costs(after[0], size)
    rows = [
        ("parameters, M", parameters / 1e6, parameters_after / 1e6),
        (f"multiply-adds at {size[1]} x {size[0]}, G", products / 1e9, products_after / 1e9),
        ("file of one generator, MB", file_size(before[1]) / 1e6, file_size(after[1]) / 1e6),
        (f"images/s, {device}, float32, one at a time", *(1 / row["seconds"] for row in times.values())),
    ]
    print("\n" + "\n".join(before_and_after(rows, *qualities)))
    print(COUNTING)
    print("to use it:")
    print(f"    python translate.py --checkpoint {path} --input photo.jpg --size {min(size)}")
    print(f"    python export.py --checkpoint {path}")


##############################
#          Prune
##############################


def prune(opt):
    """Channels go out, and what is left is trained on by cyclegan.py, as a run like any other."""
    state, options, begun = read_training(opt)
    if options.attention or options.generator == "pretrained":
        kind = "--attention" if options.attention else "--generator pretrained"
        raise InputError(
            f"{opt.checkpoint}: was trained with {kind}, whose widths are fixed; distill takes any teacher"
        )
    saved, images = f"saved_models/{options.run_name}", f"images/{options.run_name}"
    generators = {d: generator_in(state, opt.checkpoint, d).network for d in ("AB", "BA")}
    small = argparse.Namespace(**vars(options) | {"ngf": max(1, round(opt.keep * options.ngf))})
    if begun and any(begun["options"].get(name) != getattr(small, name) for name in GENERATOR_OPTIONS):
        raise InputError(
            f"--resume: {begun['path']} is not {opt.checkpoint} with --keep {opt.keep:g}, which would have {small.ngf} "
            "filters in the first layer. Ask for what it was begun with, or name another --run_name"
        )
    pruned = {} if begun else {d: without_channels(G, options, small) for d, G in generators.items()}
    root = prepare_dataset(options.dataset_name, options.data_dir)
    for domain in "AB":
        find_folder(root, "train", domain)  # if it is not there, nothing is begun
    before = quality(opt, options, opt.checkpoint)
    if not begun:
        parts, optimizers, buffers = cyclegan.build(small, torch.device("cpu"))
        parts |= {f"G_{d}": G for d, G in pruned.items()}
        start = {name: part.state_dict() for name, part in (parts | optimizers).items()}
        start |= {name: state[name] for name in ("D_A", "D_B", "data")}
        rank = random_state(torch.device("cpu")) | {name: buffer.state_dict() for name, buffer in buffers.items()}
        start |= dict(version=1, options=vars(small), epoch=0, batch=0, step=0, ranks=[rank])
        lock = lock_run(saved)
        prepare_folders(saved, images, None, resume=False)
        save_file(start, f"{saved}/latest.pth")
        if lock:
            lock.close()  # for cyclegan.py to take
        print(f"{saved}/latest.pth: {small.ngf} filters in the first layer where there were {options.ngf}")
    words = ["--run_name", options.run_name, "--resume", f"--n_epochs={opt.n_epochs}"]
    status = cyclegan.main(words + ([f"--device={opt.device}"] if opt.device else [])) if opt.n_epochs else None
    if status:
        return status
    path = f"{saved}/latest.pth"
    result = load_file(path)
    after = quality(opt, options, path)
    G = generator_in(result, path, "AB").network
    networks = (generators["AB"], generator_file(state, "AB")), (G, generator_file(result, "AB"))
    report(*networks, (before, after), options, choose_device(opt.device), path)


def without_channels(G, options, small):
    """Pruning by L1 norm (Li et al., 2017, arXiv:1608.08710): the channels whose weights, on the way in and out, are
    smallest go. Those that depend on each other go together, such as all that the residual blocks add up.
    -> a generator as the options `small` describe it"""
    try:
        import torch_pruning
    except ImportError:
        raise InputError("compress.py prune: needs torch-pruning: pip install torch-pruning")
    G = copy.deepcopy(G).train()
    last = [part for part in G.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    torch_pruning.pruner.MagnitudePruner(
        G,
        torch.zeros(1, G.channels, 2 * G.smallest, 2 * G.smallest),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=1 - (small.ngf + 1e-6) / options.ngf,  # widths are multiples of ngf: nothing is rounded
        ignored_layers=[last],  # its channels are those of the image
    ).step()
    result = make_generator(vars(small), G.channels, G.out_channels)
    result.load_state_dict(G.state_dict())
    return result


##############################
#         Distill
##############################


def distill(opt):
    """A student learns from a teacher, as distillation.py has it: the training around that."""
    state, options, checkpoint = read_training(opt)
    vars(options).update(lambda_perceptual=opt.lambda_perceptual, vgg_weights=opt.vgg_weights, lambda_style=0.0,
                         lambda_paired=0.0, accumulate=1, ratio_A=None)  # fmt: skip
    (source, target), name = opt.direction, f"G_{opt.direction}"
    saved, images = f"saved_models/{options.run_name}", f"images/{options.run_name}"
    size = options.img_height, options.img_width
    device = choose_device(opt.device)
    amp = bfloat16_pays(device) if opt.amp is None else opt.amp

    # ----------
    #  Networks
    # ----------

    networks, _, _ = cyclegan.build(options, device)
    D = networks[f"D_{target}"]
    D.load_state_dict(state[f"D_{target}"])
    teacher = generator_in(state, opt.checkpoint, opt.direction).network
    before = teacher, generator_file(state, opt.direction)
    described, student = make_student(opt, options, teacher)
    adapters = nn.ModuleList()
    if opt.lambda_feat and isinstance(teacher, GeneratorResNet):
        widths = [G.model[7].out_channels for G in (student, teacher)]  # the second downsampling: that of the trunk
        adapters.extend(nn.Conv2d(*widths, 1) for _ in range(3))
    elif opt.lambda_feat:
        print("note: --lambda_feat: looks at residual blocks, which this teacher has not got")
    for network in (teacher, student, adapters):
        network.to(device)
    adam = functools.partial(torch.optim.Adam, lr=opt.lr, betas=(options.b1, options.b2))
    taught = [*student.parameters(), *adapters.parameters()]
    parts = {name: student, "adapters": adapters, "D": D, "optimizer_G": adam(taught)}
    parts |= {"optimizer_D": adam(D.parameters()), "buffer": ReplayBuffer(options.pool_size, options.seed)}

    # ----------
    #  Data
    # ----------

    root = prepare_dataset(options.dataset_name, options.data_dir)
    dataset, sampler, dataloader, samples = open_data(options, root, device, 0, 1, size)
    images_shown = samples["AB".index(source)]
    first_epoch, first_batch, step = 0, 0, 0
    if checkpoint:
        restore(checkpoint, parts)
        first_epoch, first_batch, step = (checkpoint[key] for key in ("epoch", "batch", "step"))
        set_random_state(checkpoint, device)
    lock = lock_run(saved)  # noqa: F841 (held as long as it is referred to)
    quality_before = quality(opt, options, opt.checkpoint)
    prepare_folders(saved, images, checkpoint, opt.resume)
    print(f"a student of {described.n_residual_blocks} residual blocks, {described.ngf} filters in the first layer")

    # ----------
    #  Training
    # ----------

    def save(epoch, batch):
        state = {name: part.state_dict() for name, part in parts.items()} | random_state(device)
        state |= dict(version=1, options=vars(described), distill=vars(opt), epoch=epoch, batch=batch, step=step)
        state = copy_to_cpu(state)
        if epoch == opt.n_epochs:
            save_file(generator_file(state, opt.direction), f"{saved}/{name}_{epoch}.pth")
        save_file(state, f"{saved}/latest.pth")
        return state

    def log(epoch):
        losses = torch.stack(history)
        history.clear()
        check_finite(losses, names, step, saved)
        means = dict(zip(names, losses.mean(0).tolist()))
        lr = parts["optimizer_G"].param_groups[0]["lr"]
        progress.update(step, len(real), device, epoch=epoch, lr=lr, **{k: v for k, v in means.items() if v})

    names, history = ("loss_out", "loss_feat", "loss_gan", "loss_perceptual", "loss_D"), []
    n_steps = step + (opt.n_epochs - first_epoch) * len(sampler) - first_batch
    progress, started = Progress(f"{saved}/log.jsonl", step, n_steps), time.monotonic()
    factor, stop = lr_factor("linear", opt.n_epochs, opt.n_epochs // 2), StopSignal()
    for epoch in range(first_epoch, opt.n_epochs):
        for optimizer in (parts["optimizer_G"], parts["optimizer_D"]):
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * factor(epoch)
        sampler.set_position(epoch, first_batch)
        n = options.batch_size
        for i, both in batches(dataloader, first_batch, n, n, functools.partial(save, epoch)):
            real, real_target = (both["AB".index(domain)].to(device, non_blocking=True) for domain in opt.direction)
            draws = parts["buffer"].draw(n).to(device, non_blocking=True)
            history.append(distill_step(parts, teacher, opt, options, amp, real, real_target, draws))
            step += 1
            if step % opt.log_interval == 0:
                log(epoch)
            if opt.sample_interval > 0 and (step % opt.sample_interval == 0 or step == n_steps):
                with torch.no_grad():
                    columns = [images_shown, *(G(images_shown).float() for G in (teacher, student))]
                save_image(draw_grid(columns), f"{images}/{step:06d}.png")
            if stop.requested():
                save(epoch, i + 1)
                progress.end_line()
                print(f"stopped by a signal after step {step}; --resume goes on from there")
                return 128 + stop.number
        first_batch = 0
        if history:
            log(epoch)
        if epoch + 1 < opt.n_epochs:  # the last one is saved below, as it is if there was nothing to train
            save(epoch + 1, 0)
    stop.restore()
    progress.end_line()

    path = f"{saved}/{name}_{opt.n_epochs}.pth"
    if checkpoint is None or step > checkpoint["step"]:
        checkpoint = save(opt.n_epochs, 0)
        print(f"done in {duration(time.monotonic() - started)}, written: {path}, the student")
        if opt.sample_interval > 0 and n_steps:
            print(f"{images}/: real | translated by the teacher | by the student")
    after = student.eval(), generator_file(checkpoint, opt.direction)
    quality_after = quality(opt, options, f"{saved}/latest.pth", counterpart=opt.checkpoint)
    report(before, after, (quality_before, quality_after), options, device, path)


def main(argv=None):
    opt = get_parser().parse_args(argv)
    return {"prune": prune, "distill": distill}[opt.way](opt)


if __name__ == "__main__":
    run(main)
