"""The answer inside optuna-dashboard: figures and a note on the page of each arm's Optuna study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ralr_tune.analysis.card import Card
from ralr_tune.analysis.facts import Facts
from ralr_tune.analysis.notes import urgent_sentences
from ralr_tune.report.card import card_markdown
from ralr_tune.report.figures import panel_figures
from ralr_tune.report.style import safe, writable

if TYPE_CHECKING:
    import optuna

MAX_WARNINGS = 3  # warnings in a note; the report has all
PREFIX = "ralr-tune-"  # of the graphs' ids; the same id replaces the figure that was there
# Identifies notes of this package, including those of earlier versions: do not change it.
MARK = "*Written by ralr_tune; it is written anew after each report.*"


def write_panels(facts: Facts, card: Card, studies: Mapping[str, optuna.Study]) -> None:
    """Adds the figures that answer the question, and a note, to the page of each arm's study.

    All arms get the same figures: what they show is the comparison. A note that this package did not write stays.
    """
    from optuna_dashboard import save_plotly_graph_object

    drawn = panel_figures(facts)
    for arm, study in studies.items():
        for figure in drawn:
            save_plotly_graph_object(study, figure.plot, graph_object_id=PREFIX + figure.name)
        _write_note(study, f"{importance_note(study)}\n\n{note(facts, card, arm)}")


def importance_note(study: optuna.Study) -> str:
    """Why the dashboard's own importance and best value are not this package's answers, with a link to the panels."""
    page = f"/dashboard/studies/{study._study_id}"
    return (
        "**Hyperparameter Importance on the study's page is Optuna's own, and differs from this package's.** It asks "
        "which parameters separate the best tenth of the completed trials from all of them, has no comparison with "
        "chance, and its shares sum to 1 even if no parameter has an effect. Read the panel *importance* instead, with "
        f"the other panels of the report [on the study's page]({page}): it compares every parameter with "
        "what chance alone gives.\n\n"
        "**The best value on the study's page is a search value**: the best of many trials on one seed each, biased "
        "upwards. Scores on fresh seeds are below, once there are any."
    )


def note(facts: Facts, card: Card, arm: str) -> str:
    """What this Optuna study is, in Markdown."""
    others = ", ".join(_code(f"{facts.study}/{name}") for name in facts.arms if name != arm)
    base = _code(f"{facts.study}/{facts.baseline}")
    role = f"the baseline of {others or 'no other'}" if arm == facts.baseline else f"compared with {base}"
    return "\n\n".join(
        [
            f"## Arm {_code(arm)} of the study {_code(facts.study)}",
            card_markdown(card),
            *(f"- {safe(warning)}" for warning in urgent_sentences(facts)[:MAX_WARNINGS]),
            f"This Optuna study is the search of one arm, {role}. "
            f"Its values are the validation {safe(facts.metric.words)} ({facts.metric.reading}) at a trial's last "
            "epoch. Trials that diverged are recorded as complete with the worst value, so that samplers learn from "
            "them; the report leaves them out.",
            MARK,
        ]
    )


def _code(name: str) -> str:
    """A name that Markdown shows verbatim, whatever it contains."""
    return f"`{' '.join(writable(name).replace('`', ' ').split())}`"


def _write_note(study: optuna.Study, text: str) -> None:
    from optuna_dashboard import get_note, save_note

    present = get_note(study)
    if present != text and (not present or MARK in present):
        save_note(study, text)
