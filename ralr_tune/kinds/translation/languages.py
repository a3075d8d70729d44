"""Notices that the two languages of some pairs are swapped, by their most frequent words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "cs": "se na je že do které jako jsou pro ale která být by své při",
        "de": "der die das und ein eine einem einen ist mit auf im den nicht von",
        "en": "the a an and of is with in on are to at that his it",
        "es": "el los las una con en y por para que del es al su lo",
        "fr": "le les une des et dans est sur avec du en qui pour au aux",
        "it": "il lo gli una di che con per sono nel della alla è si dei",
        "nl": "het een van en op met zijn voor niet dat aan bij te naar ook",
        "pl": "się na jest z do że nie przez jak dla od oraz przy który są",
        "pt": "o os uma com em por para que do da não ao é no na",
        "ro": "și în cu la pe de un o este care pentru din sunt nu mai",
    }.items()
}
"""A few frequent words of each language (our choice). Words that two of them share do no harm: a swap is reported only
if both sides fit the other language clearly better."""

SAMPLE = 2000
"""Lines that are counted of each side."""
CLEARLY = 3.0
"""How many times as many words must fit the other language (our choice)."""
FREQUENT = 100
"""Words of a side that are compared with another split."""


def looks_swapped(sources: Sequence[str], targets: Sequence[str], languages: tuple[str, str]) -> bool:
    """Whether the sources read like the target language and the targets like the source language.

    False for languages that are not in the list.
    """
    codes = [language.lower().replace("_", "-").partition("-")[0] for language in languages]
    known = [FUNCTION_WORDS.get(code) for code in codes]
    return known[0] is not None and known[1] is not None and _swapped(sources, targets, known[0], known[1])


def swapped_against(
    sources: Sequence[str], targets: Sequence[str], trained: tuple[Sequence[str], Sequence[str]]
) -> bool:
    """Whether the sources read like the targets of another split, `trained`, and the targets like its sources."""
    one, other = (frozenset(_frequent(lines)) for lines in trained)
    return _swapped(sources, targets, one - other, other - one)


def _swapped(
    sources: Sequence[str], targets: Sequence[str], of_source: frozenset[str], of_target: frozenset[str]
) -> bool:
    right = _share(sources, of_source) + _share(targets, of_target)
    wrong = min(_share(sources, of_target), _share(targets, of_source))
    return wrong > 0 and 2 * wrong > CLEARLY * right


def _share(lines: Sequence[str], words: frozenset[str]) -> float:
    """The share of a side's words that are in `words`."""
    counts = _counts(lines)
    return sum(counts[word] for word in words) / max(counts.total(), 1)


def _frequent(lines: Sequence[str]) -> list[str]:
    return [word for word, _ in _counts(lines).most_common(FREQUENT)]


def _counts(lines: Sequence[str]) -> Counter[str]:
    return Counter(word for line in islice(lines, SAMPLE) for word in line.lower().split())
