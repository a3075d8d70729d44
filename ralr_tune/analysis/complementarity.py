"""The paper's claim that amplification is complementary with augmentation and regularisation: a 2 x 2 of arms.

                         without amplification    with the same amplification
    as they are                  A0                          A1
    trained otherwise            B0                          B1

Within a row the arms differ only in their amplification, within a column only in keys of [training]. Every figure is
over the judging seeds that all four arms have, so that for each seed

    interaction = (B1 - B0) - (A1 - A0)

Each of the four is its arm's own tuned configuration: the comparison is between results of tuning, not between one
configuration with and without. Intervals are t intervals; each 2 x 2 is a separate question, so uncorrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, Literal, NamedTuple

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Interval, Pairs, compare, paired_test
from ralr_tune.analysis.comparison import Verdict as Compared
from ralr_tune.analysis.rows import Split
from ralr_tune.analysis.twins import amplification
from ralr_tune.records import AMPLIFICATION, ArmRecord, StudyRecord

Verdict = Literal["adds up", "less together", "more together", "inconclusive"]

_VERDICTS: Mapping[Compared, Verdict] = {
    "better": "more together",
    "worse": "less together",
    "equivalent": "adds up",
    "inconclusive": "inconclusive",
}


@dataclass(frozen=True)
class Gain:
    """What amplification changed in one row of the 2 x 2: the amplified arm minus the other."""

    arm: str
    against: str
    difference: float
    """In the metric's own unit."""
    interval: Interval | None
    """None below two seeds."""


@dataclass(frozen=True)
class Complementarity:
    """One 2 x 2."""

    plain: Gain
    """A1 - A0; the baseline's row if it is one of the two, otherwise the first one."""
    other: Gain
    """B1 - B0."""
    differs: tuple[str, ...]
    """Keys of [training] in which the rows differ."""
    split: Split
    interaction: float
    """(B1 - B0) - (A1 - A0), in the metric's own unit."""
    interval: Interval | None
    p_value: float | None
    n: int
    """Seeds that all four have."""
    verdict: Verdict
    """adds up: within the margin (two one-sided tests); more, less: the gain with both, against their sum."""


class _Row(NamedTuple):
    """Two arms that differ only in amplification."""

    without: ArmRecord
    amplified: ArmRecord


def complementarity(record: StudyRecord, split: Split) -> tuple[Complementarity, ...]:
    """Every 2 x 2 whose four arms have scores on a common seed."""
    rows = sorted(_rows(record), key=lambda row: row.without.name != record.baseline)
    squares = ((*pair, differs) for pair in combinations(rows, 2) if (differs := _differs(*pair)))
    found = (_judged(record, split, *square) for square in squares)
    return tuple(each for each in found if each is not None)


def _rows(record: StudyRecord) -> Iterator[_Row]:
    for without, amplified in permutations(record.arms.values(), 2):
        if amplification(amplified.settings) and dict(without.settings) == _rest(amplified):
            yield _Row(without, amplified)


def _rest(arm: ArmRecord) -> dict[str, Any]:
    return {name: value for name, value in arm.settings.items() if not name.startswith(AMPLIFICATION)}


def _differs(one: _Row, other: _Row) -> tuple[str, ...]:
    """The keys of [training] in which two rows differ; empty if they differ in anything else."""
    mine, theirs = one.amplified.settings, other.amplified.settings
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    return () if any("." in name for name in names) else tuple(names)


def _judged(
    record: StudyRecord, split: Split, plain: _Row, other: _Row, differs: tuple[str, ...]
) -> Complementarity | None:
    table = [[_scores(record, split, arm) for arm in row] for row in (plain, other)]
    seeds = [seed for seed in table[0][0] if all(seed in scores for row in table for scores in row)]
    if not seeds:
        return None
    gains = [[amplified[seed] - without[seed] for seed in seeds] for without, amplified in table]
    interactions = [theirs - mine for mine, theirs in zip(*gains, strict=True)]
    pairs = Pairs("configuration", other.amplified.name, plain.amplified.name, interactions)
    (made,) = compare([pairs], margin=record.margin, confidence=record.confidence, metric=record.metric)
    return Complementarity(
        plain=_gain(record, plain, gains[0]),
        other=_gain(record, other, gains[1]),
        differs=differs,
        split=split,
        interaction=made.difference,
        interval=made.interval,
        p_value=made.p_value,
        n=made.n,
        verdict=_VERDICTS[made.verdict],
    )


def _scores(record: StudyRecord, split: Split, arm: ArmRecord) -> dict[int, float]:
    """Scores of the arm's confirmed configuration, by seed."""
    candidate = study_rows.chosen(arm, record.metric)
    return study_rows.scores(arm, study_rows.stage_of(split), "best", candidate) if candidate else {}


def _gain(record: StudyRecord, row: _Row, differences: Sequence[float]) -> Gain:
    test = paired_test(differences, margin=record.margin, confidence=record.confidence)
    return Gain(row.amplified.name, row.without.name, test.difference, test.interval)
