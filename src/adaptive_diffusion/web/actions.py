"""What the controls of the page do. Nothing here knows the layout."""

from __future__ import annotations

import html
import logging
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from .. import errors, program
from ..cli.entry import sentence_and_code
from ..diffusion.checks import check_count
from ..diffusion.conditions import NO_LABEL
from ..errors import Unusable, UserError
from ..io import figures
from ..metrics.quality import DETAILS
from ..runs.checks import refused
from ..sampling.timing import duration
from .bounds import MOST_CELLS, Offers, Wish, wish_of
from .curve import affordable, plot
from .jobs import Cancelled, Drawn, Progress, Steps, Worker, draw, enlarged, steps_of
from .sessions import Session, Sessions, Shown, settings_in

log = logging.getLogger(__name__)

CELL = 128  # pixels of an image on a sheet
COMPARED = 512  # pixels of an image under the slider
AS_IT_DRAWS: list[Any] = [("as it draws", "")]  # the domain of a model that has none of its own
NO_NAME: list[Any] = [("by share", ""), ("no label", NO_LABEL)]  # labels beside those of a domain
NOTHING: Mapping[str, Any] = {}
CONTROLS = tuple(field.name for field in fields(Wish))  # in the order in which handlers get them


class Actions:
    """What the controls of the page do; one object for all who look at it.

    Args:
        offers: What can be chosen.
        worker: The thread that computes.
        sessions: What each open page has drawn.
    """

    def __init__(self, offers: Offers, worker: Worker, sessions: Sessions):
        self.offers, self.worker, self.sessions = offers, worker, sessions

    def ask(self, request: gr.Request, name: str) -> None:
        """Something is asked for: "draw", "calibrate", "compare" or "sheet"; it may have to wait, and be cancelled."""
        self._session(request).ask(name)

    def draw(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw what the controls say.

        Yields:
            The images side by side, how far it is, the files, the command.
        """
        yield from self._draw("draw", request, values)

    def calibrate(self, request: gr.Request, steps: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Calibrate the adaptive scheduler for what the controls say, with a number of steps, and draw with it."""
        more = {"scheduler": "adaptive", "steps": steps}
        yield from self._draw("calibrate", request, values, more, "scheduler.calibrate=always")

    def _draw(
        self, name: str, request: gr.Request, values: Sequence[Any], instead: Mapping[str, Any] = NOTHING, *more: str
    ) -> Iterator[tuple[Any, ...]]:
        session = self._session(request)
        with errors_shown(), session.running(name) as stop:
            wish = replace(Wish.of(values), **instead).checked(self.offers)
            settings = [*wish.settings(self.offers), *more]
            yield None, "Waiting for its turn.", None, command(settings)
            for told in self._run(session, settings, stop):
                if isinstance(told, Shown):
                    files = [str(path) for path in told.images]
                    yield str(told.sheet), summary(told.drawn), files, command(settings)
                elif isinstance(told, Progress):
                    yield gr.skip(), in_words(told), gr.skip(), gr.skip()
                else:
                    yield str(session.write(enlarged(told))), gr.skip(), gr.skip(), gr.skip()

    def compare(self, request: gr.Request, scheduler: Any, steps: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw one image twice from the same noise: as the controls say, and with another scheduler and steps.

        Yields:
            The pair of images, how far it is, the commands.
        """
        session = self._session(request)
        with errors_shown(), session.running("compare") as stop:
            one = replace(Wish.of(values), images=1).checked(self.offers)
            other = replace(one, scheduler=scheduler, steps=steps).checked(self.offers)
            commands = "\n".join(command(wish.settings(self.offers)) for wish in (one, other))
            yield None, "Waiting for its turn.", commands

            pair, lines = [], []
            for name, wish in (("Left", one), ("Right", other)):
                for told in self._run(session, wish.settings(self.offers), stop):
                    if isinstance(told, Progress):
                        yield gr.skip(), f"{name}: {in_words(told)}", gr.skip()
                    elif isinstance(told, Shown):
                        pair.append(str(session.write(figures.grid(pixels(told), cell=COMPARED), "compared")))
                        lines.append(f"**{name}:** {wish.scheduler}, {summary(told.drawn)}")
            yield tuple(pair), "\n\n".join(lines), commands

    def sheet(
        self, request: gr.Request, schedulers: Sequence[str], steps: Sequence[Any], *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Draw one image by several schedulers, each in several numbers of steps.

        Yields:
            The sheet, how far it is, the command.
        """
        session = self._session(request)
        with errors_shown(), session.running("sheet") as stop:
            wish = replace(Wish.of(values), images=1)
            if not schedulers or not steps:
                raise UserError("choose at least one scheduler and one number of steps")
            if (cells := len(schedulers) * len(steps)) > MOST_CELLS:
                raise UserError(f"a sheet has at most {MOST_CELLS} images, and this would have {cells}; choose fewer")
            wishes = [
                replace(wish, scheduler=s, steps=n).checked(self.offers) for s in schedulers for n in sorted(steps)
            ]

            swept = f"scheduler={','.join(schedulers)}", f"num_steps={','.join(str(n) for n in sorted(steps))}"
            rest = [
                each for each in wishes[0].settings(self.offers) if not each.startswith(("scheduler=", "num_steps="))
            ]
            line = command(["-m", *swept, *rest])
            yield None, "Waiting for its turn.", line

            done: list[np.ndarray | None] = []
            failed: list[str] = []
            for wish in wishes:
                place = f"{len(done) + 1} of {len(wishes)} ({wish.scheduler}, {wish.steps} steps)"
                image = None
                try:
                    for told in self._run(session, wish.settings(self.offers), stop):
                        if isinstance(told, Progress):
                            yield gr.skip(), f"{place}: {in_words(told)}", gr.skip()
                        elif isinstance(told, Shown):
                            image = pixels(told)[0]
                except (Unusable, UserError) as error:  # this scheduler cannot draw this; the others may
                    failed.append(f"{wish.scheduler}, {wish.steps} steps: {errors.sentence(error)}")
                done.append(image)
                columns = [f"{n} steps" for n in sorted(steps)]
                whole = labelled_sheet(done, list(schedulers), columns)
                yield (str(session.write(whole, "sheet")) if whole is not None else None), place, gr.skip()
            yield gr.skip(), "\n\n".join([f"{len(done) - len(failed)} images drawn.", *failed]), gr.skip()

    def schedule(self, request: gr.Request, *values: Any) -> tuple[str, list[list[Any]], str]:
        """The plot, the table and a line about the timesteps that the controls lead to."""
        session = self._session(request)
        with errors_shown():
            wish = Wish.of(values).checked(self.offers)
            steps = self.worker.do(partial(steps_of, wish.settings(self.offers)))
            path = session.folder / f"schedule-{wish.scheduler}-{wish.steps}.png"
            title = f"{wish.scheduler}, {wish.steps} steps"
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

    def afford(self, request: gr.Request, domain: Any, passes: Any) -> tuple[str, list[list[Any]], str]:
        """The measured curve with a mark at a budget, the table of what can be had for it, and a line about it."""
        session = self._session(request)
        with errors_shown():
            found = affordable(domain, passes)
            path = session.folder / f"curve-{domain}-{passes}.png"
            plot(path, domain, passes)
            rows = [[each.method, each.steps, each.passes, f"{each.distance:.4f}"] for each in found]
            best = found[0] if found else None
            said_best = f"{best.method} with {best.steps} steps comes closest ({best.distance:.4f})" if best else ""
            return str(path), rows, said_best or "Nothing was measured with so few passes."

    def cancel(self, request: gr.Request) -> None:
        """Stop what this page draws or waits for, which says itself that it was stopped."""
        self._session(request).cancel()

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.close(str(request.session_hash))

    def history(self, request: gr.Request) -> list[tuple[str, str]]:
        """All runs of this page, newest first, each with a few words."""
        runs = enumerate(self._session(request).history, 1)
        return [(str(shown.sheet), f"{i}: {title(shown.drawn)}") for i, shown in runs][::-1]

    def recall(self, request: gr.Request, event: gr.SelectData) -> tuple[str, list[str], int]:
        """The command, the files and the number of the run that was selected."""
        history = self._session(request).history
        with errors_shown():
            shown = run_at(history, event.index)
            return command(shown.drawn.settings), [str(path) for path in shown.images], event.index

    def reuse(self, request: gr.Request, index: Any) -> tuple[Any, ...]:
        """The values of the controls that drew a run of the history."""
        history = self._session(request).history
        with errors_shown():
            if index is None:
                raise UserError("select a run first")
            return self._controls(run_at(history, index).drawn.settings)

    def restore(self, path: str | None) -> tuple[Any, ...]:
        """The values of the controls that drew an image which was handed in."""
        with errors_shown():
            return self._controls(settings_in(path)) if path else tuple(gr.skip() for _ in CONTROLS)

    def choose_model(self, name: Any) -> tuple[Any, Any]:
        """The domains of a model, and the labels of the first."""
        with errors_shown():
            domains = list(self.offers.model(name).domains)
            first = domains[0] if domains else ""
            return gr.update(choices=domains or AS_IT_DRAWS, value=first), self.labels(name, first)

    def labels(self, model: Any, domain: Any, label: str = "") -> Any:
        """The labels of a domain."""
        with errors_shown():
            domains = self.offers.model(model).domains
            names = list(domains.get(domain, ()))
            return gr.update(choices=[*NO_NAME, *names], value=label)

    def _controls(self, settings: Sequence[str]) -> tuple[Any, ...]:
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

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(str(request.session_hash))

    def _run(self, session: Session, settings: Sequence[str], stop: threading.Event) -> Iterator[Any]:
        """What a run tells, and at last what it has drawn, which is in the history then."""
        for told in self.worker.stream(lambda tell: draw(settings, tell, stop)):
            yield session.keep(told, enlarged(read(told))) if isinstance(told, Drawn) else told


@contextmanager
def errors_shown() -> Iterator[None]:
    """A block whose errors are told as one sentence on the page, which shows HTML; unexpected ones are logged."""
    try:
        yield
    except gr.Error:
        raise
    except Cancelled:
        raise gr.Error("Cancelled.", title="Stopped", print_exception=False) from None
    except Exception as error:
        sentence, code = sentence_and_code(error, "sample", [])
        if code == 1 and errors.known_error(error) is None:
            log.exception("a request failed")
            sentence = "Something is wrong with this program or its machine; the log of the server says more."
        raise gr.Error(html.escape(sentence, quote=False), print_exception=False) from None


def run_at(history: Sequence[Shown], index: Any) -> Shown:
    """A run of the history, counted from the newest."""
    with refused():
        return history[::-1][check_count("the run", index, 0, len(history) - 1)]


def command(settings: Sequence[str]) -> str:
    """The command that does the same."""
    return f"{program.command('sample')} {shlex.join(settings)}"


def in_words(progress: Progress) -> str:
    """How far a run is."""
    if not progress.total:
        return "Preparing."
    left = "" if progress.left is None else f", {duration(progress.left)} left"
    doing = "Calibrating: evaluation" if progress.unit == "evaluation" else "Step"
    return f"{doing} {progress.done:,} of {progress.total:,}{left}"


def summary(drawn: Drawn) -> str:
    """What a run cost, and what is to be known of it."""
    m = drawn.metrics
    spent = f"{m[f'{DETAILS}steps']:.0f} steps, {m['sampling/passes']:.0f} passes an image, "
    spent += f"{m[f'{DETAILS}seconds']:.2f} s{drawn.source}."
    return "\n\n".join([spent, *(f"Note: {note}" for note in drawn.notes)])


def title(drawn: Drawn) -> str:
    """A run in a few words."""
    named = dict(each.partition("=")[::2] for each in drawn.settings)
    what = named.get("prompt") or " ".join(filter(None, (named.get("domain"), named.get("label"))))
    return f"{named['scheduler']} {named['num_steps']}, {what}"


def cost_in_words(steps: Steps) -> str:
    """What steps cost."""
    return f"{len(steps.timesteps)} steps, {steps.passes.sum()} passes an image{steps.source}"


def read(drawn: Drawn) -> np.ndarray:
    """(N, H, W, C) uint8 images of a run."""
    from PIL import Image

    return np.stack([np.atleast_3d(np.array(Image.open(path))) for path in drawn.images])


def pixels(shown: Shown) -> np.ndarray:
    """(N, H, W, C) uint8 images of a run."""
    return read(shown.drawn)


def labelled_sheet(
    images: Sequence[np.ndarray | None], rows: Sequence[str], columns: Sequence[str]
) -> np.ndarray | None:
    """Images in rows and columns with labels, as far as they are drawn; None while there is none.

    Args:
        images: (H, W, C) uint8, row by row; None for one that could not be drawn.
        rows: A label for every row.
        columns: A label for every column.
    """
    known = next((image for image in images if image is not None), None)
    if known is None:
        return None
    blank = np.full_like(known, 235)
    cells = [blank if image is None else image for image in images]
    cells += [blank] * (len(rows) * len(columns) - len(cells))
    return figures.labelled(figures.grid(np.stack(cells), len(columns), CELL), rows, columns)
