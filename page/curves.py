"""
Plots as SVG, which is text: it fits any width of a page, light and dark, and needs no script.
"""

import html
import math
import re

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24  # margins
SMALLEST = 1e-30  # range of a plot: a smaller one is a single value
COLOURS = ("#3b82f6", "#e07b00", "#159a68", "#c2579a", "#8a6d3b", "#7c6ff0")


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

    lines: list of (label, steps, values), each with at least one point
    """
    first, last = min(steps[0] for _, steps, _ in lines), max(steps[-1] for _, steps, _ in lines)
    low, high = min(0.0, *(min(values) for *_, values in lines)), max(max(values) for *_, values in lines)
    high = high if high - low > SMALLEST else low + 1
    span = max(1, last - first)

    def x(step):
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / span, 1)

    def y(value):
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    parts = []
    for value in ticks(low, high):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end">{short(value)}</text>')
    for step in ticks(first, last):
        parts.append(f'<text x="{x(step)}" y="{HEIGHT - 6}" text-anchor="middle">{short(step)}</text>')
    words = []
    for i, (label, steps, values) in enumerate(lines):
        colour, points = COLOURS[i % len(COLOURS)], " ".join(f"{x(s)},{y(v)}" for s, v in zip(steps, values))
        parts.append(f'<polyline points="{points}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x(steps[-1])}" cy="{y(values[-1])}" r="3" fill="{colour}"/>')
        words.append(f'<span style="color:{colour}">●</span> {html.escape(label)} {values[-1]:.3g}')
    name = html.escape(title)
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} over the steps">{"".join(parts)}</svg>'
    )
    return f"<figure><figcaption>{name}</figcaption>{picture}<div>{' &nbsp; '.join(words)}</div></figure>"


def draw_all(plots):
    """{title: lines} -> HTML of all plots, side by side as far as there is room"""
    return f'<div class="curves">{"".join(draw(title, lines) for title, lines in plots.items())}</div>' if plots else ""
