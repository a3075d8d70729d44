"""The messages between a worker and the program that it started: one JSON object a line, at most MAX_BYTES.

The program sends, with `"v": 1`:

    {"v": 1, "type": "report", "epoch": 3, "value": 0.91, "loss": 0.2, "seconds": 1.5, "checkpoint": "epoch3.pt"}
    {"v": 1, "type": "test", "value": 0.9}

`loss`, `seconds` and `checkpoint` may be left out or null. A value that is not finite is NaN, Infinity or null. Every
message is answered: {"v": 1, "answer": "continue"}, "stop", "release" or, with a "message", "error".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from ralr_tune.client import VERSION

MAX_BYTES = 64 * 1024
"""Maximum length of a line."""
MAX_PATH = 4096
"""Maximum number of characters of a checkpoint's path."""

Answer = Literal["continue", "stop", "release"]


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


@dataclass(frozen=True)
class Final:
    """The metric on the test split."""

    value: float


Message = Report | Final

_KEYS = {"report": {"epoch", "value", "loss", "seconds", "checkpoint"}, "test": {"value"}}


def parse(line: bytes) -> Message:
    """The message of a line. Raises Refused, naming key, value and what is allowed."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("not a JSON object in UTF-8") from None
    if not isinstance(found, dict):
        raise Refused("not a JSON object")
    if found.get("v") != VERSION:
        raise Refused(f"v = {_shown(found.get('v'))}: must be {VERSION}")
    kind = found.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise Refused(f"type = {_shown(kind)}; allowed: {', '.join(_KEYS)}")
    if unknown := sorted(found.keys() - _KEYS[kind] - {"v", "type"}):
        raise Refused(f"{_shown(unknown[0])}: unknown key; allowed: {', '.join(sorted(_KEYS[kind]))}")
    if "value" not in found:
        raise Refused("value is missing")
    value = _number(found, "value")
    return Final(value) if kind == "test" else _report(found, value)


def _report(found: dict[str, Any], value: float) -> Report:
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
    return Report(epoch, value, loss, None if seconds is None else float(seconds), checkpoint)


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


def answered(answer: Answer) -> bytes:
    """The line of an answer."""
    return _line({"v": VERSION, "answer": answer})


def refused(message: str) -> bytes:
    """The line of a refusal."""
    return _line({"v": VERSION, "answer": "error", "message": message})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
