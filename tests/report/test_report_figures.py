from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import plotly.graph_objects as go
import pytest
from synthetic_study import make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.kinds.detection import metrics as detection
from ralr_tune.kinds.translation import metrics as translation
from ralr_tune.metric import Metric
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report import curves, importance, rates, scores, trials
from ralr_tune.report.figures import Figure, figures, panel_figures
from ralr_tune.report.style import GREY, PALETTE, arm_styles, log_ticks, number_axis, score_axis
from tests.metrics import LOSS


def drawn(record: StudyRecord) -> list[Figure]:
    return figures(record, study_facts(record))


def uneven(row: Row) -> Row:
    """Training values that differ from run to run, so that gaps have intervals."""
    return row if row.train_value is None else replace(row, train_value=row.train_value + 0.001 * (row.id**2 % 7))


def test_order_and_names_of_a_finished_study() -> None:
    found = drawn(make_record(change=uneven))
    assert [figure.name for figure in found] == [
        "differences",
        "scores",
        "budget",
        "importance",
        "robustness",
        "rates",
        "costs",
        "gaps",
        "parameter-weight_decay",
        "parameter-amplify.probability",
        "parameter-amplify.lower",
        "parameter-amplify.width",
        "curves-monotone",
        "curves-ralr",
    ]
    assert list(dict.fromkeys(figure.section for figure in found)) == [
        "better", "budget", "importance", "robustness", "rates", "claims", "parameters", "curves",
    ]  # fmt: skip


@pytest.mark.parametrize("until", ["planned", "searching", "searched", "confirmed"])
def test_unfinished_studies_have_the_figures_that_they_have_data_for(until: str) -> None:
    names = {figure.name for figure in drawn(make_record(until=until))}  # type: ignore[arg-type]
    assert ("scores" in names) == (until == "confirmed")
    for name in ("budget", "importance", "robustness"):
        assert (name in names) == (until != "planned")
    assert names or until == "planned"


def test_every_axis_has_a_name_and_every_figure_a_finding_and_a_question() -> None:
    for figure in drawn(make_record()):
        layout = figure.plot.layout
        assert figure.title
        assert not figure.title.endswith(("?", "."))
        assert figure.question.split(" Dotted")[0].endswith("?")
        lowest = layout.xaxis2 if "xaxis2" in layout else layout.xaxis  # panels share it
        assert lowest.title.text or lowest.ticktext
        assert layout.yaxis.title.text or layout.yaxis.ticktext


def test_every_figure_has_a_sentence_and_data() -> None:
    found = drawn(make_record())
    for figure in found:
        assert figure.alt.endswith("."), figure.name
        assert figure.data is not None, figure.name
        assert figure.data.rows, figure.name
    tables = {figure.data.name for figure in found if figure.data}
    own = {figure.name for figure in found if figure.section != "parameters"}
    assert tables == own | {"trials"}


def test_accuracy_is_shown_in_percent_and_rates_on_a_log_axis() -> None:
    plots = {figure.name: figure.plot for figure in drawn(make_record())}
    assert plots["budget"].layout.yaxis.ticksuffix == "%"
    assert plots["parameter-weight_decay"].layout.xaxis.type == "log"
    assert plots["rates"].layout.yaxis2.type == "log"
    assert plots["parameter-amplify.lower"].layout.xaxis.type is None
    best = plots["curves-ralr"].data[-1]
    assert 90 < best.y[-2] <= 100


def test_axes_say_the_name_of_the_metric_in_words_and_columns_keep_it() -> None:
    record = make_record()
    record = replace(record, metric=replace(record.metric, name="balanced_accuracy"))
    figures = {figure.name: figure for figure in drawn(record)}
    assert figures["curves-ralr"].plot.layout.yaxis.title.text == "Validation balanced accuracy"
    assert "balanced accuracy" in figures["parameter-weight_decay"].question
    assert figures["scores"].data is not None
    assert any("balanced_accuracy" in column for column in figures["scores"].data.columns)


@pytest.mark.parametrize(
    ("where", "metric", "title"),
    [
        ("validation", detection.METRICS["map"], "Validation mAP"),
        ("", detection.METRICS["map"], "mAP"),
        ("", translation.METRICS["bleu"], "BLEU"),
        ("", LOSS, "Loss"),
    ],
)
def test_metrics_are_written_as_the_field_writes_them(where: str, metric: Metric, title: str) -> None:
    assert score_axis(metric, where=where)["title"]["text"] == title


def test_plotlys_own_template_is_stripped() -> None:
    for figure in drawn(make_record(until="searched")):
        template = json.loads(figure.plot.to_json())["layout"]["template"]
        assert "data" not in template
        assert len(json.dumps(template)) < 1500


def test_panel_figures_stay_small() -> None:
    found = panel_figures(study_facts(make_record(trials=400, seeds=100)))
    assert [figure.name for figure in found] == [
        "importance", "differences", "scores", "budget", "robustness",
    ]  # fmt: skip
    for figure in found:
        assert len(figure.plot.to_json()) < 30_000, figure.name


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


PAPERS = {"light": "#ffffff", "dark": "#15191e"}


@pytest.mark.parametrize("paper", PAPERS.values(), ids=PAPERS)
def test_marks_have_a_contrast_of_three_on_either_background(paper: str) -> None:
    assert all(contrast(colour, paper) >= 3 for colour in (*PALETTE, GREY))


def test_texts_have_a_contrast_of_four_and_a_half() -> None:
    css = files("ralr_tune.report").joinpath("page.css").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root[^{]*{[^}]*}", css)]
    assert [theme["paper"] for theme in themes] == ["#ffffff", "#15191e", "#ffffff"]
    for theme in themes:
        for text in ("ink", "soft", "warn", "link"):
            if text in theme:
                assert contrast(theme[text], theme["paper"]) >= 4.5, (text, theme)
                assert contrast(theme[text], theme["card"]) >= 4.5, (text, theme)


def test_colours_stay_with_their_arm() -> None:
    arms = [f"arm{index}" for index in range(8)]
    found = arm_styles(arms)
    assert found == {**arm_styles(arms[:5]), **{arm: found[arm] for arm in arms[5:]}}
    assert len(set(found.values())) == 8
    assert found["arm0"].colour == PALETTE[0]


def test_scores_have_a_dot_for_every_seed_and_join_equal_seeds() -> None:
    record = make_record()
    found = scores.scores_facts(study_facts(record))
    assert found is not None
    assert [(column.arm, column.twin) for column in found.columns] == [
        ("monotone", False), ("ralr", False), ("ralr", True),
    ]  # fmt: skip
    assert all(list(column.by_seed) == [70, 71, 72, 73, 74] for column in found.columns)
    assert len(found.joined) == 5
    first = found.joined[0]
    offset = -scores.SPREAD * 2 / 5  # the first of five places side by side
    assert first == tuple((index + offset, column.by_seed[70]) for index, column in enumerate(found.columns))


def test_the_title_of_scores_gives_the_range_of_the_means_worst_first() -> None:
    facts = study_facts(make_record())
    found = scores.scores_facts(facts)
    assert found is not None
    low, high = (facts.unit.value(pick(column.mean for column in found.columns), 2) for pick in (min, max))
    title = scores.draw_scores(found, facts, arm_styles(facts.arms)).layout.title.text
    assert re.fullmatch(rf"Means on the test split: {low} \(.*\) to {high} \(.*\)", title)


def test_many_seeds_are_not_joined() -> None:
    found = scores.scores_facts(study_facts(make_record(seeds=20)))
    assert found is not None
    assert found.joined == ()


def test_importance_shows_the_strongest_first_and_arms_side_by_side() -> None:
    facts = study_facts(make_record())
    found = importance.importance_facts(facts)
    assert found is not None
    assert found.parameters[0] == "lr"
    assert set(found.parameters) == set(facts.importance["ralr"])
    assert [mark.arm for mark in found.marks if mark.parameter == "lr"] == ["monotone", "ralr"]


def test_importance_is_drawn_as_its_verdict_says() -> None:
    """Filled exactly beyond the bar of chance; no interval reaches into the bar, or belongs to a hollow mark."""
    facts = study_facts(make_record())
    found = importance.importance_facts(facts)
    assert found is not None
    plot = importance.draw_importance(found, arm_styles(facts.arms))
    bars = {y: x for trace in plot.data if trace.type == "bar" for x, y in zip(trace.x, trace.y, strict=True)}
    seen = set()
    for trace in plot.data:
        if trace.type == "scatter" and trace.x and trace.x[0] is not None:
            filled = not trace.marker.symbol.endswith("-open")
            seen.add(filled)
            assert all((x > bars[y]) == filled for x, y in zip(trace.x, trace.y, strict=True))
            assert (trace.error_x.array is not None) == filled
            for x, y, below in zip(trace.x, trace.y, trace.error_x.arrayminus or (), strict=filled):
                assert x - below >= bars[y] - 1e-12
    assert seen == {True, False}
    assert plot.layout.xaxis.type is None


def test_without_an_importance_there_is_no_figure() -> None:
    assert importance_of(until="planned") is None
    assert importance_of(until="searched", trials=6) is None


def importance_of(**how: Any) -> importance.ImportanceFacts | None:
    return importance.importance_facts(study_facts(make_record(**how)))


def test_points_distinguish_complete_pruned_and_diverged() -> None:
    record = make_record()
    decay = trials.parameter_facts(record)[0]
    assert (decay.parameter, decay.log, decay.span) == ("weight_decay", True, (1e-5, 1e-2))
    for name, points in decay.points.items():
        counts = study_facts(record).arms[name].counts
        for outcome in ("complete", "pruned", "diverged"):
            assert sum(point.outcome == outcome for point in points) == counts[outcome]
        assert all((point.value is None) == (point.outcome == "diverged") for point in points)


def test_ruined_trials_are_drawn_at_the_floor_and_keep_their_value() -> None:
    def ruin(row: Row) -> Row:
        return replace(row, value=0.1) if row.stage == "search" and row.ordinal == 0 else row

    record = make_record(until="searched", change=ruin)
    floor = trials.axis_floor(record)
    (ruined,) = [point for point in trials.parameter_facts(record)[0].points["ralr"] if point.trial == 0]
    assert (ruined.value, ruined.height) == (0.1, floor)
    assert floor > 0.5


def test_the_floor_is_a_ceiling_for_losses() -> None:
    def loss(row: Row) -> Row:
        return replace(row, value=None if row.value is None else (9.0 if row.ordinal == 0 else 1 - row.value))

    record = replace(make_record(until="searched", change=loss), metric=LOSS)
    assert trials.axis_floor(record) < 9.0
    points = trials.parameter_facts(record)[0].points["ralr"]
    assert max(point.height for point in points) == trials.axis_floor(record)


def test_choices_are_a_category_axis_and_escaped() -> None:
    def choose(arm: ArmRecord) -> ArmRecord:
        rows = tuple(replace(row, params={**row.params, "kind": ("<b>", "b")[row.ordinal % 2]}) for row in arm.rows)
        return replace(arm, dimensions={**arm.dimensions, "kind": {"choices": ["<b>", "b"]}}, rows=rows)

    record = make_record(until="searched")
    record = replace(record, arms={name: choose(arm) for name, arm in record.arms.items()})
    plots = {figure.name: figure.plot for figure in drawn(record)}
    axis = plots["parameter-kind"].layout.xaxis
    assert axis.type == "category"
    assert list(axis.categoryarray) == ["&lt;b&gt;", "b"]


def test_curves_highlight_the_best_and_mark_the_pruned() -> None:
    record = make_record()
    facts = study_facts(record)
    found = curves.curves_facts(record.arms["ralr"], facts)
    assert found is not None
    assert found.best is not None
    assert facts.arms["ralr"].best is not None
    assert found.best.trial == facts.arms["ralr"].best.trial
    assert len(found.others) == 23
    assert f"best, trial {found.best.trial}" in _legend(
        curves.draw_curves(found, facts, arm_styles(facts.arms)["ralr"])
    )
    assert {curve.epochs[-1] for curve in found.others if curve.outcome == "pruned"} == {4}


def test_the_best_of_several_blocks_is_named_with_its_block() -> None:
    record = make_record(blocks=2)
    facts = study_facts(record)
    found = curves.curves_facts(record.arms["ralr"], facts)
    assert found is not None
    assert found.best is not None
    name = f"best, trial {found.best.trial} (block {found.best.block})"
    assert name in _legend(curves.draw_curves(found, facts, arm_styles(facts.arms)["ralr"]))


def _legend(plot: go.Figure) -> list[str]:
    return [trace.name for trace in plot.data]


def test_many_curves_are_thinned_evenly_and_the_note_says_so() -> None:
    record = make_record(until="searched", trials=400)
    facts = study_facts(record)
    found = curves.curves_facts(record.arms["ralr"], facts)
    assert found is not None
    plot = curves.draw_curves(found, facts, arm_styles(facts.arms)["ralr"])
    lines = [trace for trace in plot.data if trace.mode == "lines"]
    shown = {number for trace in lines for number in trace.customdata}
    assert len(shown) == curves.MAX_CURVES + 1
    assert max(shown) - min(shown) > 390
    assert curves.crowding([found]) == " Of 399 of ralr, 150 each are drawn, evenly spaced; the data contain all."
    assert len({row[2] for row in curves.curves_data(found, facts).rows}) == 400


def test_running_trials_have_curves() -> None:
    record = make_record(until="searching")
    found = curves.curves_facts(record.arms["ralr"], study_facts(record))
    assert found is not None
    assert [curve.outcome for curve in found.others].count("running") == 1


def test_rates_are_of_the_first_judged_seed_with_the_base_schedule() -> None:
    record = make_record()
    found = rates.rates_facts(record.arms["ralr"], study_facts(record))
    assert found is not None
    judged = record.arms["ralr"].stage("judge")[0]
    assert (found.seed, found.trial) == (70, judged.source)
    assert found.rates == tuple(epoch.lr for epoch in judged.curve)
    assert found.base == pytest.approx([epoch.lr / epoch.factor for epoch in judged.curve])
    hit = sum(epoch.factor != 1 for epoch in judged.curve)
    (title,) = [figure.title for figure in drawn(record) if figure.name == "rates"]
    assert title == f"Amplified: {hit} of 12 epochs of ralr"
    assert any(rate > base for rate, base in zip(found.rates, found.base, strict=True))


def test_a_low_panel_has_few_ticks() -> None:
    crowded, thin = (number_axis("rate", (0.003, 0.6), log=True, most=most) for most in (12, 5))
    assert crowded["tickvals"] == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    assert thin["tickvals"] == [0.01, 0.1]
    assert number_axis("rate", (0.2, 0.9), log=True, most=1)["tickvals"] == [0.2, 0.5]  # no power of ten


def test_rates_need_a_recorded_rate() -> None:
    def unknown(row: Row) -> Row:
        return replace(row, curve=tuple(replace(epoch, lr=float("nan")) for epoch in row.curve))

    record = make_record(change=unknown)
    assert rates.rates_facts(record.arms["ralr"], study_facts(record)) is None


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-3, 1.0, [0.001, 0.01, 0.1, 1.0]),
        (0.05, 0.6, [0.05, 0.1, 0.2, 0.5]),
        (0.011, 0.019, []),
        (2.0, 2.0, [2.0]),
    ],
)
def test_log_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_a_log_axis_without_a_round_number_is_ticked_at_its_ends() -> None:
    axis: dict[str, Any] = number_axis("lr", (0.011, 0.019), log=True)
    assert axis["ticktext"] == ["0.011", "0.019"]
