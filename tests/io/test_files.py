"""Files: whole or absent, the leftovers of killed processes, full disks, and checksums."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from adaptive_diffusion.grids.schedule_file import load_schedules, save_schedules
from adaptive_diffusion.io import checksums, files
from adaptive_diffusion.io.files import ASSETS, atomic_path, partial_path
from adaptive_diffusion.io.host import host
from adaptive_diffusion.io.tensor_file import write_tensors
from adaptive_diffusion.optimization.memory import read_history, read_records, write_history, write_records
from adaptive_diffusion.optimization.records import DomainRecords
from adaptive_diffusion.runs.job import explain
from adaptive_diffusion.sampling.quality import load_calibration, save_calibration


def test_what_a_killed_process_of_this_host_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def left(pid: int, host: str) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: pid)
            patch.setattr(files, "host", lambda: host)
            return partial_path(tmp_path / "state.bin")

    dead, alive, elsewhere = left(ended.pid, host()), left(os.getppid(), host()), left(ended.pid, "another")
    for _ in range(2):  # in a folder that is new to this process, and in one that is not
        dead.touch()
        alive.touch()
        elsewhere.touch()
        with atomic_path(tmp_path / "state.bin") as temporary:
            temporary.write_bytes(b"content")
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, elsewhere.name, "state.bin"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").symlink_to("/dev/full")
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.ENOSPC))) as raised:
        write_tensors(tmp_path / "x.safetensors", {"x": mx.zeros((300, 300))}, {})
    sentence, code = explain(raised.value)
    assert code == 1
    assert "the disk is full" in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the size of files are Linux's here")
def test_a_write_that_fails_on_a_disk_with_room_is_no_full_disk(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EFBIG))) as raised:
            write_tensors(tmp_path / "x.safetensors", {"x": mx.zeros((300, 300))}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    sentence, code = explain(raised.value)
    assert code == 1
    assert "x.safetensors" in sentence
    assert "disk is full" not in sentence


READERS = {"schedules.json": load_schedules, "tuned.json": read_records, "quality.json": load_calibration}


def with_another_digit(path: Path) -> None:
    """Change the third decimal of the last long number."""
    text = path.read_text()
    at = [found.start() + 4 for found in re.finditer(r"\d\.\d{6,}", text)][-1]
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


@pytest.mark.parametrize("name", READERS)
def test_a_digit_that_changed_in_a_shipped_file_is_noticed(name: str, tmp_path: Path) -> None:
    file = Path(shutil.copy(ASSETS / name, tmp_path))
    assert READERS[name](ASSETS / name)
    with_another_digit(file)
    with pytest.raises(ValueError, match="checksum does not match"):
        READERS[name](file)


@pytest.mark.parametrize("name", READERS)
def test_a_digit_that_changed_in_a_file_of_ones_own_is_noticed(name: str, tmp_path: Path) -> None:
    file, content = tmp_path / "mine.json", READERS[name](ASSETS / name)
    save = {"schedules.json": save_schedules, "tuned.json": write_records, "quality.json": save_calibration}[name]
    save(file, content)
    assert READERS[name](file) == content
    file = file.rename(tmp_path / "other.json")  # some readers remember a file
    with_another_digit(file)
    with pytest.raises(ValueError, match="checksum does not match"):
        READERS[name](file)
    plain = {key: value for key, value in json.loads(file.read_text()).items() if key != checksums.KEY}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(plain))  # as of version 0.1.0
    assert READERS[name](file) != content


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_git_did_not_get_is_called_that(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="is a pointer of git-lfs"):
        READERS[name](tmp_path / name)


def test_a_history_has_a_checksum_too(tmp_path: Path) -> None:
    write_history(tmp_path / "h.json", [{"domain_type": "general"}], DomainRecords())
    assert read_history(tmp_path / "h.json")[0] == [{"domain_type": "general"}]
    (tmp_path / "h.json").write_text((tmp_path / "h.json").read_text().replace("general", "Beneral"))
    with pytest.raises(ValueError, match="checksum does not match"):
        read_history(tmp_path / "h.json")
