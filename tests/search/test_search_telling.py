"""What is reported to Optuna for a diverged trial if the metric has no worst value."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ralr_tune.kinds.simulated.kind import SimulatedKind
from ralr_tune.records import Row
from ralr_tune.search.telling import optuna_study, tell, value_of_diverged
from ralr_tune.search.trial import work_on
from tests.metrics import ACCURACY, LOSS
from tests.search.conftest import MakeSession
from tests.studies import simulated


def a_row(number: int, finished: float | None, value: float | None, **changes: Any) -> Row:
    fields: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    fields |= {"id": number, "arm": "monotone", "stage": "search", "block": 1, "state": "done", "value": value}
    return Row(**fields | {"outcome": "diverged" if value is None else "complete", "finished": finished} | changes)


@pytest.mark.parametrize("metric", ["value", "error"])
def test_a_diverged_trial_is_reported_with_the_worst_value_before_it(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    unbounded = {name: replace(found, worst=None) for name, found in SimulatedKind.metrics.items()}
    monkeypatch.setattr(SimulatedKind, "metrics", unbounded)
    spec = simulated(
        study={"metric": metric},
        task={"data": {"diverges_above": 0.1}},
        arms={"monotone": {}},
        search={"pruner": "none", "trials": 8, "sampler": "random"},
    )
    session = make_session(spec)
    while (row := session.ledger.claim("me", "search")) is not None:
        work_on(session, row)
    rows = session.ledger.rows()
    told = [trial.value for trial in optuna_study(session, rows[0]).trials]
    seen: list[float] = []
    for row, value in zip(rows, told, strict=True):
        infinite = spec.metric.as_gain(-math.inf)
        assert value == ((spec.metric.worst_of(seen) if seen else infinite) if row.value is None else row.value)
        seen += [] if row.value is None else [row.value]
    assert {row.outcome for row in rows} == {"complete", "diverged"}
    for row in rows:
        tell(session, row)  # again, as `settle` does after a crash
    assert [trial.value for trial in optuna_study(session, rows[0]).trials] == told


def test_rows_that_end_later_or_elsewhere_do_not_count() -> None:
    lost = a_row(3, 30.0, None)
    others = [
        a_row(9, 10.0, 2.5),
        a_row(1, 15.0, 2.6, outcome="pruned"),
        a_row(2, 15.0, None),
        a_row(4, 40.0, 99.0),
        a_row(5, 20.0, 50.0, block=2),
        a_row(6, 20.0, 70.0, arm="ralr"),
        a_row(7, 20.0, 80.0, stage="choose"),
        a_row(8, None, 90.0, state="held", outcome=None),
    ]
    assert value_of_diverged(LOSS, [*others, lost], lost) == 2.6
    assert value_of_diverged(LOSS, [*others[2:], lost], lost) == math.inf
    assert value_of_diverged(ACCURACY, [], lost) == 0.0
