from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.twins import Amplified
from ralr_tune.report.differences import (
    comparison_rows,
    differences_alt,
    differences_data,
    draw_differences,
    twin_rows,
)
from ralr_tune.report.style import arm_styles

ADDED = Amplified(
    arm="monotone", donor="ralr", trial=3, amplification={"amplify.lower": 1.5}, split="test", difference=0.004,
    interval=(0.001, 0.007), p_value=0.02, n=5, verdict="better", lost=0,
)  # fmt: skip


def drawn(facts: Facts) -> Any:
    return draw_differences(comparison_rows(facts), facts, arm_styles(facts.arms), "Differences")


def test_comparisons_by_configuration_then_by_arm() -> None:
    rows = comparison_rows(study_facts(make_record(blocks=2)))
    assert [(row.what, row.label.split("<br>")[0]) for row in rows] == [
        ("configuration", "ralr − monotone"),
        ("arm", "arm ralr − arm monotone"),
    ]


def test_twins_in_both_directions() -> None:
    facts = replace(study_facts(make_record()), amplified=(ADDED,))
    rows = twin_rows(facts)
    assert [(row.what, row.label) for row in rows] == [
        ("amplification off", "ralr − its twin<br>5 seeds"),
        ("amplification added", "monotone amplified<br>as ralr, 5 seeds"),
    ]
    assert differences_alt(rows, facts).endswith(
        "monotone with amplification added minus itself: +0.40 points, better."
    )


def test_the_detectable_difference_is_drawn_next_to_its_row() -> None:
    facts = study_facts(make_record())
    (row,) = comparison_rows(facts)
    assert row.visible == facts.reach[0].visible
    span = drawn(facts).data[1]
    assert span.x == pytest.approx((-100 * facts.reach[0].visible, 100 * facts.reach[0].visible))
    assert span.line.dash == "dot"


def test_a_difference_without_an_interval_is_drawn() -> None:
    facts = study_facts(make_record(seeds=1))
    assert comparison_rows(facts)[0].interval is None
    assert [trace.error_x.array for trace in drawn(facts).data] == [(0.0,)]


def test_the_grey_band_is_the_margin() -> None:
    facts = study_facts(make_record())
    band = drawn(facts).layout.shapes[0]
    assert (band.x0, band.x1) == (-100 * facts.margin, 100 * facts.margin)


def test_the_data_are_the_comparisons() -> None:
    facts = study_facts(make_record(blocks=2))
    data = differences_data("differences", comparison_rows(facts), facts)
    assert data.columns[3] == "test_difference_accuracy_share"
    for made, row in zip(facts.comparisons, data.rows, strict=True):
        assert made.interval is not None
        assert tuple(row[:-1]) == (
            made.what, made.arm, made.against, made.difference, *made.interval, made.confidence, made.n, made.p_value,
            made.verdict,
        )  # fmt: skip
