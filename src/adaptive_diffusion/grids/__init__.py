"""Where the model is evaluated: grids are asked for the next node, and answer CLEAN when the run is to end."""

from ..diffusion.node import CLEAN, Node, node_at, nodes_at
from .base import FixedGrid, Grid, GridMemory, Spacing
from .diffusers_spacings import Spaced
from .policy import PolicyGrid, Residuals

__all__ = [
    "CLEAN",
    "FixedGrid",
    "Grid",
    "GridMemory",
    "Node",
    "PolicyGrid",
    "Residuals",
    "Spaced",
    "Spacing",
    "node_at",
    "nodes_at",
]
