from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report import page as page_module
from ralr_tune.report.figures import figures
from ralr_tune.report.page import page, write_report
from ralr_tune.report.tables import arms_table, counts_table, failure_table, top_trials

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def page_of(record: StudyRecord) -> str:
    facts = study_facts(record)
    return page(record, facts, card_of(facts), figures(record, facts))


def nasty_record() -> StudyRecord:
    """Texts that a study file, a data set or an error message could hold, wherever the report shows them."""

    def spoil(row: Row) -> Row:
        return replace(row, params={**row.params, NASTY: NASTY}, message=NASTY)

    record = make_record(change=spoil)
    dimensions = {NASTY: {"choices": [NASTY, "other"]}}
    arms: dict[str, ArmRecord] = {
        name: replace(arm, dimensions={**arm.dimensions, **dimensions}) for name, arm in record.arms.items()
    }
    return replace(record, arms=arms, name=NASTY, spec_text=NASTY, environment={NASTY: NASTY}, storage=NASTY)


class Outline(HTMLParser):
    """Tags in order, ids, targets of links, and the text of the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.ids += [known["id"]] if known.get("id") else []
        self.links += [known["href"]] if tag == "a" and known.get("href") else []

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "h2" and data.strip():
            self.headings.append(data)


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    return parsed


def test_sections_are_in_the_order_of_the_questions() -> None:
    record = make_record()
    text = page_of(record)
    assert text.index('<section class="ralr-card"') < text.index("<h2>")
    assert outline(text).headings == [
        "Is it better?",
        "What does the search cost?",
        "What matters?",
        "How robust is it?",
        "Which learning rates were used?",
        "Was pruning fair?",
        "Details",
    ]


def test_every_link_has_a_target_and_ids_are_unique() -> None:
    found = outline(page_of(make_record()))
    assert len(set(found.ids)) == len(found.ids)
    assert len(found.links) == 7
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)


def test_the_page_contains_everything_it_needs() -> None:
    text = page_of(make_record(until="searched"))
    body = text.replace(get_plotlyjs(), "")
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", body)
    assert "http" not in body.split('<script type="application/json"')[0].replace("http-equiv", "")
    assert len(body) < 500_000


def test_texts_from_storage_stay_texts() -> None:
    text = page_of(nasty_record())
    body = text.replace(get_plotlyjs(), "")
    assert "<script>alert" not in body
    assert "<img" not in body
    assert outline(body).tags.count("script") == 4  # figures, tables, plotly.js, page.js


def test_labels_of_figures_are_escaped_for_plotly() -> None:
    text = page_of(nasty_record())
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    for name, figure in json.loads(data.group(1)).items():
        labels = json.dumps(figure).replace(json.dumps(NASTY), "")
        assert "<img" not in labels, name
        assert "<script" not in labels, name


def test_the_page_is_written_to_a_temporary_file_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(until="planned")
    facts = study_facts(record)
    target = tmp_path / "out" / "report.html"
    assert write_report(record, facts, card_of(facts), target) == target
    before = target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    monkeypatch.setattr(page_module, "page", lambda *_: "\ud800")  # cannot be written
    with pytest.raises(UnicodeEncodeError):
        write_report(record, facts, card_of(facts), target)
    assert target.read_text(encoding="utf-8") == before


def test_top_trials_are_the_best_complete_ones() -> None:
    record = make_record(blocks=2)
    facts = study_facts(record)
    table = top_trials(record, facts)
    assert len(table.rows) == 20
    shown = [float(row[2].rstrip("%")) for row in table.rows]
    assert shown == sorted(shown, reverse=True)
    assert table.head[:4] == ["arm", "trial", "accuracy", "lr"]
    assert {row[1].partition(" ")[2] for row in table.rows} == {"(block 1)", "(block 2)"}


def test_tables_count_what_happened() -> None:
    record = make_record()
    facts = study_facts(record)
    assert [row[0] for row in arms_table(facts).rows] == ["monotone", "ralr"]
    counts = counts_table(facts)
    for row in counts.rows:
        found = dict(zip(counts.head[1:], map(int, row[1:]), strict=True))
        assert found["budget"] == 24 == found["complete"] + found["pruned"] + found["diverged"]
    failures = failure_table(record)
    assert {row[1] for row in failures.rows} == {"diverged"}
    assert "the training loss is nan" in failures.rows[0][3]
