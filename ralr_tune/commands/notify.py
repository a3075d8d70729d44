"""`--notify URL|COMMAND`: says once that a study has ended, has failed, or that its verdict stands.

What was said is remembered in OUT/notified.json, by hashes: the URL of a webhook is a secret.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ralr_tune.commands.status import Status, study_status
from ralr_tune.commands.verdict import stored_card
from ralr_tune.errors import RalrTuneError, TrialError, UsageError
from ralr_tune.machine.files import write
from ralr_tune.machine.locks import locked
from ralr_tune.secrecy import MASK, hidden, masked_webhook, secret_from_environment
from ralr_tune.store.database import Storage
from ralr_tune.store.failures import retry_for

log = logging.getLogger(__name__)

VARIABLE = "RALR_TUNE_NOTIFY"
"""Where to notify without `--notify`, one a line; with _FILE, a file that holds it."""
FILE = "notified.json"
TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
PAUSES_S = (1.0, 4.0)
"""Between the tries of one request."""
_LATER = (408, 425, 429)
"""HTTP statuses that mean: try again."""


@dataclass(frozen=True)
class Recipient:
    """A URL or a command. Shown without its secrets."""

    given: str = field(repr=False)

    @property
    def is_url(self) -> bool:
        return "://" in self.given.split()[0]

    def __str__(self) -> str:
        if not self.is_url:
            return shlex.split(self.given)[0]
        return masked_webhook(self.given)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.given.encode(errors="backslashreplace")).hexdigest()[:16]


def parse_recipients(given: Sequence[str], option: str = "--notify") -> list[Recipient]:
    """The recipients of `given`, or otherwise of RALR_TUNE_NOTIFY. Raises UsageError, beginning with `option`."""
    texts = list(given) or (secret_from_environment(VARIABLE) or "").splitlines()
    return [_parse(text.strip(), option) for text in texts if text.strip() or given]


def shown_words(given: Sequence[str]) -> list[str]:
    """The recipients as they may be printed: the secret part of a URL is masked."""
    return [str(Recipient(text)) if "://" in text else text for text in given if text.strip()]


def _parse(text: str, option: str) -> Recipient:
    if MASK in text:
        raise UsageError(f"{option}: {MASK} stands for a secret; write it, or set {VARIABLE}")
    if not text:
        raise UsageError(f"{option}: is empty; allowed: a URL (http, https), or a command")
    recipient = Recipient(text)
    if recipient.is_url:
        _check_url(text, option)
        return recipient
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option}: not a command: {error}") from None
    if shutil.which(words[0]) is None:
        raise UsageError(f"{option} {words[0]}: no such program; allowed: a URL (http, https), or a command")
    return recipient


def _check_url(text: str, option: str) -> None:
    """Raises UsageError. Whatever follows the host may be a secret, and is masked in all that is printed."""
    scheme = text.partition("://")[0]
    masked_webhook(text)
    if scheme.lower() not in ("http", "https"):
        raise UsageError(f"{option} {scheme[:20]}://...: allowed: http and https URLs, or a command")
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_whole = False
    if not is_whole or any(char.isspace() for char in text):
        raise UsageError(f"{option} {scheme}://...: not a URL; allowed: https://HOST/PATH")


@dataclass
class Notifier:
    """Notifies every recipient of a study's events. Never raises."""

    recipients: Sequence[Recipient]
    storage: Storage
    study: str
    out: Path
    sleep: Callable[[float], None] = time.sleep

    def failed(self, error: BaseException) -> None:
        """The study ended by an error."""
        self._notify("failed", lambda: str(error), why=None if isinstance(error, TrialError) else str(error))

    def ended(self, *, confirm: bool = True) -> None:
        """The workers are done: the verdict stands, or (without `confirm`) the search has ended. Otherwise nothing."""
        self._notify("verdict" if confirm else "ended", lambda: _answer(self.storage, self.study))

    def of_status(self, status: Status) -> None:
        """What a mirror has seen: the study is done, or a trial has failed and ended it."""
        failed = next((row for row in status.rows if row.outcome == "failed"), None)
        if failed is None:
            self.ended()
        else:
            self._notify("failed", lambda: f"{failed.failure}: {failed.message}")

    def _notify(self, event: str, answer: Callable[[], str], why: str | None = None) -> None:
        """`why`: what tells this event from others of its kind; None: what is stored."""
        if not self.recipients:
            return
        try:
            with retry_for(TIMEOUT_S):
                status = study_status(self.storage, self.study)
                if not _has_happened(event, status):
                    return
                message = _message(event, status, hidden(answer()), self.out / "report.html")
            mark = _mark(event, status, why)
        except RalrTuneError as error:
            if event != "failed":
                log.warning("nothing was notified: %s", error)
                return
            message = _lost_message(self.study, hidden(answer()), self.out)
            mark = _mark(event, None, why or message["answer"])
        self._deliver(message, mark)

    def _deliver(self, message: Mapping[str, Any], mark: str) -> None:
        for recipient in self.recipients:
            try:
                with locked(self.out / ".notified.lock", remove=False):
                    self._once(recipient, message, mark)
            except OSError:  # no folder, or a file system without locks
                self._once(recipient, message, mark)

    def _once(self, recipient: Recipient, message: Mapping[str, Any], mark: str) -> None:
        said = _read(self.out / FILE)
        key = f"{recipient.digest}:{self.study}"
        if mark in said.get(key, ()):
            return
        problem = send(recipient, message, self.sleep)
        if problem is not None:
            log.warning("--notify %s: %s; the study is not affected", recipient, hidden(problem))
            return
        said[key] = [*said.get(key, ()), mark][-20:]
        with suppress(RalrTuneError):
            write(self.out / FILE, json.dumps(said).encode())


def send(recipient: Recipient, message: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> str | None:
    """Deliver a message; why it could not be, or None."""
    body = json.dumps(message).encode()
    if not recipient.is_url:
        return _run(recipient, message, body)
    problem, tries = "", [*PAUSES_S, None]
    for pause_s in tries:
        found = _post(recipient.given, body)
        if found is None:
            return None
        problem, is_final = found
        if is_final or pause_s is None:
            break
        sleep(pause_s)
    return problem


def _post(url: str, body: bytes) -> tuple[str, bool] | None:
    """None if the server took it; otherwise why not, and whether another try is useless."""
    request = Request(url, body, {"Content-Type": "application/json", "User-Agent": "ralr-tune"}, method="POST")
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            answer.read(1000)
        return None
    except HTTPError as error:
        return f"HTTP status {error.code}", error.code < 500 and error.code not in _LATER
    except Exception as error:  # an URLError, a timeout, a reset connection, an answer that is no HTTP
        return str(getattr(error, "reason", error)) or type(error).__name__, False


def _run(recipient: Recipient, message: Mapping[str, Any], body: bytes) -> str | None:
    names = ("study", "event", "state", "answer", "report")
    environment = {f"RALR_TUNE_NOTIFY_{name.upper()}": str(message[name]) for name in names}
    try:
        done = subprocess.run(
            shlex.split(recipient.given),
            input=body,
            env=os.environ | environment,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {COMMAND_TIMEOUT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0:
        return None
    last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
    return ": ".join([f"exit code {done.returncode}", *(line[:200] for line in last)])


def _has_happened(event: str, status: Status) -> bool:
    if event == "ended":  # of the search, without confirmation
        return status.stage != "search" and not status.running
    return event == "failed" or status.stage == "done"


def _message(event: str, status: Status, answer: str, report: Path) -> dict[str, Any]:
    """`text` is what Slack and Mattermost show."""
    name = status.study if status.generation == 1 else f"{status.study}@{status.generation}"
    return {
        "text": f"{name}: {_WORDS[event]}. {answer}",
        "study": status.study,
        "generation": status.generation,
        "event": event,
        "state": status.stage,
        "arms": status.as_json()["arms"],
        "answer": answer,
        "report": str(report.absolute()),
    }


_WORDS = {"verdict": "the verdict stands", "ended": "the search has ended", "failed": "failed"}


def _lost_message(study: str, answer: str, out: Path) -> dict[str, Any]:
    """What can be said of a failure while the database does not answer."""
    report = str((out / "report.html").absolute())
    more: dict[str, Any] = {
        "generation": None,
        "event": "failed",
        "state": "unknown",
        "arms": {},
        "answer": answer,
        "report": report,
    }
    return {"text": f"{study}: failed. {answer}", "study": study, **more}


def _answer(storage: Storage, study: str) -> str:
    return " ".join(stored_card(storage, study).sentences)


def _mark(event: str, status: Status | None, why: str | None) -> str:
    """The same for the same event, also when `run` is started again: it names what was done until then."""
    if why is not None or status is None:
        what = why or ""
    elif event == "failed" and status.latest is not None:
        what = f"{status.latest.row}.{status.latest.attempt}.{status.latest.kind}"
    else:
        done = [row for row in status.rows if row.state == "done"]
        what = f"{len(done)}.{max((row.finished or 0.0 for row in done), default=0.0):.3f}"
    generation = 0 if status is None else status.generation
    return f"{event}.{generation}." + hashlib.sha256(what.encode(errors="backslashreplace")).hexdigest()[:16]


def _read(file: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
