"""The verdict card as HTML (page and notebook), as text (terminal) and as Markdown (dashboard): the same words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import NamedTuple

from ralr_tune.analysis.card import Card, Judged
from ralr_tune.analysis.comparison import Interval
from ralr_tune.analysis.sentence import Sentence
from ralr_tune.report.glossary import TERMS, first_use
from ralr_tune.report.markup import escaped
from ralr_tune.report.style import safe, writable
from ralr_tune.report.words import intervals, levels

ROOM = 1.5  # half width of an axis, in units of what is drawn: numbers need space
BAR = 49  # characters
WIDTH = 100  # of text on a terminal
INDENT = "  "


class Drawn(NamedTuple):
    """One comparison on the axis, from 0 (left) to 1 (right)."""

    judged: Judged
    middle: float
    deciding: Interval | None
    whole: Interval | None
    """The study's interval, if another one decides."""


class Axis(NamedTuple):
    """The rows of a card on one axis, which is centred on no difference."""

    rows: tuple[Drawn, ...]
    margin: Interval | None


def axis(card: Card) -> Axis:
    """Where everything lies; the right side is better, whichever values are."""
    made = [each.comparison for each in card.judged]
    shown = [pair for each in card.judged if each.shown for pair in (each.shown, each.comparison.interval) if pair]
    ends = [abs(end) for pair in shown for end in pair]
    half = ROOM * max([*ends, *(abs(each.difference) for each in made), card.margin]) or 1.0

    right = 1 if card.larger_is_better else -1

    def place(value: float) -> float:
        return 0.5 + right * value / half / 2

    def places(pair: Interval | None) -> Interval | None:
        low, high = sorted(map(place, pair)) if pair else (0.0, 0.0)
        return (low, high) if pair else None

    rows = tuple(
        Drawn(
            judged,
            place(each.difference),
            places(judged.shown),
            places(each.interval) if judged.shown and each.interval != judged.shown else None,
        )
        for judged, each in zip(card.judged, made, strict=True)
    )
    return Axis(rows, places((-card.margin, card.margin)) if card.margin else None)


def _intervals(card: Card) -> tuple[str, str]:
    """The interval that decides and the study's, if there are any."""
    shown = [each for each in card.judged if each.shown]
    return intervals([each.level for each in shown], card.judged[0].comparison.confidence)


def _paste(card: Card) -> str:
    return f"Set in {card.next_step.file}, then type the command:"


def _band(card: Card) -> str:
    return f"margin: ±{card.unit.size(card.margin)}"


def _rule(card: Card) -> str:
    """How the interval decides."""
    within = "all inside the margin: equivalent; " if card.margin else ""
    return f"{within}all on one side of 0: better or worse"


def _caption(card: Card, judged: Judged) -> str:
    return f"{judged.label}, {judged.pairs} on the {card.split} split"


def _whose(card: Card) -> str:
    """Where the recipe comes from."""
    if card.recipe is None:
        return ""
    judged = "the best on fresh validation seeds" if card.recipe.confirmed else "the best search trial, not confirmed"
    return f"{card.recipe.arm}'s, {judged}"


# ---------------------------------------------------------------- HTML


def card_html(card: Card, *, copyable: bool = False) -> str:
    """The card as one element, without a style sheet. `copyable`: with buttons that the page's script serves."""
    seen: set[str] = set()
    verdict = f'<p class="verdict explains">{_explained(card.verdict, seen)}</p>'
    caveats = [f'<p class="caveat explains">{_explained(each, seen)}</p>' for each in card.caveats]
    drawn = [_drawing(card, seen)] if card.judged else []
    facts = "\n".join(_facts(card, seen, copyable))
    parts = [verdict, *caveats, *drawn, f'<dl class="facts">\n{facts}\n</dl>']
    return '<section class="ralr-card" aria-label="Verdict">\n' + "\n".join(parts) + "\n</section>"


def notebook_html(card: Card) -> str:
    """The card with its style sheet, for a notebook in any theme."""
    return f"<style>{style()}</style>\n{card_html(card)}"


def style() -> str:
    """The style sheet of cards."""
    return files("ralr_tune.report").joinpath("card.css").read_text(encoding="utf-8")


def _explained(sentence: str, seen: set[str]) -> str:
    """Escaped text with the verdict highlighted, and each term explained at its first use."""
    if isinstance(sentence, Sentence):
        verdict = f"<strong>{_terms(sentence.verdict, seen)}</strong>"
        return f"{_terms(sentence.before, seen)}{verdict}{_terms(sentence.after, seen)}"
    return _terms(sentence, seen)


def _terms(text: str, seen: set[str]) -> str:
    return "".join(_term(piece, term) for piece, term in first_use(text, seen))


def _term(text: str, term: str) -> str:
    if not term:
        return escaped(text)
    meaning = escaped(TERMS[term])
    return (
        f'<span class="term" tabindex="0" data-meaning="{meaning}" aria-description="{meaning}">{escaped(text)}</span>'
    )


def _drawing(card: Card, seen: set[str]) -> str:
    drawn = axis(card)
    rows = "\n".join(
        f'<p class="caption explains">{_row_caption(card, row.judged, seen)}</p>{_svg(card, row, drawn.margin)}'
        for row in drawn.rows
    )
    return f'<figure class="ralr-interval">\n{rows}\n<p class="key explains">{_key(card, drawn, seen)}</p>\n</figure>'


def _row_caption(card: Card, judged: Judged, seen: set[str]) -> str:
    text = _terms(_caption(card, judged), seen)
    return f"{text}: <strong>{escaped(judged.comparison.verdict)}</strong>" if len(card.judged) > 1 else text


def _svg(card: Card, row: Drawn, margin: Interval | None) -> str:
    """One row; widths are shares, so that text and lines keep their size at every width."""
    parts = []
    if margin:
        parts.append(f'<rect class="band" x="{margin[0]:.2%}" width="{margin[1] - margin[0]:.2%}" y="2" height="36"/>')
    parts.append('<line class="zero" x1="50%" x2="50%" y1="0" y2="40"/>')
    if row.whole:
        parts.append(f'<line class="thin" x1="{row.whole[0]:.2%}" x2="{row.whole[1]:.2%}" y1="17" y2="17"/>')
    if row.deciding:
        parts.append(f'<line class="thick" x1="{row.deciding[0]:.2%}" x2="{row.deciding[1]:.2%}" y1="17" y2="17"/>')
    parts.append(f'<circle class="dot" cx="{row.middle:.2%}" cy="17" r="6"/>')
    parts += _ends(card, row)
    parts.append('<text x="50%" dx="-16" y="56" text-anchor="end">← worse</text>')
    parts.append('<text x="50%" dx="16" y="56">better →</text>')
    return f'<svg width="100%" height="62" role="img" aria-label="{escaped(_spoken(card, row))}">{"".join(parts)}</svg>'


def _ends(card: Card, row: Drawn) -> Iterator[str]:
    """The numbers at the ends of what is drawn, and no difference."""
    shown = row.judged.shown
    yield '<text x="50%" y="56" text-anchor="middle">0</text>'
    if row.deciding is None or shown is None:
        return
    ends = shown if card.larger_is_better else reversed(shown)
    left, right = (card.unit.signed(end, card.unit.digits(*shown)) for end in ends)
    yield f'<text x="{row.deciding[0]:.2%}" dx="-6" y="33" text-anchor="end">{left}</text>'
    yield f'<text x="{row.deciding[1]:.2%}" dx="6" y="33">{right}</text>'


def _spoken(card: Card, row: Drawn) -> str:
    made = row.judged.comparison
    bounds = ""
    if shown := row.judged.shown:
        low, high = (card.unit.signed(end, card.unit.digits(*shown)) for end in shown)
        bounds = f", {levels([row.judged.level])} interval {low} to {high}"
    return f"{row.judged.label}: {card.unit.difference(made.difference, 2)}{bounds}, {_band(card)}; {made.verdict}"


def _key(card: Card, drawn: Axis, seen: set[str]) -> str:
    def entry(mark: str, text: str) -> str:
        return f'<span><svg width="22" height="12" aria-hidden="true">{mark}</svg><span>{text}</span></span>'

    entries, (decides, whole) = [], _intervals(card)
    if any(row.deciding for row in drawn.rows):
        entries.append(entry('<line class="thick" x2="22" y1="6" y2="6"/>', decides))
    if any(row.whole for row in drawn.rows):
        entries.append(entry('<line class="thin" x2="22" y1="6" y2="6"/>', whole))
    if drawn.margin:
        entries.append(entry('<rect class="band" width="22" height="12"/>', _terms(_band(card), seen)))
    if any(row.deciding for row in drawn.rows):
        entries.append(f"<span><span>{_terms(_rule(card), seen)}</span></span>")
    return "".join(entries)


def _facts(card: Card, seen: set[str], copyable: bool) -> Iterator[str]:
    """The next step first, so that a phone's first screen shows it."""
    yield f"<dt>Next step</dt><dd>{''.join(_step(card, seen, copyable))}</dd>"
    if card.recipe is not None:
        values = "".join(f"<span>{escaped(name)} <b>{escaped(value)}</b></span>" for name, value in card.recipe.rows())
        button = _button(card.recipe.text(), "Copy the recipe") if copyable else ""
        whose = f'<span class="explains">{escaped(_whose(card))}</span>'
        listed = f'<div class="copied"><div class="values">{values}</div>{button}</div>'
        yield f"<dt>Recipe</dt><dd>{whose}{listed}</dd>"
        if card.recipe.command:
            yield f"<dt>Train it</dt><dd>{_typed(card.recipe.command, copyable, 'Copy the command')}</dd>"
    if card.cost:
        yield f"<dt>Cost so far</dt><dd>{escaped(card.cost)}</dd>"


def _step(card: Card, seen: set[str], copyable: bool) -> Iterator[str]:
    step = card.next_step
    yield f'<p class="explains">{_terms(step.why, seen)}</p>'
    if step.toml:
        yield f"<p>{escaped(_paste(card))}</p>"
        yield _typed(step.toml, copyable, "Copy the lines")
    if step.command != (card.recipe.command if card.recipe else None):
        yield _typed(step.command, copyable, "Copy the command")


def _typed(text: str, copyable: bool, label: str) -> str:
    """Lines break at spaces alone: half a word of a command reads as another one."""
    words = re.sub(r"\S+", r'<span class="word">\g<0></span>', escaped(text))
    return f'<div class="copied"><pre>{words}</pre>{_button(text, label) if copyable else ""}</div>'


def _button(text: str, label: str) -> str:
    return f'<button type="button" data-copy="{escaped(text)}" aria-label="{escaped(label)}">Copy</button>'


# ---------------------------------------------------------------- text


def card_text(card: Card) -> str:
    """The card for a terminal."""
    return "\n".join([*_wrapped(card.sentences), "", *_bars(card), *_fact_lines(card)])


def card_markdown(card: Card) -> str:
    """The card for the note of a dashboard; commands and lines to paste are code."""
    step = card.next_step
    recipe = "" if card.recipe is None else f"Recipe: {_whose(card)}: {_listed(card)}."
    texts = [_strong(card.verdict), *card.caveats, recipe, f"Cost so far: {card.cost}." if card.cost else ""]
    texts += [f"Next step: {step.why}", *([_paste(card)] if step.toml else [])]
    code, bars = _block([step.toml, step.command]), _block(_bars(card))
    paragraphs = [safe(text) for text in texts if text]
    return "\n\n".join([*paragraphs[:1], *([bars] if bars else []), *paragraphs[1:], code])


def _block(lines: Sequence[str]) -> str:
    """A block of code. Names may come from a foreign database: nothing in it may look like HTML or end the block."""
    text = writable("\n".join(filter(None, lines))).translate(_NO_MARKUP)
    return textwrap.indent(text, "    ", lambda line: True)


_NO_MARKUP = {ord("<"): "‹", ord(">"): "›", ord("`"): "'"}


def _strong(verdict: str) -> str:
    return f"{verdict.before}**{verdict.verdict}**{verdict.after}" if isinstance(verdict, Sentence) else verdict


def _wrapped(sentences: Sequence[str]) -> list[str]:
    return [line for each in sentences for line in textwrap.wrap(each, WIDTH, break_long_words=False)]


def _bars(card: Card) -> list[str]:
    """One bar for each comparison, and what its marks mean."""
    if not card.judged:
        return []
    drawn = axis(card)
    lines = []
    for row in drawn.rows:
        verdict = f": {row.judged.comparison.verdict}" if len(drawn.rows) > 1 else ""
        lines += [f"{_caption(card, row.judged)}{verdict}", f"{INDENT}worse {bar(row, drawn.margin)} better"]
    decides, whole = _intervals(card)
    keys = [f"├─┤ {decides}"] if any(row.deciding for row in drawn.rows) else []
    keys += [f"··· {whole}"] if any(row.whole for row in drawn.rows) else []
    keys += [f"░═ {_band(card)}"] if drawn.margin else []
    rule = [f"{INDENT}{_rule(card)}"] if any(row.deciding for row in drawn.rows) else []
    return [*lines, f"{INDENT}{'   '.join(keys)}", *rule, ""]


def bar(row: Drawn, margin: Interval | None) -> str:
    """An interval as text: ├──●──┤, within the margin ═, on the margin ░, with a line at no difference."""
    cells = [" "] * BAR
    for pair, mark in ((margin, "░"), (row.whole, "·")):
        if pair is not None:
            for place in range(_cell(pair[0]), _cell(pair[1]) + 1):
                cells[place] = mark
    cells[_cell(0.5)] = "│"
    if row.deciding is not None:
        low, high = map(_cell, row.deciding)
        for place in range(low, high + 1):
            line, cross = "═╪" if cells[place] == "░" or (margin and place == _cell(0.5)) else "─┼"
            cells[place] = cross if place == _cell(0.5) else line
        cells[low], cells[high] = "├", "┤"
    cells[_cell(row.middle)] = "●"
    return "".join(cells)


def _cell(place: float) -> int:
    return round(place * (BAR - 1))


def _fact_lines(card: Card) -> Iterator[str]:
    step = card.next_step
    if card.recipe is not None:
        yield from _named("Recipe", f"{_whose(card)}: {_listed(card)}")
        if card.recipe.command:
            yield f"{'Train it':11}{card.recipe.command}"
    if card.cost:
        yield from _named("Cost", card.cost)
    yield from _named("Next step", step.why)
    if step.toml:
        yield from _named("", _paste(card))
        yield from (f"{'':13}{line}" for line in step.toml.splitlines())
    if step.command != (card.recipe.command if card.recipe else None):
        yield f"{'':11}{step.command}"


def _named(name: str, text: str) -> list[str]:
    """A command is never wrapped: it is copied as a line."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"{name:11}", subsequent_indent=" " * 11, break_long_words=False)


def _listed(card: Card) -> str:
    return "" if card.recipe is None else ", ".join(f"{name} {value}" for name, value in card.recipe.rows())
