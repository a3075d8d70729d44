"""Words of others on a terminal: no secret, no command to the terminal, no markup."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ralr_tune.commands import progress
from ralr_tune.commands.terminal import readable
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.secrecy import remember
from tests.commands.conftest import Cli
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]

HARM = "\x1b]0;owned\x07\x1b[2J\u202e"
WORDS = f"[/no/such/tag] [bold]loud[/bold] :skull: {HARM} Xq7-9wKz postgresql://me:hush@h/d"
SHOWN = "[/no/such/tag] [bold]loud[/bold] :skull: \\x1b]0;owned\\x07\\x1b[2J\\u202e *** postgresql://me:***@h/d"


@pytest.fixture(autouse=True)
def secret() -> None:
    remember("Xq7-9wKz")


def test_lines_stay_lines_and_show_what_they_hold() -> None:
    assert readable(f"{WORDS}\n\n  é ▁█\tx\n") == f"{SHOWN}\n\n  é ▁█\\tx"


def failed(session: Session, words: str, *, detail: str = "") -> Row:
    row = session.ledger.claim(f"{socket.gethostname()}:1:0", "search")
    assert row is not None
    session.ledger.fail(row, kind="bug", message=words, retry=False, detail=detail)
    return row


@pytest.fixture
def told(make_session: MakeSession, tmp_path: Path, cli_inside: Cli) -> Callable[..., str]:
    """What a command prints of the study, whose only failure says WORDS and whose worker wrote them to its log."""
    session = make_session(simulated())
    failed(session, WORDS)
    (tmp_path / "out/logs").mkdir(parents=True)
    (tmp_path / "out/logs/worker-0.log").write_text(f"{WORDS}\n")

    def tell(*arguments: str) -> str:
        ran = cli_inside(*arguments, "--storage", session.storage.url, "--out", tmp_path / "out")
        assert ran.code == 0, ran.err
        return ran.out

    return tell


def test_status_shows_a_failure_and_the_end_of_its_log(told: Callable[..., str]) -> None:
    lines = told("status", "sim").splitlines()
    assert f"  search monotone 0 failed (bug): {SHOWN}" in lines
    assert lines[-1] == f"    {SHOWN}"  # of the log


def test_repair_shows_a_failure(told: Callable[..., str]) -> None:
    assert f"failed at attempt 1 (bug): {SHOWN} -> left" in told("repair", "sim", "--dry-run")


def test_watching_shows_a_failure_and_no_markup(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(simulated())
    failed(session, WORDS, detail=f"Traceback\n{WORDS}")
    screen = io.StringIO()
    plain = progress.plain_console
    monkeypatch.setattr(progress, "plain_console", lambda **options: _on(plain(**options), screen))
    progress.watch_study(session.storage, "sim")
    lines = screen.getvalue().splitlines()
    assert f"  search monotone 0 failed (bug): {SHOWN}" in lines
    assert lines[-1] == f"    {SHOWN}"  # of the traceback


def _on(console: Console, screen: io.StringIO) -> Console:
    console.file = screen
    return console
