"""ConfigMixin: a scheduler's constructor arguments as a dict, and as diffusers' scheduler_config.json."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..files import atomic_path, parse_json

CONFIG_NAME = "scheduler_config.json"


def _file(path: str | Path) -> Path:
    """`path` itself if it names a JSON file, else the configuration file in that folder."""
    path = Path(path)
    return path if path.suffix == ".json" else path / CONFIG_NAME


class ConfigMixin:
    """Remembers what an object was built with; the constructor calls `_record_config` once it has set its arguments."""

    _config: dict[str, Any]

    @classmethod
    def _argument_names(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def _record_config(self) -> None:
        values = {name: getattr(self, name) for name in self._argument_names()}
        self._config = {
            name: np.asarray(value).tolist() if isinstance(value, (list, tuple, np.ndarray)) else value
            for name, value in values.items()
        }

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, as plain JSON types."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | ConfigMixin, **overrides: Any) -> Self:
        """Build from a configuration, one of diffusers included.

        Args:
            config: Constructor arguments, or a scheduler to take them from. What is missing gets its default; keys
                that begin with `_` are skipped, other unknown ones ignored with a warning.
            **overrides: Arguments that replace those of `config`.

        Raises:
            ValueError: for a value out of range.
        """
        given = {**(config.config if isinstance(config, ConfigMixin) else config), **overrides}
        names = cls._argument_names()
        unknown = [key for key in given if key not in names and not key.startswith("_")]
        if unknown:
            warnings.warn(f"{cls.__name__} has no argument {', '.join(unknown)}: ignored", stacklevel=2)
        return cls(**{key: value for key, value in given.items() if key in names})

    def reconfigure(self, **changes: Any) -> None:
        """Change constructor arguments in place; a number of steps that was set is kept, all else begins anew.

        Raises:
            ValueError: for a value out of range; nothing has changed then.
        """
        built = type(self).from_config(self.config, **changes)
        steps = len(getattr(self, "timesteps", ()))
        self.__dict__.clear()
        self.__dict__.update(built.__dict__)
        if steps:
            self.set_timesteps(steps)  # type: ignore[attr-defined]

    def save(self, path: str | Path) -> Path:
        """Write the configuration.

        Args:
            path: A folder (created if need be), which gets a `scheduler_config.json`, or a `.json` file.

        Returns:
            The file written.
        """
        file = _file(path)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps({"_class_name": type(self).__name__, **self.config}, indent=2) + "\n")
        return file

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> Self:
        """Build from a saved configuration: a folder with a `scheduler_config.json`, or a `.json` file.

        Raises:
            ValueError: if there is no such file, or it holds no JSON object.
        """
        file = _file(path)
        try:
            config = parse_json(file.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"no scheduler configuration at {file}") from None
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise ValueError(f"{file} is not a scheduler configuration: it holds no JSON object")
        return cls.from_config(config, **overrides)
