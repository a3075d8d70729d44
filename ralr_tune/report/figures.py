"""The figures of a report, in its order. Each has facts (a NamedTuple), a drawing, a sentence and its data; tests
check the facts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.records import StudyRecord
from ralr_tune.report import (
    budget,
    claims,
    complementarity,
    curves,
    differences,
    importance,
    other_metrics,
    pruning,
    rates,
    robustness,
    scores,
    trials,
)
from ralr_tune.report.budget import View
from ralr_tune.report.data import Data
from ralr_tune.report.style import arm_styles

Section = Literal[
    "better", "budget", "importance", "robustness", "rates", "pruning", "complementarity",
    "claims", "parameters", "curves", "others", "examples",
]  # fmt: skip
"""The section of the page that shows the figure."""

TITLE_PX = 60  # of a drawing's height, for the title; a page shows titles itself
DIGITS = 6  # of a number in a drawing; the data table has all


class Figure(NamedTuple):
    """One figure of the report."""

    section: Section
    name: str
    """Stem of its image file, and its place on the page: letters, digits, dots, dashes and underscores."""
    plot: go.Figure
    alt: str = ""
    """Alternative text: what the figure shows."""
    data: Data | None = None
    views: tuple[View, ...] = ()
    """Axes to choose from; the first is drawn."""
    wide: bool = False
    """Whether it needs the full page width."""

    @property
    def title(self) -> str:
        """The finding, as markup that is safe to show, without the line breaks of an image."""
        return str(self.plot.layout.title.text).replace("<br>", " ")

    @property
    def question(self) -> str:
        """What the figure answers, as markup that is safe to show."""
        return str(self.plot.layout.title.subtitle.text)


def figures(record: StudyRecord, facts: Facts) -> list[Figure]:
    """Every figure that the study has data for."""
    drawn = [
        *_better(facts),
        *_budget(facts),
        *_importance(facts),
        *_robustness(facts),
        *_rates(record, facts),
        *_pruning(facts),
        *_complementarity(facts),
        *_claims(facts),
        *_parameters(record, facts),
        *_curves(record, facts),
        *_others(record, facts),
    ]
    return list(_named(drawn))


def _named(drawn: Iterable[Figure]) -> Iterator[Figure]:
    """Figures with unique names that are valid as file names and HTML ids, whatever a study calls its arms."""
    seen: Counter[str] = Counter()
    for figure in drawn:
        name = file_stem(figure.name)
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}-{seen[name]}"
        data = figure.data
        if data is not None and data.name == figure.name:
            data = data._replace(name=unique)
        yield figure._replace(name=unique, data=data)


def file_stem(name: str) -> str:
    """Turns any name into a valid file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100]


def panel_figures(facts: Facts) -> list[Figure]:
    """Figures that also appear on the study's page in optuna-dashboard: small, whatever the study's size."""
    drawn = [*_importance(facts), *_better(facts), *_budget(facts), *_robustness(facts)]
    return [figure._replace(plot=go.Figure(shortened(figure.plot))) for figure in drawn]


def shortened(plot: go.Figure) -> dict[str, Any]:
    """A figure as JSON with rounded numbers: halves the page of a thousand trials."""
    found: dict[str, Any] = _short(json.loads(plot.to_json()))
    return found


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list) else value


def _better(facts: Facts) -> Iterator[Figure]:
    if rows := differences.difference_rows(facts):
        plot = differences.draw_differences(rows, facts, arm_styles(facts.arms))
        alt, data = differences.differences_alt(rows, facts), differences.differences_data(rows, facts)
        yield Figure("better", "differences", plot, alt, data, wide=len(rows) > scores.MAX_NARROW)
    if drawn := scores.scores_facts(facts):
        plot = scores.draw_scores(drawn, facts, arm_styles(facts.arms))
        alt, data = scores.scores_alt(drawn, facts), scores.scores_data(drawn, facts)
        yield Figure("better", "scores", plot, alt, data, wide=len(drawn.columns) > scores.MAX_NARROW)


def _budget(facts: Facts) -> Iterator[Figure]:
    if drawn := budget.budget_facts(facts):
        plot, alt = budget.draw_budget(drawn, facts, arm_styles(facts.arms)), budget.budget_alt(drawn, facts)
        yield Figure("budget", "budget", plot, alt, budget.budget_data(facts), budget.views(drawn))


def _importance(facts: Facts) -> Iterator[Figure]:
    if drawn := importance.importance_facts(facts):
        plot = importance.draw_importance(drawn, arm_styles(facts.arms))
        alt, data = importance.importance_alt(drawn), importance.importance_data(drawn)
        yield Figure("importance", "importance", plot, alt, data)


def _robustness(facts: Facts) -> Iterator[Figure]:
    if lines := robustness.robustness_facts(facts):
        plot = robustness.draw_robustness(lines, facts, arm_styles(facts.arms))
        alt, data = robustness.robustness_alt(lines, facts), robustness.robustness_data(lines, facts)
        yield Figure("robustness", "robustness", plot, alt, data)


def _pruning(facts: Facts) -> Iterator[Figure]:
    if audits := pruning.rated(facts):
        plot = pruning.draw_pruning(audits, arm_styles(facts.arms))
        yield Figure("pruning", "pruning", plot, pruning.pruning_alt(audits), pruning.pruning_data(facts))


def _claims(facts: Facts) -> Iterator[Figure]:
    if costs := claims.timed(facts):
        plot = claims.draw_costs(costs, arm_styles(facts.arms))
        yield Figure("claims", "costs", plot, claims.costs_alt(costs), claims.costs_data(facts))
    if gaps := claims.gaps(facts):
        plot = claims.draw_gaps(gaps, facts, arm_styles(facts.arms))
        yield Figure("claims", "gaps", plot, claims.gaps_alt(gaps, facts), claims.gaps_data(facts))


def _complementarity(facts: Facts) -> Iterator[Figure]:
    if rows := complementarity.change_rows(facts):
        plot = complementarity.draw_complementarity(rows, facts, arm_styles(facts.arms))
        alt, data = complementarity.complementarity_alt(rows, facts), complementarity.complementarity_data(rows, facts)
        yield Figure("complementarity", "complementarity", plot, alt, data)


def _parameters(record: StudyRecord, facts: Facts) -> Iterator[Figure]:
    data = trials.trials_data(record, facts)
    for drawn in trials.parameter_facts(record):
        if any(drawn.points.values()):
            plot = trials.draw_parameter(drawn, facts, arm_styles(facts.arms))
            yield Figure("parameters", f"parameter-{drawn.parameter}", plot, trials.parameter_alt(drawn, facts), data)


def _curves(record: StudyRecord, facts: Facts) -> Iterator[Figure]:
    for name, arm in record.arms.items():
        if drawn := curves.curves_facts(arm, facts):
            plot = curves.draw_curves(drawn, facts, arm_styles(facts.arms)[name])
            data = curves.curves_data(drawn, facts)
            yield Figure("curves", f"curves-{name}", plot, curves.curves_alt(drawn, facts), data)


def _others(record: StudyRecord, facts: Facts) -> Iterator[Figure]:
    for drawn in other_metrics.other_metrics(record):
        plot = other_metrics.draw_other_metric(drawn, arm_styles(facts.arms))
        alt, data = other_metrics.other_metric_alt(drawn), other_metrics.other_metric_data(drawn)
        yield Figure("others", f"metric-{drawn.name}-{drawn.axis}", plot, alt, data)


def _rates(record: StudyRecord, facts: Facts) -> Iterator[Figure]:
    if drawn := [found for arm in record.arms.values() if (found := rates.rates_facts(arm, facts))]:
        plot = rates.draw_rates(drawn, arm_styles(facts.arms))
        yield Figure("rates", "rates", plot, rates.rates_alt(drawn), rates.rates_data(drawn))
