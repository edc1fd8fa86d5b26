"""What fills the controls of the page: a model's domains and labels, the history, and images that carry settings."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
from omegaconf import OmegaConf

from ..diffusion.checks import check_count
from ..diffusion.conditions import NO_LABEL
from ..errors import UserError
from ..runs.checks import as_user_error
from .bounds import FIELDS, HOW, Wish
from .curve import affordable, fewest, is_model
from .handlers import Handlers, errors_shown
from .restoring import wish_of
from .sessions import Shown, settings_in
from .words import command, title

AS_IT_DRAWS: list[Any] = [("as it draws", "")]  # the domain of a model that has none of its own
NO_NAME: list[Any] = [
    ("mixed", ""),
    ("no label", NO_LABEL),
]  # labels beside those of a domain; mixed: by their share in the training data


def without_folders(config: str) -> str:
    """The text of a run's configuration, in which folders of this machine are named by what they are for."""
    paths: Any = OmegaConf.select(OmegaConf.create(config), "paths")
    for name in ("outputs", "mlruns", "data", "root"):  # the one that may hold the others last
        config = config.replace(str(paths[name]), f"<{name}>")
    return config


class Choosing(Handlers):
    """What sets controls."""

    def history(self, request: gr.Request) -> Any:
        """The runs of this browser that are kept, newest first, each with a few words; none is selected."""
        runs = enumerate(self.session(request).past.history, 1)
        shown = [(str(each.sheet), f"{i}: {caption(each)}") for i, each in runs if each.sheet.is_file()][::-1]
        return gr.update(value=shown, selected_index=None)

    def recall(self, request: gr.Request, event: gr.SelectData) -> tuple[str, list[str], str, int]:
        """Command, files, config.yaml and number of the run that was selected, of a list that may lack later runs."""
        history = self.session(request).past.history
        with errors_shown():
            number = int(event.value["caption"].partition(":")[0])
            shown = run_at(history, number)
            path = shown.drawn.folder / "config.yaml"
            config = without_folders(path.read_text(encoding="utf-8")) if path.is_file() else "it is there no more"
            return command(shown.drawn.settings), [str(path) for path in shown.images], config, number

    def reuse(self, request: gr.Request, number: Any) -> tuple[Any, ...]:
        """The values of the controls that drew a run of the history."""
        history = self.session(request).past.history
        with errors_shown():
            if number is None:
                raise UserError("select a run first")
            return self.controls(run_at(history, number).drawn.settings)

    def adopt(self, settings: Sequence[str]) -> tuple[Any, ...]:
        """The values of the controls for settings that were found."""
        with errors_shown():
            if not settings:
                raise UserError("there are no settings to use, since nothing was found that is surely better")
            return self.controls(settings)

    def adopt_measured(self, domain: Any, passes: Any, *values: Any) -> tuple[Any, ...]:
        """The values of the controls for what is nearest to real images within a budget of passes."""
        with errors_shown():
            found = affordable(domain, passes)
            if not found:
                raise UserError(f"nothing was measured with so few passes; the fewest are {fewest(domain)}")
            model = next((offer.name for offer in self.offers.models if is_model(offer.identity)), None)
            if model is None:
                raise UserError("another model was measured, the one that ships, and this page does not draw with it")
            instead = {name: getattr(found[0], name) for name in HOW if name != "weight"}
            wish = replace(Wish.of(values), **instead, model=model, prompt="", domain=domain, label="", weight=None)
            return self.controls(wish.checked(self.offers).settings(self.offers))

    def restore(self, path: str | None) -> tuple[Any, ...]:
        """The values of the controls that drew an image which was handed in."""
        with errors_shown():
            return self.controls(settings_in(path)) if path else tuple(gr.skip() for _ in FIELDS)

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
        values = {name: getattr(wish, name) for name in FIELDS}
        values["weight"] = "" if wish.weight is None else f"{wish.weight:g}"
        domains = list(self.offers.model(wish.model).domains)
        values["domain"] = gr.update(choices=domains or AS_IT_DRAWS, value=wish.domain)
        values["label"] = self.labels(wish.model, wish.domain, wish.label)
        return tuple(values.values())


def run_at(history: Sequence[Shown], number: Any) -> Shown:
    """A run of the history, counted from 1, the oldest."""
    with as_user_error():
        return history[check_count("the run", number, 1, len(history)) - 1]


def caption(shown: Shown) -> str:
    """A run in a few words, after what it belongs to."""
    return f"{shown.group}, {title(shown.drawn)}" if shown.group else title(shown.drawn)
