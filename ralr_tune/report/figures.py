"""The figures of a report, in its order. Each is facts (a NamedTuple) and a drawing; tests look at the facts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import plotly.graph_objects as go

from ralr_tune.analysis.facts import Facts
from ralr_tune.records import StudyRecord
from ralr_tune.report import scores, trials
from ralr_tune.report.style import looks

Section = Literal["confirmed", "importance", "parameters", "history", "curves", "rates"]


class Figure(NamedTuple):
    """One figure of the report."""

    section: Section
    name: str
    """Stem of its image file, and its place on the page: letters, digits, dots, dashes and underscores."""
    plot: go.Figure

    @property
    def title(self) -> str:
        """As markup that is safe to show."""
        return str(self.plot.layout.title.text)


def figures(record: StudyRecord, facts: Facts) -> list[Figure]:
    """Every figure that the study has data for."""
    drawn = [
        *_confirmed(facts),
        *_importance(facts),
        *_parameters(record, facts),
        *_history(record, facts),
        *_curves(record, facts),
        *_rates(record, facts),
    ]
    return list(_named(drawn))


def _named(drawn: Iterable[Figure]) -> Iterator[Figure]:
    """Figures whose names can be files and places on a page, whatever a study calls its arms; no two are alike."""
    seen: Counter[str] = Counter()
    for figure in drawn:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", figure.name)[:100]
        seen[name] += 1
        yield figure._replace(name=name if seen[name] == 1 else f"{name}-{seen[name]}")


def panel_figures(facts: Facts) -> list[Figure]:
    """Those that also stand on the study's page in optuna-dashboard: small, whatever the study's size."""
    return [*_importance(facts), *_confirmed(facts)]


def _confirmed(facts: Facts) -> list[Figure]:
    found = []
    if drawn := scores.scores_facts(facts):
        found.append(Figure("confirmed", "scores", scores.draw_scores(drawn, facts, looks(facts.arms))))
    if rows := scores.difference_rows(facts):
        found.append(Figure("confirmed", "differences", scores.draw_differences(rows, facts, looks(facts.arms))))
    return found


def _importance(facts: Facts) -> list[Figure]:
    drawn = scores.importance_facts(facts)
    return [Figure("importance", "importance", scores.draw_importance(drawn, looks(facts.arms)))] if drawn else []


def _parameters(record: StudyRecord, facts: Facts) -> list[Figure]:
    return [
        Figure("parameters", f"parameter-{drawn.parameter}", trials.draw_parameter(drawn, facts, looks(facts.arms)))
        for drawn in trials.parameter_facts(record)
        if any(drawn.points.values())
    ]


def _history(record: StudyRecord, facts: Facts) -> list[Figure]:
    lines = trials.history_facts(record)
    return [Figure("history", "history", trials.draw_history(lines, facts, looks(facts.arms)))] if lines else []


def _curves(record: StudyRecord, facts: Facts) -> list[Figure]:
    return [
        Figure("curves", f"curves-{name}", trials.draw_curves(drawn, facts, looks(facts.arms)[name]))
        for name, arm in record.arms.items()
        if (drawn := trials.curves_facts(arm, facts))
    ]


def _rates(record: StudyRecord, facts: Facts) -> list[Figure]:
    return [
        Figure("rates", f"rates-{name}", trials.draw_rates(drawn, looks(facts.arms)[name]))
        for name, arm in record.arms.items()
        if (drawn := trials.rates_facts(arm, facts))
    ]
