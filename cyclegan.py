# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.11", "torchvision>=0.26", "pillow>=11", "numpy>=2"]
# ///
"""
CycleGAN: learns to translate images of a domain A into a domain B and back, from unpaired examples
(Zhu, Park, Isola, Efros, 2017, https://arxiv.org/abs/1703.10593).

    python cyclegan.py                                                    # demo data, minutes on a laptop
    python cyclegan.py --dataset_name horse2zebra                         # the paper's recipe, on a GPU
    python cyclegan.py --dataset_name horse2zebra --resume                # continue where it stopped
    torchrun --nproc_per_node=4 cyclegan.py --dataset_name horse2zebra    # on four GPUs

Read models.py, datasets.py and utils.py first. Names show the direction: G_AB translates A to B, D_B judges images of
domain B, and real_A -> fake_B -> recov_A is a cycle. In the paper A is X, B is Y, G_AB is G and G_BA is F.
"""

import dataclasses

from command_line.parser import argument_parser, between, switch  # isort: skip; before torch: Ctrl-C is quiet from here
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from command_line.run import run_script
from datasets import ImageDataset
from models import in_one_pass, weights_init_normal
from training.loading import EpochSampler, loader_options
from training.optimizer import Adam  # torch's, with accumulation, clipping and several processes
from training.update import Update
from utils import ReplayBuffer
from variants import add_variants
from variants.build import apply_variants, channels_of, dataset_options, make_discriminator, make_generator
from variants.losses import extra_losses, make_criterion, mean_loss, needs_cycle, noisy, penalty
from variants.schedules import learning_rates, lr_factor


def get_parser():
    """The defaults are the paper's configuration: edit them here, or override them on the command line. The demo's and
    other sets of options are in training/presets.py."""
    parser = argument_parser("Train CycleGAN.", "python cyclegan.py [--dataset_name NAME] [--option VALUE ...]")
    add = parser.add_argument_group("data").add_argument
    add("--dataset_name", metavar="NAME", default="demo", help="folder in data_dir, or official set")
    add("--preset", metavar="NAME", choices=("laptop", "paper", "demo", "volumes"), help="one of these sets of options")
    add("--data_dir", metavar="DIR", default="data", help="folder of the data sets")
    add("--img_height", type=between(32, 16384), default=256, help="height of the training crop")
    add("--img_width", type=between(32, 16384), default=256, help="width of the training crop")
    add("--load_size", type=between(32, 16384), help="short side before cropping (default: 286/256 of it)")
    add("--channels", type=int, choices=(1, 3), default=3, help="1 for gray images, 3 for RGB")
    add = parser.add_argument_group("networks").add_argument
    add("--n_residual_blocks", type=between(0, 1000), default=9, help="9 for 256 pixels, 6 for 128")
    add("--ngf", type=between(1, 4096), default=64, help="filters in the first layer of G_AB and G_BA")
    add("--ndf", type=between(1, 4096), default=64, help="filters in the first layer of D_A and D_B")
    add("--upsample", default="transpose", choices=("transpose", "nearest"), help="nearest avoids checkerboards")
    add = parser.add_argument_group("losses").add_argument
    add("--lambda_cyc", type=between(0.0), default=10.0, help="weight of the cycle loss")
    add("--lambda_id", type=between(0.0), default=5.0, help="weight of the identity loss")
    add("--pool_size", type=between(0), default=50, help="past translations kept for the discriminators")
    add = parser.add_argument_group("optimization").add_argument
    add("--n_epochs", type=between(1, 10**9), default=200, help="an epoch has a sample per image of the larger domain")
    add("--decay_epoch", type=between(0), help="epoch at which the decay starts (default: n_epochs / 2)")
    add("--batch_size", type=between(1, 10**6), default=1, help="images per domain and process")
    add("--lr", type=between(0.0), default=0.0002, help="learning rate of Adam")
    add("--b1", type=between(0.0, 0.999999), default=0.5, help="Adam: decay rate of the gradient mean")
    add("--b2", type=between(0.0, 0.999999), default=0.999, help="Adam: decay rate of the squared mean")
    add("--seed", type=between(0, 2**32), default=0, help="random seed")
    add = parser.add_argument_group("device and results").add_argument
    add("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    add("--amp", action=switch, help="use bfloat16 (default: if the device supports it)")
    add("--run_name", metavar="NAME", help="name of the output folders (default: dataset_name)")
    add("--resume", action="store_true", help="continue from the newest checkpoint")
    add("--epoch", type=between(0), default=0, help="continue from checkpoint_EPOCH.pth; 0: do not")
    add("--log_interval", type=between(1), default=50, help="steps between log lines")
    add("--sample_interval", type=int, default=500, help="steps between sample grids, 0: only the last")
    add("--checkpoint_interval", type=int, default=10, help="epochs between kept checkpoints")
    add_variants(parser)  # other networks, losses and schedules, all off by default
    return parser


def get_options(argv):
    from training.options import read_options

    return read_options(get_parser(), argv)


##############################
#   One step
##############################


class MSE:
    """The adversarial loss: least squares (paper, section 4; Mao et al., 2017). The discriminator wants scores of 1 for
    real images and 0 for translations; the generator wants 1 for its translations. Means are taken in float32."""

    def __init__(self, real=1.0):
        self.real = real  # below 1 with --label_smoothing

    def generator_loss(self, scores_fake):
        return (scores_fake.float() - 1).square().mean()

    def discriminator_loss(self, scores_real, scores_fake):
        return ((scores_real.float() - self.real).square().mean() + scores_fake.float().square().mean()) / 2


criterion_cycle = torch.nn.L1Loss()
criterion_identity = torch.nn.L1Loss()


def train_step(gan, opt, real_A, real_B, paired=None):
    """Updates the generators, then each discriminator -> {name: loss}.

    real_A, real_B: (N, channels, H, W) in [-1, 1]
    paired:         (N,), 1 where the images of A and B are counterparts, for --lambda_paired
    """
    G_AB, G_BA, D_A, D_B, criterion_GAN = gan.G_AB, gan.G_BA, gan.D_A, gan.D_B, gan.criterion_GAN
    autocast = torch.autocast(real_A.device.type, torch.bfloat16, enabled=gan.amp)
    loss_identity, loss_cycle, recov_A, recov_B = real_A.new_zeros(()), real_A.new_zeros(()), None, None

    # ------------------
    #  Train Generators
    # ------------------

    with autocast:
        # An image that is already in the target domain should not change:
        #   L_identity = |G_BA(a) - a| + |G_AB(b) - b|               (paper, section 5.2)
        if opt.lambda_id > 0:
            # Each generator translates one domain and preserves the other, in one pass
            fake_B, same_B = in_one_pass(G_AB, real_A, real_B)
            fake_A, same_A = in_one_pass(G_BA, real_B, real_A)
            loss_identity = mean_loss(opt, criterion_identity(same_A, real_A), criterion_identity(same_B, real_B))
        else:
            fake_B, fake_A = G_AB(real_A), G_BA(real_B)

        # A translation should look real to the discriminator of its domain:
        #   L_GAN = (D_B(G_AB(a)) - 1)^2 + (D_A(G_BA(b)) - 1)^2      (equation 1, with least squares)
        loss_GAN = (criterion_GAN.generator_loss(D_B(fake_B)) + criterion_GAN.generator_loss(D_A(fake_A))) / 2

        # Translating there and back should give the original image:
        #   L_cycle = |G_BA(G_AB(a)) - a| + |G_AB(G_BA(b)) - b|      (equation 2)
        if needs_cycle(opt):
            recov_A, recov_B = G_BA(noisy(opt, fake_B)), G_AB(noisy(opt, fake_A))  # none by default
            loss_cycle = mean_loss(opt, criterion_cycle(recov_A, real_A), criterion_cycle(recov_B, real_B))

        # Equation 3. The means over both directions do not change the ratio of the weights
        loss_G = loss_GAN + opt.lambda_cyc * loss_cycle + opt.lambda_id * loss_identity

        # Other losses: --lambda_ssim and the like, none by default. To add one in place, add it to loss_G
        extra = extra_losses(opt, gan, real_A, real_B, fake_A, fake_B, recov_A, recov_B, paired)
        for name, loss in extra.items():
            loss_G = loss_G + getattr(opt, f"lambda_{name}") * loss

    gan.optimizer_G.zero_grad()
    gan.optimizer_G.backward(loss_G)  # loss_G.backward() for the weights of G_AB and G_BA alone
    gan.optimizer_G.step()

    # ----------------------
    #  Train Discriminators
    # ----------------------

    # Once the pool is full, half of the translations come from it:
    #   L_D_A = ((D_A(a) - 1)^2 + D_A(G_BA(b))^2) / 2                (section 7.1: divided by 2)
    pooled_A = gan.fake_A_buffer.push_and_pop(fake_A)
    with autocast:
        loss_D_A = criterion_GAN.discriminator_loss(*in_one_pass(D_A, real_A, pooled_A))
    gan.optimizer_D_A.zero_grad()
    gan.optimizer_D_A.backward(loss_D_A + penalty(opt, D_A, real_A, pooled_A))  # 0 without --lambda_gp
    gan.optimizer_D_A.step()

    #   L_D_B = ((D_B(b) - 1)^2 + D_B(G_AB(a))^2) / 2
    pooled_B = gan.fake_B_buffer.push_and_pop(fake_B)
    with autocast:
        loss_D_B = criterion_GAN.discriminator_loss(*in_one_pass(D_B, real_B, pooled_B))
    gan.optimizer_D_B.zero_grad()
    gan.optimizer_D_B.backward(loss_D_B + penalty(opt, D_B, real_B, pooled_B))
    gan.optimizer_D_B.step()

    losses = dict(loss_D=(loss_D_A + loss_D_B) / 2, loss_G=loss_G, loss_GAN=loss_GAN, loss_cycle=loss_cycle)
    return losses | {"loss_identity": loss_identity} | {f"loss_{name}": loss for name, loss in extra.items()}


##############################
#   Training
##############################


@dataclasses.dataclass
class CycleGAN:
    """The networks, their optimizers and schedules, the pools, and the adversarial loss."""

    G_AB: torch.nn.Module
    G_BA: torch.nn.Module
    D_A: torch.nn.Module
    D_B: torch.nn.Module
    optimizer_G: torch.optim.Optimizer
    optimizer_D_A: torch.optim.Optimizer
    optimizer_D_B: torch.optim.Optimizer
    lr_schedulers: list
    fake_A_buffer: ReplayBuffer
    fake_B_buffer: ReplayBuffer
    criterion_GAN: MSE
    amp: bool  # bfloat16 matrix products; weights and losses are float32

    def __post_init__(self):
        self.sample_G_AB, self.sample_G_BA = self.G_AB, self.G_BA  # for sample grids; the average with --ema

    def networks(self):
        return {name: getattr(self, name) for name in ("G_AB", "G_BA", "D_A", "D_B")}

    def optimizers(self):
        return {name: getattr(self, name) for name in ("optimizer_G", "optimizer_D_A", "optimizer_D_B")}

    def buffers(self):
        return {name: getattr(self, name) for name in ("fake_A_buffer", "fake_B_buffer")}


def build(opt, run):
    """The networks with their initial weights, their optimizers, schedules and pools -> CycleGAN"""
    torch.manual_seed(opt.seed)
    n_A, n_B = channels_of(vars(opt))
    G_AB, G_BA = make_generator(vars(opt), n_A, n_B), make_generator(vars(opt), n_B, n_A)  # GeneratorResNet by default
    D_A, D_B = make_discriminator(vars(opt), n_A), make_discriminator(vars(opt), n_B)  # Discriminator by default
    for network in (G_AB, G_BA, D_A, D_B):
        network.apply(weights_init_normal).to(run.device)
    apply_variants(opt, (D_A, D_B), run.device)
    lr_G, lr_D = learning_rates(opt)  # both opt.lr by default
    optimizer_G = Adam([*G_AB.parameters(), *G_BA.parameters()], lr=lr_G, betas=(opt.b1, opt.b2), run=run)
    optimizer_D_A = Adam(D_A.parameters(), lr=lr_D, betas=(opt.b1, opt.b2), run=run)
    optimizer_D_B = Adam(D_B.parameters(), lr=lr_D, betas=(opt.b1, opt.b2), run=run)
    lr_lambda = lr_factor(opt, run)  # by default linear_decay, from n_epochs / 2 on; last_epoch is -1 in a new run
    lr_schedulers = [LambdaLR(o, lr_lambda, run.epoch - 1) for o in (optimizer_G, optimizer_D_A, optimizer_D_B)]
    seed = 2 * (opt.seed + 1000 * run.rank)  # each pool of each process has its own random numbers
    fake_A_buffer, fake_B_buffer = ReplayBuffer(opt.pool_size, seed), ReplayBuffer(opt.pool_size, seed + 1)
    criterion_GAN = make_criterion(opt, MSE, (D_A, D_B))  # MSE by default
    torch.manual_seed(opt.seed + run.rank)  # for dropout and --diffaugment, different in each process
    return CycleGAN(G_AB, G_BA, D_A, D_B, optimizer_G, optimizer_D_A, optimizer_D_B, lr_schedulers, fake_A_buffer,
                    fake_B_buffer, criterion_GAN, run.amp)  # fmt: skip


def open_loader(opt, run, img_size):
    """-> DataLoader of the training images, cropped to img_size (height, width)"""
    scale = opt.load_size / min(opt.img_height, opt.img_width) if opt.load_size else 286 / 256  # 286: the authors' code
    load_size = tuple(round(side * scale) for side in img_size)
    dataset = ImageDataset(run.root, "train", img_size=img_size, load_size=load_size, channels=channels_of(vars(opt)),
                           seed=opt.seed, **dataset_options(opt))  # fmt: skip
    sampler = EpochSampler(len(dataset), opt.batch_size * opt.accumulate, opt.seed, run.rank, run.world_size)
    return DataLoader(dataset, batch_sampler=sampler, **loader_options(opt.n_cpu, dataset, run.device))


def main(argv=None):
    from training.data import TrainingData  # imported here, so that `import cyclegan` is fast
    from training.monitor import Monitor
    from training.run import Run

    opt, checkpoint = get_options(argv)  # with --resume, the checkpoint to continue from
    run = Run(opt, checkpoint)  # the device, the processes, the folders, and the current step
    if run.is_finished():
        return None
    data = TrainingData(opt, run, open_loader)
    gan = build(opt, run)
    run.begin(gan, data, vars(get_parser().parse_args([])))  # restores the checkpoint, prepares the folders
    update = Update(train_step, gan, opt, run)  # calls train_step; on CUDA, replays it as a CUDA graph
    monitor = Monitor(opt, run, gan, data)  # prints and logs losses, draws sample grids

    for epoch in range(run.epoch, opt.n_epochs):
        for real_A, real_B, *paired in data.epoch(epoch):
            losses = update(real_A, real_B, *paired)
            monitor.log(losses)  # every --log_interval steps
            monitor.sample_images()  # every --sample_interval steps
        monitor.flush()
        if run.stopped:  # Ctrl-C
            break
        for lr_scheduler in gan.lr_schedulers:
            lr_scheduler.step()
        run.save_checkpoint(epoch + 1)  # latest.pth, and from time to time one that is kept
        monitor.validate(epoch)
    return run.finish(monitor)


if __name__ == "__main__":
    run_script(main, needs_reader=False)
