"""The documentation site builds strictly, loads nothing from a network, and its links and anchors have targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer

from ralr_tune.cli import app
from ralr_tune.studyfile import parse_study

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a page links to, loads and offers as anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("img", "script", "iframe") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Without the reports of the gallery, which the tests of `report` inspect."""
    found = [path for path in site.rglob("*.html") if path.parent.name != "gallery" and path.name != "404.html"]
    return {path: Page(path.read_text()) for path in found}


def test_every_link_has_a_target(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchored = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not (target.exists() and anchored):
                broken.append((path.name, link))
    assert broken == []


def test_nothing_is_loaded_from_a_network(site: Path, pages: dict[Path, Page]) -> None:
    loaded = [(path.name, link) for path, page in pages.items() for link in page.loaded]
    assert [each for each in loaded if urlsplit(each[1]).netloc] == []
    assert [path for path, link in loaded if not link] == []
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text())
    ]
    assert styles == []


def test_the_pages_hold_no_path_of_the_machine_that_built_them(site: Path) -> None:
    texts = {path: path.read_text() for path in site.rglob("*.html")}
    assert [path for path, text in texts.items() if str(ROOT) in text or sys.executable in text] == []


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/commands.html").read_text()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f'id="{name}"' in page
        assert [
            opt for parameter in command.params for opt in parameter.opts if opt.startswith("--") and opt not in page
        ] == []


def test_every_key_of_a_study_file_is_in_the_reference(site: Path) -> None:
    """The shipped studies use them; that every key has a meaning and an example, the build itself checks."""
    page = (site / "reference/study_file.html").read_text()
    for path in (ROOT / "studies").glob("*.toml"):
        spec = parse_study(path.read_text())
        for name, table in tomllib.loads(spec.text).items():
            keys = set(table) if name != "arms" else set()
            assert [key for key in keys if f"<code>{key}</code>" not in page] == []


def test_the_gallery_holds_the_reports(site: Path) -> None:
    records = sorted(path.name.removesuffix(".json.gz") for path in (ROOT / "results").glob("*.json.gz"))
    assert len(records) >= 2
    page = (site / "gallery.html").read_text()
    for study in records:
        assert f'href="gallery/{study}.html"' in page
        assert "<h1>" in (site / f"gallery/{study}.html").read_text()
