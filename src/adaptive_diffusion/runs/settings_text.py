"""Commands that continue a job: what a user types to draw with its model, quoted for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, sentence
from ..program import command, in_domain


def draw_command(*arguments: str) -> str:
    """The command that draws with the model of this job of train.py, in the same folders, quoted for a shell.

    Args:
        *arguments: Further settings of sample.py; see `setting`.
    """
    keys = {
        **{f"{group}@task.{group}=": f"{group}=" for group in ("model", "guidance")},
        **{f"task.{group}": group for group in ("model.", "guidance.", "guidance_scale=")},
    }
    folders = {name: name for name in ("paths.root=", "paths.outputs=", "paths.mlruns=")}

    # null means the model's own guidance, which sample.py takes without being asked
    model = [argument for argument in _renamed({**keys, **folders}) if argument != "guidance_scale=null"]
    return " ".join([command("sample"), shlex.join([*_config_dir(), *arguments, *model])]).strip()


def setting(name: str, value: object) -> str:
    """`name=value`, escaped so that Hydra reads the same value back."""
    text = str(value)

    # without quotes wherever Hydra reads the same text back
    try:
        plain = "${" not in text and OverridesParser.create().parse_override(f"{name}={text}").value() == text
    except HydraException:
        plain = False

    if plain:
        return f"{name}={text}"

    return quoted(name, literal(text))


def literal(text: str) -> str:
    """A text that OmegaConf reads as it stands here: `${` is escaped, which would be a reference to a setting else."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)  # it halves the backslashes before one


def literals(node: Any) -> Any:
    """Plain values, each text of which OmegaConf reads as it stands here; see `literal`."""
    if isinstance(node, dict):
        return {key: literals(value) for key, value in node.items()}
    if isinstance(node, list):
        return [literals(value) for value in node]
    return literal(node) if isinstance(node, str) else node


def read_literal(text: str) -> str:
    """The text that `literal` escaped. A reference that is not escaped stays as it is."""
    return re.sub(r"((?:\\\\)*)\\\$\{", lambda found: found[1][::2] + "${", text)


def quoted(name: str, text: str) -> str:
    """A setting whose text stands in quotes, as Hydra reads them: a backslash counts before a quote only."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"{name}='{escaped}'"


def domain_settings(name: str) -> list[str]:
    """The settings of sample.py that draw a domain: the choice of its file, or its name if it has no file."""
    known = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    if known is None:
        return [setting(key, value) for key, value in in_domain(name).items()]
    if name in known.get_group_options("domain"):
        return [setting("domain", name)]
    return [setting("domain.name", name), setting("domain.description", name)]


def advice_for_this_model(error: Exception) -> UserError:
    """What an error says, with the model of this job of sample.py in its advice to train."""
    model = _renamed({"model=": "model@task.model=", "model.": "task.model."})
    given, train = [*_config_dir(), *model], command("train")
    said = sentence(error)
    return UserError(said.replace(train, f"{train} {shlex.join(given)}") if given else said)


def given_settings(config: DictConfig | None = None) -> list[str]:
    """The settings on a command line as they are written there, references too, which may lead nowhere.

    Args:
        config: Of that command line, with what Hydra adds; None: of this job.
    """
    if config is None and not HydraConfig.initialized():
        return []
    node = HydraConfig.get() if config is None else config.hydra
    written: Any = OmegaConf.to_container(node.overrides.task, resolve=False)
    return list(written)


def given(name: str) -> bool:
    """Whether this job's command line says what a setting is."""
    return any(text.lstrip("+").startswith(f"{name}=") for text in given_settings())


def resolved_settings() -> list[str]:
    """The settings on this job's command line, with what references lead to in their place."""
    return [literal(given) for given in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def _config_dir() -> list[str]:
    """The `--config-dir` of this job, which both programs accept."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    given = [source.path for source in sources if source.provider == "command-line"]
    return ["--config-dir", given[0]] if given else []


def _renamed(keys: Mapping[str, str]) -> list[str]:
    """Settings of this job's command line, renamed for the other program.

    Args:
        keys: Beginning of a setting here -> its beginning there; settings that begin otherwise are left out.
    """
    given = given_settings()
    return [keys[key] + argument.removeprefix(key) for argument in given for key in keys if argument.startswith(key)]
