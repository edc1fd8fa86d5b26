"""Static word vectors, the input of the caption tower.

They connect the few labels of the data with the rest of the language.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import UnusableFile
from ..io.files import ASSETS, atomic_path, parse_json
from ..io.tensor_file import read_tensors, write_tensors

FORMAT = "adaptive-diffusion/words/1"
BUILTIN_WORDS = ASSETS / "words.safetensors"
# A text with a shorter vector has only words such as "and"; the vector of "man" has length 0.3.
SHORTEST = 0.1
# Endings of an unknown word, and their replacements to find its stem.
_INFLECTIONS = (
    ("", "s"),
    ("ies", "y"),
    ("es", ""),
    ("s", ""),
    ("ied", "y"),
    ("ed", ""),
    ("ed", "e"),
    ("ing", ""),
    ("ing", "e"),
)


class WordVectors:
    """A table of vectors for words and for pieces that continue a word; such a piece begins with "##".

    Args:
        vocabulary: The tokens.
        vectors: (N, D) int8, a row for each token.
        scales: (D,) float32; a row times `scales` is the vector of a token.
        metadata: Source of the vectors, with `content_hash`.
    """

    def __init__(self, vocabulary: Sequence[str], vectors: np.ndarray, scales: np.ndarray, metadata: dict[str, Any]):
        self._index = {token: i for i, token in enumerate(vocabulary)}
        self._vectors, self._scales, self.metadata = vectors, scales, metadata

    @property
    def dimension(self) -> int:
        """Width D of the vectors."""
        return self._vectors.shape[1]

    @property
    def content_hash(self) -> str:
        """Hash of the vocabulary and the vectors."""
        return str(self.metadata["content_hash"])

    def tokens(self, text: str) -> list[str]:
        """Tokens of a text.

        A text with known words gives these words or their stems, and leaves out its unknown words. A text without known
        words gives the longest known pieces of its words (WordPiece; Wu et al., 2016), which carry little meaning.
        """
        if self.knows(text):
            return self._known(text)
        return [token for word in self._words(text) for token in self._pieces(word)]

    def knows(self, text: str) -> bool:
        """Whether a text has a known word with a meaning, so that its vector is reliable."""
        return self._length([token for token in self._known(text) if len(token) > 1]) > SHORTEST

    def _known(self, text: str) -> list[str]:
        return [token for word in self._words(text) if (token := self._stem(word)) is not None]

    @staticmethod
    def _words(text: str) -> list[str]:
        if not isinstance(text, str):
            raise ValueError(f"a prompt or caption must be a text, got {type(text).__name__}")

        # Remove accents: "Mn" are the combining marks.
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn").replace("'s", " ")
        return re.findall("[a-z]+", plain)

    def text_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32 unit vectors of texts: the direction of the sum of their token vectors.

        Rare tokens have longer vectors and so count more.

        Raises:
            ValueError: for a text without a word.
        """
        return np.stack([self._text_vector(text) for text in texts])

    def has_meaning(self, text: str) -> bool:
        """Whether a text has a vector: it needs a word other than "the" and the like."""
        return self._length(self.tokens(text)) > SHORTEST

    def _sum(self, tokens: Sequence[str]) -> np.ndarray:
        # Integer sums are exact, so the order of the tokens does not matter.
        rows = [self._index[token] for token in tokens]
        return np.asarray(self._vectors[rows].sum(axis=0, dtype=np.int64) * self._scales, np.float32)

    def _length(self, tokens: Sequence[str]) -> float:
        return float(np.linalg.norm(self._sum(tokens)))

    def _text_vector(self, text: str) -> np.ndarray:
        total = self._sum(self.tokens(text))
        length = float(np.linalg.norm(total))
        if not length > SHORTEST:
            raise ValueError(
                f"a text must contain a word with a meaning of its own, in latin letters, got {text[:60]!r}"
            )

        return total / np.float32(length)

    def _stem(self, word: str) -> str | None:
        """The word itself or its stem, if the table has it; else None."""
        if word in self._index:
            return word

        for ending, instead in _INFLECTIONS:
            stem = word.removesuffix(ending) + instead
            if word.endswith(ending) and len(stem) > 2 and stem in self._index:
                return stem

        return None

    def _pieces(self, word: str) -> list[str]:
        """The longest known pieces of a word, from left to right."""
        pieces: list[str] = []
        while word:
            prefix = "##" if pieces else ""
            end = next((n for n in range(len(word), 0, -1) if prefix + word[:n] in self._index), None)
            if end is None:  # the vocabulary lacks this letter
                word = word[1:]
                continue

            pieces.append(prefix + word[:end])
            word = word[end:]

        return pieces


def save_words(path: str | Path, vocabulary: Sequence[str], vectors: np.ndarray, metadata: dict[str, Any]) -> None:
    """Write a table of word vectors atomically, each column rounded to 8 bits.

    Args:
        path: Target, ending in `.safetensors`.
        vocabulary: The tokens, without line breaks.
        vectors: (N, D) floating point.
        metadata: Source of the vectors, JSON types.
    """
    scales = (np.abs(vectors).max(axis=0) / 127).astype(np.float32)
    arrays = {
        "vectors": np.rint(vectors / scales).astype(np.int8),
        "scales": scales,
        "vocabulary": np.frombuffer("\n".join(vocabulary).encode(), np.uint8),
    }

    header = {"format": FORMAT, "metadata": json.dumps(metadata), "content_hash": _hash(arrays)}
    with atomic_path(path) as temporary:
        write_tensors(temporary, {k: mx.array(v) for k, v in arrays.items()}, header)


@cache
def load_words(path: str | Path = BUILTIN_WORDS) -> WordVectors:
    """Read a table of word vectors, by default the shipped table.

    Raises:
        UnusableFile: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UnusableFile(f"there are no word vectors at {path}; make them: python -m tools.words")

    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise UnusableFile(f"{path} holds no word vectors of this project; give a file that tools.words wrote")

    arrays = {name: np.array(value) for name, value in tensors.items()}
    if _hash(arrays) != header.get("content_hash") or arrays.keys() != {"vectors", "scales", "vocabulary"}:
        raise UnusableFile(f"{path} was changed after it was written (its content hash does not match); get it again")

    vocabulary = arrays["vocabulary"].tobytes().decode().split("\n")
    try:
        metadata = {**parse_json(header["metadata"]), "content_hash": header["content_hash"]}
    except (ValueError, TypeError, KeyError) as error:
        raise UnusableFile(f"{path} does not say where its vectors come from; it is damaged, get it again") from error

    return WordVectors(vocabulary, arrays["vectors"], arrays["scales"], metadata)


def _hash(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())

    return digest.hexdigest()
