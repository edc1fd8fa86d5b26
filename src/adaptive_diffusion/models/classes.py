"""Class ids of a domain and a label, for class-conditional models."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from ..diffusion.conditions import NO_LABEL
from ..errors import Unusable

SHOWN = 40  # most labels in the list of an error
FEW = 10  # labels of a domain that are listed beside a label of another domain
MEANT = 3  # most labels that may have been meant


def class_ids(labels: Mapping[str, Sequence[str]], domain: str, label: str | None) -> tuple[int, int]:
    """Class ids (domain, label) of a domain and a label.

    Ids begin at 1, and labels are numbered through all domains. Id 0 stands for "any".

    Args:
        labels: Domains of the model, and the labels of each.
        domain: A domain of the model.
        label: A label of this domain, or None for any.

    Raises:
        Unusable: if the model does not have the domain, or the domain does not have the label.
    """
    domains = list(labels)
    if domain not in domains:
        raise Unusable(f"the model has no domain {domain!r}; it was trained on {', '.join(domains) or 'none'}")

    number = domains.index(domain)
    if label is None:
        return number + 1, 0
    if label not in labels[domain]:
        raise Unusable(_no_such_label(label, domain, labels))

    # Labels of all earlier domains come first.
    before = sum(len(labels[other]) for other in domains[:number])
    return number + 1, before + list(labels[domain]).index(label) + 1


def _no_such_label(label: str, domain: str, labels: Mapping[str, Sequence[str]]) -> str:
    """The error about an unknown label, with the most likely correction."""
    elsewhere = [other for other, its_labels in labels.items() if label in its_labels]
    if elsewhere:
        return f"{label!r} is a label of domain={elsewhere[0]}, not of domain={domain}"

    names = sorted(labels[domain])
    if not names:
        return f"domain={domain} has no labels; leave label out"
    sentence = f"domain={domain} has no label {label!r}"
    if close := difflib.get_close_matches(label, [*names, NO_LABEL], n=1) or _with_word(label, names):
        return f"{sentence}; did you mean {' or '.join(map(repr, close))}?"

    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    if close := difflib.get_close_matches(label, [name for its_labels in labels.values() for name in its_labels], n=1):
        home = next(other for other, its_labels in labels.items() if close[0] in its_labels)
        listed = f"; it has {shown}" if len(names) <= FEW else ""
        return f"{sentence}{listed}; did you mean domain={home} label={close[0]}?"
    return f"{sentence}; it has {shown}"


def _with_word(begin: str, names: Sequence[str]) -> list[str]:
    """The first names with a word that begins with a text, those that begin with it themselves before the others."""
    word = re.compile(rf"\b{re.escape(begin)}", re.IGNORECASE)
    found = [match for name in names if begin.strip() and (match := word.search(name))]
    return [match.string for match in sorted(found, key=lambda match: match.start() > 0)[:MEANT]]
