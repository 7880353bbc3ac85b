"""
Writes generators as .safetensors: their weights, and the options to build them from. inference/weights.py reads them.
"""

import copy
import importlib.util
import json
import os
import shlex

import torch

from command_line.provenance import provenance
from deploy.formats import Format, set_name, write_bytes
from inference.samples import dropout_of
from inference.weights import KEY, KNOWN, VERSION
from media.tensors import EXTENSION, HINT, read_tensors
from utils import InputError, whole_file
from variants.parts import use_dropout

WEIGHTS = {
    "safetensors": Format(EXTENSION, "float32", "", ""),
    "safetensors_fp16": Format(EXTENSION, "float16", "_fp16", ""),
}
LARGEST_LOSS = 2**-10  # of the norm of a layer's weights, by half precision. Rounding alone loses at most 2^-11


def check_package():
    if importlib.util.find_spec("safetensors") is None:
        raise InputError(f"export.py: --format safetensors and hub: {HINT}")


def write_weights(found, path, dtype=torch.float32):
    """Writes one generator, or both of a training, and reads the file again before it gets its name.

    found: {direction: TrainedGenerator}; {None: ...} if the direction is unknown. One is stored as a plain state dict
    dtype: of the weights, float32 or float16. They are float32 again when they are loaded
    Raises InputError, for example if a weight is too large or too small for float16."""
    from safetensors.torch import save

    tensors = {}
    for direction, trained in found.items():
        prefix = f"G_{direction}." if len(found) == 2 else ""
        for name, tensor in network_of(trained).state_dict().items():
            kept = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
            check_loss(prefix + name, tensor, kept, path)
            tensors[prefix + name] = kept.contiguous().clone()
    with whole_file(path) as temporary:
        write_bytes(save(tensors, {"format": "pt", KEY: json.dumps(facts_of(found))}), temporary)
        _, written = read_tensors(temporary)
        if written.keys() != tensors.keys() or not all(torch.equal(written[name], tensors[name]) for name in tensors):
            raise InputError(f"{path}: cannot be read as it was written; nothing was replaced")


def network_of(trained):
    """The network of a TrainedGenerator as `options_of` describes it: with the dropout of its training."""
    if not getattr(trained.network, "had_dropout", False):
        return trained.network
    network = copy.deepcopy(trained.network)
    use_dropout(network, dropout_of(trained))
    return network


def options_of(trained):
    """-> {name: value} that variants.build.make_generator builds the network from, with channels and out_channels"""
    had_dropout = getattr(trained.network, "had_dropout", False)
    return trained.network.described | ({"dropout": dropout_of(trained)} if had_dropout else {})


def facts_of(found):
    """What the metadata says, see inference/weights.py. found: see write_weights"""
    trained = next(iter(found.values()))
    options = trained.options | {"dataset_name": set_name(trained.options)}
    return {
        "version": VERSION,
        "generators": {direction or "": options_of(one) for direction, one in found.items()},
        "epoch": trained.epoch, "step": trained.step,
        "options": {name: options[name] for name in KNOWN if options.get(name) is not None},
        "trained_by": public(trained.provenance), "exported_by": public(provenance()),
    }  # fmt: skip


def public(made):
    """The part of a provenance that may be published, without the command, which names files of this machine."""
    kept = {name: str(made[name])[:100] for name in ("version", "commit", "torch", "date") if made.get(name)}
    data = made.get("data") if isinstance(made.get("data"), dict) else {}
    counts = {domain: data[domain] for domain in "AB" if type(data.get(domain)) is int}
    return kept | ({"data": counts} if counts else {})


def check_loss(name, tensor, kept, path):
    """Raises InputError if the stored values of a tensor are not finite, or differ too much."""
    if not kept.isfinite().all():
        raise InputError(f"{path}: {name} has values that are too large for half precision; nothing was written")
    if tensor.ndim > 1 and (kept.to(tensor.dtype) - tensor).norm() > LARGEST_LOSS * tensor.norm():
        raise InputError(f"{path}: {name} has values that are too small for half precision; nothing was written")


def export_weights(kind, path, trained):
    """Writes one generator in a format of WEIGHTS, and says how to use it."""
    replaced = ", replaces an earlier file" if os.path.exists(path) else ""
    dtype = getattr(torch, WEIGHTS[kind].precision)
    write_weights({trained.direction: trained}, path, dtype)
    print(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB{replaced}. To use it:")
    print(f"    python translate.py --checkpoint {shlex.quote(path)} --input photo.jpg")
