"""The dashboard in a real browser, behind its gate: its pages render, and no stored content runs as code."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import optuna
import pytest
import waitress
from optuna.artifacts import upload_artifact
from optuna_dashboard import save_note, wsgi

from ralr_tune.analysis.facts import study_facts
from ralr_tune.commands.dashboard import _SERVER, Artifacts, make_app
from ralr_tune.report.figures import panel_figures
from ralr_tune.report.panels import write_panels
from ralr_tune.store.database import Storage, open_storage
from tests.waiting import LONG_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

TOKEN = "a token & more: {0}"
RAN = "document.documentElement.dataset.ran = 'yes'"
NASTY = f'<img src=x onerror="{RAN}"><script>{RAN}</script>'
NOTE = f"# A note\n\n{NASTY}\n\n[click](javascript:{RAN.replace(' ', '')}) ![far](https://example.com/x.png) $x^2$"
PAGE = f"<!DOCTYPE html><title>a page</title><script>{RAN}</script><h1>uploaded</h1>"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92ef"
    "0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Storage, Path]]:
    """Two studies whose texts are all hostile: names, parameters, attributes, notes, artifacts."""
    folder = tmp_path_factory.mktemp("dashboard")
    opened = open_storage(f"sqlite:///{folder}/study.db", create=True)
    artifacts = Artifacts(folder / "artifacts")
    (folder / "<img src=x onerror=1>.html").write_text(PAGE)
    (folder / "dot.png").write_bytes(PIXEL)

    def upload(owner: optuna.Study | optuna.Trial) -> None:
        for name in ("<img src=x onerror=1>.html", "dot.png"):
            upload_artifact(artifact_store=artifacts, file_path=str(folder / name), study_or_trial=owner)

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 0:
            upload(trial)
        return _objective(trial)

    for name in (f"one {NASTY}", "two"):
        study = optuna.create_study(study_name=name, storage=opened.optuna, direction="maximize")
        study.optimize(objective, n_trials=8)
        study.set_user_attr(NASTY, NASTY)
        save_note(study, NOTE)
        upload(study)
    yield opened, folder
    opened.dispose()


def _objective(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float(NASTY, 1e-3, 1, log=True)
    trial.suggest_categorical("choice", [NASTY, "other"])
    trial.set_user_attr(NASTY, NASTY)
    for step in range(3):
        trial.report(x * step, step)
    return x + y


@pytest.fixture(params=["read-only with a token", "writing allowed"])
def address(request: pytest.FixtureRequest, storage: tuple[Storage, Path]) -> Iterator[str]:
    """The dashboard's URL; the first page opened sends the token."""
    write = request.param == "writing allowed"
    with served(make_app(*storage, write=write, token=None if write else TOKEN)) as found:
        yield found


@contextmanager
def served(app: Any) -> Iterator[str]:
    server: Any = waitress.create_server(app, host="127.0.0.1", port=0, **_SERVER)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@dataclass
class Tab:
    """A page that records its errors."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', event => "
            "console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI))"
        )
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: dialog.dismiss())
        self.open(f"/?token={quote(TOKEN)}")
        self.page.wait_for_url("**/dashboard")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "GPU stall" not in text:
            self.complaints.append(text)

    def open(self, path: str) -> None:
        self.page.goto(self.address + path)

    def plots(self, at_least: int) -> None:
        self.page.wait_for_function(f"document.querySelectorAll('.plot-container').length >= {at_least}")

    @property
    def ran(self) -> bool:
        return bool(self.page.evaluate("'ran' in document.documentElement.dataset"))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(LONG_S * 1000)
    yield opened
    opened.close()


@pytest.fixture
def tab(context: BrowserContext, address: str) -> Tab:
    return Tab(context.new_page(), address)


def test_the_form_opens_the_dashboard(context: BrowserContext, storage: tuple[Storage, Path]) -> None:
    with served(make_app(*storage, write=True, token=TOKEN)) as address:
        page = context.new_page()
        page.goto(f"{address}/dashboard/studies/1")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button").click()
        page.get_by_text("Wrong token.").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        page.wait_for_url("**/dashboard")
        created = page.evaluate("""fetch('/api/studies/2/note', {
            method: 'PUT', headers: {'Content-Type': 'application/json'}, body: '{"version": 2, "body": "mine"}'
        }).then(response => response.status)""")
        assert created == 204
        assert page.evaluate("document.cookie") == ""


def test_pages_render_and_no_stored_content_runs(tab: Tab) -> None:
    tab.page.get_by_text("onerror").first.wait_for()
    for path, plots in (
        ("/dashboard/studies/1", 4),
        ("/dashboard/studies/1/analytics", 4),
        ("/dashboard/compare-studies?ids=1,2", 2),
    ):
        tab.open(path)
        tab.plots(plots)
        assert not tab.ran
    tab.open("/dashboard/studies/1/trials?numbers=0")
    tab.page.get_by_text("Trial 0", exact=False).first.wait_for()
    tab.page.locator("img[src^='/artifacts/']").first.wait_for()
    tab.page.wait_for_function("[...document.images].some(image => image.naturalWidth == 1)")  # dot.png is shown
    assert not tab.ran
    assert tab.complaints == []
    assert {url.split("/")[2] for url in tab.requests if url.startswith("http")} == {
        tab.address.removeprefix("http://")
    }


def test_what_read_only_forbids_is_hidden_and_best_is_marked(tab: Tab) -> None:
    read_only = tab.page.get_by_text("Read-only: ").count() == 1
    tab.page.get_by_label("delete study").first.wait_for(state="attached")
    for control in (tab.page.get_by_label("delete study"), tab.page.get_by_role("button", name="Create")):
        assert control.first.is_visible() != read_only
    assert tab.page.get_by_role("button", name="Reload").is_visible()
    tab.open("/dashboard/studies/1")
    tab.plots(4)
    tab.page.get_by_text("Upload a New File").wait_for(state="attached")
    assert tab.page.get_by_text("Upload a New File").is_visible() != read_only
    assert tab.page.get_by_text("dot.png").first.is_visible()  # artifacts are still shown
    best = tab.page.locator("h6[data-search-value]")
    best.wait_for()
    assert best.inner_text().startswith("Best Trial")
    assert "search value" in best.evaluate("element => getComputedStyle(element, '::after').content")
    assert tab.complaints == []


def test_the_parallel_coordinates_are_drawn(tab: Tab) -> None:
    """The only plot that compiles code: it must not stay empty under the policy."""
    tab.open("/dashboard/studies/1/smartSelection")
    tab.page.wait_for_function("document.querySelectorAll('.parcoords .y-axis').length > 0")
    assert tab.complaints == []
    assert not tab.ran


def test_a_note_shows_its_text_and_runs_nothing(tab: Tab) -> None:
    tab.open("/dashboard/studies/1/note")
    tab.page.get_by_text("A note").first.wait_for()
    links = tab.page.get_by_text("click", exact=True)
    if links.count():
        links.first.click()
    assert not tab.ran
    assert "policy: img-src https://example.com/x.png" in tab.complaints  # no other site learns who reads it
    assert [text for text in tab.complaints if "https://example.com/x.png" not in text] == []


def test_an_uploaded_page_is_a_download(tab: Tab) -> None:
    for path in uploaded_pages(tab):
        with tab.page.expect_download() as download:
            tab.page.evaluate(f"location.assign('{path}')")
        assert download.value.path().read_bytes() == PAGE.encode()
        assert not tab.ran


def test_without_the_gate_an_uploaded_page_runs(context: BrowserContext, storage: tuple[Storage, Path]) -> None:
    """Shows that the test above can fail."""
    app = wsgi(storage[0].optuna, Artifacts(storage[1] / "artifacts"))
    with served(app) as address:
        tab = Tab(context.new_page(), address)
        tab.open(uploaded_pages(tab)[0])
        assert tab.ran


def test_the_panels_of_a_report_are_drawn_and_its_note_shown(
    context: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "analysis")
    from synthetic_study import card_of, make_record

    facts = study_facts(make_record(trials=60))
    card = card_of(facts)
    opened = open_storage(f"sqlite:///{tmp_path}/study.db", create=True)
    studies = {arm: optuna.create_study(study_name=f"digits/{arm}", storage=opened.optuna) for arm in facts.arms}
    write_panels(facts, card, studies)
    with served(make_app(opened, tmp_path, write=False, token=None)) as address:
        tab = Tab(context.new_page(), address)
        tab.open("/dashboard/studies/2")
        for figure in panel_figures(facts):
            # a long title is several lines, without a space between them
            words = re.compile(r"\s*".join(map(re.escape, figure.title.split())))
            title = tab.page.locator(".gtitle", has_text=words)
            title.wait_for()
            plot = tab.page.locator(".js-plotly-plot", has=title).locator(".main-svg").first
            size = plot.bounding_box()
            assert size is not None
            assert min(size["width"], size["height"]) > 150
        tab.open("/dashboard/studies/2/note")
        tab.page.get_by_text(card.next_step.why[:60]).wait_for()
        assert tab.complaints == []
    opened.dispose()


def uploaded_pages(tab: Tab) -> list[str]:
    """Paths of the pages uploaded to the study and to its first trial."""
    study = tab.page.evaluate("fetch('/api/studies/1').then(response => response.json())")
    return [
        f"/artifacts/{place}/{artifact['artifact_id']}"
        for place, artifacts in (("1", study["artifacts"]), ("1/1", study["trials"][0]["artifacts"]))
        for artifact in artifacts
        if artifact["filename"].endswith(".html")
    ]


def test_a_framed_page_and_a_page_of_another_site_get_nothing(context: BrowserContext, address: str) -> None:
    Tab(context.new_page(), address)  # the browser now has the cookie
    other = context.new_page()
    other.route("http://evil.example/", lambda route: route.fulfill(body="<html></html>", content_type="text/html"))
    other.goto("http://evil.example/")
    found = other.evaluate(
        """async address => {
            const asked = (path, options) => fetch(address + path, options).then(() => 'answered', () => 'refused');
            const frame = document.createElement('iframe');
            frame.src = address + '/dashboard';
            document.body.append(frame);
            await new Promise(done => frame.onload = done);
            const script = document.createElement('script');
            script.src = address + '/static/bundle.js';
            const loaded = new Promise(done => {
                script.onload = () => done('loaded');
                script.onerror = () => done('refused');
            });
            document.body.append(script);
            return [
                await asked('/api/studies', {credentials: 'include'}),
                await asked('/api/studies/1', {method: 'DELETE', credentials: 'include'}),
                await loaded,
                frame.contentDocument === null ? 'opaque' : 'open',
            ];
        }""",
        address,
    )
    assert found == ["refused", "refused", "refused", "opaque"]
    response = context.request.get(f"{address}/api/studies")
    assert len(response.json()["study_summaries"]) == 2
