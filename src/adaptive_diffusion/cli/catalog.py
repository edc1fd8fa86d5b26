"""Catalog: the groups and options that the command lines of the two programs can name."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from ..program import SCRIPTS

INSTALLED = "adaptive_diffusion.conf"  # entry points by which packages name their folders of configuration


@dataclass(frozen=True)
class Catalog:
    """What the folders of configuration hold.

    Attributes:
        folders: `conf/`, and the user's own after it.
    """

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, conf: Path, arguments: Sequence[str]) -> Catalog:
        """The catalog of `conf/`, of installed packages, and of what --config-dir and hydra.searchpath add."""
        theirs = (folder for place in installed() if (folder := _folder(place)) is not None)
        return cls((conf, *theirs, *_added(arguments)))

    def is_group(self, name: str) -> bool:
        """Whether there are options to choose from."""
        return bool(name and self.options(name))

    def options(self, group: str) -> list[str]:
        """Names of the options of a group, sorted."""
        return sorted({file.stem for folder in self.folders for file in (folder / group).glob("*.yaml")})

    def content(self, group: str, option: str) -> Any:
        """What the file of an option says, without what it takes from others; {} where it cannot be read."""
        for folder in self.folders:
            with contextlib.suppress(Exception):
                return OmegaConf.to_container(OmegaConf.load(folder / group / f"{option}.yaml"))
        return {}

    def groups(self, program: str) -> dict[str, str | None]:
        """The groups of a program, each with the option that it has by default."""
        entries = self._root(program).get("defaults", [])
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        return {str(group): option for group, option in pairs if re.fullmatch(r"\w+", str(group)) and group != "hydra"}

    def settings(self, program: str) -> list[str]:
        """The settings of a program that belong to no group."""
        return [str(key) for key in self._root(program) if key != "defaults"]

    def owner(self, group: str) -> str | None:
        """The program that has a group."""
        return next((program for program in SCRIPTS if group in self.groups(program)), None)

    def _root(self, program: str) -> dict[str, Any]:
        found = self.content(".", program)
        return found if isinstance(found, dict) else {}


class InstalledPackages(SearchPathPlugin):
    """Lets Hydra find the configuration that installed packages bring."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once at the start."""
        for place in installed():
            search_path.append("adaptive-diffusion-parts", place)


def installed() -> list[str]:
    """Where installed packages have configuration, as Hydra writes it: pkg://..."""
    return [f"pkg://{point.value}" for point in entry_points(group=INSTALLED)]


def _added(arguments: Sequence[str]) -> list[Path]:
    """Folders that a command line adds to the search path of configurations."""
    rest, folders = iter(arguments), []
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folders.append(Path(value or next(rest, "")))
        elif name.lstrip("+") == "hydra.searchpath":
            places = re.findall(r"[^\[\],'\"\s]+", value)
            folders += [folder for place in places if (folder := _folder(place)) is not None]
    return folders


def _folder(place: str) -> Path | None:
    """The folder of a place in Hydra's search path, file://... or pkg://..."""
    if not place.startswith("pkg://"):
        return Path(place.removeprefix("file://"))
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(place.removeprefix("pkg://").replace("/", "."))
        if found is not None and found.submodule_search_locations:
            return Path(next(iter(found.submodule_search_locations)))
    return None
