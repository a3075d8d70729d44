from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import pytest
from synthetic_study import card_of, make_record, with_audits

from ralr_tune.analysis.evidence import comparison_sentences
from ralr_tune.analysis.facts import FURTHER, Facts, as_json, study_facts
from ralr_tune.analysis.notes import notes
from ralr_tune.analysis.sequential import Plan
from ralr_tune.records import Row, StudyRecord
from tests.metrics import ACCURACY, BLEU, LOSS


def evidence(facts: Facts) -> str:
    return " ".join(comparison_sentences(facts))


def facts_of(**known: Any) -> Facts:
    return study_facts(make_record(**known))


def values(record: StudyRecord, arm: str, stage: str, role: str = "best") -> list[float | None]:
    return [row.value for row in record.arms[arm].rows if row.stage == stage and row.role == role]


@pytest.mark.parametrize("until", ["planned", "searching", "searched", "confirmed", "tested"])
def test_every_stage_has_facts_and_valid_json(until: str) -> None:
    found = as_json(facts_of(until=until, trials=12))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    contract = {"study", "baseline", "metric", "split", "arms", "twins", "comparisons", "importance"}
    assert set(found) == contract | set(FURTHER)
    for arm in found["arms"].values():
        assert set(arm) == {"best", "confirm", "seconds_per_epoch", "generalization_gap"}
        assert set(arm["confirm"]) == {"seeds", "values", "mean", "std"}


def test_json_of_a_finished_study_is_the_contract() -> None:
    record = make_record()
    found = as_json(study_facts(record))
    assert (found["study"], found["baseline"], found["metric"], found["split"]) == (
        "digits",
        "monotone",
        "accuracy",
        "test",
    )
    confirm = found["arms"]["ralr"]["confirm"]
    assert confirm["seeds"] == [70, 71, 72, 73, 74]
    assert confirm["values"] == values(record, "ralr", "test")
    assert confirm["mean"] == pytest.approx(fmean(confirm["values"]))
    assert confirm["std"] == pytest.approx(stdev(confirm["values"]))
    assert set(found["arms"]["ralr"]["best"]) == {"trial", "value", "params"}
    (twin,) = found["twins"]
    assert set(twin) == {"arm", "trial", "difference", "interval"}
    assert len(twin["interval"]) == 2
    (made,) = found["comparisons"]
    assert set(made) == {
        "what", "arm", "against", "difference", "interval", "confidence", "p_value", "n", "verdict",
        "equivalence_interval", "deciding",
    }  # fmt: skip
    assert (made["what"], made["arm"], made["against"], made["n"]) == ("configuration", "ralr", "monotone", 5)
    one = found["importance"]["ralr"]["amplify.probability"]
    assert set(one) == {"value", "interval", "null", "verdict"}
    assert set(found["importance"]["monotone"]) == {"lr", "weight_decay"}


def test_differences_are_paired_by_seed() -> None:
    record = make_record()
    facts = study_facts(record)
    own, base, twin = (
        values(record, *key) for key in (("ralr", "test"), ("monotone", "test"), ("ralr", "test", "twin"))
    )
    assert facts.comparisons[0].difference == pytest.approx(fmean(a - b for a, b in zip(own, base, strict=True)))  # type: ignore[operator]
    assert facts.twins[0].difference == pytest.approx(fmean(a - b for a, b in zip(own, twin, strict=True)))  # type: ignore[operator]


def test_order_of_rows_does_not_matter_to_pairing() -> None:
    record = make_record()
    ralr = record.arms["ralr"]
    turned = replace(record, arms={**record.arms, "ralr": replace(ralr, rows=tuple(reversed(ralr.rows)))})
    (before,), (after,) = study_facts(record).comparisons, study_facts(turned).comparisons
    assert after.difference == pytest.approx(before.difference)
    assert after.p_value == pytest.approx(before.p_value)


def test_best_is_never_diverged_pruned_or_failed() -> None:
    def spoil(row: Row) -> Row:
        if row.stage != "search" or row.ordinal > 2:
            return row
        return replace(row, outcome=("diverged", "pruned", "failed")[row.ordinal], value=1.0, failure="bug")

    record = make_record(until="searched", change=spoil)
    for arm in study_facts(record).arms.values():
        assert arm.best is not None
        assert arm.best.trial is not None
        assert arm.best.trial > 2
        assert arm.best.value < 1.0
        assert arm.failures["bug"] >= 2


def test_best_follows_the_direction() -> None:
    record = replace(make_record(until="searched"), metric=LOSS)
    complete = [row.value for row in record.arms["ralr"].search() if row.outcome == "complete"]
    best = study_facts(record).arms["ralr"].best
    assert best is not None
    assert best.value == min(value for value in complete if value is not None)


def test_all_diverged() -> None:
    def spoil(row: Row) -> Row:
        return replace(row, outcome="diverged", value=None, failure="diverged")

    facts = facts_of(until="searched", change=spoil)
    assert facts.arms["ralr"].best is None
    assert facts.arms["ralr"].counts["diverged"] == 24
    assert "48 diverged" in card_of(facts).verdict
    json.dumps(as_json(facts), allow_nan=False)


def test_one_arm_empty() -> None:
    record = make_record()
    record = replace(record, arms={**record.arms, "monotone": replace(record.arms["monotone"], rows=())})
    facts = study_facts(record)
    assert facts.comparisons == ()
    assert facts.arms["ralr"].confirm is not None
    assert card_of(facts).about == "amplification"


def test_no_arms_at_all() -> None:
    facts = study_facts(replace(make_record(), arms={}))
    assert as_json(facts)["arms"] == {}
    assert card_of(facts).verdict.startswith("The study has no arms")


def test_the_test_split_counts_when_all_of_it_is_done() -> None:
    def hold(row: Row) -> Row:
        last = row.stage == "test" and row.arm == "ralr" and row.ordinal == 4 and row.role == "twin"
        return replace(row, state="held", outcome=None, value=None) if last else row

    record = make_record(change=hold)
    facts = study_facts(record)
    assert facts.split == "validation"
    assert facts.arms["ralr"].confirm is not None
    assert list(facts.arms["ralr"].confirm.values) == values(record, "ralr", "judge")


def test_a_seed_that_diverged_is_left_out_and_named() -> None:
    def spoil(row: Row) -> Row:
        lost = row.stage in ("judge", "test") and row.arm == "ralr" and row.role == "best" and row.ordinal == 1
        return replace(row, outcome="diverged", value=None, failure="diverged") if lost else row

    facts = facts_of(change=spoil)
    confirm = facts.arms["ralr"].confirm
    assert confirm is not None
    assert (confirm.lost, confirm.seeds) == (1, (70, 72, 73, 74))
    assert facts.comparisons[0].n == 4
    assert "Of ralr's 5 seeds 1 diverged or failed" in " ".join(card_of(facts).caveats)


def test_the_gap_is_of_judged_runs_or_otherwise_of_the_search() -> None:
    judged, searched = facts_of().arms["ralr"], facts_of(until="searched").arms["ralr"]
    assert (judged.gap_from, searched.gap_from) == ("judge", "search")
    assert judged.generalization_gap == pytest.approx(0.012, abs=1e-3)
    assert facts_of(until="planned").arms["ralr"].gap_from is None


def test_the_gap_is_of_the_confirmed_configuration_alone() -> None:
    """As the differences of gaps are; the winners of other blocks are other configurations."""

    def raised(row: Row) -> Row:
        return row if row.train_value is None else replace(row, train_value=row.train_value + 0.01 * row.block)

    facts = facts_of(blocks=3, change=raised)
    for found in facts.overfitting:
        assert facts.arms[found.arm].generalization_gap == pytest.approx(found.gap)


def test_seconds_per_epoch_ignore_epochs_without_a_time() -> None:
    def untimed(row: Row) -> Row:
        return replace(row, curve=tuple(replace(epoch, seconds=0.0) for epoch in row.curve[:-1]) + row.curve[-1:])

    found = facts_of(until="searched", change=untimed).arms["ralr"].seconds_per_epoch
    assert found is not None
    assert 0.2 < found < 0.25


def test_blocks_compare_arms() -> None:
    record = make_record(blocks=4)
    made = {comparison.what: comparison for comparison in study_facts(record).comparisons}
    assert (made["arm"].n, made["configuration"].n) == (4, 5)
    means = {
        name: [
            fmean(row.value for row in arm.stage("test") if row.block == block and row.value is not None)
            for block in range(1, 5)
        ]
        for name, arm in record.arms.items()
    }
    expected = fmean(a - b for a, b in zip(means["ralr"], means["monotone"], strict=True))
    assert made["arm"].difference == pytest.approx(expected)
    assert any(sentence.startswith("Arm against arm, ralr") for sentence in comparison_sentences(study_facts(record)))


def test_among_blocks_the_configuration_is_chosen_without_the_judge() -> None:
    def judge(row: Row) -> Row:
        """Block 2 was best when chosen, block 1 is best when judged."""
        if row.stage == "choose":
            return replace(row, value=0.9 + 0.01 * row.block)
        return replace(row, value=0.95 - 0.01 * row.block) if row.stage in ("judge", "test") else row

    confirm = facts_of(blocks=2, change=judge).arms["ralr"].confirm
    assert confirm is not None
    assert confirm.block == 2


def test_with_one_block_the_answer_says_that_arms_were_not_compared() -> None:
    facts = facts_of()
    assert {comparison.what for comparison in facts.comparisons} == {"configuration"}
    assert card_of(facts).caveats == ("The schedules themselves were not compared: each was searched once.",)


def test_the_answer_names_figures_uncertainty_n_and_split() -> None:
    facts = facts_of()
    made, arm = facts.comparisons[0], facts.arms["ralr"].confirm
    assert arm is not None
    assert arm.mean is not None
    sentences = evidence(facts)
    assert f"ralr's best configuration scored {100 * arm.mean:.1f}% against" in sentences
    assert "on the test split" in sentences
    assert f"difference {100 * made.difference:+.1f} points, 95% interval" in sentences
    assert "5 paired seeds" in sentences
    assert sentences.count(made.verdict) == 1


def test_the_answer_with_one_seed_has_no_interval() -> None:
    sentences = evidence(facts_of(seeds=1))
    assert "too few for an interval, 1 paired seed)" in sentences
    assert "inconclusive" in sentences


def test_the_answer_names_the_margin_of_an_equivalent_configuration() -> None:
    def even(row: Row) -> Row:
        return replace(row, value=0.97 + 0.0001 * row.ordinal) if row.stage == "test" else row

    assert "equivalent within 0.5 points" in evidence(facts_of(change=even))


def test_other_metrics_are_plain_numbers() -> None:
    record = replace(make_record(), metric=BLEU)
    assert "%" not in evidence(study_facts(record)).replace("95% interval", "")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0021, "+0.2 points"), (-0.0312, "\N{MINUS SIGN}3.1 points"), (-0.0000001, "+0.0 points")]
)
def test_points(value: float, text: str) -> None:
    assert ACCURACY.format.difference(value) == text


def test_small_differences_keep_a_second_decimal() -> None:
    unit = ACCURACY.format
    assert (unit.digits(0.002, -0.01), unit.digits(0.0003, 0.01), unit.digits(0.0, 0.0)) == (1, 2, 1)


def test_importing_the_facts_imports_nothing_heavy() -> None:
    code = "import sys, ralr_tune.analysis.card; print(*{'torch', 'optuna', 'plotly', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def undecided(**known: Any) -> Facts:
    """Noise much larger than the differences."""
    return facts_of(noise=0.02, gain=0.0, **known)


def test_without_a_verdict_the_answer_says_how_many_more_pairs_are_needed() -> None:
    facts = undecided()
    (made,), (reach,) = facts.comparisons, facts.reach
    assert made.verdict == "inconclusive"
    assert reach.spread == pytest.approx(stdev(differences(facts)))
    assert reach.more is not None
    sentences = evidence(facts)
    assert f"5 seeds could have detected a difference of {100 * reach.visible:.1f} points" in sentences
    assert f"about {reach.more[0]} more ({reach.more[1][0]} to {reach.more[1][1]}) would settle it" in sentences


def differences(facts: Facts) -> list[float]:
    own, base = facts.arms["ralr"].confirm, facts.arms["monotone"].confirm
    assert own is not None
    assert base is not None
    return [a - b for a, b in zip(own.values, base.values, strict=True)]


def test_blocks_have_a_separate_detectable_difference() -> None:
    facts = undecided(blocks=4)
    found = {each.what: each for each in facts.reach}
    assert (found["arm"].n, found["configuration"].n) == (4, 5)
    assert "4 blocks could have detected" in evidence(facts)


def test_several_arms_share_the_level() -> None:
    facts = undecided(arms=("monotone", "ralr", "noise"))
    assert [each.alpha for each in facts.reach] == pytest.approx([0.025, 0.025])


def test_interim_analyses_decide_if_there_is_a_plan() -> None:
    """On validation values the first analysis that settles it counts, in the planned order."""

    def wide(row: Row) -> Row:
        return replace(row, value=0.9 + 0.001 * (row.ordinal % 3) * (row.arm == "ralr") + 0.03 * (row.arm == "ralr"))

    record = make_record(until="confirmed", seeds=8, change=lambda row: wide(row) if row.stage == "judge" else row)
    facts = study_facts(record, plan=Plan((3, 4, 5, 6, 7, 8), margin=0.005))
    (made,) = facts.comparisons
    assert facts.looks["ralr"].verdict == made.verdict == "better"
    assert made.n == facts.looks["ralr"].n < 8
    assert f"interim analysis {facts.looks['ralr'].looks} of up to 6, corrected for all of them" in evidence(facts)


def test_the_answer_names_the_next_interim_analysis() -> None:
    plan = Plan((3, 5, 12), margin=0.0)
    facts = study_facts(make_record(until="confirmed", noise=0.02, gain=0.0), plan=plan)
    assert facts.looks["ralr"].next_look == 12
    assert facts.comparisons[0].verdict == "inconclusive"
    assert "inconclusive so far; the next interim analysis is at 12 seeds" in evidence(facts)


def test_the_test_split_is_judged_by_the_latest_analysis() -> None:
    facts = study_facts(make_record(gain=0.05), plan=Plan((3, 5), margin=0.0))
    assert facts.split == "test"
    assert facts.comparisons[0].n == 5
    assert "reach" in as_json(facts)


def test_audited_prunings_have_facts_and_sentences() -> None:
    record = with_audits(make_record(trials=80), {"ralr": [0.99] * 6 + [0.5] * 7 + [None], "monotone": [0.5]})
    facts = study_facts(record)
    found = {each.arm: each for each in facts.pruning}
    assert (found["ralr"].audited, found["ralr"].wrong, found["ralr"].lost_best) == (14, 6, 6)
    assert (found["ralr"].pruned, found["monotone"].audited) == (facts.arms["ralr"].counts["pruned"], 1)
    sentences = " ".join(notes(facts))
    assert "Of ralr's 14 audited prunings 6 were wrong (43%, 95% interval 18% to 71%)" in sentences
    assert re.search(r"6 beat the best complete trial, by up to [\d.]+ points\.", sentences)
    assert f"1 of monotone's {found['monotone'].pruned} pruned trials were trained to their end: too few" in sentences


@pytest.mark.parametrize("granularity", ["epoch", "step"])
def test_wrong_prunings_after_an_amplified_end_are_named(granularity: str) -> None:
    record = with_audits(make_record(trials=80), {"ralr": [0.99] * 6 + [0.5] * 7})
    arm = record.arms["ralr"]
    ended = {row.id for row in arm.rows if row.stage == "audit" and row.ordinal % 2}
    rows = [_with_last_factor(row, 2.0 if row.id in ended else 1.0) for row in arm.rows]
    wrong = sum(row.id in ended and row.value == 0.99 for row in rows)
    assert wrong > 1
    changed = replace(arm, rows=tuple(rows), settings={"amplify.granularity": granularity})
    sentences = " ".join(notes(study_facts(replace(record, arms={**record.arms, "ralr": changed}))))
    named = f"{wrong} of them ended with an amplified epoch, whose effect on the last value no pruner can foresee."
    assert (named in sentences) == (granularity == "epoch")


def _with_last_factor(row: Row, factor: float) -> Row:
    return replace(row, curve=(*row.curve[:-1], *(replace(last, factor=factor) for last in row.curve[-1:])))


def test_a_warning_names_arms_with_different_pruning_errors() -> None:
    record = make_record(trials=80)
    facts = study_facts(with_audits(record, {"ralr": [0.99] * 12, "monotone": [0.5] * 12}))
    assert "Pruning erred at different rates in ralr and monotone" in " ".join(notes(facts))
    even = study_facts(with_audits(record, {"ralr": [0.99, 0.5] * 6, "monotone": [0.5, 0.99] * 6}))
    assert "different rates" not in " ".join(notes(even))


def test_planned_audits_are_mentioned() -> None:
    record = with_audits(make_record(trials=80), {"ralr": [0.99] * 3, "monotone": [0.9]})
    arm = record.arms["ralr"]
    rows = (*arm.rows[:-2], *(replace(row, state="free", outcome=None, curve=()) for row in arm.rows[-2:]))
    facts = study_facts(replace(record, arms={**record.arms, "ralr": replace(arm, rows=rows)}))
    assert "pruned trials were trained to their end, 2 more are planned: too few" in " ".join(notes(facts))


def test_without_audits_a_sentence_suggests_an_audit_share() -> None:
    facts = study_facts(make_record(trials=80))
    fewest = min(arm.counts["pruned"] for arm in facts.arms.values())
    (sentences,) = [note for note in notes(facts) if note.startswith("Pruning was not audited")]
    assert f"{facts.arms['ralr'].counts['pruned']} of ralr were stopped early" in sentences
    assert f"With audit = {math.ceil(100 / fewest) / 10:g} under [search]" in sentences
    few = study_facts(make_record(trials=24))
    assert "With audit = 1 under [search], run does that now (a rate needs 10 in each arm)." in " ".join(notes(few))
    assert "audit" not in " ".join(notes(study_facts(make_record(trials=24, until="searching"))))


def test_without_pruning_there_is_no_sentence_on_it() -> None:
    def kept(row: Row) -> Row:
        return replace(row, outcome="complete") if row.outcome == "pruned" else row

    facts = study_facts(make_record(change=kept))
    assert facts.pruning == ()
    assert "runing" not in " ".join(notes(facts))


def test_audits_count_in_no_other_fact() -> None:
    record = make_record(trials=80)
    audited = study_facts(with_audits(record, {"ralr": [1.0] * 12, "monotone": [1.0] * 12}))
    pruning: dict[str, Any] = {"pruning": (), "pruning_gaps": (), "spending": None}
    assert replace(audited, **pruning) == replace(study_facts(record), **pruning)
