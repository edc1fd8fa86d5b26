"""Pieces that several tabs of the page have."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .bounds import AT_ONCE, MOST_STEPS, Offers
from .handlers import Handlers

NARROW = 640  # pixels: on a narrower screen the columns of the page lie one below the other
COMPUTES: dict[str, Any] = {  # the worker does one after another, and says how many come before
    "concurrency_limit": AT_ONCE,
    "concurrency_id": "computes",
    "api_visibility": "private",
}
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def as_it_is(value: Any) -> Any:
    """The value of a field that the handlers check, in place of Gradio's own check."""
    return value


def slider(*bounds: int, **given: Any) -> gr.Slider:
    """A slider over whole numbers, whose field beside it may be empty."""
    slider = gr.Slider(*bounds, **{"step": 1, **given})
    slider.preprocess = as_it_is
    return slider


def scheduler_and_steps(offers: Offers, scheduler: str, steps: int, where: str = "") -> list[Any]:
    """The first two fields that say how something is drawn; see `bounds.HOW`.

    Args:
        offers: What can be chosen.
        scheduler, steps: What is chosen at first.
        where: Behind their labels.
    """
    return [
        gr.Dropdown(list(offers.schedulers), value=scheduler, label=f"Scheduler{where}", min_width=120),
        slider(1, MOST_STEPS, steps, label=f"Steps{where}", min_width=160),
    ]


def grid_and_guidance(offers: Offers, where: str = "") -> list[Any]:
    """The other fields of `bounds.HOW`; see `scheduler_and_steps`."""
    with gr.Row():
        guidance = gr.Dropdown(list(offers.guidance), value="default", label=f"Guidance{where}", min_width=120)
        weight = gr.Textbox(label=f"Weight{where}", placeholder="default", max_length=20, min_width=120)
    grid = gr.Dropdown(list(offers.grids), value="own", label=f"Grid{where}", info="own: the scheduler's timesteps.")
    stored = gr.Checkbox(
        label=f"Stored first evaluation{where}",
        info="Saves one evaluation of an image; adaptive and tuned alone can.",
    )
    return [grid, guidance, weight, stored]


def plot(label: str, alt_text: str) -> gr.Image:
    """A figure, which is shown smoothly and can be downloaded; a label on it would hide what stands there."""
    return gr.Image(label=label, show_label=False, buttons=["download"], alt_text=alt_text, elem_classes="plot")


def start_button(handlers: Handlers, text: str, name: str) -> Any:
    """A button, beside one that stops it; returned is the event after which to start."""
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=name, scale=3)
        stop = gr.Button("Cancel", elem_id=f"cancel-{name}", scale=1, min_width=100)
    stop.click(handlers.cancel, None, None, queue=False, **QUICK)
    # where the controls fill the screen, what is drawn would be seen by those alone who look for it
    start.click(None, js=f"() => innerWidth < {NARROW} && document.querySelector('#{name}').scrollIntoView()")
    # outside the queue, so that Cancel knows of what still waits in it
    return start.click(handlers.ask, gr.State(name), None, queue=False, **QUICK)


def use_button(name: str) -> gr.Button:
    """A button that brings settings to the controls, which are shown then."""
    button = gr.Button("Use these settings", elem_id=name)
    button.click(None, js=f"() => innerWidth < {NARROW} && scrollTo(0, 0)")
    return button


def file_list(label: str) -> gr.File:
    """Where the images of a run can be had."""
    return gr.File(label=label, file_count="multiple", interactive=False, elem_classes="files")


def command_field() -> gr.Textbox:
    """Where the command is shown that does the same."""
    return gr.Textbox(label="The same on the command line", interactive=False, lines=2, buttons=["copy"])
