"""A database from an untrusted author: the report shows all its texts and runs none of them.

Names of arms and parameters are checked where a study file is read; here they come as nobody has checked them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from plotly.offline import get_plotlyjs
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.records import ArmRecord, Row, StudyRecord
from ralr_tune.report.export import render
from ralr_tune.report.figures import figures
from ralr_tune.report.page import page, write_report
from ralr_tune.report.panels import note
from ralr_tune.report.preview import Trace, draw_preview
from ralr_tune.studyfile import parse_study
from ralr_tune.studyfile.exported import Exported
from tests.exports import configuration
from tests.house.test_house_execution import findings
from tests.waiting import LONG_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAG = "window.harmed = (window.harmed || 0) + 1"
TEXTS = {
    "end of script": f"</script><script>{FLAG}</script>",
    "image": f"<img src=x onerror='{FLAG}'>",
    "comment": f"<!--<script>{FLAG}//",
    "attribute": f'" onmouseover="{FLAG}" autofocus onfocus="{FLAG}" x="',
    "link": f"<a href=\"javascript:{FLAG}\" target='_self' style='position:fixed;inset:0;font-size:99px'>x</a>",
    "svg": f"<svg/onload='{FLAG}'>",
    "entity": f"&lt;img src=x onerror=&quot;{FLAG}&quot;&gt;",
    "lines": f"\u2028{FLAG}\u2029\n\r\n\0\x1b]0;x\x07",
    "template": f"${{{FLAG}}}%{{customdata}}{{{{{FLAG}}}}}",
    "mathjax": f"$\\unicode{{<img src=x onerror='{FLAG}'>}}$",
    "half a character": "\ud800<b>\udfff",
    "prototype": "__proto__",
    "direction": "\u202e<plaintext>",
}
TEXTS["all of them"] = "".join(TEXTS.values())
LINKS = """[...document.querySelectorAll('main a')].map(link => link.getAttribute('href'))
    .filter(href => !/^(#[a-z-]+|blob:.*)$/.test(href))"""
"""Links to anything but the page itself or its own data."""
AT_ONCE = ("all of them", "lines")
IN_A_BROWSER = [
    pytest.param(text, id=name, marks=() if name in AT_ONCE else pytest.mark.slow) for name, text in TEXTS.items()
]
"""Separately they take a minute; together they are one page."""


def hostile(text: str) -> StudyRecord:
    """A study with this text in every place where a database or a file could have it."""
    other = f"{text}#2"

    def spoil(row: Row) -> Row:
        return replace(
            row, arm=text if row.arm == "monotone" else other, owner=text, params={**row.params, text: text},
            message=text, failure=text if row.failure else None,  # type: ignore[arg-type]
        )  # fmt: skip

    record = make_record(change=spoil, trials=8, seeds=3)
    arms: dict[str, ArmRecord] = {
        name: replace(arm, name=name, dimensions={**arm.dimensions, text: {"choices": [text, "other"]}})
        for name, arm in zip((text, other), record.arms.values(), strict=True)
    }
    return replace(
        record, name=text, arms=arms, baseline=text, metric=replace(record.metric, name=text), spec_text=text,
        fingerprint=text, storage=text, environment={text: text},
    )  # fmt: skip


def opened(browser: Browser, path: Path) -> Iterator[tuple[Page, list[str]]]:
    """The page in a browser, and its errors."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(LONG_S * 1000)
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(path.as_uri())
    yield tab, complaints
    context.close()


@pytest.mark.parametrize("text", IN_A_BROWSER)
def test_nothing_in_the_report_runs(browser: Browser, tmp_path: Path, text: str) -> None:
    record = hostile(text)
    facts = study_facts(record)
    drawn = figures(record, facts)
    path = write_report(record, facts, card_of(facts), tmp_path / "report.html", drawn)
    for tab, complaints in opened(browser, path):
        tab.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
        tab.locator(".plot-container").nth(len(drawn) - 1).wait_for()
        tab.wait_for_timeout(
            500
        )  # an opened fold is drawn once more at its size; Plotly has no axes to hover meanwhile
        hover_everything(tab)
        assert tab.evaluate("window.harmed") is None
        assert complaints == []
        assert tab.evaluate("document.querySelectorAll('main img, main iframe, main svg a').length") == 0
        assert tab.evaluate(LINKS) == []
        assert tab.evaluate("document.scripts.length") == 4
        shown = text.encode(errors="replace").decode().split("\n")[0].replace("\r", "").replace("\0", "\ufffd")
        assert shown in tab.evaluate("document.querySelector('h1').textContent")


SETTLED_MS = 1000
"""After which no figure is drawn again: plotly draws hover texts a moment later, and fails in a figure without axes."""


def hover_everything(tab: Page) -> None:
    """Every mark's hover text is drawn once."""
    tab.wait_for_timeout(SETTLED_MS)
    tab.evaluate(
        """() => { for (const plot of document.querySelectorAll('.js-plotly-plot')) {
            const marks = plot.data.flatMap((trace, curve) => trace.hoverinfo === 'skip' || !trace.x ? []
                : trace.x.slice(0, 3).map((_, point) => ({curveNumber: curve, pointNumber: point})));
            for (const mark of marks) Plotly.Fx.hover(plot, [mark]);
        } }"""
    )


def test_an_injected_script_would_not_run(browser: Browser, tmp_path: Path) -> None:
    """The second protection: the page names the hashes of its own scripts, and a browser runs no others."""
    record = make_record(until="planned")
    facts = study_facts(record)
    text = page(record, facts, card_of(facts), figures(record, facts))
    harm = f"<script>{FLAG}</script><img src=x onerror='{FLAG}'><button onclick='{FLAG}'>press</button>"
    for name, content in {"locked": text, "open": re.sub(r"<meta http-equiv[^>]*>", "", text)}.items():
        path = tmp_path / f"{name}.html"
        path.write_text(content.replace("</main>", f"{harm}</main>"), encoding="utf-8")
        for tab, _ in opened(browser, path):
            tab.click("button")
            tab.wait_for_timeout(200)
            assert bool(tab.evaluate("window.harmed")) is (name == "open")


@pytest.mark.parametrize("text", IN_A_BROWSER)
def test_the_preview_shows_names_as_texts(browser: Browser, tmp_path: Path, text: str) -> None:
    plot = draw_preview(text, {text: [Trace(text, [0, 1, 2], [0.1, 0.2, 0.2], [0.1, 0.1, 0.1])]})
    path = tmp_path / "preview.html"
    path.write_text(plot.to_html(include_plotlyjs=True, full_html=True), encoding="utf-8")
    for tab, _ in opened(browser, path):
        tab.locator(".plot-container").first.wait_for()
        hover_everything(tab)
        assert tab.evaluate("window.harmed") is None


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_label_of_a_figure_is_escaped(text: str) -> None:
    record = hostile(text)
    facts = study_facts(record)
    body = page(record, facts, card_of(facts), figures(record, facts)).replace(get_plotlyjs(), "")
    assert body.count("<script") == 4
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', body, re.DOTALL)
    assert data is not None
    assert not re.search(r"[<\u2028\u2029]", data.group(1))
    for name, figure in json.loads(data.group(1)).items():
        for label in labels(figure):
            assert not re.search(r"<(?!br>)", label), (name, label)


def labels(part: object, key: str = "") -> Iterator[str]:
    """All texts of a figure that plotly may show; groups and names of columns are not shown."""
    if isinstance(part, dict):
        for inner, value in part.items():
            if inner != "legendgroup":
                yield from labels(value, inner)
    elif isinstance(part, list):
        for value in part:
            yield from labels(value, key)
    elif isinstance(part, str):
        yield part.replace("<extra></extra>", "")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_note_in_the_dashboard_is_text(text: str) -> None:
    facts = study_facts(hostile(text))
    written = note(facts, card_of(facts), text)
    written.encode()
    outside = re.sub(r"`[^`\n]*`", "", written)
    assert "`" not in outside
    assert not re.search(r"<\w|<!|</", outside)


@pytest.mark.parametrize("name", ["../../up", "/etc/x", "a/b", "a\\b", "..", "x\0y", "ä", "n" * 500, "con\n"])
def test_images_stay_in_their_folder(name: str) -> None:
    record = hostile(name)
    stems = [figure.name for figure in figures(record, study_facts(record))]
    assert all(re.fullmatch(r"[a-z]+(-[A-Za-z0-9._-]+)?", stem) for stem in stems)
    assert all(len(f"{stem}.png") <= 255 for stem in stems)
    assert len(set(stems)) == len(stems)


SPEC = """
[study]
name = "x"
baseline = "a"
[task]
kind = "classification"
data = {{ source = "folder", path = {path} }}
model = "small_cnn"
model_options = {{ {key} = {path} }}
[training]
epochs = 1
batch_size = 1
lr = 0.1
[arms.a]
[search]
trials = 1
"""


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if "\ud800" not in text])
@pytest.mark.parametrize("form", ["toml", "json", "yaml", "python"])
def test_exported_files_contain_texts_as_texts(text: str, form: str) -> None:
    quoted = json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f")
    spec = parse_study(SPEC.format(path=quoted, key=quoted))
    made: Exported = configuration().model_copy(update={"task": spec.file.task})
    written = render(made, form)
    if form == "python":
        assert list(findings(written)) == []
        constants = [node.value for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Constant)]
        assert text in constants
    else:
        assert "\0" not in written
