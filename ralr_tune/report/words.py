"""Numbers in words."""

from __future__ import annotations

from collections.abc import Iterable


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `5 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Bytes in words, in powers of 1024, as in file managers: `840 B`, `3.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def levels(confidences: Iterable[float]) -> str:
    """Levels of intervals: `95%`, or `90% or 95%` if they differ."""
    return " or ".join(f"{100 * level:g}%" for level in sorted({round(level, 4) for level in confidences}))


def intervals(deciding: Iterable[float], confidence: float) -> tuple[str, str]:
    """Names of the interval that decides, and of another one of the study's confidence."""
    decides, whole = levels(deciding), levels([confidence])
    return (
        f"{decides} interval, which decides the verdict",
        f"{whole} interval{' for all at once' if decides == whole else ''}",
    )
