"""The report: one HTML file that holds everything it needs and opens without a network.

Every text that comes from storage is escaped; the page forbids itself any request (its Content-Security-Policy).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import plotly.offline

from ralr_tune.analysis import rows as study_rows
from ralr_tune.analysis.answer import answers, twin_sentences
from ralr_tune.analysis.facts import ArmFacts, Facts
from ralr_tune.analysis.importance import EVALUATOR
from ralr_tune.records import Row, StudyRecord
from ralr_tune.report.figures import Figure, Section, figures
from ralr_tune.report.style import sentence, writable
from ralr_tune.report.words import duration

TOP_TRIALS = 10  # an arm
POLICY = "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"
"""`scripts` are the hashes of ours: no other would run, wherever it came from."""


class Table(NamedTuple):
    """A table of plain texts."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    textual: bool = False
    """Texts to the left, instead of numbers to the right."""


def write_report(record: StudyRecord, facts: Facts, path: Path, drawn: Sequence[Figure] | None = None) -> Path:
    """Writes the page beside `path` and renames it, so that a reader never sees half of one; returns `path`.

    `drawn` are the study's figures, if the caller has them already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(page(record, facts, figures(record, facts) if drawn is None else drawn), encoding="utf-8")
    return beside.replace(path)


def page(record: StudyRecord, facts: Facts, drawn: Sequence[Figure]) -> str:
    """The whole page as text."""
    body = [
        f"<h1>{_text(record.name)}</h1>",
        *_answer(facts),
        *(f'<p class="note">{_text(note)}</p>' for note in _notes(facts)),
        *_confirmed(facts, drawn),
        *_importance(facts, drawn),
        *_section("parameters", sentence(f"{facts.metric} against each searched parameter"), _MARKS, drawn),
        *_section("history", "Optimization history", _HISTORY, drawn),
        *_section("curves", "Learning curves", _CURVES, drawn),
        *_section("rates", "Learning-rate traces of the winners", _RATES, drawn),
        "<h2>Top trials</h2>",
        _table(top_trials(record, facts)),
        *_what_was_run(record, facts),
    ]
    return _document(record.name, "\n".join(body), drawn)


_MARKS = (
    "One mark a search trial, at its last epoch. Pruned trials are hollow and stand at the score they had when they "
    "stopped; scores far below the others stand as triangles on the floor, diverged trials as crosses."
)
_HISTORY = "The line is the best complete trial so far; a dotted line is a further block of search."
_CURVES = (
    "Every search trial; short strokes end the pruned ones, crosses the diverged ones. The heavy line is the best."
)
_RATES = "As trained, at the first step of each epoch: the base schedule dotted, the rate that was used solid."


def _answer(facts: Facts) -> list[str]:
    """In large letters, unless many arms make it long."""
    sentences = answers(facts)
    kind = "answer" if len(sentences) < 3 else "answer many"
    return [f'<p class="{kind}">{_text(sentence)}</p>' for sentence in sentences]


def top_trials(record: StudyRecord, facts: Facts) -> Table:
    """The best complete search trials of each arm, best first."""
    names = list(dict.fromkeys(name for arm in record.arms.values() for name in arm.dimensions))
    found = [
        (row, value)
        for arm in record.arms.values()
        for row, value in study_rows.ranked(arm.search(), facts.direction)[:TOP_TRIALS]
    ]
    found.sort(key=lambda pair: pair[1], reverse=facts.direction == "maximize")
    rows = [
        [row.arm, _trial(row), facts.unit.value(value, 2), *(_number(row.params.get(name)) for name in names)]
        for row, value in found
    ]
    caption = f"Validation {facts.metric} at the last epoch, one seed each; at most {TOP_TRIALS} an arm."
    return Table(caption, ["arm", "trial", facts.metric, *names], rows)


def arms_table(facts: Facts) -> Table:
    """What each arm reached, in figures."""
    head = ["arm", f"{facts.split} {facts.metric}", "seeds", "best in search", "training − validation", "s per epoch"]
    caption = "Mean ± standard deviation over fresh seeds of the confirmed configuration."
    return Table(caption, head, [_arm_cells(facts, arm) for arm in facts.arms.values()])


def counts_table(facts: Facts) -> Table:
    """What became of the search trials."""
    names = list(next(iter(facts.arms.values())).counts) if facts.arms else []
    rows = [[arm.name, *(str(arm.counts[name]) for name in names)] for arm in facts.arms.values()]
    return Table("Search trials.", ["arm", *names], rows)


def _arm_cells(facts: Facts, arm: ArmFacts) -> list[str]:
    unit, confirm, gap = facts.unit, arm.confirm, arm.generalization_gap
    mean = "–" if confirm is None or confirm.mean is None else unit.value(confirm.mean, 2)
    spread = "" if confirm is None or confirm.std is None else f" ± {unit.value(confirm.std, 2).removesuffix('%')}"
    return [
        arm.name,
        mean + spread,
        str(len(confirm.values) if confirm else 0),
        unit.value(arm.best.value, 2) if arm.best else "–",
        "–" if gap is None else unit.difference(gap, 2),
        "–" if arm.seconds_per_epoch is None else f"{arm.seconds_per_epoch:.3g}",
    ]


def failure_table(record: StudyRecord) -> Table:
    """Diverged and failed rows by arm and kind, with the last message of each."""
    lost = [row for arm in record.arms.values() for row in arm.rows if row.outcome in ("diverged", "failed")]
    counts = Counter((row.arm, row.failure or "unknown") for row in lost)
    messages = {(row.arm, row.failure or "unknown"): row.message or "" for row in lost}
    rows = [[arm, kind, str(number), messages[arm, kind]] for (arm, kind), number in sorted(counts.items())]
    return Table("Runs that ended without a score.", ["arm", "kind", "runs", "last message"], rows, textual=True)


def _notes(facts: Facts) -> Iterable[str]:
    """What a reader must know of the answer beside it."""
    yield from twin_sentences(facts)
    if facts.comparisons:
        yield f"Differences below {facts.unit.difference(facts.margin).removeprefix('+')} count as equivalent."


def _confirmed(facts: Facts, drawn: Sequence[Figure]) -> list[str]:
    note = (
        "Each mark is one fresh seed of a fixed configuration; thin lines join equal seeds, a twin (hollow) is "
        "the same configuration with its amplification off. Grey in the differences: what counts as equivalent."
    )
    return [*_section("confirmed", "Confirmed scores", note, drawn), _table(arms_table(facts))]


def _importance(facts: Facts, drawn: Sequence[Figure]) -> list[str]:
    epochs = [
        f"{arm}: {found.trials} trials" + ("" if found.epoch is None else f" at epoch {found.epoch}")
        for arm, parameters in facts.importance.items()
        for found in list(parameters.values())[:1]
    ]
    note = (
        "How much of the differences between the trials of an arm one parameter explains by itself, with its 95% "
        "interval, on an axis of square roots. Grey is what a parameter without any effect would show; filled marks "
        "lie beyond it. "
        f"Method: {EVALUATOR}; effects that exist only in combination are not seen. Compared: {'; '.join(epochs)}."
    )
    return _section("importance", "Importance of each parameter", note, drawn)


def _section(section: Section, heading: str, note: str, drawn: Sequence[Figure]) -> list[str]:
    own = [figure for figure in drawn if figure.section == section]
    if not own:
        return [f"<h2>{_text(heading)}</h2>", '<p class="note">Nothing to show yet.</p>']
    titles = [f"<h3>{figure.title}</h3>" if len(own) > 1 else "" for figure in own]
    boxes = [
        f'<figure>{title}<div id="{_text(figure.name)}"></div></figure>'
        for title, figure in zip(titles, own, strict=True)
    ]
    return [f"<h2>{_text(heading)}</h2>", f'<p class="note">{_text(note)}</p>', '<div class="grid">', *boxes, "</div>"]


def _what_was_run(record: StudyRecord, facts: Facts) -> list[str]:
    rows = [row for arm in record.arms.values() for row in arm.rows]
    known = [
        ["study", record.name],
        ["storage", record.storage],
        ["created", _moment(record.created)],
        ["fingerprint", record.fingerprint],
        *([name, value] for name, value in record.environment.items()),
        ["training, all runs together", duration(sum(row.seconds or 0.0 for row in rows))],
        ["from first start to last end", _span(rows)],
    ]
    lost = failure_table(record)
    return [
        "<h2>What was run</h2>",
        _table(Table("", ["", ""], known, textual=True)),
        _table(counts_table(facts)),
        _table(lost) if lost.rows else '<p class="note">No run diverged or failed.</p>',
        f"<details><summary>Study file</summary><pre>{_text(record.spec_text)}</pre></details>",
    ]


def _span(rows: Sequence[Row]) -> str:
    started = [row.started for row in rows if row.started is not None]
    finished = [row.finished for row in rows if row.finished is not None]
    return duration(max(finished) - min(started)) if started and finished else "–"


def _document(title: str, body: str, drawn: Sequence[Figure]) -> str:
    room = files("ralr_tune.report")
    style, script = (room.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    scripts = (plotly.offline.get_plotlyjs(), script)
    policy = POLICY.format(scripts=" ".join(map(_hash, scripts)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{_text(title)} – ralr_tune</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="figures">{_json(drawn)}</script>
{"".join(f"<script>{script}</script>" for script in scripts)}
</body>
</html>
"""


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(drawn: Sequence[Figure]) -> str:
    """The figures by name, without titles (headings say them); `<` is escaped, so that no text ends the script."""
    plots: dict[str, Mapping[str, Any]] = {}
    for figure in drawn:
        plot = json.loads(figure.plot.to_json())
        del plot["layout"]["title"]
        top = 12 if plot["layout"].get("showlegend") is False else 40
        plot["layout"]["margin"] = {"l": 8, "r": 22, "t": top, "b": 8}
        plots[figure.name] = plot
    return json.dumps(plots, separators=(",", ":")).replace("<", "\\u003c")


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    kind = ' class="text"' if table.textual else ""
    caption = f'<p class="note">{_text(table.caption)}</p>' if table.caption else ""
    heading = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    return f'{caption}<div class="scroll"><table{kind}>{heading}<tbody>{rows}</tbody></table></div>'


def _text(text: object) -> str:
    return html.escape(writable(text))


def _trial(row: Row) -> str:
    number = "–" if row.trial is None else str(row.trial)
    return number if row.block == 1 else f"{number} (block {row.block})"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
