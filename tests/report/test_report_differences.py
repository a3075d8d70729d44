from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.twins import Amplified
from ralr_tune.records import Row
from ralr_tune.report.card import axis
from ralr_tune.report.differences import (
    comparison_rows,
    difference_rows,
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
    return draw_differences(comparison_rows(facts), facts, arm_styles(facts.arms))


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
    (span,) = [trace for trace in drawn(facts).data if trace.mode == "lines+markers" and trace.x[0] is not None]
    assert span.x == pytest.approx((-100 * facts.reach[0].visible, 100 * facts.reach[0].visible))
    assert span.line.dash == "dot"


def test_a_difference_without_an_interval_is_drawn() -> None:
    facts = study_facts(make_record(seeds=1))
    assert comparison_rows(facts)[0].interval is None
    (dot,) = [trace for trace in drawn(facts).data if trace.x[0] is not None]
    assert (dot.error_x.array, dot.marker.symbol) == (None, "diamond-open")


def test_amplification_alone_comes_first_and_is_the_title() -> None:
    facts = replace(study_facts(make_record()), amplified=(ADDED,))
    rows = difference_rows(facts)
    assert [row.what for row in rows] == ["amplification off", "amplification added", "configuration"]
    title = draw_differences(rows, facts, arm_styles(facts.arms)).layout.title.text
    assert title.startswith("Amplification alone: ralr ")
    assert title.endswith("; monotone +0.40 points, better")
    many = draw_differences(rows[:1] * 4, facts, arm_styles(facts.arms)).layout.title.text
    assert many == f"Amplification alone: {rows[0].verdict} in 4 of 4 comparisons"


def flat(row: Row) -> Row:
    """Judged runs of equal scores, apart from a little noise."""
    return row if row.stage == "search" else replace(row, value=0.9 + 0.0003 * (row.id % 7))


STUDIES: dict[str, dict[str, Any]] = {
    "inconclusive": {"gain": 0.0},
    "better": {"gain": 0.05},
    "equivalent": {"change": flat},
    "three arms": {"gain": 0.05, "arms": ("monotone", "ralr", "other")},
    "several blocks": {"blocks": 4},
    "too few": {"seeds": 3},
}


@pytest.mark.parametrize("known", STUDIES.values(), ids=STUDIES)
def test_the_card_and_the_figure_draw_the_same_intervals(known: dict[str, Any]) -> None:
    facts = study_facts(make_record(**known))
    found, rows = card_of(facts), difference_rows(facts)
    places = {(row.what.replace("amplification off", "configuration"), row.arm, row.against): row for row in rows}
    assert found.judged
    for judged in found.judged:
        made = judged.comparison
        row = places[made.what, made.arm, made.against]
        data = draw_differences([row], facts, arm_styles(facts.arms)).data
        thick = [trace for trace in data if trace.mode == "lines" and trace.x[0] is not None]
        (dot,) = [trace for trace in data if trace.mode == "markers" and trace.x[0] is not None]
        assert [trace.x for trace in thick] == ([pytest.approx(shares(judged.shown))] if judged.shown else [])
        (own,) = [each for each in axis(found).rows if each.judged is judged]
        assert (own.whole is not None) == (dot.error_x.array is not None)
        if own.whole is not None:
            low, high = shares(made.interval)
            assert (dot.x[0] - dot.error_x.arrayminus[0], dot.x[0] + dot.error_x.array[0]) == pytest.approx((low, high))


def shares(interval: Any) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]


def test_the_deciding_interval_is_thick_and_the_other_thin_with_a_legend() -> None:
    facts = study_facts(make_record(change=flat))
    (row,) = comparison_rows(facts)
    assert row.verdict == "equivalent"
    assert row.interval != row.deciding == row.equivalence
    plot = drawn(facts)
    assert plot.data[0].line.width > plot.data[1].error_x.thickness
    assert [trace.name for trace in plot.data if trace.showlegend] == [
        "90% interval, which decides the verdict",
        "95% interval",
        "smaller differences may be missed",
        "margin",
    ]
    one = drawn(study_facts(make_record()))
    assert next(trace.name for trace in one.data if trace.showlegend) == "95% interval, which decides the verdict"


def test_too_few_blocks_have_no_interval_but_say_so() -> None:
    facts = study_facts(make_record(blocks=2))
    arm = next(row for row in comparison_rows(facts) if row.what == "arm")
    assert (arm.judged, arm.visible) == (False, None)
    plot = draw_differences([arm], facts, arm_styles(facts.arms))
    assert plot.layout.yaxis.ticktext == ("arm ralr − arm monotone<br>2 blocks<br>too few to judge",)
    assert [trace.error_x.array for trace in plot.data if trace.x[0] is not None] == [None]
    assert arm._replace(verdict="better").judged


def test_the_grey_band_is_the_margin() -> None:
    facts = study_facts(make_record())
    band = drawn(facts).layout.shapes[0]
    assert (band.x0, band.x1) == (-100 * facts.margin, 100 * facts.margin)


def test_the_data_are_the_comparisons() -> None:
    facts = study_facts(make_record(blocks=2))
    data = differences_data(comparison_rows(facts), facts)
    assert data.columns[3] == "test_difference_accuracy_share"
    for made, row in zip(facts.comparisons, data.rows, strict=True):
        assert made.interval is not None
        assert tuple(row[:-5]) == (
            made.what, made.arm, made.against, made.difference, *made.interval, made.confidence, made.n, made.p_value,
            made.verdict,
        )  # fmt: skip
        assert made.equivalence_interval is not None
        assert made.deciding is not None
        assert tuple(row[-4:]) == (*made.equivalence_interval, *made.deciding)
