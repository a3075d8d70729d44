from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from plotly.offline import get_plotlyjs
from synthetic_study import make_record

from ralr_tune.analysis.answer import answer
from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report import page as page_module
from ralr_tune.report.figures import figures
from ralr_tune.report.page import arms_table, counts_table, failure_table, page, top_trials, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


def page_of(record: StudyRecord) -> str:
    facts = study_facts(record)
    return page(record, facts, figures(record, facts))


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
    """Tags in order, and the text of the headings."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "h2" and data.strip():
            self.headings.append(data)


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    return parsed


def test_sections_stand_in_the_order_of_the_contract() -> None:
    record = make_record()
    text = page_of(record)
    assert text.index(answer(study_facts(record)).split(": ")[0].replace("'", "&#x27;")) < text.index("<h2>")
    assert outline(text).headings[:8] == [
        "Confirmed scores",
        "Importance of each parameter",
        "Accuracy against each searched parameter",
        "Optimization history",
        "Learning curves",
        "Learning-rate traces of the winners",
        "Top trials",
        "What was run",
    ]


def test_it_holds_everything_it_needs() -> None:
    text = page_of(make_record(until="searched"))
    body = text.replace(get_plotlyjs(), "")
    assert not re.search(r"(?:src|href)=\"(?!data:)", body)
    assert "http" not in body.split('<script type="application/json"')[0].replace("http-equiv", "")
    assert len(body) < 400_000


def test_texts_from_storage_stay_texts() -> None:
    text = page_of(nasty_record())
    body = text.replace(get_plotlyjs(), "")
    assert "<script>alert" not in body
    assert "<img" not in body
    assert outline(body).tags.count("script") == 3  # figures, plotly.js, page.js


def test_labels_of_figures_are_escaped_for_plotly() -> None:
    text = page_of(nasty_record())
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    for name, figure in json.loads(data.group(1)).items():
        labels = json.dumps(figure).replace(json.dumps(NASTY), "")
        assert "<img" not in labels, name
        assert "<script" not in labels, name


@pytest.mark.parametrize("until", ["planned", "searching", "searched", "confirmed"])
def test_unfinished_studies_have_a_page(until: str) -> None:
    text = page_of(make_record(until=until, trials=8))  # type: ignore[arg-type]
    assert ("Nothing to show yet." in text) == (until != "confirmed")


def test_a_study_without_arms_has_a_page() -> None:
    assert "No trial has completed yet" in page_of(replace(make_record(), arms={}))


def test_written_beside_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make_record(until="planned")
    facts = study_facts(record)
    target = tmp_path / "out" / "report.html"
    assert write_report(record, facts, target) == target
    before = target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    monkeypatch.setattr(page_module, "page", lambda *_: "\ud800")  # cannot be written
    with pytest.raises(UnicodeEncodeError):
        write_report(record, facts, target)
    assert target.read_text(encoding="utf-8") == before


def test_top_trials_are_the_best_complete_ones() -> None:
    record = make_record(blocks=2)
    facts = study_facts(record)
    table = top_trials(record, facts)
    assert len(table.rows) == 20
    shown = [float(row[2].rstrip("%")) for row in table.rows]
    assert shown == sorted(shown, reverse=True)
    assert table.head[:4] == ["arm", "trial", "accuracy", "lr"]
    assert any("(block 2)" in row[1] for row in table.rows)


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


@pytest.mark.parametrize(("width", "touch"), [(1200, False), (390, True)])
def test_it_opens_offline_without_an_error(browser: Browser, tmp_path: Path, width: int, touch: bool) -> None:
    record = nasty_record()
    path = write_report(record, study_facts(record), tmp_path / "report.html")
    context = browser.new_context(viewport={"width": width, "height": 800}, has_touch=touch, is_mobile=touch)
    tab = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []

    def refuse(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", refuse)
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    tab.locator(".plot-container").nth(11).wait_for()
    assert complaints == []
    assert requests == [path.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
