"""What runs tell at their end and beside their settings, in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import configuration, tiny_checkpoint, tiny_model

from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.metrics.quality import Measurement
from adaptive_diffusion.runs.calibrate import _report
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.sample_summary import _measured, _of_a_part


def drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture, *overrides: str) -> str:
    model = ["model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}"]
    small = ["num_samples=1", "metrics=none", "tracking=none", "scheduler=ddim"]
    with caplog.at_level("INFO"):
        sample(configuration("sample", tmp_path, *model, *small, *overrides))
    return caplog.text


def test_one_step_is_one_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "DDIMScheduler, 1 step, 1 network evaluation (2 passes) per image" in drawn(tmp_path, caplog, "num_steps=1")


def test_images_without_guidance_are_not_told_to_be_of_a_domain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "1 without domain and label, 8x8" in drawn(tmp_path, caplog, "num_steps=2", "guidance_scale=0")


def test_a_strength_without_an_image_has_no_effect_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "strength=0.5 has no effect without init_image"
    assert said not in drawn(tmp_path, caplog, "num_steps=2")
    monkeypatch.setattr("adaptive_diffusion.runs.setup.given", lambda name: name == "strength")
    assert said in drawn(tmp_path, caplog, "num_steps=2", "strength=0.5")


def test_a_wish_to_skip_what_nobody_records_has_no_effect_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptive_diffusion.runs.setup.given", lambda name: name == "skip_finished")
    assert "has no effect with tracking=none" in drawn(tmp_path, caplog, "num_steps=2", "skip_finished=true")


def test_a_folder_that_is_used_again_holds_the_images_of_the_latest_run_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = tmp_path / "run" / "pictures"
    pictures.mkdir(parents=True)
    for name in ("0000", "0001", "mine"):
        (pictures / f"{name}.png").write_bytes(b"old")
    (tmp_path / "run" / "git.diff").write_text("old")
    drawn(tmp_path, caplog, "num_steps=2")
    assert not (diff := tmp_path / "run" / "git.diff").exists() or diff.read_text() != "old"
    assert sorted(path.stem for path in pictures.iterdir()) == ["0000", "mine"]


def test_what_the_images_are_too_few_for_takes_one_line_after_the_rest() -> None:
    few = [Measurement("fd_encoder", 85.4, 16, caveat="not meaningful in itself: 16 images are fewer than 4 x 66")]
    few.append(Measurement("kid_encoder", -127.3, 16, 212.0, "not meaningful in itself: noise dominates"))
    assert _measured([*few, Measurement("recall", 0.7, 16, caveat="real images: 1 +- 0.13")]) == [
        "recall 0.7 (n = 16, real images: 1 +- 0.13)",
        "too few images for fd_encoder, kid_encoder; quality.json says why",
    ]


@pytest.mark.parametrize(("label", "lines"), [("sunrise", 1), (None, 0), ("none", 0)])
def test_images_of_one_label_are_told_to_be_compared_with_all_of_the_domain(label: str | None, lines: int) -> None:
    cfg = SimpleNamespace(label=label, domain=SimpleNamespace(name="landscapes"))
    setup: Any = SimpleNamespace(cfg=cfg, model=tiny_model())
    told = _of_a_part(setup, [Measurement("recall", 0.16, 16)])
    assert (
        told == ["sunrise is compared with all of landscapes: by that, distances are large and recall is small"][:lines]
    )
    assert _of_a_part(setup, [Measurement("clip_encoder", 67.0, 16)]) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (
            "quick",
            "landscapes, 2 steps: quick (timesteps between blended and equal error, fitted weights), held-out RMSE "
            "0.0143; log-SNR grid 0.0549, blended grid 0.0447",
        ),
        ("blended", "landscapes, 2 steps: blended grid, held-out RMSE 0.0447; log-SNR grid 0.0549, quick 0.0143"),
    ],
)
def test_a_calibration_reports_its_candidates_in_words(rule: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    scores = {"log_snr": Score(0.0549, 0), "blended": Score(0.0447, 0), "quick": Score(0.01432, 0)}
    steps = {2: CalibratedSteps((999.0, 500.0), None, rule, scores)}
    schedule = CalibratedSchedule("m", 1.5, "landscapes", 1000, "rmse", 4, 3, steps)
    with caplog.at_level("INFO"):
        assert _report(schedule, 2) == pytest.approx(scores[rule].mean / 0.0447)
    assert told in caplog.text
