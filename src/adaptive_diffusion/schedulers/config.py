"""ConfigMixin: a scheduler's constructor arguments as a dict, and as diffusers' scheduler_config.json."""

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_flag
from ..io.files import parse_json, why_unreadable, write_text

_ARRAYS = (list, tuple, np.ndarray, np.generic, mx.array)
CONFIG_NAME = "scheduler_config.json"

_ANY: tuple[Any, ...] = ()
# Options of diffusers' schedulers -> values with which they ask for nothing that is not done here; _ANY: whatever they
# say. They stand in every file that diffusers writes, so only other values are worth a word.
_INERT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"), (False, None)
    ),
    **dict.fromkeys(("use_flow_sigmas", "use_dynamic_shifting"), (False, None)),
    **dict.fromkeys(("euler_at_final", "use_clipped_model_output"), (False, None)),
    **dict.fromkeys(("flow_shift", "time_shift_type", "skip_prk_steps", "set_alpha_to_one"), _ANY),  # of other ways
    **dict.fromkeys(("sigma_min", "sigma_max", "shift_terminal", "solver_p", "tau_func"), (None,)),
    "predict_x0": (True, None),
    "disable_corrector": ([], None),
    "lower_order_final": (True,),
    "lambda_min_clipped": (-math.inf, "-inf", None),
    "variance_type": (None, "fixed_small", "fixed_large"),
    "solver_order": (2,),
    "predictor_order": (2,),
    "corrector_order": (2,),
    "algorithm_type": ("dpmsolver++", "deis", "data_prediction"),
    "solver_type": ("midpoint", "bh2", "logrho"),
    "final_sigmas_type": ("zero",),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    "original_inference_steps": _ANY,
    "timestep_scaling": (10.0,),
    "eta": (0.0,),
    "thresholding": (False, None),
    **dict.fromkeys(("dynamic_thresholding_ratio", "sample_max_value", "timestep_spacing", "steps_offset"), _ANY),
}
# What is done here instead, where that is not the default.
_INSTEAD = {
    "use_karras_sigmas": "grid=karras, or KarrasGrid from Python, draws on such timesteps",
    "use_exponential_sigmas": "grid=log_snr, or LogSNRGrid from Python, draws on such timesteps",
    "use_lu_lambdas": "grid=log_snr, or LogSNRGrid from Python, draws on such timesteps",
    "use_beta_sigmas": "there is no such grid here; choose one by grid=",
    "use_dynamic_shifting": "it shifts the noise of flow-matching models, which are not supported",
    "predict_x0": "the solver here works with predictions of the clean image",
    "disable_corrector": "the solver here corrects every step",
    "solver_p": "the solver here is its own predictor",
}


def _file(path: str | Path) -> Path:
    """`path` itself if it names a JSON file, else the configuration file in that folder."""
    path = Path(path)
    return path if path.suffix == ".json" else path / CONFIG_NAME


def _asks(option: str, value: Any) -> bool:
    """Whether an option that a class does not have asks for something, as far as is known."""
    return option not in _INERT or (_INERT[option] is not _ANY and value not in _INERT[option])


class ConfigMixin:
    """Remembers what an object was built with; the constructor calls `_record_config` once it has set its arguments."""

    _config: dict[str, Any]
    _FOREIGN: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # values of other classes, which have the same argument

    @classmethod
    def _argument_names(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def _record_config(self) -> None:
        values = {name: getattr(self, name) for name in self._argument_names()}
        for name, argument in inspect.signature(type(self)).parameters.items():
            if isinstance(argument.default, bool) and values[name] is not None:  # files of diffusers may say null
                check_flag(name, values[name])

        self._config = {
            name: np.asarray(value).tolist() if isinstance(value, _ARRAYS) else value for name, value in values.items()
        }

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments, as plain JSON types."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | ConfigMixin, **overrides: Any) -> Self:
        """Build from a configuration, one of diffusers included.

        Args:
            config: Constructor arguments, or a scheduler to take them from. What is missing gets its default, and so
                does a `solver_type` of another class; keys that begin with `_` are skipped, and so are options of
                diffusers at values that change nothing. Other unknown keys are ignored with a warning, which says what
                does the same here.
            **overrides: Arguments that replace those of `config`.

        Raises:
            ValueError: for a value out of range, or the noise of flow matching.
        """
        kept = config.config if isinstance(config, ConfigMixin) else config
        foreign = [key for key, values in cls._FOREIGN.items() if key in kept and kept[key] in values]
        given = {**{key: value for key, value in kept.items() if key not in foreign}, **overrides}
        names = cls._argument_names()
        unknown = [key for key in given if key not in names and not key.startswith("_") and _asks(key, given[key])]
        if "use_flow_sigmas" in unknown:
            raise ValueError(f"use_flow_sigmas={given['use_flow_sigmas']}: flow matching is not supported")

        for key in [key for key in unknown if key in _INSTEAD]:
            unknown.remove(key)
            warnings.warn(f"{cls.__name__} ignores {key}={given[key]}: {_INSTEAD[key]}", stacklevel=2)

        if unknown:
            warnings.warn(f"{cls.__name__} has no argument {', '.join(unknown)}: ignored", stacklevel=2)
        return cls(**{key: value for key, value in given.items() if key in names})

    def save(self, path: str | Path) -> Path:
        """Write the configuration.

        Args:
            path: A folder (created if need be), which gets a `scheduler_config.json`, or a `.json` file.

        Returns:
            The file written.
        """
        file = _file(path)
        write_text(file, json.dumps({"_class_name": type(self).__name__, **self.config}, indent=2) + "\n")
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
        except (ValueError, OSError) as error:
            if trouble := why_unreadable(file):
                raise ValueError(f"{file} {trouble}") from error
            config = None

        if not isinstance(config, dict):
            raise ValueError(f"{file} is not a scheduler configuration: it holds no JSON object")
        return cls.from_config(config, **overrides)
