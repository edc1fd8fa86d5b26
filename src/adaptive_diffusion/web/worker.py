"""The one thread that computes, and what it tells those who wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

LONGEST_END = 5.0  # seconds that a thread is waited for
LOOK_EVERY = 0.2  # seconds between two looks at what is before a task that waits

T = TypeVar("T")


class Cancelled(KeyboardInterrupt):
    """Somebody pressed Cancel, or left: a run ends as with Ctrl-C."""


@dataclass(frozen=True)
class HowFar:
    """How far a run is.

    Attributes:
        unit: What is counted, e.g. "step", or one of `words.DOING`; "" before anything is; `WAITING`.
        done: How many.
        total: Of how many; 0 where nobody knows.
        left: Seconds until all are done, if anybody can know.
    """

    unit: str
    done: int
    total: int
    left: float | None = None


PREPARING = HowFar("", 0, 0)
WAITING = "waiting"  # the unit of the runs that come before; `done` is how many they are


class Worker:
    """One thread for all that computes: MLX's streams belong to a thread, and Hydra knows one job at a time."""

    def __init__(self) -> None:
        self._thread: Path | None = None  # where Linux shows it, once it has begun
        self._runs: list[Future[Any]] = []  # what others wait for, in its order
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="drawing", initializer=self._begin)

    def _begin(self) -> None:
        self._thread = Path(f"/proc/self/task/{threading.get_native_id()}")

    def do(self, task: Callable[[], T]) -> T:
        """Run a task when its turn comes, and wait for it."""
        return self._pool.submit(task).result()

    def stream(
        self, task: Callable[[Callable[[Any], None]], T], stop: threading.Event, *, run: bool = True
    ) -> Iterator[Any]:
        """Run a task when its turn comes.

        Args:
            task: Called with a function that takes what is to be told on the way.
            stop: Once it is set, a task that still waits does not begin.
            run: Whether it is a run, which others that wait are told of.

        Yields:
            How many runs come before, what is told, and at last what the task returns.

        Raises:
            Cancelled: if `stop` was set while the task waited.
        """
        events: SimpleQueue[Any] = SimpleQueue()
        end = object()
        with self._lock:
            ahead = [each for each in self._runs if not each.done()]
            future = self._pool.submit(task, events.put)
            self._runs = [*ahead, future] if run else ahead
        future.add_done_callback(lambda _: events.put(end))

        reported = 0
        while True:
            try:
                event = events.get(timeout=LOOK_EVERY)
            except Empty:
                if stop.is_set() and future.cancel():
                    raise Cancelled from None
                before = sum(not each.done() for each in ahead)
                if before not in (0, reported):
                    reported = before
                    yield HowFar(WAITING, before, 0)
                continue
            if event is end:
                break
            yield event
        yield future.result()

    def close(self) -> None:
        """Begin nothing any more, and wait until the thread is gone.

        MLX frees what it holds for a thread after Python calls the thread ended. Python's own end in that moment would
        abort the process.
        """
        self._pool.shutdown(wait=True, cancel_futures=True)
        deadline = time.monotonic() + LONGEST_END
        while self._thread is not None and self._thread.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
