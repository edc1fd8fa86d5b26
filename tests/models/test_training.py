"""Training: resumable bit for bit, the same over several processes, and clear about what it cannot use."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.io.figures import save_image
from adaptive_diffusion.io.network_file import content_hash
from adaptive_diffusion.io.tensor_file import read_tensors
from adaptive_diffusion.models.checkpoint import load_model, save_model
from adaptive_diffusion.models.corpus import TimestepDistribution
from adaptive_diffusion.models.training import Trainer
from adaptive_diffusion.models.training_config import TrainingConfig
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.runs.train_model import preview

ARCHITECTURE = {
    "image_size": 8,
    "widths": (8, 16),
    "blocks": (1, 1),
    "attention_levels": (1,),
    "head_dim": 8,
    "embedding_dim": 16,
}
RUN = """
import json, sys
import adaptive_diffusion
from adaptive_diffusion.models.training import Trainer
from adaptive_diffusion.models.training_config import TrainingConfig
for event in Trainer(TrainingConfig(**json.loads(sys.argv[1]))).run():
    print(event.step, repr(event.losses["loss"]), flush=True)
"""


def recipe_in(folder: Path) -> dict:
    """Two tiny domains: dark images and bright ones, the second with labels."""
    rng = np.random.default_rng(0)
    np.save(folder / "dark.npy", rng.integers(0, 60, (24, 8, 8, 3), dtype=np.uint8))
    bright = rng.integers(200, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "bright.npz", images=bright, labels=np.arange(20) % 2, label_names=["even", "odd"])

    return {
        "data": {"dark": str(folder / "dark.npy"), "bright": str(folder / "bright.npz")},
        "state": str(folder / "state.safetensors"),
        "images": 160,
        "batch_size": 8,
        "warmup_images": 16,
        "decay_images": 40,
        "validation_images": 4,
        "validate_every": 80,
        "save_every": 16,
        "architecture": ARCHITECTURE,
    }


@pytest.fixture
def recipe(tmp_path: Path) -> dict:
    return recipe_in(tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, float], dict[str, mx.array]]:
    """The losses and the last state of a process that nobody interrupts."""
    whole = recipe_in(tmp_path_factory.mktemp("whole"))
    return losses(launch(whole).communicate(timeout=120)[0]), read_tensors(whole["state"])[0]


def launch(recipe: dict, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(recipe)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def losses(output: str) -> dict[int, float]:
    return {int(step): float(loss) for step, loss in (line.split() for line in output.splitlines())}


def test_the_loss_falls_and_the_averaged_model_can_be_saved(recipe: dict, tmp_path: Path) -> None:
    trainer = Trainer(TrainingConfig(**recipe))
    events = list(trainer.run())
    assert [event.step for event in events] == list(range(1, 21))
    assert np.mean([e.losses["loss"] for e in events[-5:]]) < 0.9 * np.mean([e.losses["loss"] for e in events[:5]])
    validated = {e.images: e.scores for e in events if e.scores is not None}
    assert list(validated) == [80, 160]
    assert validated[160] < validated[80]
    save_model(tmp_path / "m.safetensors", trainer.ema_model())
    metadata = load_model(tmp_path / "m.safetensors").metadata
    assert metadata["labels"] == {"dark": [], "bright": ["even", "odd"]}
    assert metadata["images_seen"] == 160
    (_, dark), (_, bright) = trainer.corpus.train
    assert (dark[:, 1] == 0).all()
    assert metadata["label_counts"] == {"dark": [], "bright": [int((bright[:, 1] == label).sum()) for label in (1, 2)]}
    assert sum(metadata["label_counts"]["bright"]) == len(bright)


def test_a_killed_run_continues_bit_for_bit(recipe: dict, uninterrupted: tuple) -> None:
    expected, whole = uninterrupted
    process = launch(recipe)
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(7)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = losses(launch(recipe).communicate(timeout=120)[0])

    assert losses("".join(seen)).items() <= expected.items()
    assert 1 < min(resumed) <= 8, "the second run starts from the last state that was written"
    assert resumed.items() <= expected.items()
    ours = read_tensors(recipe["state"])[0]
    assert ours.keys() == whole.keys()
    assert all(mx.array_equal(ours[name], whole[name]) for name in ours)


def test_two_processes_lose_what_one_process_loses_on_the_same_batches(
    recipe: dict, uninterrupted: tuple, tmp_path: Path
) -> None:
    alone, _ = uninterrupted
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = [[f"127.0.0.1:{s.getsockname()[1]}"] for s in sockets]

    for s in sockets:
        s.close()

    (tmp_path / "hosts.json").write_text(json.dumps(hosts))
    ring = {"MLX_HOSTFILE": str(tmp_path / "hosts.json")}

    ranks = [launch(recipe, MLX_RANK=str(rank), **ring) for rank in range(2)]
    for process in ranks:
        together = losses(process.communicate(timeout=120)[0])
        assert together.keys() == alone.keys()
        np.testing.assert_allclose(list(together.values()), list(alone.values()), rtol=2e-4)


def test_a_longer_run_continues_a_finished_one(recipe: dict) -> None:
    list(Trainer(TrainingConfig(**recipe)).run())
    longer = Trainer(TrainingConfig(**{**recipe, "images": 200}))
    assert longer.step == 20
    assert [event.step for event in longer.run()] == [21, 22, 23, 24, 25]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_rgba_pictures_are_trained_on_and_drawn(recipe: dict, tmp_path: Path, channels: int) -> None:
    architecture = {**ARCHITECTURE, "in_channels": channels}
    trainer = Trainer(TrainingConfig(**{**recipe, "images": 16, "architecture": architecture}))
    assert all(math.isfinite(event.losses["loss"]) for event in trainer.run())
    sheet = preview(trainer, samples=3, steps=2)
    assert sheet.shape[-1] == channels
    save_image(tmp_path / "sheet.png", sheet)
    save_model(tmp_path / "m.safetensors", trainer.ema_model())
    assert load_model(tmp_path / "m.safetensors").state_shape == (8, 8, channels)


def test_pictures_of_two_channels_are_refused(recipe: dict) -> None:
    with pytest.raises(Unusable, match="channels, got 2"):
        Trainer(TrainingConfig(**{**recipe, "architecture": {**ARCHITECTURE, "in_channels": 2}}))


@pytest.mark.parametrize("name", ["none", "null"])
def test_a_label_that_could_not_be_asked_for_is_refused(name: str, recipe: dict) -> None:
    images = np.zeros((20, 8, 8, 3), np.uint8)
    np.savez(recipe["data"]["bright"], images=images, labels=np.arange(20) % 2, label_names=["even", name])
    with pytest.raises(ValueError, match=f"bright has a label named '{name}', and label={name} asks for"):
        Trainer(TrainingConfig(**recipe))


def test_every_label_is_trained_and_the_last_block_is_kept_back_only_where_asked(recipe: dict) -> None:
    images = np.zeros((20, 8, 8, 3), np.uint8)
    labels = np.repeat([0, 1], [18, 2])
    np.savez(recipe["data"]["bright"], images=images, labels=labels, label_names=["even", "odd"])

    trained = {}
    for rule in ("per_label", "tail"):
        corpus = Trainer(TrainingConfig(**recipe, split=rule)).corpus
        trained[rule] = set(corpus.train[1][1][:, 1].tolist())

    assert trained == {"per_label": {1, 2}, "tail": {1}}


def test_a_new_run_may_start_from_a_trained_model(recipe: dict, tmp_path: Path) -> None:
    first = Trainer(TrainingConfig(**recipe))
    list(first.run())
    save_model(tmp_path / "m.safetensors", first.ema_model())
    tuned = {**recipe, "state": str(tmp_path / "tuned.safetensors"), "start_from": str(tmp_path / "m.safetensors")}
    second = Trainer(TrainingConfig(**tuned))
    assert second.step == 0
    assert second.scores() == pytest.approx(first.scores(), rel=1e-6)
    list(second.run())
    assert second.metadata()["images_seen"] == Trainer(TrainingConfig(**tuned)).metadata()["images_seen"] == 320


def test_a_model_of_another_architecture_is_no_start(recipe: dict, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", SimpleUNet(UNetConfig(**{**ARCHITECTURE, "embedding_dim": 8})))
    with pytest.raises(ValueError, match="has another architecture"):
        Trainer(TrainingConfig(**recipe, start_from=str(tmp_path / "m.safetensors")))


def test_a_start_that_was_trained_otherwise_is_warned_of(
    recipe: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Trainer(TrainingConfig(**recipe))
    list(first.run())
    save_model(tmp_path / "m.safetensors", first.ema_model())
    start = {**recipe, "state": str(tmp_path / "tuned.safetensors"), "start_from": str(tmp_path / "m.safetensors")}
    Trainer(TrainingConfig(**start))
    assert "was trained with" not in caplog.text

    data = dict(reversed(recipe["data"].items()))  # as many domains and labels, whose ids mean something else
    for change, difference in (
        ({"prediction_type": "epsilon"}, "another prediction_type"),
        ({"noise_schedule": {"beta_end": 0.01}}, "another noise_schedule"),
        ({"data": data, "prediction_type": "epsilon"}, "another prediction_type and other domains or labels"),
    ):
        caplog.clear()
        Trainer(TrainingConfig(**{**start, **change}))
        assert f"m.safetensors was trained with {difference} than this run" in caplog.text


def test_the_learning_rate_is_a_trapezoid(recipe: dict) -> None:
    trainer = Trainer(TrainingConfig(**recipe))
    rates = [trainer.learning_rate(step) / trainer.config.learning_rate for step in range(20)]
    np.testing.assert_allclose(rates, [0.5] + [1.0] * 15 + [0.8, 0.6, 0.4, 0.2], atol=1e-12)


def test_timesteps_follow_the_distribution_asked_for() -> None:
    schedule = NoiseSchedule()
    u = (np.arange(20_000) + 0.5) / 20_000
    lambdas = schedule.log_snr(TimestepDistribution(schedule, 0.5, 1.2, 0.0)(u))
    assert abs(lambdas.mean() - 0.5) < 0.01
    assert abs(lambdas.std() - 1.2) < 0.02
    np.testing.assert_allclose(TimestepDistribution(schedule, 0.5, 1.2, 1.0)(u), u * 999, atol=1e-3)


def test_batches_hold_every_domain_equally_often_and_drop_classes_as_told(recipe: dict) -> None:
    trainer = Trainer(TrainingConfig(**{**recipe, "drop_all": 0.25, "drop_label": 0.25}))

    shown = []
    for trainer.step in range(200):
        x0, _, _, classes = trainer._source.draw(trainer.step)
        brightness = np.array(x0.mean(axis=(1, 2, 3)))
        assert (brightness > 0).sum() == 4
        shown.append(np.array(classes))

    ids = np.concatenate(shown)
    assert abs((ids[:, 0] == 0).mean() - 0.25) < 0.04
    bright = ids[ids[:, 0] == 2]
    assert abs((bright[:, 1] == 0).mean() - 1 / 3) < 0.06  # of those with a domain, a third lost its label


def test_min_snr_weights_cap_the_easy_timesteps(recipe: dict) -> None:
    weighted = Trainer(TrainingConfig(**{**recipe, "min_snr_gamma": 5.0}))
    plain = Trainer(TrainingConfig(**recipe))
    x0 = mx.zeros((2, 8, 8, 3))
    noise, classes, t = mx.ones_like(x0), mx.zeros((2, 2), dtype=mx.int32), np.array([0.0, 999.0])
    weights = [trainer._source.examples(x0, noise, t, classes).weight for trainer in (weighted, plain)]
    ratio = weights[0] / weights[1]
    snr = np.exp(2 * plain.schedule.log_snr(t))
    np.testing.assert_allclose(np.array(ratio), np.minimum(snr, 5) / (snr + 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "images must be"),
        ({"drop_all": 0.8, "drop_label": 0.5}, "must not exceed 1"),
        ({"ema_decay": 1.0}, "ema_decay must be less than 1"),
        ({"prediction_type": "x"}, "prediction_type must be"),
        ({"seed": -1}, "seed must be"),
        ({"warmup_images": -2}, "warmup_images must be"),
        ({"decay_images": -5}, "decay_images must be"),
        ({"min_snr_gamma": -0.5}, "min_snr_gamma must be"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm must be"),
        ({"learning_rate": 2.0}, "learning_rate must be"),
        ({"seed": 2**32}, "seed must be"),
        ({"log_snr_std": 0.0}, "log_snr_std must be"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"guidance_scale": 1001.0}, "at most 1000"),
        ({"noise_schedule": {"num_train_timesteps": 9}}, "num_train_timesteps must be"),
        ({"noise_schedule": {"beta_end": 1.5}}, "beta_start <= beta_end < 1"),
        ({"architecture": {"embedding_dim": 0}}, "embedding_dim must be"),
        ({"data": {}}, "data names no domain"),
        ({"split": "first"}, "split must be"),
        ({"state": "state.npz"}, "must be a .safetensors file"),
    ],
)
def test_a_bad_recipe_is_refused(recipe: dict, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{**recipe, **change})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed: 0 in the state, 1 here"),
        ({"learning_rate": 0.02}, r"learning_rate: 0\.001 in the state, 0\.02 here"),
        ({"warmup_images": 8, "decay_images": 24}, r"warmup_images: 16 .* 8 here; task\.decay_images: 40 .* 24 here"),
        ({"ema_decay": 0.9}, r"ema_decay: 0\.999 .* 0\.9 here"),
        ({"max_grad_norm": 0.5}, "max_grad_norm"),
        ({"min_snr_gamma": 5.0}, "min_snr_gamma: None in the state, 5.0 here"),
        ({"guidance_scale": 3.0}, "guidance_scale"),
        ({"noise_schedule": {"beta_schedule": "scaled_linear"}}, "noise_schedule.beta_schedule: None .* scaled_linear"),
        ({"architecture": {**ARCHITECTURE, "embedding_dim": 8}}, "architecture.embedding_dim: 16 .* 8 here"),
    ],
)
def test_the_state_of_another_recipe_is_refused_and_both_values_are_told(recipe: dict, change: dict, told: str) -> None:
    list(Trainer(TrainingConfig(**{**recipe, "images": 16})).run())
    anew = r"with other files: task\.state=FILE output=FILE"
    with pytest.raises(ValueError, match=rf"another recipe .*task\.{told}.* {anew}"):
        Trainer(TrainingConfig(**{**recipe, **change}))


def test_a_state_goes_on_with_the_same_pictures_wherever_they_lie_and_with_no_others(recipe: dict) -> None:
    list(Trainer(TrainingConfig(**{**recipe, "images": 16})).run())
    dark = Path(recipe["data"]["dark"])
    moved = dark.rename(dark.with_name("night.npy"))
    recipe = {**recipe, "data": {**recipe["data"], "dark": str(moved)}}
    more = Trainer(TrainingConfig(**{**recipe, "save_every": 8, "validate_every": 8, "validation_images": 2}))
    assert more.step == 2
    pictures = np.load(moved)
    pictures[:, 0, 0, 0] += 1
    np.save(moved, pictures)

    with pytest.raises(ValueError, match=r"pictures\.dark: .* with the hash"):
        Trainer(TrainingConfig(**recipe))


def test_a_shorter_run_than_the_state_has_seen_is_refused(recipe: dict) -> None:
    list(Trainer(TrainingConfig(**{**recipe, "images": 48})).run())
    with pytest.raises(ValueError, match=r"48 .* 24"):
        Trainer(TrainingConfig(**{**recipe, "images": 24}))


def without_a_moment(tensors: dict, header: dict) -> None:
    del tensors["optimizer.head.weight.m"]


def with_another_shape(tensors: dict, header: dict) -> None:
    tensors["ema.head.bias"] = mx.zeros((7,))


def with_nan(tensors: dict, header: dict) -> None:
    tensors["model.head.bias"] = tensors["model.head.bias"] * float("nan")


def with_a_negative_step(tensors: dict, header: dict) -> None:
    header["counts"] = json.dumps({**json.loads(header["counts"]), "step": -1})


def with_a_text_for_a_count(tensors: dict, header: dict) -> None:
    header["counts"] = json.dumps({**json.loads(header["counts"]), "step": "two"})


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_a_moment, "it lacks the tensor 'optimizer.head.weight.m'"),
        (with_another_shape, "it holds the tensor 'ema.head.bias' with the shape"),
        (with_nan, "'model.head.bias' holds NaN"),
        (with_a_negative_step, "its counts are .*-1"),
        (with_a_text_for_a_count, "its counts are .*two"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_state_that_cannot_be_gone_on_from_is_refused(recipe: dict, damage, told: str, sealed: bool) -> None:
    list(Trainer(TrainingConfig(**{**recipe, "images": 16})).run())
    tensors, header = read_tensors(recipe["state"])
    damage(tensors, header)

    if sealed:  # by somebody who knows how
        del header["checksum"]
        header["checksum"] = content_hash(tensors, header)

    mx.save_safetensors(recipe["state"], tensors, header)
    with pytest.raises(ValueError, match=f"is damaged .{told if sealed else 'its checksum does not match'}"):
        Trainer(TrainingConfig(**recipe))


def test_a_bit_that_flipped_in_a_state_is_noticed(recipe: dict) -> None:
    list(Trainer(TrainingConfig(**{**recipe, "images": 16})).run())
    content = bytearray(Path(recipe["state"]).read_bytes())
    content[-5000] ^= 4
    Path(recipe["state"]).write_bytes(content)
    with pytest.raises(ValueError, match="checksum does not match"):
        Trainer(TrainingConfig(**recipe))


def test_a_damaged_state_is_refused(recipe: dict) -> None:
    Path(recipe["state"]).write_bytes(b"not a state")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        Trainer(TrainingConfig(**recipe))


def test_a_diverged_run_stops_and_keeps_its_last_good_state(recipe: dict) -> None:
    trainer = Trainer(TrainingConfig(**recipe))
    events = trainer.run()

    while trainer.step < 4:
        next(events)

    good = Path(recipe["state"]).read_bytes()
    trainer.network.head.bias = trainer.network.head.bias * float("nan")

    with pytest.raises(FloatingPointError, match="loss became nan at step 5"):
        next(events)

    assert Path(recipe["state"]).read_bytes() == good
