"""Runs programs that it is asked for on its standard input, each in a fork, and answers with their exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from . import zygote


def main() -> None:
    """A line of JSON for each program: script, arguments, and the paths of folder, output and errors."""
    zygote.prepare()
    for line in sys.stdin:
        script, arguments, *paths = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            zygote.be(Path(script), arguments, *map(Path, paths))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
