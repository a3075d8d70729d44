from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import SHARED, Builder, make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import robustness_sentences
from ralr_tune.analysis.robustness import RateTrial, Robustness, local_linear, local_scores, robustness
from ralr_tune.records import ArmRecord, EpochRecord, Row, StudyRecord
from tests.metrics import ACCURACY, BLEU, LOSS

LR = {"lr": SHARED["lr"]}


def arm(name: str, scores: Sequence[tuple[float, float | None]]) -> ArmRecord:
    """One complete search trial for each (log10 rate, score); None diverged."""
    make = Builder()
    rows = []
    for ordinal, (rate, score) in enumerate(scores):
        row = make.row(name, "search", ordinal, params={"lr": 10**rate}, trial=ordinal, state="done", value=score)
        rows.append(replace(row, outcome="complete" if score is not None else "diverged"))
    return ArmRecord(name, LR, tuple(rows))


def study(**arms: Sequence[tuple[float, float | None]]) -> StudyRecord:
    return replace(make_record(until="planned"), arms={name: arm(name, scores) for name, scores in arms.items()})


def peak(curvature: float, *, n: int = 40, cliff: float = 1.0, noise: float = 0.0) -> list[tuple[float, float | None]]:
    """Best at 0.1; rates above the cliff diverge."""
    rng = np.random.default_rng(0)
    rates = np.linspace(-3, 0, n)
    scores = 0.95 - curvature * (rates + 1) ** 2 + noise * rng.standard_normal(n)
    return [(float(rate), float(score) if rate < cliff else None) for rate, score in zip(rates, scores, strict=True)]


def only(record: StudyRecord) -> Robustness:
    (found,), _ = robustness(record)
    return found


def test_local_linear_is_exact_on_a_line() -> None:
    x, grid = np.random.default_rng(0).uniform(0, 1, 30), np.linspace(0.1, 0.9, 9)
    found = local_linear(x, 2 * x + 1, grid, np.ones((1, 30)), 0.2)
    assert found[0] == pytest.approx(2 * grid + 1, abs=0.03)


def test_local_linear_counts_are_repeats() -> None:
    x, y, grid = np.array([0.0, 0.5, 1.0]), np.array([1.0, 3.0, 2.0]), np.linspace(0, 1, 5)
    counted = local_linear(x, y, grid, np.array([[2.0, 1.0, 0.0]]), 0.3)
    repeated = local_linear(np.array([0.0, 0.0, 0.5]), np.array([1.0, 1.0, 3.0]), grid, np.ones((1, 3)), 0.3)
    assert counted == pytest.approx(repeated)


def test_the_range_of_a_known_peak() -> None:
    rates = only(study(monotone=peak(0.08, noise=0.002))).rates
    assert rates is not None
    assert rates.factor == pytest.approx(10 ** (2 * math.sqrt(0.01 / 0.08)), rel=0.25)
    assert rates.low < 0.1 < rates.high
    assert rates.best == pytest.approx(0.1, rel=0.2)
    assert rates.factor_interval[0] <= rates.factor <= rates.factor_interval[1]
    assert not rates.low_open
    assert not rates.high_open


def test_a_cliff_ends_the_range() -> None:
    rates = only(study(monotone=peak(0.02, cliff=-0.8))).rates
    assert rates is not None
    assert rates.high < 10**-0.8 * 1.1
    assert rates.low < 0.05


def test_a_range_that_may_extend_further_is_open() -> None:
    found = study_facts(study(monotone=peak(0.001)))
    rates = found.robustness[0].rates
    assert rates is not None
    assert rates.low_open
    assert rates.high_open


def test_a_flatter_peak_tolerates_more() -> None:
    record = study(monotone=peak(0.3, noise=0.001), ralr=peak(0.03, noise=0.001))
    _, (made,) = robustness(record)
    assert (made.arm, made.against, made.verdict) == ("ralr", "monotone", "more")
    assert made.times > 2
    assert made.interval[0] > 1
    (sentence,) = robustness_sentences(study_facts(record))
    assert sentence.startswith("Does ralr tolerate a badly chosen learning rate better than monotone? Yes:")


def test_an_interval_of_a_ratio_that_spans_a_factor_of_a_hundred_is_not_quoted() -> None:
    record = study(monotone=peak(0.3, noise=0.001), ralr=peak(0.03, noise=0.001))
    facts = study_facts(record)
    wide = replace(facts.forgiveness[0], interval=(0.0055, 97.0), trials=24)
    (sentence,) = robustness_sentences(replace(facts, forgiveness=(wide,)))
    assert sentence.endswith("? 24 trials are too few to judge, at least about 400 are needed.")
    assert replace(wide, interval=(1.0, 100.0)).judged
    assert wide.enough > replace(wide, interval=(0.1, 11.0)).enough > 24


def test_equal_peaks_show_no_difference() -> None:
    _, (made,) = robustness(study(monotone=peak(0.08, noise=0.004), ralr=peak(0.08, noise=0.004)))
    assert made.verdict == "no difference shown"


def test_losses_are_smoothed_the_other_way() -> None:
    scores = [(rate, None if score is None else 2.0 - score) for rate, score in peak(0.08)]
    record = replace(study(monotone=scores), metric=LOSS)
    rates = only(record).rates
    assert rates is not None
    assert rates.best == pytest.approx(0.1, rel=0.2)
    assert min(rates.expected) == pytest.approx(1.05, abs=0.01)
    assert rates.tolerance == pytest.approx(0.01 * min(value for _, value in scores if value is not None))


def test_diverged_trials_are_counted_with_an_exact_interval() -> None:
    found = only(study(monotone=peak(0.08, cliff=-0.5)))
    assert (found.diverged, found.finished) == (7, 40)
    assert found.share_interval is not None
    assert found.share_interval[0] < 7 / 40 < found.share_interval[1]
    assert "7 diverged" in robustness_sentences(study_facts(study(monotone=peak(0.08, cliff=-0.5))))[-1]


def test_out_of_memory_is_not_divergence() -> None:
    record = study(monotone=peak(0.08, cliff=-0.5))
    rows = tuple(
        replace(row, failure="oom") if row.outcome == "diverged" else row for row in record.arms["monotone"].rows
    )
    record = replace(record, arms={"monotone": replace(record.arms["monotone"], rows=rows)})
    found = only(record)
    assert (found.diverged, found.finished) == (0, 40)
    assert found.rates is not None
    assert found.rates.trials == 33


def test_pruned_trials_are_extrapolated_by_the_gain_of_complete_ones() -> None:
    def spread(row: Row) -> Row:
        """Every complete trial gained 0.3 after epoch 1; half of the trials are pruned there."""
        assert row.value is not None
        early = EpochRecord(1, row.value - 0.3, 0.0, 0.1, 1.0, 1.0)
        if row.ordinal % 2:
            return replace(row, outcome="pruned", value=early.value, curve=(early,))
        return replace(row, curve=(early, replace(early, epoch=2, value=row.value)))

    record = study(monotone=peak(0.08))
    rows = tuple(spread(row) for row in record.arms["monotone"].rows)
    changed = replace(record, arms={"monotone": replace(record.arms["monotone"], rows=rows)})
    before, after = only(record).rates, only(changed).rates
    assert before is not None
    assert after is not None
    assert after.factor == pytest.approx(before.factor, rel=0.05)


def test_the_local_scores_follow_the_trials_over_a_cliff() -> None:
    """The curve behind the range cuts scores; what is drawn must not: here they fall from 95% to 26%."""
    rates = np.linspace(-3, 0, 61)
    scores = [(float(rate), 0.95 if rate < -0.75 else 0.26) for rate in rates]
    found = only(study(monotone=scores)).rates
    assert found is not None
    assert min(found.expected) > 0.89
    local = {round(math.log10(each.rate), 2): each for each in found.local}
    assert local[0.0].middle == pytest.approx(0.26)
    assert local[-0.9].middle == pytest.approx(0.95)  # no cliff is smeared this far
    assert all(each.lower <= each.middle <= each.upper for each in found.local)
    assert all(each.supported for each in found.local)


def test_local_scores_without_trials_nearby_are_marked() -> None:
    trials = [RateTrial(10**x, 0.9, "complete") for x in (-3.0, -2.95, -2.9, 0.0)]
    ends = local_scores(trials, [10**-2.95, 10**-1.5, 1.0], ACCURACY)
    assert [each.supported for each in ends] == [True, False, False]


def test_diverged_trials_pull_the_local_scores_down() -> None:
    trials = [RateTrial(10**x, 0.9 if x < -1 else None, "complete") for x in np.linspace(-3, 0, 40)]
    low, high = local_scores(trials, [10**-2.5, 10**-0.2], ACCURACY)
    assert low.middle == pytest.approx(0.9)
    assert high.middle == pytest.approx(0.0)
    losses = [replace(trial, value=None if trial.value is None else 0.5) for trial in trials]
    assert local_scores(losses, [1.0], LOSS)[0].middle == 0.5  # of an unbounded metric: the worst trial


def test_a_pruned_trial_is_expected_to_end_no_better_than_the_best() -> None:
    record = make_record(until="searched")
    for found, arm_record in zip(robustness(record)[0], record.arms.values(), strict=True):
        best = max(row.value or 0.0 for row in arm_record.search() if row.outcome == "complete")
        assert {trial.outcome for trial in found.trials} == {"complete", "pruned", "diverged"}
        assert all(trial.value is None or trial.value <= best for trial in found.trials)
        assert all((trial.value is None) == (trial.outcome == "diverged") for trial in found.trials)


@pytest.mark.parametrize("scores", [peak(0.08, n=9), [(-1.0, 0.9)] * 20, [(-1.0, None)] * 20, []])
def test_too_little_for_a_range(scores: list[tuple[float, float | None]]) -> None:
    assert only(study(monotone=scores)).rates is None


def test_a_rate_that_is_not_a_searched_number() -> None:
    record = study(monotone=peak(0.08))
    for dimensions in ({}, {"lr": {"choices": [0.1, 0.2]}}):
        other = replace(record, arms={"monotone": replace(record.arms["monotone"], dimensions=dimensions)})
        assert only(other).rates is None


def test_what_is_close() -> None:
    assert ACCURACY.close(0.9) == 0.01
    assert BLEU.close(-30.0) == pytest.approx(0.3)
