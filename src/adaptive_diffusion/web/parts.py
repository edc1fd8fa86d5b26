"""What several tabs of the page are made of."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .lifetime import Lifetime

COMPUTES: dict[str, Any] = {  # one after another
    "concurrency_limit": 1,
    "concurrency_id": "computes",
    "api_visibility": "private",
}
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def start_button(lifetime: Lifetime, text: str, name: str) -> Any:
    """A button, beside one that stops it; returned is the event after which to start."""
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=name, scale=3)
        stop = gr.Button("Cancel", elem_id=f"cancel-{name}", scale=1, min_width=100)
    stop.click(lifetime.cancel, None, None, queue=False, **QUICK)
    # outside the queue, so that Cancel knows of what still waits in it
    return start.click(lifetime.ask, gr.State(name), None, queue=False, **QUICK)


def command_field() -> gr.Textbox:
    """Where the command is shown that does the same."""
    return gr.Textbox(label="The same on the command line", interactive=False, lines=2)
