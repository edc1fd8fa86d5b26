"""DDPM, DDIM and DPM-Solver++ with the conventions of diffusers; the solvers themselves are in `solvers`.

All three step between neighbours of the actual grid, whatever its spacing. (diffusers' DDIM steps to t - T // N, which
is a neighbour only on grids with that stride.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..diffusion.checks import check_choice, check_number
from ..diffusion.node import CLEAN, Node
from ..grids.base import Spacing
from ..grids.spacings import KarrasGrid, LogSNRGrid
from ..solvers.base import Solver
from ..solvers.dpm_solver import DPMSolver
from ..solvers.first_order import DDIM, DDPM
from ..solvers.unipc import UNIPC_TYPES
from .base import LinspaceScheduler, SchedulerBase


@dataclass(eq=False, repr=False)
class DDPMScheduler(SchedulerBase):
    """Ancestral sampling from the true posterior q(x_s | x_t, x0) (Ho et al., 2020, eq. 7), for any stride.

    The last step adds no noise: it returns the posterior's mean, which is the clean prediction.

    Args:
        variance_type: `fixed_small`, the posterior's variance, or `fixed_large`, that of the forward step.
        num_train_timesteps, ...: See `SchedulerBase`.
    """

    _FOREIGN: ClassVar = {"variance_type": (None,)}

    variance_type: str = "fixed_small"

    @property
    def solver(self) -> DDPM:
        """See `SchedulerBase`."""
        return DDPM(self.variance_type)


@dataclass(eq=False, repr=False)
class DDIMScheduler(SchedulerBase):
    """Denoising diffusion implicit models (Song et al., 2021, eq. 12 and 16).

    Args:
        eta: Noise, from 0 (the deterministic DDIM; steps need no key) to 1 (as much as DDPM with `fixed_small`).
        set_alpha_to_one: The last `step` leads to the clean image; else to timestep 0, which holds a little noise.
            Samplers and pipelines always end at the clean image.
        use_clipped_model_output: Take eps from the clean prediction after clipping, not from the model's own output.
        num_train_timesteps, ...: See `SchedulerBase`.
    """

    eta: float = 0.0
    set_alpha_to_one: bool = True
    use_clipped_model_output: bool = False

    def _end(self) -> Node:
        return CLEAN if self.set_alpha_to_one else self._first_node()

    @property
    def solver(self) -> DDIM:
        """See `SchedulerBase`."""
        return DDIM(self.eta, self.use_clipped_model_output)


@dataclass(eq=False, repr=False)
class DPMSolverScheduler(LinspaceScheduler):
    """DPM-Solver++, multistep (Lu et al., 2022b), in its ODE and SDE form.

    Args:
        solver_order: 1, 2 or 3: clean predictions that a step uses, as far as there are that many.
        algorithm_type: `dpmsolver++`, or `sde-dpmsolver++`, whose steps need a key.
        solver_type: `midpoint` or `heun` as published, or `adams`: see `multistep_weights`.
        lower_order_final: With fewer than 15 steps, take the last one at order 1 and the one before at order 2.
        euler_at_final: Take the last step at order 1, as one to the clean image always is: of no effect in samplers.
        use_karras_sigmas: Replace the spacing by that of Karras et al. (2022), rho 7.
        use_lu_lambdas: Replace the spacing by one uniform in log-SNR.
        final_sigmas_type: The last `step` leads to the clean image (`zero`; always of order 1), or to timestep 0
            (`sigma_min`), which holds a little noise. Samplers and pipelines always end at the clean image.
        lambda_min_clipped: Leave out of the grid the timesteps whose log-SNR is smaller; -5.1 suits
            `squaredcos_cap_v2`.
        num_train_timesteps, ...: See `SchedulerBase`; here `clip_sample` is off and the spacing `linspace` by default.
    """

    _FOREIGN: ClassVar = {"solver_type": ("logrho", *UNIPC_TYPES), "algorithm_type": ("deis",)}

    solver_order: int = 2
    algorithm_type: str = "dpmsolver++"
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    use_karras_sigmas: bool = False
    use_lu_lambdas: bool = False
    final_sigmas_type: str = "zero"
    lambda_min_clipped: float = -math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("algorithm_type", self.algorithm_type, ("dpmsolver++", "sde-dpmsolver++"))
        check_choice("final_sigmas_type", self.final_sigmas_type, ("zero", "sigma_min"))
        if self.lambda_min_clipped != -math.inf:
            check_number("lambda_min_clipped", self.lambda_min_clipped, high=float(self.schedule.log_snr(0)))
        if self.use_karras_sigmas and self.use_lu_lambdas:
            raise ValueError("use_karras_sigmas and use_lu_lambdas exclude each other: set one of them to false")

    @property
    def solver(self) -> Solver:
        """See `SchedulerBase`."""
        stochastic = self.algorithm_type == "sde-dpmsolver++"
        return DPMSolver(self.solver_order, self.solver_type, stochastic, self.lower_order_final, self.euler_at_final)

    @property
    def spacing(self) -> Spacing:
        """See `SchedulerBase`."""
        if self.use_karras_sigmas:
            return KarrasGrid()
        if self.use_lu_lambdas:
            return LogSNRGrid()
        return replace(self._spaced, open_end=True, lowest_log_snr=self.lambda_min_clipped)

    def _end(self) -> Node:
        return CLEAN if self.final_sigmas_type == "zero" else self._first_node()
