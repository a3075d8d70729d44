"""deploy/skypilot: the task fits SkyPilot's schema, and its very `run` command works by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ralr_tune.commands.run import init
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.errors import Interrupted
from ralr_tune.search.stages import pending_stage
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.studies import simulated
from tests.waiting import LONG_S, until

FILE = Path(__file__).parents[2] / "deploy/skypilot/workers.yaml"
TASK: dict[str, Any] = yaml.safe_load(FILE.read_text())
SCHEMA = json.loads(Path(__file__).with_name("skypilot_task.schema.json").read_text())
SPEC = simulated(
    task={"data": {"optimum": 0.1, "seconds_per_epoch": 0.05}}, search={"trials": 2}, confirm={"top": 1, "seeds": 2}
)


def test_it_fits_the_schema() -> None:
    jsonschema.validate(TASK, SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("wrong", [{"num_node": 4}, {"resources": TASK["resources"] | {"use_spots": True}}])
def test_a_wrong_key_would_be_noticed(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(TASK | wrong, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_skypilot_itself_takes_it() -> None:
    sky = pytest.importorskip("sky", reason="skypilot is not installed")
    task = sky.Task.from_yaml_config(
        TASK | {"workdir": None, "file_mounts": {}}, secrets_overrides={"RALR_TUNE_STORAGE_PASSWORD": "x"}
    )
    assert task.num_nodes == TASK["num_nodes"]


def test_preempted_workers_are_started_again_and_the_password_is_a_secret() -> None:
    assert TASK["resources"]["use_spot"] is True
    assert TASK["resources"]["job_recovery"]["recover_on_exit_codes"] == [Interrupted.exit_code]
    assert TASK["secrets"] == {"RALR_TUNE_STORAGE_PASSWORD": None}
    assert "@" in TASK["envs"]["RALR_TUNE_STORAGE"]
    assert ":" not in TASK["envs"]["RALR_TUNE_STORAGE"].partition("://")[2].partition("@")[0]
    assert f"--secret {next(iter(TASK['secrets']))}" in FILE.read_text()


class Nodes:
    """Runs `run` as processes: the mounted folder is a folder of the test, and so is the database."""

    def __init__(self, folder: Path, url: str, interpreter: str) -> None:
        self.folder, self.url = folder, url
        self.running: list[subprocess.Popen[bytes]] = []
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n')
        (folder / "bin/python").chmod(0o700)

    def start(self, rank: int) -> subprocess.Popen[bytes]:
        (mount,) = TASK["file_mounts"]
        script = TASK["run"].replace(f"{mount}/", f"{self.folder}/shared/")
        envs = TASK["envs"] | {"STUDY": SPEC.name, "RALR_TUNE_STORAGE": self.url, "SKYPILOT_NODE_RANK": str(rank)}
        path = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            made = subprocess.Popen(["bash", "-c", script], env=os.environ | envs | path, stdout=log, stderr=log)
        self.running.append(made)
        return made

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))


@pytest.fixture
def nodes(sqlite_url: str, tmp_path: Path, warm_interpreter: str) -> Iterator[Nodes]:
    made = Nodes(tmp_path, sqlite_url, warm_interpreter)
    yield made
    for process in made.running:
        process.kill()
        process.wait()


def test_a_study_through_preemptions(nodes: Nodes, sqlite_url: str) -> None:
    assert nodes.start(0).wait(LONG_S) == 1  # the study does not exist yet
    init(SPEC, RunOptions(storage=sqlite_url, out=nodes.folder / "shared" / SPEC.name))
    ledger = Ledger(open_storage(sqlite_url), SPEC.name)
    first = nodes.start(0)
    for _ in range(2):
        until(lambda: held(ledger), f"a worker trains\n{nodes.logs()}")
        first.send_signal(signal.SIGTERM)
        assert first.wait(LONG_S) == Interrupted.exit_code, nodes.logs()
        assert not held(ledger)
        first = nodes.start(0)
    second = nodes.start(1)
    assert [each.wait(LONG_S) for each in (first, second)] == [0, 0], nodes.logs()
    rows = ledger.rows()
    assert pending_stage(SPEC, rows) is None
    assert max(row.attempt for row in rows) >= 2
    assert {row.owner.rpartition(":")[2] for row in rows if row.owner} <= {"0", "1"}
    assert not list((nodes.folder / "shared" / SPEC.name / "checkpoints").glob("*.ckpt"))


def held(ledger: Ledger) -> list[Any]:
    return [row for row in ledger.rows(curves=False) if row.state == "held"]
