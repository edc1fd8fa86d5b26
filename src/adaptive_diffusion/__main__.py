"""`adaptive-diffusion`, and `python -m adaptive_diffusion`: see `cli.main`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from .program import CONSOLE, called


def stop(*_: object) -> None:
    """End at once: until the command takes over, nothing is under way."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def main() -> None:
    """Run the command that the command line names."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    called(CONSOLE if Path(sys.argv[0]).name == CONSOLE else "python -m adaptive_diffusion")

    from .cli.main import main as run  # late: all that takes time comes after the signals

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
