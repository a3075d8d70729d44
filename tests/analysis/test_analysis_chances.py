"""Simulated verdicts are those of the package's own functions, and their frequencies those of exact formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic_study import make_record

from ralr_tune.analysis import chances as module
from ralr_tune.analysis.chances import Chances, Design, Noise, Simulation, observed_noise
from ralr_tune.analysis.comparison import Pairs, compare, run_error
from ralr_tune.analysis.power import detectable_difference, power_to_differ, power_to_equal
from ralr_tune.analysis.sequential import Plan, latest_analysis, next_analysis
from tests.metrics import ACCURACY

STUDIES = 150
MARGIN = 0.6
UNIT = Noise.assumed(1.0)


def design(**changes: object) -> Design:
    fixed: dict[str, object] = {"what": "configuration", "seeds": 5, "margin": MARGIN, "confidence": 0.95}
    return Design(**(fixed | changes))  # type: ignore[arg-type]


def words(found: module._Verdicts) -> list[str]:
    claims = np.where(found.mean > 0, "better", "worse")
    return np.where(found.equals, "equivalent", np.where(found.differs, claims, "inconclusive")).tolist()


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize(("seeds", "difference"), [(2, 5.0), (5, 1.5), (30, 0.3)])
def test_fixed_seeds_give_the_verdicts_of_compare(comparisons: int, seeds: int, difference: float) -> None:
    rng = np.random.default_rng(seeds)
    # several scales, so that Holm's steps decide differently
    values = rng.standard_normal((comparisons, STUDIES, seeds)) + rng.standard_normal((comparisons, STUDIES, 1))
    found = words(module._seeds(design(seeds=seeds, comparisons=comparisons), values).verdicts(difference, MARGIN))
    values[0] += difference
    assert found == [_first_verdict(list(values[:, study])) for study in range(STUDIES)]
    assert len(set(found)) > 1


@pytest.mark.parametrize("comparisons", [1, 2])
@pytest.mark.parametrize("seeds", [2, 5])
def test_blocks_give_the_verdicts_of_compare(comparisons: int, seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    rows, columns = (rng.standard_normal((comparisons, STUDIES, n)) / 3 for n in (4, seeds))
    columns += (rows.mean(axis=-1) - columns.mean(axis=-1))[..., None]  # both have one mean
    runs = rng.random((comparisons, STUDIES)) / 3  # some are larger than the error of blocks or seeds
    made = module._rows_and_columns(
        design(what="arm", seeds=seeds, blocks=4, comparisons=comparisons), rows, columns, runs
    )
    found = words(made.verdicts(0.8, MARGIN))
    rows[0], columns[0] = rows[0] + 0.8, columns[0] + 0.8
    assert found == [
        _first_verdict(list(rows[:, study]), list(columns[:, study]), runs[:, study]) for study in range(STUDIES)
    ]  # with two seeds there is never a verdict
    assert (len(set(found)) > 1) == (seeds > 2)


def _first_verdict(
    differences: list[np.ndarray], by_seed: list[np.ndarray] | None = None, runs: np.ndarray | None = None
) -> str:
    seeds = by_seed or [np.array([])] * len(differences)
    errors = np.zeros(len(differences)) if runs is None else runs
    family = [
        Pairs("arm", f"arm{place}", "base", own.tolist(), columns.tolist(), float(error))
        for place, (own, columns, error) in enumerate(zip(differences, seeds, errors, strict=True))
    ]
    return compare(family, margin=MARGIN, confidence=0.95, metric=ACCURACY)[0].verdict


def test_interim_analyses_stop_and_judge_as_the_package_does() -> None:
    plan = Plan((3, 5, 6), 3.0, 0.95, 2, ACCURACY)
    simulated = Simulation(design(seeds=6, comparisons=2, margin=plan.margin, plan=plan), UNIT)
    rng = np.random.default_rng(0)
    values, tested = (rng.standard_normal((2, STUDIES, 6)) for _ in range(2))
    simulated._analyses, simulated._tested = module._interim(plan, values), module._interim(plan, tested)
    found, mean_seeds = simulated._verdicts(4.0)
    values[0], tested[0] = values[0] + 4.0, tested[0] + 4.0
    expected, seeds = [], []
    for study in range(STUDIES):
        decided = [next_analysis(values[arm, study].tolist(), plan) for arm in range(2)]
        seeds.append(max(each.n for each in decided))
        verdict = latest_analysis(tested[0, study, : seeds[-1]].tolist(), plan).verdict
        expected.append("inconclusive" if verdict == "go on" else verdict)
    assert words(found) == expected
    assert mean_seeds == pytest.approx(np.mean(seeds))
    assert set(seeds) == {3, 5, 6}


@pytest.mark.parametrize("seeds", [4, 10])
def test_frequencies_are_those_of_exact_formulas(seeds: int) -> None:
    simulated, margin = Simulation(design(seeds=seeds, margin=1.0), UNIT), 1.0
    for difference in (0.0, 1.0, 3.0):
        found = simulated.chances(difference)
        claimed = found.right + found.wrong
        equal = power_to_equal(difference, UNIT.pairs, seeds, margin, 0.05)
        assert found.right + found.none + found.wrong + found.equivalent == pytest.approx(1)
        assert found.equivalent == pytest.approx(equal, abs=simulated.error)
        differ = power_to_differ(difference, UNIT.pairs, seeds, 0.05)
        assert differ - equal - simulated.error <= claimed <= differ + simulated.error  # equivalence comes first
    assert simulated.chances(0.0).right == 0
    visible = simulated.visible()
    assert visible == pytest.approx(detectable_difference(UNIT.pairs, seeds, 0.05), rel=0.04)


def test_schedules_are_claimed_by_blocks_and_never_with_two_seeds() -> None:
    def claims(blocks: int, seeds: int = 5) -> Chances:
        return Simulation(design(what="arm", seeds=seeds, blocks=blocks, margin=0.0), UNIT).chances(2.0)

    assert claims(3).right < claims(5).right < claims(10).right
    assert claims(10, seeds=2).none == 1
    assert Simulation(design(what="arm", seeds=2, blocks=5), UNIT).visible() is None


def test_blocks_are_claimed_as_often_as_whole_tables_of_runs() -> None:
    rng, (blocks, seeds, difference) = np.random.default_rng(1), (4, 5, 2.0)
    made = Simulation(design(what="arm", seeds=seeds, blocks=blocks, margin=0.0), UNIT)
    counted = 0
    for _ in range(600):
        winners, runs = rng.standard_normal((blocks, 1)), rng.standard_normal((blocks, seeds))
        table = difference + UNIT.winners * winners + UNIT.pairs * runs
        error = run_error(table.tolist(), table.size)
        pairs = Pairs("arm", "ralr", "base", table.mean(axis=1).tolist(), table.mean(axis=0).tolist(), error)
        (found,) = compare([pairs], margin=0.0, confidence=0.95, metric=ACCURACY)
        counted += found.verdict == "better"
    assert counted / 600 == pytest.approx(made.chances(difference).right, abs=0.06)


def test_blocks_with_their_own_seeds_are_a_paired_test_over_blocks() -> None:
    made = Simulation(design(what="arm", seeds=3, blocks=6, margin=0.0, own_seeds=True), UNIT)
    spread = math.hypot(UNIT.pairs / math.sqrt(3), UNIT.winners)
    assert made.chances(1.5).right == pytest.approx(power_to_differ(1.5, spread, 6, 0.05), abs=2 * made.error)


def test_many_seeds_are_simulated_in_bounded_memory() -> None:
    assert Simulation(design(seeds=10_000, blocks=1), UNIT).studies == module._FEWEST


def test_noise_is_pooled_from_the_judged_seeds() -> None:
    assert observed_noise(make_record(until="searched")) is None
    record = make_record(until="confirmed", seeds=6)
    found = observed_noise(record)
    assert found is not None
    scores = {
        arm: [row.value for row in each.stage("judge", "best") if row.value is not None]
        for arm, each in record.arms.items()
    }
    monotone, ralr = (np.array(scores[arm]) for arm in ("monotone", "ralr"))
    assert len(monotone) == len(ralr) == 6
    assert found.seeds == pytest.approx(math.sqrt((monotone.var(ddof=1) + ralr.var(ddof=1)) / 2))
    assert found.pairs == pytest.approx((ralr - monotone).std(ddof=1))
    assert found.winners == pytest.approx(math.sqrt(2) * module.WINNERS * found.seeds)
