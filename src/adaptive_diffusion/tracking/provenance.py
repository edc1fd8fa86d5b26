"""Where a result comes from: the code's state, the configuration's fingerprint, the flattened parameters."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError
from ..program import CHECKOUT, command, installed

# what does not change the pictures
_NOT_IDENTITY = ("tracking", "paths", "name", "tags", "skip_finished")
_NOT_PARAMETERS = ("tracking", "paths", "tags")
_GIVEN_LATER = ("sampler.scheduler", "agent.env")  # null in the configuration: the run builds them from other groups


@dataclass(frozen=True)
class GitState:
    """The state of the repository that holds the project.

    Attributes:
        commit: Hash of the commit.
        branch: Name of the branch, `HEAD` when detached.
        dirty: Whether anything differs from the commit, untracked files included.
        diff: What differs in tracked files.
    """

    commit: str
    branch: str
    dirty: bool
    diff: str

    @property
    def tags(self) -> dict[str, str]:
        """The state as tags of an MLflow run."""
        return {
            "mlflow.source.git.commit": self.commit,
            "mlflow.source.git.branch": self.branch,
            "git.dirty": str(self.dirty).lower(),
        }


def git_state(folder: str | Path | None = None) -> GitState | None:
    """The state of a repository.

    Args:
        folder: A folder in it; None: that of this package's code, unless it is installed.

    Returns:
        The state; None without git, a repository or a commit.
    """
    if folder is None and installed():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder or CHECKOUT), *arguments], capture_output=True, check=True, timeout=20
        )
        return done.stdout.decode(errors="replace").strip("\n")

    try:
        commit, branch = git("rev-parse", "HEAD", "--abbrev-ref", "HEAD").split("\n")
        dirty = bool(git("status", "--porcelain"))
        return GitState(commit, branch, dirty, git("diff", "HEAD") if dirty else "")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def fingerprint(cfg: DictConfig, **more: str) -> str:
    """sha256 (hex) of everything in a configuration that decides the result.

    Args:
        cfg: The configuration, with every value filled in.
        **more: What decides the result besides, e.g. the hash of the model file.
    """
    plain = _without(cfg, _NOT_IDENTITY)
    return hashlib.sha256(json.dumps([plain, more], sort_keys=True).encode()).hexdigest()


def choices() -> dict[str, str]:
    """The option chosen in each group, e.g. {"scheduler": "ddim"}; {} outside a Hydra job."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {k: v for k, v in chosen.items() if v and "/" not in k and "@" not in k and k != "hydra"}


def draw_command(*arguments: str) -> str:
    """What draws with the model of this job of train.py, in the same folders, quoted for a shell.

    Args:
        *arguments: Further settings of sample.py; see `setting`.
    """
    keys = {"model@task.model=": "model=", "task.model.": "model.", "task.guidance_scale=": "guidance_scale="}
    folders = {name: name for name in ("paths.root=", "paths.outputs=", "paths.mlruns=")}
    model = [argument for argument in _renamed({**keys, **folders}) if argument != "guidance_scale=null"]
    return " ".join([command("sample"), shlex.join([*_config_dir(), *arguments, *model])]).strip()


def setting(name: str, value: object) -> str:
    """`name=value` as Hydra reads it back, whatever characters the value has."""
    text = str(value)
    try:
        plain = "${" not in text and OverridesParser.create().parse_override(f"{name}={text}").value() == text
    except HydraException:
        plain = False
    if plain:
        return f"{name}={text}"
    text = text.replace("${", "\\${")  # no reference to a setting
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{name}='{escaped}'"  # backslashes count only before a quote


def domain_settings(name: str) -> list[str]:
    """What tells sample.py to draw a domain: the choice of its file, or its name where there is no such file."""
    known = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    if known is None or name in known.get_group_options("domain"):
        return [setting("domain", name)]
    return [setting("domain.name", name), setting("domain.description", name)]


def with_model(error: UserError) -> UserError:
    """The same error, whose advice to train names the model of this job of sample.py."""
    model = _renamed({"model=": "model@task.model=", "model.": "task.model."})
    given, train = [*_config_dir(), *model], command("train")
    return UserError(str(error).replace(train, f"{train} {shlex.join(given)}")) if given else error


def _config_dir() -> list[str]:
    """The folder of configurations that this job was given besides, as both programs take it."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    given = [source.path for source in sources if source.provider == "command-line"]
    return ["--config-dir", given[0]] if given else []


def _renamed(keys: Mapping[str, str]) -> list[str]:
    """The settings that this job was given on the command line, as the other program takes them.

    Args:
        keys: How those that it takes begin here -> and there; all others are left out.
    """
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [keys[key] + argument.removeprefix(key) for argument in given for key in keys if argument.startswith(key)]


def parameters(cfg: DictConfig) -> dict[str, str]:
    """The configuration as flat names and values, `scheduler.eta` -> `0.0`, with the choices under the group's name."""
    flat: dict[str, str] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif key != "_target_" and f"{prefix}{key}" not in _GIVEN_LATER:
                flat[f"{prefix}{key}"] = str(value)

    walk(_without(cfg, _NOT_PARAMETERS), "")
    return {**flat, **choices()}


def _without(cfg: DictConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The resolved configuration as plain containers, without some of its top-level keys."""
    rest = {key: cfg._get_node(key) for key in cfg if key not in names}
    return {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else cfg[key]
        for key, node in rest.items()
    }
