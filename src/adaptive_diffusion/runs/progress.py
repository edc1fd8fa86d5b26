"""The progress bar of a run."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, unit: str, initial: int = 0, **options: Any) -> Any:
    """A tqdm bar on a terminal, nothing elsewhere."""
    quiet = not sys.stderr.isatty()
    return tqdm(total=total, unit=unit, initial=initial, disable=quiet, leave=False, dynamic_ncols=True, **options)
