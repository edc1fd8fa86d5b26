"""Draw images and log the run: python sample.py scheduler=adaptive domain=landscapes (--help says more)."""

from __future__ import annotations

import os
import signal
import sys


def stop(*_: object) -> None:
    """End at once: until `entry` takes over, nothing is under way."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)

try:
    from adaptive_diffusion.cli.entry import entry
except ModuleNotFoundError as error:
    sys.exit(f"Python finds no {error.name}; run this in the project's folder: pip install -e '.[cpu]'")
except ImportError as error:
    sys.exit(str(error))

if __name__ == "__main__":
    entry(__file__)
