"""From a group of the configuration to the object that it describes; what cannot be built gets one sentence."""

from __future__ import annotations

import re
import traceback
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import MachineError, UserError, known_error
from ..schedulers.core import SchedulerCore
from .settings_text import advice_for_this_model, literals

# Group -> attributes that are looked for before the object is used; docs/extend.md says what else each part must have.
CONTRACTS = {
    "model": ("metadata", "state_shape", "condition"),
    "grid": ("__call__",),
    "guidance": ("name", "weight_at"),
    "sampler": ("iterate", "check", "report"),
    "metrics": ("measure", "converged"),
    "tracking": ("open", "claimed", "how_to_look"),
    "reward": ("weight",),
    "agent": ("train", "kind"),
}
OPTIONAL = ("grid",)  # groups whose object may be None, for nothing in its place
TARGET = re.compile(r"Error locating target '([^']*)'")  # in Hydra's words


def build(cfg: DictConfig, group: str, **runtime: Any) -> Any:
    """Build the object that a group describes.

    Args:
        cfg: The configuration.
        group: Key of the group in it.
        **runtime: Arguments that only the run knows.

    Raises:
        UserError: if the constructor refuses a value.
    """
    for name in ("model", "grid", "guidance"):
        if group == "task" and isinstance(option := cfg.task.get(name), str):
            raise UserError(f"task.{name}={option} is no {name}; a choice is {name}@task.{name}={option}")
    for key in runtime:
        if cfg[group].get(key) is not None:
            raise UserError(f"{group}.{key} is given by the run; leave it out")

    # In two steps: Hydra would take a runtime argument that is a dataclass for a configuration, and copy it.
    try:
        return _with_contract(group, instantiate(_as_read(cfg[group]), _convert_="all", _partial_=True)(**runtime))
    except Exception as error:
        failed = error

    # Hydra wraps what constructors and modules raise.
    cause = failed
    while isinstance(cause, InstantiationException | ImportError) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__

    if known_error(cause) is cause and not isinstance(cause, MachineError):
        raise advice_for_this_model(cause) from cause.__cause__
    if _is_mistake(cause, failed):
        raise UserError(f"{group}: {_in_one_line(failed)}") from failed
    raise cause


def _as_read(node: Any) -> Any:
    """Plain values of a node, whose texts are escaped twice, since Hydra looks for references twice."""
    return literals(literals(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node))


def _with_contract(group: str, built: Any) -> Any:
    """The object, if it has what its group promises."""
    lacking = ", ".join(name for name in CONTRACTS.get(group, ()) if not hasattr(built, name))
    trouble = f"it has no {lacking}" if lacking else ""
    if group == "scheduler" and not isinstance(built, SchedulerCore):
        trouble = "it is not derived from SchedulerBase"

    if trouble and not (built is None and group in OPTIONAL):
        raise UserError(
            f"{group}._target_ makes a {type(built).__name__}, which is no {group}: {trouble}; docs/extend.md says "
            "what each part must have"
        )
    return built


def _in_one_line(error: BaseException) -> str:
    """What a constructor, or Hydra on the way to it, says."""
    if found := TARGET.match(str(error)):
        return f"_target_ is {found[1]!r}, and Python finds nothing of that name; PYTHONPATH=<folder> adds one of yours"
    if found := re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument ('.*?')", str(error)):
        return f"{found[1]} takes no {found[2]}"
    return " ".join(line for line in str(error).splitlines() if not line.startswith("full_key"))


def _is_mistake(error: BaseException, wrapped: BaseException) -> bool:
    """Whether the configuration has a wrong value, argument or name; otherwise the error is a bug.

    Args:
        error: What a constructor raised, or Hydra on the way to it.
        wrapped: What Hydra made of it.
    """
    # A module that `_target_` names is missing; a module that is missing elsewhere is no mistake of the user's.
    if isinstance(error, ModuleNotFoundError):
        found = TARGET.match(str(wrapped))
        return found is not None and f"{found[1]}.".startswith(f"{error.name}.")

    # The call itself failed, here or in Hydra; within the constructor, the same errors are bugs.
    if isinstance(error, TypeError | AttributeError):
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        return raised_in == __name__ or raised_in.startswith("hydra.")

    return isinstance(error, ValueError | InstantiationException | OmegaConfBaseException)
