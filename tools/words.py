"""`python -m tools.words --model FOLDER`: distil word vectors from a sentence model.

In the manner of Model2Vec (Tulkens & van Dongen, 2024): every token goes through all-MiniLM-L6-v2 alone, and the
results are reduced by principal components and weighted by how rare the token is. The first component, which all texts
share, is dropped (Arora et al., 2017; Mu & Viswanath, 2018).
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_diffusion.encoder.captions import SUBJECTS
from adaptive_diffusion.encoder.words import BUILTIN_WORDS, save_words
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.models.checkpoint import load_builtin_model

DIMENSION = 64
SIF = 1e-3  # a of the weight a / (a + p), p being the frequency of the token
PIECE_FREQUENCY = 1e-4  # of letters, continuation pieces and added words, whose rank is unknown
VISUAL_WORDS = Path(__file__).with_name("visual_words.txt")  # words of prompts that the vocabulary lacks
_BATCH = 256


def main(argv: list[str]) -> None:
    """Make the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m tools.words", description=__doc__)
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2, in Hugging Face's layout"
    )
    parser.add_argument("--output", type=Path, default=BUILTIN_WORDS, help="the table, .safetensors")
    options = parser.parse_args(argv)

    try:
        vocabulary = (options.model / "vocab.txt").read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{options.model} is no model folder with a vocab.txt ({error.strerror})") from None

    tokens, frequencies = select(vocabulary)
    extra = sorted(wanted_words() - set(tokens))
    table = reduce(sentence_vectors(options.model, tokens, extra), DIMENSION)
    weights = SIF / (SIF + np.concatenate([frequencies, np.full(len(extra), PIECE_FREQUENCY)]))

    source = {
        "source": "sentence-transformers/all-MiniLM-L6-v2 and its vocabulary (bert-base-uncased)",
        "licence": "Apache-2.0",
        "source_sha256": _sha256(options.model / "model.safetensors"),
        "method": f"Model2Vec: principal components without the first, SIF weights with a = {SIF}",
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


def wanted_words() -> set[str]:
    """The words of the model's labels, of the captions, and of `VISUAL_WORDS`."""
    labels = load_builtin_model().metadata["labels"]
    texts = [name for names in labels.values() for name in names] + [w for words in SUBJECTS.values() for w in words]
    texts.append(VISUAL_WORDS.read_text(encoding="utf-8"))
    return {word for text in texts for word in re.findall("[a-z]+", text.lower())}


def sentence_vectors(folder: Path, tokens: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """(N, 384) float32 vectors of tokens of the vocabulary, pieces such as "##ing" included, and of further words.

    A vector is the mean over all positions, as in sentence-transformers, but keeps its length: tokens without much
    meaning have short vectors.
    """
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise UserError(f"this build step needs {error.name}: pip install -e '.[test]'") from error

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    texts = [[first, i, last] for i in tokenizer.convert_tokens_to_ids(list(tokens))]
    texts += tokenizer(list(words))["input_ids"]

    vectors = []
    with torch.no_grad():
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer.pad({"input_ids": texts[start : start + _BATCH]}, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            hidden = model(**batch).last_hidden_state
            vectors.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())

    return np.concatenate(vectors)


def reduce(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """(N, d) -> (N, dimension): centred, on the principal components after the first, of mean square length 1."""
    centred = vectors - vectors.mean(axis=0)
    _, _, components = np.linalg.svd(centred.T @ centred)  # the first is common to all texts
    reduced = centred @ components[1 : dimension + 1].T
    return reduced / np.sqrt(np.square(reduced).sum(axis=1).mean())


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    run_program(main)
