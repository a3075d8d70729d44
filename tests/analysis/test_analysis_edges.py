from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.edges import Edge, edges
from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import edge_sentences
from ralr_tune.records import ArmRecord
from tests.metrics import ACCURACY

LOG = {"low": 1e-3, "high": 1.0, "log": True, "step": None}


def arm(name: str, domain: Mapping[str, Any], value: Any) -> ArmRecord:
    """An arm of ten trials, whose best one has this value."""
    base = make_record(until="searched").arms["monotone"]
    row = next(row for row in base.rows if row.outcome == "complete")
    rows = (replace(row, params={name: value}), *(replace(row, params={}, value=0.1) for _ in range(9)))
    return ArmRecord("monotone", {name: domain}, rows)


def edge(name: str, domain: Mapping[str, Any], value: Any) -> Edge | None:
    found = edges(arm(name, domain, value), ACCURACY)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("name", "domain", "value", "end", "tried"),
    [
        ("lr", LOG, 0.9, "high", (1e-3, 32.0)),
        ("lr", LOG, 1.1e-3, "low", (3.2e-5, 1.0)),
        ("amplify.width", {"low": 0.0, "high": 4.0}, 3.9, "high", (0.0, 6.0)),
        ("amplify.lower", {"low": 1.2, "high": 2.0}, 1.21, "low", (1.0, 2.0)),
        ("amplify.probability", {"low": 0.05, "high": 0.6}, 0.06, "low", (0.0, 0.6)),
        ("amplify.probability", {"low": 0.5, "high": 0.9}, 0.9, "high", (0.5, 1.0)),
        ("momentum", {"low": 0.8, "high": 0.99}, 0.985, "high", (0.8, 0.995)),
        ("schedule.gamma", {"low": 0.1, "high": 0.5}, 0.11, "low", (0.05, 0.5)),  # 0 itself is refused
        ("schedule.low_factor", {"low": 0.5, "high": 0.9}, 0.9, "high", (0.5, 1.0)),
        ("schedule.div_factor", {"low": 2.0, "high": 50.0}, 3.0, "low", (1.0, 50.0)),
        ("noise.amplitude", {"low": 0.5, "high": 0.9}, 0.89, "high", (0.5, 0.95)),
        ("of_my_own", {"low": 0.5, "high": 0.9}, 0.9, "high", (0.5, 1.1)),
        ("of_my_own", {"low": 0.1, "high": 0.9}, 0.1, "low", (0.0, 0.9)),
        ("of_my_own", {"low": 1, "high": 9}, 9, "high", (1, 13)),
        ("batch_size", {"low": 16, "high": 64}, 64, "high", (16, 88)),
        ("batch_size", {"low": 1, "high": 3}, 3, "high", (1, 4)),
        ("batch_size", {"low": 32, "high": 128, "step": 32}, 128, "high", (32, 192)),
        ("batch_size", {"low": 16, "high": 64}, 16, "low", (1, 64)),
    ],
)
def test_the_range_to_try(
    name: str, domain: Mapping[str, Any], value: Any, end: str, tried: tuple[float, float]
) -> None:
    found = edge(name, domain, value)
    assert found is not None
    assert found.end == end
    assert (found.try_low, found.try_high) == pytest.approx(tried)


@pytest.mark.parametrize(
    ("name", "domain", "value"),
    [
        ("lr", LOG, 0.1),
        ("lr", LOG, 0.5),  # far from the end on the log scale that it is searched on
        ("amplify.lower", {"low": 1.0, "high": 2.0}, 1.0),  # goes no lower
        ("amplify.width", {"low": 0.0, "high": 4.0}, 0.01),
        ("amplify.probability", {"low": 0.0, "high": 1.0}, 0.99),
        ("amplify.width", {"low": 0.0, "high": 1e6}, 0.99e6),
        ("of_my_own", {"low": 1, "high": 9}, 1),
        ("optimizer", {"choices": ["sgd", "adam"]}, "adam"),
        ("lr", LOG, "not a number"),
        ("lr", LOG, float("nan")),
        ("lr", {"low": 0.0, "high": 1.0, "log": True}, 0.5),
    ],
)
def test_no_edge(name: str, domain: Mapping[str, Any], value: Any) -> None:
    assert edge(name, domain, value) is None


def test_a_few_trials_say_nothing_about_a_range() -> None:
    few = arm("lr", LOG, 0.9)
    assert edges(few, ACCURACY)
    assert edges(replace(few, rows=few.rows[:9]), ACCURACY) == ()


def test_a_linear_scale_is_measured_linearly() -> None:
    assert edge("lr", {"low": 1e-3, "high": 1.0}, 0.03) is not None
    assert edge("lr", LOG, 0.03) is None


def test_the_confirmed_configuration_counts() -> None:
    record = make_record()
    source = record.arms["monotone"].stage("judge")[0].source
    rows = tuple(
        replace(row, params={**row.params, "lr": 0.98 if row.trial == source else 0.1})
        if row.stage == "search"
        else row
        for row in record.arms["monotone"].rows
    )
    (found,) = edges(replace(record.arms["monotone"], rows=rows, dimensions={"lr": LOG}), ACCURACY)
    assert found.value == 0.98


def test_the_sentence_names_the_range_to_try() -> None:
    found = study_facts(replace(make_record(), arms={"monotone": arm("lr", LOG, 0.97)}))
    (sentence,) = edge_sentences(found)
    assert sentence == "monotone's best lr (0.97) lies at the high end of its range (0.001 to 1): try 0.001 to 32."
