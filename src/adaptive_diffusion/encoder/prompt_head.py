"""The head that detects the domain of a prompt: logistic regression on word vectors, calibrated on prompts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import UnusableFile
from .captions import domain_caption, label_caption
from .words import WordVectors

CALIBRATION_PROMPTS = Path(__file__).with_name("calibration_prompts.csv")
_CAPTIONS = 1000  # generated captions of each domain
_LONGEST = 3  # phrases in the longest caption
_L2 = 1e-3


def fit_prompt_head(
    words: WordVectors, domains: Sequence[str], labels: Mapping[str, Sequence[str]], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the head on generated captions, then calibrate it on prompts that people write.

    Every domain has the same number of captions. The calibration fits one factor for all logits and a constant for each
    domain (Guo et al., 2017). It is needed for two reasons: captions are much easier than prompts, and `general` has
    the most varied words, so without it most unknown prompts would be detected as `general`.

    Args:
        words: The word vectors.
        domains: Names of the domains, keys of `captions.SUBJECTS`.
        labels: Labels of each domain; a domain may have none.
        seed: Seed of the captions.

    Returns:
        (K, D) weight and (K,) bias of the logits `vector @ weight.T + bias`.
    """
    # Head of the logits, on as many captions of every domain.
    rng = np.random.default_rng([seed, 4])
    captions = [_caption(d, labels.get(d, ()), rng) for d in domains for _ in range(_CAPTIONS)]
    x, truth = words.text_vectors(captions), np.repeat(np.arange(len(domains)), _CAPTIONS)
    weight, bias = _regress(x, truth, len(domains))

    # Calibration on real prompts.
    prompts = [(domain, prompt) for domain, prompt in read_prompts(CALIBRATION_PROMPTS) if domain in domains]
    z = words.text_vectors([prompt for _, prompt in prompts]) @ weight.T + bias
    factor, shift = _calibrate(z, np.array([list(domains).index(domain) for domain, _ in prompts]))
    return factor * weight, factor * bias + shift


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """Read pairs of domain and prompt from a `.csv` file.

    Raises:
        UnusableFile: if the file lacks one of the columns `domain` and `prompt`.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"domain", "prompt"} <= set(rows.fieldnames or ()):
            raise UnusableFile(f"{path} must be a .csv file with the columns domain and prompt")
        return [(row["domain"], row["prompt"]) for row in rows]


def _caption(domain: str, labels: Sequence[str], rng: np.random.Generator) -> str:
    """A random caption of one to three phrases of a domain, joined by "and"."""
    phrases = [
        label_caption(domain, labels[int(rng.integers(len(labels)))], rng)
        if labels and rng.random() < 0.4
        else domain_caption(domain, rng)
        for _ in range(rng.integers(1, _LONGEST + 1))
    ]
    return " and ".join(phrases)


def _regress(x: np.ndarray, truth: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression with an L2 penalty, by gradient descent."""
    weight, bias, target = np.zeros((classes, x.shape[1])), np.zeros(classes), np.eye(classes)[truth]
    for _ in range(400):
        gradient = (_softmax(x @ weight.T + bias) - target) / len(x)
        weight -= 10.0 * (gradient.T @ x + _L2 * weight)
        bias -= 10.0 * gradient.sum(axis=0)

    return weight, bias


def _calibrate(z: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """The factor and the (K,) shifts with the greatest likelihood of the true classes, by gradient descent."""
    factor, shift, target = 1.0, np.zeros(z.shape[1]), np.eye(z.shape[1])[truth]
    for _ in range(4000):
        gradient = (_softmax(factor * z + shift) - target) / len(z)
        factor -= 0.05 * float((gradient * z).sum())
        shift -= 0.5 * gradient.sum(axis=0)

    return factor, shift


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
