from __future__ import annotations

import json
from dataclasses import replace

import pytest
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.notes import missing_evidence_sentences, notes
from ralr_tune.records import StudyRecord


def studies() -> dict[str, tuple[StudyRecord, str]]:
    """A study for each kind of missing evidence, and the words that its sentence must contain."""
    whole = make_record(until="searched")
    empty = replace(whole.arms["ralr"], rows=())
    return {
        "no arms": (replace(whole, arms={}), "no arm"),
        "one arm": (replace(whole, arms={"monotone": whole.arms["monotone"]}), "nothing to compare it with"),
        "no baseline": (replace(whole, arms={"ralr": whole.arms["ralr"]}), "not one of the study's arms"),
        "empty arm": (replace(whole, arms={**whole.arms, "ralr": empty}), "has no planned trials"),
        "all diverged": (
            make_record(until="searched", change=lambda row: replace(row, outcome="diverged", value=None)),
            "All 24 finished trials of ralr diverged",
        ),
        "few trials": (make_record(until="searched", trials=4), "ralr has 4 finished trials: too few"),
        "no spread": (
            make_record(until="searched", change=lambda row: replace(row, value=0.5) if row.value else row),
            "no effect of its parameters can be seen",
        ),
    }


def sentences_of(facts: Facts) -> str:
    return " ".join(missing_evidence_sentences(facts))


@pytest.mark.parametrize("kind", list(studies()))
def test_each_kind_has_its_sentence_and_all_facts_exist(kind: str) -> None:
    record, words = studies()[kind]
    facts = study_facts(record)
    assert kind in {lack.kind for lack in facts.lacks}
    assert words in sentences_of(facts)
    assert card_of(facts).sentences
    assert all(notes(facts))
    json.dumps(as_json(facts), allow_nan=False)


def test_a_complete_study_lacks_nothing() -> None:
    assert study_facts(make_record()).lacks == ()
    assert study_facts(make_record(until="planned")).lacks == ()
