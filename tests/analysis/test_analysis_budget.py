from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.budget import (
    CurveRule,
    Search,
    Spent,
    budgets,
    curve,
    expected_best,
    incumbents,
    lead,
    sampler_of,
    worst_value,
)
from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import budget_sentences
from ralr_tune.records import Row, StudyRecord
from tests.metrics import ACCURACY, LOSS

RANDOM, REALISED = CurveRule(ACCURACY, True, 0.0), CurveRule(ACCURACY, False, 0.0)


def search(*values: float, complete: bool = True) -> Search:
    return [Spent(value, complete and math.isfinite(value), 10, 2.0) for value in values]


def drawn(sampler: str, **known: Any) -> StudyRecord:
    record = make_record(until="searched", **known)
    return replace(record, spec_text=f'[search]\nsampler = "{sampler}"\n')


def test_the_expected_best_is_the_mean_over_all_draws() -> None:
    values = np.array([0.3, 0.9, 0.5, 0.4])
    found = expected_best(values, 3)
    for n in (1, 2, 3):
        assert found[n - 1] == pytest.approx(fmean(max(draw) for draw in product(values, repeat=n)))


def test_the_expected_curve_of_random_search() -> None:
    found = curve("ralr", [search(0.3, 0.9, 0.5, math.nan)], RANDOM)
    assert (found.kind, found.band, found.blocks) == ("expected", "95%, bootstrap over trials", 1)
    assert found.trials == (1, 2, 3, 4)
    assert found.epochs == pytest.approx((10, 20, 30, 40))
    assert found.seconds == pytest.approx((2, 4, 6, 8))
    assert found.best[0] == pytest.approx(fmean([0.3, 0.9, 0.5, 0.0]))  # a diverged trial is the worst value
    assert found.low is not None
    assert found.high is not None
    for low, best, high in zip(found.low, found.best, found.high, strict=True):
        assert low <= best <= high  # type: ignore[operator]


def test_small_losses_are_good() -> None:
    found = curve("ralr", [search(0.3, 0.9, 0.5)], CurveRule(LOSS, True, 0.9))
    assert found.best[0] == pytest.approx(fmean([0.3, 0.9, 0.5]))
    assert found.best[2] < found.best[0]  # type: ignore[operator]
    assert found.low[2] <= found.best[2] <= found.high[2]  # type: ignore[operator, index]


def test_a_single_search_is_realised_and_has_no_band() -> None:
    found = curve("ralr", [search(math.nan, 0.5, 0.4, 0.7)], REALISED)
    assert (found.kind, found.band, found.low) == ("realised", "", None)
    assert found.best == (None, 0.5, 0.5, 0.7)


def test_blocks_are_averaged_up_to_the_shortest() -> None:
    found = curve("ralr", [search(0.5, 0.6, 0.7), search(0.3, 0.8)], REALISED)
    assert (found.kind, found.blocks, found.band) == ("blocks", 2, "lowest and highest block")
    assert found.best == pytest.approx((0.4, 0.7))
    assert found.low == pytest.approx((0.3, 0.6))
    assert found.high == pytest.approx((0.5, 0.8))


def test_pruned_trials_cost_budget_and_are_never_the_best() -> None:
    pruned = Spent(0.99, False, 3, 0.5)
    found = curve("ralr", [[*search(0.5), pruned, *search(0.6)]], REALISED)
    assert found.best == (0.5, 0.5, 0.6)
    assert found.epochs == (10, 13, 23)
    assert list(incumbents([pruned, *search(0.6)], ACCURACY))[1] == 0.6


def test_the_worst_value_is_that_of_the_whole_study() -> None:
    searches = [[search(0.5, math.nan)], [search(0.2)]]
    assert (worst_value(searches, ACCURACY), worst_value(searches, LOSS)) == (0.2, 0.5)
    assert math.isnan(worst_value([[search(math.nan)]], ACCURACY))


def test_a_lead_of_blocks_has_a_band_and_a_budget_from_which_it_is_significant() -> None:
    own = [search(0.50 + x, 0.70 + x, 0.80 + x) for x in (0.0, 0.01, 0.02, 0.015)]
    other = [search(0.60 + x, 0.60 + x, 0.60 + x) for x in (0.0, 0.02, 0.01, 0.01)]
    found = lead(("ralr", own), ("monotone", other), REALISED, paired=True)
    assert (found.leader, found.ahead_from, found.sure_from) == ("ralr", 2, 2)
    assert (found.kind, found.paired_by, found.band) == ("blocks", "block", "95%, t over blocks")
    turned = lead(("ralr", other), ("monotone", own), REALISED, paired=True)
    assert (turned.leader, turned.ahead_from) == ("monotone", 2)
    assert turned.difference == pytest.approx(tuple(-d for d in found.difference))  # type: ignore[operator]


def test_unpaired_blocks_get_a_wider_band() -> None:
    own = [search(0.7 + x) for x in (0.0, 0.1, 0.2, 0.3)]
    other = [search(0.6 + x) for x in (0.0, 0.1, 0.2, 0.3001)]
    paired, free = (lead(("a", own), ("b", other), REALISED, paired=each) for each in (True, False))
    assert paired.sure_from == 1
    assert free.sure_from is None


def test_single_searches_are_never_significant() -> None:
    found = lead(("ralr", [search(0.9)]), ("monotone", [search(0.1)]), REALISED, paired=True)
    assert (found.leader, found.ahead_from, found.sure_from, found.low) == ("ralr", 1, None, None)


def test_level_searches_have_no_leader() -> None:
    found = lead(("ralr", [search(0.9)]), ("monotone", [search(0.9)]), REALISED, paired=True)
    assert (found.leader, found.ahead_from) == (None, None)


def test_the_band_of_random_searches_excludes_zero_for_different_arms() -> None:
    rng = np.random.default_rng(0)
    good, bad = search(*rng.normal(0.9, 0.01, 30)), search(*rng.normal(0.7, 0.01, 30))
    assert lead(("a", [good]), ("b", [bad]), RANDOM, paired=True).sure_from == 1
    same = lead(("a", [good]), ("b", [search(*rng.normal(0.9, 0.01, 30))]), RANDOM, paired=True)
    assert same.sure_from is None


@pytest.mark.parametrize(
    ("text", "sampler"),
    [
        ('[search]\nsampler = "random"', "random"),
        ('[search]\nsampler = "random"\nstart = [{ lr = 0.1 }]', "adaptive"),
        ('[search]\nsampler = "qmc"', "qmc"),
        ('[search]\nsampler = "tpe"', "adaptive"),
        ("search = 3", "adaptive"),
        ("", "adaptive"),
        ("not [ toml", "adaptive"),
    ],
)
def test_the_sampler_is_read_from_the_study_file(text: str, sampler: str) -> None:
    assert sampler_of(replace(make_record(until="planned"), spec_text=text)) == sampler


def test_a_quasi_random_design_is_paired_by_ordinal() -> None:
    _, (made,) = budgets(drawn("qmc"))
    assert made.paired_by == "ordinal"
    assert made.ordinal is not None
    assert made.ordinal.n > 10
    assert any("At equal shared values" in sentence for sentence in budget_sentences(study_facts(drawn("qmc"))))


def test_ordinals_are_compared_at_equal_epochs_without_the_diverged() -> None:
    def level(row: Row) -> Row:
        curve = tuple(replace(epoch, value=0.5 + (row.arm == "ralr") * 0.01) for epoch in row.curve)
        gone = row.arm == "ralr" and row.ordinal == 3
        return replace(row, curve=curve, outcome="diverged" if gone else "complete", value=None if gone else 0.9)

    _, (made,) = budgets(drawn("qmc", change=level))
    assert made.ordinal is not None
    assert made.ordinal.difference == pytest.approx(0.01)
    assert (made.ordinal.n, made.ordinal.diverged) == (23, (1, 0))


def test_each_kind_has_its_sentence() -> None:
    for sampler, blocks, words in (
        ("random", 1, "Expected for random search,"),
        ("tpe", 1, "another search may differ"),
        ("tpe", 3, "On average over the search blocks,"),
    ):
        assert words in budget_sentences(study_facts(drawn(sampler, blocks=blocks)))[0]


def test_an_arm_without_a_complete_trial_has_no_curve() -> None:
    record = make_record(until="searched", change=lambda row: replace(row, outcome="diverged", value=None))
    assert budgets(record) == ((), ())
