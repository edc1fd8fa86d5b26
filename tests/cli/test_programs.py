"""The manners of every program: how it ends when something goes wrong, when it is stopped, and when nobody reads on."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys

import pytest

from adaptive_diffusion.backend.doctor import main as doctor
from adaptive_diffusion.errors import MachineError, UserError
from adaptive_diffusion.leaving import run_program
from benchmarks.__main__ import main as bench


@pytest.fixture(autouse=True)
def _signals(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def interrupted_while_tidying() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise AttributeError("half made")


def in_a_circle() -> None:
    reason = UserError("the reason")
    wrapper = RuntimeError("wrapper")
    wrapper.__cause__, reason.__context__ = reason, wrapper
    raise wrapper


def raising(error: BaseException):
    def main(_: list[str]) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "told"),
    [
        (lambda _: None, 0, ""),
        (lambda _: 3, 3, ""),
        (raising(UserError("give more")), 2, "give more\n"),
        (raising(MachineError("locked")), 1, "locked\n"),
        (raising(OSError(errno.ENOSPC, "full")), 1, "the disk is full"),
        (raising(subprocess.CalledProcessError(4, ["python", "a b.py"])), 1, "python 'a b.py' ended with exit code 4"),
        (raising(KeyError("x")), 1, "unexpected KeyError: 'x'"),
        (raising(KeyboardInterrupt()), 130, "interrupted\n"),
        (lambda _: in_a_circle(), 2, "the reason\n"),
        (lambda _: interrupted_while_tidying(), 130, "interrupted\n"),
    ],
)
def test_a_program_ends_with_a_sentence_and_a_code(main, code, told, capsys):
    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert (end.value.code or 0) == code
    said = capsys.readouterr().err
    assert said.startswith(told)
    assert said.count("\n") == bool(told)


def test_tracebacks_are_shown_when_they_are_asked_for(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(KeyError):
        run_program(raising(KeyError("x")))


def test_a_program_whose_output_nobody_reads_on_ends_without_a_word():
    talks = "from adaptive_diffusion.leaving import run_program; run_program(lambda _: talk())"
    code = f"def talk():\n    while True:\n        print('x' * 99)\n{talks}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "x" * 99 + "\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


@pytest.mark.parametrize(("main", "name"), [(doctor, "adaptive-diffusion doctor"), (bench, "python -m benchmarks")])
def test_help_explains_and_does_nothing(main, name, capsys):
    with pytest.raises(SystemExit) as end:
        run_program(lambda _: main(["--help"]))
    assert end.value.code in (0, None)
    said = capsys.readouterr().out
    assert name in said
    assert "GFLOP" not in said


def test_a_benchmark_that_does_not_exist_is_a_mistake_with_a_hint():
    with pytest.raises(UserError, match="did you mean detector"):
        bench(["detektor"])
