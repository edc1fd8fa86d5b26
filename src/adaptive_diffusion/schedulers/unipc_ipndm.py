"""UniPC and iPNDM with the conventions of diffusers; like DPM-Solver++ they cost one evaluation per step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..diffusion.checks import check_choice
from ..diffusion.node import CLEAN, Node
from ..solvers.dpm_solver import SOLVER_TYPES
from ..solvers.ipndm import IPNDM
from ..solvers.unipc import UniPC
from .base import LinspaceScheduler


@dataclass(eq=False, repr=False)
class UniPCScheduler(LinspaceScheduler):
    """UniPC, multistep, with data prediction (Zhao et al., 2023).

    The predictor UniP leads to the next timestep. Once the model has been evaluated there, the corrector UniC takes the
    same step again with that prediction, which raises the order by one and costs no evaluation; the next step goes on
    from the corrected sample. The last step is not corrected: nothing is evaluated at its end.

    Args:
        solver_order: 1, 2 or 3: clean predictions that the predictor uses, as far as there are that many.
        solver_type: `bh1` or `bh2`: see `unipc_weights`.
        lower_order_final: Lower the order of the last two steps, to 1 at the end.
        final_sigmas_type: The last `step` leads to the clean image (`zero`; always of order 1), or to timestep 0
            (`sigma_min`), which holds a little noise. Samplers and pipelines always end at the clean image.
        num_train_timesteps, ...: See `SchedulerBase`; here `clip_sample` is off and the spacing `linspace` by default.
    """

    _FOREIGN: ClassVar = {"solver_type": ("logrho", *SOLVER_TYPES)}

    solver_order: int = 2
    solver_type: str = "bh2"
    lower_order_final: bool = True
    final_sigmas_type: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("final_sigmas_type", self.final_sigmas_type, ("zero", "sigma_min"))

    @property
    def solver(self) -> UniPC:
        """See `SchedulerBase`."""
        return UniPC(self.solver_order, self.solver_type, self.lower_order_final)

    def _end(self) -> Node:
        return CLEAN if self.final_sigmas_type == "zero" else self._first_node()


@dataclass(eq=False, repr=False)
class IPNDMScheduler(LinspaceScheduler):
    """iPNDM: four-step Adams-Bashforth on eps (Liu et al., 2022), started with fewer steps (Zhang & Chen, 2023).

    With xh = x / alpha and s = sigma / alpha the ODE is dxh / ds = eps. The coefficients are those of equal steps,
    whatever the grid, and the first three steps have 1, 2 and 3 slopes only: it converges with order 2. The last step
    leads to the clean prediction. eps is taken from the clean prediction after clipping.

    Args:
        num_train_timesteps, ...: See `SchedulerBase`; here `clip_sample` is off and the spacing `linspace` by default.
    """

    @property
    def solver(self) -> IPNDM:
        """See `SchedulerBase`."""
        return IPNDM()
