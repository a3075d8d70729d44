from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.records import Row
from ralr_tune.report import robustness
from ralr_tune.report.style import arm_styles
from ralr_tune.report.tables import robustness_table
from tests.metrics import LOSS


def drawn(lines: Sequence[robustness.RateLine], facts: Facts) -> Any:
    return robustness.draw_robustness(lines, facts, arm_styles(facts.arms))


def ruined(row: Row) -> Row:
    """Complete trials at high rates end at 26%."""
    high = row.stage == "search" and row.outcome == "complete" and row.params["lr"] > 0.45
    return replace(row, value=0.26) if high else row


def test_every_trial_is_a_mark_at_its_true_score() -> None:
    record = make_record(until="searched", trials=60, change=ruined)
    facts = study_facts(record)
    lines = robustness.robustness_facts(facts)
    plot = drawn(lines, facts)
    dots = [
        (x, y)
        for trace in plot.data
        if trace.mode == "markers" and trace.x[0]
        for x, y in zip(trace.x, trace.y, strict=True)
    ]
    assert len(dots) == sum(len(line.trials) for line in lines) == 120
    complete = {
        (row.params["lr"], 100 * row.value)
        for arm in record.arms.values()
        for row in arm.search()
        if row.outcome == "complete" and row.value is not None
    }
    assert complete <= set(dots)
    assert min(y for _, y in complete) == 26.0
    low, high = plot.layout.yaxis.range
    assert low < 26.0
    assert high > max(y for _, y in complete)
    ticks = plot.layout.yaxis.tickvals
    assert high > 100 >= ticks[-1] > 90  # no accuracy beyond 100%, where the good rates are drawn
    assert 4 <= len(ticks) <= robustness.MAX_TICKS + 1
    assert ticks[0] >= low
    assert plot.layout.yaxis.ticktext[-1].endswith("0%")


def test_the_line_falls_as_far_as_the_trials() -> None:
    facts = study_facts(make_record(until="searched", trials=60, change=ruined))
    line = robustness.robustness_facts(facts)[0]
    ends = [trace.y for trace in drawn([line], facts).data if trace.mode == "lines" and trace.name is None and trace.y]
    assert min(y for ys in ends for y in ys if y is not None) == pytest.approx(26.0)


def test_without_trials_nearby_the_line_is_dotted() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    line = robustness.robustness_facts(facts)[0]
    assert line.found is not None
    gap = tuple(replace(each, supported=not 40 <= place < 60) for place, each in enumerate(line.local))
    plot = drawn([line._replace(found=replace(line.found, local=gap))], facts)
    dotted = next(trace for trace in plot.data if trace.line.dash == "dot" and trace.name is None)
    shown = [place for place, y in enumerate(dotted.y) if y is not None]
    assert shown == list(range(39, 61))  # it joins the solid parts
    assert "few trials near" in [trace.name for trace in plot.data]


def test_a_bar_spans_the_good_rates_and_an_arrow_marks_an_open_end() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    line = robustness.robustness_facts(facts)[0]
    assert line.found is not None
    opened = line._replace(found=replace(line.found, low_open=True, high_open=False))
    plot = drawn([opened], facts)
    bar = next(trace for trace in plot.data if trace.mode == "lines+markers" and trace.x[0] is not None)
    assert bar.x == (line.found.low, line.found.high)
    assert bar.marker.symbol == ("triangle-left", "line-ns-open")
    assert "of the best rate: below" in plot.layout.title.text


def test_an_outlier_of_an_unbounded_metric_does_not_squeeze_the_others() -> None:
    def loss(row: Row) -> Row:
        return replace(row, value=None if row.value is None else 1e6 if row.ordinal == 7 else 1 - row.value)

    record = replace(make_record(until="searched", trials=60, change=loss), metric=LOSS)
    facts = study_facts(record)
    plot = drawn(robustness.robustness_facts(facts), facts)
    assert max(plot.layout.yaxis.range) < 3
    assert "off the scale" in [trace.name for trace in plot.data]


def test_the_data_contain_every_trial_and_every_rate() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    rows = robustness.robustness_data(robustness.robustness_facts(facts), facts).rows
    for each in facts.robustness:
        assert each.rates is not None
        trials = [row for row in rows if row[:2] == ("trial", each.arm)]
        assert [(row[2], row[3], row[4]) for row in trials] == [astuple(trial) for trial in each.trials]
        own = [row for row in rows if row[:2] == ("median", each.arm)]
        assert [(row[2], row[5], row[3], row[6], row[7]) for row in own] == [astuple(one) for one in each.rates.local]
        held = [row[2] for row in own if row[8]]
        assert each.rates.low <= held[0] <= held[-1] <= each.rates.high


def test_a_few_trials_are_drawn_without_a_line() -> None:
    facts = study_facts(make_record(until="searched", trials=6))
    lines = robustness.robustness_facts(facts)
    assert [line.found for line in lines] == [None, None]
    assert drawn(lines, facts).layout.title.text.startswith("Best base rate: ")
    table = robustness_table(facts)
    assert [row[:4] for row in table.rows] == [["monotone", "–", "–", "–"], ["ralr", "–", "–", "–"]]
    assert all(row[4].endswith(" of 6") for row in table.rows)


def test_a_width_that_the_trials_do_not_determine_is_not_quoted() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    first = facts.robustness[0]
    assert first.rates is not None
    wide = replace(first, rates=replace(first.rates, factor_interval=(1.0, 250.0)))
    table = robustness_table(replace(facts, robustness=(wide,)))
    assert table.rows[0][3] == "too few trials"
