"""Modules under the names that they had in version 0.1.0: `import adaptive_diffusion.data` gives `io.pictures`."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {  # relative to this package
    "agent_run": "runs.tune",
    "agent_sweep": "runs.agent_sweep",
    "baseline.noise_schedule": "diffusion.schedule",
    "benchmark_run": "runs.benchmark",
    "config": "cli.schemas",
    "converged": "sampling.converged",
    "data": "io.pictures",
    "files": "io.files",
    "init_image": "io.image_file",
    "metrics.captions": "encoder.captions",
    "metrics.domain": "encoder.domain",
    "metrics.encoder": "encoder.encoder",
    "metrics.encoder_metrics": "encoder.encoder_metrics",
    "metrics.encoder_training_config": "encoder.encoder_training_config",
    "metrics.reference": "encoder.reference",
    "metrics.words": "encoder.words",
    "policy_run": "runs.train_policy",
    "provenance": "tracking.provenance",
    "rng": "diffusion.rng",
    "schedule_run": "runs.calibrate",
    "schedulers.calibrate": "calibration.calibrate",
    "schedulers.calibrated": "grids.calibrated",
    "schedulers.calibrated_schedule": "grids.calibrated_schedule",
    "schedulers.calibration": "calibration.trajectory",
    "schedulers.grids": "grids.spacings",
    "schedulers.schedule_file": "grids.schedule_file",
    "schedulers.solvers": "schedulers.unipc_ipndm",
    "sweep": "cli.sweep",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds the old names: the very module that has the new one, so that its classes and patches are the same."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == __package__ and old in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of this empty one."""
        old = module.__name__
        new = f"{__package__}.{MOVED[old.partition('.')[2]]}"
        warnings.warn(f"{old} is {new} now", DeprecationWarning, stacklevel=2)
        sys.modules[old] = importlib.import_module(new)


def install() -> None:
    """Let Python ask for the old names after all others."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
