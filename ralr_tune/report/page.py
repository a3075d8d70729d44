"""The report: one HTML file that holds everything it needs and opens without a network.

Every text that comes from storage is escaped; its Content-Security-Policy forbids any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.offline

from ralr_tune.analysis.card import Card
from ralr_tune.analysis.facts import Facts
from ralr_tune.machine.files import replacing
from ralr_tune.records import StudyRecord
from ralr_tune.report.card import style as card_style
from ralr_tune.report.data import packed
from ralr_tune.report.examples import ShownExamples, example_figures
from ralr_tune.report.figures import TITLE_PX, Figure, figures, shortened
from ralr_tune.report.markup import escaped
from ralr_tune.report.sections import body
from ralr_tune.report.style import arm_styles
from ralr_tune.report.tables import Evaluators

PANEL_TITLE_PX = 20  # above the first of several panels
POLICY = "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"
"""`scripts` are the hashes of this package's scripts: no other script runs."""


def write_report(
    record: StudyRecord,
    facts: Facts,
    card: Card,
    path: Path,
    drawn: Sequence[Figure] | None = None,
    evaluators: Evaluators | None = None,
    examples: ShownExamples | None = None,
) -> Path:
    """Writes the page atomically, so that no reader sees a partial one, and creates missing folders; returns `path`.

    `drawn` are the study's figures, if the caller already has them; `evaluators` are the importances of Optuna's own
    evaluators, `examples` what the kind shows of the networks.
    """
    text = page(record, facts, card, figures(record, facts) if drawn is None else drawn, evaluators, examples)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page(
    record: StudyRecord,
    facts: Facts,
    card: Card,
    drawn: Sequence[Figure],
    evaluators: Evaluators | None = None,
    examples: ShownExamples | None = None,
) -> str:
    """The whole page as text."""
    drawn = [*drawn, *(example_figures(examples, arm_styles(facts.arms)) if examples else [])]
    package = files("ralr_tune.report")
    style, script = (package.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    scripts = (plotly.offline.get_plotlyjs(), script)
    policy = POLICY.format(scripts=" ".join(map(_hash, scripts)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{escaped(record.name)} – ralr_tune</title>
<style>{style}{card_style()}</style>
</head>
<body>
<main>
{body(record, facts, card, drawn, evaluators or {}, examples)}
</main>
<script type="application/json" id="figures">{_json(_plots(drawn))}</script>
<script type="application/json" id="tables">{_json(_tables(drawn))}</script>
{"".join(f"<script>{script}</script>" for script in scripts)}
</body>
</html>
"""


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _plots(drawn: Sequence[Figure]) -> dict[str, Any]:
    """The figures by name, without titles: headings and questions show them."""
    plots: dict[str, Any] = {}
    for figure in drawn:
        plot = shortened(figure.plot)
        del plot["layout"]["title"]
        top = 12 if plot["layout"].get("showlegend") is False else 40
        panels = PANEL_TITLE_PX if plot["layout"].get("annotations") and "xaxis2" in plot["layout"] else 0
        plot["layout"]["margin"] = {"l": 8, "r": 22, "t": top + panels, "b": 8}
        plot["layout"]["height"] -= TITLE_PX
        if figure.views:
            plot["views"] = [{"title": view.title, "x": view.x} for view in figure.views]
        plots[figure.name] = plot
    return plots


def _tables(drawn: Sequence[Figure]) -> dict[str, str]:
    """The packed data by name; figures that share a table share one entry."""
    found = {figure.data.name: figure.data for figure in drawn if figure.data is not None}
    return {name: packed(data) for name, data in found.items()}


def _json(value: Mapping[str, Any]) -> str:
    """`<` is escaped, so that no text closes the script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
