"""What is drawn: a network with its noise process, its guidance and its conditions, evaluated at nodes."""

from .autoguidance import Autoguidance
from .evaluation import Cost, Denoised, Waiting
from .guidance import Constant, Guidance, Interval
from .guided_model import GuidedModel
from .limits import Clipped, Limit, Thresholded, unlimited
from .node import CLEAN, Node, Process, node_at, nodes_at

__all__ = [
    "CLEAN",
    "Autoguidance",
    "Clipped",
    "Constant",
    "Cost",
    "Denoised",
    "Guidance",
    "GuidedModel",
    "Interval",
    "Limit",
    "Node",
    "Process",
    "Thresholded",
    "Waiting",
    "node_at",
    "nodes_at",
    "unlimited",
]
