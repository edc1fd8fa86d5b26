"""What each browser has drawn, which no other sees, and what its open pages do."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..io import figures
from ..io.files import why_unreadable
from ..runs.sample_files import SETTINGS
from .bounds import KEPT, MOST_BROWSERS, MOST_PREVIEWS
from .jobs import Drawn


@dataclass(frozen=True)
class Shown:
    """A run as the page shows it.

    Attributes:
        sheet: Its images side by side, enlarged.
        images: Copies of its images.
        drawn: The run.
        group: Of runs that belong together, e.g. "sheet 2"; "" for a single run.
    """

    sheet: Path
    images: tuple[Path, ...]
    drawn: Drawn
    group: str = ""


@dataclass(eq=False)
class Past:
    """What a browser has drawn; a page that is loaded anew shows it again.

    Attributes:
        folder: Where its files are; nobody can guess its name.
        token: What the browser is known by; it stands in no address.
        history: Its runs, oldest first.
        used: When one of its pages asked for something last, in seconds of a clock.
    """

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    history: list[Shown] = field(default_factory=list)
    used: float = 0.0
    _groups: Counter[str] = field(default_factory=Counter)  # of each kind
    _writes: threading.Lock = field(default_factory=threading.Lock)  # two of its runs may end at once

    def new_group(self, kind: str) -> str:
        """The name of further runs that belong together, e.g. the second "sheet"."""
        with self._writes:
            self._groups[kind] += 1
            return f"{kind} {self._groups[kind]}"

    def keep(self, drawn: Drawn, pixels: np.ndarray, group: str = "") -> Shown:
        """Add a run to the history.

        Args:
            drawn: The run.
            pixels: (H, W, C) uint8, its images side by side.
            group: See `Shown`.
        """
        with self._writes:
            name = f"run-{len(self.history) + 1}"
            sheet = self.folder / f"{name}-sheet.png"
            figures.save_image(sheet, pixels)
            copies = [self.folder / f"{name}-{path.name}" for path in drawn.images]
            for path, copy in zip(drawn.images, copies, strict=True):
                shutil.copyfile(path, copy)
            self.history.append(Shown(sheet, tuple(copies), drawn, group))
            return self.history[-1]


@dataclass
class Session:
    """An open page, and what it draws now.

    Attributes:
        folder: Where its previews and plots are, until it is closed; nobody can guess its name.
        past: What its browser has drawn.
    """

    folder: Path
    past: Past
    _files: int = 0
    _kept: deque[Path] = field(default_factory=deque)  # the files, oldest first
    _writes: threading.Lock = field(default_factory=threading.Lock)  # two of its runs may be under way
    _cancelled: int = 0  # how often
    _asked: dict[str, int] = field(default_factory=dict)  # what waits -> how often Cancel was pressed before
    _stops: set[threading.Event] = field(default_factory=set)  # of what is under way

    @property
    def busy(self) -> bool:
        """Whether it draws."""
        return bool(self._stops)

    def ask(self, name: str) -> None:
        """Something was asked for that may have to wait before it begins: from now on it can be cancelled."""
        self._asked[name] = self._cancelled

    @contextmanager
    def running(self, name: str) -> Iterator[threading.Event]:
        """A block with the runs of something that was asked for.

        Yields:
            What stops them, at the end of the block at the latest; set already if they were cancelled as they waited.
        """
        stop = threading.Event()
        self._stops.add(stop)
        if self._asked.pop(name, self._cancelled) < self._cancelled:
            stop.set()
        try:
            yield stop
        finally:
            stop.set()
            self._stops.discard(stop)

    def cancel(self) -> None:
        """Stop what is under way, and what waits once it begins."""
        self._cancelled += 1
        for stop in list(self._stops):
            stop.set()

    def write(self, pixels: np.ndarray, name: str = "preview") -> Path:
        """A file of (H, W, C) uint8 pixels to show; the oldest of many is removed, which the browser has seen."""
        with self._writes:
            self._files += 1
            path = self.folder / f"{name}-{self._files}.png"
            self._kept.append(path)
            old = self._kept.popleft() if len(self._kept) > MOST_PREVIEWS else None
        figures.save_image(path, pixels)
        if old is not None:
            old.unlink(missing_ok=True)
        return path

    def close(self) -> None:
        """Stop what is under way; what was drawn stays with the browser."""
        self.cancel()
        for path in list(self.folder.glob("*")):
            path.unlink(missing_ok=True)
        if not self.busy:  # else something may still be written
            shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The open pages, and what their browsers have drawn.

    Of too many browsers, one that draws nothing now gives way: first those without an open page, then those that drew
    nothing, then the one that was idle longest.

    Args:
        root: Folder for their files.
    """

    def __init__(self, root: Path):
        self._root, self._lock = root, threading.Lock()
        self._open = dict[str, Session]()  # by the page
        self._pasts = dict[str, Past]()  # by their tokens

    def of(self, page: str, token: Any = None) -> Session:
        """The session of a page, which begins with its first request.

        Args:
            page: Its name.
            token: What its browser was known by before, if it says so: it gets back what it has drawn.
        """
        with self._lock:
            known = self._pasts.get(str(token))
            if known is not None and time.monotonic() - known.used > KEPT:
                self._forget(known)
                known = None
            session = self._open.get(page)
            if session is None:
                session = self._open[page] = Session(self._new_folder(), known or self._new_past())
            session.past = known or session.past
            session.past.used = time.monotonic()
            return session

    def _new_past(self) -> Past:
        """What a new browser has drawn: nothing. What idle ones have drawn goes if it is old, or they are too many."""
        busy = [session.past for session in self._open.values() if session.busy]
        idle = [past for past in self._pasts.values() if past not in busy]
        surplus, now = len(self._pasts) + 1 - MOST_BROWSERS, time.monotonic()
        opened = [session.past for session in self._open.values()]
        for i, past in enumerate(sorted(idle, key=lambda past: (past in opened, bool(past.history), past.used))):
            if i < surplus or now - past.used > KEPT:
                self._forget(past)
        past = Past(self._new_folder())
        self._pasts[past.token] = past
        return past

    def _forget(self, past: Past) -> None:
        del self._pasts[past.token]
        for page in [page for page, session in self._open.items() if session.past is past]:
            self._open.pop(page).close()
        shutil.rmtree(past.folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        folder = self._root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder

    def close(self, page: str) -> None:
        """The page was closed."""
        with self._lock:
            session = self._open.pop(page, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """The server ends."""
        for page in list(self._open):
            self.close(page)


def settings_in(path: str | Path) -> list[str]:
    """The settings that an image carries, as `key=value`; anybody may have written them.

    Raises:
        UserError: if it is no PNG file, or carries none.
    """
    from PIL import Image

    if trouble := why_unreadable(path):
        raise UserError(f"the file {trouble}")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = json.loads(image.info[SETTINGS])
    except KeyError:
        raise UserError("the image carries no settings; give a PNG file that sample.py or this page drew") from None
    except Exception as error:  # Pillow's decoders raise errors of any kind
        raise UserError("the file is no PNG image that can be read, or its settings are damaged") from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise UserError("the settings in the image are damaged")
    return found
