"""Formats the examples that a kind shows of its networks (tasks/examples.py): escaped, and bounded in size."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from ralr_tune.report.data import Data
from ralr_tune.report.figures import Figure
from ralr_tune.report.markup import Table, escaped, grid, paragraphs, table
from ralr_tune.report.style import ArmStyle, figure, safe, writable
from ralr_tune.studyfile.problems import cut
from ralr_tune.tasks.examples import ExampleChart, ExampleImage, Examples, ExampleTable

MAX_CHARTS = 24
MAX_ROWS = 200
MAX_CELL = 1000
"""Characters of a cell; longer ones are cut."""
MAX_IMAGE_BYTES = 6 * 2**20
"""All images together: the page stays small enough to be sent by mail (our choice)."""

_EXCEEDED = f"Further images are left out: together they exceed {MAX_IMAGE_BYTES:,} bytes."
_TYPES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
"""Of image files, by their first bytes."""


class ShownExamples(NamedTuple):
    """The examples of a study."""

    examples: Examples
    missing: Sequence[str] = ()
    """Arms without examples."""


def example_figures(shown: ShownExamples, styles: Mapping[str, ArmStyle]) -> list[Figure]:
    """The charts, in their order."""
    charts = [part for part in shown.examples.parts if isinstance(part, ExampleChart)]
    return [_figure(number, chart, styles) for number, chart in enumerate(charts[:MAX_CHARTS], 1)]


def examples_html(study: str, shown: ShownExamples, drawn: Sequence[Figure]) -> str:
    """`drawn`: the result of `example_figures`."""
    without = [f"No examples of {', '.join(shown.missing)} in this folder."] if shown.missing else []
    return "\n".join([paragraphs([shown.examples.statement, *without], "note"), *_parts(study, shown.examples, drawn)])


def _parts(study: str, examples: Examples, drawn: Sequence[Figure]) -> Iterator[str]:
    left, images = list(drawn), _within_size(examples)
    for kind, found in groupby(examples.parts, type):
        parts: list[Any] = list(found)
        if kind is ExampleTable:
            yield from map(_table, parts)
        elif kind is ExampleChart:
            yield grid(study, left[: len(parts)])
            if len(parts) > len(left):
                yield paragraphs([f"{len(parts) - len(left):,} further charts are left out."], "note")
            left = left[len(parts) :]
        else:
            yield from map(_image, images[: len(parts)])
            if len(parts) > len(images):
                yield paragraphs([_EXCEEDED], "note")
            images = images[len(parts) :]


def _figure(number: int, chart: ExampleChart, styles: Mapping[str, ArmStyle]) -> Figure:
    x, y = ({"title": {"text": safe(text)}, "rangemode": "tozero"} for text in (chart.x, chart.y))
    plot = figure(chart.title, chart.question, x=x, y=y)
    for arm, points in chart.lines.items():
        plot.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines",
            name=writable(arm),
            line={"color": styles[arm].colour, "width": 2, "dash": styles[arm].dash},
            hovertemplate=f"%{{x:.4g}}: %{{y:.4g}}<extra>{safe(arm)}</extra>",
        )
    rows = [(arm, x, y) for arm, points in chart.lines.items() for x, y in points]
    name = f"example-{number}"
    alt = f"{chart.title}: {chart.y} against {chart.x}, a line for each of {', '.join(chart.lines)}."
    return Figure("examples", name, plot, alt, Data(name, ("arm", chart.x, chart.y), rows))


def _within_size(examples: Examples) -> list[ExampleImage]:
    """The first images, up to a size in all."""
    images = [part for part in examples.parts if isinstance(part, ExampleImage)]
    sizes = accumulate(len(part.image) for part in images)
    return [part for part, size in zip(images, sizes, strict=True) if size <= MAX_IMAGE_BYTES]


def _table(part: ExampleTable) -> str:
    rows = [[cut(cell, MAX_CELL) for cell in row] for row in part.rows[:MAX_ROWS]]
    more = len(part.rows) - MAX_ROWS
    caption = part.caption + (f" {more:,} further rows are left out." if more > 0 else "")
    return table(Table(caption, part.head, rows, left=part.left))


def _image(part: ExampleImage) -> str:
    kind = next((kind for start, kind in _TYPES.items() if part.image.startswith(start)), None)
    if kind is None:
        return paragraphs([f"{part.caption}: not a PNG or JPEG image."], "note")
    source = f"data:image/{kind};base64,{base64.b64encode(part.image).decode()}"
    picture = f'<img src="{source}" alt="{escaped(part.description)}">'
    return f'<figure class="example">{picture}<figcaption>{escaped(part.caption)}</figcaption></figure>'
