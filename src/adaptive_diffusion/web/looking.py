"""What the page says without drawing: the steps of a run, their cost, and what was measured with a budget."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from ..io import figures
from ..io.counted import count
from .bounds import Wish
from .curve import Measurement, affordable, between_real, fewest, plot_curves
from .handlers import Handlers, errors_shown
from .jobs import calibration_cost, steps_of
from .words import steps_cost


class Looking(Handlers):
    """What draws nothing."""

    def schedule(self, request: gr.Request, *values: Any) -> tuple[str, list[list[Any]], str]:
        """The plot, the table and a line about the timesteps that the controls lead to."""
        session = self.session(request)
        with errors_shown():
            wish = Wish.of(values).checked(self.offers)
            steps = self.worker.do(partial(steps_of, wish.settings(self.offers)))
            path = session.folder / f"schedule-{wish.scheduler}-{wish.steps}.png"
            title = f"{wish.scheduler}, {count(wish.steps, 'step')}"
            figures.save_schedule_plot(path, steps.timesteps, steps.log_snr, title, np.ones(len(steps.timesteps)))
            columns = (steps.timesteps, steps.noise, steps.log_snr, steps.passes)
            rows = [[i, *(round(float(v), 3) for v in row)] for i, row in enumerate(zip(*columns, strict=True), 1)]
            return str(path), rows, steps_cost(steps)

    def cost(self, *values: Any) -> str:
        """What the steps that the controls say cost, in words; or what is wrong with the controls."""
        try:
            with errors_shown():
                settings = Wish.of(values).checked(self.offers).settings(self.offers)
                return steps_cost(self.worker.do(partial(steps_of, settings)))
        except gr.Error as error:  # nobody has asked to draw yet
            return str(error.message)

    def calibration(self, steps: Any, *values: Any) -> str:
        """What a calibration for what the controls say, with a number of steps, would take; or why there is none."""
        try:
            with errors_shown():
                wish = replace(Wish.of(values), scheduler="adaptive", steps=steps).checked(self.offers)
                cost = self.worker.do(partial(calibration_cost, wish.settings(self.offers)))
        except gr.Error as error:  # nobody has asked to calibrate yet
            return str(error.message)
        return f"For {wish.prompt or wish.domain or 'this model'} in {count(wish.steps, 'step')}: {cost}."

    def afford(self, request: gr.Request, domain: Any, passes: Any) -> tuple[Any, Any, str]:
        """The measured curve with a mark at a budget, the table of what can be had for it, and a line about it."""
        if passes is None:  # its field is empty while another number is typed
            return gr.skip(), gr.skip(), "Give a number of passes."
        session = self.session(request)
        with errors_shown():
            found = affordable(domain, passes)
            path = session.folder / f"curve-{domain}-{passes}.png"
            plot_curves(path, domain, passes)
            rows = [[each.method, each.steps, stored(each), each.passes, f"{each.distance:.1f}"] for each in found]
            if not found:
                return str(path), rows, f"The fewest passes that were measured in {domain} are {fewest(domain)}."
            best = found[0]
            how = f"{best.method}, {count(best.steps, 'step')}, first evaluation {stored(best)}"
            line = (
                f"Nearest: **{how}**, which takes {count(best.passes, 'pass')}. Its distance to real images is "
                f"**{best.distance:.1f}**; real images among themselves have {between_real(domain):.1f}."
            )
            return str(path), rows, line


def stored(each: Measurement) -> str:
    """Whether the first evaluation is stored, in a word."""
    return "stored" if each.stored else "evaluated"
