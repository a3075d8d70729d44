from __future__ import annotations

from dataclasses import replace

from synthetic_study import make_record

from ralr_tune.analysis.complementarity import Complementarity, Gain
from ralr_tune.analysis.facts import Facts, study_facts
from ralr_tune.report import complementarity
from ralr_tune.report.figures import figures
from ralr_tune.report.style import arm_styles

ARMS = ("monotone", "ralr", "mixed", "both")
FOUND = Complementarity(
    plain=Gain("ralr", "monotone", 0.004, (0.001, 0.007)),
    other=Gain("both", "mixed", 0.001, None),
    differs=("augment", "label_smoothing"),
    split="test",
    interaction=-0.003,
    interval=(-0.008, 0.002),
    p_value=0.2,
    n=5,
    verdict="inconclusive",
)


def squared() -> Facts:
    return replace(study_facts(make_record(arms=ARMS, trials=4)), complementarity=(FOUND,))


def test_both_gains_and_their_difference() -> None:
    rows = complementarity.change_rows(squared())
    assert [(row.what, row.label) for row in rows] == [
        ("gain", "ralr − monotone<br>5 seeds"),
        ("gain", "both − mixed<br>5 seeds"),
        ("interaction", "second minus first<br>augment, label_smoothing"),
    ]
    assert [row.difference for row in rows] == [0.004, 0.001, -0.003]


def test_it_is_drawn_in_points_above_the_margin() -> None:
    facts = squared()
    plot = complementarity.draw_complementarity(complementarity.change_rows(facts), facts, arm_styles(facts.arms))
    assert [trace.x[0] for trace in plot.data] == [0.4, 0.1, -0.3]
    assert (plot.layout.shapes[0].x0, plot.layout.shapes[0].x1) == (-0.5, 0.5)


def test_the_figure_has_a_section_and_needs_a_square() -> None:
    record = make_record(arms=ARMS, trials=4)
    (figure,) = [figure for figure in figures(record, squared()) if figure.name == "complementarity"]
    assert figure.section == "complementarity"
    assert figure.alt.endswith("the second minus the first \N{MINUS SIGN}0.30 points, inconclusive.")
    assert figure.data is not None
    assert tuple(figure.data.rows[2]) == ("interaction", "both", "ralr", -0.003, -0.008, 0.002, 5, "inconclusive")
    assert "complementarity" not in [figure.name for figure in figures(record, study_facts(record))]
