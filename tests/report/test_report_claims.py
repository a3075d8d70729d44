from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import Row
from ralr_tune.report import claims
from ralr_tune.report.style import arm_styles


def uneven(row: Row) -> Row:
    """Training values that differ from run to run, so that gaps have intervals."""
    return row if row.train_value is None else replace(row, train_value=row.train_value + 0.001 * (row.id**2 % 7))


def test_ratios_are_on_a_log_axis_around_one() -> None:
    facts = study_facts(make_record())
    costs = claims.timed(facts)
    assert [(cost.arm, cost.paired_by) for cost in costs] == [("ralr", "twin"), ("ralr", "trial")]
    plot = claims.draw_costs(costs, arm_styles(facts.arms))
    assert plot.layout.xaxis.type == "log"
    assert plot.layout.shapes[0].x0 == 1.0
    assert [trace.x for trace in plot.data] == [(cost.ratio,) for cost in costs]
    low, high = sorted(cost.ratio for cost in costs)
    assert plot.layout.title.text == f"An epoch takes {low:.2f} to {high:.2f} times as long: no extra cost shown"
    slower = replace(costs[0], interval=(1.1, 1.2))
    title = claims.draw_costs([slower, costs[1]], arm_styles(facts.arms)).layout.title.text
    assert title == f"An epoch takes {low:.2f} to {high:.2f} times as long"
    assert plot.layout.yaxis.ticktext[0] == "ralr / its twin<br>5 pairs"


@pytest.mark.parametrize(
    ("interval", "ticks"),
    [
        ((0.97, 1.04), [0.8, 0.9, 1.0, 1.1, 1.2]),
        ((0.86, 1.4), [0.8, 1.0, 1.2, 1.4]),
        ((0.24, 3.99), [0.5, 1.0, 2.0]),
    ],
)
def test_the_axis_of_ratios_has_few_round_ticks(interval: tuple[float, float], ticks: list[float]) -> None:
    facts = study_facts(make_record())
    cost = replace(claims.timed(facts)[0], interval=interval)
    assert list(claims.draw_costs([cost], arm_styles(facts.arms)).layout.xaxis.tickvals) == ticks


def test_gaps_are_compared_with_the_twin_and_the_baseline() -> None:
    facts = study_facts(make_record(change=uneven))
    found = claims.gaps(facts)
    assert [(gap.arm, gap.found.against, gap.found.twin) for gap in found] == [
        ("ralr", "ralr", True),
        ("ralr", "monotone", False),
    ]
    plot = claims.draw_gaps(found, facts, arm_styles(facts.arms))
    assert [trace.x[0] for trace in plot.data] == pytest.approx([100 * gap.found.difference for gap in found])


def test_values_without_an_interval_are_only_in_the_data() -> None:
    facts = study_facts(make_record(seeds=1, trials=1))
    assert claims.timed(facts) == claims.gaps(facts) == ()
    assert [row[3] for row in claims.costs_data(facts).rows] == [cost.ratio for cost in facts.costs] != []


def test_the_data_are_the_facts() -> None:
    facts = study_facts(make_record())
    for cost, row in zip(facts.costs, claims.costs_data(facts).rows, strict=True):
        assert (row[3], row[6], row[7]) == (cost.ratio, cost.n, cost.seconds)
    differences = [made for each in facts.overfitting for made in each.differences]
    assert [row[4] for row in claims.gaps_data(facts).rows] == [made.difference for made in differences]
