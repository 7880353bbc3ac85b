"""
Plots of logs as SVG, which is text: it fits any width of a page, light and dark, and needs no script or package.
"""

import html
import math
import re

from measuring.logs import curve, label_of, names_by_plot
from training.health import USUAL

N_POINTS = 400  # of a curve, at most

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24  # margins
SMALLEST = 1e-30  # range of a plot: a smaller one is a single value
COLOURS = ("#3b82f6", "#e07b00", "#159a68", "#c2579a", "#8a6d3b", "#7c6ff0")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # of the values in one plot, if there are several runs
STYLE = """
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.curves figure { margin: 0; } .curves figcaption { font-weight: 600; font-size: .9rem; color: inherit; }
.curves div { font-size: .85rem; overflow-wrap: anywhere; }
.curves svg { width: 100%; height: auto; } .curves polyline { fill: none; stroke-width: 2; }
.curves text { fill: currentColor; font-size: 12px; opacity: .75; } .curves .grid { stroke: currentColor; opacity: .15; }
.curves .entry { display: inline-block; margin-right: .75rem; } .curves .key { width: 24px; height: 8px; }
.curves .usual { fill: currentColor; opacity: .07; }
"""


##############################
#   What is drawn
##############################


def plots_of(logs, smooth):
    """-> {title: list of (label, steps, values)}, the plots of measuring.plot, thinned out to N_POINTS a curve. Of several
    runs, each has its colour in all plots, and each value its dashes: (label, steps, values, colour, dashes)

    logs:   {name of a run: records}
    smooth: number of steps to average losses over
    """
    plots, several = {}, len(logs) > 1
    for title, names in names_by_plot(record for records in logs.values() for record in records).items():
        lines = plots[title] = []
        for i, (run, records) in enumerate(logs.items()):
            for j, name in enumerate(names):
                steps, values = thinned(*curve(records, name, smooth if name.startswith("loss_") else 0))
                words = [label_of(name)] * (len(names) > 1 or not several) + [run] * several
                looks = (COLOURS[i % len(COLOURS)], DASHES[j % len(DASHES)]) if several else ()
                if steps:
                    lines.append((", ".join(words), steps, values, *looks))
    return plots


def thinned(steps, values):
    """At most N_POINTS points of a curve, evenly spaced, with the last one"""
    stride = -(-len(steps) // N_POINTS)
    chosen = range((len(steps) - 1) % stride, len(steps), stride) if steps else []
    return [steps[i] for i in chosen], [values[i] for i in chosen]


##############################
#   Drawing
##############################


def ticks(low, high, n=4):
    """About n round numbers between low and high: multiples of 1, 2 or 5 times a power of ten"""
    if not high - low > SMALLEST:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / n))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= n)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def short(value):
    """1500 -> '1.5k', 0.00015 -> '1.5e-4'"""
    if abs(value) >= 1000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1000:g}k"
    text = f"{value:.3g}" if abs(value) >= 0.001 or abs(value) < 1e-12 else f"{value:.2e}"
    return re.sub(r"\.?0*e-0?", "e-", text) if "e" in text else text


def draw(title, lines):
    """-> a <figure> with the curves of one plot.

    lines: list of (label, steps, values), each with at least one point; with or without (colour, dashes), see plots_of
    """
    first, last = min(line[1][0] for line in lines), max(line[1][-1] for line in lines)
    low, high = min(0.0, *(min(line[2]) for line in lines)), max(max(line[2]) for line in lines)
    high = high if high - low > SMALLEST else low + 1
    span = max(1, last - first)

    def x(step):
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / span, 1)

    def y(value):
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    parts = []
    if title.startswith("cycle loss"):  # the ranges of other losses depend on --gan_loss
        bottom, top = (y(min(max(value, low), high)) for value in USUAL["loss_cycle"])
        parts.append(
            f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" y="{top}" height="{bottom - top:.1f}" class="usual">'
            "<title>usual</title></rect>"
        )
    for value in ticks(low, high):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{short(value)}</text>')
    for step in ticks(first, last):
        label = short(step)
        anchor = "end" if x(step) + 4 * len(label) > WIDTH else "middle"  # a digit is up to 8 wide
        parts.append(f'<text x="{x(step)}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
    words = []
    for i, (label, steps, values, *looks) in enumerate(lines):
        colour, dashes = looks or (COLOURS[i % len(COLOURS)], "")
        points = " ".join(f"{x(s)},{y(v)}" for s, v in zip(steps, values))
        dashes = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<polyline points="{points}" stroke="{colour}"{dashes}/>')
        parts.append(f'<circle cx="{x(steps[-1])}" cy="{y(values[-1])}" r="3" fill="{colour}"/>')
        key = f'<span style="color:{colour}">●</span>'
        if dashes:
            key = f'<svg viewBox="0 0 24 8" class="key"><polyline points="0,4 24,4" stroke="{colour}"{dashes}/></svg>'
        words.append(f'<span class="entry">{key} {html.escape(label)} {values[-1]:.3g}</span>')
    name = html.escape(title)
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} over the steps">{"".join(parts)}</svg>'
    )
    return f"<figure><figcaption>{name}</figcaption>{picture}<div>{' '.join(words)}</div></figure>"


def draw_all(plots, smooth=0):
    """HTML of all plots, side by side as far as there is room, "" without any. It looks right with STYLE.

    plots:  of plots_of
    smooth: number of steps that losses were averaged over, which is said
    """
    if not plots:
        return ""
    said = f"<p>Losses are means over the last {smooth} steps.</p>" if smooth > 1 else ""
    return f'<div class="curves">{"".join(draw(title, lines) for title, lines in plots.items())}</div>{said}'
