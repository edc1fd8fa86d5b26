"""How to get from one node to the next: pure, frozen solvers, each of which costs one evaluation per step."""

from .base import Memory, Position, Solver, Step
from .checked import Checked
from .dpm_solver import DPMSolver
from .first_order import DDIM, DDPM
from .fitted import Fitted
from .ipndm import IPNDM
from .stride import Stride
from .unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "IPNDM",
    "Checked",
    "DPMSolver",
    "Fitted",
    "Memory",
    "Position",
    "Solver",
    "Step",
    "Stride",
    "UniPC",
]
