from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.analysis.pruning import PruningAudit
from ralr_tune.report import pruning
from ralr_tune.report.style import arm_styles

AUDITS = (
    PruningAudit("monotone", 12, 3, 0.25, (0.055, 0.572), 0, 0.0, 4.0, 8.0),
    PruningAudit("ralr", 5, 2, None, None, 1, 0.004, 4.0, 8.0, ended_amplified=1),
)


def audited() -> Facts:
    return replace(study_facts(make_record()), pruning=AUDITS)


def test_a_row_for_each_arm_with_a_rate() -> None:
    facts = audited()
    assert pruning.rated(facts) == AUDITS[:1]
    plot = pruning.draw_pruning(pruning.rated(facts), arm_styles(facts.arms))
    (row,) = plot.data
    assert row.x == (25.0,)
    assert [*row.error_x.array, *row.error_x.arrayminus] == pytest.approx([57.2 - 25, 25 - 5.5])
    assert plot.layout.yaxis.ticktext == ("monotone<br>12 audited",)


def test_the_data_include_what_is_not_drawn() -> None:
    facts = audited()
    rows = pruning.pruning_data(facts).rows
    assert [tuple(row) for row in rows] == [
        ("monotone", 12, 3, 0.25, 0.055, 0.572, 0, 0.0, 4.0, 8.0, 0),
        ("ralr", 5, 2, None, None, None, 1, 0.004, 4.0, 8.0, 1),
    ]


def test_without_audits_there_is_nothing() -> None:
    assert pruning.rated(study_facts(make_record())) == ()
