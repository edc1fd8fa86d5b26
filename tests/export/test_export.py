"""Exported schedules: the copied scheduler draws in diffusers what `AdaptiveScheduler` draws here."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import mlx.core as mx
import numpy as np
import pytest
import torch
from tiny import ROOT
from tiny_pipelines import PIPELINES

from adaptive_diffusion.diffusion.schedule import NoiseSchedule
from adaptive_diffusion.export.scheduler_folder import SCHEDULER, scheduler_configuration
from adaptive_diffusion.export.trained import Trained
from adaptive_diffusion.grids.calibrated import CalibratedGrid
from adaptive_diffusion.grids.calibrated_schedule import CalibratedSchedule, CalibratedSteps, Score
from adaptive_diffusion.grids.schedule_file import save_schedules
from adaptive_diffusion.models.checkpoint import load_builtin_model
from adaptive_diffusion.models.diffusers import load_pipeline
from adaptive_diffusion.optimization.memory import SHIPPED as RECORDS
from adaptive_diffusion.optimization.memory import read_records
from adaptive_diffusion.runs.export import main
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler

STEPS, GUIDANCE = 6, 2.0
PROMPT, NEGATIVE = "the lake in An", "lake, 3 an"
TIMESTEPS = tuple(999 * (1 - np.arange(STEPS) / STEPS) ** 1.7)
SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def made_up(size: float = 0.05, model: str = "m", guidance: float = GUIDANCE) -> CalibratedSchedule:
    """Steps that pass for calibrated ones, with corrections of some size where there are predictions to correct."""
    drawn = np.random.default_rng(0).standard_normal((STEPS, 5))
    there = np.arange(4)[None] <= np.arange(STEPS)[:, None]  # a row has no weights for predictions that come later
    drawn[:, 2:] *= there[:, 1:]
    rows = tuple(map(tuple, (size * drawn).tolist()))
    steps = {STEPS: CalibratedSteps(TIMESTEPS, rows, "made up", {"made up": Score(0.1, 0.01)})}
    return CalibratedSchedule(model, guidance, "landscapes", 1000, "rmse", 2, 2, steps)


def copied(folder: Path) -> ModuleType:
    """The exported file as a module that knows nothing of this package."""
    spec = importlib.util.spec_from_file_location("calibrated_scheduler", folder / SCHEDULER.name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(schedule: CalibratedSchedule, trained: Trained, **changes: Any) -> Any:
    configuration = scheduler_configuration(schedule, trained) | changes
    return copied(SCHEDULER.parent).CalibratedScheduler.from_config(json.loads(json.dumps(configuration)))


def test_the_file_imports_numpy_torch_and_diffusers_only():
    lines = [line.split()[1] for line in SCHEDULER.read_text().splitlines() if line.startswith(("import ", "from "))]
    third = {name.partition(".")[0] for name in lines} - {"__future__", "collections", "math", "typing"}
    assert third == {"numpy", "torch", "diffusers"}


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_pipelines_of_diffusers_draw_what_ours_draws(kind: str, tmp_path: Path, capsys: Any) -> None:
    schedule, folder = made_up(), tmp_path / "model"
    PIPELINES[kind]().save_pretrained(folder)
    save_schedules(tmp_path / "s.json", [schedule])
    main(["--file", f"{tmp_path}/s.json", "--model", str(folder), "--output", f"{tmp_path}/out"])
    assert "calibrated for landscapes at guidance 2, 6 steps" in capsys.readouterr().out

    ours: Any = load_pipeline(str(folder), negative_prompt=NEGATIVE)
    known = ours.metadata
    adaptive = AdaptiveScheduler(
        num_inference_steps=STEPS,
        calibration=schedule,
        prediction_type=known["prediction_type"],
        clip_sample=False,
        **known["noise_schedule"],
    )
    noise = np.random.default_rng(1).standard_normal((2, *ours.state_shape), dtype=np.float32)
    condition = mx.array([ours.condition("general", None, PROMPT)] * 2)
    x0 = StandardSampler(adaptive).run(adaptive.guided(ours, condition, GUIDANCE), mx.array(noise)).images

    scheduler = copied(tmp_path / "out").CalibratedScheduler.from_pretrained(tmp_path / "out")
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    seen: list[torch.Tensor] = []
    theirs.unet.register_forward_pre_hook(lambda module, given: seen.append(given[1]))

    def difference() -> float:
        """Largest difference of latents, relative to their size."""
        found = theirs(
            [PROMPT] * 2,
            negative_prompt=[NEGATIVE] * 2,
            guidance_scale=GUIDANCE,
            latents=torch.tensor(noise.transpose(0, 3, 1, 2)),
            num_inference_steps=STEPS,
            output_type="latent",
        ).images.numpy()
        expected = np.array(x0).transpose(0, 3, 1, 2)
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    assert difference() < 1e-4
    assert [float(t) for t in seen] == pytest.approx(TIMESTEPS)  # the U-Net sees real-valued timesteps

    scheduler._known[STEPS]["weights"] = None
    assert difference() > 1e-2  # the weights matter


def test_the_guide_can_be_followed(tmp_path: Path, monkeypatch: Any) -> None:
    PIPELINES["sd1"]().save_pretrained(tmp_path / "MODEL")
    save_schedules(tmp_path / "outputs/schedule/schedules.json", [made_up()])
    page = (ROOT / "docs/guide/export.md").read_text()
    commands = re.findall(r"^adaptive-diffusion export (.*?)(?: +#.*)?$", page, re.MULTILINE)
    assert len(commands) == 2
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "exported")
    monkeypatch.delitem(sys.modules, "calibrated_scheduler", raising=False)
    for command in reversed(commands):  # the pipeline's own last
        main(shlex.split(command))

    names: dict[str, Any] = {}
    exec(program, names)
    assert names["image"].size == (16, 16)
    assert len(names["scheduler"].timesteps) == 8
    monkeypatch.delitem(sys.modules, "calibrated_scheduler")


def network(x: Any, t: float, library: Any) -> Any:
    """Predictions of about size 1 that depend on state and timestep."""
    return library.sin(2 * x + t / 300)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("n", "begin", "size", "clip"),
    [
        (6, 0, 0.05, False),
        (6, 0, 0.05, True),
        (6, 0, 3.0, False),  # so rough that steps fall back to first order
        (6, 2, 0.05, False),  # from the middle, with DPM-Solver++(2M)
        (4, 0, 0.05, False),  # resampled
        (23, 0, 0.05, True),
        (1, 0, 0.05, False),
    ],
)
def test_every_step_is_that_of_the_adaptive_scheduler(
    prediction_type: str, n: int, begin: int, size: float, clip: bool
) -> None:
    schedule, process = made_up(size), NoiseSchedule(**SD_NOISE)
    adaptive = AdaptiveScheduler(
        num_inference_steps=n, calibration=schedule, prediction_type=prediction_type, clip_sample=clip, **SD_NOISE
    )
    scheduler = exported(schedule, Trained(process, prediction_type, clip))
    scheduler.set_timesteps(n)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), adaptive.timesteps, rtol=1e-6)

    x = np.random.default_rng(2).standard_normal((4, 3, 8, 8), dtype=np.float32)
    theirs, ours = torch.tensor(x), mx.array(x)
    for i in [0, *range(begin, n)] if begin else range(n):  # a step that does not follow the one before begins anew
        t, own = scheduler.timesteps[i], adaptive.timesteps[i]
        theirs = scheduler.step(network(theirs, float(own), torch), t, theirs, return_dict=False)[0]
        ours = adaptive.step(network(ours, float(own), mx), own, ours)
        np.testing.assert_allclose(theirs.numpy(), np.array(ours), rtol=1e-4, atol=1e-4)

    if size > 1:
        assert 0 < adaptive.get_schedule_info()["first_order_fraction"] < 1


@pytest.mark.parametrize(
    "noise",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {**SD_NOISE, "rescale_betas_zero_snr": True},
        {"num_train_timesteps": 3, "trained_betas": [0.1, 0.2, 0.3]},
    ],
)
def test_noise_is_added_as_the_model_was_trained(noise: dict[str, Any]) -> None:
    process = NoiseSchedule(**noise)
    scheduler = exported(made_up(), Trained(process, "epsilon", False))
    x0, eps = np.random.default_rng(3).standard_normal((2, 2, 3, 4, 4), dtype=np.float32)
    t = np.array([1.4, process.num_train_timesteps - 1])
    found = scheduler.add_noise(torch.tensor(x0), torch.tensor(eps), torch.tensor(t))
    np.testing.assert_allclose(found.numpy(), np.array(process.add_noise(mx.array(x0), mx.array(eps), t)), atol=1e-6)


@pytest.mark.parametrize("n", [3, 9])
def test_steps_that_end_at_0_are_resampled_as_here(n: int) -> None:
    schedule = made_up()
    ending = replace(schedule.steps[STEPS], timesteps=(999.0, 700.0, 400.0, 200.0, 50.0, 0.0))
    schedule = replace(schedule, steps={STEPS: ending})
    scheduler = exported(schedule, Trained(NoiseSchedule(), "epsilon", False))
    scheduler.set_timesteps(n)
    expected = CalibratedGrid(schedule)(NoiseSchedule(), n)
    np.testing.assert_allclose(scheduler.timesteps.numpy(), expected, rtol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    scheduler = exported(made_up(), Trained(NoiseSchedule(**SD_NOISE), "epsilon", False))
    x, output = torch.randn(2, 1, 4, 8, 8, generator=torch.manual_seed(0), dtype=torch.float32).half()
    found = []
    for kind in (torch.float16, torch.float32):
        scheduler.set_timesteps(STEPS)
        found.append(scheduler.step(output.to(kind), scheduler.timesteps[0], x.to(kind)).prev_sample)
    assert found[0].dtype == torch.float16
    assert torch.equal(found[0], found[1].half())


def test_image_to_image_begins_in_the_middle() -> None:
    pipeline = PIPELINES["sd1"]()
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    image_to_image.scheduler = exported(made_up(), Trained(NoiseSchedule(**SD_NOISE), "epsilon", False))
    image_to_image.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8, generator=torch.manual_seed(0))
    options = {"num_inference_steps": STEPS, "output_type": "latent", "generator": torch.manual_seed(1)}
    drawn = image_to_image(PROMPT, image=latents, strength=0.5, **options).images
    assert torch.isfinite(drawn).all()
    little = image_to_image(PROMPT, image=latents, strength=0.2, **options).images  # one step of little noise
    assert (little - latents).abs().mean() < (drawn - latents).abs().mean()


def test_its_configuration_is_saved_and_read_again(tmp_path: Path) -> None:
    scheduler = exported(made_up(), Trained(NoiseSchedule(**SD_NOISE), "v_prediction", False))
    scheduler.save_pretrained(tmp_path)
    again = type(scheduler).from_pretrained(tmp_path)
    assert again.config.calibrated_steps == scheduler.config.calibrated_steps
    assert again.config.prediction_type == "v_prediction"


def test_mistakes_of_the_scheduler_are_one_sentence() -> None:
    trained = Trained(NoiseSchedule(), "epsilon", False)
    scheduler, x = exported(made_up(), trained), torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="no timesteps yet"):
        scheduler.step(x, 999, x)
    with pytest.raises(ValueError, match="between 1 and 1000, got 1001"):
        scheduler.set_timesteps(1001)
    scheduler.set_timesteps(STEPS)
    with pytest.raises(ValueError, match="timestep 500 is not one of the 6 timesteps from 999 to"):
        scheduler.step(x, 500, x)
    with pytest.raises(ValueError, match="no calibrated_steps; read them"):
        type(scheduler)()
    for wrong, words in (({"prediction_type": "score"}, "epsilon, v_prediction"), ({"beta_schedule": "s"}, "linear")):
        with pytest.raises(ValueError, match=words):
            exported(made_up(), trained, **wrong)


def test_tables_hold_decreasing_noise_levels_that_end_in_0(tmp_path: Path) -> None:
    main(["--domain", "landscapes", "--steps", "5,8", "--output", str(tmp_path)])
    content = json.loads((tmp_path / "sigmas.json").read_text())
    assert list(content["steps"]) == ["5", "8"]
    assert "most of the gain is lost" in content["warning"]

    process = Trained.of(None).process
    for n, table in content["steps"].items():
        sigmas, timesteps = table["sigmas"], np.array(table["timesteps"])
        assert (len(sigmas), len(timesteps), sigmas[-1]) == (int(n) + 1, int(n), 0)
        alphas_cumprod = process.alpha(timesteps) ** 2
        np.testing.assert_allclose(sigmas[:-1], np.sqrt((1 - alphas_cumprod) / alphas_cumprod), rtol=1e-6)

    text = (tmp_path / "sigmas.txt").read_text()
    rows = [[float(v) for v in line.split(",")] for line in text.splitlines() if line and not line.startswith("#")]
    assert rows == [row for table in content["steps"].values() for row in table.values()]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "has several: give --domain, one of abstract, general, landscapes, portraits"),
        (["--domain", "hills"], "no schedule with --domain hills; there are abstract"),
        (["--domain", "general", "--guidance", "7"], "no schedule with --guidance 7; there are .*1.5"),
        (["--domain", "general", "--steps", "5,11"], "--steps 11 was not calibrated; there are 4, 5, 6"),
        (["--domain", "general", "--steps", "5,x"], "--steps must be numbers, e.g. 5,8,10, got 'x'"),
        (["--domain", "general", "--steps", ""], "--steps must be numbers, e.g. 5,8,10, got ''"),
        (["--domain", "general", "--model", "nowhere"], "no model at nowhere; give a checkpoint or the folder"),
        (["--domain", "general", "--model", "FOLDER"], "--model .*FOLDER needs --file with steps of that pipeline"),
        (["--file", "nowhere.json"], "there are no calibrated schedules at nowhere.json"),
        (["--file", "OTHER"], "no steps of the model bee00208f615, only of m; give --model"),
        (["--file", "OTHER", "--model", "EMPTY"], "has no scheduler/scheduler_config.json"),
    ],
)
def test_mistakes_of_the_command_are_one_sentence(arguments: list[str], told: str, tmp_path: Path) -> None:
    save_schedules(tmp_path / "OTHER", [made_up()])
    for name, noise in (("EMPTY", None), ("FOLDER", {"_class_name": "DDIMScheduler", **SD_NOISE})):
        (tmp_path / name).mkdir()
        if noise is not None:
            (tmp_path / name / "scheduler_config.json").write_text(json.dumps(noise))
    given = [str(tmp_path / name) if name.isupper() else name for name in arguments]
    with pytest.raises(ValueError, match=told) as error:
        main([*given, "--output", str(tmp_path / "out")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_of_several_kinds_of_guidance_the_constant_one_is_exported_and_others_by_their_name(tmp_path, capsys):
    model = load_builtin_model().identity
    tuned = next(known.to_config().guidance for known in read_records(RECORDS).known if known.domain == "landscapes")
    constant = made_up(model=model, guidance=1.5)
    other = replace(made_up(0.1, model), guidance_scale=tuned)
    save_schedules(tmp_path / "s.json", [other, constant])

    def exported_with(*arguments: str) -> tuple[Any, str]:
        main(["--file", str(tmp_path / "s.json"), "--output", str(tmp_path / "out"), *arguments])
        content = json.loads((tmp_path / "out" / "scheduler_config.json").read_text())
        return content["calibrated_for"]["guidance_scale"], capsys.readouterr().out

    guidance, said = exported_with()
    assert guidance == 1.5
    assert f"also calibrated: --guidance {shlex.quote(tuned.name)}" in said
    interval = {"weight": tuned.weight, "low": tuned.low, "high": tuned.high}
    for name in ("tuned", tuned.name):
        guidance, said = exported_with("--guidance", name)
        assert guidance == interval
        assert "also calibrated: --guidance 1.5" in said

    save_schedules(tmp_path / "s.json", [other, constant, replace(constant, guidance_scale=3.0)])
    with pytest.raises(ValueError, match=r"several: give --guidance, one of '1.3 where log-SNR is .*', 1.5, 3"):
        exported_with()
    save_schedules(tmp_path / "s.json", [constant])
    with pytest.raises(ValueError, match="no schedule with --guidance tuned; there are"):
        exported_with("--guidance", "tuned")


def test_the_parts_of_a_schedule_are_exported_together(tmp_path, capsys):
    schedule = made_up(model=load_builtin_model().identity)
    four = replace(schedule, steps={4: replace(schedule.steps[STEPS], timesteps=TIMESTEPS[:4], corrections=None)})
    save_schedules(tmp_path / "s.json", [schedule, replace(four, noises=3)])
    main(["--file", str(tmp_path / "s.json"), "--output", str(tmp_path / "out")])
    assert f"4, {STEPS} steps" in capsys.readouterr().out


def test_a_file_in_the_place_of_the_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("kept")
    for output in ("afile", "afile/below"):
        with pytest.raises(ValueError, match=r"--output .* cannot be a folder: .*afile is a file"):
            main(["--domain", "general", "--output", str(tmp_path / output)])
    assert (tmp_path / "afile").read_text() == "kept"


def test_steps_are_sorted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--domain", "general", "--steps", "12,5,8", "--output", str(tmp_path)])
    assert "5, 8, 12 steps; draw at this guidance" in capsys.readouterr().out


def test_a_file_of_several_models_beside_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler", **SD_NOISE}))
    save_schedules(tmp_path / "s.json", [made_up(), made_up(model="another")])
    with pytest.raises(ValueError, match="schedules of several models"):
        main(["--file", f"{tmp_path}/s.json", "--model", str(tmp_path), "--output", str(tmp_path / "out")])
