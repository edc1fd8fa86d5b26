"""What all that answers the controls of the page shares. Nothing here knows the layout."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import gradio as gr

from .. import errors
from ..cli.entry import sentence_and_code
from .bounds import Offers
from .sessions import Session, Sessions
from .worker import Cancelled, Worker

log = logging.getLogger(__name__)

Stream = Callable[..., Iterator[tuple[Any, ...]]]  # a handler that yields what its controls show


@dataclass(frozen=True)
class Handlers:
    """What answers some controls of the page; one object for all who look at it.

    Attributes:
        offers: What can be chosen.
        worker: The thread that computes.
        sessions: The open pages, and what their browsers have drawn.
    """

    offers: Offers
    worker: Worker
    sessions: Sessions

    def session(self, request: gr.Request) -> Session:
        """The session of the page that asks."""
        return self.sessions.of(str(request.session_hash))

    def arrive(self, request: gr.Request, token: Any) -> str:
        """A page was opened, by a browser that knows a token from before, if any; returned is the one it keeps."""
        return self.sessions.of(str(request.session_hash), token).past.token

    def ask(self, request: gr.Request, name: str) -> None:
        """Something is asked for, e.g. "draw"; it may have to wait, and be cancelled."""
        self.session(request).ask(name)

    def cancel(self, request: gr.Request) -> None:
        """Stop what this page draws or waits for, which says itself that it was stopped."""
        self.session(request).cancel()

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.close(str(request.session_hash))


@contextmanager
def errors_shown(name: str = "sample") -> Iterator[None]:
    """A block whose errors are told as one sentence on the page, which shows HTML; unexpected ones are logged.

    Args:
        name: The program that the block stands for, `sample` or `train`.
    """
    try:
        yield
    except (gr.Error, Cancelled):
        raise
    except Exception as error:
        sentence, code = sentence_and_code(error, name, [])
        if code == 1 and errors.known_error(error) is None:
            log.exception("a request failed")
            sentence = "Something is wrong with this program or its machine; the log of the server says more."
        raise gr.Error(html.escape(sentence, quote=False), print_exception=False) from None


def reports_cancel(kept: str, line: int = 1) -> Callable[[Stream], Stream]:
    """A handler that says how far it was when it was cancelled, and what is kept.

    Args:
        kept: A sentence, or "".
        line: Place of how far it is, among what the handler yields.
    """

    def telling(handler: Stream) -> Stream:
        @wraps(handler)
        def told(*given: Any) -> Iterator[tuple[Any, ...]]:
            shown: tuple[Any, ...] = ()
            so_far = ""
            try:
                for shown in handler(*given):
                    if isinstance(shown[line], str):
                        so_far = shown[line]
                    yield shown
            except Cancelled:
                said = f"Cancelled ({for_brackets(so_far)}). {kept}".rstrip()
                yield tuple(said if i == line else gr.skip() for i in range(len(shown)))

        return told

    return telling


def for_brackets(so_far: str) -> str:
    """How far it is, as it stands in brackets: without the time left."""
    so_far = so_far.rpartition(", ")[0] if so_far.endswith(" left") else so_far.rstrip(".")
    return f"{so_far[:1].lower()}{so_far[1:]}"
