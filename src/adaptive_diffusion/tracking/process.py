"""The identity of a process, by which another process can tell whether it still lives."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..io.files import alive
from ..io.host import host


@dataclass(frozen=True)
class Process:
    """A process of some host.

    Attributes:
        host: See `io.host`.
        pid: The process id, which the system may reuse later.
        started: When the process began, as the system writes it; "" if unknown.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        """The process that calls."""
        return cls(host(), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Process | None:
        """The process in `tags`, or None."""
        host, pid, started = (tags.get(f"process.{name}") for name in ("host", "pid", "started"))
        return cls(host, int(pid), started) if host and pid and pid.isdecimal() and started else None

    @property
    def tags(self) -> dict[str, str]:
        """The process as tags; `of` reads them."""
        return {f"process.{name}": str(value) for name, value in vars(self).items()}

    def has_ended(self) -> bool:
        """Whether this process is known to have ended; False for a process of another host."""
        return self.host == host() and _started(self.pid) not in (self.started, "")

    def lives(self) -> bool:
        """Whether this process is known to live."""
        return self.host == host() and _started(self.pid) == self.started


@functools.cache
def end_with(other: Process) -> None:
    """End this process within two seconds after another process of this host has ended, as SIGKILL ends it.

    A worker that waits for jobs does not notice that its sweep was killed, and would wait for ever. The other process
    may be this one: then there is nothing to watch.
    """
    if other.pid == os.getpid():
        return
    parent = os.getppid()  # another one as soon as the parent has ended

    def watch() -> None:
        while os.getppid() == parent if parent == other.pid else not other.has_ended():
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _started(pid: int) -> str | None:
    """When a process of this host began; None if there is no such process, "" if unknown."""
    if not alive(pid):
        return None
    return _from_proc(pid) if sys.platform == "linux" else _from_ps(pid)


def _from_proc(pid: int) -> str | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # hidden from this user, or just gone
        return ""

    fields = line.rpartition(")")[2].split()  # the name in brackets may hold anything
    return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more


def _from_ps(pid: int) -> str | None:
    plain = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, env=plain, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""

    state, _, started = done.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
