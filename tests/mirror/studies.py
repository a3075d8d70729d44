"""What the tests of this folder share: a finished study, and what any tracker must have of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.mirror import Mirror
from ralr_tune.mirror.runs import TrackedStudy, run_name, tracked_run
from ralr_tune.records import Row
from ralr_tune.store import studies
from ralr_tune.store.database import Storage
from ralr_tune.store.increments import LiveRows
from ralr_tune.store.reading import read_study

Values = dict[tuple[str, str], dict[int, float]]
"""Value by step, by run and metric."""


def library(name: str) -> Any:
    """The module, or a skip of the whole file that says how to get it."""
    missing = f"{name} is not in this environment: see CONTRIBUTING.md, Integrations"
    return pytest.importorskip(name, reason=missing, exc_type=ImportError)


def tracked(storage: Storage, study: str = "sim") -> TrackedStudy:
    return TrackedStudy(LiveRows(storage, study).ledger.key, studies.stored(storage, study).created, "accuracy")


def expected(storage: Storage, study: str = "sim") -> Values:
    """What the ledger has, read in another way than the mirror reads it."""
    found: Values = {}
    for row in read_study(storage, study).rows():
        for record in row.curve:
            fields = {
                "validation/accuracy": record.value,
                "train/loss": record.train_loss,
                "learning_rate": record.lr,
                "amplification_factor": record.factor,
                "epoch_seconds": record.seconds,
            }
            for metric, value in fields.items():
                if math.isfinite(value):
                    found.setdefault((run_name(row), metric), {})[record.epoch] = value
        for metric, each in _finals(row):
            if each is not None and row.state == "done":
                found[run_name(row), metric] = {row.epoch: each}
    return found


def _finals(row: Row) -> Iterable[tuple[str, float | None]]:
    yield ("test/accuracy" if row.stage == "test" else "final/accuracy", row.value)
    yield "final/train_accuracy", row.train_value


def outcomes(storage: Storage, study: str = "sim") -> dict[str, str | None]:
    return {run_name(row): row.outcome for row in read_study(storage, study).rows() if row.state == "done"}


def parameters(storage: Storage, study: str = "sim") -> dict[str, dict[str, Any]]:
    """Lists, such as the window of the amplification, as JSON."""
    done = [row for row in read_study(storage, study).rows() if row.state == "done"]
    return {
        run_name(row): {
            name: json.dumps(value) if isinstance(value, list) else value for name, value in row.params.items()
        }
        for row in done
    }


def mirror(storage: Storage, out: Path, *targets: Any) -> None:
    """As `mirror STUDY --once`."""
    Mirror(storage, "sim", out, targets, interval_s=1.0).run(once=True)


def whole(storage: Storage, study: str = "sim") -> list[Any]:
    """Every run as it is sent when all is known."""
    rows = read_study(storage, study).rows()
    return [tracked_run(tracked(storage, study), row) for row in rows if row.state == "done"]
