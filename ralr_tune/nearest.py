"""The known words that a mistyped one may mean."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(given: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most `count` known words, the closest first, whatever their capitals; `cutoff` as in `get_close_matches`."""
    by_lower: dict[str, list[str]] = {}
    for word in known:
        by_lower.setdefault(word.lower(), []).append(word)
    close = get_close_matches(given.lower(), by_lower, n=count, cutoff=cutoff)
    return [word for lower in close for word in by_lower[lower]][:count]
