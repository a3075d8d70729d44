from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from synthetic_study import SPEC_TEXT, make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.records import Row
from ralr_tune.report import budget
from ralr_tune.report.style import arm_styles

RANDOM = SPEC_TEXT + '[search]\nsampler = "random"\n'


def expected(**how: object) -> Facts:
    """The facts of a random search."""
    return study_facts(replace(make_record(until="searched", **how), spec_text=RANDOM))  # type: ignore[arg-type]


def test_a_line_for_each_arm_with_its_band() -> None:
    facts = expected()
    found = budget.budget_facts(facts)
    assert found is not None
    assert [(line.arm, len(line.trials), line.stepped) for line in found.lines] == [
        ("monotone", 24, False), ("ralr", 24, False),
    ]  # fmt: skip
    for line, curve in zip(found.lines, facts.budgets, strict=True):
        assert (line.middle, line.low, line.high) == (curve.best, curve.low, curve.high)
    plot = budget.draw_budget(found, facts, arm_styles(facts.arms))
    assert len(plot.data) == 8
    assert [trace.name for trace in plot.data if trace.showlegend] == ["monotone", "ralr"]
    assert [trace.line.dash for trace in plot.data if trace.showlegend] == ["solid", "dash"]


def test_the_axes_count_trials_epochs_and_device_time() -> None:
    facts = expected()
    found = budget.budget_facts(facts)
    assert found is not None
    trials, epochs, seconds = budget.views(found)
    assert [view.name for view in (trials, epochs, seconds)] == ["trials", "epochs", "device time"]
    assert seconds.title == "Device time of the arm, seconds"
    plot = budget.draw_budget(found, facts, arm_styles(facts.arms))
    for trace, *others in zip(plot.data, trials.x, epochs.x, seconds.x, strict=True):
        assert trace.x == others[0]
        assert {len(x) for x in others} == {len(trace.y)}
    assert epochs.x[0] == tuple(final.epochs for final in facts.budgets[0].finals)
    assert epochs.x[1] == facts.budgets[0].epochs
    assert seconds.x[-1] == facts.budgets[-1].seconds


@pytest.mark.parametrize(("seconds", "unit", "last"), [(3.0, "minutes", 1.2), (3600.0, "hours", 24.0)])
def test_long_searches_count_minutes_or_hours(seconds: float, unit: str, last: float) -> None:
    def slow(row: Row) -> Row:
        return replace(row, seconds=None if row.seconds is None else seconds)

    found = budget.budget_facts(study_facts(make_record(until="searched", change=slow)))
    assert found is not None
    if unit == "minutes":
        assert budget.views(found)[2].title.endswith("seconds")  # 72 s
    else:
        assert budget.views(found)[2].title.endswith("hours")
        assert budget.views(found)[2].x[1][-1] == pytest.approx(last)


def test_a_single_search_is_stepped_and_has_no_band() -> None:
    facts = study_facts(make_record(until="searched"))
    found = budget.budget_facts(facts)
    assert found is not None
    assert all(line.stepped and line.low is None for line in found.lines)
    assert "another search may differ. A single search has no band." in budget.budget_note(facts)


def test_bands_are_named_by_their_kind() -> None:
    blocks = budget.budget_note(study_facts(make_record(until="searched", blocks=3)))
    assert "Bands: lowest and highest block. Dots: complete trials" in blocks
    random = budget.budget_note(expected())
    assert "Dodge et al. 2019" in random
    assert "Bands: 95%, bootstrap over trials." in random


def test_only_the_steep_start_may_leave_the_axis() -> None:
    facts = expected()
    found = budget.budget_facts(facts)
    assert found is not None
    low, high = found.span
    for line in found.lines:
        assert line.low is not None
        assert line.high is not None
        for trials, bottom, top in zip(line.trials, line.low, line.high, strict=True):
            assert trials < 4.8 or low <= bottom <= top <= high
    first = found.lines[0].low
    assert first is not None
    assert first[0] < low
    assert found.cut
    assert budget.budget_note(facts).endswith("The first fifth of the budget is partly outside the axes.")
    assert not found._replace(span=(0.0, 1.0)).cut


def test_long_lines_are_thinned() -> None:
    facts = study_facts(make_record(until="searched", trials=500))
    found = budget.budget_facts(facts)
    assert found is not None
    for line, curve in zip(found.lines, facts.budgets, strict=True):
        assert len(line.trials) == budget.MAX_POINTS
        assert line.trials[-1] == curve.trials[-1]
        assert all(a < b for a, b in itertools.pairwise(line.trials))
    assert len(budget.budget_data(facts).rows) == 1000


def test_the_data_are_the_facts() -> None:
    facts = expected()
    rows = budget.budget_data(facts).rows
    for curve in facts.budgets:
        own = [row for row in rows if row[0] == curve.arm]
        assert tuple(row[6] for row in own) == curve.best
        assert tuple(row[5] for row in own) == curve.seconds
        assert tuple(row[7] for row in own) == curve.low


def test_the_title_names_every_arm_that_found_the_best() -> None:
    facts = study_facts(make_record(until="searched"))
    found = budget.budget_facts(facts)
    assert found is not None
    level = found._replace(lines=tuple(line._replace(middle=(0.9, 0.95)) for line in found.lines))
    titles = [budget.draw_budget(each, facts, arm_styles(facts.arms)).layout.title.text for each in (found, level)]
    assert titles[0].endswith((" by monotone", " by ralr"))
    assert titles[1] == "Best validation accuracy: 95.00% by monotone and ralr"


def test_before_a_trial_is_complete_there_is_nothing() -> None:
    facts = study_facts(make_record(until="planned"))
    assert budget.budget_facts(facts) is None
    alone = study_facts(make_record(until="searched", arms=("monotone",)))
    assert budget.budget_facts(alone) is not None


def test_complete_trials_lie_under_the_lines_and_the_note_counts_those_outside() -> None:
    record = make_record(until="searched")
    facts = study_facts(record)
    found = budget.budget_facts(facts)
    assert found is not None
    for line, arm in zip(found.lines, record.arms.values(), strict=True):
        complete = {row.ordinal + 1: row.value for row in arm.search() if row.outcome == "complete"}
        assert {final.trials: final.value for final in line.finals} == complete
    low, high = found.span
    values = [final.value for line in found.lines for final in line.finals]
    outside = [value for value in values if not low <= value <= high]
    assert 0 < len(outside) <= len(values) / 2
    assert f"Dots: complete trials; {len(outside)} of {len(values)} lie outside the axis." in budget.budget_note(facts)
