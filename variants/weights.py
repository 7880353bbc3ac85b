"""
Published weights of other networks, from a file or downloaded. torchvision, which knows their addresses, takes as long to
import as torch, and is only imported where it is needed.
"""

from media.files import load_published
from utils import InputError


def load_encoders(generators, path):
    """Loads the ImageNet weights into each GeneratorPretrained. Raises InputError."""
    weights = encoder_weights(path)
    for generator in generators:
        try:
            generator.load_encoder(weights)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"--encoder_weights {path}: {str(error).splitlines()[0]}")


def encoder_weights(path):
    """The state dict of torchvision's resnet18. path: of a file; None downloads the ImageNet weights. Raises InputError."""
    from torchvision.models import ResNet18_Weights

    return published_weights(ResNet18_Weights.IMAGENET1K_V1, path, "--encoder_weights")


def published_weights(weights, path, flag):
    """The state dict in the file `path`, or torchvision's `weights`, downloaded when first needed."""
    try:
        return load_published(weights.url, path)
    except InputError as error:
        raise InputError(f"{flag} {error}")
    except (OSError, RuntimeError) as error:  # no network; a hash that is wrong
        raise InputError(f"{weights.url}: cannot be downloaded ({error}). Download it elsewhere and pass it as {flag}")


def vgg_weights(path):
    """As encoder_weights, of vgg16."""
    from torchvision.models import VGG16_Weights

    return published_weights(VGG16_Weights.IMAGENET1K_V1, path, "--vgg_weights")


def download_weights(opt):
    """Downloads the published weights that a training will load, so that only one of several processes does."""
    from variants.losses import needs_vgg

    if needs_vgg(opt):
        vgg_weights(opt.vgg_weights)
    if opt.generator == "pretrained" and not (opt.resume or opt.epoch or opt.start_from):
        encoder_weights(opt.encoder_weights)
