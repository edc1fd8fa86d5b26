"""What a run is made from, as its record names it: the model, and the images that are trained on or compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from ..diffusion.facts import ModelFacts
from ..io.digest import digest_of
from ..tracking.provenance import choices
from ..tracking.record import Input
from .setup import Setup


def sampling_inputs(setup: Setup) -> list[Input]:
    """The model, and the real images or statistics that the images are compared with."""
    reference = getattr(setup.metrics, "reference", None)  # optional, see `metrics.quality.PictureMetrics`
    path = None if reference is None else reference(setup.cfg.domain.name)
    real = [] if path is None else [Input("dataset", setup.cfg.domain.name, digest_of(path), str(path), "evaluation")]
    return [*model_input(setup.cfg.model, setup.model), *real]


def model_input(settings: DictConfig, model: Any) -> list[Input]:
    """The model; [] where it has no hash."""
    digest = ModelFacts.of(model).content_hash
    name, source = choices().get("model", type(model).__name__), settings.get("path") or settings.get("_target_")
    return [Input("model", name, digest, str(source), "sampling")] if digest else []


def training_inputs(data: Mapping[str, Any], hashes: Iterable[str]) -> list[Input]:
    """The images that are trained on, by domain; hashes are in the order of the domains."""
    given = zip(data.items(), hashes, strict=True)
    return [Input("dataset", domain, digest, str(path), "training") for (domain, path), digest in given]
