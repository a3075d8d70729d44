"""A database of release 0.1: tables of version 1 with a half-finished study.

Frozen: nothing here follows what the program's tables and rows become.
"""

from __future__ import annotations

import json
import time
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import LONGTEXT, VARCHAR
from sqlalchemy.types import TypeEngine

from ralr_tune.store.address import parse_address
from ralr_tune.store.connections import make_engine
from tests.studies import simulated

metadata = MetaData()
_INNODB: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


def _name(length: int = 200) -> TypeEngine[str]:
    return String(length).with_variant(VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")


def _long_text() -> TypeEngine[str]:
    return Text().with_variant(LONGTEXT(charset="utf8mb4"), "mysql")


schema = Table(
    "ralr_tune_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False), **_INNODB
)
studies = Table(
    "ralr_tune_studies",
    metadata,
    Column("name", _name(), primary_key=True),
    Column("text", _long_text(), nullable=False),
    Column("fingerprint", _name(), nullable=False),
    Column("created", Double, nullable=False),
    Column("environment", _long_text()),
    **_INNODB,
)
ledger = Table(
    "ralr_tune_ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", _name(), nullable=False),
    Column("arm", _name(), nullable=False),
    Column("stage", _name(16), nullable=False),
    Column("block", Integer, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("role", _name(32), nullable=False),
    Column("source", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("params", _long_text(), nullable=False),
    Column("trial", Integer),
    Column("state", _name(8), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", _name(255)),
    Column("token", _name(32)),
    Column("lease_end", Double),
    Column("outcome", _name(16)),
    Column("failure", _name(16)),
    Column("message", _long_text()),
    Column("epoch", Integer, nullable=False),
    Column("value", Double),
    Column("train_value", Double),
    Column("curve", _long_text()),
    Column("seconds", Double),
    Column("started", Double),
    Column("finished", Double),
    UniqueConstraint("study", "arm", "stage", "block", "ordinal", "role", "source", name="ralr_tune_ledger_planned"),
    Index("ralr_tune_ledger_waiting", "study", "stage", "state"),
    **_INNODB,
)


SPACE: dict[str, dict[str, BaseDistribution]] = {
    "monotone": {
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
    },
}
SPACE["ralr"] = SPACE["monotone"] | {
    "amplify.probability": FloatDistribution(0.05, 0.6),
    "amplify.lower": FloatDistribution(1.0, 2.0),
    "amplify.width": FloatDistribution(0.0, 4.0),
}
PARAMS = {
    "monotone": {"lr": 0.05, "weight_decay": 1e-3},
    "ralr": {"lr": 0.5, "weight_decay": 1e-4, "amplify.probability": 0.2, "amplify.lower": 1.5, "amplify.width": 2.0},
}
VALUES = (0.52, 0.66, 0.73, 0.77)
"""Of four epochs."""
SEEDS = (11, 22, 33, 44)
"""By ordinal."""


def make(url: str, *, lease_ends_in_s: float = -60.0) -> None:
    """The study of `tests.studies`, its only worker killed in the third trial.

    Of four trials in each of two arms, the first of both are done, the second of monotone is held until the worker's
    lease ends, and the others are free.
    """
    address = parse_address(url)
    engine = make_engine(address)
    optuna = RDBStorage(address.for_optuna)
    metadata.create_all(engine)
    spec, now = simulated(), time.time()
    study = {"name": spec.name, "text": spec.text, "fingerprint": spec.fingerprint, "created": now}
    for arm in SPACE:
        optuna.create_new_study([StudyDirection.MAXIMIZE], f"{spec.name}/{arm}")
    for arm, row_id, reported in (("monotone", 1, 4), ("ralr", 2, 4), ("monotone", 3, 2)):
        _trial(optuna, spec.name, arm, row_id, reported)
    planned = [(arm, ordinal) for ordinal in range(4) for arm in SPACE]
    rows = [_row(spec.name, arm, ordinal) for arm, ordinal in planned]
    rows[0] |= _begun(now) | _done(now)
    rows[1] |= _begun(now) | _done(now)
    rows[2] |= _begun(now) | {"trial": 1, "state": "held", "epoch": 2, "lease_end": now + lease_ends_in_s}
    with engine.connect() as connection:
        connection.execute(studies.insert().values(**study, environment=json.dumps({"ralr-tune": "0.1.0"})))
        connection.execute(ledger.insert(), rows)
        connection.execute(schema.insert().values(version=1))
    optuna.engine.dispose()
    engine.dispose()


def _trial(optuna: RDBStorage, study: str, arm: str, row_id: int, reported: int) -> None:
    done = reported == len(VALUES)
    template = create_trial(
        state=TrialState.COMPLETE if done else TrialState.RUNNING,
        value=VALUES[-1] if done else None,
        params=PARAMS[arm],
        distributions=SPACE[arm],
        user_attrs={"ralr_tune:row": row_id},
        intermediate_values=dict(enumerate(VALUES[:reported], start=1)),
    )
    optuna.create_new_trial(optuna.get_study_id_from_name(f"{study}/{arm}"), template)


def _row(study: str, arm: str, ordinal: int) -> dict[str, Any]:
    empty = {column.name: None for column in ledger.c if column.name != "id"}
    key = {"study": study, "arm": arm, "stage": "search", "block": 1, "ordinal": ordinal, "role": "", "source": -1}
    return empty | key | {"seed": SEEDS[ordinal], "params": "{}", "state": "free", "attempt": 0, "epoch": 0}


def _begun(now: float) -> dict[str, Any]:
    return {"attempt": 1, "owner": "gone:4711:0", "token": "0" * 32, "started": now - 90}


def _done(now: float) -> dict[str, Any]:
    curve = [
        {"epoch": epoch, "value": value, "train_loss": 1.0, "lr": 0.1, "factor": 1.0, "seconds": 0.5}
        for epoch, value in enumerate(VALUES, start=1)
    ]
    known = {"trial": 0, "state": "done", "outcome": "complete", "epoch": 4, "value": VALUES[-1], "train_value": 0.8}
    return known | {"curve": json.dumps(curve), "seconds": 2.0, "finished": now - 80}
