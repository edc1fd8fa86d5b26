"""Whole pipelines against diffusers: the same folder, noise and prompt lead to the same images."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import mlx.core as mx
import numpy as np
import pytest
import torch
import transformers
from diffusers_reference import inference, nchw, nhwc, normal, relative_error
from tiny_pipelines import PIPELINES, stable_diffusion, stable_diffusion_xl, text_encoder, tokenizer, vocabulary

from adaptive_diffusion.models.diffusers import LatentPipeline, load_diffusers, load_pipeline, pipelines, trained_noise
from adaptive_diffusion.models.diffusers.prompt_tokenizer import PromptTokenizer
from adaptive_diffusion.sampling.standard import StandardSampler
from adaptive_diffusion.sampling.starts import FromPicture, last_timesteps
from adaptive_diffusion.schedulers.classes import DDIMScheduler, DPMSolverScheduler

PROMPT = "the lake in An"
NEGATIVE = "lake, 3 an"
STEPS = 5
GUIDANCE = 4.0
TOLERANCE = 1e-3  # of images in [-1, 1]; float32 leaves a hundredth of it
TEXT = ["sd1", "sd2", "sdxl"]
PROMPTS = [
    "a lake",
    "",
    "the lake, " * 40,
    "Über 3 lakes",
    "a lake!",
    "wow!!",
    "! !! lake!!!an",
    "a <|endoftext|> lake",
]
SOLVERS = ["ddim", "dpm"]


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """Their pipelines."""
    return {kind: build() for kind, build in PIPELINES.items()}


@pytest.fixture(scope="module")
def folders(theirs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Their folders."""
    root = tmp_path_factory.mktemp("pipelines")
    for kind, pipeline in theirs.items():
        pipeline.save_pretrained(root / kind)
    return {kind: root / kind for kind in theirs}


def noise(model: Any) -> np.ndarray:
    return normal(2, *model.state_shape)


def our_scheduler(model: Any, solver: str) -> Any:
    known = model.metadata
    options: dict[str, Any] = {
        **known["noise_schedule"],
        "prediction_type": known["prediction_type"],
        "clip_sample": known.get("bounded", True),
    }

    if solver == "dpm":
        return DPMSolverScheduler(**options)

    # with five leading steps diffusers' DDIM meets its own grid
    return DDIMScheduler(**options, timestep_spacing="leading", steps_offset=1)


def their_scheduler(pipeline: Any, solver: str) -> Any:
    if solver == "dpm":
        return diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    # set_alpha_to_one: they return the last state, which is the clean prediction then, as ours always is
    return diffusers.DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=True, clip_sample=False
    )


def our_pictures(model: Any, solver: str, guidance: float = GUIDANCE) -> np.ndarray:
    """Two images in [-1, 1]."""
    scheduler = our_scheduler(model, solver)
    scheduler.set_timesteps(STEPS)
    condition = mx.array([model.condition("general", None, PROMPT)] * 2)
    denoiser = scheduler.guided(model, None, guidance)
    x0 = StandardSampler(scheduler).run(denoiser, mx.array(noise(model)), condition=condition).images

    return np.clip(np.array(model.decode(x0)), -1, 1)


def their_pictures(pipeline: Any, solver: str, negative: str | None = NEGATIVE, guidance: float = GUIDANCE) -> Any:
    channels, side = pipeline.unet.config.in_channels, pipeline.unet.config.sample_size
    pipeline.set_progress_bar_config(disable=True)

    before, pipeline.scheduler = pipeline.scheduler, their_scheduler(pipeline, solver)
    try:
        with inference():
            pictures = pipeline(
                [PROMPT] * 2,
                negative_prompt=None if negative is None else [negative] * 2,
                guidance_scale=guidance,
                latents=nchw(normal(2, side, side, channels)),
                num_inference_steps=STEPS,
                output_type="pt",
            ).images
    finally:
        pipeline.scheduler = before

    return nhwc(pictures) * 2 - 1


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    assert np.abs(b).mean() > 0.1
    assert np.mean(np.abs(b) < 1) > 0.5, "most of it must not be clipped"
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", TEXT)
def test_text_to_image_agrees(kind: str, solver: str, folders: dict[str, Path], theirs: dict[str, Any]) -> None:
    ours = load_pipeline(str(folders[kind]), negative_prompt=NEGATIVE)
    assert isinstance(ours, LatentPipeline)
    assert difference(our_pictures(ours, solver), their_pictures(theirs[kind], solver)) < TOLERANCE


@pytest.mark.parametrize("kind", TEXT)
def test_without_a_negative_prompt_and_without_guidance_it_agrees(
    kind: str, folders: dict[str, Path], theirs: dict[str, Any]
) -> None:
    ours = load_pipeline(str(folders[kind]))
    assert difference(our_pictures(ours, "ddim"), their_pictures(theirs[kind], "ddim", None)) < TOLERANCE
    plain = their_pictures(theirs[kind], "ddim", None, guidance=1.0)
    assert difference(our_pictures(ours, "ddim", guidance=1.0), plain) < TOLERANCE


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_pixel_pipeline_agrees(solver: str, folders: dict[str, Path], theirs: dict[str, Any]) -> None:
    ours: Any = load_pipeline(str(folders["ddpm"]), draws="general")
    scheduler = our_scheduler(ours, solver)
    scheduler.reconfigure(clip_sample=False)
    unet, reference = theirs["ddpm"].unet, their_scheduler(theirs["ddpm"], solver)
    reference.set_timesteps(STEPS)

    x = nchw(noise(ours))
    with inference():
        for t in reference.timesteps:
            x = reference.step(unet(x, t).sample, t, x).prev_sample

    scheduler.set_timesteps(STEPS)
    x0 = StandardSampler(scheduler).run(ours, mx.array(noise(ours))).images
    assert ours.decode(x0) is x0
    assert relative_error(x0, nhwc(x)) < 1e-4  # without a text and clipping, random networks draw large numbers


def wrong_padding(model: Any) -> None:
    for encoder in model._encoders:
        encoder.tokenizer.pad_id = 5


def wrong_layer(model: Any) -> None:
    model._encoders = [lambda texts, e=e: [_last_but_one_replaced(one) for one in e(texts)] for e in model._encoders]


def _last_but_one_replaced(output: Any) -> Any:
    states = (*output.hidden_states[:-2], output.hidden_states[-1], output.hidden_states[-1])
    return type(output)(output.last_hidden_state, states, output.pooler_output, output.text_embeds)


def swapped_encoders(model: Any) -> None:
    encode = model._encode

    def swapped() -> Any:
        return {i: replace(text, states=mx.roll(text.states, 32, axis=-1)) for i, text in encode().items()}

    model._encode = swapped


def other_sizes(model: Any) -> None:
    model.picture_size = (32, 16)
    decode = model.decode
    model.decode = lambda x0: (setattr(model, "picture_size", (16, 16)), decode(x0))[1]


def empty_null(model: Any) -> None:
    model._null = ("", False)


def unscaled(model: Any) -> None:
    model._unscaled = lambda latents: latents


def epsilon(model: Any) -> None:
    model.metadata["prediction_type"] = "epsilon"


def linear_betas(model: Any) -> None:
    model.metadata["noise_schedule"] = {**model.metadata["noise_schedule"], "beta_schedule": "linear"}


def no_negative(model: Any) -> None:
    model._texts[0] = ""


MUTATIONS: list[tuple[str, str | None, Callable[[Any], None]]] = [
    ("sd1", NEGATIVE, wrong_padding),
    ("sd1", NEGATIVE, no_negative),
    ("sd1", NEGATIVE, unscaled),
    ("sd1", NEGATIVE, linear_betas),
    ("sd2", NEGATIVE, wrong_padding),
    ("sd2", NEGATIVE, epsilon),
    ("sdxl", NEGATIVE, wrong_layer),
    ("sdxl", NEGATIVE, swapped_encoders),
    ("sdxl", NEGATIVE, other_sizes),
    ("sdxl", None, empty_null),
]


@pytest.mark.parametrize(
    ("kind", "negative", "mutate"), MUTATIONS, ids=[f"{kind}-{mutate.__name__}" for kind, _, mutate in MUTATIONS]
)
def test_the_tolerance_notices_faults(
    kind: str,
    negative: str | None,
    mutate: Callable[[Any], None],
    folders: dict[str, Path],
    theirs: dict[str, Any],
) -> None:
    ours: Any = load_pipeline(str(folders[kind]), negative_prompt=negative)
    mutate(ours)
    assert difference(our_pictures(ours, "ddim"), their_pictures(theirs[kind], "ddim", negative)) > 3 * TOLERANCE


def test_standardised_latents_agree(tmp_path: Path) -> None:
    pipeline = stable_diffusion_xl()
    pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 1.0, 0.8, 1.2])
    pipeline.save_pretrained(tmp_path)
    ours: Any = load_pipeline(str(tmp_path), negative_prompt=NEGATIVE)
    assert difference(our_pictures(ours, "dpm"), their_pictures(pipeline, "dpm")) < TOLERANCE


def test_image_to_image_agrees(folders: dict[str, Path], theirs: dict[str, Any]) -> None:
    ours: Any = load_pipeline(str(folders["sd1"]), negative_prompt=NEGATIVE)
    clean, strength = normal(2, *ours.state_shape, seed=3), 0.6
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**theirs["sd1"].components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)

    pipeline.scheduler = their_scheduler(theirs["sd1"], "ddim")
    with inference():
        expected = pipeline(
            [PROMPT] * 2,
            image=nchw(clean),  # four channels: taken for latents
            strength=strength,
            negative_prompt=[NEGATIVE] * 2,
            guidance_scale=GUIDANCE,
            num_inference_steps=STEPS,
            generator=torch.manual_seed(0),
            output_type="pt",
        ).images

    drawn = torch.randn(2, 4, 8, 8, generator=torch.manual_seed(0))
    scheduler = our_scheduler(ours, "ddim")
    scheduler.set_timesteps(STEPS)
    last_timesteps(scheduler, strength)
    sampler, x_T = StandardSampler(scheduler), FromPicture(mx.array(clean), scheduler)(mx.array(nhwc(drawn)))
    condition = mx.array([ours.condition("general", None, PROMPT)] * 2)
    x0 = sampler.run(scheduler.guided(ours, None, GUIDANCE), x_T, condition=condition).images
    assert len(scheduler) == 3
    assert difference(np.clip(np.array(ours.decode(x0)), -1, 1), nhwc(expected) * 2 - 1) < TOLERANCE


@pytest.mark.parametrize("standardised", [False, True])
def test_pictures_are_encoded_as_diffusers_does(standardised: bool, tmp_path: Path) -> None:
    pipeline = stable_diffusion_xl()
    mean, std = np.array([0.1, -0.2, 0.3, 0.0]), np.array([0.5, 1.0, 0.8, 1.2])

    if standardised:
        pipeline.vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())

    pipeline.save_pretrained(tmp_path)
    ours: Any = load_pipeline(str(tmp_path))

    x = np.clip(normal(2, 16, 16, 3), -1, 1)
    with inference():
        latents = nhwc(pipeline.vae.encode(nchw(x)).latent_dist.mode())

    expected = ((latents - mean) / std if standardised else latents) * 0.13025
    found = ours.encode(mx.array(x))
    assert relative_error(found, expected) < 2e-5
    assert relative_error(ours._unscaled(found), latents) < 2e-5


def test_decoding_in_pieces_changes_nothing(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ours: Any = load_pipeline(str(folders["sd1"]))
    latents = mx.array(normal(3, *ours.state_shape))
    whole = ours.decode(latents)
    monkeypatch.setattr(pipelines, "DECODED_AT_ONCE", 2 * 16 * 16)
    assert np.abs(np.array(ours.decode(latents)) - np.array(whole)).max() < 1e-5


def test_prompts_become_the_ids_that_diffusers_gives_its_encoders(
    folders: dict[str, Path], theirs: dict[str, Any]
) -> None:
    for kind in TEXT:
        ours: Any = load_pipeline(str(folders[kind]))
        names = ["tokenizer", "tokenizer_2"][: len(ours._encoders)]
        for encoder, name in zip(ours._encoders, names, strict=True):
            assert encoder.tokenizer(PROMPTS).tolist() == their_ids(getattr(theirs[kind], name))


def their_ids(tokenizer: Any) -> list[list[int]]:
    return tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True).input_ids


def old_tokenizer(folder: Path, pad: str | None, pad_in_map: str | None, listed: bool) -> None:
    """Write a tokenizer as transformers before 5 did; `listed`: with the added tokens in the configuration."""
    tokens, merges = vocabulary()
    start, end = (
        {"content": f"<|{word}|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for word in ("startoftext", "endoftext")
    )
    known = {"bos_token": start, "eos_token": end, "unk_token": end}
    settings = {key: {"__type": "AddedToken", **token} for key, token in known.items()}
    settings |= {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"} | ({"pad_token": pad} if pad else {})

    if listed:
        special = [{**token, "normalized": False, "special": True} for token in (start, end)]
        settings["added_tokens_decoder"] = {str(tokens[token["content"]]): token for token in special}

    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    if pad_in_map:
        (folder / "special_tokens_map.json").write_text(json.dumps(known | {"pad_token": pad_in_map}))


END = "<|endoftext|>"
OLD = [
    (END, "!", False, "!"),  # as in Stable Diffusion 2: the map wins
    ("!", END, False, END),
    (END, "!", True, END),  # the configuration wins where it lists the added tokens
    ("!", "!", True, "!"),
    (None, "!", False, "!"),
    ("!", None, False, "!"),
    (END, END, False, END),  # as in Stable Diffusion 1
]


@pytest.mark.parametrize(("pad", "pad_in_map", "listed", "expected"), OLD)
def test_old_files_of_a_tokenizer_give_the_ids_that_transformers_gives(
    pad: str | None, pad_in_map: str | None, listed: bool, expected: str, tmp_path: Path
) -> None:
    old_tokenizer(tmp_path, pad, pad_in_map, listed)
    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert reference.pad_token == expected
    assert PromptTokenizer(tmp_path, 77)(PROMPTS).tolist() == their_ids(reference)


@pytest.mark.parametrize("pad_in_map", [None, "!"])
def test_a_padding_token_that_the_tokenizer_did_not_list_is_one_token_too(
    pad_in_map: str | None, tmp_path: Path
) -> None:
    tokenizer().save_pretrained(tmp_path)
    if pad_in_map:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad_in_map}))
    else:
        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "!"}))

    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert reference.pad_token == "!"
    assert PromptTokenizer(tmp_path, 77)(PROMPTS).tolist() == their_ids(reference)


ADDED = {
    "<toy>": {},
    "Word": {"normalized": True},
    "|l|": {"lstrip": True},
    "|r|": {"rstrip": True},
    "solo": {"single_word": True},
}
ADDED_PROMPTS = [
    *(
        "a <toy> lake",
        "the<toy>the",
        "a word, a WORD",
        "a Word!",
        "lake |l| lake",
        "lake  |r|  lake",
        "solo lakes",
        "lakesolo",
    ),
    *("<toy>", "<toy><toy> solo", "an |L| a"),
]


def with_added_tokens(folder: Path, listed: bool) -> None:
    """An old tokenizer with tokens of a textual inversion; `listed`: with their options, in the configuration."""
    old_tokenizer(folder, END, None, listed)
    first = len(vocabulary()[0])

    if not listed:
        (folder / "added_tokens.json").write_text(json.dumps({text: first + i for i, text in enumerate(ADDED)}))
        return

    settings = json.loads((folder / "tokenizer_config.json").read_text())
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    new = {str(first + i): {**plain, "content": text, **flags} for i, (text, flags) in enumerate(ADDED.items())}
    settings["added_tokens_decoder"] |= new
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("listed", [False, True])
def test_added_tokens_are_single_tokens_as_in_transformers(listed: bool, tmp_path: Path) -> None:
    with_added_tokens(tmp_path, listed)
    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    ours = PromptTokenizer(tmp_path, 77)
    expected = reference(ADDED_PROMPTS, padding="max_length", max_length=77, truncation=True).input_ids
    assert ours(ADDED_PROMPTS).tolist() == expected
    assert ours.vocab_size == len(vocabulary()[0]) + len(ADDED)


def test_added_tokens_with_other_numbers_are_refused(tmp_path: Path) -> None:
    old_tokenizer(tmp_path, END, None, False)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<toy>": 7}))
    with pytest.raises(ValueError, match="'<toy>' as token 7"):
        PromptTokenizer(tmp_path, 77)

    (tmp_path / "added_tokens.json").write_text(json.dumps({"<toy>": "many"}))
    with pytest.raises(ValueError, match="added tokens in an unknown way"):
        PromptTokenizer(tmp_path, 77)


def test_a_tokenizer_with_more_tokens_than_its_encoder_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["sd1"], tmp_path / "sd1")
    tokens = tokenizer()
    tokens.add_tokens(["<toy>"])
    tokens.save_pretrained(folder / "tokenizer")
    with pytest.raises(ValueError, match="different models"):
        load_pipeline(str(folder))


def test_an_encoder_of_fewer_layers_than_its_file_encodes_as_transformers_does(tmp_path: Path) -> None:
    text_encoder().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 1}))
    reference, ours = transformers.CLIPTextModel.from_pretrained(tmp_path), load_diffusers(tmp_path)
    with torch.no_grad():
        expected = reference(torch.tensor([[1, 2, 3]])).last_hidden_state.numpy()

    np.testing.assert_allclose(np.array(ours(mx.array([[1, 2, 3]])).last_hidden_state), expected, atol=1e-5)


@pytest.mark.parametrize("name", sorted(trained_noise.CLASSES))
def test_missing_settings_of_a_scheduler_are_its_defaults(name: str, tmp_path: Path) -> None:
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    found = trained_noise.read_trained_noise(tmp_path)
    values = {**found["noise_schedule"], "prediction_type": found["prediction_type"]}

    arguments = inspect.signature(getattr(diffusers, name).__init__).parameters
    if "beta_start" not in arguments:
        pytest.skip(f"this {name} needs another package")

    absent = {"rescale_betas_zero_snr": False}
    expected = {key: arguments[key].default if key in arguments else absent[key] for key in values}
    assert values == expected


def test_the_schedule_is_that_of_the_file(folders: dict[str, Path]) -> None:
    ours: Any = load_pipeline(str(folders["sd1"]))
    reference = diffusers.PNDMScheduler.from_pretrained(folders["sd1"], subfolder="scheduler")
    ours_cumprod = our_scheduler(ours, "ddim").schedule.alphas_cumprod
    np.testing.assert_allclose(ours_cumprod, reference.alphas_cumprod.numpy(), rtol=2e-5)


def test_half_precision_and_quantised_layers_predict_nearly_the_same(folders: dict[str, Path]) -> None:
    names = ("float32", "float16", "8bit", "4bit", "low_memory")
    ours: dict[str, Any] = {name: load_pipeline(str(folders["sd1"]), precision=name) for name in names}
    x, t = mx.array(noise(ours["float32"])), mx.array([500.0, 20.0])

    found = {}
    for name, model in ours.items():
        found[name] = np.array(model(x, t, mx.array([model.condition("general", None, PROMPT)] * 2)))

    assert all(prediction.dtype == np.float32 for prediction in found.values())
    errors = {name: float(np.abs(found[name] - found["float32"]).mean()) for name in names}
    assert 0 < errors["float16"] < errors["8bit"] < errors["4bit"] < 0.3
    assert errors["8bit"] < errors["low_memory"] < errors["4bit"]
    assert len({model.identity for model in ours.values()}) == len(names)


def test_files_in_half_precision_are_taken_where_they_do(tmp_path: Path) -> None:
    pipeline = stable_diffusion()
    pipeline.to(dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.glob("unet/diffusion_pytorch_model.safetensors"))
    ours: Any = load_pipeline(str(tmp_path), precision="float16")
    assert ours.decode(ours(mx.zeros((1, 8, 8, 4)), mx.array([500.0]))).dtype == mx.float32


@pytest.mark.weights
def test_the_published_cifar10_model_draws_what_diffusers_says_it_draws() -> None:
    """The values of diffusers' own slow test of its DDIM pipeline, for the noise of torch's seed 0."""
    try:
        model: Any = load_pipeline("google/ddpm-cifar10-32", "267b167dc01f0e4e61923ea244e8b988f84deb80")
    except ValueError as error:
        pytest.skip(f"{error}; to fetch it: HF_HUB_OFFLINE=0 pytest -m weights")

    scheduler = DDIMScheduler(timestep_spacing="leading")
    scheduler.set_timesteps(50)
    x_T = torch.randn(1, 3, 32, 32, generator=torch.manual_seed(0))
    x0 = StandardSampler(scheduler).run(model, mx.array(nhwc(x_T))).images
    corner = np.array(x0)[0, -3:, -3:, -1].flatten() / 2 + 0.5
    expected = [0.1723, 0.1617, 0.1600, 0.1626, 0.1497, 0.1513, 0.1505, 0.1442, 0.1453]
    np.testing.assert_allclose(corner, expected, atol=1e-2)
