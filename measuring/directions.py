"""
Measures one direction of translation on the test images.
"""

import torch

from measuring.diversity import measure_samples
from measuring.images import from_uint8, image_batches, in_8_bits, stack_images, to_float, to_uint8
from measuring.metrics import l1
from measuring.results import Cases, arrow
from measuring.scores import Scores
from utils import as_rgb


def measure_all_untranslated(generators, directions, data, available, settings, paired):
    """Returns {direction: result of measure_untranslated}, for directions where that makes sense."""
    return {
        d: measure_untranslated(d, data, available, settings, generators[d].channels, paired)
        for d in directions
        if (paired or data.label_domain == d[1]) and generators[d].channels == generators[d].out_channels
    }


@torch.no_grad()
def measure_untranslated(direction, data, available, settings, channels, paired):
    """Compares the inputs themselves with the ground truth -> {measure: value}, as measure_direction does with the
    translations. A translation is only worth something if it is closer to the truth than its input was."""
    source, target = direction
    scores, truths, done = Scores(available, deep=data.is_deep(direction)), data.truths(direction), 0
    loading = settings.loading(source) | dict(
        channels=channels, deep=data.deep[source], label=f"untranslated {source} against {target}"
    )
    for images in image_batches(data.test[source], **loading):
        counterparts = truths[done : done + len(images)]
        done += len(images)
        if paired:
            truth = stack_images(counterparts, channels=channels, deep=data.deep[target], **settings.reading(target))
            scores.add_pairs(to_float(images), to_float(truth.to(settings.device)))
        if data.label_domain == target:
            scores.add_labels(in_8_bits(images), counterparts, data.palette, settings.keep_aspect)
    return scores.compute()


@torch.no_grad()
def measure_direction(direction, generators, data, available, settings, paired):
    """Measures one direction -> ({measure: value}, report.Cases).

    direction:  "AB" or "BA"
    generators: {direction: generator}; the opposite one is optional
    """
    source, target = direction
    G, G_back = generators[direction], generators.get(target + source)
    is_deep, is_label = data.is_deep(direction), data.label_domain == target
    truths = data.truths(direction)
    if is_label:
        criterion, unit = "share of wrong pixels", ""
    elif truths:
        criterion, unit = "L1 to the truth", "of 255"
    elif G_back:
        criterion, unit = "cycle L1", "of 255"
    else:
        criterion, unit = "L1 to the input", "of 255"
    columns = ["input", "translation"] + ["recovered"] * bool(G_back) + ["truth"] * bool(truths)
    scores, cases = Scores(available, target, is_deep), Cases(f"{arrow(direction)}, by {criterion}", columns, unit)

    def translate(G, x):
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.amp):
            return G(x).float()

    done = 0
    loading = settings.loading(source) | dict(channels=G.channels, deep=data.deep[source], label=arrow(direction))
    for images in image_batches(data.test[source], **loading):
        batch = slice(done, done + len(images))
        done += len(images)
        x = to_float(images)
        fake = translate(G, x)
        written = to_uint8(fake)  # what an image file would contain ...
        seen = fake.clamp(-1, 1) if is_deep else from_uint8(written)  # ... and what its reader would see
        shown = [in_8_bits(images), written]
        errors = {"L1 to the input": scores.add_change(x, seen)}
        scores.add_distribution(written)
        if G_back:
            recovered = translate(G_back, fake)  # not from 8 bits: the cycle loss does not round either
            errors["cycle L1"] = scores.add_cycle(x, recovered)
            shown.append(to_uint8(recovered))
        if truths:
            reading = settings.reading(target) | dict(channels=G.out_channels, deep=data.deep[target])
            truth = stack_images(truths[batch], **reading).to(settings.device)
            shown.append(in_8_bits(truth))
            truth = to_float(truth)
            errors["L1 to the truth"] = l1(seen, truth)
            if paired:
                scores.add_pairs(seen, truth)
        if is_label:
            errors["share of wrong pixels"] = scores.add_labels(
                written, truths[batch], data.palette, settings.keep_aspect
            )
        for i, path in enumerate(data.test[source][batch]):
            cases.add(errors[criterion][i].item(), path, [as_rgb(column[i : i + 1])[0] for column in shown])

    if settings.n_samples:
        measure_samples(direction, G, data, scores, settings, paired, translate)
    unchanged = data.test[target] if G.channels == G.out_channels else []
    loading |= settings.reading(target) | dict(
        deep=data.deep[target], label=f"{arrow(direction)}, identity mapping of {target}"
    )
    for images in image_batches(unchanged, **loading):
        x = to_float(images)
        scores.add("identity_l1", l1(translate(G, x), x))
    return scores.compute(), cases
