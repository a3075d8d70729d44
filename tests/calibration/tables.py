"""Calibration tables: counts, the promise of a row, and printing tables row by row from several processes.

A promise is broken if a true share equal to the bound would give such a count less than once in 1,000 times.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from scipy import stats

CHANCE = 0.001


class Promise(NamedTuple):
    """The share of studies with any of these verdicts is at most, or at least, `share`."""

    verdicts: tuple[str, ...]
    share: float
    at_least: bool = False

    def broken(self, counted: Counted) -> bool:
        count = sum(counted.counts[name] for name in self.verdicts)
        if self.at_least:
            return count < int(stats.binom.ppf(CHANCE, counted.studies, self.share))
        return count > int(stats.binom.ppf(1 - CHANCE, counted.studies, self.share))

    def __str__(self) -> str:
        return f"{' or '.join(self.verdicts)} {'at least' if self.at_least else 'at most'} {100 * self.share:g}%"


@dataclass(frozen=True)
class Counted:
    """One row: in how many of the studies each verdict occurred."""

    what: str
    studies: int
    counts: Counter[str]
    seconds: float
    """Of one CPU core."""
    promises: tuple[Promise, ...] = ()
    """Empty for a row that shows a mistake, or a limit."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further columns."""

    def share(self, *verdicts: str) -> float:
        return sum(self.counts[name] for name in verdicts) / self.studies

    def interval(self, *verdicts: str) -> tuple[float, float]:
        """95%, Clopper and Pearson."""
        count = sum(self.counts[name] for name in verdicts)
        found = stats.binomtest(count, self.studies).proportion_ci(method="exact")
        return float(found.low), float(found.high)

    @property
    def broken(self) -> list[str]:
        return [
            f"{self.what}: {promise}, found {self.share(*promise.verdicts):.1%} of {self.studies}"
            for promise in self.promises
            if promise.broken(self)
        ]


Row = Callable[[int], Counted]
"""Makes one row from a number of studies; can be sent to another process."""


@dataclass(frozen=True)
class Table:
    """Rows with the same columns."""

    title: str
    rows: Sequence[Row]
    columns: Mapping[str, tuple[str, ...]]
    """{heading: verdicts}."""
    studies: int
    """Per row, if RALR_TUNE_CALIBRATE = 1,000; it scales with that."""
    more: tuple[str, ...] = ()
    intervals: bool = False

    def counted(self, pool: ProcessPoolExecutor | None = None) -> Iterator[Counted]:
        """The rows in order, each as soon as it is done; a pool starts all of them at once."""
        each = (_make, self.rows, [scaled(self.studies)] * len(self.rows))
        return map(*each) if pool is None else pool.map(*each)

    def lines(self, counted: Iterator[Counted]) -> Iterator[tuple[str, list[str]]]:
        """Lines of Markdown, each with the promises that its row broke."""
        headings = ["", *self.columns, *self.more, "promised", "CPU s"]
        yield f"\n{self.title}, {scaled(self.studies):,} studies per row\n", []
        yield "| " + " | ".join(headings) + " |", []
        yield "|" + "---|" * len(headings), []
        for row in counted:
            yield self._line(row), row.broken

    def _line(self, row: Counted) -> str:
        shares = [f"{row.share(*verdicts):.1%}" + self._interval(row, verdicts) for verdicts in self.columns.values()]
        promised = "; ".join(map(str, row.promises)) + (" **broken**" if row.broken else "")
        cells = [row.what, *shares, *(row.more[name] for name in self.more), promised, f"{row.seconds:.1f}"]
        return "| " + " | ".join(cells) + " |"

    def _interval(self, row: Counted, verdicts: tuple[str, ...]) -> str:
        low, high = row.interval(*verdicts)
        return f" ({low:.1%} to {high:.1%})" if self.intervals else ""


def scaled(studies: int) -> int:
    """`studies` times RALR_TUNE_CALIBRATE / 1,000; at least 1."""
    return max(1, studies * int(os.environ.get("RALR_TUNE_CALIBRATE", "1000")) // 1000)


def show(tables: Sequence[Table], processes: int = 1) -> list[str]:
    """Prints the tables as Markdown, row by row, and returns the broken promises."""
    broken = []
    with ProcessPoolExecutor(processes) as pool:
        started = [(table, table.counted(pool)) for table in tables]
        for table, counted in started:
            for line, faults in table.lines(counted):
                print(line, flush=True)
                broken += faults
    return broken


def _make(row: Row, studies: int) -> Counted:
    return row(studies)


def rows_of(make: Callable[..., Counted], *arguments: tuple[object, ...]) -> list[Row]:
    """One row for each tuple of arguments after the number of studies."""
    return [partial(_called, make, each) for each in arguments]


def _called(make: Callable[..., Counted], arguments: tuple[object, ...], studies: int) -> Counted:
    return make(studies, *arguments)
