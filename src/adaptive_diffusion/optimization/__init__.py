"""For each domain, the configuration to sample with: found by an agent or a grid search, verified, and recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .configuration import DomainConfig
    from .domain_adapter import DomainAdapter
    from .domains import DomainType
    from .pipeline import OptimizationPipeline

__all__ = [
    "DomainAdapter",
    "DomainConfig",
    "DomainType",
    "OptimizationPipeline",
]

_HOMES = {  # as the imports above say to type checkers
    "DomainAdapter": "domain_adapter",
    "DomainConfig": "configuration",
    "DomainType": "domains",
    "OptimizationPipeline": "pipeline",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
