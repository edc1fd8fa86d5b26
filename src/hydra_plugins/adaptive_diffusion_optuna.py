"""Where Hydra looks for sweepers: it takes them from the package hydra_plugins alone."""

from __future__ import annotations

from adaptive_diffusion.cli.optuna_sweeper import StudySweeper


class OptunaSweeper(StudySweeper):
    """See `StudySweeper`."""
