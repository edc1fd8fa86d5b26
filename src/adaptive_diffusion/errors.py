"""The two kinds of failure a user meets, and the exit codes of `sample.py` and `train.py` for them."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used. One sentence: what was given, what is accepted, what to do. Exit 2."""


class MachineError(RuntimeError):
    """The machine refused: a full or read-only disk, a locked database. One sentence. Exit 1."""
