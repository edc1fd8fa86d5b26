"""Where the programs of this project find their configuration, and how they are called."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSOLE = "adaptive-diffusion"
SCRIPTS = ("sample", "train")
BACKENDS = ("cpu", "cuda")  # extras with a backend of MLX
COMPLETION = ("-sc", "--shell-completion")  # Hydra's option for the shell
VARIABLE = "ADAPTIVE_DIFFUSION_CALLED"  # in the environment, so that the workers of a sweep know it, too

TRAININGS = {"schedule": "task=schedule", "agent": "agent=cem", "policy": "task=policy agent=ppo"}

_started: tuple[str, tuple[str, ...]] | None = None  # of this process; see `started`

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parents[1]  # unless it is installed


def installed() -> bool:
    """Whether this package was installed; otherwise it lies in a checkout."""
    return (PACKAGE / "conf").is_dir()


def conf() -> Path:
    """The folder of configurations: it travels with the installed package."""
    return (PACKAGE if installed() else CHECKOUT) / "conf"


def called(how: str) -> None:
    """Remember how this process was started: `python`, with a script, or the program before a command."""
    os.environ[VARIABLE] = how


def started(name: str, arguments: Sequence[str]) -> None:
    """Remember which program this process runs, and its command line."""
    global _started
    _started = name, tuple(arguments)


def again() -> str:
    """The command that starts this program again, quoted for a shell, and skips what has finished."""
    name, arguments = _started or ("sample", ())
    return " ".join([command(name), shlex.join(a for a in arguments if a != "skip_finished=false")])


def running() -> str:
    """The command line of this process, quoted for a shell."""
    name, arguments = _started or ("", ())
    return f"{command(name)} {shlex.join(arguments)}" if name else shlex.join(sys.argv)


def command(name: str) -> str:
    """How to start a program, as this process was started: `python train.py` or `adaptive-diffusion train`."""
    how = os.environ.get(VARIABLE) or (CONSOLE if installed() else "python")
    if how != "python":
        return f"{how} {name}"
    if name in SCRIPTS:
        return f"python {name}.py"
    console = CONSOLE if shutil.which(CONSOLE) else f"{shlex.quote(sys.executable)} -m adaptive_diffusion"
    return f"{console} {name}"


def training(of: str, domain: str | None = None, **settings: Any) -> str:
    """The command that trains something.

    Args:
        of: What, one of `TRAININGS`.
        domain: Name of a domain; None: the command takes no domain.
        **settings: Of the task; None stands for its default.
    """
    named = {} if domain is None else in_domain(domain)
    given = {**named, **{f"task.{name}": value for name, value in settings.items()}}
    values = {name: f"{v:g}" if isinstance(v, float) else v for name, v in given.items() if v is not None}
    return " ".join([command("train"), TRAININGS[of], *(f"{name}={value}" for name, value in values.items())])


def in_domain(name: str) -> dict[str, str]:
    """The settings that choose a domain: its file, or the name of one that has none, as of a model of your own."""
    known = (conf() / "domain" / f"{name}.yaml").is_file()
    return {"domain": name} if known else {"domain": "general", "domain.name": name}


def title(name: str) -> str:
    """What a sentence calls a program: `train.py` or `adaptive-diffusion train`."""
    return command(name).removeprefix("python ") if command(name).endswith(".py") else command(name)


def pip_install(extra: str = "") -> str:
    """The command that installs this package with one of its extras, from a checkout or by name.

    The backend is named beside every other extra, so that the command is enough on a new machine too.
    """
    names = [extra] if extra in ("", *BACKENDS) else [_backend(), extra]
    extras = f"[{','.join(names)}]" if extra else ""
    if installed():
        return f'pip install "adaptive-diffusion-optimizer{extras}"'
    return f'pip install -e ".{extras}"' if extra else "pip install -e ."


def _backend() -> str:
    """The extra with MLX's backend: `cuda` where that is installed, else `cpu`."""
    from importlib.metadata import distributions

    cuda = any(str(found.name).startswith("mlx-cuda") for found in distributions())
    return "cuda" if cuda else "cpu"


def assets(root: str, outputs: str) -> str:
    """The folder that new assets are written to: that of the shipped ones in a checkout, else one among the outputs.

    Args:
        root: The folder of the programs, paths.root.
        outputs: The folder of what they write, paths.outputs.
    """
    shipped = Path(root) / "src" / "adaptive_diffusion" / "assets"
    return str(shipped if shipped.is_dir() else Path(outputs) / "assets")
