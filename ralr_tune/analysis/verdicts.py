"""The verdicts of a study: each arm against the baseline, by configuration and, if there are blocks, by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.comparison import Comparison, Pairs, What, compare, run_error, seed_error
from ralr_tune.analysis.power import DetectableEffect, ErrorFloor, detectable_effect
from ralr_tune.analysis.rows import Split
from ralr_tune.analysis.sequential import Decision, Plan, latest_analysis, next_analysis, nominal_level
from ralr_tune.records import StudyRecord

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Verdicts:
    """One kind of comparison: all that were made together, in the order of the arms."""

    made: tuple[Comparison, ...] = ()
    detectable: tuple[DetectableEffect, ...] = ()
    interim: Mapping[str, Decision] = field(default_factory=dict)
    """By arm; empty if the number of seeds was fixed."""


def configuration_verdicts(record: StudyRecord, split: Split, plan: Plan | None) -> Verdicts:
    """Each arm's confirmed configuration against the baseline's, over the seeds that both have."""
    stage = study_rows.stage_of(split)
    found = {
        name: study_rows.scores(arm, stage, "best", candidate)
        for name, arm in record.arms.items()
        if (candidate := study_rows.chosen(arm, record.metric)) is not None
    }
    family = _against_baseline(record, "configuration", found)
    return _fixed_sample_size(record, family) if plan is None else _group_sequential(record, family, split, plan)


def arm_verdicts(record: StudyRecord, split: Split) -> Verdicts:
    """Each arm against the baseline over the winners of independent blocks; empty with a single block."""
    stage = study_rows.stage_of(split)
    found = {name: study_rows.block_scores(arm, stage, record.metric) for name, arm in record.arms.items()}
    base = found.get(record.baseline, {})
    family = [
        Pairs("arm", name, record.baseline, [fmean(block.values()) for block in blocks], *_of_shared_seeds(blocks))
        for name, own in found.items()
        if name != record.baseline and len(blocks := _paired_blocks(own, base)) > 1
    ]
    return _fixed_sample_size(record, family)


def _paired_blocks(own: Mapping[int, Mapping[int, float]], base: Mapping[int, Mapping[int, float]]) -> list[BySeed]:
    """Own minus base by seed, for the blocks in which both have a seed."""
    both = [(scores, base[block]) for block, scores in own.items() if block in base]
    paired = [{seed: value - other[seed] for seed, value in scores.items() if seed in other} for scores, other in both]
    return [block for block in paired if block]


def _of_shared_seeds(blocks: Sequence[BySeed]) -> tuple[list[float], float]:
    """Each seed's mean over the blocks, and the error of single runs; nothing if every block has its own seeds."""
    seeds = dict.fromkeys(seed for block in blocks for seed in block)
    runs = sum(map(len, blocks))
    if len(seeds) == runs:
        return [], 0.0
    whole = [seed for seed in seeds if all(seed in block for block in blocks)]
    error = run_error([[block[seed] for seed in whole] for block in blocks], runs)
    return [fmean(block[seed] for block in blocks if seed in block) for seed in seeds], error


def _against_baseline(record: StudyRecord, what: What, found: Mapping[str, Mapping[int, float]]) -> list[Pairs]:
    base = found.get(record.baseline, {})
    paired = {name: study_rows.differences(own, base) for name, own in found.items() if name != record.baseline}
    return [Pairs(what, name, record.baseline, pairs) for name, pairs in paired.items() if pairs]


def _fixed_sample_size(record: StudyRecord, family: Sequence[Pairs]) -> Verdicts:
    made = compare(family, margin=record.margin, confidence=record.confidence, metric=record.metric)
    tested = sum(len(pairs.differences) > 1 for pairs in family)
    return Verdicts(made, _detectable(record, family, made, (1 - record.confidence) / max(1, tested)))


def _group_sequential(record: StudyRecord, family: Sequence[Pairs], split: Split, plan: Plan) -> Verdicts:
    """The interim analyses use validation values; the test split is judged by the latest one alone."""
    decide = next_analysis if split == "validation" else latest_analysis
    interim = {pairs.arm: decide(pairs.differences, plan) for pairs in family}
    made = tuple(_comparison(pairs, interim[pairs.arm], record.confidence) for pairs in family)
    return Verdicts(made, _detectable(record, family, made, nominal_level(plan)) if family else (), interim)


def _comparison(pairs: Pairs, decision: Decision, confidence: float) -> Comparison:
    mean = fmean(pairs.differences)
    return Comparison(
        what=pairs.what,
        arm=pairs.arm,
        against=pairs.against,
        difference=mean if decision.difference is None else decision.difference,
        interval=decision.interval,
        confidence=confidence,
        p_value=decision.p_value,
        n=decision.n or len(pairs.differences),
        verdict="inconclusive" if decision.verdict == "go on" else decision.verdict,
        equivalence_interval=decision.equivalence_interval,
        deciding=decision.deciding,
    )


def _detectable(
    record: StudyRecord, family: Sequence[Pairs], made: Sequence[Comparison], alpha: float
) -> tuple[DetectableEffect, ...]:
    found = [
        detectable_effect(
            comparison,
            _spread(pairs.differences[: comparison.n]),
            margin=record.margin,
            alpha=alpha,
            floor=_floor(pairs),
        )
        for pairs, comparison in zip(family, made, strict=True)
    ]
    return tuple(each for each in found if each is not None)


def _floor(pairs: Pairs) -> ErrorFloor | None:
    seeds = len(pairs.by_seed)
    if seeds < 2:
        return None
    of_blocks, of_seeds = (_spread(sample) / sqrt(len(sample)) for sample in (pairs.differences, pairs.by_seed))
    return ErrorFloor(seed_error(of_blocks, of_seeds, pairs.run_error), seeds - 1)


def _spread(differences: Sequence[float]) -> float:
    return stdev(differences) if len(differences) > 1 else 0.0
