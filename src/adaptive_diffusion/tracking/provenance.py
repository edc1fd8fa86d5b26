"""Where a result comes from: the code's state, the configuration's fingerprint, the flattened parameters."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..program import CHECKOUT, PACKAGE, installed

# groups of settings that do not change the images
_NOT_IDENTITY = ("tracking", "paths", "name", "tags", "skip_finished")
_NOT_PARAMETERS = ("tracking", "paths", "tags")
_GIVEN_LATER = ("sampler.scheduler", "agent.env")  # null in the configuration; the run builds them from other groups


@dataclass(frozen=True)
class GitState:
    """The state of the repository that holds the project.

    Attributes:
        commit: Hash of the commit.
        branch: Name of the branch, `HEAD` when detached.
        dirty: Whether anything differs from the commit, untracked files included.
        diff: The differences in tracked files.
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


def git_state() -> GitState | None:
    """The state of the repository of this package's code; None if it is installed, or without git or a commit."""
    if installed():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, check=True, timeout=20)
        return done.stdout.decode(errors="replace").strip("\n")

    try:
        commit, branch = git("rev-parse", "HEAD", "--abbrev-ref", "HEAD").split("\n")
        dirty = bool(git("status", "--porcelain"))
        return GitState(commit, branch, dirty, git("diff", "HEAD") if dirty else "")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def fingerprint(cfg: DictConfig, without: tuple[str, ...] = (), **more: Any) -> str:
    """sha256 (hex) of the settings of a configuration that decide the result, wherever `paths.outputs` lies.

    Args:
        cfg: The configuration, with every value filled in.
        without: Further keys of it that decide nothing.
        **more: Further facts that decide the result, JSON types, e.g. the hash of the model file.
    """
    plain = _without(cfg, (*_NOT_IDENTITY, *without))
    return hashlib.sha256(json.dumps(placeless([plain, more], cfg), sort_keys=True).encode()).hexdigest()


def placeless(facts: Any, cfg: DictConfig) -> Any:
    """Facts of JSON types, in whose texts the folder of all runs has one name, wherever it lies."""
    own = re.escape(json.dumps(f"{cfg.paths.outputs}/")[1:-1])
    return json.loads(re.sub(rf"(?<![\w./-]){own}", "${paths.outputs}/", json.dumps(facts)))  # not within a longer path


def code_digest(cfg: DictConfig) -> str:
    """sha256 (hex) of the code that decides the result: this package, and the modules that a configuration names."""
    return hashlib.sha256("".join([_own_code(), *code_of_others(cfg)]).encode()).hexdigest()


def code_of_others(cfg: DictConfig) -> list[str]:
    """sha256 (hex) of each module outside this package that a configuration names a class of."""
    return sorted(filter(None, map(_code_of, _targets(OmegaConf.to_container(cfg)))))


@functools.cache
def _own_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code_of(target: str) -> str:
    """The code of the module that a `_target_` outside this package lies in; "" where there is none to read."""
    module = next((m for n in range(target.count("."), 0, -1) if (m := sys.modules.get(_head(target, n)))), None)
    own = target.startswith(f"{PACKAGE.name}.") or module is None
    file = None if own else getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""


def _head(name: str, parts: int) -> str:
    return ".".join(name.split(".")[:parts])


def _targets(node: Any) -> set[str]:
    """Every `_target_` of a configuration."""
    if not isinstance(node, dict):
        return set()
    found = {str(node["_target_"])} if "_target_" in node else set()
    return found.union(*map(_targets, node.values()))


def choices() -> dict[str, str]:
    """The option chosen in each group, e.g. {"scheduler": "ddim"}; {} outside a Hydra job."""
    if not HydraConfig.initialized():
        return {}

    chosen = HydraConfig.get().runtime.choices
    return {k: v for k, v in chosen.items() if v and "/" not in k and "@" not in k and k != "hydra"}


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
