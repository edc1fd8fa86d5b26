"""CLIP against transformers: towers, tokenizer and image preparation, and proof that the tolerance notices faults."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from mlx.utils import tree_flatten
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from adaptive_diffusion.metrics import clip, clip_score
from adaptive_diffusion.metrics.clip_score import load_clip
from adaptive_diffusion.models.diffusers import clip_text

TOLERANCE = 5e-6  # relative to the largest feature; float32 leaves about 5e-7
LENGTH = 48  # tokens of a prompt at most; nearly every one is a single letter here

PROMPTS = [
    "a photograph of a mountain landscape",
    "A  Butterfly's wings,\n42 of them!",
    "déjà vu: naïve café 漢字 🦋",
    "x",
    "<|endoftext|> inside",
    "far too long " * 20,
]


def bytes_as_characters() -> list[str]:
    """GPT-2's visible stand-ins for the 256 byte values."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]


def tiny_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary built as CLIP's: bytes, bytes that end a word, merges, start, end."""
    letters = bytes_as_characters()
    merges = [("t", "h"), ("a", "n"), ("i", "n"), ("th", "e</w>"), ("o", "f</w>"), ("in", "g</w>")]
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]

    return {token: i for i, token in enumerate(tokens)}, merges


def save_model(folder: Path, act: str = "quick_gelu", legacy_end: bool = False, **options: Any) -> Path:
    """A tiny random CLIP with tokenizer and preparation, as save_pretrained writes them."""
    vocabulary, merges = tiny_vocabulary()
    end = vocabulary["<|endoftext|>"]
    common = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={
            **common, "vocab_size": len(vocabulary), "max_position_embeddings": LENGTH, "hidden_act": act,
            "bos_token_id": end - 1, "eos_token_id": 2 if legacy_end else end, "pad_token_id": end,
        },
        vision_config={**common, "num_attention_heads": 8, "image_size": 32, "patch_size": 8, "hidden_act": act},
        projection_dim=48,
    )  # fmt: skip
    torch.manual_seed(0)

    model = transformers.CLIPModel(config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)  # biases begin at 0 and norms at 1, where mix-ups go unnoticed

    model.save_pretrained(folder, **options)
    transformers.CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)

    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 57, 3), dtype=np.uint8)


@torch.inference_mode()
def expected(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """transformers' image features, prompt features and 100 x cosines."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    prepared = CLIPImageProcessorPil.from_pretrained(folder)(list(pixels), return_tensors="pt")
    pictures = model.get_image_features(**prepared).pooler_output
    ids = tokenizer(PROMPTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    texts = model.get_text_features(**ids).pooler_output
    a, b = (z.double() / z.double().norm(dim=1, keepdim=True) for z in (pictures, texts))

    return pictures.numpy(), texts.numpy(), (100 * a @ b.T).numpy()


def errors(folder: Path, pixels: np.ndarray) -> tuple[float, float]:
    pictures, texts, _ = expected(folder, pixels)
    ours = load_clip(folder)
    differences = (ours.features(pixels) - pictures, ours.text_features(PROMPTS) - texts)
    return tuple(float(np.abs(d).max() / np.abs(r).max()) for d, r in zip(differences, (pictures, texts), strict=True))


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("legacy_end", [False, True])
def test_both_towers_agree(act: str, legacy_end: bool, tmp_path: Path, pixels: np.ndarray) -> None:
    assert max(errors(save_model(tmp_path, act, legacy_end), pixels)) < TOLERANCE


def test_the_score_is_100_times_the_cosine_of_each_pair(folder: Path, pixels: np.ndarray) -> None:
    _, _, cosines = expected(folder, pixels)
    ours = load_clip(folder)
    np.testing.assert_allclose(ours.scores(pixels, PROMPTS[:3]), np.diag(cosines[:, :3]), atol=1e-3)
    np.testing.assert_allclose(ours.scores(pixels, PROMPTS[1]), cosines[:, 1], atol=1e-3)
    np.testing.assert_allclose(ours.scores(pixels, PROMPTS[1], batch_size=2), cosines[:, 1], atol=1e-3)


def edit(folder: Path, target: Path, name: str, change: Any) -> Path:
    """A copy of a model folder with one of its JSON files changed."""
    shutil.copytree(folder, target)
    content = json.loads((target / name).read_text())
    change(content)
    (target / name).write_text(json.dumps(content))

    return target


FAULTS = {
    "activation": lambda c: (c["text_config"].update(hidden_act="gelu"), c["vision_config"].update(hidden_act="gelu")),
    "eps": lambda c: (c["text_config"].update(layer_norm_eps=1e-6), c["vision_config"].update(layer_norm_eps=1e-6)),
    "heads": lambda c: (
        c["text_config"].update(num_attention_heads=8),
        c["vision_config"].update(num_attention_heads=4),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tolerance_notices_a_wrong_setting(fault: str, folder: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    wrong = load_clip(edit(folder, tmp_path / "wrong", "config.json", FAULTS[fault]))
    pictures, texts, _ = expected(folder, pixels)
    assert np.abs(wrong.features(pixels) - pictures).max() > 2 * TOLERANCE * np.abs(pictures).max()
    assert np.abs(wrong.text_features(PROMPTS) - texts).max() > 2 * TOLERANCE * np.abs(texts).max()


def test_the_tolerance_notices_the_tanh_approximation(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path, "gelu")
    monkeypatch.setitem(clip_text.ACTIVATIONS, "gelu", clip.nn.gelu_approx)
    assert min(errors(folder, pixels)) > 2 * TOLERANCE


def test_prompts_become_the_tokens_of_transformers_from_either_kind_of_file(folder: Path, tmp_path: Path) -> None:
    reference = transformers.CLIPTokenizer.from_pretrained(folder)
    wanted = reference(PROMPTS, truncation=True, max_length=LENGTH)["input_ids"]
    original = tmp_path / "original"
    original.mkdir()
    vocabulary, merges = tiny_vocabulary()
    (original / "vocab.json").write_text(json.dumps(vocabulary))
    (original / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    assert (folder / "tokenizer.json").is_file()

    for source in (folder, original):
        ids = clip_score.CLIPTokenizer(source, LENGTH)(PROMPTS)
        for row, tokens in zip(ids, wanted, strict=True):
            assert row[: len(tokens)].tolist() == tokens
            assert set(row[len(tokens) :]) <= {vocabulary["<|endoftext|>"]}


def test_a_prompt_does_not_depend_on_its_neighbours_and_cutting_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = load_clip(folder)
    alone = np.concatenate([ours.text_features([prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(ours.text_features(PROMPTS), alone, atol=1e-5 * np.abs(alone).max())
    caplog.clear()
    ours.text_features(PROMPTS[:1] * 2 + PROMPTS[-1:])
    assert [record.message for record in caplog.records] == ["1 of 3 prompts are longer than 48 tokens and were cut"]


@pytest.mark.parametrize("shape", [(40, 57), (57, 40), (32, 32), (16, 20), (300, 200)])
def test_pictures_are_prepared_as_by_transformers(shape: tuple[int, int], folder: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    wanted = CLIPImageProcessorPil.from_pretrained(folder)(list(pixels), return_tensors="np")["pixel_values"]
    ours = clip_score.read_preparation(folder, 32)(pixels)
    np.testing.assert_allclose(ours, wanted.transpose(0, 2, 3, 1), atol=1e-6)


def test_shards_pytorch_files_and_half_precision_are_read(folder: Path, tmp_path: Path, pixels: np.ndarray) -> None:
    whole = load_clip(folder).features(pixels)
    sharded = save_model(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(load_clip(sharded).features(pixels), whole)
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    state = transformers.CLIPModel.from_pretrained(folder).state_dict()
    state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]  # old files carry it
    torch.save(state, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    np.testing.assert_array_equal(load_clip(old).features(pixels), whole)
    torch.save({k: v.half() for k, v in state.items()}, old / "pytorch_model.bin")
    np.testing.assert_allclose(load_clip(old).features(pixels), whole, atol=5e-3 * np.abs(whole).max())


def test_only_openai_and_openclip_models_make_a_clip_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray
) -> None:
    ours = load_clip(folder)
    assert (ours.metric_name, ours.name) == ("clip_similarity", f"clip/{folder.name}")
    monkeypatch.setattr(clip_score, "model_folder", lambda source: folder)
    assert load_clip("someone/finetuned").metric_name == "clip_similarity"
    known = load_clip("openai/clip-vit-base-patch32")
    assert (known.metric_name, known.name) == ("clip_score", "clip/openai/clip-vit-base-patch32")
    assert known.content_hash == ours.content_hash


def test_the_same_weights_with_another_setting_are_another_encoder(folder: Path, tmp_path: Path) -> None:
    other = load_clip(edit(folder, tmp_path / "other", "config.json", FAULTS["activation"]))
    assert other.content_hash != load_clip(folder).content_hash


def test_what_is_no_clip_model_is_explained(folder: Path, tmp_path: Path) -> None:
    def refused(name: str, change: Any, message: str, part: str = "config.json") -> None:
        with pytest.raises(ValueError, match=message):
            load_clip(edit(folder, tmp_path / name, part, change))

    refused("kind", lambda c: c.update(model_type="siglip"), "model_type must be clip, got 'siglip'")
    refused("act", lambda c: c["text_config"].update(hidden_act="relu"), "'relu' is not supported, only quick_gelu")
    refused("ends", lambda c: c["text_config"].update(eos_token_id=[1, 2]), "eos_token_id must be a whole number")
    refused("width", lambda c: c["text_config"].update(hidden_size=128), r"does not fit CLIP.*shape")
    refused("depth", lambda c: c["text_config"].update(num_hidden_layers=3), r"lacks 'text_model\.encoder\.layers\.2")
    refused("vocabulary", lambda c: c["text_config"].update(vocab_size=99), "tokenizer has .* tokens, the model 99")
    settings = next(name for name in ("preprocessor_config.json", "processor_config.json") if (folder / name).exists())
    refused("resample", lambda c: c.update(resample=2), "not CLIP's", settings)
    refused(
        "size", lambda c: c.update(size=64, crop_size=64), "images of 64 pixels, but the network takes 32", settings
    )

    with pytest.raises(ValueError, match="no model folder"):
        load_clip(tmp_path / "absent")

    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"config\.json"):
        load_clip(tmp_path / "empty")


def test_a_hub_model_that_is_not_to_be_had_is_explained() -> None:
    with pytest.raises(ValueError, match=r"openai/clip-vit-base-patch32 .*HF_HUB_OFFLINE"):
        load_clip()


@pytest.mark.parametrize("prompts", ["", ["a", " "], []])
def test_empty_prompts_are_refused(prompts: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match="prompt"):
        load_clip(folder).scores(np.zeros((2, 32, 32, 3)), prompts)


def test_neither_torch_nor_transformers_is_imported(folder: Path) -> None:
    code = (
        "import sys, numpy as np; from adaptive_diffusion.metrics.clip_score import load_clip; "
        f"load_clip({str(folder)!r}).scores(np.zeros((1, 32, 32, 3)), 'a'); "
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_published_architectures_have_the_published_number_of_parameters() -> None:
    # 151,277,313 and 427,616,513 with logit_scale, which a score does not need.
    large = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}

    wide = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14,
    }  # fmt: skip
    for config, parameters in (
        ({"model_type": "clip"}, 151_277_313),
        ({"model_type": "clip", "projection_dim": 768, "text_config_dict": large, "vision_config": wide}, 427_616_513),
    ):
        model = clip.CLIPModel(clip.CLIPConfig.from_dict(config))
        assert sum(p.size for _, p in tree_flatten(model.parameters())) == parameters - 1
