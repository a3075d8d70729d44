"""Any content of a storage gives facts, sentences and valid JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_study import AMPLIFY, SHARED, card_of, make_record

from ralr_tune.analysis.card import as_json as card_json
from ralr_tune.analysis.evidence import comparison_sentences, twin_sentences
from ralr_tune.analysis.facts import as_json, study_facts
from ralr_tune.analysis.notes import notes
from ralr_tune.analysis.sequential import Plan
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, EpochRecord, Row, StudyRecord, amplified_role
from ralr_tune.report.card import card_text
from tests.fuzz import AT_RANDOM, cases

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0])
)
DONATED = [amplified_role("ralr", block, trial) for block in (1, 2) for trial in range(3)]
SCORES = st.one_of(st.none(), NUMBERS)
RATES = st.floats(1e-3, 1.0)
DIMENSIONS: dict[str, dict[str, Any]] = {**SHARED, **AMPLIFY, "optimizer": {"choices": ["sgd", "adam"]}}


@st.composite
def params(draw: st.DrawFn) -> dict[str, Any]:
    known = {
        "lr": draw(RATES),
        "weight_decay": draw(st.floats(1e-5, 1e-2)),
        "optimizer": draw(st.sampled_from(["sgd", "adam"])),
    }
    amplify = {name: draw(st.floats(domain["low"], domain["high"])) for name, domain in AMPLIFY.items()}
    return draw(st.sampled_from([{}, known, known | amplify]))


@st.composite
def rows(draw: st.DrawFn, arm: str, number: int) -> Row:
    outcome = draw(st.sampled_from([None, "complete", "complete", "complete", "pruned", "diverged", "failed"]))
    stage = draw(st.sampled_from(["search", "search", "search", "audit", "choose", "judge", "test"]))
    values = draw(st.lists(NUMBERS, max_size=3))
    return Row(
        id=number,
        arm=arm,
        stage=stage,  # type: ignore[arg-type]
        block=draw(st.integers(1, 2)),
        ordinal=draw(st.integers(0, 5)),
        role="" if stage in ("search", "audit") else draw(st.sampled_from(["best", "best", "twin", *DONATED])),
        source=None if stage == "search" else draw(st.integers(0, 2)),
        seed=draw(st.integers(0, 5)),
        params=draw(params()),
        trial=draw(st.integers(0, 2)) if stage == "search" else None,
        state="done" if outcome else draw(st.sampled_from(["free", "held"])),  # type: ignore[arg-type]
        attempt=1,
        owner=None,
        outcome=outcome,  # type: ignore[arg-type]
        failure=draw(st.sampled_from([None, "diverged", "oom"])) if outcome == "diverged" else None,
        message=None,
        epoch=len(values),
        value=draw(SCORES),
        train_value=draw(SCORES),
        curve=tuple(EpochRecord(i + 1, value, 1.0, 0.1, 1.0, draw(NUMBERS)) for i, value in enumerate(values)),
        seconds=draw(SCORES),
        started=None,
        finished=None,
    )


@st.composite
def records(draw: st.DrawFn) -> StudyRecord:
    names = draw(st.sampled_from([[], ["monotone"], ["ralr"], ["monotone", "ralr"], ["monotone", "ralr", "noise"]]))
    arms = {}
    for name in names:
        count = draw(st.integers(0, 24))
        own = tuple(draw(rows(name, number)) for number in range(count))
        arms[name] = ArmRecord(name, DIMENSIONS if draw(st.booleans()) else SHARED, own)
    return replace(
        make_record(until="planned", arms=()),
        arms=arms,
        metric=Metric(
            draw(st.sampled_from(["accuracy", "loss"])),
            draw(st.sampled_from(["maximize", "minimize"])),
            draw(st.sampled_from(["share", "plain"])),
        ),
        margin=draw(st.sampled_from([0.0, 0.005])),
        spec_text=draw(
            st.sampled_from(["", '[search]\nsampler = "random"', '[search]\nsampler = "qmc"', "not toml ["])
        ),
    )


@st.composite
def scored_records(draw: st.DrawFn) -> StudyRecord:
    """A whole study in which some rows are corrupt."""
    record = make_record(trials=draw(st.integers(1, 12)), blocks=draw(st.integers(1, 2)), seeds=draw(st.integers(1, 3)))
    arms = {}
    for name, arm in record.arms.items():
        spoilt = {draw(st.integers(0, len(arm.rows) - 1)): draw(SCORES) for _ in range(draw(st.integers(0, 4)))}
        arms[name] = replace(
            arm,
            rows=tuple(
                replace(row, value=spoilt[place], train_value=spoilt[place]) if place in spoilt else row
                for place, row in enumerate(arm.rows)
            ),
        )
    return replace(record, arms=arms)


PLANS = st.sampled_from([None, Plan((2, 3), margin=0.005), Plan((2, 4), margin=0.0, comparisons=2)])


def check(record: StudyRecord, plan: Plan | None) -> None:
    facts = study_facts(record, plan=plan)
    found = as_json(facts)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    card = card_of(facts)
    json.dumps(card_json(card), allow_nan=False)
    assert "nan" not in card_text(card)
    spoken = (*card.sentences, card.next_step.why, *comparison_sentences(facts))
    for sentence in (*spoken, *twin_sentences(facts), *notes(facts)):
        assert sentence.endswith((".", "?"))
        assert "nan" not in sentence.replace("nanos", "")
    for arm in facts.robustness:
        assert arm.rates is None or math.isfinite(arm.rates.factor)


RELAXED = settings(
    max_examples=cases(30), deadline=None, suppress_health_check=list(HealthCheck), derandomize=not AT_RANDOM
)


@RELAXED
@given(records(), PLANS)
def test_any_rows_have_facts(record: StudyRecord, plan: Plan | None) -> None:
    check(record, plan)


@RELAXED
@given(scored_records(), PLANS)
def test_spoilt_studies_have_facts(record: StudyRecord, plan: Plan | None) -> None:
    check(record, plan)
