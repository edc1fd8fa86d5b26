"""Ctrl-C and SIGTERM: what must not be cut in two is not, and an interruption is not taken for an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from tiny import ROOT

from adaptive_diffusion.interruption import uninterrupted
from adaptive_diffusion.runs.job import job


@pytest.fixture(autouse=True)
def handlers():
    """As `cli.entry` sets them; pytest's own are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_what_must_not_be_cut(number):
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with uninterrupted():
            os.kill(os.getpid(), number)
            done.append("whole")
        done.append("too late")
    assert done == ["whole"]
    assert signal.getsignal(number) is signal.default_int_handler


def test_an_interruption_wins_over_the_error_it_causes():
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("cut short")


def test_without_a_signal_nothing_is_raised():
    with uninterrupted(), uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_whose_clean_up_fails_after_an_interruption_was_interrupted():
    @job
    def cleaning(cfg):
        try:
            raise KeyboardInterrupt
        finally:
            None.flags = 1  # type: ignore[attr-defined]

    with pytest.raises(KeyboardInterrupt):
        cleaning(OmegaConf.create())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["hydra", "adaptive_diffusion.runs.train"])
def test_a_program_that_is_still_importing_ends_in_a_word(module, number, tmp_path):
    code = f"""
import os, runpy, sys, time
class Slow:
    def find_spec(name, *_):
        if name == {module!r}:
            os.write(1, b"-")
            time.sleep(60)
sys.meta_path.insert(0, Slow)
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(1) == b"-"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"interrupted\n")


def test_an_interruption_that_hits_a_destructor_is_not_lost():
    code = """
import os, signal, time
from adaptive_diffusion.leaving import run_program
class Hit:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
def main(arguments):
    Hit()
    time.sleep(5)
run_program(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
