"""
A training run: device and processes, folders, checkpoints, what is printed before the first step and after the last.
"""

import copy
import math
import os
import shlex
import subprocess
import sys
import time
import warnings

import torch

from command_line.paths import is_inside
from command_line.progress import duration
from command_line.terminal import say
from command_line.threads import choose_threads
from training.background import Background
from training.checkpoints import copy_to_cpu, restore, save_run
from training.cuda_graph import use_graph
from training.folders import disk_line, lock_run, n_bytes_of, prepare_folders
from training.health import check_finite
from training.options import as_typed
from training.processes import (
    first_process_first,
    first_says,
    gather,
    init_processes,
    random_state,
    set_random_state,
)  # fmt: skip
from training.provenance import compare_data, data_facts, record_of
from training.signals import StopSignal
from training.start import load_start, start_notes
from utils import bfloat16_pays, choose_device
from variants.build import channels_of


class Run:
    """A training run, which can be stopped and resumed.

    epoch, batch, step: its position: complete epochs, batches of the current epoch, steps in total
    current_epoch:      the epoch that the last batch belonged to, from 0
    root:               folder of the data set, after prepare_data()
    device, amp, graph: torch.device; whether to use bfloat16; whether to record the step as a CUDA graph
    rank, world_size:   of this process, see torchrun
    say:                print, in the first process only
    stopped:            number of the signal that stopped the training, or 0
    background:         writes files while training continues
    """

    def __init__(self, opt, checkpoint=None):
        self.opt, self.stopped = opt, 0
        self.start, self.checkpoint = (checkpoint, None) if opt.start_from else (None, checkpoint)
        self.checkpoint_dir, self.sample_dir = f"saved_models/{opt.run_name}", f"images/{opt.run_name}"
        position = self.checkpoint or dict(epoch=0, batch=0, step=0)
        self.epoch, self.batch, self.step = (position[key] for key in ("epoch", "batch", "step"))
        self.first_step = self.step
        self.device = choose_device(opt.device)
        self.n_threads = choose_threads(
            self.device, opt.img_height * opt.img_width * (opt.img_depth if opt.dims == 3 else 1)
        )
        self.rank, self.world_size = init_processes(self.device)
        self.say = say if self.rank == 0 else lambda *text: None
        self.amp = bfloat16_pays(self.device) if opt.amp is None else opt.amp
        self.graph = use_graph(opt, self.device)
        self.loss_names, self.more_state = (), {}  # names of the losses; more to save in checkpoints
        self.background, self.started = Background(), time.monotonic()
        torch.backends.cudnn.benchmark = True  # image sizes hardly change, so searching for fast kernels pays off

    def is_finished(self):
        """Whether the checkpoint to continue from has already reached the number of epochs or steps; if so, says so."""
        opt = self.opt
        finished = self.step >= opt.n_iters if opt.n_iters else self.epoch >= opt.n_epochs
        if self.checkpoint and finished:
            count, flag = (f"step {self.step}", "--n_iters") if opt.n_iters else (f"epoch {self.epoch}", "--n_epochs")
            self.say(f"{self.checkpoint['path']}: already trained up to {count}; pass a larger {flag} to train longer")
            return True
        return False

    def prepare_data(self):
        """Downloads what is missing, in one process, and sets `root`."""
        from get_data import prepare_dataset
        from variants.weights import download_weights

        def prepare():
            root = prepare_dataset(self.opt.dataset_name, self.opt.data_dir)
            download_weights(self.opt)
            return root

        self.root = first_process_first(prepare)

    def begin(self, gan, data, defaults):
        """Restores the checkpoint, locks and creates the folders, and prints what will be trained."""
        self.gan, self.data = gan, data
        facts = data_facts(self.root, data.dataset)
        notes = compare_data(self.opt, facts, self.checkpoint) if self.checkpoint else start_notes(self.opt, self.start)
        self.provenance = record_of(facts, self.checkpoint, self.start)
        self.restore()
        if self.opt.compile:
            for network in gan.networks().values():
                # in place: torch.compile(network) would rename the keys of the state dict
                network.compile(dynamic=False)
        if self.rank == 0:
            self.lock = lock_run(self.checkpoint_dir)  # until this process ends
            resume = self.opt.resume and not self.opt.epoch
            record = self.provenance | {"options": vars(self.opt)}
            if prepare_folders(self.checkpoint_dir, self.sample_dir, self.checkpoint, resume, record):
                self.lock = lock_run(self.checkpoint_dir)  # the other lock went with the folder that was renamed
        self.say("\n".join([*self.description(defaults), *notes, *self.disk_lines()]))
        if self.checkpoint:
            self.say(
                f"continuing from {self.checkpoint['path']} after step {self.step}: epoch {self.epoch + 1}, "
                f"{self.batch} batches done"
            )
            self.adapt_position()
        self.stop, self.saved_at = StopSignal(), time.monotonic()
        if self.start:
            self.start = None
            self.save_checkpoint()  # a run that is killed early can be resumed without the file that it started from
            self.background.finish()

    def restore(self):
        """Loads the checkpoint into the networks, optimizers and pools of gan; or the networks of --start_from, or
        pretrained weights."""
        gan, checkpoint = self.gan, self.checkpoint
        if checkpoint:
            restore(checkpoint, gan.networks() | gan.optimizers())
            # with more processes than before, the others start with empty pools
            if self.rank < len(checkpoint["ranks"]):
                mine = checkpoint["ranks"][self.rank]
                restore(mine | {"path": checkpoint["path"]}, gan.buffers())
                set_random_state(mine, self.device)
        elif self.start:
            load_start(self.start, gan)
        elif self.opt.generator == "pretrained":
            from variants.weights import load_encoders

            load_encoders((gan.G_AB, gan.G_BA), self.opt.encoder_weights)
        if self.opt.ema:
            gan.sample_G_AB, gan.sample_G_BA = copy.deepcopy(gan.G_AB), copy.deepcopy(gan.G_BA)
            if checkpoint and self.averages().keys() <= checkpoint.keys():
                restore(checkpoint, self.averages())

    def averages(self):
        return {"ema_G_AB": self.gan.sample_G_AB, "ema_G_BA": self.gan.sample_G_BA} if self.opt.ema else {}

    def description(self, defaults):
        """Lines on the data, the networks, and the options that are not the defaults."""
        from media.survey import merged

        dataset, gan = self.data.dataset, self.gan
        *depth, height, width = dataset.img_size  # a depth of volumes
        what = "volumes" if depth else "images"
        size = " x ".join(map(str, (*depth, height, width))) + " voxels" if depth else f"{width} x {height} pixels"
        size_G, size_D = (sum(p.numel() for p in network.parameters()) / 1e6 for network in (gan.G_AB, gan.D_A))
        cached = ", cached" if dataset.is_cached else ""
        precision = "bfloat16" if self.amp else "float32"
        processes = f"{self.world_size} process{'es' if self.world_size > 1 else ''}"
        if self.device.type == "cpu":
            processes += f", {self.n_threads} thread{'s' if self.n_threads > 1 else ''}"
            processes += " each" if self.world_size > 1 else ""
        return [
            f"CycleGAN on {self.root}: {len(dataset.A)} {what} of A, {len(dataset.B)} of B, {size}{cached}",
            f"generators 2 x {size_G:.2f} M parameters, discriminators 2 x {size_D:.2f} M; on {self.device}, {precision}, "
            f"{processes}",
            f"options other than the defaults: {as_typed(self.opt, defaults)}",
            *("note: " + note for note in merged(dataset.notes)),
        ]

    def disk_lines(self):
        """Lines on the disk space that the checkpoints need, in the first process."""
        if self.rank:
            return []
        opt, gan = self.opt, self.gan
        networks = {name: network.state_dict() for name, network in (gan.networks() | self.averages()).items()}
        trained = sum(p.numel() * p.element_size() for n in gan.networks().values() for p in n.parameters())
        n_pixels = math.prod(self.data.samples[0].shape[2:])
        pools = len(gan.buffers()) * opt.pool_size * 4 * max(channels_of(vars(opt))) * n_pixels * self.world_size
        n_full_bytes = n_bytes_of(networks) + 2 * trained + pools  # Adam has two numbers for each weight
        generators = n_bytes_of([network for name, network in networks.items() if name in ("G_AB", "G_BA")])
        epochs = sum(map(self.is_kept, range(self.epoch + 1, opt.n_epochs + 1))) if opt.n_epochs < 10**6 else 0
        n_kept = opt.keep_checkpoints if "G_AB" in networks and "G_BA" in networks else 0
        return disk_line(self.checkpoint_dir, n_full_bytes, generators, epochs, n_kept)

    def is_kept(self, epoch):
        """Whether the state after so many epochs is kept in files of its own."""
        interval = self.opt.checkpoint_interval
        return epoch == self.opt.n_epochs or (interval > 0 and epoch % interval == 0)

    def adapt_position(self):
        """Adjusts the position of a resumed run within its epoch, if the data or the batch size have changed."""
        now = [len(self.data.dataset), len(self.data.loader)]
        n_images, n_batches = self.checkpoint["data"] or now
        if [n_images, n_batches] != now:
            self.say("note: number of images, batch size or processes changed; the data order differs from now on")
            self.batch = self.batch * len(self.data.loader) // n_batches
        if self.batch >= len(self.data.loader):  # the epoch ends without a step, which PyTorch warns about
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)

    def is_over(self):
        """Called after each step -> whether to stop: it was the last one, or somebody pressed Ctrl-C. From time to time,
        saves the position within the epoch."""
        if self.opt.n_iters:  # the learning rate changes with each step
            for lr_scheduler in self.gan.lr_schedulers:
                lr_scheduler.step()
        if self.step == self.opt.n_iters:
            return True
        self.stopped = self.stop.requested()
        if not self.stopped and self.is_save_due():
            self.save_checkpoint()
        return self.stopped > 0

    def is_save_due(self):
        """Whether --save_minutes have passed. The clock of the first process counts, and is asked now and then only."""
        if not self.opt.save_minutes or (self.world_size > 1 and self.step % 10):
            return False
        return first_says(time.monotonic() - self.saved_at >= 60 * self.opt.save_minutes)

    def save_checkpoint(self, epoch=None):
        """Saves everything that is needed to continue exactly. epoch: number of the epoch that has ended, or None"""
        self.saved_at = time.monotonic()
        networks = self.gan.networks().values()
        weights = torch.stack([p.detach().sum() for n in networks for p in n.parameters()]).sum()
        check_finite(weights.view(1, 1), ["sum of all weights"], self.step, self.checkpoint_dir)
        ranks = gather(random_state(self.device) | {n: b.state_dict() for n, b in self.gan.buffers().items()})
        if self.rank == 0:
            parts = self.gan.networks() | self.averages() | self.gan.optimizers()
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= dict(epoch=self.epoch, batch=self.batch, step=self.step, ranks=ranks,
                          data=[len(self.data.dataset), len(self.data.loader)])  # fmt: skip
            state |= dict(version=1, options=vars(self.opt), provenance=self.provenance) | self.more_state
            keep = epoch if epoch is not None and self.is_kept(epoch) else None
            n_kept = self.opt.keep_checkpoints
            self.background.start(save_run, copy_to_cpu(state), self.checkpoint_dir, keep, n_kept)

    def finish(self, monitor):
        """Saves what is left and prints the last lines -> exit status"""
        if self.stopped:
            self.save_checkpoint()
            self.data.close()
            monitor.close()
            first_says(True)  # the others wait until it is saved: once one process has ended, torchrun ends all
            command = shlex.join(["python", *self.command_to_resume()])
            self.say(f"stopped by a signal after step {self.step}, which is saved; to continue:\n    {command}")
            return 128 + self.stopped
        self.stop.restore()
        self.data.close()
        monitor.sample_images(last=True)
        monitor.close()
        self.say(f"done in {duration(time.monotonic() - self.started)}, {self.what_was_written()}")
        self.print_score()
        if self.opt.report and self.rank == 0:
            self.write_report()
        return None

    def write_report(self):
        """In a process of its own: measuring/ is above this layer, and a failure there must not end the training badly."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH")) if path)
        command = [sys.executable, "-m", "measuring.report", self.opt.run_name, *self.data_dir_option()]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False)

    def command_to_resume(self, *more):
        """The words of the command that goes on with this run. more: options to add"""
        words, opt = ["cyclegan.py", "--run_name", self.opt.run_name, "--resume", *more], self.opt
        words += self.data_dir_option()
        words += ["--pairs", opt.pairs] if opt.pairs else []
        return words + (["--device", opt.device] if opt.device else [])

    def data_dir_option(self):
        """--data_dir as words of a command: a checkpoint may not refer to folders outside of data/ on its own."""
        return [] if is_inside(self.opt.data_dir, "data") else ["--data_dir", self.opt.data_dir]

    def what_was_written(self):
        opt, n, folder = self.opt, self.opt.n_epochs, self.checkpoint_dir
        longer = ["--n_iters", str(2 * opt.n_iters)] if opt.n_iters else ["--n_epochs", str(2 * n)]
        latest = f"{folder}/latest.pth"
        image, sizes, at = self.data.example("A"), self.data.dataset.img_size, []
        if opt.load_size and opt.load_size > 1.2 * min(sizes):  # small crops: whole images are translated at load_size
            sizes = [round(side * opt.load_size / min(sizes)) for side in sizes]
            at = ["--img_height", str(sizes[0]), "--img_width", str(sizes[1])]
        is_volume = len(sizes) == 3  # which is not resized
        extension = ".nii.gz" if image.lower().endswith(".nii.gz") else os.path.splitext(image)[1]
        result = f"{self.sample_dir}/{self.step:06d}_AB{extension}"
        commands = [["translate.py", "--checkpoint", latest, "--direction", "AB", "--input", image, "--output", result,
                     *(() if is_volume else ("--size", str(min(sizes))))]]  # fmt: skip
        if self.data.has_tests():
            commands.append(["evaluate.py", "--checkpoint", latest, *at, *self.data_dir_option()])
        commands.append(self.command_to_resume(*longer))
        uses = "to use it, to evaluate it" if self.data.has_tests() else "to use it"
        return "\n".join([
            "written:",
            f"  {self.sample_dir}/{self.step:06d}.png: real A | fake B | recovered A | real B | fake A | recovered B",
            f"  {folder}/G_AB_{n}.pth, {folder}/G_BA_{n}.pth: the generators alone",
            f"  {folder}/log.jsonl: the losses",
            f"  {folder}/latest.pth: everything; {uses}, or to train longer:",
            *("      " + shlex.join(["python", *command]) for command in commands),
        ])  # fmt: skip

    def print_score(self):
        """Prints the score of a data set whose true answers are known."""
        if self.rank == 0:
            from training.score import print_score

            print_score(self.gan, self.opt, self.root, self.device)
