"""Arms over blocks: which noise counts, by the seeds on which the blocks were judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from synthetic_study import make_record

from ralr_tune.analysis.comparison import Comparison
from ralr_tune.analysis.power import DetectableEffect, ErrorFloor
from ralr_tune.analysis.verdicts import arm_verdicts
from ralr_tune.records import Row


def arms_of(change: Callable[[Row], Row] = lambda row: row, blocks: int = 4) -> tuple[Comparison, DetectableEffect]:
    found = arm_verdicts(make_record(until="confirmed", blocks=blocks, change=change), "validation")
    return found.made[0], found.detectable[0]


def test_blocks_judged_on_the_same_seeds_share_their_noise() -> None:
    def change(row: Row) -> Row:
        """Each seed's noise is the same in all of RALR's blocks."""
        luck = (0.03, -0.02, 0.01, -0.03, 0.02)[row.ordinal] if row.stage == "judge" and row.arm == "ralr" else 0.0
        return replace(row, value=0.9 + luck + 0.001 * row.block * (row.arm == "ralr")) if row.stage == "judge" else row

    made, detectable = arms_of(change)
    assert (made.n, made.verdict) == (4, "inconclusive")
    luck, steps = np.array([0.03, -0.02, 0.01, -0.03, 0.02]), 0.001 * np.arange(1, 5)
    parts = luck.var(ddof=1) / 5, steps.var(ddof=1) / 4
    t = [stats.t.isf(0.025, freedom) for freedom in (4, 3)]
    half = (parts[0] * t[0] + parts[1] * t[1]) / sum(parts) ** 0.5
    mean = luck.mean() + steps.mean()
    assert made.interval == pytest.approx((mean - half, mean + half))
    assert detectable.floor == ErrorFloor(pytest.approx(parts[0] ** 0.5), 4)
    assert detectable.spread == pytest.approx(steps.std(ddof=1))


def test_blocks_with_seeds_of_their_own_do_not() -> None:
    own_seeds = lambda row: replace(row, seed=100 * row.block + row.ordinal) if row.stage == "judge" else row  # noqa: E731
    made, detectable = arms_of(own_seeds)
    assert detectable.floor is None
    record = make_record(until="confirmed", blocks=4, change=own_seeds)
    means = [
        [np.mean([row.value for row in arm.stage("judge") if row.block == block]) for block in range(1, 5)]
        for arm in record.arms.values()
    ]
    assert made.interval == pytest.approx(tuple(stats.ttest_rel(means[1], means[0]).confidence_interval()))


def test_seeds_are_paired_within_a_block_and_lost_ones_are_left_out() -> None:
    def lose(row: Row) -> Row:
        lost = row.stage == "judge" and row.arm == "ralr" and (row.block, row.ordinal) in {(1, 0), (2, 3)}
        return replace(row, outcome="diverged", value=None) if lost else row

    (whole, _), (made, detectable) = arms_of(), arms_of(lose)
    assert made.n == whole.n == 4
    assert made.difference != whole.difference
    assert detectable.floor is not None


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_shared_seeds_give_no_interval(seeds: int) -> None:
    found = arm_verdicts(make_record(until="confirmed", blocks=4, seeds=seeds), "validation")
    assert [(made.interval, made.verdict) for made in found.made] == [(None, "inconclusive")]
    assert found.made[0].n == 4
