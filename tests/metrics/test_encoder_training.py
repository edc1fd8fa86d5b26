"""The encoder learns what it is shown; its augmentation and calibration do what they say."""

from pathlib import Path

import numpy as np
import pytest
from tiny import configuration

from adaptive_diffusion.encoder_run import train_encoder
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.metrics.encoder import load_encoder
from adaptive_diffusion.metrics.encoder_training import (
    EncoderTrainer,
    EncoderTraining,
    best_temperature,
    degrade,
)
from adaptive_diffusion.run import training_configuration

RNG = np.random.default_rng(0)


def coloured(folder: Path, domain: str, channel: int, labels: list[str]) -> str:
    """60 noisy 8x8 pictures, bright in one channel, darker for the second label."""
    ids = RNG.integers(0, len(labels), 60)
    images = RNG.integers(0, 60, (60, 8, 8, 3))
    images[..., channel] += (180 - 120 * ids)[:, None, None]
    path = folder / f"{domain}.npz"
    np.savez(path, images=images.astype(np.uint8), labels=ids, label_names=np.array(labels))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    return {
        "landscapes": coloured(tmp_path, "landscapes", 2, ["sea", "forest"]),
        "general": coloured(tmp_path, "general", 0, ["apple", "chair"]),
    }


def test_it_tells_domains_and_labels_apart_that_are_easy_to_tell(data: dict[str, str]) -> None:
    config = EncoderTraining(
        data, images=6000, batch_size=32, learning_rate=5e-3, widths=(8, 12), dimension=8, image_size=8
    )
    last = list(EncoderTrainer(config).run())[-1]
    assert last.scores is not None
    assert min(last.scores.domain.values()) == 1.0
    assert last.scores.label_top1 > 0.9  # chance is 0.25


def test_the_same_seed_trains_the_same_encoder(data: dict[str, str]) -> None:
    config = EncoderTraining(data, images=128, widths=(8,), dimension=4, image_size=8)
    first, second = (EncoderTrainer(config) for _ in range(2))
    losses = [[event.losses for event in trainer.run()] for trainer in (first, second)]
    assert losses[0] == losses[1]


def test_train_py_writes_an_encoder_that_loads(data: dict[str, str], tmp_path: Path) -> None:
    overrides = [f"task.data.{domain}={path}" for domain, path in data.items()]
    settings = ["task.images=128", "task.widths=[8]", "task.dimension=4", "task.image_size=8", "tracking=none"]
    output = f"output={tmp_path}/encoder.safetensors"
    share = train_encoder(configuration("train", tmp_path, "task=encoder", output, *overrides, *settings))
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert encoder.metadata["label_top1"] == share
    assert encoder.config.domains == ("landscapes", "general")


def test_an_unfit_output_is_refused_before_training_and_the_default_is_not_the_models(tmp_path: Path) -> None:
    cfg = configuration("train", tmp_path, "task=encoder", "tracking=none", "output=encoder.bin")
    with pytest.raises(UserError, match=r"must be a \.safetensors file"):
        train_encoder(cfg)
    cfg = configuration("train", tmp_path, "task=encoder")
    written = {kind: training_configuration(cfg, kind).output for kind in ("encoder", "model")}
    assert written == {kind: f"{tmp_path}/outputs/{kind}/{kind}.safetensors" for kind in written}


@pytest.mark.parametrize("names", [["landscapes"], ["landscapes", "cats"]])
def test_domains_without_captions_are_refused(data: dict[str, str], names: list[str]) -> None:
    with pytest.raises(UserError, match="at least two of the domains"):
        EncoderTraining(dict.fromkeys(names, data["landscapes"]))


def test_half_of_the_pictures_are_blurred_and_half_made_noisy() -> None:
    x = np.tile(RNG.choice([-0.5, 0.5], (1, 16, 16, 3)), (400, 1, 1, 1)).astype(np.float32)
    y = degrade(x, np.random.default_rng(1))
    assert y.dtype == np.float32
    assert np.abs(y).max() <= 1
    levels = [len(np.unique(picture[..., 0].round(4))) for picture in y]  # a picture of two levels, until blur or noise
    assert 0.15 < np.mean(np.array(levels) == 2) < 0.35  # a quarter have neither


def test_the_temperature_undoes_overconfidence() -> None:
    logits = RNG.normal(0, 2, (20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (shares.cumsum(axis=1) > RNG.random((len(logits), 1))).argmax(axis=1)
    assert best_temperature(3 * logits, truth) == pytest.approx(3, rel=0.1)
