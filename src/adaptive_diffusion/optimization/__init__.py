"""For each domain, the configuration to sample with: found by an agent or a grid search, verified, and recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .configuration import DomainConfig as DomainConfig
    from .domain_adapter import DomainAdapter as DomainAdapter
    from .domains import DomainType as DomainType
    from .pipeline import OptimizationPipeline as OptimizationPipeline

_HOMES = {  # as the imports above say to type checkers
    "DomainAdapter": "domain_adapter",
    "DomainConfig": "configuration",
    "DomainType": "domains",
    "OptimizationPipeline": "pipeline",
}

__all__ = [*_HOMES]
__getattr__, __dir__ = lazy(__name__, _HOMES)
