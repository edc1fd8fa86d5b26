"""The shipped word vectors: how text becomes tokens, and that they carry meaning."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from adaptive_diffusion.encoder.words import BUILTIN_WORDS, load_words, save_words
from tools.words import reduce, select, wanted_words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The old Fisherman", ["the", "old", "fisherman"]),
        ("a café, a trêpe-stand!", ["a", "cafe", "a", "stand"]),  # an unknown word beside known ones is left out
        ("a trêpe", ["a", "tre", "##pe"]),
        ("trilobites", ["trilobite"]),  # a word of the labels, and an ending
        ("the artist's studio", ["the", "artist", "studio"]),
        ("zoologies", ["zoology"]),
        ("headspot", ["heads", "##pot"]),
        ("3 apples, 12 kg", ["apples", "kg"]),
        ("", []),
        ("123 !?", []),
    ],
)
def test_text_becomes_known_words_stems_or_pieces(text: str, tokens: list[str]) -> None:
    assert load_words().tokens(text) == tokens


def test_what_is_known_is_told_from_what_is_only_spelt() -> None:
    words = load_words()
    assert words.knows("a mountain lake of xyzzy")
    assert not words.knows("xyzzy")
    assert not words.knows("the trêpe")
    assert not words.has_meaning("the of and")


@pytest.mark.parametrize(
    ("word", "near", "far"),
    [
        ("sunset", "sunrise", "leather"),
        ("fisherman", "sailor", "marble"),
        ("senator", "politician", "banana"),
        ("brick", "concrete", "smile"),
        ("guitar", "violin", "glacier"),
        ("forest", "woods", "telephone"),
    ],
)
def test_words_of_one_kind_are_closer_than_others(word: str, near: str, far: str) -> None:
    a, b, c = load_words().text_vectors([word, near, far])
    assert a @ b > a @ c + 0.1


def test_common_words_hardly_count() -> None:
    plain, wordy = load_words().text_vectors(["mountain lake", "there is a mountain and there is the lake"])
    assert plain @ wordy > 0.9


def test_texts_are_unit_vectors_and_do_not_depend_on_their_company() -> None:
    words = load_words()
    together = words.text_vectors(["a cat", "the sea"])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(together[1], words.text_vectors(["the sea"])[0])


def test_the_shipped_table_fits_its_budget_and_names_its_source() -> None:
    assert BUILTIN_WORDS.stat().st_size <= 2e6
    assert load_words().metadata["licence"] == "Apache-2.0"
    assert "MiniLM" in load_words().metadata["source"]


def test_a_table_comes_back_up_to_eight_bits(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5))
    save_words(tmp_path / "w.safetensors", ["cat", "dog", "##s"], vectors, {"source": "made up"})
    words = load_words(tmp_path / "w.safetensors")
    assert words.tokens("cats dogs") == ["cat", "dog"]
    expected = vectors[0] / np.linalg.norm(vectors[0])
    np.testing.assert_allclose(words.text_vectors(["cat"])[0], expected, atol=0.02)


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no word vectors"):
        load_words(tmp_path / "none.safetensors")

    with pytest.raises(ValueError, match="holds no word vectors"):
        load_words(BUILTIN_WORDS.with_name("model.safetensors"))

    tensors, header = mx.load(str(BUILTIN_WORDS), return_metadata=True)
    tensors["scales"] = tensors["scales"] * 2
    mx.save_safetensors(str(tmp_path / "changed.safetensors"), tensors, header)

    with pytest.raises(ValueError, match="changed after it was written"):
        load_words(tmp_path / "changed.safetensors")


def test_the_vocabulary_keeps_words_and_pieces_and_counts_by_rank() -> None:
    tokens, frequencies = select(["[PAD]", "##ing", "the", "b", "cat", "über", "1999"])
    assert tokens == ["the", "cat", "##ing", "b"]
    assert frequencies[0] == 2 * frequencies[1]


def test_words_of_prompts_are_wanted_beside_those_of_labels_and_captions() -> None:
    wanted = wanted_words()
    assert {"croissant", "watercolour", "trilobite", "gentleman"} <= wanted
    assert all(word.isascii() and word.isalpha() and word.islower() for word in wanted)


def test_reduction_keeps_what_lies_in_the_components_after_the_first() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 3)))[0].T
    samples = rng.normal(size=(50, 3))
    parts = np.linalg.qr(samples - samples.mean(axis=0))[0] * [9.0, 5.0, 3.0]  # uncorrelated, the first one the largest
    reduced = reduce(5.0 + parts @ axes, 2)
    kept = parts[:, 1:] * np.sqrt(50 / (25 + 9))  # mean square length 1
    np.testing.assert_allclose(reduced @ reduced.T, kept @ kept.T, atol=1e-8)
