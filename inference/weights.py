"""
Generators in files of safetensors, as export.py writes them: the metadata says under the key "cyclegan", in JSON, how to
build them. A folder of export.py --format hub holds such a file.

    {"version": 1, "generators": {"AB": {"ngf": 64, ...}, "BA": {...}}, "epoch": 200, "step": 266800,
     "options": {"dataset_name": "horse2zebra", "img_height": 256, "img_width": 256}, "trained_by": {...}}

In a file of two generators, the names of the tensors begin with G_AB. or G_BA. In a file of one they are those of its
state dict, and the direction may be "" for unknown. Files without this metadata are read as state dicts in .pth files are.
"""

import dataclasses
import json
import os

from media.tensors import read_tensors
from utils import InputError
from variants.schema import check_version, damaged, expect, is_count
from variants.stored_options import check_options

KEY = "cyclegan"  # of the metadata
VERSION = 1
MODEL = "model.safetensors"  # name of the file in a folder for the Hugging Face Hub
KNOWN = ("dataset_name", "img_height", "img_width", "keep_aspect")  # training options that are stored


@dataclasses.dataclass
class Weights:
    """The contents of a file of safetensors.

    generators: {"AB", "BA" or "": {"generator": options to build it, "weights": state dict}}, or, if the options are
                unknown, {direction: state dict}
    epoch, step, options, provenance: as in TrainedGenerator
    """

    generators: dict
    epoch: int | None = None
    step: int | None = None
    options: dict = dataclasses.field(default_factory=dict)
    provenance: dict = dataclasses.field(default_factory=dict)


def model_file(path):
    """For a folder that holds model.safetensors, that file; any other path as it is."""
    file = os.path.join(path, MODEL)
    return file if os.path.isdir(path) and os.path.lexists(file) else path


def read_weights(path):
    """-> Weights, whose tensors are views of the mapped file. What builds a generator checks its options and tensors.
    Raises InputError."""
    metadata, tensors = read_tensors(path)
    if KEY not in metadata:
        both = {d: part_of(tensors, d) for d in ("AB", "BA") if any(name.startswith(f"G_{d}.") for name in tensors)}
        return Weights(both or {"": tensors})
    try:
        facts = json.loads(metadata[KEY])
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged, its metadata {KEY} is not JSON")
    with damaged(path):
        expect("metadata", facts, isinstance(facts, dict) and isinstance(facts.get("generators"), dict))
        check_version({"version": facts.get("version")}, path)
        described = facts["generators"]
        expect("generators of its metadata", list(described), described.keys() in ({"AB", "BA"}, {"AB"}, {"BA"}, {""}))
        for name, most in (("epoch", 10**9), ("step", 10**15)):
            value = facts.get(name)
            expect(name, value, value is None or is_count(value, most))
        options, provenance = facts.get("options", {}), facts.get("trained_by", {})
        expect("trained_by", provenance, isinstance(provenance, dict))
    check_options(options, path)
    generators = {}
    for direction, network in described.items():
        weights = part_of(tensors, direction) if len(described) == 2 else tensors
        generators[direction] = {"generator": network, "weights": weights}
    options = {name: options[name] for name in KNOWN if name in options}
    return Weights(generators, facts.get("epoch"), facts.get("step"), options, provenance)


def part_of(tensors, direction):
    """The state dict of one of two generators."""
    prefix = f"G_{direction}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
