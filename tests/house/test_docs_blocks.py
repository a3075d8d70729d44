"""Every block of code in the documents runs: commands as typed, Python as it is, study files as they are read.

The blocks of a page run in order in one folder, with smaller studies. What cannot run is listed below with the reason.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tomli_w
import typer

from ralr_tune.cli import app
from ralr_tune.studyfile import parse_study

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]

ELSEWHERE = {
    "README.md": "test_docs.py runs its blocks",
    "docs/clusters.md": "needs a cluster; tests/engines runs the same commands on a real Slurm",
    "docs/frameworks.md": "tests/examples compares its blocks with the examples, and runs those",
    "docs/watching.md": "needs trackers and webhooks; tests/mirror and test_commands_notify.py run the same commands",
    "docs/kinds.md": "tests/kinds/test_kinds_third_party.py runs the kind from its path and as an installed package",
}
"""Pages whose blocks other tests run."""

NOT_RUN = {
    r"make (demo|test|secrets)\b": "sets up environments; CI runs `make test`, test_deploy_files.py `make secrets`",
    r"python -m ralr_tune dashboard\b": "serves until it is stopped; the tests of the dashboard start and stop it",
    r"[A-Z= \w]*docker compose\b": "needs Docker; test_deploy_compose.py checks the file and the commands",
    r"python -m ralr_tune (run|worker) digits --devices? cuda:0": "needs a GPU",
    r"caddy|nginx|tuning\.example\.org \{|server \{": "configures a proxy, which this machine need not have",
    r"\[databases\]": "configures a pooler; tests/engines/test_engines_pgbouncer.py runs one",
    r"python -m benchmarks\.decisions\.record\b": "trains for an hour; tests/benchmarks records a small table",
    r"python -m benchmarks\.decisions\.picture\b": "needs the results of a benchmark; a test draws others",
    r"import numpy as np\nfrom torchvision\.datasets import CIFAR100": "downloads 170 MB",
}
"""Commands and blocks that cannot run in a test, by their beginning, with the reason."""

OUTPUT = ("", "text")
"""Languages of blocks that show output or a folder."""

DATABASE = "postgresql://me@db.example.org/tuning"


class Block(NamedTuple):
    page: str
    language: str
    title: str
    code: str


def blocks(page: str) -> Iterator[Block]:
    for info, code in re.findall(
        r"^```([^\n]*)\n(.*?)^```$", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE
    ):
        language, _, rest = info.partition(" ")
        yield Block(page, language, "".join(re.findall(r'title="(.*?)"', rest)), code)


def reason(text: str) -> str | None:
    """Why a command or a block is not run."""
    return next((why for start, why in NOT_RUN.items() if re.match(start, text)), None)


def lines(block: Block) -> list[str]:
    """The commands of a block that can run."""
    return [line for line in block.code.splitlines() if line.strip() and not reason(line)]


ALL = [block for page in PAGES for block in blocks(page)]


def test_every_block_is_of_a_known_language() -> None:
    """A block of another language would not run."""
    others = [block for block in ALL if block.language not in ("sh", "python", "toml", *OUTPUT)]
    assert [block for block in others if not reason(block.code)] == []


def test_a_block_without_a_language_holds_no_command() -> None:
    shown = [
        line for block in ALL if block.language in OUTPUT and not reason(block.code) for line in block.code.splitlines()
    ]
    assert [line for line in shown if re.match(r"(python|ralr-tune|make|pip|import|from|\$) ", line)] == []


def test_every_exception_still_occurs() -> None:
    texts = [text for block in ALL for text in (block.code, *block.code.splitlines())]
    assert [start for start in NOT_RUN if not any(re.match(start, text) for text in texts)] == []
    assert ELSEWHERE.keys() <= set(PAGES)


def program_lines() -> list[str]:
    """Every use of the program in a document, those included that are not run."""
    found = [line for block in ALL if block.language == "sh" for line in block.code.splitlines()]
    return [line for line in found if re.search(r"(python -m ralr_tune|ralr-tune) ", line)]


@pytest.mark.parametrize("line", program_lines())
def test_every_command_is_understood(line: str) -> None:
    """Names of commands and options; running them is slow."""
    words = shlex.split(line, comments=True)
    start = words.index("ralr_tune") if "ralr_tune" in words else words.index("ralr-tune")
    group: Any = typer.main.get_command(app)
    command = group.commands[words[start + 1]]
    command.make_context(words[start + 1], words[start + 2 :])


def small(text: str) -> str:
    """A study file with a search of seconds."""
    for key, value in {"trials": 2, "epochs": 2, "seeds": 2, "top": 1}.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, flags=re.MULTILINE)
    return text


def fragment(text: str) -> str:
    """Some tables of a study file, in the digits study."""
    tables = tomllib.loads((ROOT / "studies/digits.toml").read_text())
    given = tomllib.loads(text)
    if "budget" in given.get("search", {}):  # which chooses what digits fixes
        del tables["search"]["trials"], tables["confirm"]["seeds"]
    for name, table in given.items():
        tables[name] = copy.deepcopy(tables.get(name, {})) | table
    return tomli_w.dumps(tables)


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language == "toml" and block.page not in ELSEWHERE], ids=lambda b: b.page
)
def test_every_study_file_is_valid(block: Block) -> None:
    spec = parse_study(block.code if block.title else fragment(block.code))
    assert spec.arms


def runs(page: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("sh", "python") and not reason(block.code)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_interpreter: str) -> Path:
    """A folder with a small digits study, in which `python` is this interpreter."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/digits.toml").write_text(small((ROOT / "studies/digits.toml").read_text()))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec "{warm_interpreter}" "$@"\n')
    (programs / "python").chmod(0o700)
    (tmp_path / ".tuning-password").write_text("unused")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))  # built kernels
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_to_run(page: str) -> Any:
    starts_a_study = any(re.search(r"ralr_tune run |= run\(", block.code) for block in runs(page))
    return pytest.param(page, marks=[pytest.mark.slow] if starts_a_study else [])


@pytest.mark.parametrize("page", [page_to_run(page) for page in PAGES if page not in ELSEWHERE and runs(page)])
def test_the_blocks_of_a_page_run_in_order(page: str, folder: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if reason(block.code) or block.language in OUTPUT:
            continue
        file = block.title or "".join(re.findall(r'^"""(\w+\.py): ', block.code))
        if file:
            (folder / file).write_text(small(block.code))
        elif block.language == "python":
            exec(block.code.replace("trials=8", "trials=1"), names)
        elif block.language == "sh":
            script = "\n".join(lines(block)).replace(DATABASE, f"sqlite:///{folder}/study.db")
            script = script.replace("/shared/", f"{folder}/shared/")
            done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, (script, done.stdout, done.stderr)


def test_own_loop_draws_its_preview(folder: Path) -> None:
    """The check above sees only errors."""
    (drawing, *_) = (block for block in blocks("docs/own_loop.md") if "write_html" in block.code)
    subprocess.run([sys.executable, "-W", "error", "-c", drawing.code], check=True, timeout=300, cwd=folder)
    assert (folder / "rates.html").exists()
