from __future__ import annotations

import math

import pytest

from ralr_tune.analysis.pruning import Audited, PruningAudit, pruning_audit, pruning_gaps
from ralr_tune.metric import Metric
from tests.metrics import ACCURACY, LOSS

FINALS = {"ralr": [0.90, 0.92, 0.94, 0.96, 0.98], "monotone": [0.90, 0.92, 0.94, 0.96, 0.98]}


def audited(*finals: float, arm: str = "ralr") -> list[Audited]:
    return [Audited(arm, 3, [0.5, 0.6, final]) for final in finals]


def audit(*finals: float) -> PruningAudit:
    return pruning_audit(audited(*finals), FINALS, metric=ACCURACY)[0]


def test_wrong_is_above_the_survivors_median() -> None:
    found = audit(*[0.93] * 8, 0.95, 0.97, 0.99, 0.94)
    assert (found.audited, found.wrong, found.lost_best) == (12, 3, 1)
    assert found.rate == pytest.approx(0.25)
    assert found.interval is not None
    assert found.interval[0] < 0.25 < found.interval[1]
    assert found.cost == pytest.approx(0.01)
    assert (found.epoch, found.spared) == (3, 3)


def test_wrong_trials_with_an_amplified_end_are_counted() -> None:
    trials = [
        each._replace(amplified=index % 2 == 0) for index, each in enumerate(audited(0.95, 0.97, 0.99, 0.91, 0.9))
    ]
    assert pruning_audit(trials, FINALS, metric=ACCURACY)[0].ended_amplified == 2


def test_no_rate_below_ten() -> None:
    found = audit(*[0.97] * 9)
    assert (found.audited, found.wrong, found.rate, found.interval) == (9, 9, None, None)
    assert found.cost == 0.0


def test_smaller_is_better_for_a_loss() -> None:
    (found,) = pruning_audit(audited(0.1, 0.4), {"ralr": [0.2, 0.3, 0.5]}, metric=LOSS)
    assert (found.wrong, found.lost_best) == (1, 1)
    assert found.cost == pytest.approx(0.1)


def test_trials_that_cannot_be_compared_are_left_out() -> None:
    nothing = [Audited("ralr", 3, [])]
    assert pruning_audit(nothing, FINALS, metric=ACCURACY)[0].audited == 0
    assert pruning_audit(audited(0.9), {"ralr": []}, metric=ACCURACY)[0].cost is None


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=["maximize", "minimize"])
def test_a_diverged_audit_was_pruned_rightly(metric: Metric) -> None:
    found = pruning_audit(audited(*[math.nan] * 10), FINALS, metric=metric)[0]
    assert (found.audited, found.wrong, found.lost_best, found.cost) == (10, 0, 0, 0.0)


def test_arms_that_differ_are_named() -> None:
    mixed = audited(*[0.97] * 14) + audited(*[0.91] * 14, arm="monotone")
    (gap,) = pruning_gaps(pruning_audit(mixed, FINALS, metric=ACCURACY), "monotone")
    assert gap.differ
    assert gap.p_value < 1e-4
    even = audited(*[0.97, 0.91] * 7) + audited(*[0.91, 0.97] * 7, arm="monotone")
    (gap,) = pruning_gaps(pruning_audit(even, FINALS, metric=ACCURACY), "monotone")
    assert not gap.differ


def test_too_few_in_one_arm_compare_nothing() -> None:
    mixed = audited(*[0.97] * 14) + audited(*[0.91] * 9, arm="monotone")
    assert pruning_gaps(pruning_audit(mixed, FINALS, metric=ACCURACY), "monotone") == ()
