"""Pieces of HTML; only this module escapes text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ralr_tune.analysis.sentence import Sentence
from ralr_tune.report.figures import TITLE_PX, Figure, file_stem
from ralr_tune.report.style import writable

UNBROKEN = re.compile(r"\d[\d.]*e-\d+|\bn = \d+")

MAX_SENTENCES = 3
LOW_PX = 300  # a figure with only a few rows


class Table(NamedTuple):
    """A table of plain text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """Columns aligned left, for text; the others are aligned right, for numbers."""


def escaped(text: object) -> str:
    return html.escape(writable(text))


def paragraphs(sentences: Iterable[str], kind: str = "") -> str:
    """One paragraph for each sentence."""
    mark = f' class="{kind}"' if kind else ""
    return "\n".join(f"<p{mark}>{escaped(sentence)}</p>" for sentence in sentences if sentence)


def some_folded(sentences: Sequence[str], kind: str = "") -> str:
    """The first paragraphs open, the others folded."""
    mark, shown = f' class="{kind}"' if kind else "", MAX_SENTENCES
    lines = [f"<p{mark}>{highlighted(each)}</p>" for each in sentences if each]
    if len(lines) <= shown + 1:
        return "\n".join(lines)
    more = "\n".join(lines[shown:])
    return "\n".join([*lines[:shown], f"<details><summary>{len(lines) - shown} more</summary>\n{more}\n</details>"])


def highlighted(sentence: str) -> str:
    """A sentence with its verdict highlighted, if it has one, and no line break within a number or "n = 5"."""
    if isinstance(sentence, Sentence):
        return f"{_unbroken(sentence.before)}<strong>{_unbroken(sentence.verdict)}</strong>{_unbroken(sentence.after)}"
    return _unbroken(sentence)


def _unbroken(text: str) -> str:
    return UNBROKEN.sub(r'<span class="number">\g<0></span>', escaped(text))


def table(made: Table) -> str:
    """A table that scrolls on its own when the page is narrow; page.js then adds a hint."""
    head = "".join(
        f'<th scope="col"{_side(made, place)}>{_breaking(cell)}</th>' for place, cell in enumerate(made.head)
    )
    rows = "".join(
        f"<tr>{''.join(f'<td{_side(made, place)}>{escaped(cell)}</td>' for place, cell in enumerate(row))}</tr>"
        for row in made.rows
    )
    heading = f"<thead><tr>{head}</tr></thead>" if any(made.head) else ""
    name = f' aria-label="{escaped(made.caption)}"' if made.caption else ""
    # The caption stays outside, so that it is no wider than the page; the scrolling part must be reachable by keyboard.
    caption = paragraphs([made.caption], "note")
    return (
        f'{caption}<div class="scroll" role="region" tabindex="0"{name}>'
        f"<table{name}>{heading}<tbody>{rows}</tbody></table></div>"
    )


def _side(made: Table, place: int) -> str:
    return ' class="text"' if place < made.left else ""


def _breaking(name: str) -> str:
    """A column name that may wrap at its dots."""
    return re.sub(r"(?<=[._])", "<wbr>", escaped(name))


def fold(heading: str, body: str, level: int = 3, place: str = "", *, opened: bool = False) -> str:
    """A details element, folded unless `opened`; `place` is its id."""
    marks = (f' id="{place}"' if place else "") + (" open" if opened else "")
    return f"<details{marks}><summary><h{level}>{escaped(heading)}</h{level}></summary>\n{body}\n</details>"


def grid(study: str, drawn: Sequence[Figure], level: int = 3) -> str:
    """Figures side by side when there is room; a low one does not take the full height."""
    if not drawn:
        return ""
    boxes = "\n".join(figure_box(study, figure, level) for figure in drawn)
    low = all(_height(figure) < LOW_PX for figure in drawn)
    return f'<div class="grid{" low" if low else ""}">\n{boxes}\n</div>'


def figure_box(study: str, figure: Figure, level: int) -> str:
    """A title, its buttons, and the place where page.js draws the figure."""
    name, alt = escaped(figure.name), escaped(figure.alt)
    title = f'<h{level} id="{name}-title">{figure.title}</h{level}>'
    wide = ' class="wide"' if figure.wide else ""
    place = f'<div class="plot" id="{name}" role="img" aria-label="{alt}" style="min-height:{_height(figure)}px"></div>'
    question = f'<p class="question">{figure.question}</p>'
    caption = f"<figcaption>{title}{_views(figure)}{_link(study, figure)}{question}</figcaption>"
    return f'<figure{wide} aria-labelledby="{name}-title">{caption}{place}</figure>'


def _height(figure: Figure) -> int:
    return int(figure.plot.layout.height) - TITLE_PX


def _views(figure: Figure) -> str:
    """One button for each axis."""
    buttons = "".join(
        f'<button type="button" data-figure="{escaped(figure.name)}" data-view="{place}" '
        f'aria-pressed="{"false" if place else "true"}">{escaped(view.name)}</button>'
        for place, view in enumerate(figure.views)
    )
    return f'<span class="views" role="group" aria-label="Budget counted in">{buttons}</span>' if buttons else ""


def _link(study: str, figure: Figure) -> str:
    """page.js sets the link to the unpacked CSV."""
    if figure.data is None:
        return ""
    name, file = escaped(figure.data.name), escaped(file_stem(f"{study}-{figure.data.name}"))
    label = f"Data as CSV: {figure.question}"  # markup already
    return f'<a class="data" data-csv="{name}" download="{file}.csv" aria-label="{_attribute(label)}">data</a>'


def _attribute(markup: str) -> str:
    return markup.replace('"', "&quot;")
