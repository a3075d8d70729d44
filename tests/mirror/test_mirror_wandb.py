"""What W&B writes offline, read back record by record and compared with the ledger value by value.

Nothing here reaches its server: resuming online is not tested.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import UsageError
from ralr_tune.mirror.targets import parse_targets
from ralr_tune.mirror.wandb import WandB
from ralr_tune.store.database import Storage
from tests.mirror.studies import Values, expected, library, mirror, outcomes, parameters, tracked, whole

library("wandb")

_BLOCK, _HEADER = 32768, 7


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


def records(file: Path) -> Iterator[Any]:
    """The records of a run's file, which is a LevelDB log: blocks of 32 kB, each fragment with CRC, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = file.read_bytes(), _HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + _HEADER])
        parts += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # a whole record, or its last fragment
            yield Record.FromString(parts)
            parts = b""


def read_back(folder: Path) -> tuple[Values, dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Values, summaries and configurations by run."""
    values: Values = {}
    summaries, configs, ids = {}, {}, []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        name, number, summary, config = "", "", {}, {}
        history: list[dict[str, Any]] = []
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
                number = record.run.run_id
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "config":
                config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "history":
                items = record.history.item
                history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            elif kind == "summary":
                summary |= {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
                }
        for row in history:
            for metric, value in row.items():
                if not metric.startswith("_") and metric != "epoch":
                    steps = values.setdefault((name, metric), {})
                    assert row["epoch"] not in steps, f"{name} {metric}: a point twice"
                    steps[row["epoch"]] = value
        ids.append(number)
        summaries[name], configs[name] = summary, config
    assert len(set(ids)) == len(ids), "a run twice"
    return values, summaries, configs


def check(storage: Storage, folder: Path) -> None:
    values, summaries, configs = read_back(folder)
    assert values == expected(storage)
    assert {name: summaries[name]["outcome"] for name in outcomes(storage)} == outcomes(storage)
    for name, found in parameters(storage).items():
        assert configs[name].items() >= found.items()
        assert configs[name]["arm"] == name.partition("/")[0]
    assert "ralr's recipe by" in summaries["study"]["verdict"]


def test_a_study_through_killed_mirrors(finished: Storage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    tracker = WandB(tracked(finished), "project", out)
    for run in whole(finished)[:2]:
        tracker.send(run, run.points[:3])  # and was killed before the state was saved
    tracker.close()
    (target,) = parse_targets(["wandb=team/project"], out)
    mirror(finished, out, target)
    check(finished, out / "wandb")
    mirror(finished, out, target)
    check(finished, out / "wandb")


def test_without_a_key_it_is_refused_before_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr("ralr_tune.mirror.targets._has_wandb_key", lambda: False)
    with pytest.raises(UsageError, match="--to wandb: no API key: set WANDB_API_KEY"):
        parse_targets(["wandb"], tmp_path)
