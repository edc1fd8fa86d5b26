"""The encoder's files, features and distances; what the shipped one can do."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_encoder

from adaptive_diffusion.encoder.encoder import (
    BUILTIN_ENCODER,
    SHARPNESS_FLOOR,
    Encoder,
    load_builtin_encoder,
    load_encoder,
    save_encoder,
    sharpness,
)
from adaptive_diffusion.encoder.network import EncoderConfig
from adaptive_diffusion.metrics.frechet import frechet_distance

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(-1, 1, (5, 8, 8, 3)).astype(np.float32)


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    digest = save_encoder(tmp_path / "e.safetensors", encoder.network, {"words_hash": encoder.words.content_hash})
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert loaded.content_hash == digest
    assert loaded.config == encoder.config
    np.testing.assert_allclose(loaded.features(PICTURES), encoder.features(PICTURES), atol=5e-3)  # float16 in the file


def test_other_word_vectors_than_those_it_was_trained_with_are_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path / "e.safetensors", tiny_encoder().network, {"words_hash": "other"})
    with pytest.raises(ValueError, match="other word vectors"):
        load_encoder(tmp_path / "e.safetensors")


def test_a_diffusion_model_is_no_encoder() -> None:
    with pytest.raises(ValueError, match="training the encoder"):
        load_encoder(BUILTIN_ENCODER.with_name("model.safetensors"))


def test_features_do_not_depend_on_the_batch_a_picture_is_in() -> None:
    encoder = tiny_encoder()
    one_by_one = np.concatenate([encoder.features(p[None]) for p in PICTURES])
    np.testing.assert_allclose(encoder.features(PICTURES, batch_size=2), one_by_one, rtol=1e-4, atol=1e-5)


def test_bytes_and_floats_are_the_same_pictures() -> None:
    pixels = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    encoder = tiny_encoder()
    np.testing.assert_array_equal(encoder.features(pixels), encoder.features(pixels / np.float32(127.5) - 1))


def test_pictures_of_another_size_are_resized() -> None:
    larger = np.repeat(np.repeat(PICTURES, 2, axis=1), 2, axis=2)
    assert tiny_encoder().features(larger).shape == (5, 6)


def test_embeddings_are_unit_vectors_and_scores_lie_between_minus_and_plus_100() -> None:
    encoder = tiny_encoder()
    for e in (encoder.image_embeddings(PICTURES), encoder.text_embeddings(["a cat", "the sea"])):
        np.testing.assert_allclose(np.linalg.norm(e, axis=1), 1, atol=1e-3)
    assert np.abs(encoder.scores(PICTURES, "a cat")).max() <= 100


@pytest.mark.parametrize(
    ("captions", "message"),
    [("a cat", "list"), ([], "none"), (["", "a cat"], "contain a word"), (["123"], "contain a word")],
)
def test_unfit_captions_get_a_sentence(captions, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder().text_embeddings(captions)


def test_the_perceptual_distance_is_symmetric_and_zero_for_equal_pictures() -> None:
    encoder, other = tiny_encoder(), PICTURES[::-1].copy()
    assert encoder.perceptual_distances(PICTURES, PICTURES).max() == pytest.approx(0, abs=1e-6)
    forth, back = encoder.perceptual_distances(PICTURES, other), encoder.perceptual_distances(other, PICTURES)
    np.testing.assert_allclose(forth, back, rtol=1e-5)
    assert forth.max() > 0.01


def test_the_perceptual_distance_is_its_definition() -> None:
    encoder = tiny_encoder()
    a, b = PICTURES[:1], PICTURES[1:2]
    total = 0.0

    pairs = zip(encoder.network.stages(mx.array(a)), encoder.network.stages(mx.array(b)), strict=True)
    for u, v in ((np.array(u), np.array(v)) for u, v in pairs):
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (u, v)]
        total += ((unit[0] - unit[1]) ** 2).sum(axis=-1).mean()

    assert encoder.perceptual_distances(a, b)[0] == pytest.approx(total, rel=1e-3)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of images"):
        tiny_encoder().perceptual_distances(PICTURES, PICTURES[:2])


@pytest.mark.parametrize(("size", "widths", "message"), [(12, (4, 4, 4), "multiple of 8"), (4, (4,), "at least 6")])
def test_an_impossible_architecture_is_refused(size: int, widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(("a", "b"), image_size=size, widths=widths)


@pytest.mark.parametrize("side", [6, 34])
def test_images_that_can_be_halved_but_once_have_a_sharpness(side: int) -> None:
    assert np.isfinite(np.array(sharpness(mx.array(RNG.uniform(-1, 1, (2, side, side, 3)).astype(np.float32))))).all()


def test_the_shipped_files_are_small_enough() -> None:
    encoder = load_builtin_encoder()
    words = BUILTIN_ENCODER.with_name("words.safetensors")
    assert BUILTIN_ENCODER.stat().st_size + words.stat().st_size <= 8e6
    assert isinstance(encoder, Encoder)


def test_the_distance_between_sets_sees_blur_and_noise() -> None:
    encoder = load_builtin_encoder()
    side = encoder.config.image_size
    coarse = RNG.uniform(-0.3, 0.3, (200, side // 4, side // 4, 3)).astype(np.float32)
    sharp = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    blurred = (2 * sharp + np.roll(sharp, 1, 1) + np.roll(sharp, 1, 2)) / 4
    noisy = np.clip(sharp + 0.08 * RNG.standard_normal(sharp.shape), -1, 1).astype(np.float32)
    first, second, *others = (encoder.features(x) for x in (sharp[:100], sharp[100:], blurred[100:], noisy[100:]))
    same = frechet_distance(first, second)
    assert min(frechet_distance(first, other) for other in others) > 1.5 * same


def test_sharpness_is_the_mean_laplacian_at_two_scales() -> None:
    ramp = np.tile(np.linspace(-1, 1, 8, dtype=np.float32)[:, None, None], (1, 1, 8, 3))[:, None].reshape(1, 8, 8, 3)
    checker = np.indices((8, 8)).sum(axis=0) % 2 * 2.0 - 1
    checker = np.repeat(checker[None, :, :, None], 3, axis=-1).astype(np.float32)
    values = np.array(sharpness(mx.array(np.concatenate([ramp, checker]))))
    flat = np.log(SHARPNESS_FLOOR)
    np.testing.assert_allclose(values[0], [flat, flat], atol=1e-3)  # a ramp has no second differences
    np.testing.assert_allclose(values[1], [np.log(8 + SHARPNESS_FLOOR), flat], atol=1e-3)  # and is grey when halved
