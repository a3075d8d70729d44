"""The study of docs/importance.md, in which the dashboard's own plot misleads.

30 trials with TPE and the median pruner, both with Optuna's defaults, of `lr` and of `probability`, which the formula
of `tests/calibration/importance.py` ignores. `python -m tests.calibration.dashboard_case` prints the table of the
document and draws docs/importance.png.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import plotly.graph_objects as go

from ralr_tune.analysis import importance
from ralr_tune.analysis.evaluators import Evaluated, Name, optuna_importances
from ralr_tune.analysis.importance import Importance
from ralr_tune.report.figures import Figure
from ralr_tune.report.images import write_images
from ralr_tune.report.style import FAINT, GREY, PALETTE, figure
from tests.calibration.importance import Cell, accuracies, follow, sampler_of, study_of

DOCS = Path(__file__).parents[2] / "docs"
SEED = 115  # 22 trials are pruned, as in the case that was reported
TRIALS = 30
PARAMETERS = ("lr", "probability")


class Case(NamedTuple):
    """The importances of one study by each evaluator."""

    pruned: int
    ours: Mapping[str, Importance]
    theirs: Mapping[Name, Mapping[str, Evaluated]]


def case(seed: int = SEED, *, draws: int = 200) -> Case:
    study = misleading_study(seed)
    pruned = sum(trial.state.name == "PRUNED" for trial in study.get_trials(deepcopy=False))
    return Case(pruned, importance(study), optuna_importances(study, draws=draws))


def misleading_study(seed: int) -> optuna.Study:
    cell = Cell("peak", "tpe", "median", TRIALS)
    study = study_of(cell, sampler_of(cell, seed))
    random = np.random.default_rng(seed)
    for _ in range(cell.trials):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        trial.suggest_float("probability", 0.05, 0.6)
        follow(study, trial, accuracies("peak", lr, 0.5, random))
    return study


def table(found: Case) -> str:
    """The table of the document, in Markdown."""
    lines = ["| | `lr` | `probability` | rests on |", "|---|---|---|---|"]
    for name, values in found.theirs.items():
        lines.append(
            f"| Optuna's {name} | {_theirs(values['lr'])} | {_theirs(values['probability'])} | complete trials |"
        )
    lines.append(f"| ralr_tune | {_ours(found.ours['lr'])} | {_ours(found.ours['probability'])} | all trials |")
    return "\n".join(lines)


def _theirs(one: Evaluated) -> str:
    return f"{one.value:.2f}" + (f"; by chance {one.null[0]:.2f} to {one.null[1]:.2f}" if one.null else "")


def _ours(one: Importance) -> str:
    return f"{one.value:.2f}; by chance {one.null[0]:.2f} to {one.null[1]:.2f}: {one.verdict}"


def draw(found: Case) -> go.Figure:
    """One row per evaluator and parameter: value, interval and the range by chance."""
    rows: list[tuple[str, str, Evaluated | Importance, str]] = []
    for parameter in PARAMETERS:
        ours, theirs = found.ours[parameter], found.theirs["PED-ANOVA"][parameter]
        rows.append((f"{parameter}, the dashboard's plot", PALETTE[1], theirs, f"{theirs.value:.2f}"))
        rows.append((f"{parameter}, ralr_tune", PALETTE[0], ours, f"{ours.value:.2f}: {ours.verdict}"))
    ticks = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": [row[0] for row in rows]}
    plot = figure(
        f"Only lr acts: {TRIALS} trials, {found.pruned} of them pruned",
        "Which importance is beyond chance?",
        x={"title": {"text": "Importance, 95% interval; grey: where 95% fall by chance"}, "range": [-0.02, 1.02]},
        y=ticks | {"range": [len(rows) - 0.5, -0.5], "showgrid": False},
        height=320,
        legend=False,
    )
    for place, (_, colour, one, label) in enumerate(rows):
        if one.null:
            ends = {"x0": one.null[0], "x1": one.null[1], "y0": place - 0.22, "y1": place + 0.22}
            plot.add_shape(type="rect", fillcolor=FAINT, line={"color": GREY, "width": 1}, layer="below", **ends)
        if one.interval:
            plot.add_scatter(x=one.interval, y=[place] * 2, mode="lines", line={"color": colour, "width": 2})
        plot.add_scatter(
            x=[one.value], y=[place], mode="markers+text", marker={"color": colour, "size": 11}, text=label,
            textposition="top right" if one.value < 0.1 else "top center", cliponaxis=False,
        )  # fmt: skip
    return plot


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = case()
    print(table(found))
    write_images([Figure("importance", "importance", draw(found))], DOCS, ("png",))
