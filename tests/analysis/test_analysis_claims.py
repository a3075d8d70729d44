from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.claims import costs, overfitting
from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import claim_sentences
from ralr_tune.records import Row, StudyRecord
from tests.metrics import LOSS


def slower(row: Row, times: float) -> Row:
    return replace(row, curve=tuple(replace(epoch, seconds=times * epoch.seconds) for epoch in row.curve))


def with_gaps(arms: dict[str, float], *, twin: float = 0.0) -> StudyRecord:
    def change(row: Row) -> Row:
        if row.value is None:
            return row
        gap = (twin if row.role == "twin" else arms[row.arm]) + 0.0005 * (row.ordinal % 3)
        return replace(row, train_value=row.value + gap)

    return make_record(change=change)


def test_cost_is_paired_with_the_twin_and_with_the_baselines_trials() -> None:
    record = make_record(change=lambda row: slower(row, 2.0) if row.arm == "ralr" and row.role != "twin" else row)
    twin, trial = costs(record)
    assert (twin.paired_by, twin.arm, twin.against, twin.n) == ("twin", "ralr", "ralr", 5)
    assert (trial.paired_by, trial.against) == ("trial", "monotone")
    for cost in (twin, trial):
        assert cost.ratio == pytest.approx(2.0, abs=0.1)
        assert cost.interval is not None
        assert cost.interval[0] < 2.0 < cost.interval[1]
        assert cost.seconds == pytest.approx(2 * cost.against_seconds, rel=0.1)
    assert "2.0" in claim_sentences(study_facts(record))[0]
    assert "slower" in claim_sentences(study_facts(record))[0]


def test_no_extra_cost() -> None:
    sentences = claim_sentences(study_facts(make_record()))
    assert sum("no extra cost shown" in sentence for sentence in sentences) == 2


def test_untimed_epochs_have_no_cost() -> None:
    assert costs(make_record(change=lambda row: slower(row, float("nan")))) == ()


def test_an_arm_that_overfits_less() -> None:
    found = {each.arm: each for each in overfitting(with_gaps({"monotone": 0.03, "ralr": 0.01}, twin=0.03))}
    assert found["ralr"].gap == pytest.approx(0.01, abs=0.001)
    assert found["monotone"].differences == ()
    twin, base = found["ralr"].differences
    assert (twin.twin, twin.against, base.twin, base.against) == (True, "ralr", False, "monotone")
    assert (twin.verdict, base.verdict) == ("no difference shown", "no difference shown")  # five equal differences


def test_differences_that_vary_are_tested() -> None:
    def change(row: Row) -> Row:
        if row.value is None:
            return row
        gap = 0.01 + 0.001 * (row.ordinal % 3) if row.arm == "ralr" and row.role != "twin" else 0.03
        return replace(row, train_value=row.value + gap)

    record = make_record(change=change)
    own = {each.arm: each for each in overfitting(record)}["ralr"]
    assert {difference.verdict for difference in own.differences} == {"less"}
    assert own.interval is not None
    assert "it overfits less" in claim_sentences(study_facts(record))[-1]


def test_a_loss_overfits_the_other_way() -> None:
    record = with_gaps({"monotone": -0.03, "ralr": -0.01})
    found = overfitting(replace(record, metric=LOSS))
    assert {each.arm: round(each.gap, 2) for each in found} == {"monotone": 0.03, "ralr": 0.01}


def test_before_confirm_there_is_no_claim() -> None:
    assert overfitting(make_record(until="searched")) == ()
