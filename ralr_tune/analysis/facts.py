"""The results of a study as plain facts: everything that the report says or draws, and its JSON form.

A study that has just started, an arm without a score, an unfinished confirmation: all have facts, with gaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.budget import BudgetCurve, Lead, budgets
from ralr_tune.analysis.claims import Cost, Overfitting, costs, overfitting
from ralr_tune.analysis.comparison import Comparison, Interval
from ralr_tune.analysis.complementarity import Complementarity, complementarity
from ralr_tune.analysis.edges import Edge, edges
from ralr_tune.analysis.importance import Importance, arm_importance
from ralr_tune.analysis.missing_evidence import MissingEvidence, missing_evidence
from ralr_tune.analysis.power import DetectableEffect
from ralr_tune.analysis.pruning import PruningAudit, PruningGap, pruning_gaps, study_audits
from ralr_tune.analysis.robustness import Forgiveness, Robustness, robustness
from ralr_tune.analysis.rows import Chosen, Split
from ralr_tune.analysis.sequential import Decision, Plan
from ralr_tune.analysis.spending import Spending, spending
from ralr_tune.analysis.twins import Amplified, Twin, amplified, twins
from ralr_tune.analysis.verdicts import arm_verdicts, configuration_verdicts
from ralr_tune.metric import Metric, Unit
from ralr_tune.records import AMPLIFICATION, ArmRecord, Generation, Inventory, StudyRecord, WarmStart

__all__ = ["ArmFacts", "Best", "Confirmed", "Facts", "Twin", "as_json", "study_facts", "winner"]


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
    """Seeds that diverged or failed; no figure includes them."""
    mean: float | None
    std: float | None
    """Sample standard deviation (ddof = 1); None below two seeds."""


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
    """Mean of training minus validation value: of the confirmed configuration, before that of all search trials."""
    gap_from: Literal["judge", "search"] | None
    failures: Mapping[str, int]
    """Failed and diverged rows of all stages by kind."""
    recipe: Mapping[str, Any] | None = None
    """The searched parameters of the confirmed configuration; before that, of the best search trial."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the arm, fixed and searched (see `records.ArmRecord`)."""

    @property
    def amplifies(self) -> bool:
        """Whether its schedule is amplified."""
        return any(name.startswith(AMPLIFICATION) for name in self.settings)


@dataclass(frozen=True)
class Facts:
    """One study."""

    study: str
    baseline: str
    metric: Metric
    margin: float
    confidence: float
    split: Split
    arms: Mapping[str, ArmFacts]
    twins: tuple[Twin, ...]
    comparisons: tuple[Comparison, ...]
    importance: Mapping[str, Mapping[str, Importance]]
    reach: tuple[DetectableEffect, ...] = ()
    """For each comparison the detectable difference, and the pairs that a verdict needs."""
    looks: Mapping[str, Decision] = field(default_factory=dict)
    """Under `confirm.seeds = "auto"`: the interim analyses of each arm against the baseline."""
    amplified: tuple[Amplified, ...] = ()
    """Twins in the other direction: the baseline's configuration with another arm's amplification added."""
    budgets: tuple[BudgetCurve, ...] = ()
    leads: tuple[Lead, ...] = ()
    robustness: tuple[Robustness, ...] = ()
    forgiveness: tuple[Forgiveness, ...] = ()
    pruning: tuple[PruningAudit, ...] = ()
    pruning_gaps: tuple[PruningGap, ...] = ()
    costs: tuple[Cost, ...] = ()
    overfitting: tuple[Overfitting, ...] = ()
    complementarity: tuple[Complementarity, ...] = ()
    edges: tuple[Edge, ...] = ()
    lacks: tuple[MissingEvidence, ...] = ()
    data: Inventory | None = None
    """What the data hold; None if it is not known."""
    generations: tuple[Generation, ...] = ()
    """States of data and code, the oldest first; everything else is of the last one."""
    divided: bool = False
    """Whether one search was divided among the blocks."""
    start: WarmStart | None = None
    """The configurations of an earlier study that every arm tried first."""
    spending: Spending | None = None
    winner: str | None = None
    """The arm whose confirmed configuration is the best on fresh seeds of the validation split; before all are
    confirmed, the arm with the best search trial. None if no trial is complete."""

    @property
    def unit(self) -> Unit:
        """How to format values of the metric."""
        return self.metric.format


def study_facts(record: StudyRecord, *, plan: Plan | None = None) -> Facts:
    """All facts of a study, at any stage.

    `plan`: the interim analyses under `confirm.seeds = "auto"`; None if the number of seeds was fixed.
    """
    split = study_rows.split_of(record)
    configurations, arms = configuration_verdicts(record, split, plan), arm_verdicts(record, split)
    curves, leads = budgets(record)
    robust, forgiveness = robustness(record)
    audits = study_audits(record)
    return Facts(
        study=record.name,
        baseline=record.baseline,
        metric=record.metric,
        margin=record.margin,
        confidence=record.confidence,
        split=split,
        arms={name: _arm_facts(arm, record.metric, split) for name, arm in record.arms.items()},
        twins=twins(record, split),
        comparisons=configurations.made + arms.made,
        importance={name: arm_importance(arm, record.metric) for name, arm in record.arms.items()},
        reach=configurations.detectable + arms.detectable,
        looks=configurations.interim,
        amplified=amplified(record, split),
        budgets=curves,
        leads=leads,
        robustness=robust,
        forgiveness=forgiveness,
        pruning=audits,
        pruning_gaps=pruning_gaps(audits, record.baseline),
        costs=costs(record),
        overfitting=overfitting(record),
        complementarity=complementarity(record, split),
        edges=tuple(edge for arm in record.arms.values() for edge in edges(arm, record.metric)),
        lacks=missing_evidence(record),
        data=record.identity.data if record.identity else None,
        generations=record.generations,
        divided=record.divided,
        start=record.start,
        spending=spending(record),
        winner=winner(record),
    )


FURTHER = (
    "reach", "looks", "amplified", "budgets", "leads", "robustness", "forgiveness", "pruning", "pruning_gaps", "costs",
    "overfitting", "complementarity", "edges", "lacks", "data", "generations", "divided", "start",
)  # fmt: skip
"""Facts that `report --json` contains unchanged, each under its own name; their classes describe the fields."""


def as_json(facts: Facts) -> dict[str, Any]:
    """`report --json` as the design specifies it, plus the further facts; unknown values are null."""
    found = {
        "study": facts.study,
        "baseline": facts.baseline,
        "metric": facts.metric.name,
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
    everything = asdict(facts)
    plain: dict[str, Any] = _plain(found | {name: everything[name] for name in FURTHER})
    return plain


def _plain(value: Any) -> Any:
    """As JSON types: tuples as lists, non-finite numbers as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


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


def _arm_facts(arm: ArmRecord, metric: Metric, split: Split) -> ArmFacts:
    candidate = study_rows.chosen(arm, metric)
    confirmed = (row for row in arm.stage("judge") if (row.block, row.source) == candidate)
    judged = study_rows.generalization_gap(confirmed)
    searched = study_rows.generalization_gap(arm.search())
    return ArmFacts(
        name=arm.name,
        counts=study_rows.search_counts(arm),
        blocks=len({row.block for row in arm.search()}),
        best=_best(arm, metric),
        confirm=_confirmed(arm, "best", candidate, split),
        twin=_confirmed(arm, "twin", candidate, split),
        seconds_per_epoch=study_rows.seconds_per_epoch(arm),
        generalization_gap=searched if judged is None else judged,
        gap_from="judge" if judged is not None else "search" if searched is not None else None,
        failures=study_rows.failures(arm.rows),
        recipe=_recipe(arm, metric, candidate),
        settings={**arm.dimensions, **arm.settings},
    )


def _recipe(arm: ArmRecord, metric: Metric, candidate: Chosen | None) -> Mapping[str, Any] | None:
    for row in arm.search():
        if candidate is not None and (row.block, row.trial) == candidate:
            return dict(row.params)
    best = _best(arm, metric)
    return best.params if best else None


def winner(record: StudyRecord) -> str | None:
    """As `Facts.winner`. Fresh seeds are never compared with search values, the best of many and biased upwards."""
    candidates = {name: study_rows.chosen(arm, record.metric) for name, arm in record.arms.items()}
    judged = {
        name: fmean(scores.values())
        for name, arm in record.arms.items()
        if (candidate := candidates[name]) and (scores := study_rows.scores(arm, "judge", "best", candidate))
    }
    searched = {name: best.value for name, arm in record.arms.items() if (best := _best(arm, record.metric))}
    values = judged if judged.keys() >= searched.keys() else searched
    return max(values, key=lambda name: record.metric.as_gain(values[name]), default=None)


def _best(arm: ArmRecord, metric: Metric) -> Best | None:
    for row, value in study_rows.ranked(arm.search(), metric):
        return Best(row.block, row.trial, value, dict(row.params))
    return None


def _confirmed(arm: ArmRecord, role: str, candidate: Chosen | None, split: Split) -> Confirmed | None:
    """None if confirm has not planned it; without values if it has no score yet."""
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
