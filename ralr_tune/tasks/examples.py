"""What the report shows of trained networks besides numbers: a kind chooses it, the report formats it.

Plain text, numbers and images, no markup: only the report escapes, and it bounds the size (report/examples.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExampleTable:
    """A table of plain text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each as long as `head`."""
    left: int = 1
    """Columns of text, which are aligned left; the others hold numbers."""


@dataclass(frozen=True)
class ExampleChart:
    """A line for each arm; the report draws it in the arm's colour, on axes that contain 0. Charts in a row, and images
    in a row, are shown next to each other."""

    title: str
    question: str
    """What the chart answers."""
    x: str
    y: str
    """Titles of the axes."""
    lines: Mapping[str, Sequence[tuple[float, float]]]
    """By arm, its points (x, y)."""


@dataclass(frozen=True)
class ExampleImage:
    """One picture."""

    caption: str
    image: bytes
    """A PNG or JPEG file."""
    description: str
    """The picture in words, for readers who do not see it."""


@dataclass(frozen=True)
class Examples:
    """Examples of all arms together, so that they can be compared."""

    statement: str
    """What they show, in sentences: which data, which network, how they were chosen."""
    parts: tuple[ExampleTable | ExampleChart | ExampleImage, ...]
