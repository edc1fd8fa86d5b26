"""A long job says how far it is: elsewhere than on a terminal in a line after ten seconds, and one a minute."""

from __future__ import annotations

import logging

import pytest

from adaptive_diffusion.io import progress
from adaptive_diffusion.io.progress import Progress, watched


@pytest.fixture
def at(monkeypatch):
    """Let a job read these times, in seconds."""
    return lambda *times: monkeypatch.setattr(progress.time, "perf_counter", iter(times).__next__)


def test_a_line_says_the_share_the_rate_and_the_minutes_left(at, capsys):
    at(0.0, 9.0, 10.0, 69.0, 70.0)
    with Progress("solving", 800) as shown:
        shown.show(score="0.5")
        for _ in range(4):
            shown.update(20)
    assert capsys.readouterr().err.splitlines() == [
        "solving: 5% (40 of 800 steps), 4 steps/s, about 3 min left, score 0.5",
        "solving: 10% (80 of 800 steps), 1.14 steps/s, about 10 min left, score 0.5",
    ]


def test_a_slow_job_says_seconds_per_step_and_one_without_an_end_what_is_done(at, capsys):
    at(0.0, 60.0, 0.0, 60.0)
    with Progress("drawing", 9, unit="image", initial=1) as shown:
        shown.update(2)
    with Progress("solving", announced=True) as shown:
        shown.update(2)
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 33% (3 of 9 images), 30 s per image, about 3 min left",
        "solving",
        "solving: 2 steps, 30 s per step",
    ]


def test_one_step_is_singular(at, capsys):
    at(0.0, 60.0, 0.0, 10.0)
    with Progress("drawing", 1, announced=True) as shown:
        shown.update()
    with Progress("solving") as shown:
        shown.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "drawing: 1 step",
        "drawing: 100% (1 of 1 step), 60 s per step",
        "solving: 10 steps, 1 step/s",
    ]


def test_what_is_quick_or_quiet_says_nothing(at, capsys):
    at(0.0, 9.9, 0.0, 99.0)
    with Progress("drawing", 9) as shown:
        shown.update()
    with Progress("drawing", 9, quiet=True) as shown:
        shown.update()
    assert capsys.readouterr().err == ""


def test_lines_go_to_the_log_where_one_is_kept(at, capsys, caplog):
    at(0.0, 10.0)
    with caplog.at_level(logging.INFO), Progress("drawing", 2) as shown:
        shown.update()
    assert [record.getMessage() for record in caplog.records] == [
        "drawing: 50% (1 of 2 steps), 10 s per step, less than 1 min left"
    ]
    assert capsys.readouterr().err == ""


def test_somebody_is_told_and_may_end_the_job(at):
    at(*[0.0] * 9)
    told = []

    class Impatient:
        def progress(self, *so_far: object) -> None:
            told.append(so_far)
            self.may_end()

        def may_end(self) -> None:
            if len(told) == 2:
                raise KeyboardInterrupt

    def job() -> None:
        with watched(Impatient()), Progress("drawing", 9, unit="image", quiet=True) as shown:
            for _ in range(9):
                shown.update(2)

    with pytest.raises(KeyboardInterrupt):
        job()
    assert told == [("image", 2, 9), ("image", 4, 9)]

    with Progress("drawing", 9, quiet=True) as shown:
        shown.update()
    assert len(told) == 2
