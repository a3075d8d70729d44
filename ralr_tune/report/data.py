"""What a figure shows, as a table in full precision: the CSV behind its "data" link."""

from __future__ import annotations

import base64
import csv
import io
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.facts import Facts
from ralr_tune.report.style import writable

FORMULA = "=+-@＝＋－＠"
"""Characters that start a formula in a spreadsheet, including the full-width forms of some locales."""


class Data(NamedTuple):
    """A table with units in its column names; several figures may share one."""

    name: str
    """Stem of its file: letters, digits, dots, dashes and underscores."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Numbers, strings, booleans, and None for unknown values."""


def csv_text(data: Data) -> str:
    """The table as CSV (RFC 4180); numbers round-trip exactly."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in data.columns])
    writer.writerows([_cell(value) for value in row] for row in data.rows)
    return text.getvalue()


def packed(data: Data) -> str:
    """The CSV for embedding in a page: deflated, in base64. That cuts thousands of curves to a third of the size."""
    return base64.b64encode(zlib.compress(csv_text(data).encode(), 9)).decode()


def bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    """The two cells of an interval."""
    return interval if interval else (None, None)


def metric_column(facts: Facts, *before: str) -> str:
    """The name of a column that holds values of the metric (or differences of them): shares are called that."""
    words = [*before, *facts.metric.name.split(), *(["share"] if facts.unit.value_suffix else [])]
    return "_".join(words)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value))  # the repr of a numpy float includes its type
    text = writable(value)
    # A leading apostrophe keeps a spreadsheet from running names from a study as formulas (OWASP, "CSV injection").
    return f"'{text}" if text.strip()[:1] and text.strip()[0] in FORMULA else text
