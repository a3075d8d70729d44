"""Who hears what of a study, how often, and what happens if they do not answer."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import ralr_tune
from ralr_tune.commands import notify
from ralr_tune.commands.arguments import conceal
from ralr_tune.commands.locate import StudyLocation
from ralr_tune.commands.mirror import mirror_study
from ralr_tune.commands.notify import Notifier, Recipient, parse_recipients, send
from ralr_tune.errors import StorageError, TrialError, UsageError
from ralr_tune.search.session import Session
from ralr_tune.search.stopping import Stop
from ralr_tune.secrecy import hidden
from tests.commands.conftest import Cli
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]

SMALL: dict[str, Any] = {"search": {"trials": 2}, "confirm": {"top": 1, "seeds": 2}, "training": {"epochs": 1}}
RUN: dict[str, Any] = {"workers": 1, "launcher": "inprocess", "progress": False}


class Webhook:
    """A server on the loopback; `answers`: the HTTP statuses of its first answers, then 200."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/json"
                hook.received.append(json.loads(body))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/T0/s3cret"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    for name in (notify.VARIABLE, f"{notify.VARIABLE}_FILE", "http_proxy", "HTTP_PROXY", "RALR_TUNE_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    made = Webhook()
    yield made
    made.close()


def test_a_run_tells_once_that_its_verdict_stands(hook: Webhook, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        report = ralr_tune.run(simulated(**SMALL), out=out, notify=hook.url, **RUN)
    (said,) = hook.received
    assert said["answer"] == report.answer
    assert said["text"] == f"sim: the verdict stands. {report.answer}"
    assert (said["study"], said["event"], said["state"]) == ("sim", "verdict", "done")
    assert said["report"] == str(out / "report.html")
    assert said["arms"]["ralr"]["complete"] == 2
    for file in out.rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file
    more = {**SMALL, "confirm": {"top": 1, "seeds": 3}}
    ralr_tune.run(simulated(**more), out=out, notify=hook.url, **RUN)  # more evidence: another verdict
    assert [said["event"] for said in hook.received] == ["verdict", "verdict"]


def test_a_run_without_confirmation_tells_that_the_search_has_ended(hook: Webhook, tmp_path: Path) -> None:
    ralr_tune.run(simulated(**SMALL), out=tmp_path, notify=[hook.url, hook.url + "2"], confirm=False, **RUN)
    assert [said["event"] for said in hook.received] == ["ended", "ended"]


@pytest.fixture
def failed(make_session: MakeSession) -> Session:
    session = make_session(simulated())
    row = session.ledger.claim("me", "search")
    assert row is not None
    session.ledger.fail(row, kind="bug", message="IndexError: torn", retry=False)
    return session


def notifier(session: Session, *urls: str) -> Notifier:
    return Notifier(parse_recipients(urls), session.storage, "sim", session.out, sleep=lambda pause_s: None)


def test_a_failure_is_told_once_by_run_and_mirror_together(hook: Webhook, failed: Session) -> None:
    notifier(failed, hook.url).failed(TrialError("bug", "worker 0 ended with exit code 1: IndexError: torn"))
    where = StudyLocation("sim", None, failed.storage.url, failed.out)
    for _ in range(2):
        mirror_study(where, [], parse_recipients([hook.url]), stop=Stop())
    (said,) = hook.received
    assert (said["event"], said["state"], said["arms"]["monotone"]["failed"]) == ("failed", "search", 1)
    assert "IndexError: torn" in said["text"]
    failed.ledger.reopen_failed()
    row = failed.ledger.claim("me", "search")
    assert row is not None
    failed.ledger.fail(row, kind="bug", message="IndexError: torn", retry=False)
    mirror_study(where, [], parse_recipients([hook.url]), stop=Stop())  # it was tried again, and failed again
    assert len(hook.received) == 2


def test_a_database_that_is_lost_is_a_failure(hook: Webhook, failed: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise StorageError("postgresql://db: refused")

    monkeypatch.setattr(notify, "study_status", away)
    for _ in range(2):
        notifier(failed, hook.url).failed(StorageError("postgresql://db: refused"))
    (said,) = hook.received
    assert (said["event"], said["answer"]) == ("failed", "postgresql://db: refused")


@pytest.mark.parametrize(
    ("answers", "tries", "why"),
    [([200], 1, None), ([503, 429, 200], 3, None), ([404], 1, "HTTP status 404"), ([500] * 4, 3, "HTTP status 500")],
)
def test_a_request_is_tried_a_few_times(hook: Webhook, answers: list[int], tries: int, why: str | None) -> None:
    hook.answers = list(answers)
    assert send(Recipient(hook.url), {"text": "x"}, sleep=lambda pause_s: None) == why
    assert len(hook.received) == tries


def test_who_does_not_answer_gets_one_line_and_is_told_later(
    hook: Webhook, failed: Session, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [500] * 3
    dead = "http://127.0.0.1:9/services/T0/s3cret"
    notifier(failed, hook.url, dead).failed(TrialError("bug", "torn"))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[0] for line in lines] == ["--notify http://127.0.0.1/***"] * 2
    assert "HTTP status 500; the study is not affected" in lines[0]
    assert "refused" in lines[1]
    assert "s3cret" not in caplog.text
    notifier(failed, hook.url).failed(TrialError("bug", "torn"))
    assert len(hook.received) == 4


def test_a_command_gets_the_message_and_its_failure_is_one_line(
    failed: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "tell me.py"
    script.write_text(
        "import json, os, sys\nsaid = json.load(sys.stdin)\n"
        "assert os.environ['RALR_TUNE_NOTIFY_ANSWER'] == said['answer']\n"
        "print(said['study'], os.environ['RALR_TUNE_NOTIFY_EVENT'], file=open('told', 'a'))\n"
        "sys.exit('the printer is on fire' if len(sys.argv) > 1 else 0)\n"
    )
    command = shlex.join([sys.executable, str(script)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for _ in range(2):
            notifier(failed, command, f"{command} now").failed(TrialError("bug", "torn"))
    assert (tmp_path / "told").read_text() == "sim failed\n" * 3
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"--notify {sys.executable}: exit code 1: the printer is on fire; the study is not affected"] * 2


def test_a_failing_notification_does_not_change_the_exit_code(cli: Cli, study_file: Callable[..., Path]) -> None:
    study_file(**SMALL)
    options = ("--workers", 1, "--launcher", "inprocess", "--no-confirm", "--quiet")
    ran = cli("run", "sim.toml", *options, "--notify", "http://127.0.0.1:9/s3cret/path", "--notify", "false")
    assert ran.code == 0
    first, second = [line for line in ran.err.splitlines() if "--notify" in line and "study is not affected" in line]
    assert "http://127.0.0.1/***" in first
    assert "--notify false: exit code 1" in second
    assert "s3cret" not in ran.err + ran.out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "is empty; allowed: a URL (http, https), or a command"),
        ("ftp://host/s3cret", "ftp://...: allowed: http and https URLs, or a command"),
        ("https://", "https://...: not a URL; allowed: https://HOST/PATH"),
        ("https:///s3cret", "https://...: not a URL; allowed: https://HOST/PATH"),
        ("http://host:port/s3cret", "http://...: not a URL; allowed: https://HOST/PATH"),
        ("http://host/s3 cret", "http://...: not a URL; allowed: https://HOST/PATH"),
        ("https:///?key=s3cret", "https://...: not a URL; allowed: https://HOST/PATH"),
        ("https://hooks.example.org/***", "*** stands for a secret; write it, or set RALR_TUNE_NOTIFY"),
        ("no-such-program --now", "no-such-program: no such program; allowed: a URL (http, https), or a command"),
        ("echo 'torn", "not a command: No closing quotation"),
    ],
)
def test_a_wrong_recipient_is_refused_before_anything_starts(
    cli_inside: Cli, study_file: Callable[..., Path], tmp_path: Path, given: str, message: str
) -> None:
    study_file()
    for command in (("run", "sim.toml"), ("mirror", "sim.toml")):
        refused = cli_inside(*command, "--notify", given)
        assert refused.code == 2
        (line,) = refused.err.splitlines()
        assert line.startswith("error: --notify")
        assert line.endswith(message)
        assert "s3cret" not in line
    assert not (tmp_path / "runs").exists()


def test_the_environment_names_recipients_and_nothing_shows_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "hooks"
    file.write_text("https://hooks.example.org/s3cret\n\nhttps://me:s3cret2@other.example.org:81?key=s3cret3\n")
    monkeypatch.setenv("RALR_TUNE_NOTIFY_FILE", str(file))
    found = parse_recipients(())
    assert [str(each) for each in found] == ["https://hooks.example.org/***", "https://other.example.org/***"]
    assert "s3cret" not in repr(found)
    assert hidden("at s3cret, s3cret2 of key=s3cret3") == "at ***, s3cret2 of ***"  # the name and password, together
    with pytest.raises(UsageError, match="is empty"):
        parse_recipients([""])


def test_a_url_is_taken_out_of_the_process_list(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("setproctitle.setproctitle", titles.append)
    for words in (["--notify", "https://hooks.example.org/s3cret"], ["--notify=https://hooks.example.org/s3cret"]):
        (warning,) = conceal(["python", "-m", "ralr_tune", "run", "digits", *words])
        assert warning.startswith("warning: --notify shows the secret to other users")
        assert "use RALR_TUNE_NOTIFY or RALR_TUNE_NOTIFY_FILE instead" in warning
    assert titles == [f"python -m ralr_tune run digits --notify{mark}https://hooks.example.org/***" for mark in " ="]
