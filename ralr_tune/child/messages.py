"""The messages between a worker and the program that it started: one JSON object a line, at most MAX_BYTES.

The program sends, with `"v": 1`:

    {"v": 1, "type": "report", "epoch": 3, "value": 0.91, "loss": 0.2, "seconds": 1.5, "checkpoint": "epoch3.pt"}
    {"v": 1, "type": "log", "step": 120, "metrics": {"loss": 0.3}}
    {"v": 1, "type": "test", "value": 0.9}
    {"v": 1, "type": "steps", "steps_per_epoch": 50}

In a report, only `epoch` and `value` are needed; `metrics` may be added. A value that is not finite is NaN, Infinity or
null. Every message may have the `token` of the trial's description: then it is refused in every other trial.
A process that serves one trial after another (see `served`) sends two more:

    {"v": 1, "type": "ready"}
    {"v": 1, "type": "failed", "kind": "oom", "message": "..."}

Every message is answered: {"v": 1, "answer": "continue"}, "stop", "release" or, with a "message", "error". The answer
to `steps` has the path of a file as "schedule", that to `ready` the path of a trial's description as "trial".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ralr_tune.client import VERSION
from ralr_tune.errors import FailureKind

MAX_BYTES = 64 * 1024
"""Maximum length of a line."""
MAX_PATH = 4096
"""Maximum number of characters of a checkpoint's path."""
MAX_STEPS = 1_000_000
"""Maximum number of steps of an epoch."""
MAX_METRICS = 20
"""Metrics of one message, besides the study's."""

Answer = Literal["continue", "stop", "release"]
_FAILURES: tuple[FailureKind, ...] = ("bug", "data", "diverged", "oom")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/ -]{0,63}")


class Refused(Exception):
    """A message is wrong; the program gets the text as an answer."""


@dataclass(frozen=True)
class Report:
    """The result of one epoch."""

    epoch: int
    """From 1."""
    value: float
    """May be NaN or infinite."""
    loss: float
    """Mean training loss; NaN if it was not reported."""
    seconds: float | None
    checkpoint: str | None
    """The file or folder with the state after this epoch, as the program named it."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Other metrics by name: shown, never judged."""


@dataclass(frozen=True)
class Log:
    """Metrics of one step: shown, never judged."""

    step: int
    """Counted by the program, over the whole run."""
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Final:
    """The metric on the test split."""

    value: float


@dataclass(frozen=True)
class Steps:
    """The program asks for the schedule of every step."""

    steps_per_epoch: int


@dataclass(frozen=True)
class Ready:
    """A process that serves one trial after another waits for the next one."""


@dataclass(frozen=True)
class Failed:
    """The trial failed, and its process knows why."""

    kind: FailureKind
    message: str


Message = Report | Log | Final | Steps | Ready | Failed


def parse(line: bytes, token: str | None = None) -> Message:
    """The message of a line. Raises Refused, naming key, value and what is allowed.

    `token`: that of the trial; a message with another one is refused.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("not a JSON object in UTF-8") from None
    if not isinstance(found, dict):
        raise Refused("not a JSON object")
    if found.get("v") != VERSION:
        raise Refused(f"v = {_shown(found.get('v'))}: must be {VERSION}")
    kind = found.get("type")
    if not isinstance(kind, str) or kind not in _PARSERS:
        raise Refused(f"type = {_shown(kind)}; allowed: {', '.join(_PARSERS)}")
    keys, read = _PARSERS[kind]
    if unknown := sorted(found.keys() - keys - {"v", "type", "token"}):
        allowed = f"; allowed: {', '.join(sorted(keys))}" if keys else ""
        raise Refused(f"{_shown(unknown[0])}: unknown key{allowed}")
    if token is not None and found.get("token", token) != token:
        raise Refused("token: of another trial, which is over")
    return read(found)


def _report(found: dict[str, Any]) -> Report:
    value = _value(found)
    epoch, checkpoint, seconds = found.get("epoch"), found.get("checkpoint"), found.get("seconds")
    if type(epoch) is not int or epoch < 1:
        raise Refused(f"epoch = {_shown(epoch)}: must be a whole number from 1")
    if checkpoint is not None and not (isinstance(checkpoint, str) and 0 < len(checkpoint) <= MAX_PATH):
        raise Refused(f"checkpoint = {_shown(checkpoint)}: must be a path of at most {MAX_PATH} characters")
    if checkpoint is not None and "\0" in checkpoint:
        raise Refused("checkpoint: must not contain NUL")
    if seconds is not None and not 0 <= _number(found, "seconds") < math.inf:
        raise Refused(f"seconds = {_shown(seconds)}: must be 0 or more")
    loss = _number(found, "loss") if "loss" in found else math.nan
    return Report(epoch, value, loss, None if seconds is None else float(seconds), checkpoint, _metrics(found))


def _log(found: dict[str, Any]) -> Log:
    step = found.get("step")
    if type(step) is not int or not 0 <= step < 2**63:
        raise Refused(f"step = {_shown(step)}: must be a whole number from 0")
    if not found.get("metrics"):
        raise Refused("metrics is missing or empty")
    return Log(step, _metrics(found))


def _steps(found: dict[str, Any]) -> Steps:
    steps = found.get("steps_per_epoch")
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise Refused(f"steps_per_epoch = {_shown(steps)}: must be a whole number from 1 to {MAX_STEPS}")
    return Steps(steps)


def _failed(found: dict[str, Any]) -> Failed:
    kind, message = found.get("kind"), found.get("message")
    if kind not in _FAILURES:
        raise Refused(f"kind = {_shown(kind)}; allowed: {', '.join(_FAILURES)}")
    if not isinstance(message, str):
        raise Refused(f"message = {_shown(message)}: must be a text")
    return Failed(kind, message)


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    metrics = found.get("metrics", {})
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS:
        raise Refused(f"metrics = {_shown(metrics)}: must be an object with at most {MAX_METRICS} numbers by name")
    for name in metrics:
        if not _NAME.fullmatch(name):
            allowed = "letters, digits, spaces and . _ / -, a letter or digit first, at most 64 characters"
            raise Refused(f"metrics: {_shown(name)}: not a valid name: {allowed}")
    return {name: _number(metrics, name) for name in metrics}


def _value(found: dict[str, Any]) -> float:
    if "value" not in found:
        raise Refused("value is missing")
    return _number(found, "value")


_PARSERS: Mapping[str, tuple[frozenset[str], Callable[[dict[str, Any]], Message]]] = {
    "report": (frozenset({"epoch", "value", "loss", "seconds", "checkpoint", "metrics"}), _report),
    "log": (frozenset({"step", "metrics"}), _log),
    "test": (frozenset({"value"}), lambda found: Final(_value(found))),
    "steps": (frozenset({"steps_per_epoch"}), _steps),
    "ready": (frozenset(), lambda found: Ready()),
    "failed": (frozenset({"kind", "message"}), _failed),
}


def _number(found: dict[str, Any], key: str) -> float:
    value = found[key]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{key} = {_shown(value)}: must be a number")
    try:
        return float(value)
    except OverflowError:
        raise Refused(f"{key}: too large for a floating-point number") from None


def answered(answer: Answer, **more: str) -> bytes:
    """The line of an answer; `more`: further keys of it."""
    return _line({"v": VERSION, "answer": answer, **more})


def refused(message: str) -> bytes:
    """The line of a refusal."""
    return _line({"v": VERSION, "answer": "error", "message": message})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
