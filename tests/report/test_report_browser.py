"""The report in a real browser: all figures are drawn, all data download, and there is no network request."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synthetic_study import card_of, make_record

from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import missing_evidence_sentences
from ralr_tune.records import Row, StudyRecord
from ralr_tune.report.data import csv_text
from ralr_tune.report.figures import Figure, figures
from ralr_tune.report.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MEGABYTE = 1_000_000


@dataclass
class Tab:
    """An open report, and its errors."""

    page: Page
    path: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: dialog.dismiss())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(self.path.as_uri())

    def until(self, expression: str) -> None:
        """Waits; playwright's own waiting compiles code, which the page's policy forbids."""
        for _ in range(300):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(100)
        pytest.fail(f"never true: {expression}")

    def unfold(self) -> None:
        """Opens every detail as a reader would, and waits until its figures are drawn."""
        for summary in self.page.query_selector_all("details:not([open]) > summary"):
            summary.click()
        self.until("!document.querySelector('.plot:not(.js-plotly-plot)')")

    def undrawn(self) -> list[str]:
        """Figures without a drawing of some size: a plot whose box was hidden has none."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll('.plot')].filter(box => {
                const drawing = box.querySelector('.main-svg');
                const area = box.querySelector('.plotbg, .bglayer + *, .cartesianlayer');
                return !drawing || drawing.clientWidth < 200 || drawing.clientHeight < 100 || !area
                    || drawing.clientWidth > box.clientWidth + 1;
            }).map(box => box.id)"""
        )
        return found

    def downloaded(self, name: str) -> tuple[str, str]:
        """Name and text of the file behind the data link of a figure."""
        link = self.page.locator(f"figure:has(.plot[id='{name}']) a.data")
        with self.page.expect_download() as begun:
            link.click()
        return begun.value.suggested_filename, begun.value.path().read_bytes().decode()

    @property
    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def opened(browser: Browser, path: Path, **how: Any) -> Iterator[Tab]:
    context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | how))
    try:
        yield Tab(context.new_page(), path)
    finally:
        context.close()


def written(record: StudyRecord, folder: Path) -> Path:
    facts = study_facts(record)
    return write_report(record, facts, card_of(facts), folder / "report.html")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a finished study of two blocks."""
    return written(make_record(blocks=2), tmp_path_factory.mktemp("finished"))


SCREENS = {
    "wide": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True},
    "narrow and dark": {"viewport": {"width": 320, "height": 600}, "color_scheme": "dark"},
}


OPEN = ["differences", "scores"]  # the figures that a reader sees first


@pytest.mark.parametrize("how", SCREENS.values(), ids=SCREENS)
def test_everything_is_drawn_without_network_requests(browser: Browser, finished: Path, how: dict[str, Any]) -> None:
    with opened(browser, finished, **how) as tab:
        assert [box.get_attribute("id") for box in tab.page.query_selector_all(".js-plotly-plot")] == OPEN
        assert [part.get_attribute("id") for part in tab.page.query_selector_all("details[open]")] == [
            "question-better"
        ]
        tab.unfold()
        assert tab.undrawn() == []
        assert tab.overflow == 0
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith("blob:")] == [finished.as_uri()]


def test_dark_and_light_differ_only_in_the_background(browser: Browser, finished: Path) -> None:
    colours = """() => [document.body, document.querySelector('#scores .main-svg')]
        .map(part => getComputedStyle(part).backgroundColor)"""
    with opened(browser, finished) as tab:
        tab.unfold()
        assert tab.page.evaluate(colours) == ["rgb(255, 255, 255)"] * 2
        tab.page.emulate_media(color_scheme="dark")
        tab.until(f"({colours})().every(colour => colour === 'rgb(21, 25, 30)')")
        assert tab.complaints == []


AT_ONCE = 8  # Chromium holds a page's eleventh download in a row for too many


def test_every_data_link_gives_the_figures_data(browser: Browser, finished: Path) -> None:
    record = make_record(blocks=2)
    drawn = figures(record, study_facts(record))
    for first in range(0, len(drawn), AT_ONCE):
        with opened(browser, finished) as tab:
            tab.unfold()
            for figure in drawn[first : first + AT_ONCE]:
                check_download(tab, figure)
            assert tab.complaints == []


def check_download(tab: Tab, figure: Figure) -> None:
    name, text = tab.downloaded(figure.name)
    assert figure.data is not None
    assert name == f"digits-{figure.data.name}.csv"
    assert text == csv_text(figure.data)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == len(figure.data.rows) + 1 > 1
    assert {len(row) for row in rows} == {len(figure.data.columns)}


def test_the_budget_axis_can_be_changed(browser: Browser, finished: Path) -> None:
    facts = study_facts(make_record(blocks=2))
    with opened(browser, finished) as tab:
        tab.unfold()
        last = "() => document.getElementById('budget').data.at(-1).x.at(-1)"
        title = tab.page.locator("#budget .xtitle")
        assert tab.page.evaluate(last) == 24
        for name, axis, value in (
            ("epochs", "Epochs of the arm, summed over its trials", facts.budgets[-1].epochs[-1]),
            ("device time", "Device time of the arm, seconds", facts.budgets[-1].seconds[-1]),
            ("trials", "Trials of the arm", 24),
        ):
            button = tab.page.get_by_role("button", name=name, exact=True)
            button.focus()
            tab.page.keyboard.press("Enter")
            assert tab.page.locator(".views [aria-pressed=true]").all_inner_texts() == [name]
            assert title.text_content() == axis
            assert tab.page.evaluate(last) == pytest.approx(value, rel=1e-5)
        assert tab.complaints == []


def test_print_is_light_unfolded_and_without_buttons(browser: Browser, finished: Path) -> None:
    dark = {"color_scheme": "dark"}
    with opened(browser, finished, **dark) as tab:
        tab.page.emulate_media(media="print")
        tab.until("!document.querySelector('.plot:not(.js-plotly-plot)')")
        assert tab.page.locator("details:not([open])").count() == 0
        assert tab.undrawn() == []
        seen = "part => part.offsetParent !== null"
        assert tab.page.evaluate(f"[...document.querySelectorAll('nav, button, a')].filter({seen}).length") == 0
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map(drawing => drawing.clientWidth))"
        assert tab.page.evaluate(widest) <= 680
        assert tab.overflow == 0
        for part in ("figure", "tr"):
            assert tab.page.evaluate(f"getComputedStyle(document.querySelector('{part}')).breakInside") == "avoid"
        tab.page.emulate_media(media="screen")
        tab.until("!document.querySelector('#details > details[open]')")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 30)"
        assert tab.complaints == []


def test_it_prints(browser: Browser, finished: Path) -> None:
    """The printed page contains the folded figures: their drawing does not wait for a screen."""
    with opened(browser, finished) as tab:
        missing = "[...document.querySelectorAll('.plot')].filter(box => !box.querySelector('.main-svg')).length"
        tab.page.evaluate(f"() => addEventListener('beforeprint', () => {{ window.missing = {missing}; }})")
        assert tab.page.pdf(format="A4").startswith(b"%PDF")
        assert tab.page.evaluate("window.missing") == 0
        assert tab.complaints == []


def test_screen_readers_and_keyboards_find_their_way(browser: Browser, finished: Path) -> None:
    with opened(browser, finished) as tab:
        tab.unfold()
        levels = tab.page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4')].map(part => Number(part.tagName[1]))"
        )
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))
        for plot in tab.page.locator(".plot").all():
            assert plot.get_attribute("role") == "img"
            assert len(plot.get_attribute("aria-label") or "") > 20
        names = tab.page.evaluate(
            "[...document.querySelectorAll('a.data')].map(link => link.getAttribute('aria-label'))"
        )
        assert all(name.startswith("Data as CSV: ") for name in names)
        tab.page.evaluate("document.activeElement.blur()")
        for _ in range(len(names) + 60):
            tab.page.keyboard.press("Tab")
            if tab.page.evaluate("document.activeElement.dataset.csv") == "scores":
                break
        else:
            pytest.fail("no key leads to the first data link")
        with tab.page.expect_download() as begun:
            tab.page.keyboard.press("Enter")
        assert begun.value.suggested_filename == "digits-scores.csv"


STOPS = """() => [...document.querySelectorAll('a[href], button, summary, [tabindex]')]
    .filter(part => part.tabIndex >= 0 && part.checkVisibility())"""


def test_few_tab_stops_none_of_them_in_an_image(browser: Browser, finished: Path) -> None:
    with opened(browser, finished) as tab:
        tab.until("document.querySelector('.modebar-btn')")
        assert tab.page.evaluate(f"({STOPS})().length") < 30
        tab.unfold()
        assert tab.page.evaluate(f"({STOPS})().length") < 50
        assert tab.page.evaluate(f"({STOPS})().filter(part => part.closest('[role=img]')).length") == 0


def test_no_button_uploads_or_selects(browser: Browser, finished: Path) -> None:
    with opened(browser, finished) as tab:
        tab.until("document.querySelector('.modebar-btn')")
        buttons = tab.page.evaluate(
            "[...new Set([...document.querySelectorAll('.modebar-btn')].map(button => button.dataset.title))]"
        )
        assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Reset axes"]


def test_figures_follow_the_window_and_come_back_from_paper(browser: Browser, finished: Path) -> None:
    fits = """[...document.querySelectorAll('details[open] > .grid .js-plotly-plot')]
        .every(box => box.querySelector('.main-svg').clientWidth === box.clientWidth)"""
    with opened(browser, finished) as tab:
        before = tab.page.evaluate("document.querySelector('#scores .main-svg').clientWidth")
        tab.page.emulate_media(media="print")
        tab.until("document.documentElement.classList.contains('paper')")
        assert tab.page.evaluate("document.querySelector('#scores .main-svg').clientWidth") < before
        tab.page.emulate_media(media="screen")
        tab.until(f"{fits} && document.querySelector('#scores .main-svg').clientWidth === {before}")
        tab.page.set_viewport_size({"width": 700, "height": 900})
        tab.until(f"{fits} && document.querySelector('#scores .main-svg').clientWidth < 700")
        assert tab.complaints == []


def test_paper_starts_with_the_answer_and_its_figures(browser: Browser, tmp_path: Path) -> None:
    warned = written(make_record(trials=8), tmp_path)
    with opened(browser, warned) as tab:
        tab.page.emulate_media(media="print")
        tab.until("document.documentElement.classList.contains('paper')")
        parts = "[...document.querySelectorAll('main > details')].map(part => part.id)"
        assert tab.page.evaluate(parts)[:2] == ["question-better", "warnings"]
        bottom = tab.page.evaluate("document.querySelector('#differences').getBoundingClientRect().bottom")
        assert bottom < 1000  # pixels of an A4 page
        tab.page.emulate_media(media="screen")
        tab.until("!document.documentElement.classList.contains('paper')")
        assert tab.page.evaluate(parts)[0] == "warnings"


def test_a_wide_table_is_a_tab_stop_with_a_hint(browser: Browser, finished: Path) -> None:
    hint = "getComputedStyle(document.querySelector('.scroll'), '::before').content"
    with opened(browser, finished) as tab:
        assert tab.page.evaluate(hint) == "none"
        assert tab.page.locator(".scroll").first.get_attribute("tabindex") is None
    with opened(browser, finished, **SCREENS["phone"]) as tab:
        assert "Scroll sideways" in tab.page.evaluate(hint)
        assert tab.page.locator(".scroll").first.get_attribute("tabindex") == "0"


def unlike(change: Callable[[Row], Row]) -> StudyRecord:
    """A finished study whose search rows are changed."""
    return make_record(change=lambda row: change(row) if row.stage == "search" else row)


def diverge(row: Row) -> Row:
    return replace(row, outcome="diverged", failure="diverged", value=None, train_value=None)


def level(row: Row) -> Row:
    curve = tuple(replace(epoch, value=0.5) for epoch in row.curve)
    return replace(row, value=None if row.value is None else 0.5, curve=curve)


GAPS: dict[str, tuple[Callable[[], StudyRecord], str]] = {
    "no arms": (lambda: replace(make_record(), arms={}), "The study has no arm"),
    "no trial yet": (lambda: make_record(until="planned"), "No trial has completed yet"),
    "searching": (lambda: make_record(until="searching"), "Not confirmed yet"),
    "not confirmed": (lambda: make_record(until="searched"), "No configuration has been confirmed yet."),
    "one arm": (lambda: make_record(arms=("monotone",)), "there is nothing to compare it with"),
    "no baseline": (
        lambda: replace(make_record(), baseline="other"),
        "The baseline other is not one of the study's arms",
    ),
    "all diverged": (lambda: make_record(until="searched", change=diverge), "finished trials of monotone diverged"),
    "zero variance": (lambda: make_record(until="searched", change=level), "ended with the same value"),
    "one trial": (lambda: make_record(trials=1), "monotone has 1 finished trial: too few"),
    "one seed": (lambda: make_record(seeds=1), "too few for an interval"),
}


@pytest.mark.parametrize(("make", "sentence"), GAPS.values(), ids=GAPS)
def test_with_missing_data_the_page_opens_and_says_so(
    browser: Browser, tmp_path: Path, make: Callable[[], StudyRecord], sentence: str
) -> None:
    record = make()
    with opened(browser, written(record, tmp_path)) as tab:
        tab.unfold()
        assert tab.complaints == []
        assert tab.undrawn() == []
        shown = tab.page.locator("main").inner_text()
        assert sentence in shown
        for lack in missing_evidence_sentences(study_facts(record)):
            assert lack in shown
        shows = "box => box.data.some(trace => trace.x.some(x => x !== null))"
        assert tab.page.evaluate(f"[...document.querySelectorAll('.plot')].every({shows})")
        questions = tab.page.locator("details[id^=question]").all()
        assert len(questions) == 6
        for question in questions:
            assert question.locator("> summary ~ *").count()  # a figure or a sentence


def test_buttons_copy_and_a_link_unfolds(browser: Browser, finished: Path) -> None:
    card = card_of(study_facts(make_record(blocks=2)))
    assert card.recipe is not None
    with opened(browser, finished, permissions=["clipboard-read", "clipboard-write"]) as tab:
        for name, text in (("Copy the recipe", card.recipe.text()), ("Copy the lines", card.next_step.toml)):
            button = tab.page.get_by_role("button", name=name)
            button.click()
            tab.until(f"document.querySelector('[aria-label={json.dumps(name)}]').textContent === 'Copied'")
            assert tab.page.evaluate("navigator.clipboard.readText()") == text
        tab.page.locator("nav a").nth(1).click()
        tab.until("document.querySelector('#question-budget[open] .js-plotly-plot') !== null")
        assert tab.complaints == []


def test_a_term_is_explained_on_focus_within_a_phone(browser: Browser, finished: Path) -> None:
    with opened(browser, finished, viewport={"width": 390, "height": 800}) as tab:
        for term in tab.page.locator(".term").all():
            term.focus()
            shown = "part => getComputedStyle(part, '::after').display"
            assert term.evaluate(shown) == "block"
            assert tab.overflow == 0


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 1,000 trials of 30 epochs in two arms."""
    record = make_record(trials=500, epochs=30)
    assert sum(len(arm.search()) for arm in record.arms.values()) == 1000
    return written(record, tmp_path_factory.mktemp("thousand"))


def test_a_thousand_trials_stay_below_six_megabytes(thousand: Path) -> None:
    assert thousand.stat().st_size < 6 * MEGABYTE


def test_a_thousand_trials_open(browser: Browser, thousand: Path) -> None:
    with opened(browser, thousand) as tab:
        tab.unfold()
        assert tab.undrawn() == []
        assert len(tab.downloaded("curves-ralr")[1].splitlines()) > 5000
        assert tab.complaints == []
