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
from tiny import configuration, tiny_checkpoint, tiny_model

from adaptive_diffusion.diffusion import Interval
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.runs.identity import identity_of_run
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.tracking.provenance import fingerprint

INTERVAL = ("guidance=interval", "guidance.low=-1", "guidance.high=1")


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    model = ["model=checkpoint", f"model.path={tiny_checkpoint(tmp_path)}", "tracking=none", "metrics=none"]
    return lambda *overrides: configuration("sample", tmp_path, *model, "num_samples=2", "num_steps=4", *overrides)


def weaker(folder: Path, share: float = 0.5, **metadata: object) -> str:
    """The setting of a weaker model: the tiny one, with a head that predicts less."""
    model = tiny_model(**metadata)
    model.head.weight = share * model.head.weight
    save_model(folder / "weak.safetensors", model)
    return f"guidance.weak_model={folder / 'weak.safetensors'}"


def passes(folder: Path) -> tuple[float, float]:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    return metrics["details/passes"], metrics["sampling/passes"]


@pytest.mark.parametrize(("guidance", "where"), [((), ""), (INTERVAL, " where guidance is applied")])
def test_a_weight_of_0_says_where_domain_and_label_do_not_count(
    guidance: tuple[str, ...], where: str, configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(configure("guidance_scale=0", "scheduler=ddim", *guidance))
    assert f"draws without domain and label{where}, whatever" in caplog.text


@pytest.mark.parametrize("guidance", [(), INTERVAL])
@pytest.mark.parametrize(("weight", "said"), [(20, False), (21, True)])
def test_a_weight_far_above_those_in_use_is_warned_of(
    weight: int, said: bool, guidance: tuple[str, ...], configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(configure(f"guidance_scale={weight}", "scheduler=ddim", *guidance))
    assert (f"guidance {weight} is far above common weights" in caplog.text) is said


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("guidance_scale=1",), "no step is guided: guidance is 1.0 where log-SNR is -1.0 to 1.0, and 1 is none"),
        (("guidance.low=8", "guidance.high=9"), "no step is guided: guidance is 1.5 where log-SNR is 8.0 to 9.0"),
        ((), ""),
    ],
)
def test_guidance_that_holds_at_no_step_is_told_of(
    overrides: tuple[str, ...], said: str, configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(configure("scheduler=ddim", *INTERVAL, *overrides))
    assert said in caplog.text
    assert bool(said) == ("no step is guided" in caplog.text)


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
        ((*INTERVAL, "scheduler=tuned"), "draws with the guidance that it was tuned with and here it is 1.5 where"),
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


def test_constant_guidance_is_the_same_run_whichever_option_made_it(configure: Any) -> None:
    given = (("guidance=constant",), ("guidance=default",), ("guidance=constant", "guidance_scale=2"), INTERVAL)
    constant, default, strong, interval = (identity_of_run(prepare(configure(*each))) for each in given)
    assert constant == default
    assert len({constant, strong, interval}) == 3


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


@pytest.mark.parametrize("scheduler", ["adaptive", "ddpm"])
def test_a_weaker_model_guides_every_scheduler_and_its_passes_count(
    scheduler: str, configure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auto = ("guidance=auto", weaker(tmp_path), f"scheduler={scheduler}")
    with caplog.at_level("INFO"):
        sample(configure(*auto))
    assert passes(tmp_path) == (16, 8)
    assert "guidance 1.5 by the weaker model" in caplog.text

    cfg = configure(*auto, "guidance.weight=2", "guidance.low=-1", "guidance.high=1")
    setup = prepare(cfg)
    setup.set_timesteps()
    inside = sum(-1 <= setup.schedule.log_snr(float(t)) <= 1 for t in setup.scheduler.timesteps)
    sample(cfg)
    assert passes(tmp_path)[1] == 4 + inside


def test_guidance_by_a_weaker_model_is_calibrated_on_first_use(configure: Any, tmp_path: Path) -> None:
    auto = ("guidance=auto", weaker(tmp_path), "num_steps=2", "scheduler.calibrate=always")
    first, again = (prepare(configure(*auto)).scheduler.calibration for _ in range(2))
    assert first == again
    assert re.fullmatch("1.5 by the weaker model [0-9a-f]{12}", first.guidance_scale)

    weaker(tmp_path, 0.25)  # another model in the same file
    assert prepare(configure(*auto)).scheduler.calibration.guidance_scale != first.guidance_scale


@pytest.mark.parametrize(
    ("overrides", "metadata", "sentence"),
    [
        ((), {"labels": {}}, "the weaker model of guidance was trained with other domains or labels"),
        (("guidance_scale=0.5",), {}, "guidance_scale with a weaker model must be a number, at least 1"),
        (("scheduler=learned",), {}, "was made with one weight .* levels, and here it is 1.5 by the weaker model"),
        (("guidance.weak_model=gone.safetensors",), {}, "there is no model file at gone.safetensors"),
    ],
)
def test_a_weaker_model_that_cannot_guide_gets_one_sentence(
    overrides: tuple[str, ...], metadata: dict[str, Any], sentence: str, configure: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        prepare(configure("guidance=auto", weaker(tmp_path, **metadata), *overrides))
    assert "\n" not in str(error.value)


def test_a_run_is_another_one_once_the_file_of_the_weaker_model_is(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(
        "adaptive_diffusion.runs.identity.fingerprint", lambda *a, **k: found.append(s := fingerprint(*a, **k)) or s
    )
    for share in (0.5, 0.25):
        sample(configure("guidance=auto", weaker(tmp_path, share), "scheduler=ddim"))
    assert found[0] != found[1]


def test_kinds_of_guidance_compare_in_a_sweep(configure: Any, tmp_path: Path) -> None:
    weaker(tmp_path)
    default = tmp_path / "outputs" / "model" / "weak.safetensors"  # the only setting that not all of them have
    default.parent.mkdir(parents=True)
    (tmp_path / "weak.safetensors").rename(default)
    names = [
        prepare(configure(f"guidance={kind}")).denoiser.guidance_scale for kind in ("constant", "interval", "auto")
    ]
    assert names[:2] == [1.5, Interval(1.5, -2.5, 0.35)]
    assert names[2].name.startswith("1.5 by the weaker model")
