"""What a study found, as plain facts: everything that the report says or draws of it, and its JSON form.

A study that has just begun, an arm without a score, a confirm that is under way: all have facts, with gaps in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Comparison, Interval, Pairs, Verdict, compare
from ralr_tune.analysis.importance import Importance, arm_importance
from ralr_tune.analysis.rows import Chosen, Direction, Split
from ralr_tune.analysis.units import Unit, unit_of
from ralr_tune.records import ArmRecord, StudyRecord


@dataclass(frozen=True)
class Best:
    """The best complete search trial of an arm: one run with one seed."""

    block: int
    trial: int | None
    value: float
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Confirmed:
    """One fixed configuration on fresh seeds."""

    block: int
    trial: int | None
    """The Optuna trial (of `block`) whose configuration this is."""
    split: Split
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """Same order as seeds."""
    lost: int
    """Seeds that diverged or failed; they are in none of the figures."""
    mean: float | None
    std: float | None
    """Sample standard deviation (ddof = 1); None below two seeds."""


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
class ArmFacts:
    """One arm."""

    name: str
    counts: Mapping[str, int]
    """budget, complete, pruned, diverged, failed, running, waiting: search trials."""
    blocks: int
    best: Best | None
    confirm: Confirmed | None
    twin: Confirmed | None
    seconds_per_epoch: float | None
    generalization_gap: float | None
    """Mean of training value minus validation value."""
    gap_from: Literal["judge", "search"] | None
    failures: Mapping[str, int]
    """Failed and diverged rows of all stages by kind."""


@dataclass(frozen=True)
class Facts:
    """One study."""

    study: str
    baseline: str
    metric: str
    direction: Direction
    margin: float
    confidence: float
    split: Split
    arms: Mapping[str, ArmFacts]
    twins: tuple[Twin, ...]
    comparisons: tuple[Comparison, ...]
    importance: Mapping[str, Mapping[str, Importance]]

    @property
    def unit(self) -> Unit:
        """How values of the metric are written."""
        return unit_of(self.metric)


def study_facts(record: StudyRecord) -> Facts:
    """All facts of a study, at whatever stage it is."""
    split = study_rows.split_of(record)
    return Facts(
        study=record.name,
        baseline=record.baseline,
        metric=record.metric,
        direction=record.direction,
        margin=record.margin,
        confidence=record.confidence,
        split=split,
        arms={name: _arm_facts(arm, record.direction, split) for name, arm in record.arms.items()},
        twins=tuple(_twins(record, split)),
        comparisons=_configurations(record, split) + _arms(record, split),
        importance={name: arm_importance(arm) for name, arm in record.arms.items()},
    )


def as_json(facts: Facts) -> dict[str, Any]:
    """`report --json`, exactly as the design has it; what is not known is null."""
    return {
        "study": facts.study,
        "baseline": facts.baseline,
        "metric": facts.metric,
        "split": facts.split,
        "arms": {name: _arm_json(arm) for name, arm in facts.arms.items()},
        "twins": [
            {"arm": twin.arm, "trial": twin.trial, "difference": twin.difference, "interval": _pair(twin.interval)}
            for twin in facts.twins
        ],
        "comparisons": [asdict(made) | {"interval": _pair(made.interval)} for made in facts.comparisons],
        "importance": {
            arm: {name: _importance_json(found) for name, found in parameters.items()}
            for arm, parameters in facts.importance.items()
        },
    }


def _importance_json(found: Importance) -> dict[str, Any]:
    return {
        "value": found.value,
        "interval": _pair(found.interval),
        "null": _pair(found.null),
        "verdict": found.verdict,
    }


def _arm_json(arm: ArmFacts) -> dict[str, Any]:
    best, confirm = arm.best, arm.confirm
    return {
        "best": {"trial": best.trial, "value": best.value, "params": dict(best.params)} if best else None,
        "confirm": {
            "seeds": list(confirm.seeds) if confirm else [],
            "values": list(confirm.values) if confirm else [],
            "mean": confirm.mean if confirm else None,
            "std": confirm.std if confirm else None,
        },
        "seconds_per_epoch": arm.seconds_per_epoch,
        "generalization_gap": arm.generalization_gap,
    }


def _pair(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval else None


def _arm_facts(arm: ArmRecord, direction: Direction, split: Split) -> ArmFacts:
    candidate = study_rows.chosen(arm, direction)
    judged = study_rows.generalization_gap(arm.stage("judge"))
    searched = study_rows.generalization_gap(arm.search())
    return ArmFacts(
        name=arm.name,
        counts=study_rows.search_counts(arm),
        blocks=len({row.block for row in arm.search()}),
        best=_best(arm, direction),
        confirm=_confirmed(arm, "best", candidate, split),
        twin=_confirmed(arm, "twin", candidate, split),
        seconds_per_epoch=study_rows.seconds_per_epoch(arm),
        generalization_gap=searched if judged is None else judged,
        gap_from="judge" if judged is not None else "search" if searched is not None else None,
        failures=study_rows.failures(arm.rows),
    )


def _best(arm: ArmRecord, direction: Direction) -> Best | None:
    for row, value in study_rows.ranked(arm.search(), direction):
        return Best(row.block, row.trial, value, dict(row.params))
    return None


def _confirmed(arm: ArmRecord, role: str, candidate: Chosen | None, split: Split) -> Confirmed | None:
    """None where confirm has not planned it; without values where it has no score yet."""
    if candidate is None or not arm.stage("judge", role):
        return None
    stage = study_rows.stage_of(split)
    found = study_rows.scores(arm, stage, role, candidate)
    values = tuple(found.values())
    return Confirmed(
        block=candidate[0],
        trial=candidate[1],
        split=split,
        seeds=tuple(found),
        values=values,
        lost=study_rows.lost(arm, stage, role, candidate),
        mean=fmean(values) if values else None,
        std=stdev(values) if len(values) > 1 else None,
    )


def _twins(record: StudyRecord, split: Split) -> list[Twin]:
    twins = []
    for arm in record.arms.values():
        candidate = study_rows.chosen(arm, record.direction)
        if candidate is None:
            continue
        stage = study_rows.stage_of(split)
        pairs = _differences(
            study_rows.scores(arm, stage, "best", candidate), study_rows.scores(arm, stage, "twin", candidate)
        )
        for made in _compare(record, [Pairs("configuration", arm.name, arm.name, pairs)] if pairs else []):
            figures = (made.difference, made.interval, made.p_value, made.n, made.verdict)
            twins.append(Twin(arm.name, candidate[1], split, *figures))
    return twins


def _configurations(record: StudyRecord, split: Split) -> tuple[Comparison, ...]:
    """Each arm's confirmed configuration against the baseline's, over the seeds that both have."""
    stage = study_rows.stage_of(split)
    found = {
        name: study_rows.scores(arm, stage, "best", candidate)
        for name, arm in record.arms.items()
        if (candidate := study_rows.chosen(arm, record.direction)) is not None
    }
    return _against_baseline(record, "configuration", found)


def _arms(record: StudyRecord, split: Split) -> tuple[Comparison, ...]:
    """Each arm against the baseline over the winners of independent blocks; nothing where a block stands alone."""
    stage = study_rows.stage_of(split)
    found = {name: study_rows.block_scores(arm, stage, record.direction) for name, arm in record.arms.items()}
    return _against_baseline(record, "arm", {name: blocks for name, blocks in found.items() if len(blocks) > 1})


def _against_baseline(
    record: StudyRecord, what: Literal["configuration", "arm"], found: Mapping[str, Mapping[int, float]]
) -> tuple[Comparison, ...]:
    base = found.get(record.baseline, {})
    paired = {name: _differences(own, base) for name, own in found.items() if name != record.baseline}
    return _compare(record, [Pairs(what, name, record.baseline, pairs) for name, pairs in paired.items() if pairs])


def _compare(record: StudyRecord, family: list[Pairs]) -> tuple[Comparison, ...]:
    return compare(family, margin=record.margin, confidence=record.confidence, direction=record.direction)


def _differences(own: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Own minus other, for the seeds (or blocks) that both have."""
    return [value - other[key] for key, value in own.items() if key in other]
