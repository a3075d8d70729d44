"""A small recorded table of simulated runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.decisions import record
from benchmarks.decisions.recorded import RecordedWorld
from benchmarks.decisions.tables import Plan, Table
from ralr_tune.search.tasks import Tasks

TINY = """
[study]
name = "tiny"
baseline = "monotone"
[task]
kind = "simulated"
data = { jitter = 0.03, diverges_above = 3.0 }
[training]
epochs = 4
lr = { low = 1e-2, high = 1.0, log = true }
[arms.monotone]
[arms.ralr]
amplify = { probability = { low = 0.1, high = 0.9 }, lower = 1.0, width = { low = 0.0, high = 4.0 } }
[search]
sampler = "qmc"
trials = 30
[confirm]
seeds = 6
"""


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of a small table of simulated runs."""
    file = tmp_path_factory.mktemp("tables") / "tiny.toml"
    file.write_text(TINY)
    return Plan(file)


@pytest.fixture(scope="session")
def table(plan: Plan) -> Table:
    """All its runs, recorded in this process and saved."""
    found, tasks = Table.of(plan), Tasks(plan.spec, device="cpu")
    for key in found.waiting():
        found.add(*record.train(plan, tasks, key))
    found.save()
    return found


@pytest.fixture(scope="session")
def world(table: Table) -> RecordedWorld:
    """Its RALR arm, with noise of each run: the simulated kind gives all runs of a seed the same, and a paired test of
    five equal differences claims nothing."""
    noise = np.random.default_rng(0).normal(0, 0.003, table.values.shape).astype(np.float32)
    return RecordedWorld(replace(table, values=table.values + noise), "ralr")
