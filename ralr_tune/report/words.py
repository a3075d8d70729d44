"""Figures in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `5 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
