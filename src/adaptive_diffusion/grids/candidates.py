"""The candidates among which a calibration chooses, in plain words."""

from __future__ import annotations

CANDIDATES = {  # name -> its timesteps, and its weights
    "fitted equidistributed": ("timesteps of equal error", "fitted weights"),
    "fitted dynamic programme": ("timesteps of least error", "fitted weights"),
    "fitted blended": ("blended timesteps", "fitted weights"),
    "quick": ("timesteps between blended and equal error", "fitted weights"),
    "learned": ("learned timesteps", "learned weights"),
}


def in_words(rule: str, weights: bool = True) -> str:
    """A candidate in plain words: its timesteps, and its weights if these are used; other names as they are."""
    timesteps, fitted = CANDIDATES.get(rule, (rule, ""))
    return f"{timesteps}, {fitted}" if weights and fitted else timesteps
