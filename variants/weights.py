"""
Published weights of other networks, from a file or downloaded.
"""

import torchvision

from media.files import load_published
from utils import InputError


def load_encoders(generators, path):
    """Loads the ImageNet weights into each GeneratorPretrained. Raises InputError."""
    weights = published_weights(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, path, "--encoder_weights")
    for generator in generators:
        try:
            generator.load_encoder(weights)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"--encoder_weights {path}: {str(error).splitlines()[0]}")


def published_weights(weights, path, flag):
    """The state dict in the file `path`, or torchvision's `weights`, downloaded when first needed."""
    try:
        return load_published(weights.url, path)
    except InputError as error:
        raise InputError(f"{flag} {error}")
    except (OSError, RuntimeError) as error:  # no network; a hash that is wrong
        raise InputError(f"{weights.url}: cannot be downloaded ({error}). Download it elsewhere and pass it as {flag}")


def download_weights(opt):
    """Downloads the published weights that a training will load, so that only one of several processes does."""
    from variants.losses import needs_vgg

    if needs_vgg(opt):
        published_weights(torchvision.models.VGG16_Weights.IMAGENET1K_V1, opt.vgg_weights, "--vgg_weights")
    if opt.generator == "pretrained" and not (opt.resume or opt.epoch or opt.start_from):
        published_weights(torchvision.models.ResNet18_Weights.IMAGENET1K_V1, opt.encoder_weights, "--encoder_weights")
