"""`adaptive-diffusion <command>`: one program for all there is to do; `python -m adaptive_diffusion` is the same."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from .. import program
from .._version import __version__
from ..backend.prepare import prepare
from ..errors import MachineError, UserError
from ..leaving import leave
from ..spelling import did_you_mean

COMMANDS = {  # name -> (what it does, module); three are started otherwise
    "sample": ("draw images with a diffusion model, and log the run", ""),
    "train": ("train a model or the encoder, calibrate the adaptive scheduler, tune how to sample", ""),
    "app": ("serve a page to draw, compare, calibrate and tune with", "..web.app"),
    "ui": ("serve MLflow's pages about the runs that were recorded", "..tracking.ui"),
    "doctor": ("say which device and BLAS are used, how fast they are, and what is missing", "..backend.doctor"),
    "report": ("write one HTML file about runs and sweeps: tables, images, plots, settings", "..runs.report"),
    "cells": ("make one report of all cells that benchmarks have kept", "..runs.cells"),
    "references": ("write the statistics of real images, by an encoder of your own", "..runs.references"),
    "upload": ("record what an MLflow server did not take because it had gone", "..runs.upload"),
    "export": ("write calibrated schedules for diffusers and other programs", "..runs.export"),
    "bench": ("run one of the benchmarks of a clone of the repository", ""),
}


def main(arguments: list[str]) -> NoReturn:
    """Run the command that the arguments name; what follows it is the command's own."""
    name, *rest = arguments or ["--help"]
    leave(lambda: _run(name, rest))


def _run(name: str, rest: list[str]) -> int | None:
    if name in ("-h", "--help"):
        print(_help())
        return None
    if name == "--version":
        print(f"adaptive-diffusion-optimizer {__version__}")
        return None
    if name in program.COMPLETION:
        _complete(name, rest)
        return None
    if name not in COMMANDS:
        raise UserError(_unknown(name))

    # The doctor reports a missing backend itself.
    if name != "doctor":
        try:
            prepare()
        except ImportError as error:
            raise MachineError(str(error)) from error
    if name in program.SCRIPTS:
        from .entry import run  # late, since it imports Hydra

        run(name, rest, Path.cwd())
    module = _benchmarks() if name == "bench" else importlib.import_module(COMMANDS[name][1], __package__)
    code: int | None = module.main(rest)
    return code


def _help() -> str:
    commands = "\n".join(f"  {name:<12}{what}" for name, (what, _) in COMMANDS.items())
    return f"""\
{program.command("<command>")} [...]

{commands}

{program.command("<command>")} --help says more about a command. What sample and train write goes to the current
directory: outputs/ and mlruns/."""


def _unknown(name: str) -> str:
    if "=" in name or name in ("-m", "--multirun"):
        return f"settings follow a command: {program.command('sample')} {shlex.quote(name)}"
    close = did_you_mean(name, COMMANDS)
    hint = f"; did you mean {close!r}?" if close else f"; there are {', '.join(COMMANDS)}"
    return f"there is no command {name!r}{hint}"


def _complete(option: str, rest: list[str]) -> None:
    """Answer the shell, which asks the program without its command: that stands in the line to be completed."""
    words = os.environ.get("COMP_LINE", "").split(maxsplit=2)
    if len(words) < 2 or words[1] not in program.SCRIPTS:
        print(" ".join(COMMANDS))
        return
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    _run(words[1], [option, *rest])


def _benchmarks() -> ModuleType:
    """The benchmarks of the clone that this package lies in, or that is the current directory."""
    for folder in (program.CHECKOUT, Path.cwd()):
        if (folder / "src" / "adaptive_diffusion").is_dir() and (folder / "benchmarks" / "__main__.py").is_file():
            sys.path.insert(0, str(folder))
            return importlib.import_module("benchmarks.__main__")
    raise UserError("the benchmarks are not installed with the package; start bench in a clone of the repository")
