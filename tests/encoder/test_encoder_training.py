"""The encoder learns what it is shown, resumable bit for bit; its augmentation and calibration do what they say."""

import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mlx.core as mx
import numpy as np
import pytest
from omegaconf import DictConfig
from tiny import configuration, mlflow_database

from adaptive_diffusion.encoder.encoder import load_encoder
from adaptive_diffusion.encoder.encoder_corpus import EncoderCorpus, degrade
from adaptive_diffusion.encoder.encoder_scores import EncoderScores, best_temperature
from adaptive_diffusion.encoder.encoder_training import VARIANCE, EncoderTrainer
from adaptive_diffusion.encoder.encoder_training_config import EncoderTraining
from adaptive_diffusion.interruption import saved_when_interrupted
from adaptive_diffusion.io.tensor_file import read_tensors
from adaptive_diffusion.models.resumable import TrainingEvent
from adaptive_diffusion.runs.build import build
from adaptive_diffusion.runs.train import train, training_configuration

RNG = np.random.default_rng(0)


def coloured(folder: Path, domain: str, channel: int, labels: list[str]) -> str:
    """60 noisy 8x8 images, bright in one channel, darker for the second label."""
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


@pytest.fixture
def recipe(data: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    """Ten steps of a tiny encoder, whose state is written after every second one."""
    small = {"widths": (8,), "dimension": 4, "image_size": 8, "batch_size": 16}
    times = {"images": 160, "validate_every": 80, "save_every": 32}
    return {"data": data, "state": str(tmp_path / "state.safetensors"), **small, **times}


def trained(recipe: dict[str, Any]) -> list[TrainingEvent[EncoderScores]]:
    return list(EncoderTrainer(EncoderTraining(**recipe)).run())


def test_it_tells_domains_and_labels_apart_that_are_easy_to_tell(recipe: dict[str, Any]) -> None:
    more = {"images": 6000, "batch_size": 32, "learning_rate": 5e-3, "widths": (8, 12), "dimension": 8}
    last = trained({**recipe, **more, "save_every": 6000, "validate_every": 6000})[-1]
    assert last.scores is not None
    assert min(last.scores.domain.values()) == 1.0
    assert last.scores.label_top1 > 0.9  # chance is 0.25


def test_a_killed_run_continues_bit_for_bit(recipe: dict[str, Any], tmp_path: Path) -> None:
    whole = {**recipe, "state": str(tmp_path / "whole.safetensors")}
    expected = trained(whole)
    assert [event.images for event in expected if event.scores] == [80, 160]
    killed = EncoderTrainer(EncoderTraining(**recipe)).run()
    assert [next(killed) for _ in range(7)] == expected[:7]
    assert trained(recipe) == expected[6:], "the second run starts from the last state that was written"
    ours, uninterrupted = (read_tensors(r["state"])[0] for r in (recipe, whole))
    assert ours.keys() == uninterrupted.keys()
    assert all(mx.array_equal(ours[name], uninterrupted[name]) for name in ours)


def test_the_finished_encoder_has_features_of_one_length_and_embeds_as_it_was_trained(recipe: dict[str, Any]) -> None:
    trainer = EncoderTrainer(EncoderTraining(**recipe))
    list(trainer.run())
    trained_one, finished = trainer.encoder(), trainer.finish()
    images = np.concatenate([pictures.images for pictures in trainer.corpus.held])
    learned = finished.features(images)[:, : finished.config.dimension]
    assert learned.var(axis=0).mean() == pytest.approx(VARIANCE, rel=1e-3)
    assert np.allclose(finished.image_embeddings(images), trained_one.image_embeddings(images), atol=1e-4)


def test_a_longer_run_continues_a_finished_one(recipe: dict[str, Any]) -> None:
    trained(recipe)
    assert [event.images for event in trained({**recipe, "images": 192})] == [176, 192]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"dimension": 6},
        {"batch_size": 8},
        {"validation_fraction": 0.2},
        {"learning_rate": 0.01},
        {"weight_decay": 0.0},
        {"ema_decay": 0.5},
    ],
)
def test_the_state_of_another_recipe_is_refused(recipe: dict[str, Any], change: dict[str, Any]) -> None:
    trained({**recipe, "images": 16})
    with pytest.raises(ValueError, match="another recipe"):
        EncoderTrainer(EncoderTraining(**{**recipe, **change}))


def test_a_shorter_run_than_the_state_has_seen_is_refused(recipe: dict[str, Any]) -> None:
    trained({**recipe, "images": 32})
    with pytest.raises(ValueError, match=r"32 .* 16"):
        EncoderTrainer(EncoderTraining(**{**recipe, "images": 16}))


def test_a_diverged_run_stops_and_keeps_its_last_good_state(recipe: dict[str, Any]) -> None:
    trainer = EncoderTrainer(EncoderTraining(**recipe))
    events = trainer.run()

    while trainer.step < 4:
        next(events)

    good = Path(recipe["state"]).read_bytes()
    trainer.network.domain.bias = trainer.network.domain.bias * float("nan")

    with pytest.raises(FloatingPointError, match=r"nan.* at step 5"):
        next(events)

    assert Path(recipe["state"]).read_bytes() == good


def settings(data: dict[str, str], folder: Path, *overrides: str) -> DictConfig:
    """Two steps of a tiny encoder, as `train.py` configures them."""
    small = ["task.images=128", "task.save_every=64", "task.widths=[8]", "task.dimension=4", "task.image_size=8"]
    given = [f"task.data.{domain}={path}" for domain, path in data.items()]
    return configuration("train", folder, "task=encoder", *small, *given, *overrides)


def test_train_py_writes_an_encoder_that_loads_and_once_trained_only_writes_it(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "encoder.safetensors", tmp_path / "copy.safetensors"
    share = train(settings(data, tmp_path, f"output={first}", "tracking=none"))
    encoder = load_encoder(first)
    assert encoder.metadata["label_top1"] == share
    assert encoder.metadata["images_seen"] == 128
    assert encoder.config.domains == ("landscapes", "general")
    assert str(tmp_path) not in str(encoder.metadata), "the file does not tell where the images are"
    monkeypatch.setattr(EncoderTrainer, "_advance", None)
    assert train(settings(data, tmp_path, f"output={second}", "tracking=none")) == share
    assert load_encoder(second).metadata == encoder.metadata


def test_an_interrupted_training_goes_on_in_its_run(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow_database(tmp_path / "mlruns")

    advance = EncoderTrainer._advance

    def interrupted(self: EncoderTrainer) -> dict[str, float]:
        if self.step == 1:
            raise KeyboardInterrupt
        return advance(self)

    monkeypatch.setattr(EncoderTrainer, "_advance", interrupted)

    cfg = settings(data, tmp_path, "tracking=mlflow")
    with pytest.raises(KeyboardInterrupt):
        train(cfg)

    monkeypatch.setattr(EncoderTrainer, "_advance", advance)
    train(cfg)
    tracker = build(cfg, "tracking")
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.info.status == "FINISHED"
    assert (
        run.data.metrics["validation/label_top1"]
        == load_encoder(tmp_path / "outputs" / "encoder" / "encoder.safetensors").metadata["label_top1"]
    )


def test_ctrl_c_waits_for_the_end_of_a_step_and_saves_the_state(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    before, ended, advance = signal.signal(signal.SIGINT, signal.default_int_handler), [], EncoderTrainer._advance

    def interrupted(self: EncoderTrainer) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        losses = advance(self)
        ended.append(self.step)
        return losses

    monkeypatch.setattr(EncoderTrainer, "_advance", interrupted)

    cfg = settings(data, tmp_path, "task.images=256", "task.save_every=1000", "tracking=none")
    try:
        with pytest.raises(KeyboardInterrupt):
            train(cfg)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended == [1]
    assert "the state is saved after 64 images; the same command goes on from there" in caplog.text
    monkeypatch.setattr(EncoderTrainer, "_advance", advance)
    train(cfg)
    assert "at 64 of 256 images" in caplog.text


@pytest.mark.parametrize(("signals", "saved"), [(1, 1), (2, 0)])
def test_a_second_ctrl_c_does_not_wait_and_one_after_the_last_step_is_not_lost(signals: int, saved: int) -> None:
    trainer, before = Mock(images=0), signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> None:
        with saved_when_interrupted(trainer):
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)

    assert trainer.save_state.call_count == saved


def test_a_second_ctrl_c_cuts_no_save_and_a_step_that_it_cuts_says_how_to_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt(times: int = 1) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    trainer, before = Mock(images=7), signal.signal(signal.SIGINT, signal.default_int_handler)
    trainer.save_state.side_effect = interrupt
    caplog.set_level("INFO")
    try:
        with pytest.raises(KeyboardInterrupt), saved_when_interrupted(trainer):
            interrupt()
        assert "the state is saved after 7 images; the same command goes on from there" in caplog.text
        assert "within a step" not in caplog.text
        with pytest.raises(KeyboardInterrupt), saved_when_interrupted(trainer):
            interrupt(2)
        assert "interrupted within a step; the same command goes on from the state that was saved last" in caplog.text
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_unfit_output_is_refused_before_training_and_the_default_is_not_the_models(tmp_path: Path) -> None:
    cfg = configuration("train", tmp_path, "task=encoder", "tracking=none", "output=encoder.bin")
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        train(cfg)

    cfg = configuration("train", tmp_path, "task=encoder")
    file = training_configuration(cfg, "encoder/encoder.safetensors").output
    assert file == f"{tmp_path}/outputs/encoder/encoder.safetensors"


def test_a_label_with_the_name_of_no_label_is_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    named = coloured(tmp_path, "general", 0, ["apple", "none"])
    with pytest.raises(ValueError, match="general has a label named 'none'"):
        EncoderCorpus(EncoderTraining(**{**recipe, "data": {**recipe["data"], "general": named}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"landscapes": "x"}}, "at least two of the domains"),
        ({"data": {"landscapes": "x", "cats": "x"}}, "at least two of the domains"),
        ({"save_every": 0}, "save_every must be"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"learning_rate": 5.0}, "learning_rate must be"),
        ({"seed": 2**33}, "seed must be"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1"),
        ({"seed": -2}, "seed must be"),
        ({"weight_decay": float("nan")}, "weight_decay must be"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"widths": ()}, "widths must name"),
        ({"widths": (8, 0)}, "each of widths must be"),
        ({"image_size": 12, "widths": (4, 4, 4)}, "multiple of 8"),
        ({"state": "state.npz"}, "state must be a .safetensors file"),
    ],
)
def test_a_bad_recipe_is_refused(recipe: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderTraining(**{**recipe, **change})


def test_half_of_the_pictures_are_blurred_and_half_made_noisy() -> None:
    x = np.tile(RNG.choice([-0.5, 0.5], (1, 16, 16, 3)), (400, 1, 1, 1)).astype(np.float32)
    y = degrade(x, np.random.default_rng(1))
    assert y.dtype == np.float32
    assert np.abs(y).max() <= 1
    levels = [len(np.unique(picture[..., 0].round(4))) for picture in y]  # an image of two levels, until blur or noise
    assert 0.15 < np.mean(np.array(levels) == 2) < 0.35  # a quarter have neither


def test_the_temperature_undoes_overconfidence() -> None:
    logits = RNG.normal(0, 2, (20_000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (shares.cumsum(axis=1) > RNG.random((len(logits), 1))).argmax(axis=1)
    assert best_temperature(3 * logits, truth) == pytest.approx(3, rel=0.1)
