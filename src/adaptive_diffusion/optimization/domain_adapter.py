"""DomainAdapter: which configuration a domain is sampled with, from measurements, and what results change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..diffusion.checks import check_guidance, check_number
from ..diffusion.facts import ModelFacts
from ..diffusion.guidance import effective_guidance
from ..encoder.domain import Detection, DomainDetector
from ..errors import Unusable
from ..models.checkpoint import load_builtin_model
from ..schedulers.configuration import HYPERPARAMETERS
from ..types import PictureModel
from .configuration import DomainConfig
from .domains import DomainType, describe_domain, nearest_domain, place_domain
from .memory import Memory, entry, shipped
from .records import DEFAULT_STAYS, NOISE_SEED, DomainRecord, DomainRecords, Result

__all__ = ["DomainAdapter", "DomainConfig", "DomainType"]


class DomainAdapter:
    """Knows of a model which configuration suits which domain.

    Configurations come from measurements: `train.py agent=...` and `OptimizationPipeline` verify what an agent found,
    and `learn_from_results` takes results of users. A domain without a record gets the configuration of the nearest
    known domain in encoder space, and if there is none the default, ten steps of `AdaptiveScheduler`.

    Args:
        path: JSON file of records, read and written; any number of processes may share it. None: the adapter starts
            from the shipped records and writes nothing.
        model: The model that draws; None: the model that ships with the project.
        guidance_scale: Weight of classifier-free guidance; None: what the model recommends.
        detector: Detects domains from samples and prompts; None: the detector that ships.

    Raises:
        ValueError: for a file that cannot be used, or a guidance below 0.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        model: PictureModel | None = None,
        guidance_scale: float | None = None,
        detector: DomainDetector | None = None,
    ):
        self._memory = Memory(path)
        self._model, self._detector = model, detector
        self._guidance = None if guidance_scale is None else check_guidance(guidance_scale)

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        return self._memory.path

    @cached_property
    def model(self) -> PictureModel:
        """The model that draws."""
        return load_builtin_model() if self._model is None else self._model

    @property
    def guidance_scale(self) -> float:
        """Weight of classifier-free guidance."""
        return effective_guidance(self.model, ModelFacts.of(self.model).guidance(self._guidance))

    @cached_property
    def detector(self) -> DomainDetector:
        """Detects domains from samples and prompts."""
        return self._detector or DomainDetector()

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of all domains: the shipped ones, the model's and the user's."""
        return tuple(dict.fromkeys([*DomainType, *(self.model.domains or ()), *self._memory.own().domains]))

    def register(self, path: str | Path) -> str:
        """Add a user's domain.

        Args:
            path: YAML file, see `describe_domain`.

        Returns:
            Its name.

        Raises:
            ValueError: if the file or the images cannot be used.
        """
        return self._add(*describe_domain(path, self.detector.encoder))

    def register_pictures(self, name: str, pictures: str | Path) -> str:
        """Add a user's domain by its name and a folder or array file of images; see `register`."""
        return self._add(*place_domain(name, pictures, self.detector.encoder))

    def detect(
        self,
        domain_type: DomainType | str | None = None,
        prompt: str | None = None,
        sample: mx.array | np.ndarray | None = None,
    ) -> Detection:
        """The domain: the one given, else that of the sample, else that of the prompt, else `general`.

        Args:
            domain_type: A domain, or None.
            prompt: What to draw, in words.
            sample: (H, W, 3) or (B, H, W, 3) images, uint8 or float in [-1, 1]; the mean of their probabilities
                decides.

        Returns:
            The domain, with confidence 1 for one that was given, and 0 if there was nothing to go by.

        Raises:
            ValueError: for an unknown domain, or images or a prompt that the detector cannot use.
        """
        if domain_type is not None:
            return Detection(self._check(domain_type), 1.0, {str(domain_type): 1.0})
        if sample is not None:
            images = np.asarray(sample)
            return self.detector.from_set(images[None] if images.ndim == 3 else images)
        if prompt is not None:
            return self.detector.from_prompt(prompt)
        return Detection(DomainType.GENERAL.value, 0.0, {})

    def get_config(
        self,
        domain_type: DomainType | str | None = None,
        prompt: str | None = None,
        sample: mx.array | np.ndarray | None = None,
    ) -> DomainConfig:
        """The configuration to sample with; arguments and errors as for `detect`."""
        domain = self.detect(domain_type, prompt, sample).domain
        if (record := self.known(domain)) is not None:
            return record.to_config()

        others = {other: record for other in self.domains if other != domain and (record := self.known(other))}
        if not others:  # the encoder need not be loaded
            return DomainConfig()

        near = nearest_domain(domain, self._memory.own().domains, self.detector.encoder, set(others))
        if near is None:
            return DomainConfig()
        return replace(others[near].to_config(), confidence=0.0, source=f"of {near}, the nearest known domain")

    def learn_from_results(
        self,
        domain_type: DomainType | str,
        quality: float,
        speed: float,
        hyperparameters: Mapping[str, Any],
        *,
        quality_error: float | None = None,
    ) -> DomainConfig:
        """Learn from what a configuration achieved.

        The configuration takes over once its mean score less two standard errors exceeds the mean score of the current
        configuration; the default's is 0. The score is weight quality + (1 - weight) (1 - 1 / speed). The weight is
        1/3, or that of the reward for which the domain was tuned. A result without `quality_error` counts with a
        standard error of 0.25 of the score, so that a single claim seldom replaces a verified configuration. See
        `DomainRecord.score`.

        Args:
            domain_type: The domain.
            quality: Mean log(error of the default / error) over images: 0 is the default's quality, 0.69 half its
                error.
            speed: Cost of the default / cost, > 0; 1.8 is 1.8 times as fast.
            hyperparameters: `num_steps`, and `adaptive_threshold`, `progress_power`, `solver`, `guidance_weight`,
                `guidance_low` and `guidance_high` where they differ from the default.
            quality_error: Standard error of the quality.

        Returns:
            The configuration to sample with from now on.

        Raises:
            ValueError: for an unknown domain or hyperparameter, or a value out of range.
        """
        domain, given = self._check(domain_type), dict(hyperparameters)
        if unknown := sorted(set(given) - set(HYPERPARAMETERS)):
            raise ValueError(f"there is no hyperparameter {unknown[0]!r}; there are {', '.join(HYPERPARAMETERS)}")
        if "num_steps" not in given:
            raise ValueError("hyperparameters must say num_steps, the model evaluations per image")

        error = None if quality_error is None else check_number("quality_error", quality_error, 0)
        result = Result(DomainConfig(**given).to_dict(), float(quality), float(speed), error)
        begin = self.get_config(domain)

        with self._memory.changing() as records:
            record = entry(records, self._key(domain), begin)
            record.learn(result)
            return record.to_config()

    def adopt(
        self,
        domain: str,
        config: DomainConfig,
        *,
        quality: float,
        speed: float,
        quality_error: float | None,
        weight: float,
        provenance: Mapping[str, Any],
    ) -> DomainConfig:
        """Record a configuration that was verified on fresh noises as the current one.

        Args:
            domain: The domain.
            config: The configuration.
            quality: See `learn_from_results`.
            speed: Likewise.
            quality_error: Standard error of the quality, or None if it is unknown.
            weight: Of quality in the reward for which it was tuned; later results are scored with it.
            provenance: What was measured, JSON types.

        Returns:
            What `get_config` answers from now on.
        """
        result = Result(config.to_dict(), quality, speed, quality_error)
        with self._memory.changing() as records:
            record = entry(records, self._key(self._check(domain)), config)
            record.weight, record.config, record.source = weight, config.to_dict(), config.source
            record.provenance = dict(provenance)
            # the verified result takes the place of the claims about this configuration
            record.results = [r for r in record.results if r.hyperparameters != result.hyperparameters] + [result]
            return record.to_config()

    def keep(self, domain: str, noise_seed: int) -> None:
        """Note that noises were seen in a verification that changed nothing.

        Args:
            domain: The domain, of which something is known.
            noise_seed: Seed of the noises.
        """
        with self._memory.changing() as records:
            entry(records, self._key(domain), DomainConfig()).provenance[NOISE_SEED] = noise_seed

    def in_use(self, domain: str) -> DomainConfig | None:
        """What was tuned for a domain, in the adapter's file or else as it ships; None where the default stayed."""
        found = (records.find(*self._key(domain)) for records in (self._memory.own(), shipped()))
        return next((record.to_config() for record in found if record and record.source != DEFAULT_STAYS), None)

    def known(self, domain: str) -> DomainRecord | None:
        """The record of the domain: of the adapter's file, else the shipped one, else None."""
        return self._memory.find(*self._key(domain))

    def own(self, domain: str) -> DomainRecord | None:
        """The record of the domain in the adapter's file, else None."""
        return self._memory.own().find(*self._key(domain))

    def export(self) -> DomainRecords:
        """The records of the model with this guidance, and the user's domains."""
        known = [record for domain in self.domains if (record := self.known(domain)) is not None]
        return DomainRecords(known, self._memory.own().domains)

    def take_over(self, records: DomainRecords, source: str) -> None:
        """Replace the records of the domains in `records`, and add its users' domains.

        Args:
            records: What `export` of another adapter gave.
            source: Where they were found, for the error message.

        Raises:
            ValueError: if a record is about another model or guidance.
        """
        own = self.model.identity, self.guidance_scale
        for new in records.known:
            if (new.model, new.guidance_scale) != own:
                raise Unusable(
                    f"{source} is about the model {new.model:.12} with guidance_scale={new.guidance_scale:g}, and "
                    f"this adapter about {own[0]:.12} with {own[1]:g}"
                )

        with self._memory.changing() as mine:
            domains = {new.domain for new in records.known}
            rest = [old for old in mine.known if old.domain not in domains or (old.model, old.guidance_scale) != own]
            mine.known = [*rest, *records.known]
            mine.domains |= records.domains

    def _key(self, domain: str) -> tuple[str, float, str]:
        """What a record is found by."""
        return self.model.identity, self.guidance_scale, domain

    def _add(self, name: str, place: dict[str, Any]) -> str:
        with self._memory.changing() as records:
            records.domains[name] = place
        return name

    def _check(self, domain: DomainType | str) -> str:
        name = str(domain)
        if name not in self.domains:
            raise Unusable(
                f"there is no domain {name!r}; there are {', '.join(self.domains)}, and DomainAdapter.register adds one"
            )
        return name
