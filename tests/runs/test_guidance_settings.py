"""`guidance=`: settings, what they contradict, what they cost, and what is used with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from tiny import configuration, tiny_checkpoint

from adaptive_diffusion.diffusion import Interval
from adaptive_diffusion.grids.calibrated import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.tracking.provenance import fingerprint

INTERVAL = ("guidance=interval", "guidance.low=-1", "guidance.high=1")


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    model = ["model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}", "tracking=none", "metrics=none"]
    return lambda *overrides: configuration("sample", tmp_path, *model, "num_samples=2", "num_steps=4", *overrides)


def passes(folder: Path) -> tuple[float, float]:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    return metrics["sampling/passes"], metrics["sampling/passes_per_picture"]


@pytest.mark.parametrize(
    ("overrides", "weight"),
    [
        ((), 1.5),  # the model's own
        (("guidance_scale=2",), 2.0),
        (("guidance.weight=2",), 2.0),
        (("guidance.weight=2", "guidance_scale=2"), 2.0),
    ],
)
@pytest.mark.parametrize("interval", [(), INTERVAL])
def test_the_weight_is_said_by_either_setting(
    interval: tuple[str, ...], overrides: tuple[str, ...], weight: float, configure: Any
) -> None:
    setup = prepare(configure(*interval, *overrides))
    assert setup.denoiser.guidance_scale == (Interval(weight, -1, 1) if interval else weight)
    assert (setup.cfg.guidance_scale, setup.cfg.guidance.weight) == (weight, weight)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("guidance.weight=2", "guidance_scale=3"), "guidance_scale=3 and guidance.weight=2 contradict each other"),
        (("guidance=interval", "guidance.low=2"), "guidance: the interval of guidance must have low < high, got 2"),
        (("guidance=interval", "guidance.weight=-1"), "guidance_scale must be a number, at least 0"),
        (("guidance=interval", "guidance.low=deep"), "guidance.low must be a number, got 'deep'"),
        (("guidance._target_=builtins.dict",), "guidance._target_ makes a dict, which is no guidance"),
        ((*INTERVAL, "scheduler=tuned"), "was made with one weight of guidance at all noise levels"),
        (
            (*INTERVAL, "scheduler=learned"),
            "was made with one weight .* levels, and here it is 1.5 where",
        ),
    ],
)
def test_what_contradicts_itself_gets_one_sentence(overrides: tuple[str, ...], sentence: str, configure: Any) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        prepare(configure(*overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scheduler", ["adaptive", "ddim", "ddpm", "dpm_solver", "unipc", "ipndm"])
def test_every_scheduler_draws_with_an_interval_and_pays_for_guided_steps_only(
    scheduler: str, configure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = configure(*INTERVAL, f"scheduler={scheduler}")
    setup = prepare(cfg)
    setup.set_timesteps()
    inside = sum(-1 <= setup.schedule.log_snr(float(t)) <= 1 for t in setup.scheduler.timesteps)
    assert 0 < inside < 4

    with caplog.at_level("INFO"):
        sample(cfg)
    assert passes(tmp_path) == (2 * (4 + inside), 4 + inside)
    assert "guidance 1.5 where log-SNR is -1.0 to 1.0" in caplog.text
    saved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (saved.guidance.weight, saved.guidance.low) == (1.5, -1)


def test_an_image_to_begin_with_is_guided_at_its_noise_levels(configure: Any, tmp_path: Path) -> None:
    file = tmp_path / "start.png"
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(file)
    begin = (f"init_image={file}", "strength=0.5", "scheduler=ddim")
    for settings in ((), ("guidance=interval", "guidance.low=-9", "guidance.high=9"), ("guidance_scale=1",)):
        sample(configure(*begin, *settings))
        assert passes(tmp_path)[1] == (2 if settings == ("guidance_scale=1",) else 4)
    sample(
        configure(*begin, "guidance=interval", "guidance.low=-9", "guidance.high=-4")
    )  # above the noise of the image
    assert passes(tmp_path)[1] == 2


def test_what_constant_guidance_is_recorded_as_did_not_change(configure: Any) -> None:
    constant, interval = prepare(configure()).cfg, prepare(configure(*INTERVAL)).cfg
    without = constant.copy()
    OmegaConf.set_struct(without, False)
    del without["guidance"]
    assert fingerprint(constant) == fingerprint(without) != fingerprint(interval)


def test_calibrated_weights_are_used_where_both_weights_of_an_interval_are_near() -> None:
    steps = {2: CalibratedSteps((999.0, 300.0), ((0.1, 0.2, 0.3),) * 2, "fitted", {"fitted": Score(0.1, 0.01)})}
    for calibrated, guidance, hold in (
        (1.5, Interval(1.5, -1, 1), True),
        (1.5, Interval(3.0, -1, 1), True),
        (1.5, Interval(3.1, -1, 1), False),
        (7.5, Interval(7.5, -1, 1), False),  # outside there is none
    ):
        schedule = CalibratedSchedule("m", calibrated, "abstract", 1000, "rmse", 2, 2, steps).drawn_at(guidance)
        assert schedule.weights_hold == hold
        assert ("its timesteps only" in str(schedule)) != hold
        assert json.loads(json.dumps(schedule.content()))["guidance_scale"] == calibrated


def test_guidance_of_ones_own_takes_no_weight(configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_guidance.py").write_text(
        "class Early:\n"
        "    def __init__(self, until: float = 0.0):\n"
        "        self.until, self.name = until, f'3 until {until:g}'\n"
        "    def weight_at(self, node):\n"
        "        return 3.0 if node.log_snr < self.until else 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def own(*overrides: str) -> Any:
        cfg = configure("scheduler=ddim", *overrides)
        OmegaConf.set_struct(cfg, False)
        cfg.guidance = OmegaConf.create({"_target_": "own_guidance.Early", "until": -0.5})
        return cfg

    sample(own())
    assert 4 < passes(tmp_path)[1] < 8
    with pytest.raises(ValueError, match=re.escape("guidance_scale=2 has no effect: this guidance says its weights")):
        prepare(own("guidance_scale=2"))
