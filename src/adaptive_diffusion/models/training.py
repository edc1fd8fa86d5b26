"""Training of the denoiser, as a generator of events; resumable at any step (see `resumable`) and data-parallel.

Everything random is a pure function of the seed and the step (see `examples`), so several processes can share one
global batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from ..diffusion.facts import ModelFacts
from ..diffusion.schedule import NoiseSchedule
from ..errors import Unusable
from .checkpoint import load_model
from .corpus import Corpus
from .examples import Examples, ExampleSource, losses
from .resumable import ResumableTrainer
from .training_config import TrainingConfig
from .training_steps import check_loss, decay
from .unet import SimpleUNet, UNetConfig

log = logging.getLogger(__name__)


class Trainer(ResumableTrainer[float]):
    """The state of a training run, and the step that advances it.

    Args:
        config: Settings of the run.

    Raises:
        Unusable: if the data, the configuration or the state file cannot be used.
    """

    NETWORK = "model"
    COUNTS = ("step", "images_before")
    config: TrainingConfig
    network: SimpleUNet

    def __init__(self, config: TrainingConfig):
        self.group = mx.distributed.init()  # the processes of `mlx.launch`, or this one alone
        if config.batch_size % self.group.size():
            raise Unusable(f"batch_size {config.batch_size} must be a multiple of the {self.group.size()} processes")

        self.schedule = NoiseSchedule(**config.noise_schedule)
        self.corpus = Corpus(config)
        self._source = ExampleSource(config, self.schedule, self.corpus, self.group.rank(), self.group.size())
        self._next: tuple[int, Examples] | None = None

        mx.random.seed(config.seed)
        network = SimpleUNet(UNetConfig(**config.architecture, num_classes=self.corpus.num_classes))
        self.images_before = 0  # images that the first weights of this run had seen
        if config.start_from is not None and not Path(config.state).exists():
            self.images_before = _start_from(network, config, self.corpus.labels)

        optimizer = optim.Adam(learning_rate=0.0, betas=[0.9, 0.99])
        super().__init__(config, network, optimizer, self.corpus.train, {"labels": self.corpus.labels})

        self._loss_and_grad = nn.value_and_grad(network, lambda examples: losses(network, examples).mean())
        state = [network.state, self.optimizer.state]

        # On a CPU, compilation saves no time and needs a compiler.
        on_gpu = mx.default_device() == mx.gpu
        self._update = mx.compile(self._update_all, inputs=state, outputs=state) if on_gpu else self._update_all

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, linear decay to 0."""
        c, done = self.config, (step + 1) * self.config.batch_size
        rise = min(1.0, done / max(c.warmup_images, 1))
        fall = min(1.0, max(c.images - done + c.batch_size, 0) / max(c.decay_images, 1))
        return c.learning_rate * min(rise, fall)

    def ema_model(self) -> SimpleUNet:
        """A copy of the network with the averaged weights, in evaluation mode."""
        model = SimpleUNet(self.network.config)
        model.update(self.ema)
        model._metadata = self.metadata()
        model.eval()
        return model

    def metadata(self) -> dict[str, Any]:
        """Metadata of a checkpoint of this run."""
        c = self.config
        return {
            "prediction_type": c.prediction_type,
            "guidance_scale": c.guidance_scale,
            "noise_schedule": c.noise_schedule,
            "domains": list(self.corpus.domains),
            "labels": {domain: list(names) for domain, names in self.corpus.labels.items()},
            "label_counts": self.corpus.label_counts,
            "images_seen": self.images_before + self.images,
            "training": {k: v for k, v in asdict(c).items() if k not in ("data", "state", "start_from")},
        }

    def scores(self) -> float:
        """Mean loss of the averaged weights on held-out images; NaN without such images."""
        model, total, count = self.ema_model(), 0.0, 0
        for examples in self._source.validation():
            total += float(losses(model, examples).sum())
            count += len(examples.t)

        return total / count if count else math.nan

    def save_state(self) -> None:
        """Write the state file atomically (first process only)."""
        if not self.group.rank():
            super().save_state()

    def _advance(self) -> dict[str, float]:
        """Do one optimiser step and return the loss over the global batch."""
        c = self.config
        self.optimizer.learning_rate = self.learning_rate(self.step)
        examples = self._next[1] if self._next and self._next[0] == self.step else self._source.batch(self.step)
        loss, self.ema = self._update(examples, self.ema, mx.array(1 - decay(self.step, c.ema_decay)))

        # Prepare the next batch while the device computes this step.
        state = self.network.parameters(), self.optimizer.state, self.ema
        mx.async_eval(*state, loss)
        self.step += 1
        self._next = self.step, self._source.batch(self.step)
        mx.async_eval(*self._next[1])
        mx.eval(*state)

        value = float(loss)
        check_loss(value, self.step, c.state, "learning_rate or max_grad_norm")
        return {"loss": value}

    def _update_all(self, examples: Examples, ema: dict[str, Any], share: mx.array) -> tuple[mx.array, dict[str, Any]]:
        """Update weights and optimiser, and return the loss and the moving average with a share of the new weights."""
        loss, grads = self._loss_and_grad(examples)
        if self.group.size() > 1:
            grads = nn.average_gradients(grads, self.group)
            loss = mx.distributed.all_sum(loss, group=self.group) / self.group.size()

        grads, _ = optim.clip_grad_norm(grads, self.config.max_grad_norm)
        self.optimizer.update(self.network, grads)
        return loss, tree_map(lambda e, p: e + share * (p - e), ema, self.network.trainable_parameters())


def _start_from(network: SimpleUNet, config: TrainingConfig, labels: Mapping[str, Sequence[str]]) -> int:
    """Copy the weights of a trained network of the same architecture; the number of images that it has seen.

    Args:
        network: Gets the weights.
        config: Settings of the run; what the trained network was trained with instead is warned of.
        labels: Of each domain of the run.
    """
    trained = load_model(config.start_from or "")
    if trained.config != network.config:
        raise Unusable(
            f"start_from={config.start_from} has another architecture ({trained.config}) than this run "
            f"({network.config}); make architecture and the numbers of domains and labels of the data agree"
        )

    facts, domains = ModelFacts.of(trained), trained.domains or labels
    others = {
        "another prediction_type": facts.prediction_type not in (None, config.prediction_type),
        "another noise_schedule": facts.process.config != NoiseSchedule(**config.noise_schedule).config,
        "other domains or labels": [(d, *domains[d]) for d in domains] != [(d, *labels[d]) for d in labels],
    }
    if differs := " and ".join(what for what, yes in others.items() if yes):
        log.warning(
            "start_from=%s was trained with %s than this run; its weights must first unlearn them",
            config.start_from,
            differs,
        )

    network.update(trained.parameters())
    return int(trained.metadata.get("images_seen", 0))
