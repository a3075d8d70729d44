"""What amplification itself did, apart from how lucky the tuning was: the same configuration with and without it.

Two ways round, over paired seeds: an arm's confirmed configuration with its amplification off (its twin), and the
baseline's confirmed configuration with another arm's amplification added. Each is a question of its own: uncorrected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Comparison, Interval, Pairs, Verdict, compare
from ralr_tune.analysis.rows import Chosen, Split
from ralr_tune.records import ArmRecord, Row, StudyRecord

AMPLIFICATION = "amplify."
"""What the names of amplification's parameters begin with."""


@dataclass(frozen=True)
class Twin:
    """An arm's confirmed configuration minus itself with the amplification off, over paired seeds."""

    arm: str
    trial: int | None
    split: Split
    difference: float
    interval: Interval | None
    """Uncorrected: a question of its own, beside the comparisons of arms."""
    p_value: float | None
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class Amplified:
    """An arm's confirmed configuration with another arm's amplification added, minus itself, over paired seeds."""

    arm: str
    donor: str | None
    """The arm whose confirmed amplification was added; None where it is no arm's (any more)."""
    trial: int | None
    """The Optuna trial of `arm` whose configuration this is."""
    amplification: Mapping[str, Any]
    """The searched numbers that were added, by Optuna name."""
    split: Split
    difference: float
    interval: Interval | None
    p_value: float | None
    n: int
    verdict: Verdict
    lost: int
    """Amplified seeds that diverged or failed; they are in none of the figures."""


def twins(record: StudyRecord, split: Split) -> tuple[Twin, ...]:
    """One for each arm whose twin has a score on a seed that the arm has, too."""
    found = []
    for arm in record.arms.values():
        candidate = study_rows.chosen(arm, record.direction)
        if candidate is None:
            continue
        stage = study_rows.stage_of(split)
        own, twin = (study_rows.scores(arm, stage, role, candidate) for role in ("best", "twin"))
        for made in _compare(record, arm.name, own, twin):
            figures = (made.difference, made.interval, made.p_value, made.n, made.verdict)
            found.append(Twin(arm.name, candidate[1], split, *figures))
    return tuple(found)


def amplified(record: StudyRecord, split: Split) -> tuple[Amplified, ...]:
    """One for each amplification that was added to an arm's confirmed configuration and has a score."""
    return tuple(
        made
        for arm in record.arms.values()
        if (candidate := study_rows.chosen(arm, record.direction)) is not None
        for made in _amplified(record, arm, candidate, split)
    )


def _amplified(record: StudyRecord, arm: ArmRecord, candidate: Chosen, split: Split) -> Iterator[Amplified]:
    stage = study_rows.stage_of(split)
    own = study_rows.scores(arm, stage, "best", candidate)
    rows = [row for row in arm.stage(stage, "amplified") if (row.block, row.source) == candidate]
    for added in _distinct(rows):
        same = [row for row in rows if amplification(row.params) == added]
        scored = study_rows.scored(same)
        for made in _compare(record, arm.name, {row.seed: value for row, value in scored}, own):
            yield Amplified(
                arm=arm.name,
                donor=_donor(record, arm.name, added),
                trial=candidate[1],
                amplification=added,
                split=split,
                difference=made.difference,
                interval=made.interval,
                p_value=made.p_value,
                n=made.n,
                verdict=made.verdict,
                lost=sum(row.state == "done" for row in same) - len(scored),
            )


def amplification(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of amplification among all."""
    return {name: value for name, value in params.items() if name.startswith(AMPLIFICATION)}


def _distinct(rows: list[Row]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        if (added := amplification(row.params)) not in found:
            found.append(added)
    return found


def _donor(record: StudyRecord, receiver: str, added: Mapping[str, Any]) -> str | None:
    """The other arm that was judged with this amplification and has a twin, hence amplifies."""
    for arm in record.arms.values():
        judged = arm.stage("judge") if arm.name != receiver and arm.stage("judge", "twin") else ()
        if any(amplification(row.params) == added for row in judged):
            return arm.name
    return None


def _compare(
    record: StudyRecord, arm: str, own: Mapping[int, float], other: Mapping[int, float]
) -> tuple[Comparison, ...]:
    """One comparison, or none where no seed is shared."""
    pairs = study_rows.differences(own, other)
    family = [Pairs("configuration", arm, arm, pairs)] if pairs else []
    return compare(family, margin=record.margin, confidence=record.confidence, direction=record.direction)
