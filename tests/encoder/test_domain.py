"""The shipped detector on prompts it has never seen, on images, and its answers when unsure."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from adaptive_diffusion.encoder.domain import UNSURE, DomainDetector
from adaptive_diffusion.models.checkpoint import load_builtin_model
from benchmarks.detector import main

PROMPTS = Path(__file__).with_name("domain_prompts.csv")
DOMAINS = ("portraits", "landscapes", "abstract", "general")


@pytest.fixture(scope="module")
def detector() -> DomainDetector:
    return DomainDetector()


def test_nine_of_ten_prompts_are_understood_in_every_domain(detector: DomainDetector) -> None:
    with open(PROMPTS, newline="") as file:
        rows = list(csv.DictReader(file))

    assert Counter(row["domain"] for row in rows) == dict.fromkeys(DOMAINS, 20)
    confusion = Counter((row["domain"], detector.from_prompt(row["prompt"]).domain) for row in rows)
    right = {domain: confusion[domain, domain] for domain in DOMAINS}
    assert sum(right.values()) >= 72, confusion
    assert min(right.values()) >= 16, confusion


def test_probabilities_add_up_and_the_confidence_is_the_largest(detector: DomainDetector) -> None:
    found = detector.from_prompt("a lake in the hills")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.confidence == max(found.probabilities.values())
    assert found.domain == "landscapes"


def test_an_unsure_answer_is_general(detector: DomainDetector) -> None:
    vague = [detector.from_prompt(p) for p in ("something", "very", "hello", "maybe", "again")]
    unsure = [d for d in vague if d.confidence < UNSURE]
    assert all(d.domain == "general" for d in unsure)


@pytest.mark.parametrize("prompt", ["", "   ", "12345", "!?", "the of and"])
def test_a_prompt_without_a_word_gets_a_sentence(detector: DomainDetector, prompt: str) -> None:
    with pytest.raises(ValueError, match="must contain a word"):
        detector.from_prompt(prompt)


@pytest.mark.parametrize("prompt", [None, 5, ["a", "b"]])
def test_a_prompt_that_is_no_text_gets_a_sentence(detector: DomainDetector, prompt) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        detector.from_prompt(prompt)


def test_an_unknown_word_alone_is_general_and_unsure(detector: DomainDetector) -> None:
    found = detector.from_prompt("xyzzy")
    assert (found.domain, found.confidence) == ("general", 0.25)


def test_a_label_is_chosen_where_the_prompt_names_one(detector: DomainDetector) -> None:
    labels = load_builtin_model().metadata["labels"]
    for prompt, domain, label in [
        ("a butterfly", "general", "butterfly"),
        ("an elephant walking", "general", "elephant"),
        ("a sunrise over the hills", "landscapes", "sunrise"),
        ("marble surface", "abstract", "marble"),
        ("paving stones, wet", "abstract", "paving stones"),
    ]:
        choice = detector.choose(prompt, labels)
        assert (choice.domain, choice.label) == (domain, label), choice
        assert choice.label_confidence == pytest.approx(1, abs=1e-3)


def test_a_given_domain_stands(detector: DomainDetector) -> None:
    choice = detector.choose("a butterfly", load_builtin_model().metadata["labels"], "landscapes")
    assert choice.domain == "landscapes"


def test_only_domains_of_the_model_are_chosen(detector: DomainDetector) -> None:
    assert detector.choose("a butterfly", {"landscapes": [], "portraits": []}).domain in ("landscapes", "portraits")
    assert detector.choose("a butterfly", {"cats": ["tabby"]}).domain == "cats"


def test_a_model_that_names_no_domains_gets_a_sentence(detector: DomainDetector) -> None:
    with pytest.raises(
        ValueError, match="the model names no domains for the prompt to choose from; leave the prompt out"
    ):
        detector.choose("a butterfly", {})


def test_of_a_domain_that_the_encoder_does_not_know_labels_alone_decide(detector: DomainDetector) -> None:
    labels = {"cats": ["tabby"], "shapes": ["hexagon"]}
    choice = detector.choose("hexagons everywhere tonight", labels)
    assert (choice.domain, choice.label, choice.domain_confidence) == ("shapes", "hexagon", None)


def test_flat_colours_are_no_portraits(detector: DomainDetector) -> None:
    flat = np.full((4, 32, 32, 3), 0.2, np.float32)
    assert all(d.domain != "portraits" for d in detector.from_images(flat))


def test_drawn_pictures_are_taken_for_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--prompts", str(PROMPTS), "--drawn", "32", "--steps", "5"])
    prompts, drawn = capsys.readouterr().out.split("drawn by the shipped model")
    assert "(n = 80)" in prompts
    shares = [float(share) for share in re.findall(r"([\d.]+)%", drawn)]
    assert len(shares) == len(DOMAINS) + 1
    assert min(shares) >= 85  # 90 with many images; of 32, less may be right by chance


@pytest.mark.parametrize(
    "pattern", ["{}", "An {}!", "the {}", "a picture of the {}", "pictures of {}", "{}, masterpiece, 8k, HDR"]
)
def test_a_label_that_is_all_a_prompt_names_is_chosen(detector: DomainDetector, pattern: str) -> None:
    labels = load_builtin_model().domains
    wanted = [(domain, label) for domain, names in labels.items() for label in names]
    choices = [detector.choose(pattern.format(label.upper()), labels) for _, label in wanted]
    wrong = [(c.domain, c.label) for c, one in zip(choices, wanted, strict=True) if (c.domain, c.label) != one]
    assert not wrong


@pytest.mark.parametrize(
    ("prompt", "domain", "label"),
    [
        ("rocks", "abstract", "rocks"),
        ("rock", "abstract", "rock"),
        ("three strawberries", "general", "strawberry"),
        ("an airplane", "general", "airplanes"),
        ("a crocodile head", "general", "crocodile head"),
        ("water lilly", "general", "water lilly"),
        ("a young woman with a camera", "portraits", None),
        ("a red umbrella", "general", "umbrella"),
    ],
)
def test_singular_plural_and_the_rest_of_the_sentence_count(
    detector: DomainDetector, prompt: str, domain: str, label: str | None
) -> None:
    choice = detector.choose(prompt, load_builtin_model().domains)
    assert (choice.domain, choice.label) == (domain, label), choice


@pytest.mark.parametrize("quality", ["high quality, 4k", "masterpiece, best quality", "award-winning, sharp focus, 8K"])
@pytest.mark.parametrize("prompt", ["a lake in the hills", "a smiling old man", "a teapot"])
def test_words_about_quality_do_not_move_the_domain(detector: DomainDetector, prompt: str, quality: str) -> None:
    plain, praised = detector.from_prompt(prompt), detector.from_prompt(f"{prompt}, {quality}")
    assert praised.probabilities == pytest.approx(plain.probabilities, abs=0.01)


def test_a_label_in_another_script_is_found(detector: DomainDetector) -> None:
    choice = detector.choose("Кошка", {"pets": ["собака", "кошка"], "cars": []})
    assert (choice.domain, choice.label) == ("pets", "кошка")


def test_prompts_are_understood_at_least_as_well_with_the_labels_of_a_model(detector: DomainDetector) -> None:
    with open(PROMPTS, newline="") as file:
        rows = list(csv.DictReader(file))

    labels = load_builtin_model().domains
    chosen = sum(detector.choose(row["prompt"], labels).domain == row["domain"] for row in rows)
    assert chosen >= sum(detector.from_prompt(row["prompt"]).domain == row["domain"] for row in rows)


def test_only_a_text_is_looked_for_labels(detector: DomainDetector) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        detector.choose(5, {"cats": ["tabby"]})  # type: ignore[arg-type]
