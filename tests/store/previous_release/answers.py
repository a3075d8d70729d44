"""What a study has come to, as plain data: written by `make.py` with the previous release, read again by the tests."""

from __future__ import annotations

from typing import Any

NEW_WITH_EVERY_RUN = frozenset({"costs", "seconds", "seconds_per_epoch", "storage", "time", "owner"})
"""Keys of JSON that hold times and places. `costs` compares the time of epochs."""
FIELDS = (
    "arm", "stage", "block", "ordinal", "role", "source", "seed", "trial", "attempt", "state", "outcome", "failure",
    "epoch", "value", "train_value",
)  # fmt: skip
"""Of a row; the ids, times, owners and messages are left out."""


def rows_of(record: Any) -> list[dict[str, Any]]:
    """All rows of a `StudyRecord` in the order in which they were planned."""
    rows = sorted((row for arm in record.arms.values() for row in arm.rows), key=lambda row: int(row.id))
    return [
        {name: getattr(row, name) for name in FIELDS}
        | {"params": dict(row.params), "curve": [epoch.value for epoch in row.curve]}
        for row in rows
    ]


def lasting(answer: Any) -> Any:
    """JSON without the keys that are `NEW_WITH_EVERY_RUN`."""
    if isinstance(answer, dict):
        return {key: lasting(value) for key, value in answer.items() if key not in NEW_WITH_EVERY_RUN}
    return [lasting(each) for each in answer] if isinstance(answer, list) else answer
