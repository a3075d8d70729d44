"""What amplification itself did, independent of luck in tuning: the same configuration with and without it.

Two directions, over paired seeds: an arm's confirmed configuration with its amplification off (its twin), and the
baseline's confirmed configuration with another arm's amplification added. Each is a separate question: uncorrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Comparison, Interval, Pairs, Verdict, compare
from ralr_tune.analysis.rows import Chosen, Split
from ralr_tune.records import AMPLIFICATION, ArmRecord, StudyRecord, amplified_role


@dataclass(frozen=True)
class Twin:
    """An arm's confirmed configuration minus itself with the amplification off, over paired seeds."""

    arm: str
    trial: int | None
    split: Split
    difference: float
    interval: Interval | None
    """Uncorrected: a separate question from the comparisons of arms."""
    p_value: float | None
    n: int
    verdict: Verdict
    equivalence_interval: Interval | None = None
    """As in `Comparison`."""
    deciding: Interval | None = None
    """The interval that gives the verdict (see `Comparison.deciding`)."""


@dataclass(frozen=True)
class Amplified:
    """An arm's confirmed configuration with another arm's amplification added, minus itself, over paired seeds."""

    arm: str
    donor: str
    """The arm whose confirmed amplification was added."""
    trial: int | None
    """The Optuna trial of `arm` whose configuration this is."""
    amplification: Mapping[str, Any]
    """What was added, searched or not, by Optuna name."""
    split: Split
    difference: float
    interval: Interval | None
    p_value: float | None
    n: int
    verdict: Verdict
    lost: int
    """Amplified seeds that diverged or failed; no figure includes them."""
    equivalence_interval: Interval | None = None
    """As in `Comparison`."""
    deciding: Interval | None = None
    """The interval that gives the verdict (see `Comparison.deciding`)."""


def twins(record: StudyRecord, split: Split) -> tuple[Twin, ...]:
    """One for each arm that shares at least one scored seed with its twin."""
    found = []
    for arm in record.arms.values():
        candidate = study_rows.chosen(arm, record.metric)
        if candidate is None:
            continue
        stage = study_rows.stage_of(split)
        own, twin = (study_rows.scores(arm, stage, role, candidate) for role in ("best", "twin"))
        for made in _compare(record, arm.name, own, twin):
            intervals = (made.equivalence_interval, made.deciding)
            figures = (made.difference, made.interval, made.p_value, made.n, made.verdict, *intervals)
            found.append(Twin(arm.name, candidate[1], split, *figures))
    return tuple(found)


def amplified(record: StudyRecord, split: Split) -> tuple[Amplified, ...]:
    """One for each amplification that was added to an arm's confirmed configuration and has a score."""
    return tuple(
        made
        for arm in record.arms.values()
        if (candidate := study_rows.chosen(arm, record.metric)) is not None
        for made in _amplified(record, arm, candidate, split)
    )


def _amplified(record: StudyRecord, arm: ArmRecord, candidate: Chosen, split: Split) -> Iterator[Amplified]:
    stage = study_rows.stage_of(split)
    own = study_rows.scores(arm, stage, "best", candidate)
    for donor, role in _donors(record, arm):
        rows = [row for row in arm.stage(stage, role) if (row.block, row.source) == candidate]
        for made in _compare(record, arm.name, study_rows.scores(arm, stage, role, candidate), own):
            yield Amplified(
                arm=arm.name,
                donor=donor,
                trial=candidate[1],
                amplification=amplification(rows[0].params),
                split=split,
                difference=made.difference,
                interval=made.interval,
                p_value=made.p_value,
                n=made.n,
                verdict=made.verdict,
                lost=study_rows.lost(arm, stage, role, candidate),
                equivalence_interval=made.equivalence_interval,
                deciding=made.deciding,
            )


def _donors(record: StudyRecord, receiver: ArmRecord) -> Iterator[tuple[str, str]]:
    """Every other arm and the role named by its confirmed configuration; rows of an earlier one do not count."""
    for arm in record.arms.values():
        if arm is not receiver and (candidate := study_rows.chosen(arm, record.metric)) is not None:
            yield arm.name, amplified_role(arm.name, *candidate)


def amplification(params: Mapping[str, Any]) -> dict[str, Any]:
    """The amplification parameters among `params`."""
    return {name: value for name, value in params.items() if name.startswith(AMPLIFICATION)}


def _compare(
    record: StudyRecord, arm: str, own: Mapping[int, float], other: Mapping[int, float]
) -> tuple[Comparison, ...]:
    """One comparison, or none if no seed is shared."""
    pairs = study_rows.differences(own, other)
    family = [Pairs("configuration", arm, arm, pairs)] if pairs else []
    return compare(family, margin=record.margin, confidence=record.confidence, metric=record.metric)
