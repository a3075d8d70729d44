"""The card in its formats: the same words, the interval where the verdict says it is, terms explained once."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from synthetic_study import card_of, make_record

from ralr_tune.analysis.card import Card
from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import Row
from ralr_tune.report.card import BAR, axis, bar, card_html, card_markdown, card_text, notebook_html
from ralr_tune.report.glossary import TERMS, first_use
from tests.metrics import LOSS

GLOSSARY = Path(__file__).parents[2] / "docs/glossary.md"


def card(**known: object) -> Card:
    return card_of(study_facts(make_record(**known)))  # type: ignore[arg-type]


def spaced(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("until", ["planned", "searched", "tested"])
def test_every_format_has_the_same_words(until: str) -> None:
    found = card(until=until)
    html = spaced(unescape(re.sub(r"<[^>]*>", "", card_html(found))))
    text, markdown = spaced(card_text(found)), spaced(card_markdown(found).replace("**", ""))
    step = found.next_step
    for words in (*found.sentences, found.cost, step.why, step.command, *step.toml.splitlines()):
        assert spaced(words) in html
        assert spaced(words) in text
        assert spaced(words) in spaced(unescape(markdown))
    if found.recipe is not None:
        for name, value in found.recipe.rows():
            assert f"{name} {value}" in html
            assert f"{name} {value}" in text


def test_a_bar_shows_interval_margin_and_mean() -> None:
    found = card(gain=0.05)
    drawn = axis(found)
    line = bar(drawn.rows[0], drawn.margin)
    assert len(line) == BAR
    middle = BAR // 2
    assert line[middle] == "│"
    assert middle < line.index("├") < line.index("●") < line.index("┤")
    assert "░" in line[:middle]
    assert "░" in line[middle:]
    assert "better" in card_text(found)


def test_better_is_on_the_right_for_a_metric_that_is_minimized() -> None:
    value = card(gain=0.05)
    loss = card_of(study_facts(replace(make_record(gain=0.05), metric=LOSS)))
    assert axis(value).rows[0].middle > 0.5 > axis(loss).rows[0].middle
    assert axis(loss).rows[0].deciding is not None


def test_the_90_percent_interval_is_drawn_within_the_margin_and_the_other_one_thin() -> None:
    differences = (0.004, -0.004, 0.004, 0.0, 0.001, 0.003)

    def change(row: Row) -> Row:
        if row.stage not in ("judge", "test"):
            return row
        own = differences[row.ordinal] if (row.arm, row.role) == ("ralr", "best") else 0.0
        return replace(row, value=0.9 + own)

    found = card_of(study_facts(replace(make_record(seeds=6, change=change), margin=0.004)))
    drawn = axis(found)
    (row,) = drawn.rows
    assert drawn.margin is not None
    assert row.deciding is not None
    assert row.whole is not None
    assert drawn.margin[0] < row.deciding[0] < row.deciding[1] < drawn.margin[1] < row.whole[1]
    html = card_html(found)
    assert "90% interval, which decides the verdict" in html
    assert html.count('class="thin"') == html.count('class="thick"') == 2  # drawn and explained
    assert "··· 95% interval" in card_text(found)


def test_only_the_page_has_buttons_and_a_notebook_brings_its_style() -> None:
    found = card()
    assert 'data-copy="' in card_html(found, copyable=True)
    assert "<button" not in notebook_html(found)
    assert notebook_html(found).startswith("<style>")


def test_terms_are_explained_once_as_in_the_glossary() -> None:
    html = card_html(card(blocks=4))
    assert html.count(f'data-meaning="{TERMS["margin"]}"') == 1
    text = GLOSSARY.read_text(encoding="utf-8")
    for term, meaning in TERMS.items():
        assert f'<a id="{term}"></a>**{term}**: {meaning}\n' in text


def test_the_glossary_has_each_term_once_in_at_most_two_sentences() -> None:
    entries = re.findall(r'^- <a id="([a-z-]+)"></a>\*\*([^*]+)\*\*: (.*)$', GLOSSARY.read_text(), flags=re.MULTILINE)
    assert len(entries) > 15
    assert len({anchor for anchor, _, _ in entries}) == len(entries)
    for anchor, term, meaning in entries:
        assert anchor == term.lower().replace(" ", "-")
        assert len(re.findall(r"[.?](?: |$)", meaning)) <= 2, term


def test_first_use_counts_words_only() -> None:
    seen: set[str] = set()
    assert first_use("the blocks of an army: a block", seen) == [
        ("the ", ""),
        ("blocks", "block"),
        (" of an army: a block", ""),
    ]
    assert first_use("a block", seen) == [("a block", "")]
