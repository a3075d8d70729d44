"""MkDocs hooks: add the generated pages, and make links to files outside of docs/ work inside the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# MkDocs puts this folder on sys.path while it imports the hooks
import commands_page
import reports
import study_file_page
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "LOG.md")
"""Documents of the root folder that are pages of the site."""
GENERATED = "<!-- generated -->"
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    for uri, content in pages().items():
        files.append(File.generated(config, uri, content=content))
    for study, report in reports.reports().items():
        files.append(File.generated(config, f"gallery/{study}.html", content=report.page))
    files.append(File.generated(config, "site.css", content=(Path(__file__).parent / "site.css").read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    text = relinked(markdown, page.file.src_uri)
    if page.file.src_uri in PARTS:
        text = text.replace(GENERATED, PARTS[page.file.src_uri]())
    return text


def pages() -> Mapping[str, str]:
    """The generated pages by their path in the site."""
    documents = {f"project/{name}": (ROOT / name).read_text() for name in PROJECT}
    return documents | {f"source/{path}.md": source(path) for path in linked_sources()}


def studies() -> str:
    folder = ROOT / "studies"
    files = sorted(folder.rglob("*.toml"), key=lambda path: (len(path.parts), path))
    names = {path: path.relative_to(folder).with_suffix("").as_posix() for path in files}
    return "".join(f"\n## {name}\n\n```toml\n{path.read_text()}```\n" for path, name in names.items())


PARTS: Mapping[str, Callable[[], str]] = {
    "reference/study_file.md": study_file_page.text,
    "reference/commands.md": commands_page.text,
    "reference/studies.md": studies,
    "gallery.md": reports.gallery,
}
"""What replaces `GENERATED` in a page."""


def source(path: str) -> str:
    """A page that shows one file of the package."""
    language = {".py": "python", ".toml": "toml"}.get(Path(path).suffix, "")
    title = f"---\nsearch: {{ exclude: true }}\n---\n\n# {path}\n\n"
    return f"{title}````{language}\n{(ROOT / path).read_text()}````\n"


def linked_sources() -> set[str]:
    """Files outside of docs/ that a document links to, relative to the root folder."""
    documents = [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in PROJECT)]
    found = {
        posixpath.normpath(posixpath.join(document.parent.relative_to(ROOT).as_posix(), link))
        for document in documents
        for link, _ in LINK.findall(document.read_text())
    }
    return {path for path in found if not path.startswith("docs/") and path not in PROJECT and path != "README.md"}


def relinked(markdown: str, uri: str) -> str:
    """The text of the page `uri` of the site, with links to other files of the project as links inside the site."""
    origin = uri.removeprefix("project/") if uri.startswith("project/") else f"docs/{uri}"

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[1]))
        return f"]({posixpath.relpath(in_site(target), posixpath.dirname(uri) or '.')}{match[2] or ''})"

    return LINK.sub(replaced, markdown)


def in_site(path: str) -> str:
    """Where the site has a file of the project."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"project/{path}" if path in PROJECT else f"source/{path}.md"
