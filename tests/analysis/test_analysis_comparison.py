from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ralr_tune.analysis.comparison import (
    Comparison,
    Pairs,
    compare,
    holm,
    holm_levels,
    paired_test,
    run_error,
    seed_error,
)
from ralr_tune.metric import Metric
from tests.metrics import ACCURACY, LOSS


def one(differences: list[float], *, margin: float = 0.0, metric: Metric = ACCURACY) -> Comparison:
    family = [Pairs("configuration", "ralr", "monotone", differences)]
    (made,) = compare(family, margin=margin, confidence=0.95, metric=metric)
    return made


def test_agrees_with_scipys_paired_t_test() -> None:
    random = np.random.default_rng(1)
    own, base = random.normal(0.98, 0.01, 6), random.normal(0.97, 0.01, 6)
    expected = stats.ttest_rel(own, base)
    made = one(list(own - base))
    assert made.p_value == pytest.approx(expected.pvalue)
    assert made.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert made.difference == pytest.approx(float(np.mean(own - base)))
    assert made.n == 6


@pytest.mark.parametrize(
    ("differences", "metric", "verdict"),
    [
        ([0.02, 0.021, 0.019, 0.022, 0.02], ACCURACY, "better"),
        ([0.02, 0.021, 0.019, 0.022, 0.02], LOSS, "worse"),
        ([-0.02, -0.021, -0.019, -0.022, -0.02], ACCURACY, "worse"),
        ([-0.02, -0.021, -0.019, -0.022, -0.02], LOSS, "better"),
        ([0.02, -0.021, 0.019, -0.022, 0.02], ACCURACY, "inconclusive"),
        ([0.001, -0.001, 0.0005, 0.0, -0.0004], ACCURACY, "equivalent"),
        ([0.002, 0.0021, 0.0019, 0.0022, 0.002], ACCURACY, "equivalent"),  # real, but below the margin
    ],
)
def test_verdicts(differences: list[float], metric: Metric, verdict: str) -> None:
    assert one(differences, margin=0.005, metric=metric).verdict == verdict


def test_equivalence_is_two_one_sided_tests() -> None:
    d = np.array([0.001, -0.002, 0.0015, 0.0003, -0.0007])
    upper = stats.ttest_1samp(d, 0.005, alternative="less").pvalue
    lower = stats.ttest_1samp(d, -0.005, alternative="greater").pvalue
    tested = paired_test(list(d), margin=0.005, confidence=0.95)
    assert tested.p_equivalent == pytest.approx(max(upper, lower))


def test_the_equivalence_interval_is_at_90_percent_and_decides() -> None:
    d = np.array([0.003, 0.005, 0.004, 0.0052, 0.0041])
    (low, inner), (_, outer) = (stats.ttest_1samp(d, 0).confidence_interval(share) for share in (0.90, 0.95))
    made = one(list(d), margin=(inner + outer) / 2)  # the 95% interval alone would contradict the verdict
    assert made.equivalence_interval == pytest.approx((low, inner))
    assert made.verdict == "equivalent"
    assert one(list(d), margin=inner - 1e-6).verdict == "better"
    assert one(list(d)).equivalence_interval is None


def test_of_several_comparisons_the_equivalence_interval_decides_each() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.uniform(0, 0.006, 3)
        family = [Pairs("configuration", str(i), "m", list(random.normal(m, 0.002, 6))) for i, m in enumerate(sizes)]
        for made in compare(family, margin=0.005, confidence=0.95, metric=ACCURACY):
            assert made.equivalence_interval is not None
            low, high = made.equivalence_interval
            assert (low >= -0.005 and high <= 0.005) == (made.verdict == "equivalent")


def test_no_margin_means_nothing_is_equivalent() -> None:
    assert one([0.001, -0.001, 0.0005, 0.0, -0.0004], margin=0.0).verdict == "inconclusive"
    assert one([0.0] * 8, margin=0.0).verdict == "inconclusive"


def test_one_pair_gives_only_its_difference() -> None:
    made = one([0.3], margin=0.005)
    assert (made.difference, made.interval, made.p_value, made.n, made.verdict) == (0.3, None, None, 1, "inconclusive")


def test_an_empty_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        one([])


def test_two_equal_differences_are_inconclusive() -> None:
    made = one([0.01, 0.01], margin=0.005)
    assert made.p_value == 0.5
    assert made.interval is None
    assert made.verdict == "inconclusive"


def test_equal_differences_get_the_sign_test() -> None:
    assert one([0.01] * 5).verdict == "inconclusive"  # p = 0.0625
    made = one([0.98 - 0.97, 0.97 - 0.96, *[0.01] * 5])  # equal but for rounding
    assert made.p_value == pytest.approx(2**-6)
    assert made.verdict == "better"
    assert made.interval == (made.difference, made.difference)


def test_identical_scores_are_equivalent_once_there_are_five() -> None:
    assert one([0.0] * 4, margin=0.005).verdict == "inconclusive"
    made = one([0.0] * 5, margin=0.005)
    assert made.p_value == 1.0
    assert made.verdict == "equivalent"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_arms_are_corrected_together() -> None:
    differences = [0.02, 0.012, 0.019, 0.007, 0.02]
    alone = one(differences)
    family = [Pairs("configuration", name, "monotone", differences) for name in ("a", "b", "c")]
    first, *_ = compare(family, margin=0.0, confidence=0.95, metric=ACCURACY)
    assert alone.p_value is not None
    assert alone.interval is not None
    assert first.interval is not None
    assert first.p_value == pytest.approx(3 * alone.p_value)
    assert first.interval[0] < alone.interval[0]
    assert first.interval[1] > alone.interval[1]
    assert first.confidence == 0.95


def test_a_comparison_without_a_test_does_not_count_in_the_correction() -> None:
    differences = [0.02, 0.012, 0.019, 0.007, 0.02]
    family = [Pairs("configuration", "short", "monotone", [0.1]), Pairs("configuration", "a", "monotone", differences)]
    short, long = compare(family, margin=0.0, confidence=0.95, metric=ACCURACY)
    assert short.p_value is None
    assert long.p_value == one(differences).p_value


def test_equal_configurations_rarely_differ() -> None:
    random = np.random.default_rng(0)
    studies = random.normal(0, 0.01, (1000, 5))
    wrong = sum(one(list(d)).verdict != "inconclusive" for d in studies)
    assert 0.03 * 1000 < wrong < 0.07 * 1000


def test_seeds_that_all_blocks_share_count_as_a_separate_sample() -> None:
    blocks, seeds = [0.021, 0.019, 0.02, 0.02], [0.05, -0.01, 0.03, 0.0, 0.03]
    (alone,), (both,) = (
        compare([Pairs("arm", "a", "b", blocks, given)], margin=0.0, confidence=0.95, metric=ACCURACY)
        for given in ([], seeds)
    )
    assert (alone.verdict, both.verdict) == ("better", "inconclusive")
    assert both.difference == alone.difference
    assert both.n == alone.n == 4


def test_over_blocks_and_seeds_the_noise_of_single_runs_counts_once() -> None:
    """The squared error of the mean of a two-way layout, from its mean squares, is unbiased."""
    random, blocks, seeds, of_block, of_seed, of_run = np.random.default_rng(3), 4, 5, 0.02, 0.01, 0.03
    squares, tests = [], []
    for _ in range(2000):
        d = random.normal(0, of_block, (blocks, 1)) + random.normal(0, of_seed, seeds)
        d = d + random.normal(0, of_run, (blocks, seeds))
        error = run_error(d.tolist(), d.size)
        (b, s) = (sample.var(ddof=1) / len(sample) for sample in (d.mean(axis=1), d.mean(axis=0)))
        squares.append(b + s - error**2)
        tests.append(
            paired_test(
                list(d.mean(axis=1)), margin=0.0, confidence=0.95, by_seed=list(d.mean(axis=0)), run_error=error
            )
        )
    true = of_block**2 / blocks + of_seed**2 / seeds + of_run**2 / (blocks * seeds)
    assert np.mean(squares) == pytest.approx(true, rel=0.05)
    assert 0.005 < np.mean([test.p_value <= 0.05 for test in tests]) < 0.06  # type: ignore[operator]
    assert run_error([[0.1, 0.2]], 2) == 0.0


def test_what_seeds_add_is_never_below_the_larger_error() -> None:
    for blocks, seeds, runs in ((3.0, 2.0, 1.0), (1.0, 2.0, 9.0), (2.0, 1.0, 9.0), (0.0, 2.0, 1.0)):
        both = np.hypot(blocks, seed_error(blocks, seeds, runs))
        assert both >= max(blocks, seeds) - 1e-12
    assert seed_error(3.0, 2.0, 0.0) == 2.0  # min F'


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03, 0.3, 1e6])
def test_over_blocks_and_seeds_interval_and_p_value_agree(shift: float) -> None:
    blocks, seeds = [0.021, 0.015, 0.02, 0.024], [0.03, 0.01, 0.03, 0.0, 0.03]
    for confidence in (0.5, 0.95, 0.999):
        tested = paired_test(
            [b + shift for b in blocks], margin=0.05, confidence=confidence, by_seed=[s + shift for s in seeds]
        )
        assert tested.interval is not None
        assert tested.p_value is not None
        assert tested.p_equivalent is not None
        assert (tested.interval[0] > 0) == (tested.p_value < 1 - confidence)
        assert (tested.p_equivalent < 0.5) == (tested.difference < 0.05)
        assert 0 <= tested.p_value <= 1


def test_equal_blocks_and_seeds_get_the_sign_test_over_blocks() -> None:
    tested = paired_test([0.01] * 3, margin=0.0, confidence=0.95, by_seed=[0.01] * 9)
    assert (tested.p_value, tested.interval) == (0.25, None)


@pytest.mark.filterwarnings("error")
def test_no_square_overflows() -> None:
    d = [2.0, -1.0, 0.5, 3.0]
    small, large = one(d), one([1e200 * value for value in d])
    assert large.p_value == pytest.approx(small.p_value)
    assert large.interval == pytest.approx(tuple(1e200 * bound for bound in small.interval or ()))
    assert one([0.0, 1e200, 1e-200]).p_value == pytest.approx(one([0.0, 1.0, 0.0]).p_value)


def agrees(made: Comparison, margin: float) -> bool:
    """Whether the deciding interval shows the verdict."""
    if made.deciding is None:
        return made.verdict == "inconclusive"
    low, high = made.deciding
    within, away = -margin < low <= high < margin, low > 0 or high < 0
    return {"equivalent": within, "better": away, "worse": away}.get(made.verdict, not within and not away)


def test_the_deciding_interval_always_agrees_with_the_verdict() -> None:
    """For one or several comparisons, over seeds, over blocks, over both, with and without spread."""
    random, seen = np.random.default_rng(7), []
    for _ in range(300):
        n, margin = int(random.integers(1, 9)), float(random.choice([0.0, 0.005, 0.01]))
        means = random.choice([0.0, 0.002, 0.01, 0.02], size=random.integers(1, 5))
        spread = float(random.choice([0.0, 0.001, 0.004, 0.01]))
        by_seed = [list(random.normal(0.0, spread, 5)) if random.random() < 0.3 else [] for _ in means]
        family = [
            Pairs("arm", "a", "b", list(random.normal(mean, spread, n)), seeds)
            for mean, seeds in zip(means, by_seed, strict=True)
        ]
        for made in compare(family, margin=margin, confidence=0.95, metric=ACCURACY):
            assert agrees(made, margin), made
            seen.append(made.verdict)
    assert {"better", "equivalent", "inconclusive"} <= set(seen)


def test_equivalence_is_shown_by_the_90_percent_interval() -> None:
    d = [0.004, -0.004, 0.004, 0.0, 0.001, 0.003]
    made = one(d, margin=0.004)
    assert made.verdict == "equivalent"
    assert made.interval is not None
    assert made.interval[1] > 0.004
    assert made.deciding == pytest.approx(tuple(stats.ttest_1samp(d, 0).confidence_interval(0.90)))
    assert one(d, margin=0.002).deciding == one(d, margin=0.002).interval


def test_the_levels_of_holms_steps() -> None:
    assert holm_levels([0.01, 0.5, 0.02], 0.05) == pytest.approx([0.05 / 3, 0.05, 0.025])
    assert holm_levels([0.01, 0.04, 0.03], 0.05) == pytest.approx([0.05 / 3, 0.025, 0.025])
