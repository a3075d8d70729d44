"""Terms of the card and their meanings, as in docs/glossary.md."""

from __future__ import annotations

import re
from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "arm": "One schedule family of a study, with its own search space.",
    "twin": "The same recipe with its amplification off, trained on the same seeds.",
    "block": (
        "One whole search of an arm, with its own sampler history and its own winner. Only several blocks of each arm "
        "compare the schedules themselves."
    ),
    "margin": "Differences below the margin do not matter: a study sets it as confirm.margin.",
    "equivalent": (
        "The difference is smaller than the margin in either direction, by two one-sided tests at 5% each. The 90% "
        "interval then lies within the margin."
    ),
    "recipe": "The configuration of an arm that did best when it was chosen: base rate, amplification, and the rest.",
    "seed": "It fixes a run's initial weights, the order of its data and its random amplification.",
}

_FORMS = {"block": r"blocks?", "arm": r"arms?", "seed": r"seeds?", "recipe": r"recipes?"}


def first_use(text: str, seen: set[str]) -> list[tuple[str, str]]:
    """The text in pieces, each with its term; "" for plain text. A term counts once, at its first use, and is added to
    `seen`."""
    found = [
        (match.start(), match.end(), term)
        for term in TERMS
        if term not in seen and (match := re.search(rf"\b{_FORMS.get(term, term)}\b", text))
    ]
    pieces, place = [], 0
    for start, end, term in sorted(found):
        seen.add(term)
        pieces += [(text[place:start], ""), (text[start:end], term)]
        place = end
    return [*pieces, (text[place:], "")]
