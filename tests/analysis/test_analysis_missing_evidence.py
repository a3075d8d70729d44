from __future__ import annotations

import json
from dataclasses import replace

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.answer import answers, reach_sentences
from ralr_tune.analysis.facts import Facts, as_json, study_facts
from ralr_tune.analysis.notes import lack_sentences, notes
from ralr_tune.records import StudyRecord


def studies() -> dict[str, tuple[StudyRecord, str]]:
    """A study for each lack, and the words that it must get."""
    whole = make_record(until="searched")
    empty = replace(whole.arms["ralr"], rows=())
    return {
        "no arms": (replace(whole, arms={}), "no arm"),
        "one arm": (replace(whole, arms={"monotone": whole.arms["monotone"]}), "nothing to compare it with"),
        "no baseline": (replace(whole, arms={"ralr": whole.arms["ralr"]}), "none of the study's arms"),
        "empty arm": (replace(whole, arms={**whole.arms, "ralr": empty}), "not one planned trial"),
        "all diverged": (
            make_record(until="searched", change=lambda row: replace(row, outcome="diverged", value=None)),
            "All 24 finished trials of ralr diverged",
        ),
        "few trials": (make_record(until="searched", trials=4), "ralr has 4 finished trials: too few"),
        "no spread": (
            make_record(until="searched", change=lambda row: replace(row, value=0.5) if row.value else row),
            "nothing tells its parameters apart",
        ),
    }


def said(facts: Facts) -> str:
    return " ".join(lack_sentences(facts))


@pytest.mark.parametrize("kind", list(studies()))
def test_each_lack_has_its_sentence_and_nothing_crashes(kind: str) -> None:
    record, words = studies()[kind]
    facts = study_facts(record)
    assert kind in {lack.kind for lack in facts.lacks}
    assert words in said(facts)
    assert answers(facts)
    assert all(notes(facts))
    json.dumps(as_json(facts), allow_nan=False)


def test_a_whole_study_lacks_nothing() -> None:
    assert study_facts(make_record()).lacks == ()
    assert study_facts(make_record(until="planned")).lacks == ()


def test_one_block_is_told_what_blocks_would_see() -> None:
    (sentence,) = [each for each in reach_sentences(study_facts(make_record())) if "blocks" in each]
    assert "two can see a difference of 11.5 times the spread between blocks, four one of 2.1 times" in sentence
    assert not any("To compare arms" in each for each in reach_sentences(study_facts(make_record(blocks=2))))
