"""Formats the examples that a kind shows of its networks (tasks/examples.py): escaped, and bounded in size."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from ralr_tune.report.markup import Table, escaped, paragraphs, table
from ralr_tune.studyfile.problems import cut
from ralr_tune.tasks.examples import ExampleImage, Examples, ExampleTable

MAX_ROWS = 200
MAX_CELL = 1000
"""Characters of a cell; longer ones are cut."""
MAX_IMAGE_BYTES = 6 * 2**20
"""All images together: the page stays small enough to be sent by mail (our choice)."""

_TYPES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
"""Of image files, by their first bytes."""


def examples_html(shown: Examples, missing: Sequence[str]) -> str:
    """`missing`: arms without examples."""
    without = [f"No examples of {', '.join(missing)} in this folder."] if missing else []
    return "\n".join([paragraphs([shown.statement, *without], "note"), *_parts(shown)])


def _parts(shown: Examples) -> Iterator[str]:
    used = 0
    for part in shown.parts:
        if isinstance(part, ExampleTable):
            yield _table(part)
            continue
        used += len(part.image)
        if used > MAX_IMAGE_BYTES:
            yield paragraphs([f"Further images are left out: together they exceed {MAX_IMAGE_BYTES:,} bytes."], "note")
            return
        yield _image(part)


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
