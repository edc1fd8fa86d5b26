"""A short part of `tests/faults`: kills at random moments, and settings that make no sense."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from program import Forked
from tiny import ROOT, tiny_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the programs are forked, which Metal does not bear"),
]


def faults(folder: Path, script: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one of the scripts, in a process that has computed nothing before it forks."""
    program = Forked(folder, script=ROOT / "tests" / "faults" / script)
    program.settings = ["--base", str(tiny_folder(folder / "base"))]
    return program.run(*arguments)


def test_kills_leave_nothing_open_and_lose_nothing(tmp_path: Path) -> None:
    code, out, err = faults(tmp_path, "kills.py", "--count", "4", "--seed", "3", "--jobs", "model", "sweep")
    assert code == 0, out + err
    assert " kills, 0 things wrong" in out


def test_bad_settings_are_refused_in_one_sentence(tmp_path: Path) -> None:
    code, out, err = faults(tmp_path, "settings.py", "--count", "8", "--seed", "3")
    assert code == 0, out + err
    assert out == "refused: 8\n"
