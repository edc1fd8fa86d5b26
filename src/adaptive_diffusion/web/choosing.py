"""What fills the controls of the page: a model's domains and labels, the history, and images that carry settings."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gradio as gr

from ..diffusion.checks import check_count
from ..diffusion.conditions import NO_LABEL
from ..errors import UserError
from ..runs.checks import as_user_error
from .bounds import Wish, wish_of
from .handlers import Handlers, errors_shown
from .sessions import Shown, settings_in
from .words import command, title

AS_IT_DRAWS: list[Any] = [("as it draws", "")]  # the domain of a model that has none of its own
NO_NAME: list[Any] = [("by share", ""), ("no label", NO_LABEL)]  # labels beside those of a domain
CONTROLS = tuple(field.name for field in fields(Wish))  # in the order in which handlers get them


class Choosing(Handlers):
    """What sets controls."""

    def history(self, request: gr.Request) -> Any:
        """All runs of this page, newest first, each with a few words; none is selected."""
        runs = enumerate(self.session(request).history, 1)
        shown = [(str(each.sheet), f"{i}: {title(each.drawn)}") for i, each in runs][::-1]
        return gr.update(value=shown, selected_index=None)

    def recall(self, request: gr.Request, event: gr.SelectData) -> tuple[str, list[str], int]:
        """The command, the files and the number of the run that was selected, of a list that may lack later runs."""
        history = self.session(request).history
        with errors_shown():
            number = int(event.value["caption"].partition(":")[0])
            shown = run_at(history, number)
            return command(shown.drawn.settings), [str(path) for path in shown.images], number

    def reuse(self, request: gr.Request, number: Any) -> tuple[Any, ...]:
        """The values of the controls that drew a run of the history."""
        history = self.session(request).history
        with errors_shown():
            if number is None:
                raise UserError("select a run first")
            return self.controls(run_at(history, number).drawn.settings)

    def adopt(self, settings: Sequence[str]) -> tuple[Any, ...]:
        """The values of the controls for settings that were found."""
        with errors_shown():
            if not settings:
                raise UserError(
                    "there are no settings to use: tune first; there are none where nothing beats the default"
                )
            return self.controls(settings)

    def restore(self, path: str | None) -> tuple[Any, ...]:
        """The values of the controls that drew an image which was handed in."""
        with errors_shown():
            return self.controls(settings_in(path)) if path else tuple(gr.skip() for _ in CONTROLS)

    def choose_model(self, name: Any) -> tuple[Any, Any]:
        """The domains of a model, one of them chosen, and its labels."""
        with errors_shown():
            offer = self.offers.model(name)
            chosen = gr.update(choices=list(offer.domains) or AS_IT_DRAWS, value=offer.first)
            return chosen, self.labels(name, offer.first)

    def labels(self, model: Any, domain: Any, label: str = "") -> Any:
        """The labels of a domain."""
        with errors_shown():
            domains = self.offers.model(model).domains
            names = list(domains.get(domain, ()))
            return gr.update(choices=[*NO_NAME, *names], value=label)

    def controls(self, settings: Sequence[str]) -> tuple[Any, ...]:
        """The values of the controls that stand for settings of sample.py."""
        wish, left_out = wish_of(settings, self.offers)
        if left_out:
            gr.Warning(
                html.escape(f"The page has no control for {' '.join(left_out)}, which is left out.", quote=False)
            )
        values = {name: getattr(wish, name) for name in CONTROLS}
        values["weight"] = "" if wish.weight is None else f"{wish.weight:g}"
        domains = list(self.offers.model(wish.model).domains)
        values["domain"] = gr.update(choices=domains or AS_IT_DRAWS, value=wish.domain)
        values["label"] = self.labels(wish.model, wish.domain, wish.label)
        return tuple(values.values())


def run_at(history: Sequence[Shown], number: Any) -> Shown:
    """A run of the history, counted from 1, the oldest."""
    with as_user_error():
        return history[check_count("the run", number, 1, len(history)) - 1]
