"""A short part of `tests/faults`: kills at random moments, and settings that make no sense."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the programs are forked, which Metal does not bear"),
]


def faults(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the scripts; a process of its own, since nothing may be computed before it forks."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def test_kills_leave_nothing_open_and_lose_nothing() -> None:
    done = faults("tests.faults.kills", "--count", "4", "--seed", "3", "--jobs", "model", "sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " kills, 0 things wrong" in done.stdout


def test_bad_settings_are_refused_in_one_sentence() -> None:
    done = faults("tests.faults.settings", "--count", "8", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "refused: 8\n"
