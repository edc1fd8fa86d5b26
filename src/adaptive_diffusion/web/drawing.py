"""What draws on the page: one run, a run after a calibration, two side by side, a whole sheet."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from .. import errors
from ..errors import Unusable, UserError
from ..io import figures
from ..io.counted import count
from .bounds import FIELDS, HOW, MOST_CELLS, STORING, Wish
from .handlers import Handlers, errors_shown, reports_cancel
from .jobs import Drawn, draw, enlarged
from .sessions import Session, Shown
from .sheet import captioned, labelled_sheet, read
from .words import command, in_words, passes, summary, way
from .worker import HowFar

COMPARED = 512  # pixels of an image under the slider
NOTHING: Mapping[str, Any] = {}


class Drawing(Handlers):
    """What draws."""

    @reports_cancel("No image was saved.")
    def draw(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw what the controls say.

        Yields:
            The images side by side, how far it is, the files, the command.
        """
        yield from self._draw("draw", request, values)

    @reports_cancel("No image was saved.")
    def calibrate(self, request: gr.Request, steps: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Calibrate the adaptive scheduler for what the controls say, with a number of steps, and draw with it."""
        more = {"scheduler": "adaptive", "steps": steps}
        yield from self._draw("calibrate", request, values, more, "scheduler.calibrate=always")

    def _draw(
        self, name: str, request: gr.Request, values: Sequence[Any], instead: Mapping[str, Any] = NOTHING, *more: str
    ) -> Iterator[tuple[Any, ...]]:
        session = self.session(request)
        with errors_shown(), session.running(name) as stop:
            wish = replace(Wish.of(values), **instead).checked(self.offers)
            settings = [*wish.settings(self.offers), *more]
            yield None, "Waiting for its turn.", None, command(settings)
            for told in self._run(session, settings, stop):
                if isinstance(told, Shown):
                    files = [str(path) for path in told.images]
                    yield str(told.sheet), summary(told.drawn), files, command(settings)
                elif isinstance(told, HowFar):
                    yield gr.skip(), in_words(told), gr.skip(), gr.skip()
                else:
                    yield str(session.write(enlarged(told))), gr.skip(), gr.skip(), gr.skip()

    @reports_cancel("An image that was finished is under History.")
    def compare(self, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw one image twice from the same noise: as the controls say, and in another way.

        Args:
            request: Of the page.
            values: The fields `HOW` of the other, and then all of the controls.

        Yields:
            The pair of images, how far it is, the commands.
        """
        session = self.session(request)
        with errors_shown(), session.running("compare") as stop:
            controls = dict(zip(FIELDS, values[len(HOW) :], strict=True))
            instead = dict(zip(HOW, values, strict=False))
            both = [Wish.of(tuple(given.values())) for given in (controls, controls | instead)]
            one, other = (replace(wish, images=1).checked(self.offers) for wish in both)
            group = session.past.new_group("compare")
            commands = "\n".join(command(wish.settings(self.offers)) for wish in (one, other))
            yield None, "Waiting for its turn.", commands

            pair, lines = [], []
            for name, wish in (("Left", one), ("Right", other)):
                for told in self._run(session, wish.settings(self.offers), stop, group):
                    if isinstance(told, HowFar):
                        yield gr.skip(), f"{name}: {in_words(told)}", gr.skip()
                    elif isinstance(told, Shown):
                        pair.append(str(session.write(figures.grid(read(told.drawn), cell=COMPARED), "compared")))
                        lines.append(f"**{name}:** {way(told.drawn.settings)}, {summary(told.drawn)}")
            yield tuple(pair), "\n\n".join(lines), commands

    @reports_cancel("The images that were finished are under History.")
    def sheet(
        self, request: gr.Request, schedulers: Sequence[str], steps: Sequence[Any], *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Draw one image by several schedulers, each in several numbers of steps.

        Yields:
            The sheet, how far it is, the command.
        """
        session = self.session(request)
        with errors_shown(), session.running("sheet") as stop:
            wishes = self._cells(schedulers, steps, replace(Wish.of(values), images=1))
            yield None, "Waiting for its turn.", self._sweeps(wishes)

            group = session.past.new_group("sheet")
            done: list[np.ndarray | None] = []
            failed: list[str] = []
            for wish in wishes:
                name = f"{wish.scheduler}, {count(wish.steps, 'step')}"
                place = f"{len(done) + 1} of {len(wishes)} ({name})"
                image = None
                try:
                    for told in self._run(session, wish.settings(self.offers), stop, group):
                        if isinstance(told, HowFar):
                            yield gr.skip(), f"{place}: {in_words(told)}", gr.skip()
                        elif isinstance(told, Shown):
                            image = captioned(read(told.drawn)[0], passes(told.drawn))
                except (Unusable, UserError) as error:  # this scheduler cannot draw this; the others may
                    failed.append(f"{name}: {errors.sentence(error)}")
                done.append(image)
                columns = [count(n, "step") for n in sorted(steps)]
                whole = labelled_sheet(done, list(schedulers), columns)
                yield (str(session.write(whole, "sheet")) if whole is not None else None), place, gr.skip()
            yield gr.skip(), "\n\n".join([f"{count(len(done) - len(failed), 'image')} drawn.", *failed]), gr.skip()

    def _cells(self, schedulers: Sequence[str], steps: Sequence[Any], wish: Wish) -> list[Wish]:
        """What a sheet is of, row by row, checked."""
        if not schedulers or not steps:
            raise UserError("choose at least one scheduler and one number of steps")
        if (cells := len(schedulers) * len(steps)) > MOST_CELLS:
            raise UserError(f"a sheet has at most {MOST_CELLS} images, and this would have {cells}; choose fewer")
        return [replace(wish, scheduler=s, steps=n).checked(self.offers) for s in schedulers for n in sorted(steps)]

    def _sweeps(self, wishes: Sequence[Wish]) -> str:
        """The commands that draw the cells of a sheet; one more where not all schedulers take a stored prediction."""
        storing = [wish for wish in wishes if wish.stored and wish.scheduler in STORING]
        return "\n".join(self._sweep(some) for some in (storing, [w for w in wishes if w not in storing]) if some)

    def _sweep(self, wishes: Sequence[Wish]) -> str:
        schedulers = dict.fromkeys(wish.scheduler for wish in wishes)
        steps = dict.fromkeys(str(wish.steps) for wish in wishes)
        rest = [s for s in wishes[0].settings(self.offers) if not s.startswith(("scheduler=", "num_steps="))]
        return command(["-m", f"scheduler={','.join(schedulers)}", f"num_steps={','.join(steps)}", *rest])

    def _run(self, session: Session, settings: Sequence[str], stop: threading.Event, group: str = "") -> Iterator[Any]:
        """What a run tells, and at last what it has drawn, which is in the history then."""
        for told in self.worker.stream(lambda tell: draw(settings, tell, stop), stop):
            yield session.past.keep(told, enlarged(read(told)), group) if isinstance(told, Drawn) else told
