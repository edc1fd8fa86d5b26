"""What all that answers the controls of the page shares. Nothing here knows the layout."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gradio as gr

from .. import errors
from ..cli.entry import sentence_and_code
from .bounds import Offers
from .jobs import Cancelled, Worker
from .sessions import Session, Sessions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handlers:
    """What answers some controls of the page; one object for all who look at it.

    Attributes:
        offers: What can be chosen.
        worker: The thread that computes.
        sessions: What each open page has drawn.
    """

    offers: Offers
    worker: Worker
    sessions: Sessions

    def session(self, request: gr.Request) -> Session:
        """The session of the page that asks."""
        return self.sessions.of(str(request.session_hash))

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
    except gr.Error:
        raise
    except Cancelled:
        raise gr.Error("Cancelled.", title="Stopped", print_exception=False) from None
    except Exception as error:
        sentence, code = sentence_and_code(error, name, [])
        if code == 1 and errors.known_error(error) is None:
            log.exception("a request failed")
            sentence = "Something is wrong with this program or its machine; the log of the server says more."
        raise gr.Error(html.escape(sentence, quote=False), print_exception=False) from None
