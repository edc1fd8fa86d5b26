"""Whole jobs with diffusers pipelines: what is drawn and measured, and what a user reads when something is wrong."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from tiny import ROOT, configuration
from tiny_pipelines import PIPELINES, ddpm, saved, text_encoder, unet, vae

from adaptive_diffusion.baseline.pipeline import DiffusionPipeline
from adaptive_diffusion.calibration.trajectory import measure_trajectory
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.diffusion.limits import Clipped, unlimited
from adaptive_diffusion.diffusion.rng import image_keys, normal
from adaptive_diffusion.errors import MachineError
from adaptive_diffusion.grids.calibrated import find_schedule
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules, save_schedules
from adaptive_diffusion.io.pixels import to_uint8
from adaptive_diffusion.models.diffusers import load_pipeline, pipelines
from adaptive_diffusion.models.diffusers.prompt_tokenizer import PromptTokenizer
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.rl.drawing import drawing_in
from adaptive_diffusion.runs.sample import sample
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.sampling.converged import converged_pictures, paired_rmse
from adaptive_diffusion.sampling.quality_guided import QualityGuidedSampler
from adaptive_diffusion.schedulers.adaptive import AdaptiveScheduler
from adaptive_diffusion.schedulers.classes import DPMSolverScheduler

PROMPT = "prompt=a mountain lake at dawn"
TEXT = ["sd1", "sd2", "sdxl"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: saved(kind, root / kind) for kind in PIPELINES}


@pytest.fixture
def configure(folders: dict[str, Path], tmp_path: Path) -> Any:
    """Compose a job of two images and five steps with a pipeline, without MLflow."""

    def compose(kind: str, *overrides: str, folder: Path = tmp_path) -> Any:
        small = ["num_samples=2", "num_steps=5", "tracking=none"]
        return configuration("sample", folder, "model=diffusers", f"model.path={folders[kind]}", *small, *overrides)

    return compose


def pictures(folder: Path) -> np.ndarray:
    files = sorted((folder / "run" / "pictures").glob("*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


def quality(folder: Path) -> set[str]:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    return {key.removeprefix("quality/") for key in metrics if key.startswith("quality/")}


@pytest.mark.parametrize("kind", TEXT)
def test_a_prompt_is_drawn(kind: str, configure: Any, tmp_path: Path) -> None:
    sample(configure(kind, PROMPT))
    found = pictures(tmp_path)
    assert found.shape == (2, 16, 16, 3)
    assert found.std() > 10
    assert {"fd_encoder", "clip_encoder"} <= quality(tmp_path)
    resolved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (resolved.domain.name, resolved.image_size) == ("landscapes", 16)
    assert resolved.guidance_scale == (5.0 if kind == "sdxl" else 7.5)
    facts = prepare(configure(kind, PROMPT)).scheduler.config
    assert facts["clip_sample"] is False  # latents have no bounds
    assert facts["beta_schedule"] == "scaled_linear"
    assert facts["prediction_type"] == ("v_prediction" if kind == "sd2" else "epsilon")
    height, width, _ = np.asarray(Image.open(tmp_path / "run" / "denoising.png")).shape
    assert width > height > 16


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm_solver", "unipc", "ipndm"])
def test_every_scheduler_draws_latents(scheduler: str, configure: Any, tmp_path: Path) -> None:
    sample(configure("sd1", PROMPT, f"scheduler={scheduler}", "num_steps=3", "metrics=none"))
    assert pictures(tmp_path).std() > 10


def test_a_model_without_text_draws_what_it_was_trained_on(configure: Any, tmp_path: Path) -> None:
    sample(configure("ddpm"))
    resolved = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert (resolved.domain.name, resolved.guidance_scale) == ("unknown", 1.0)
    assert prepare(configure("ddpm")).scheduler.config["clip_sample"] is True
    assert quality(tmp_path) == set()  # nobody says what to compare with
    sample(configure("ddpm", "model.draws=portraits"))
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").domain.name == "portraits"
    assert "fd_encoder" in quality(tmp_path)


def test_a_model_of_classes_draws_a_label_or_all_in_equal_shares(
    configure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ddpm(num_class_embeds=3).save_pretrained(tmp_path / "model")
    job = [f"model.path={tmp_path / 'model'}", "num_samples=3", "metrics=none"]
    drawn = {}
    for label in ("null", "0", "1", "2"):
        sample(configure("ddpm", *job, f"label={label}"))
        drawn[label] = pictures(tmp_path)
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").domain.name == "unknown"
    assert np.abs(drawn["0"] - drawn["1"]).max() > 5

    # one of each: which image has which class depends on the seed
    found = {min("012", key=lambda k: np.abs(drawn[k][i] - drawn["null"][i]).max()) for i in range(3)}
    assert found == {"0", "1", "2"}

    for wrong, sentence in {
        "label=3": "the labels 0 to 2",
        "label=none": "choose label=0 to label=2",
        "guidance_scale=2": "and guidance_scale=1",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            sample(configure("ddpm", *job, wrong))


def test_the_command_line_may_say_what_it_was_trained_on(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptive_diffusion.runs.prompts.given", lambda name: True)
    sample(configure("ddpm", "domain=general"))
    assert "domain_agreement" in quality(tmp_path)
    with pytest.raises(ValueError, match="draws portraits, not general"):
        prepare(configure("ddpm", "domain=general", "model.draws=portraits"))


def test_the_prompt_the_negative_prompt_and_the_seed_change_the_pictures(configure: Any, tmp_path: Path) -> None:
    jobs = {
        "a": [PROMPT],
        "b": ["prompt=a portrait of a lake"],
        "c": [PROMPT, "model.negative_prompt=the lake"],
        "d": [PROMPT, "seed=1"],
        "e": [PROMPT, "guidance_scale=1"],
    }
    for name, overrides in jobs.items():
        sample(configure("sd1", *overrides, "num_steps=2", "metrics=none", folder=tmp_path / name))

    for name in "bcde":
        assert np.abs(pictures(tmp_path / "a") - pictures(tmp_path / name)).max() > 5, name


def test_a_guidance_below_one_still_follows_the_prompt_in_one_pass(configure: Any, tmp_path: Path) -> None:
    for name, overrides in {"0": [], "0.5": [], "1": [], "other": ["prompt=a portrait of a lake"]}.items():
        scale = name if name != "other" else "0"
        settings = [PROMPT, *overrides, f"guidance_scale={scale}", "num_steps=2", "metrics=none"]
        sample(configure("sdxl", *settings, folder=tmp_path / name))

    assert all(np.array_equal(pictures(tmp_path / "1"), pictures(tmp_path / name)) for name in ("0", "0.5"))
    assert np.abs(pictures(tmp_path / "0") - pictures(tmp_path / "other")).max() > 5
    assert OmegaConf.load(tmp_path / "0" / "run" / "config.yaml").guidance_scale == 1


@pytest.mark.parametrize("scheduler", ["adaptive", "ddim"])
def test_guidance_in_an_interval_follows_the_prompt_and_saves_passes(
    scheduler: str, configure: Any, tmp_path: Path
) -> None:
    settings = [PROMPT, f"scheduler={scheduler}", "num_steps=4", "metrics=none"]
    for name, guidance in (("all", []), ("some", ["guidance=interval", "guidance.low=-2", "guidance.high=1"])):
        sample(configure("sd1", *settings, *guidance, folder=tmp_path / name))
    passes = [
        json.loads((tmp_path / name / "run" / "metrics.json").read_text())["details/passes"] for name in ("all", "some")
    ]
    assert passes[0] == 2 * 4 * 2
    assert 2 * 4 < passes[1] < passes[0]
    assert np.abs(pictures(tmp_path / "all") - pictures(tmp_path / "some")).max() > 0

    # less than 1 is none, in an interval too
    sample(configure("sd1", *settings, "guidance=interval", "guidance.weight=0", folder=tmp_path / "turbo"))
    sample(configure("sd1", *settings, "guidance_scale=1", folder=tmp_path / "plain"))
    np.testing.assert_array_equal(pictures(tmp_path / "turbo"), pictures(tmp_path / "plain"))


def test_scale_0_of_a_model_that_reads_counts_the_prompt_wherever_it_is_drawn(folders: dict[str, Path]) -> None:
    """Few-step models ask for 0; null predictions, which know no prompt, would be the literal meaning."""
    model: Any = load_pipeline(str(folders["sd1"]))
    condition = mx.array([model.condition("general", None, "the lake")])
    x, t = normal(image_keys(0, range(1)), model.state_shape), mx.array([500.0])
    with_prompt, null = model(x, t, condition), model(x, t, None)
    assert np.abs(np.array(with_prompt - null)).max() > 1e-3

    scheduler = DPMSolverScheduler()
    for guided in (
        GuidedModel(model, guidance_scale=0.0),
        GuidedModel.from_model(model, (), 0.0),
        scheduler.guided(model, None, 0.0),
        drawing_in(model, "general", 0.0),  # what agents, policies and calibrations train with
        DomainAdapter(model=model, guidance_scale=0.0),
    ):
        if isinstance(guided, DomainAdapter):
            assert guided.guidance_scale == 1
        else:
            np.testing.assert_array_equal(guided(x, t, condition), with_prompt)

    pipeline = DiffusionPipeline(model, "dpm-solver", image_size=None)
    images = [
        np.array(pipeline.generate(1, 2, seed=0, prompt=prompt, guidance_scale=scale))
        for prompt, scale in (("the lake", 0), ("the lake", 1), ("an inn", 0))
    ]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 1e-3


def test_texts_that_threads_encode_at_once_keep_their_ids(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.01)  # another thread begins
        return encode(*given)

    encode = pipelines.encode
    monkeypatch.setattr(pipelines, "encode", slow)
    together, alone = (load_pipeline(str(folders["sd1"])) for _ in range(2))
    texts = ["the lake", "an inn", "a thin lane", "land"]
    with ThreadPoolExecutor(len(texts)) as threads:
        ids = list(threads.map(lambda text: together.condition("general", None, text), texts))

    x, t = normal(image_keys(0, range(1)), alone.state_shape), mx.array([500.0])
    for text, class_id in zip(texts, ids, strict=True):
        assert alone.condition("general", None, text) == class_id
        np.testing.assert_array_equal(*(model(x, t, mx.array([class_id])) for model in (together, alone)))


@pytest.mark.parametrize("prompt", ["海の夜明け", "море на рассвете", "the"])
def test_a_prompt_that_cannot_be_measured_is_drawn_and_told(
    prompt: str, configure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample(configure("sd1", f"prompt='{prompt}'", "num_steps=1"))
    assert len(pictures(tmp_path)) == 2
    assert "clip_encoder could not be measured" in caplog.text
    assert {"fd_encoder", "domain_agreement"} <= quality(tmp_path)
    assert "clip_encoder" not in quality(tmp_path)


def test_whatever_a_metric_raises_costs_no_pictures(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("adaptive_diffusion.encoder.encoder_metrics.EncoderMetrics.measure", broken)
    sample(configure("ddpm", "model.draws=portraits", "metrics=encoder"))
    assert len(pictures(tmp_path)) == 2
    assert "nothing to divide by" in caplog.text


def test_pictures_do_not_depend_on_the_batch_size(configure: Any, tmp_path: Path) -> None:
    for size in (3, 2):
        sample(
            configure(
                "sdxl", PROMPT, "num_samples=3", f"batch_size={size}", "guidance_scale=2", folder=tmp_path / str(size)
            )
        )

    assert np.abs(pictures(tmp_path / "3") - pictures(tmp_path / "2")).max() <= 1  # grey levels


def test_without_a_prompt_the_domain_is_drawn(configure: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        sample(configure("sd1", "domain=portraits", "metrics=none"))

    assert "'a portrait of a person', since none was given" in caplog.text
    parts = prepare(configure("sd1", "domain=general", "label=butterfly"))
    assert "butterfly" in parts.caption
    assert parts.conditions == prepare(configure("sd1", f"prompt={parts.caption}")).conditions


def test_a_prompt_without_a_known_word_is_drawn_too(configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    parts = prepare(configure("sd1", "prompt=42"))
    assert (parts.cfg.domain.name, parts.caption) == ("general", "42")
    assert "cannot be told" in caplog.text
    assert "hardly asks" not in caplog.text


def test_an_over_long_prompt_is_cut_with_a_warning(configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    prepare(configure("sd1", f"prompt={'lake ' * 100}"))
    assert "longer than 77 tokens and were cut" in caplog.text


def test_pictures_need_not_be_square(configure: Any, tmp_path: Path) -> None:
    sample(configure("sd1", PROMPT, "model.height=8", "model.width=24"))
    assert pictures(tmp_path).shape == (2, 8, 24, 3)
    with pytest.raises(ValueError, match=r"image_size=64 .*24x8"):
        prepare(configure("sd1", PROMPT, "model.height=8", "model.width=24", "image_size=64"))


@pytest.mark.parametrize(("kind", "setting"), [("ddpm", "model.draws=general"), ("sd1", PROMPT)])
def test_a_pipeline_has_a_converged_solution(
    kind: str, setting: str, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptive_diffusion.sampling.converged.FIRST_STEPS", 4)
    monkeypatch.setattr(
        "adaptive_diffusion.runs.measure_run.converged_pictures", partial(converged_pictures, tolerance=1000.0)
    )
    sample(configure(kind, setting, "metrics.converged=true"))
    assert "perceptual_encoder" in quality(tmp_path)


@pytest.mark.parametrize(("kind", "setting"), [("ddpm", "model.draws=general"), ("sd1", "domain=general")])
def test_a_pipeline_is_benchmarked_as_any_model(
    kind: str, setting: str, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared are images, decoded from latents that nothing has clipped."""
    monkeypatch.setattr("adaptive_diffusion.sampling.converged.FIRST_STEPS", 4)
    chosen = (kind, setting, "scheduler=dpm_solver")
    distance = sample(configure(*chosen, "benchmark=default", "benchmark.seed_blocks=1", "benchmark.tolerance=1000"))
    cell = json.loads((tmp_path / "run" / "cell.json").read_text())
    assert cell["fd_encoder"] == pytest.approx(distance)
    assert cell["domain"] == "general"
    assert cell["blocks"][0]["evaluations"] == 5
    parts = prepare(configure(*chosen))
    x_T, condition = normal(image_keys(0, range(2)), parts.model.state_shape), parts.conditions.rows(0, range(2))
    bounded = kind == "ddpm"
    model = replace(parts.scheduler.guided(parts.denoiser, condition), limit=Clipped() if bounded else unlimited)
    solution = converged_pictures(model, x_T, tolerance=1000)
    drawn = parts.sampler.run(parts.denoiser, x_T, condition=condition).images
    pictures = [np.clip(np.array(parts.model.decode(mx.array(x))), -1, 1) for x in (drawn, solution.images)]
    assert cell["blocks"][0]["rmse"] == pytest.approx(paired_rmse(*pictures), rel=1e-3)
    assert bounded or np.abs(solution.images).max() > 1


def test_latents_are_calibrated_as_pictures_are(configure: Any) -> None:
    parts = prepare(configure("sd1", PROMPT))
    x_T = normal(image_keys(0, range(3)), parts.model.state_shape)
    model = parts.scheduler.guided(parts.denoiser, parts.conditions.rows(0, range(3)))
    assert np.isfinite(measure_trajectory(model, x_T, nodes=5).lasting_speed).all()
    assert model.limit is unlimited  # latents are not clipped to [-1, 1]
    assert len(parts.model.metadata["content_hash"]) == 64


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("ddpm", {"height": 32}, "with size 16x16 (here 32x16); its timesteps only"),
        (
            "ddpm",
            {"precision": "bfloat16", "width": 8},
            "with precision float32 (here bfloat16) and size 16x16 (here 16x8); its timesteps only",
        ),
        ("sd1", {"negative_prompt": "blurry"}, "with another negative prompt; its timesteps only"),
    ],
)
def test_with_other_settings_the_timesteps_of_the_model_are_used_alone(
    kind: str, settings: dict[str, Any], sentence: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model: Any = load_pipeline(str(folders[kind]), precision="float32")
    other: Any = load_pipeline(str(folders[kind]), **{"precision": "float32", **settings})
    (one, *_) = load_schedules(SHIPPED)
    save_schedules(tmp_path / "schedules.json", [replace(one, model=model.identity), one])
    path = tmp_path / "schedules.json"
    same, found = (find_schedule(path, drawn.identity, one.domain, 1.0) for drawn in (model, other))
    assert same is not None
    assert same.weights_hold
    assert found is not None
    assert not found.weights_hold
    assert sentence in str(found)

    scheduler = AdaptiveScheduler(num_inference_steps=5, calibration=same)
    scheduler.suit(other.identity, None, 1.0)
    assert sentence in scheduler.origin
    scheduler.suit(model.identity, None, 1.0)
    assert "timesteps only" not in scheduler.origin


def test_thresholding_of_the_models_own_scheduler_is_for_the_run_to_say(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(folders["ddpm"], tmp_path / "copy")
    edit("scheduler/scheduler_config.json", thresholding=False)(folder)
    load_pipeline(str(folder))
    assert "thresholds" not in caplog.text
    edit("scheduler/scheduler_config.json", thresholding=True, dynamic_thresholding_ratio=0.9)(folder)
    load_pipeline(str(folder))
    assert "+scheduler.thresholding=true +scheduler.dynamic_thresholding_ratio=0.9" in caplog.text


def test_a_model_of_one_channel_begins_at_the_grey_picture(configure: Any, tmp_path: Path) -> None:
    pipeline = ddpm()
    pipeline.register_modules(unet=type(pipeline.unet)(**{**pipeline.unet.config, "in_channels": 1, "out_channels": 1}))
    pipeline.save_pretrained(tmp_path / "grey")
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "start.png")
    model: Any = load_pipeline(str(tmp_path / "grey"))
    grey = np.array(model.encode(mx.array(colours[None].astype(np.float32) / 127.5 - 1)))
    expected = np.asarray(Image.fromarray(colours).convert("L"))[None, ..., None] / 127.5 - 1
    np.testing.assert_allclose(grey, expected, atol=1 / 127)  # Pillow rounds to a grey level
    start = [f"init_image={tmp_path / 'start.png'}", "strength=0.2", "metrics=none"]
    sample(configure("ddpm", f"model.path={tmp_path / 'grey'}", *start))
    assert len(list(tmp_path.glob("run/pictures/*.png"))) == 2

    with pytest.raises(ValueError, match="draws 3 channels"):
        load_pipeline(str(saved("ddpm", tmp_path / "rgb"))).encode(mx.zeros((1, 16, 16, 4)))


def test_the_hash_is_of_the_files_and_not_of_their_place(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    before = load_pipeline(str(folders["sd1"])).metadata["content_hash"]
    assert load_pipeline(str(copy)).metadata["content_hash"] == before
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = dict(mx.load(str(file)))
    mx.eval(tensors)
    mx.save_safetensors(str(file), {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 1})
    assert load_pipeline(str(copy)).metadata["content_hash"] != before


@pytest.mark.parametrize(
    ("name", "key", "value", "another"),
    [
        ("scheduler/scheduler_config.json", "prediction_type", "v_prediction", True),
        ("scheduler/scheduler_config.json", "beta_end", 0.011, True),
        ("scheduler/scheduler_config.json", "timestep_spacing", "trailing", False),
        ("tokenizer/tokenizer_config.json", "model_max_length", 76, True),
    ],
)
def test_what_decides_predictions_beside_the_weights_makes_another_model(
    name: str, key: str, value: Any, another: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    file = copy / name
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    identities = {load_pipeline(str(folder)).identity for folder in (folders["sd1"], copy)}
    assert len(identities) == 1 + another


def test_guidance_costs_a_doubled_batch_only_where_it_changes_something(folders: dict[str, Path]) -> None:
    model: Any = load_pipeline(str(folders["sd1"]))
    sizes = []
    predict = model._predict
    model._predict = lambda x, *rest: (sizes.append(len(x)), predict(x, *rest))[1]
    x, t = mx.zeros((2, *model.state_shape)), mx.array([1.0, 1.0])

    condition = mx.array([model.condition("general", None, "a lake")] * 2)
    for scale in (1.0, 7.5):
        GuidedModel(model, guidance_scale=scale)(x, t, condition)

    assert sizes == [2, 4]


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_missing_condition_is_the_negative_prompt(kind: str, folders: dict[str, Path]) -> None:
    model: Any = load_pipeline(str(folders[kind]), negative_prompt="the lake")
    x, t = normal(image_keys(0, range(1)), model.state_shape), mx.array([500.0])
    (lake,) = model.condition("general", None, "the lake")
    (other,) = model.condition("general", None, "an inn")
    null, same, different = (np.array(model(x, t, c)) for c in (None, mx.array([[lake]]), mx.array([[other]])))
    np.testing.assert_allclose(null, same, atol=1e-5)
    assert np.abs(null - different).max() > 1e-3
    assert 0 < min(lake, other) <= max(lake, other) < 2**31
    assert lake != other
    again: Any = load_pipeline(str(folders[kind]), negative_prompt="the lake")
    assert again.condition("general", None, "an inn") == (other,)  # the same text, the same id, in any run
    np.testing.assert_array_equal(different, np.array(again(x, t, mx.array([[other]]))))  # whatever else was encoded
    assert model.identity == again.identity != load_pipeline(str(folders[kind])).identity


# From Python.


@pytest.mark.parametrize(("kind", "prompt"), [("ddpm", None), ("sd1", "the lake"), ("sd2", "the lake")])
def test_python_draws_the_pictures_of_the_command_line(
    kind: str, prompt: str | None, folders: dict[str, Path], configure: Any, tmp_path: Path
) -> None:
    pipeline = DiffusionPipeline(load_pipeline(str(folders[kind])), "ddim", image_size=None)
    drawn: Any = pipeline.generate(2, 5, seed=3, prompt=prompt)
    assert (drawn.shape, pipeline.native_size) == ((2, 16, 16, 3), (16, 16))
    sample(configure(kind, "scheduler=ddim", "seed=3", "metrics=none", *([f"prompt={prompt}"] if prompt else [])))
    assert np.abs(to_uint8(np.array(drawn)).astype(int) - pictures(tmp_path)).max() <= 1  # grey levels
    assert np.array(drawn).std() > 0.05


def snippet_of(page: str, word: str) -> str:
    """The first block of Python on a page that holds a word."""
    found = re.search(rf"```python\n([^`]*{word}[^`]*)```", (ROOT / page).read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def test_the_snippet_of_the_readme_draws(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # it saves an image
    exec(snippet_of("README.md", "to_pil"), {})
    assert (tmp_path / "sunrise.png").is_file()


def test_the_snippet_of_the_guide_draws_with_a_pipeline(folders: dict[str, Path]) -> None:
    names: dict[str, Any] = {}
    exec(snippet_of("docs/guide/python.md", "load_pipeline").replace("FOLDER", str(folders["sd1"])), names)
    assert names["images"].shape[1:] == (16, 16, 3)


def test_every_picture_may_have_a_prompt_of_its_own_and_the_size_that_is_wanted(folders: dict[str, Path]) -> None:
    pipeline = DiffusionPipeline(load_pipeline(str(folders["sdxl"])), "dpm-solver", image_size=(24, 32))
    assert pipeline.scheduler.config["clip_sample"] is False  # latents have no bounds
    both, states = pipeline.generate(2, 3, seed=0, return_intermediates=True, prompt=["the lake", "an inn"])
    assert (both.shape, [s.shape for s in states]) == ((2, 24, 32, 3), [(2, 24, 32, 3)] * 3)

    for prompt, same in (("the lake", [True, False]), ("an inn", [False, True])):
        difference = np.abs(np.array(pipeline.generate(2, 3, seed=0, prompt=prompt)) - np.array(both)).max((1, 2, 3))
        assert (difference < 1e-4).tolist() == same

    plain = pipeline.generate(2, 3, seed=0, prompt=["the lake", "an inn"], guidance_scale=1)
    assert np.abs(np.array(plain) - np.array(both)).max() > 0.01  # what the model recommends is 5


def test_a_sampler_that_estimates_quality_gives_pictures_of_latents_too(folders: dict[str, Path]) -> None:
    sampler = QualityGuidedSampler(AdaptiveScheduler(num_inference_steps=12), min_steps=4)
    images = sampler.sample(load_pipeline(str(folders["sd1"])), 2, image_size=(24, 24))
    assert images.shape == (2, 24, 24, 3)
    assert sampler.scheduler.config["beta_schedule"] == "scaled_linear"
    assert 4 <= len(sampler.get_quality_history()) <= 12


def test_latents_of_pictures_are_made_noisy_and_become_pictures_again(folders: dict[str, Path]) -> None:
    model: Any = load_pipeline(str(folders["sd1"]))
    pipeline, images = DiffusionPipeline(model, image_size=None), 0.5 * normal(image_keys(0, range(2)), (16, 16, 3))
    t, noise = mx.array([300.0, 300.0]), normal(image_keys(1, range(2)), (8, 8, 4))
    alpha, sigma = (float(f(300)) for f in (pipeline.scheduler.schedule.alpha, pipeline.scheduler.schedule.sigma))
    noisy = pipeline.add_noise(images, 300, noise)
    np.testing.assert_allclose(noisy, alpha * model.encode(images) + sigma * noise, atol=1e-4)
    found = pipeline.denoise_image(noisy, 300, prompt="the lake")
    eps = GuidedModel(model, guidance_scale=7.5)(noisy, t, mx.array([model.condition("general", None, "the lake")] * 2))
    np.testing.assert_allclose(found, mx.clip(model.decode((noisy - sigma * eps) / alpha), -1, 1), atol=1e-4)
    one = pipeline.denoise_image(pipeline.add_noise(images[0], 300, noise[0]), 300, prompt="the lake")
    np.testing.assert_allclose(one, found[0], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("ddpm", {"prompt": "the lake"}, "reads no text"),
        ("sd1", {"prompt": ["the lake"]}, "got 1 for 2"),
        (
            "sd1",
            {"label": "lake"},
            "label=lake was given without a domain, and the model reads; give domain=... as well",
        ),
        ("sd1", {"prompt": ["the lake", " "]}, "prompt is empty"),
        ("sd1", {"prompt": "the lake", "condition": mx.array([[0], [0]])}, "both given"),
        ("sd1", {"condition": mx.array([[0], [7]])}, "was given no text with the id 7"),
        ("sd1", {"condition": mx.zeros((2, 3))}, "whole numbers of the shape (B, 1)"),
        ("ddpm", {"condition": mx.array([[0], [0]])}, "was trained without classes"),
    ],
)
def test_python_is_told_what_it_may_ask_for(
    kind: str, options: dict[str, Any], sentence: str, folders: dict[str, Path]
) -> None:
    pipeline = DiffusionPipeline(load_pipeline(str(folders[kind])), image_size=None)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        pipeline.generate(2, 1, seed=0, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"negative_prompt": ["blurry", "an inn"]}, "negative_prompt must be a text"),
        ({"draws": 3}, "draws must be a text"),
        ({"height": "24"}, "height must be a whole number"),
    ],
)
def test_a_pipeline_is_not_loaded_with_an_argument_of_another_type(
    options: dict[str, Any], sentence: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_pipeline(str(folders["sd1"]), **options)


def test_class_ids_that_a_pipeline_does_not_have_are_refused(tmp_path: Path) -> None:
    ddpm(num_class_embeds=3).save_pretrained(tmp_path)
    pipeline = DiffusionPipeline(load_pipeline(str(tmp_path)), image_size=None)
    for condition, sentence in {(1, 2): r"the shape \(B, 1\)", ((1,), (4,)): "class ids from 0 to 3"}.items():
        with pytest.raises(ValueError, match=sentence):
            pipeline.generate(2, 1, seed=0, condition=np.array(condition))


# Bad input.


def test_an_id_whose_text_was_never_given_is_refused(folders: dict[str, Path]) -> None:
    model, other = (load_pipeline(str(folders["sd1"])) for _ in range(2))
    (lake,), (inn,) = model.condition("general", None, "the lake"), other.condition("general", None, "an inn")

    x, t = mx.zeros((2, *model.state_shape)), mx.array([1.0, 1.0])
    with pytest.raises(ValueError, match=f"no text with the id {inn}"):
        model(x, t, mx.array([[lake], [inn]]))

    model.condition("general", None, "an inn")
    drawn = np.array(model(x, t, mx.array([[lake], [inn]])))
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "overrides", "sentence"),
    [
        ("sd1", ["prompt=''"], "prompt: it is empty"),
        ("sd1", ["prompt='  '"], "prompt: it is empty"),
        ("sd1", [PROMPT, "label=sunrise"], "both given"),
        ("ddpm", [PROMPT], "reads no text"),
        ("ddpm", ["label=sunrise"], "trained without classes"),
        ("ddpm", ["model.negative_prompt=blurry"], "reads no text"),
        ("sd1", ["model.draws=portraits"], "draws what the prompt says"),
        ("sd1", ["model.height=18"], "model: height must be a multiple of 4"),
        ("sd1", ["model.height=8192"], "model: height must be a whole number, between 1 and 4096"),
        ("sd1", ["model.path=''"], "model: path is empty"),
        ("ddpm", ["model.width=17"], "model: width must be a multiple of 2"),
        ("sd1", ["model.width=0"], "model: width must be a whole number, between 1 and 4096"),
        ("sd1", ["model.precision=int3"], "precision must be one of"),
        ("sd1", ["+scheduler.beta_schedule=linear"], "contradicts the model, which was trained with scaled_linear"),
        ("sd1", ["model.path=nowhere"], "there is no model folder nowhere"),
    ],
)
def test_bad_input_gets_a_sentence(kind: str, overrides: list[str], sentence: str, configure: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        prepare(configure(kind, *overrides))
    assert "\n" not in str(error.value)


def remove(path: str) -> Any:
    def change(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def edit(path: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / path
        content = json.loads(file.read_text()) | values
        file.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))

    return change


def truncate(path: str) -> Any:
    def change(folder: Path) -> None:
        file = folder / path
        file.write_bytes(file.read_bytes()[:1000])

    return change


def swap(part: str, build: Any) -> Any:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / part)
        build().save_pretrained(folder / part)

    return change


def spoil(path: str) -> Any:
    """NaN in one tensor."""

    def change(folder: Path) -> None:
        tensors: Any = dict(mx.load(str(folder / path)))
        mx.eval(tensors)
        mx.save_safetensors(str(folder / path), {**tensors, "conv_in.bias": tensors["conv_in.bias"] + float("nan")})

    return change


DAMAGED = [
    (remove("model_index.json"), "no model_index.json"),
    (edit("model_index.json", _class_name="FluxPipeline"), "FluxPipeline"),
    (remove("unet"), "unet/config.json is missing"),
    (remove("vae/diffusion_pytorch_model.safetensors"), "holds no weights"),
    (remove("text_encoder/model.safetensors"), "holds no weights"),
    (remove("tokenizer"), "tokenizer is missing"),
    (remove("tokenizer/tokenizer.json"), "neither tokenizer.json nor vocab.json"),
    (remove("tokenizer/tokenizer_config.json"), "tokenizer/tokenizer_config.json"),
    (remove("scheduler"), "has no scheduler/scheduler_config.json"),
    (truncate("unet/diffusion_pytorch_model.safetensors"), "truncated"),
    (edit("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler"), "FlowMatchEulerDiscrete"),
    (edit("scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type = 'flow'"),
    (edit("scheduler/scheduler_config.json", beta_schedule="sigmoid"), "beta_schedule = 'sigmoid'"),
    (edit("scheduler/scheduler_config.json", beta_start=2.0), "describes no noise"),
    (edit("unet/config.json", attention_type="gated"), "attention_type = 'gated'"),
    (edit("unet/config.json", _class_name="UNet2DModel"), "cannot be built"),
    (edit("unet/config.json", sample_size=None), "give height and width"),
    (edit("unet/config.json", sample_size=[8]), "got (8,)"),
    (edit("unet/config.json", sample_size=[8, None]), "got None"),
    (edit("unet/config.json", sample_size="8"), "got '8'"),
    (swap("text_encoder", lambda: text_encoder(24)), "24 channels"),
    (swap("text_encoder", vae), "text_encoder must hold a CLIP text encoder"),
    (swap("vae", unet), "must be a AutoencoderKL"),
    (spoil("unet/diffusion_pytorch_model.safetensors"), "NaN or infinity"),
    (edit("vae/config.json", _class_name="AutoencoderTiny"), "AutoencoderTiny"),
    (edit("tokenizer/tokenizer_config.json", pad_token="<nothing>"), "fills up with '<nothing>'"),
    (
        edit("tokenizer/tokenizer_config.json", model_max_length="abc"),
        "has model_max_length='abc'; it must be a number",
    ),
    (edit("tokenizer/tokenizer_config.json", model_max_length=-3), "has model_max_length=-3; it must be"),
    (edit("tokenizer/tokenizer_config.json", model_max_length=0), "has model_max_length=0; it must be"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGED, ids=[sentence for _, sentence in DAMAGED])
def test_a_damaged_or_foreign_folder_gets_a_sentence(
    damage: Any, sentence: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["sd1"], tmp_path / "copy")
    damage(folder)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        load_pipeline(str(folder))

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("length", [1e30, math.inf, None])  # transformers writes 1e30 for none
def test_prompts_without_a_length_have_that_of_the_text_encoder(
    length: float | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["sd1"] / "tokenizer", tmp_path / "tokenizer")
    edit("tokenizer_config.json", model_max_length=length)(folder)
    assert PromptTokenizer(folder, 12)(["a lake"]).shape == (1, 12)


def test_a_picture_without_contents_is_no_picture(folders: dict[str, Path]) -> None:
    model: Any = load_pipeline(str(folders["sd1"]))

    latents = normal(image_keys(0, range(2)), model.state_shape)
    with pytest.raises(FloatingPointError, match=r"NaN or infinity.*guidance_scale"):
        model.decode(latents * float("inf"))

    half: Any = load_pipeline(str(folders["sd1"]), precision="float16")
    with pytest.raises(FloatingPointError, match=r"NaN or infinity.*precision=float32"):
        half.decode(latents * float("inf"))

    decode = model._vae.decode
    for broken in (lambda z: mx.zeros_like(decode(z)), lambda z: decode(z) * mx.array([[[[float("nan")]]], [[[1.0]]]])):
        model._vae.decode = broken
        with pytest.raises(MachineError, match="one colour"):
            model.decode(latents)


def test_the_command_line_draws_and_answers_mistakes_with_a_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        fixed = ["tracking=none", f"paths.outputs={tmp_path}", f"model.path={folders['sd1']}", "metrics=none"]
        command = [sys.executable, str(ROOT / "sample.py"), "model=diffusers", *fixed, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("prompt=a mountain lake at dawn", "scheduler=adaptive", "num_steps=5", "num_samples=2")
    assert done.returncode == 0, done.stderr
    assert "domain landscapes" in done.stdout
    assert len(list(tmp_path.glob("sample/*/*/pictures/*.png"))) == 2
    wrong = run("prompt=''")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "prompt: it is empty" in wrong.stderr
