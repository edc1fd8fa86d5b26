"""The labels of a model that a prompt names word for word, and the words of a prompt that say nothing of its motif."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# How good a picture is to be, which is no motif.
_QUALITY = re.compile(
    r"\b(?:"
    r"(?:best|high|highest|good|great|top|ultra|super|amazing)[ -]?(?:quality|res(?:olution)?|definition|details?)"
    r"|(?:highly|very|extremely|insanely|intricately|ultra|hyper|super)?[ -]?detailed"
    r"|(?:photo|hyper|ultra)?[ -]?realistic|sharp focus|in focus|award[ -]winning|trending on \w+|master ?pieces?"
    r"|professional(?:ly shot)?|stunning|\d+ ?k|u?hd|hdr|\d+mm"
    r")(?:\s+(?=\W)|\b)",
    re.IGNORECASE,
)
# What may stand beside a label without saying more than the label does.
_FILLERS = (
    "a an the this that some one two three of on in with and or at by for is it its my single "
    "photo photos photograph photographs photography picture pictures image images shot view "
    "small little big large old new beautiful nice cute close up closeup isolated plain background "
    "black white grey gray brown red yellow green blue purple pink golden"
)
_ADDS_NOTHING = frozenset(_FILLERS.split())


@dataclass(frozen=True)
class NamedLabel:
    """A label that stands in a prompt.

    Attributes:
        domain: Its domain.
        label: The label.
        place: The words of the prompt that it takes.
    """

    domain: str
    label: str
    place: range


def without_quality(prompt: str) -> str:
    """A prompt without "high quality, 4k" and the like.

    Raises:
        ValueError: for what is no text.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a prompt must be a text, got {type(prompt).__name__}")
    return _QUALITY.sub(" ", prompt)


def named_labels(prompt: str, labels: Mapping[str, Sequence[str]]) -> list[NamedLabel]:
    """The labels that a prompt names, in singular or plural: of most words first, then as written, then the first."""
    words = _words(prompt)
    found = [
        NamedLabel(domain, label, range(start, start + len(wanted)))
        for domain, names in labels.items()
        for label in names
        if (wanted := _words(label))
        for start in _places(words, wanted)
    ]

    def rank(one: NamedLabel) -> tuple[int, bool, int]:
        written = words[one.place.start : one.place.stop]
        return -len(written), written != _words(one.label), one.place.start

    return sorted(found, key=rank)


def says_no_more(prompt: str, named: Sequence[NamedLabel]) -> bool:
    """Whether a prompt holds nothing of meaning besides the labels that it names."""
    taken = {i for one in named for i in one.place}
    rest = [word for i, word in enumerate(_words(prompt)) if i not in taken]
    return all(word in _ADDS_NOTHING or len(word) == 1 for word in rest)


def _words(text: str) -> list[str]:
    """Words in small letters, without accents."""
    plain = unicodedata.normalize("NFD", without_quality(text).casefold())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+", plain)


def _places(words: Sequence[str], wanted: Sequence[str]) -> Iterator[int]:
    """Where some words stand one after the other."""
    for start in range(len(words) - len(wanted) + 1):
        if all(_same(a, b) for a, b in zip(words[start : start + len(wanted)], wanted, strict=True)):
            yield start


def _same(a: str, b: str) -> bool:
    """Whether two words are the same but for their number."""
    return a == b or not _numbers(a).isdisjoint(_numbers(b))


def _numbers(word: str) -> set[str]:
    """A word, and what it may be the plural of."""
    forms = {word}
    for ending, instead in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2 and not word.endswith("ss"):
            forms.add(word.removesuffix(ending) + instead)

    return forms
