from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ralr_tune.analysis.sequential import Plan, boundaries, latest_analysis, next_analysis, nominal_level
from ralr_tune.metric import Metric
from tests.metrics import ACCURACY, LOSS

LOOKS = tuple(range(3, 13))
PLAN = Plan(LOOKS, margin=0.005)


def draws(mean: float, n: int = 12, *, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.01, n))


@pytest.mark.parametrize("analyses", [(3, 4, 5, 6, 8, 12), (2, 3, 4), (5, 8, 11, 14)])
def test_the_boundaries_spend_what_they_should(analyses: tuple[int, ...]) -> None:
    """Compared with a plain simulation: without a difference, the share that is settled by each analysis."""
    x = np.random.default_rng(0).standard_normal((200_000, analyses[-1]))
    settled = np.zeros(len(x), dtype=bool)
    for n, bound in zip(analyses, boundaries(analyses, 0.1), strict=True):
        d = x[:, :n]
        settled |= d.mean(axis=1) > bound * d.std(axis=1, ddof=1) / math.sqrt(n)
        assert settled.mean() == pytest.approx(0.1 * (n / analyses[-1]) ** 2, abs=0.0025)


def test_a_single_analysis_is_the_t_test() -> None:
    assert boundaries((5,), 0.025) == pytest.approx([stats.t.isf(0.025, 4)])
    d = draws(0.004, 5)
    plan = Plan((5,), margin=0.0)
    expected = stats.ttest_1samp(d, 0.0)
    decision = next_analysis(d, plan)
    assert decision.p_value == pytest.approx(expected.pvalue)
    assert decision.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert decision.verdict == "inconclusive"


def test_later_analyses_do_not_change_earlier_boundaries() -> None:
    """What an analysis spends depends only on the maximum; later analyses do not matter."""
    assert boundaries((3, 6, 12), 0.025)[:2] == pytest.approx(boundaries((3, 6, 8, 12), 0.025)[:2])


@pytest.mark.parametrize(
    ("mean", "metric", "verdict"),
    [(0.05, ACCURACY, "better"), (0.05, LOSS, "worse"), (-0.05, ACCURACY, "worse")],
)
def test_a_large_difference_stops_early(mean: float, metric: Metric, verdict: str) -> None:
    decision = next_analysis(draws(mean), replace(PLAN, metric=metric))
    assert decision.verdict == verdict
    assert decision.n < 12
    assert decision.next_look is None
    assert decision.interval is not None
    assert decision.interval[0] * decision.interval[1] > 0
    assert decision.p_value is not None
    assert decision.p_value <= 0.05


def test_an_analysis_finds_equivalence_if_its_inner_interval_lies_within_the_margin() -> None:
    seen = set()
    for seed in range(40):
        d = draws(0.0, seed=seed)
        decision = latest_analysis([difference / 2 for difference in d], PLAN)
        assert decision.equivalence_interval is not None
        low, high = decision.equivalence_interval
        assert (low > -0.005 and high < 0.005) == (decision.verdict == "equivalent")
        seen.add(decision.verdict)
    assert {"equivalent", "inconclusive"} <= seen
    assert latest_analysis(draws(0.0), replace(PLAN, margin=0.0)).equivalence_interval is None


def test_it_continues_until_the_last_analysis() -> None:
    d = draws(0.0)
    for n in range(13):
        decision = next_analysis(d[:n], replace(PLAN, margin=0.0))
        if n < 3:
            assert (decision.verdict, decision.n, decision.next_look) == ("go on", 0, 3)
        elif n < 12:
            assert (decision.verdict, decision.n, decision.next_look) == ("go on", n, n + 1)
            assert decision.p_value is None
    assert (decision.verdict, decision.next_look) == ("inconclusive", None)
    assert decision.p_value is not None
    assert decision.p_value > 0.05


def test_no_difference_is_equivalent_in_time() -> None:
    tight = list(np.random.default_rng(1).normal(0.0, 0.002, 12))
    decision = next_analysis(tight, PLAN)
    assert decision.verdict == "equivalent"
    assert decision.n < 12


def test_a_final_verdict_stays_final() -> None:
    first = next_analysis(draws(0.05), PLAN)
    contrary = draws(0.05)[: first.n] + [-0.5] * (12 - first.n)
    assert next_analysis(contrary, PLAN) == first
    assert latest_analysis(contrary, PLAN) != first


def test_pairs_between_two_analyses_do_not_count() -> None:
    plan = Plan((4, 8), margin=0.0)
    d = draws(0.0)
    assert next_analysis(d[:4], plan) == next_analysis([*d[:4], 9.0, 9.0], plan)


def test_the_verdict_and_the_interval_agree() -> None:
    for seed in range(200):
        decision = next_analysis(draws(0.008, seed=seed), replace(PLAN, margin=0.0))
        assert decision.interval is not None
        excludes = decision.interval[0] > 0 or decision.interval[1] < 0
        assert excludes == (decision.verdict in ("better", "worse"))
        assert decision.p_value is not None
        assert excludes == (decision.p_value <= 0.05)


def test_the_deciding_interval_lies_within_the_margin_exactly_if_equivalent() -> None:
    found = [next_analysis(draws(0.0, seed=seed), PLAN) for seed in range(60)]
    assert {"equivalent", "inconclusive"} <= {decision.verdict for decision in found}
    for decision in found:
        if decision.deciding is not None:
            low, high = decision.deciding
            assert (-PLAN.margin < low and high < PLAN.margin) == (decision.verdict == "equivalent")


def test_equal_differences_get_the_sign_test() -> None:
    settled = next_analysis([0.01] * 12, replace(PLAN, margin=0.0))
    assert settled.verdict == "better"
    assert settled.n > 6
    assert next_analysis([0.01] * 5, replace(PLAN, margin=0.0)).verdict == "go on"
    assert next_analysis([0.0] * 12, PLAN).verdict == "equivalent"
    assert next_analysis([0.0] * 12, replace(PLAN, margin=0.0)).verdict == "inconclusive"


def test_several_comparisons_are_stricter() -> None:
    several = replace(PLAN, comparisons=3)
    assert boundaries(LOOKS, several.alpha / 2)[-1] > boundaries(LOOKS, PLAN.alpha / 2)[-1]
    assert nominal_level(several) < nominal_level(PLAN) < 0.05


def test_the_latest_analysis_alone() -> None:
    assert latest_analysis(draws(0.05, 2), PLAN).verdict == "go on"
    assert latest_analysis(draws(0.05, 12), PLAN).n == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"analyses": ()}, "analyses"),
        ({"analyses": (1, 2)}, "analyses"),
        ({"analyses": (3, 3)}, "analyses"),
        ({"margin": -0.1}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"confidence": 0.4}, "confidence"),
        ({"comparisons": 0}, "comparisons"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} = .*allowed"):
        replace(PLAN, **change)  # type: ignore[arg-type]
