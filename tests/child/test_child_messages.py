from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ralr_tune.child.messages import Final, Log, Message, Refused, Report, Steps, parse
from tests.fuzz import AT_RANDOM


def line(**keys: Any) -> bytes:
    return json.dumps({"v": 1, "type": "report", "epoch": 1, "value": 0.5} | keys).encode()


def test_a_report_and_a_test_value() -> None:
    assert parse(line(loss=0.2, seconds=1, checkpoint="a.pt")) == Report(1, 0.5, 0.2, 1.0, "a.pt")
    assert parse(b'{"v": 1, "type": "test", "value": 2}') == Final(2.0)
    assert math.isnan(parse(line(value=None)).value)
    assert parse(line(value=math.inf)).value == math.inf


def test_other_metrics_and_steps() -> None:
    assert parse(line(metrics={"top 5": 1, "f1/macro": 0.5})).metrics == {"top 5": 1.0, "f1/macro": 0.5}  # type: ignore[union-attr]
    assert parse(b'{"v": 1, "type": "log", "step": 3, "metrics": {"loss": 0.5}}') == Log(3, {"loss": 0.5})
    assert parse(b'{"v": 1, "type": "steps", "steps_per_epoch": 9}') == Steps(9)


def test_a_message_of_another_trial_is_refused() -> None:
    assert parse(line(token="now"), "now") == parse(line(), "now") == parse(line())
    with pytest.raises(Refused, match="token: of another trial, which is over"):
        parse(line(token="before"), "now")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"\xff", "not a JSON object in UTF-8"),
        (b"[" * 60000, "not a JSON object in UTF-8"),
        (b"3", "not a JSON object"),
        (line(v=2), "v = 2: must be 1"),
        (line(type="tell"), 'type = "tell"; allowed: report, log, test, steps, ready, failed'),
        (line(type=[]), r"type = \[\]; allowed"),
        (line(accuracy=1), '"accuracy": unknown key; allowed: checkpoint, epoch, loss, metrics, seconds, value'),
        (b'{"v": 1, "type": "test"}', "value is missing"),
        (line(value="0.5"), 'value = "0.5": must be a number'),
        (line(value=True), "value = true: must be a number"),
        (line(value=10**400), "value: too large"),
        (line(epoch=0), "epoch = 0: must be a whole number from 1"),
        (line(epoch=1.0), "epoch = 1.0: must be a whole number"),
        (line(seconds=-1), "seconds = -1: must be 0 or more"),
        (line(seconds=math.nan), "seconds = NaN: must be 0 or more"),
        (line(checkpoint=""), 'checkpoint = "": must be a path'),
        (line(checkpoint="a\0"), "checkpoint: must not contain NUL"),
        (line(metrics=[1]), r"metrics = \[1\]: must be an object with at most 20 numbers by name"),
        (line(metrics={"a": "b"}), 'a = "b": must be a number'),
        (line(metrics={"": 1}), 'metrics: "": not a valid name: letters, digits'),
        (line(metrics={str(name): 1 for name in range(21)}), "must be an object with at most 20 numbers"),
        (b'{"v": 1, "type": "log", "step": -1, "metrics": {"a": 1}}', "step = -1: must be a whole number from 0"),
        (b'{"v": 1, "type": "log", "step": 1}', "metrics is missing or empty"),
        (b'{"v": 1, "type": "steps", "steps_per_epoch": 0}', "steps_per_epoch = 0: must be a whole number from 1 to"),
        (b'{"v": 1, "type": "ready", "x": 1}', '"x": unknown key$'),
        (b'{"v": 1, "type": "failed", "kind": "lost"}', 'kind = "lost"; allowed: bug, data, diverged, oom'),
        (b'{"v": 1, "type": "failed", "kind": "bug"}', "message = null: must be a text"),
        (line(checkpoint="a" * 5000), "checkpoint = .*…: must be a path of at most 4096"),
    ],
)
def test_wrong_messages(wrong: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse(wrong)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=not AT_RANDOM)  # busy machines are slow
@given(
    st.dictionaries(
        st.sampled_from(
            ["v", "type", "epoch", "value", "loss", "seconds", "checkpoint", "step", "metrics", "kind", "x"]
        ),
        _JSON,
    )
)
def test_any_object_is_a_message_or_refused(content: dict[str, Any]) -> None:
    try:
        found = parse(json.dumps({"v": 1, "type": "report"} | content).encode())
    except Refused:
        return
    assert isinstance(found, Message)
