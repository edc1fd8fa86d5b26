"""Who is told of a training, and may end it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

OnMetrics = Callable[[dict[str, float], int], Any]  # metrics by name, number of episodes


@dataclass(frozen=True)
class Callbacks:
    """Both kinds of callbacks.

    Attributes:
        functions: Called with metrics by name and the number of episodes; each may end training by returning False.
        steps: Of Stable-Baselines3, called after every step.
    """

    functions: tuple[OnMetrics, ...] = ()
    steps: tuple[Any, ...] = ()

    def end(self, metrics: dict[str, float], episode: int) -> bool:
        """Tell all functions; whether one of them ends training."""
        answers = [function(metrics, episode) for function in self.functions]  # all are told
        return any(answer is False for answer in answers)


def callbacks_of(given: Any) -> Callbacks:
    """Sort what a user gave.

    Args:
        given: None, a function of (metrics, episode), a callback of Stable-Baselines3, or a list of these.

    Raises:
        ValueError: for anything else.
    """
    every = [] if given is None else list(given) if isinstance(given, Sequence) else [given]
    functions, steps = [], []
    for one in every:
        if hasattr(one, "init_callback") and not isinstance(one, type):
            steps.append(one)
        elif callable(one) and not isinstance(one, type) and _takes_two(one):
            functions.append(one)
        else:
            what = one.__name__ if hasattr(one, "__name__") else repr(one)
            raise ValueError(
                "callback must be a function of (metrics, episode), a callback of Stable-Baselines3 (an instance, not "
                f"its class), or a list of these, got {what}"
            )

    return Callbacks(tuple(functions), tuple(steps))


def _takes_two(function: Callable) -> bool:
    try:
        inspect.signature(function).bind({}, 0)
    except TypeError:
        return False
    except ValueError:  # built-in functions may have no signature
        return True
    return True
