"""The labels that stand in a prompt word for word, and the words of a prompt that do not describe the motif."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# Words that ask for quality; they do not describe the motif.
_QUALITY = re.compile(
    r"\b(?:"
    r"(?:best|high|highest|good|great|top|ultra|super|amazing)[ -]?(?:quality|res(?:olution)?|definition|details?)"
    r"|(?:highly|very|extremely|insanely|intricately|ultra|hyper|super)?[ -]?detailed"
    r"|(?:photo|hyper|ultra)?[ -]?realistic|sharp focus|in focus|award[ -]winning|trending on \w+|master ?pieces?"
    r"|professional(?:ly shot)?|stunning|\d+ ?k|u?hd|hdr|\d+mm"
    r")(?:\s+(?=\W)|\b)",
    re.IGNORECASE,
)
# Words that add no meaning to a label beside them.
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
        domain: Domain of the label.
        label: The label.
        place: Indices of its words in the prompt.
    """

    domain: str
    label: str
    place: range


def without_quality(prompt: str) -> str:
    """Remove words such as "high quality, 4k" from a prompt.

    Raises:
        ValueError: if the prompt is no text.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a prompt must be a text, got {type(prompt).__name__}")
    return _QUALITY.sub(" ", prompt)


def named_labels(prompt: str, labels: Mapping[str, Sequence[str]]) -> list[NamedLabel]:
    """The labels that stand in a prompt, in singular or plural.

    Order: labels of more words first, then labels in the same form as in the prompt, then by place.
    """
    words = _words(prompt)
    named = [
        NamedLabel(domain, label, range(start, start + len(wanted)))
        for domain, names in labels.items()
        for label in names
        if (wanted := _words(label))
        for start in _places(words, wanted)
    ]

    def rank(label: NamedLabel) -> tuple[int, bool, int]:
        written = words[label.place.start : label.place.stop]
        return -len(written), written != _words(label.label), label.place.start

    return sorted(named, key=rank)


def says_no_more(prompt: str, named: Sequence[NamedLabel]) -> bool:
    """Whether the words beside the labels of a prompt add no meaning."""
    taken = {i for label in named for i in label.place}
    rest = [word for i, word in enumerate(_words(prompt)) if i not in taken]
    return all(word in _ADDS_NOTHING or len(word) == 1 for word in rest)


def _words(text: str) -> list[str]:
    """Words of a text in small letters, without accents and without words of quality."""
    plain = unicodedata.normalize("NFD", without_quality(text).casefold())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+", plain)


def _places(words: Sequence[str], wanted: Sequence[str]) -> Iterator[int]:
    """Indices in `words` at which the sequence `wanted` begins."""
    for start in range(len(words) - len(wanted) + 1):
        if all(_same(a, b) for a, b in zip(words[start : start + len(wanted)], wanted, strict=True)):
            yield start


def _same(a: str, b: str) -> bool:
    """Whether two words are equal, or singular and plural of one word."""
    return a == b or not _numbers(a).isdisjoint(_numbers(b))


def _numbers(word: str) -> set[str]:
    """A word and its possible singular forms."""
    forms = {word}
    for ending, instead in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2 and not word.endswith("ss"):
            forms.add(word.removesuffix(ending) + instead)

    return forms
