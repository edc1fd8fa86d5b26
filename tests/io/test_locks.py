"""Locks: who holds one keeps others out and is named; whoever was killed holds none."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_diffusion import program
from adaptive_diffusion.io.locks import alone, in_turn

HOLD = """
import sys, time
from adaptive_diffusion.io.locks import alone
with alone(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = """
import sys
from pathlib import Path
from adaptive_diffusion.io.locks import in_turn
file = Path(sys.argv[1])
for _ in range(40):
    with in_turn(file):
        file.write_text(str(int(file.read_text()) + 1))
"""


def test_a_second_process_is_refused_and_the_lock_of_a_killed_one_is_free(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.zip"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"in use by process {holder.pid} "), alone(file):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with alone(file):
        assert str(holder.pid) not in (tmp_path / "new" / ".result.zip.lock").read_text()
    assert not list(tmp_path.rglob("*.lock"))


def test_processes_that_take_turns_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(file)]) for _ in range(4)]
    assert [process.wait(timeout=100) for process in processes] == [0] * 4
    assert file.read_text() == "160"


def test_a_folder_that_was_made_for_a_lock_goes_with_it_unless_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"), in_turn(tmp_path / "a" / "b" / "x.json"):
        raise ValueError("refused")
    assert not (tmp_path / "a").exists()
    with in_turn(tmp_path / "a" / "b" / "x.json"):
        (tmp_path / "a" / "b" / "x.json").write_text("{}")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x.json"]


def test_a_folder_that_another_process_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, make, made = tmp_path / "new" / "x.json", Path.mkdir, list[Path]()

    def removed_at_once(folder: Path, *given: object, **more: object) -> None:
        make(folder, *given, **more)
        made.append(folder)
        if len(made) < 3:
            folder.rmdir()

    monkeypatch.setattr(Path, "mkdir", removed_at_once)
    with alone(file):
        file.write_text("{}")
    assert made == [file.parent] * 3


def test_a_lock_that_can_never_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), alone(tmp_path / "file" / "x.json"):
        pass


def test_a_lock_names_its_holder_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_started", None)  # as in a process that is no program of the package
    monkeypatch.setattr(sys, "argv", ["sample.py", "tracking.uri=http://me:secret@here:1", "num_steps=5"])
    with alone(tmp_path / "x.json"):
        held = (tmp_path / ".x.json.lock").read_text()
    assert held.endswith("(sample.py tracking.uri=http://here:1 num_steps=5)")
