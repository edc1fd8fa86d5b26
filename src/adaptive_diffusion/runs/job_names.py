"""Jobs of a sweep, named by what varies between them."""

from __future__ import annotations

from collections.abc import Sequence

from ..io.counted import count

COUNTED = {"num_steps": "step", "num_samples": "image"}
WORDS = {"seed": "seed {}", "batch_size": "batches of {}"}


def setting_words(settings: Sequence[str]) -> list[str]:
    """Settings in words, in their order: `scheduler=ddim num_steps=5 scheduler.eta=1` -> ddim, 5 steps, eta=1."""
    return [_word(*setting.lstrip("+~").partition("=")[::2]) for setting in settings]


def _word(key: str, value: str) -> str:
    if key in COUNTED and value.isdecimal():
        return count(int(value), COUNTED[key])
    if key in WORDS:
        return WORDS[key].format(value)
    name = key.partition("@")[0].rpartition(".")[2]
    is_choice = "." not in key and value.isidentifier() and value not in ("true", "false", "null")
    return value if is_choice else f"{name}={value}"
