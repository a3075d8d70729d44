"""Untrusted text on a terminal: no secrets, no control characters, no markup."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ralr_tune.commands import progress
from ralr_tune.commands.terminal import PLAIN, readable, wrapped
from ralr_tune.invocation import program
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.secrecy import remember
from tests.commands.conftest import Cli
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]

HARM = "\x1b]0;owned\x07\x1b[2J\u202e"
TEXT = f"[/no/such/tag] [bold]loud[/bold] :skull: {HARM} Xq7-9wKz postgresql://me:hush@h/d"
SHOWN = "[/no/such/tag] [bold]loud[/bold] :skull: \\x1b]0;owned\\x07\\x1b[2J\\u202e *** postgresql://me:***@h/d"


@pytest.fixture(autouse=True)
def secret() -> None:
    remember("Xq7-9wKz")


def test_lines_stay_lines_with_escaped_characters() -> None:
    assert readable(f"{TEXT}\n\n  é ▁█\tx\n") == f"{SHOWN}\n\n  é ▁█\\tx"


def test_lines_break_between_words_and_commands_stay_whole() -> None:
    command = f"  Train it: {program()} train runs/digits/best/ralr.toml"
    text = f"  a-hyphenated word and another-one\n{command}"
    assert wrapped(text, 20).splitlines() == ["  a-hyphenated word", "  and another-one", command]
    assert wrapped(text, None) == text


def failed(session: Session, text: str, *, detail: str = "") -> Row:
    row = session.ledger.claim(f"{socket.gethostname()}:1:0", "search")
    assert row is not None
    session.ledger.fail(row, kind="bug", message=text, retry=False, detail=detail)
    return row


@pytest.fixture
def printed(make_session: MakeSession, tmp_path: Path, cli_inside: Cli) -> Callable[..., str]:
    """Output of a command for a study whose only failure and whose worker's log contain TEXT."""
    session = make_session(simulated())
    failed(session, TEXT)
    (tmp_path / "out/logs").mkdir(parents=True)
    (tmp_path / "out/logs/worker-0.log").write_text(f"{TEXT}\n")

    def run_command(*arguments: str) -> str:
        ran = cli_inside(*arguments, "--storage", session.storage.url, "--out", tmp_path / "out")
        assert ran.code == 0, ran.err
        return ran.out

    return run_command


def test_status_shows_a_failure_and_the_end_of_its_log(printed: Callable[..., str]) -> None:
    lines = printed("status", "sim").splitlines()
    assert f"  search monotone 0 failed (bug): {SHOWN}" in lines
    assert lines[-1] == f"    {SHOWN}"  # of the log


def test_repair_shows_a_failure(printed: Callable[..., str]) -> None:
    assert f"failed at attempt 1 (bug): {SHOWN} -> left" in printed("repair", "sim", "--dry-run")


def test_watching_shows_a_failure_and_no_markup(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(simulated())
    failed(session, TEXT, detail=f"Traceback\n{TEXT}")
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


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "by -0.3, +/-0.5 [--o--|:: ..._- \\xe9 \\ud800"),
        ("latin-1", "by -0.3, \xb10.5 [--o--|:: ..._- \xe9 \\ud800"),
        ("utf-8", "by \N{MINUS SIGN}0.3, \xb10.5 ├──●──│░░ …▁▃ \xe9 \\ud800"),
    ],
)
def test_what_an_encoding_lacks_is_shown_in_plain_characters(encoding: str, shown: str) -> None:
    text = "by \N{MINUS SIGN}0.3, \xb10.5 ├──●──│░░ …▁▃ \xe9 \ud800"
    assert text.encode(encoding, PLAIN).decode(encoding) == shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["range", "digits", "--steps", "60"], "--steps 60: allowed: greater than or equal to 100"),
        (["range", "digits", "--steps=6O"], "--steps 6O: allowed: a valid integer"),
        (["preview", "digits", "--count", "0"], "--count 0: allowed: greater than or equal to 1"),
        (["export", "digits", "--format", "jsn"], "--format jsn: "),
    ],
)
def test_a_refused_option_is_shown_with_its_value_and_what_is_allowed(cli: Cli, words: list[str], line: str) -> None:
    refused = cli(*words)
    assert refused.code == 2
    assert refused.err.startswith(f"error: {line}")
    assert len(refused.err.splitlines()) == 1
