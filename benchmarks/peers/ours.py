"""(c) This project: a study file, `run`, and the ledger's record of every epoch.

Settings: `training` (keys of that table) and `options` (of the command line).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.peers.case import LR, MILESTONES, MOMENTUM, VALIDATION, WEIGHT_DECAY, Case, Job, job_of_command
from ralr_tune.records import Row
from ralr_tune.store.address import sqlite_url
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger

NAME = "bench"


def main() -> None:
    job = job_of_command()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{NAME}.toml"
        file.write_text(study(job.case, job.settings.get("training", {})))
        options = ("--out", folder, "--no-confirm", "--quiet", *job.settings.get("options", ()))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RALR_TUNE_STORAGE")}
        command = [sys.executable, "-m", "ralr_tune", "run", str(file), *options]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut"))
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        finally:
            note_all(job, Path(folder) / "study.db")


def note_all(job: Job, database: Path) -> None:
    """Notes the finished trials; leaves out those that were cut, since their progress is unknown."""
    storage = open_storage(sqlite_url(database))
    images = round(_training_images(job.case))
    for row in Ledger(storage, NAME).rows("search"):
        note(job, row, images)
    storage.dispose()


def study(case: Case, training: dict[str, Any]) -> str:
    tables = {
        "study": {"name": NAME, "baseline": "monotone", "seed": case.seed},
        "task": {
            "kind": "classification",
            "data": {"source": "arrays", "path": case.data},
            "model": case.model,
            "validation": VALIDATION,
        },
        "training": {
            "epochs": case.epochs,
            "batch_size": case.batch_size,
            "optimizer": "sgd",
            "momentum": MOMENTUM,
            "lr": {"low": LR[0], "high": LR[1], "log": True},
            "weight_decay": {"low": WEIGHT_DECAY[0], "high": WEIGHT_DECAY[1], "log": True},
            "augment": list(case.augment),
            **training,
        },
        "schedule": {"name": "multistep", "milestones": list(MILESTONES), "gamma": 0.1},
        "arms": {"monotone": {}},
        "search": {
            "trials": case.trials,
            "sampler": "tpe",
            "pruner": "median" if case.pruning else "none",
            "start": case.first(),
        },
    }
    return tomli_w.dumps(tables)


def note(job: Job, row: Row, images: int) -> None:
    """The epochs of a row at the computed times of their ends: only a report lies between epochs."""
    if row.started is None or row.finished is None:
        return
    job.note("start", trial=row.ordinal, time=row.started)
    total = sum(record.seconds for record in row.curve)
    for record, until in zip(row.curve, accumulate(record.seconds for record in row.curve), strict=True):
        ended = row.started + (row.finished - row.started) * until / total
        job.note("epoch", trial=row.ordinal, time=ended, value=record.value, images=images)


def _training_images(case: Case) -> float:
    import numpy as np

    with np.load(case.data) as held:
        return len(held["train_labels"]) * (1 - VALIDATION)


if __name__ == "__main__":
    main()
