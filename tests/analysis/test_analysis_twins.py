from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.evidence import twin_sentences
from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.rows import chosen
from ralr_tune.analysis.twins import amplification
from ralr_tune.records import AMPLIFIED, ArmRecord, Row, StudyRecord, amplified_role
from tests.metrics import ACCURACY


def with_amplification_of(record: StudyRecord, donor: str, gain: float) -> StudyRecord:
    """A copy of the baseline's judged rows, each with the donor's judged amplification."""
    base = record.arms["monotone"]
    candidate = chosen(record.arms[donor], ACCURACY)
    assert candidate is not None
    given = amplification(next(row.params for row in record.arms[donor].stage("judge")))
    rows = [row for row in base.rows if row.stage in ("judge", "test") and row.role == "best"]
    role = amplified_role(donor, *candidate)
    again = [_amplified(row, role, given, gain + 0.001 * (row.ordinal % 3 - 1)) for row in rows]
    return replace(record, arms={**record.arms, "monotone": replace(base, rows=(*base.rows, *again))})


def _amplified(row: Row, role: str, given: Mapping[str, Any], gain: float) -> Row:
    value = None if row.value is None else row.value + gain
    return replace(row, id=row.id + 10_000, role=role, params={**row.params, **given}, value=value)


def facts(gain: float, **known: Any) -> Facts:
    return study_facts(with_amplification_of(make_record(**known), "ralr", gain))


def test_the_baseline_with_ralrs_amplification() -> None:
    found = facts(0.02)
    (added,) = found.amplified
    assert (added.arm, added.donor, added.split, added.n, added.verdict) == ("monotone", "ralr", "test", 5, "better")
    assert added.difference == pytest.approx(0.02 + fmean(0.001 * (i % 3 - 1) for i in range(5)))
    assert added.interval is not None
    assert added.interval[0] < added.difference < added.interval[1]
    assert set(added.amplification) == {"amplify.probability", "amplify.lower", "amplify.width"}
    assert as_json(found)["amplified"][0]["amplification"] == dict(added.amplification)


def test_other_facts_do_not_see_amplified_rows() -> None:
    before, after = study_facts(make_record()), facts(0.02)
    assert after.comparisons == before.comparisons
    assert after.twins == before.twins
    assert after.arms["monotone"].confirm == before.arms["monotone"].confirm


def test_donors_are_separate_and_named() -> None:
    record = make_record(arms=("monotone", "ralr", "other"))
    record = with_amplification_of(with_amplification_of(record, "ralr", 0.02), "other", -0.02)
    found = study_facts(record)
    assert [(added.donor, added.verdict) for added in found.amplified] == [("ralr", "better"), ("other", "worse")]
    assert "with other's amplification added" in " ".join(twin_sentences(found))


def test_the_amplification_of_an_earlier_winner_is_ignored() -> None:
    record = with_amplification_of(make_record(), "ralr", 0.02)
    base = record.arms["monotone"]
    stale = [replace(row, role=f"{AMPLIFIED}gone") if row.part == "amplified" else row for row in base.rows]
    record = replace(record, arms={**record.arms, "monotone": replace(base, rows=tuple(stale))})
    assert study_facts(record).amplified == ()


def test_seeds_that_diverged_are_counted() -> None:
    record = with_amplification_of(make_record(), "ralr", 0.02)

    def spoil(arm: ArmRecord) -> ArmRecord:
        lost = [row.part == "amplified" and row.ordinal == 1 for row in arm.rows]
        rows = (
            replace(row, outcome="diverged", value=None) if gone else row
            for gone, row in zip(lost, arm.rows, strict=True)
        )
        return replace(arm, rows=tuple(rows))

    record = replace(record, arms={name: spoil(arm) for name, arm in record.arms.items()})
    (added,) = study_facts(record).amplified
    assert (added.n, added.lost) == (4, 1)
    assert "1 further" in " ".join(twin_sentences(study_facts(record)))


@pytest.mark.parametrize(
    ("gain", "twin_gain", "words"),
    [
        (0.02, 0.02, "amplification helped."),
        (-0.02, -0.02, "amplification hurt."),
        (0.02, -0.02, "it depends on the rest"),
        (0.0, 0.0, "made no difference that matters"),
    ],
)
def test_both_ways_together(gain: float, twin_gain: float, words: str) -> None:
    def level(row: Row) -> Row:
        if row.stage not in ("judge", "test"):
            return row
        return replace(row, value=0.9 + (0.0 if row.role == "twin" else twin_gain + 0.001 * (row.ordinal % 3 - 1)))

    record = make_record(change=lambda row: level(row) if row.arm == "ralr" else row)
    sentences = twin_sentences(study_facts(with_amplification_of(record, "ralr", gain)))
    assert sentences[-1].startswith("Both ways round, ralr's amplification")
    assert words in sentences[-1]


def test_no_amplified_rows_no_sentence() -> None:
    found = study_facts(make_record())
    assert found.amplified == ()
    assert len(twin_sentences(found)) == 1
