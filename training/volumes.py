"""
Training on volumes, for --dims 3 and --slices: samples are random sub-volumes, and sample grids show slices.
"""

import torch
from torch.utils.data import DataLoader

from datasets import ImageDataset, find_folder
from media.volumes import VolumeDomain
from training.loading import EpochSampler, loader_options
from utils import evaluating
from variants.build import channels_of, dataset_options
from variants.volumes import by_slices, crop_of

MIDDLE = (0.5, 0.5, 0.5)  # the place of a sub-volume
GAP = 2  # between slices in a picture, in pixels


class VolumeDataset(ImageDataset):
    """datasets.ImageDataset for volumes: samples {"A": volume, "B": volume}, float32 (channels, depth, height, width) in
    [-1, 1]; with `slices`, images (slices, height, width). Volumes are not resized.

    root:      data/NAME
    mode:      'train' takes random sub-volumes and mirrors half of them along the width; 'test' takes the middle
    size:      (depth, height, width) of the samples
    channels:  values per voxel, or (of A, of B)
    slices:    samples are images of a single channel's slices
    cache:     keep the volumes in memory; None does so if they take at most CACHE_LIMIT_GIB. Otherwise a sample reads what
               it needs of its file, of a .nii.gz everything before it
    flip, pairs, ranges, unaligned: as in ImageDataset
    options:   of media.volumes.VolumeDomain
    """

    def __init__(self, root, mode="train", size=(32, 64, 64), channels=1, slices=False, seed=0, cache=None, flip=True,
                 pairs=None, ranges=(None, None), unaligned=True, **options):  # fmt: skip
        self.train, self.img_size, self.seed, self.flip = mode == "train", tuple(size), seed, flip
        self.slices = slices
        channels = channels if isinstance(channels, tuple) else (channels, channels)
        self.A, self.B = (
            VolumeDomain(find_folder(root, mode, domain), size, n, value_range=value_range, **options)
            for domain, n, value_range in zip("AB", channels, ranges)
        )
        self._open(cache, unaligned, pairs)

    def _sample(self, domain, i, dice):
        """A sub-volume by random numbers from 0 to 1, or the middle -> tensor, see the class"""
        place = (dice[3], *dice[:2]) if self.train else MIDDLE
        volume = self.to_sample(domain, i, place)
        return volume.flip(-1) if self.train and self.flip and dice[2] < 0.5 else volume

    def to_sample(self, domain, i, place=MIDDLE):
        """A sub-volume of volume i, see VolumeDomain.sub_volume -> tensor"""
        volume = torch.from_numpy(domain.sub_volume(i, place)).permute(3, 0, 1, 2).mul(2).sub(1)
        return (volume[0] if self.slices else volume).contiguous()


def open_loader(opt, run, img_size=None):
    """cyclegan.open_loader for volumes -> DataLoader of training sub-volumes. img_size is that of the options"""
    dataset = VolumeDataset(run.root, "train", seed=opt.seed, **volume_options(opt))
    sampler = EpochSampler(len(dataset), opt.batch_size * opt.accumulate, opt.seed, run.rank, run.world_size)
    return DataLoader(dataset, batch_sampler=sampler, **loader_options(opt.n_cpu, dataset, run.device))


def volume_options(opt):
    """-> {name: value} for VolumeDataset"""
    options = {name: value for name, value in dataset_options(opt).items() if name not in ("enlarge", "keep_aspect")}
    channels = (1, 1) if opt.slices else channels_of(vars(opt))
    return options | dict(size=crop_of(opt), channels=channels, slices=opt.slices > 0)


def fixed_volumes(dataset, root, domain, n):
    """training.data.fixed_images for volumes: the middle of the first n test volumes of a domain -> (n, ...), or of
    training volumes if there are none"""
    source = getattr(dataset, domain)
    try:
        folder = find_folder(root, "test", domain)
        test = VolumeDomain(folder, dataset.img_size, source.channels, source.skip_bad_images, n, source.value_range)
    except ValueError:  # InputError: no test volumes
        source.notes.append(f"no test volumes of domain {domain}: the sample grids show training volumes")
        test = source
    return torch.stack([dataset.to_sample(test, i) for i in range(min(n, len(test)))])


def test_volumes(opt, root):
    """-> VolumeDataset of the middles of the test volumes, for --val_interval"""
    options = volume_options(opt) | dict(cache=False, pairs=None, max_images=None)
    return VolumeDataset(root, "test", **options)


##############################
#   Pictures of volumes
##############################


def as_picture(volumes):
    """What a sample grid shows of volumes (N, C, D, H, W): the slices through the middle of each, across the depth, the
    height and the width, one below the other -> (N, C, H + 2 D + gaps, max(W, H))"""
    _, _, depth, height, width = volumes.shape
    across = [volumes[:, :, depth // 2], volumes[:, :, :, height // 2], volumes[..., width // 2]]
    picture = volumes.new_full((*volumes.shape[:2], height + 2 * depth + 2 * GAP, max(width, height)), -1.0)
    top = 0
    for part in across:
        picture[:, :, top : top + part.shape[2], : part.shape[3]] = part
        top += part.shape[2] + GAP
    return picture


def seen_by_health(opt, columns):
    """The columns of a sample grid as images: (N, C, D * H, W) with --dims 3, which have the same statistics"""
    return [column.flatten(2, 3) for column in columns] if opt.dims == 3 else columns


def shown(opt, columns):
    """The columns of a sample grid as they are drawn: three slices of each volume, or with --slices the middle one"""
    if opt.dims == 3:
        return [as_picture(column) for column in columns]
    return [column[:, opt.slices // 2, None] for column in columns]


def score_demo(opt, gan, root, device):
    """Scores translations of the whole test volumes of demo_volumes, see get_data.volumes.score."""
    from get_data.volumes import score

    def translator(G):
        @torch.no_grad()
        def translate(volume):
            x = torch.from_numpy(volume)[None, None].to(device).float() / 127.5 - 1
            fake = by_slices(G, x, opt.slices) if opt.slices else G(x)
            return ((fake[0, 0].float().cpu() + 1) * 127.5).round().clamp(0, 255).byte().numpy()

        return translate

    generators = {"AB": gan.sample_G_AB, "BA": gan.sample_G_BA}
    with evaluating(*generators.values()):
        return score({direction: translator(G) for direction, G in generators.items()}, root)
