"""Guidance that was tuned: what a run draws with, where it is taken from, and what is said where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from program import Forked
from tiny import configuration, tiny_checkpoint

from adaptive_diffusion.diffusion import Interval
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.files import describe_path
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model
from adaptive_diffusion.optimization.configuration import DomainConfig
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setup import prepare

FOUND = Interval(1.7, -2.5, 0.5)


@pytest.fixture
def configure(tmp_path: Path) -> Any:
    """Makes a configuration of a model that was tuned for portraits, but not for landscapes."""
    checkpoint = tiny_checkpoint(tmp_path)
    config = DomainConfig(6, guidance_weight=1.7, guidance_low=-2.5, guidance_high=0.5, source="a test")
    adapter = DomainAdapter(tmp_path / "mine.json", model=load_model(checkpoint))
    adapter.adopt("portraits", config, quality=1.0, speed=2.0, quality_error=0.1, weight=1.0, provenance={})
    assert adapter.get_config("portraits") == config

    given = ["model=checkpoint", f"model.path={checkpoint}", "tracking=none", "metrics=none", "domain=portraits"]
    return lambda *overrides: configuration("sample", tmp_path, *given, *overrides)


def test_a_tuned_scheduler_draws_with_the_guidance_it_was_tuned_with(configure: Any, tmp_path: Path) -> None:
    setup = prepare(configure("scheduler=tuned", f"scheduler.path={tmp_path}/mine.json"))
    assert setup.denoiser.guidance_scale == FOUND
    assert setup.cfg.num_steps == 6


def test_other_schedulers_do_if_they_are_asked_to(configure: Any, tmp_path: Path) -> None:
    setup = prepare(configure("scheduler=dpm_solver", "guidance=tuned", f"guidance.path={tmp_path}/mine.json"))
    assert setup.denoiser.guidance_scale == FOUND


def test_where_nothing_was_tuned_guidance_is_constant_and_one_line_says_so(configure: Any, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        setup = prepare(configure("guidance=tuned"))
    assert setup.denoiser.guidance_scale == 1.5
    said = (
        "nothing was tuned for domain=portraits of this model around guidance_scale=1.5: guidance is 1.5 at every step"
    )
    assert caplog.messages == [said]

    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises(UserError, match="nothing was tuned for domain=portraits"):
        prepare(configure("scheduler=tuned"))
    assert caplog.messages == []  # the refusal alone


def test_a_weight_beside_tuned_guidance_is_what_was_tuned_around_and_a_line_says_so(
    configure: Any, tmp_path: Path, caplog: Any
) -> None:
    given = ("scheduler=tuned", f"scheduler.path={tmp_path}/mine.json")
    with caplog.at_level("INFO"):
        for weight in ("guidance_scale=1.5", "guidance.weight=1.5"):
            assert prepare(configure(*given, weight)).denoiser.guidance_scale == FOUND
    said = "takes guidance_scale=1.5 as the weight that was tuned around; guidance=constant draws with"
    assert [said in line for line in caplog.messages] == [True, True]

    with pytest.raises(UserError, match=r"portraits of this model around guidance_scale=2 .* task\.guidance_scale=2$"):
        prepare(configure(*given, "guidance_scale=2"))


def test_a_tuned_scheduler_takes_its_guidance_written_out(configure: Any, tmp_path: Path) -> None:
    found = ("guidance=interval", "guidance.weight=1.7", "guidance.low=-2.5", "guidance.high=0.5")
    given = ("scheduler=tuned", f"scheduler.path={tmp_path}/mine.json", *found)
    setup = prepare(configure(*given))
    assert setup.denoiser.guidance_scale == FOUND
    assert setup.cfg.num_steps == 6

    with pytest.raises(UserError, match=r"tuned with, 1\.7 where log-SNR is -2\.5 to 0\.5, and here it is 1\.8 where"):
        prepare(configure(*given, "guidance.weight=1.8"))


def test_the_advice_to_tune_names_the_model(tmp_path: Path) -> None:
    program = Forked(tmp_path)
    code, _, told = program.run("scheduler=tuned", "tracking=none")
    assert code == 2
    assert f"train.py model@task.model=checkpoint task.{program.settings[-1]} agent=cem" in told


def test_by_default_a_domain_is_guided_as_was_tuned_and_a_label_at_every_step(
    configure: Any, tmp_path: Path, caplog: Any
) -> None:
    own = tmp_path / "outputs/agent/tuned.json"
    own.parent.mkdir(parents=True)
    (tmp_path / "mine.json").rename(own)

    def guidance(*given: str) -> Any:
        return prepare(configure(*given)).denoiser.guidance_scale

    with caplog.at_level("INFO"):
        assert guidance() == FOUND
        assert guidance("scheduler=ddim") == FOUND
        assert guidance("label=none") == guidance("domain=landscapes") == guidance("guidance=constant") == 1.5
        assert guidance("domain=landscapes", "label=sunrise") == 1.5
        assert guidance("guidance_scale=2") == guidance("guidance.weight=2") == 2
        assert guidance("guidance.constant=true") == 1.5
        assert guidance("guidance_scale=1.5") == guidance("guidance.weight=1.5") == 1.5
        Image.new("RGB", (16, 16)).save(tmp_path / "begin.png")
        assert guidance(f"init_image={tmp_path}/begin.png") == 1.5
        assert guidance("label=none", "guidance=tuned") == FOUND
        assert guidance("label=none", f"guidance.path={own}") == FOUND
    assert set(caplog.messages) == {f"guidance as tuned, by {describe_path(own)}"}
    assert len(caplog.messages) == 3  # once a run


def test_tuned_guidance_that_holds_at_no_step_says_what_guides(configure: Any, tmp_path: Path, caplog: Any) -> None:
    prepare(configure(f"guidance.path={tmp_path}/mine.json", "num_steps=1", "scheduler=ddim"))
    assert "-2.5 to 0.5, as tuned for the domain; guidance=constant guides every step" in caplog.text


def test_by_default_what_ships_is_not_hidden_by_what_was_tuned_without_guidance(tmp_path: Path) -> None:
    model = load_builtin_model()
    adapter = DomainAdapter(tmp_path / "mine.json", model=model)
    adapter.adopt(
        "landscapes",
        DomainConfig(8, source="a test"),
        quality=0.0,
        speed=1.2,
        quality_error=0.1,
        weight=0.5,
        provenance={},
    )
    given = ["domain=landscapes", f"guidance.trained={tmp_path}/mine.json"]
    setup = prepare(configuration("sample", tmp_path, "tracking=none", "metrics=none", *given))
    assert setup.denoiser.guidance_scale == Interval(1.3, -2.0, 0.35)


def test_a_tuned_scheduler_with_other_guidance_is_warned_of(configure: Any, tmp_path: Path, caplog: Any) -> None:
    setup = prepare(configure("scheduler=tuned", f"scheduler.path={tmp_path}/mine.json", "guidance=constant"))
    assert setup.denoiser.guidance_scale == 1.5
    assert "tuned with guidance 1.7 where log-SNR is -2.5 to 0.5; guidance=tuned draws with it" in caplog.text


@pytest.mark.parametrize(("file", "own"), [("mine.json", ", 1.7 where log-SNR is -2.5 to 0.5,"), (None, "")])
def test_a_tuned_scheduler_refuses_other_guidance_that_changes_also_where_nothing_was_tuned(
    file: str | None, own: str, configure: Any, tmp_path: Path
) -> None:
    given = ["scheduler=tuned", "guidance=interval", *([f"scheduler.path={tmp_path}/{file}"] if file else [])]
    with pytest.raises(
        UserError, match=rf"the guidance that it was tuned with{own} and here it is 1\.5 where .*=tuned"
    ):
        prepare(configure(*given))


def test_a_tuned_scheduler_saves_the_first_evaluation(tmp_path: Path) -> None:
    def drawn(choice: str, *more: str) -> tuple[Any, np.ndarray]:
        given = ["scheduler=tuned", "domain=landscapes", "num_samples=4", "tracking=none", "metrics=none"]
        folder = tmp_path / f"{choice}{len(more)}"
        sample(configuration("sample", folder, *given, f"scheduler.first_evaluation={choice}", *more))
        images = [np.asarray(Image.open(file), float) for file in sorted((folder / "run" / "pictures").glob("*.png"))]
        return json.loads((folder / "run" / "metrics.json").read_text()), np.array(images)

    (evaluated, images), (stored, near) = drawn("network"), drawn("stored")
    assert (evaluated["details/steps"], evaluated["sampling/nfe"], evaluated["sampling/passes"]) == (6, 6, 8)
    assert (stored["details/steps"], stored["sampling/nfe"], stored["sampling/passes"]) == (6, 5, 7)

    # nearer to 6 evaluated steps than 5 are, at as many evaluations
    _, fewer = drawn("network", "num_steps=5")
    assert 0 < np.abs(near - images).mean() < 0.7 * np.abs(fewer - images).mean()


def test_a_solver_that_evaluates_every_timestep_refuses_a_stored_first_one(configure: Any, tmp_path: Path) -> None:
    adapter = DomainAdapter(tmp_path / "mine.json", model=load_model(tmp_path / "tiny.safetensors"))
    config = DomainConfig(6, solver="unipc", source="a test")
    adapter.adopt("landscapes", config, quality=1.0, speed=2.0, quality_error=0.1, weight=1.0, provenance={})
    given = ("scheduler=tuned", f"scheduler.path={tmp_path}/mine.json", "domain=landscapes")
    assert prepare(configure(*given)).cfg.num_steps == 6
    with pytest.raises(UserError, match="solver unipc, which evaluates the network at every timestep"):
        prepare(configure(*given, "scheduler.first_evaluation=stored"))
