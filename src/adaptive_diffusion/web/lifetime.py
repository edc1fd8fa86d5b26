"""What the page asks for while something runs or waits: to begin, to stop, to go."""

from __future__ import annotations

import gradio as gr

from .handlers import Handlers


class Lifetime(Handlers):
    """What is asked for and may have to wait, be cancelled, or be left alone."""

    def ask(self, request: gr.Request, name: str) -> None:
        """Something is asked for, e.g. "draw"; it may have to wait, and be cancelled."""
        self.session(request).ask(name)

    def cancel(self, request: gr.Request) -> None:
        """Stop what this page draws or waits for, which says itself that it was stopped."""
        self.session(request).cancel()

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.close(str(request.session_hash))
