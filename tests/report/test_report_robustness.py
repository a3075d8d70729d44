from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.report import robustness
from ralr_tune.report.style import arm_styles
from ralr_tune.report.tables import robustness_table


def test_the_thick_part_is_the_range() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    lines = robustness.robustness_facts(facts)
    assert [line.arm for line in lines] == ["monotone", "ralr"]
    for line in lines:
        rates = [rate for rate, _ in line.good]
        assert (rates[0], rates[-1]) == pytest.approx((line.found.low, line.found.high))
        best = max(value for _, value in line.pairs)
        assert all(value >= best - line.found.tolerance - 1e-12 for _, value in line.good)


def test_an_arrow_marks_an_open_range() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    (line, _) = robustness.robustness_facts(facts)
    opened = line._replace(found=replace(line.found, low_open=True, high_open=False))
    plot = robustness.draw_robustness([opened], facts, arm_styles(facts.arms))
    assert plot.data[-1].marker.symbol == ("triangle-left", "line-ns-open")


def test_scores_far_below_the_best_do_not_squeeze_the_others() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    lines = robustness.robustness_facts(facts)
    low, high = robustness.draw_robustness(lines, facts, arm_styles(facts.arms)).layout.yaxis.range
    assert high - low == pytest.approx(100 * (robustness.SHOWN + 1) * 0.01)


def test_the_data_contain_every_rate() -> None:
    facts = study_facts(make_record(until="searched", trials=60))
    rows = robustness.robustness_data(robustness.robustness_facts(facts), facts).rows
    for each in facts.robustness:
        own = [row for row in rows if row[0] == each.arm]
        assert each.rates is not None
        assert tuple(row[1] for row in own) == each.rates.rates
        assert tuple(row[2] for row in own) == each.rates.expected
        assert sum(row[3] for row in own) == len([1 for rate in own if rate[3]]) > 1


def test_without_enough_trials_there_is_a_table_and_no_figure() -> None:
    facts = study_facts(make_record(until="searched", trials=6))
    assert robustness.robustness_facts(facts) == ()
    table = robustness_table(facts)
    assert [row[:4] for row in table.rows] == [["monotone", "–", "–", "–"], ["ralr", "–", "–", "–"]]
    assert all(row[4].endswith(" of 6") for row in table.rows)
