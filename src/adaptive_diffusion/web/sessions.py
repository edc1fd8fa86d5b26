"""What each open page has drawn: nobody else sees it, and it goes when the page is closed."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..io import figures
from ..io.files import why_unreadable
from ..runs.sample_files import SETTINGS
from .bounds import MOST_SESSIONS
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


@dataclass
class Session:
    """What an open page has drawn, and what it draws now.

    Attributes:
        folder: Where its files are; nobody can guess its name.
        history: Its runs, oldest first.
    """

    folder: Path
    history: list[Shown] = field(default_factory=list)
    _files: int = 0
    _groups: Counter[str] = field(default_factory=Counter)  # of each kind
    _writes: threading.RLock = field(default_factory=threading.RLock)  # two of its runs may end at once
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
        """A file of (H, W, C) uint8 pixels to show."""
        with self._writes:
            self._files += 1
            path = self.folder / f"{name}-{self._files}.png"
        figures.save_image(path, pixels)
        return path

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
            sheet = self.write(pixels, f"{name}-sheet")
            copies = [self.folder / f"{name}-{path.name}" for path in drawn.images]
            for path, copy in zip(drawn.images, copies, strict=True):
                shutil.copyfile(path, copy)
            self.history.append(Shown(sheet, tuple(copies), drawn, group))
            return self.history[-1]

    def close(self) -> None:
        """Stop what is under way, and forget everything."""
        self.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The open pages.

    Args:
        root: Folder for their files.
    """

    def __init__(self, root: Path):
        self._root, self._open, self._lock = root, dict[str, Session](), threading.Lock()

    def of(self, name: str) -> Session:
        """The session of a page, which begins with its first request."""
        with self._lock:
            session = self._open.pop(name, None) or self._new()
            self._open[name] = session  # at the end: used last
            return session

    def _new(self) -> Session:
        """A session; of too many, those that nobody used for longest and that do not draw give way."""
        idle = [name for name, session in self._open.items() if not session.busy]
        for name in idle[: max(0, len(self._open) + 1 - MOST_SESSIONS)]:
            self._open.pop(name).close()
        folder = self._root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return Session(folder)

    def close(self, name: str) -> None:
        """The page was closed."""
        with self._lock:
            session = self._open.pop(name, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """The server ends."""
        for name in list(self._open):
            self.close(name)


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
