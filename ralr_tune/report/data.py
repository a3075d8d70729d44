"""What a figure shows as a table of its own, in full precision: the CSV behind its "data" link."""

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
"""What a spreadsheet takes for the beginning of a formula, the wide forms of some locales included."""


class Data(NamedTuple):
    """A table with units in its columns' names; several figures may share one."""

    name: str
    """Stem of its file: letters, digits, dots, dashes and underscores."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Numbers, texts, truth values, and None for what is not known."""


def csv_text(data: Data) -> str:
    """The table as RFC 4180 has it; numbers so that reading them gives the same number again."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in data.columns])
    writer.writerows([_cell(value) for value in row] for row in data.rows)
    return text.getvalue()


def packed(data: Data) -> str:
    """The same for a place inside a page: deflated, in base64. Thousands of curves then weigh a third."""
    return base64.b64encode(zlib.compress(csv_text(data).encode(), 9)).decode()


def bounds(interval: Interval | None) -> tuple[float | None, float | None]:
    """Two cells for an interval."""
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
        return repr(float(value))  # numpy's own floats would write their type
    text = writable(value)
    # A leading apostrophe keeps a spreadsheet from running what a study named itself (OWASP, "CSV injection").
    return f"'{text}" if text.strip()[:1] and text.strip()[0] in FORMULA else text
