"""`python -m adaptive_diffusion.build.words --model FOLDER`: distil word vectors from a sentence model.

In the manner of Model2Vec (Tulkens & van Dongen, 2024): every token goes through all-MiniLM-L6-v2 alone, and
the results are centred, reduced by principal components, and weighted by how rare the token is (Arora et al., 2017).
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..metrics.captions import SUBJECTS
from ..metrics.words import BUILTIN_WORDS, save_words
from ..models.checkpoint import load_builtin_model

DIMENSION = 64
SIF = 1e-3  # a of the weight a / (a + p), p being the frequency of the token
PIECE_FREQUENCY = 1e-4  # of letters and continuation pieces, whose rank in the vocabulary says nothing
_BATCH = 256


def main(argv: list[str] | None = None) -> None:
    """Make the table and write it."""
    parser = argparse.ArgumentParser(prog="adaptive_diffusion.build.words", description=__doc__)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2, in Hugging Face's layout"
    )
    parser.add_argument("--output", type=Path, default=BUILTIN_WORDS, help="the table, .safetensors")
    options = parser.parse_args(argv)
    try:
        vocabulary = (options.model / "vocab.txt").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise SystemExit(f"{options.model} is no model folder with a vocab.txt ({error.strerror})") from None

    tokens, frequencies = select(vocabulary)
    known = set(tokens)
    extra = [word for word in wanted_words() if word not in known]
    table = reduce(sentence_vectors(options.model, [t.removeprefix("##") for t in tokens] + extra), DIMENSION)
    weights = SIF / (SIF + np.concatenate([frequencies, np.full(len(extra), PIECE_FREQUENCY)]))
    source = {
        "source": "sentence-transformers/all-MiniLM-L6-v2 and its vocabulary (bert-base-uncased)",
        "licence": "Apache-2.0",
        "source_sha256": _sha256(options.model / "model.safetensors"),
        "method": f"Model2Vec: principal components, SIF weights with a = {SIF}",
    }
    save_words(options.output, tokens + extra, table * weights[:, None], source)
    size = options.output.stat().st_size / 1e6
    print(f"{len(tokens)} tokens of the vocabulary and {len(extra)} more words, {DIMENSION} dimensions, {size:.2f} MB")


def select(vocabulary: list[str]) -> tuple[list[str], np.ndarray]:
    """Alphabetic words and continuation pieces of a WordPiece vocabulary, and their frequencies.

    The vocabulary is ordered by frequency, so that Zipf's law gives that of the words.
    """
    words = [t for t in vocabulary if re.fullmatch("[a-z]{2,}", t)]
    rest = [t for t in vocabulary if re.fullmatch("[a-z]|##[a-z]+", t)]
    zipf = 1 / np.arange(1, len(words) + 1)
    return words + rest, np.concatenate([zipf / zipf.sum(), np.full(len(rest), PIECE_FREQUENCY)])


def wanted_words() -> list[str]:
    """The words of the model's labels and of the captions, sorted."""
    labels = load_builtin_model().metadata["labels"]
    texts = [name for names in labels.values() for name in names] + [w for words in SUBJECTS.values() for w in words]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())})


def sentence_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """(N, 384) float32 unit vectors of texts: the mean over all tokens, as sentence-transformers takes it."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise UserError(f"this build step needs {error.name}: pip install -e '.[test]'") from error
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(texts[start : start + _BATCH], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state
            parts.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    vectors = np.concatenate(parts)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reduce(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """(N, d) -> (N, dimension): centred, projected onto the first principal components."""
    centred = vectors - vectors.mean(axis=0)
    _, _, components = np.linalg.svd(centred.T @ centred)
    return centred @ components[:dimension].T


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
