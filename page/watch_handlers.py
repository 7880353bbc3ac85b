"""
What the tab "Watch" of the page does: the curves, the health and the sample grids of a run.
"""

import os

import gradio as gr

from measuring import curves
from page import watch
from page.messages import in_words, paragraphs, readable_errors
from page.models_found import HOW_TO_TRAIN, is_running
from page.translate import number
from training.health import SETTLED
from utils import InputError


class WatchHandlers:
    """models: page.models_found.Models"""

    def __init__(self, models):
        self.models = models

    def runs_listed(self, chosen=None):
        """-> dropdown of the runs to watch; those that are training say so"""
        names = self.models.runs()
        labels = [(name + " (training)" * is_running(os.path.join(self.models.folder, name)), name) for name in names]
        return gr.Dropdown(choices=labels, value=chosen if chosen in names else names[0] if names else None)

    def watch(self, run, before, at):
        """What is new of a run -> (signature, status, curves, health, slider of the grids, grid); gr.skip() for what is
        not. before: the last signature; at: position of the slider"""
        if not run:
            text = "" if self.models.runs() else HOW_TO_TRAIN
            return (None, paragraphs([text]), "", "", gr.skip(), gr.skip())
        try:
            now = watch.signature(self.models, run)
            if now == before and not now[3]:
                return (gr.skip(),) * 6
            seen = watch.look_at(self.models, run)
        except (InputError, OSError) as error:  # the run is gone. A pop-up would come back every few seconds
            none = gr.Slider(visible=False), gr.Image(value=None, visible=False)
            return None, paragraphs([in_words(error)]), "", "", *none
        status = paragraphs([seen.status])
        if now == before:  # only the remaining time has changed
            return gr.skip(), status, *(gr.skip(),) * 4
        is_new = not before or before[0] != run or before[4] != now[4]
        grid, words = (gr.skip(), gr.skip()), []
        if is_new:
            *grid, words = self.grids(run, None if not before or before[0] != run else at, before)
        return now, status, curves.draw_all(seen.plots, SETTLED), paragraphs(seen.health + words), *grid

    def grids(self, run, at, before):
        """-> (slider, grid, lines on what is wrong) after grids were added. A slider at its end stays there."""
        steps = self.models.grids(run)
        if not steps:
            return gr.Slider(visible=False), gr.Image(value=None, visible=False), []
        at = len(steps) - 1 if type(at) not in (int, float) or at >= before[4] - 1 else int(at)
        slider = gr.Slider(
            minimum=0, maximum=max(1, len(steps) - 1), value=at, visible=len(steps) > 1, label=of_step(steps, at)
        )
        try:
            return slider, self.picture_of_grid(run, at), []
        except (InputError, OSError) as error:
            return slider, gr.Image(value=None, visible=False), [in_words(error)]

    def grid(self, run, at):
        """A position of the slider -> (slider, the grid)"""
        with readable_errors():
            at = int(number("position", at, 0, 10**9))
            steps = self.models.grids(run) if run else []
            if not steps:
                return gr.skip(), None
            return gr.Slider(label=of_step(steps, at)), self.picture_of_grid(run, at)

    def picture_of_grid(self, run, at):
        steps = self.models.grids(run)
        if not steps:
            return None
        step = steps[min(at, len(steps) - 1)]
        return gr.Image(value=watch.grid_of(self.models, run, step), visible=True)


def of_step(steps, at):
    """The label of the slider. The grid has none, which would cover the captions of its columns."""
    return f"Sample grid of step {steps[min(at, len(steps) - 1)]:,}"
