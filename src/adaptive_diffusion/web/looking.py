"""What the page says without drawing: the steps of a run, their cost, and what was measured with a budget."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from .. import errors
from ..io import figures
from ..io.counted import count
from .bounds import Wish
from .curve import affordable, plot
from .handlers import Handlers, errors_shown
from .jobs import steps_of
from .words import cost_in_words

log = logging.getLogger(__name__)


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
            return str(path), rows, cost_in_words(steps)

    def cost(self, *values: Any) -> str:
        """What the steps that the controls say cost, in words; "" where the controls are not right yet."""
        try:
            settings = Wish.of(values).checked(self.offers).settings(self.offers)
            return cost_in_words(self.worker.do(partial(steps_of, settings)))
        except Exception as error:
            if errors.known_error(error) is None and not isinstance(error, ValueError):
                log.exception("what a run costs cannot be said")
            return ""

    def afford(self, request: gr.Request, domain: Any, passes: Any) -> tuple[Any, Any, str]:
        """The measured curve with a mark at a budget, the table of what can be had for it, and a line about it."""
        if passes is None:  # its field is empty while another number is typed
            return gr.skip(), gr.skip(), "Give a number of passes."
        session = self.session(request)
        with errors_shown():
            found = affordable(domain, passes)
            path = session.folder / f"curve-{domain}-{passes}.png"
            plot(path, domain, passes)
            rows = [[each.method, each.steps, each.passes, f"{each.distance:.4f}"] for each in found]
            best = found[0] if found else None
            said_best = (
                f"{best.method} with {count(best.steps, 'step')} comes closest ({best.distance:.4f})" if best else ""
            )
            return str(path), rows, said_best or "Nothing was measured with so few passes."
