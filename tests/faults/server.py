"""Starts programs that it is asked for on its standard input, each in a fork."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from . import zygote


def main() -> None:
    """A line of JSON for each request, and for each answer.

    "start" with script, arguments, and the paths of folder, output and errors: the number of the process. "poll" with
    that number: its exit code, or null while it runs.
    """
    zygote.prepare()
    for line in sys.stdin:
        request, *given = json.loads(line)
        print(json.dumps({"start": start, "poll": poll}[request](*given)), flush=True)


def start(script: str, arguments: list[str], *paths: str) -> int:
    """Fork a program, in a process group of its own, so that it can be killed with its own children."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        zygote.be(Path(script), arguments, *map(Path, paths))
    os.setpgid(pid, pid)
    return pid


def poll(pid: int) -> int | None:
    """How a program ended, if it has."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    main()
