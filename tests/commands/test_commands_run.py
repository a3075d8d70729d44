"""A whole study through the commands, on every database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from ralr_tune.analysis.facts import FURTHER
from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.commands.run import run
from ralr_tune.errors import StorageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.commands.conftest import Cli
from tests.studies import simulated
from tests.waiting import LONG_S, until

StudyFile = Callable[..., Path]

DESIGNED = {"study", "baseline", "metric", "split", "arms", "twins", "comparisons", "importance"}
"""The keys that DESIGN.md requires of `report --json`."""
ARM_KEYS = {"budget", "complete", "pruned", "diverged", "failed", "running", "waiting", "best_value", "best_trial"}


def counts(status: dict[str, Any]) -> dict[str, int]:
    return {name: arm["complete"] + arm["pruned"] + arm["diverged"] for name, arm in status["arms"].items()}


def test_a_study_from_file_to_answer(cli: Cli, study_file: StudyFile, storage_url: str, tmp_path: Path) -> None:
    study_file()
    storage = ["--storage", storage_url]
    facts = cli("run", "sim.toml", *storage, "--workers", 2, "--json").json()
    assert set(facts) == {*DESIGNED, *FURTHER, "card"}
    assert facts["split"] == "test"
    assert [len(arm["confirm"]["seeds"]) for arm in facts["arms"].values()] == [3, 3]
    assert facts["arms"]["ralr"]["confirm"]["seeds"] == facts["arms"]["monotone"]["confirm"]["seeds"]
    (comparison,) = facts["comparisons"]
    assert (comparison["what"], comparison["arm"], comparison["against"]) == ("configuration", "ralr", "monotone")
    assert comparison["n"] == 3
    assert len(facts["twins"]) == 1
    assert " run sim.toml" in facts["card"]["next_step"]["command"]
    assert facts["card"]["cost"]["trials"] == 8

    status = cli("status", "sim.toml", *storage, "--json").json()
    assert status["stage"] == "done"
    assert all(set(arm) == ARM_KEYS for arm in status["arms"].values())
    assert counts(status) == {"monotone": 4, "ralr": 4}

    page = (tmp_path / "runs/sim/report.html").read_text()
    assert "<html" in page
    assert (tmp_path / "runs/sim/best/ralr.toml").exists()
    assert cli("report", "sim.toml", *storage, "--json").json() == facts
    assert cli("export", "sim", *storage, "--arm", "ralr", "--format", "json").json()["provenance"]["study"] == "sim"
    assert not list((tmp_path / "runs/sim/checkpoints").iterdir())

    (tmp_path / "sim.toml").rename(tmp_path / "away.toml")  # the storage also keeps the file
    assert "monotone (2 dimensions)" in cli("check", "sim", *storage).out
    (tmp_path / "away.toml").rename(tmp_path / "sim.toml")

    done = ledger(storage_url).rows()
    assert cli("run", "sim.toml", *storage, "--json").json() == facts
    assert ledger(storage_url).rows() == done  # running again on a finished study trains nothing


def ledger(url: str) -> Ledger:
    return Ledger(open_storage(url), "sim")


def test_more_trials_are_added_and_the_budget_is_exact(cli: Cli, study_file: StudyFile) -> None:
    study_file()
    assert cli("run", "sim.toml", "--trials", 2, "--no-confirm", "--workers", 1, "--quiet").code == 0
    assert counts(cli("status", "sim.toml", "--json").json()) == {"monotone": 2, "ralr": 2}
    assert cli("run", "sim.toml", "--trials", 5, "--no-confirm", "--workers", 2, "--quiet").code == 0
    status = cli("status", "sim.toml", "--json").json()
    assert counts(status) == {"monotone": 5, "ralr": 5}
    assert {arm["budget"] for arm in status["arms"].values()} == {5}
    assert status["stage"] == "confirm"


def test_two_runs_with_one_worker_give_the_same_facts(cli: Cli, study_file: StudyFile) -> None:
    study_file()
    found = [cli("run", "sim.toml", "--workers", 1, "--out", out, "--json").json() for out in ("a", "b")]
    assert [facts.pop("costs") != [] for facts in found] == [True, True]  # costs are ratios of seconds
    for facts in found:
        assert facts["card"].pop("cost")["device_hours"] > 0
        assert " --out " in facts["card"].pop("next_step")["command"]
        facts["card"]["recipe"].pop("train")
        for arm in facts["arms"].values():
            arm.pop("seconds_per_epoch")
        for curve in facts["budgets"]:
            curve.pop("seconds")
            for final in curve["finals"]:
                final.pop("seconds")
        for generation in facts["generations"]:
            generation.pop("created")
    assert found[0] == found[1]


def test_a_file_that_would_mix_incomparable_trials_is_refused(cli: Cli, study_file: StudyFile) -> None:
    study_file()
    assert cli("run", "sim.toml", "--no-confirm", "--quiet").code == 0
    study_file(training={"epochs": 9})
    ran = cli("run", "sim.toml")
    assert ran.code == 2
    assert "training.epochs: 4 -> 9" in ran.err
    study_file(search={"trials": 5})
    assert cli("run", "sim.toml", "--no-confirm", "--quiet").code == 0
    assert counts(cli("status", "sim.toml", "--json").json()) == {"monotone": 5, "ralr": 5}


def test_the_time_limit_stops_and_reports_what_is_done(cli: Cli, study_file: StudyFile) -> None:
    study_file(task={"data": {"seconds_per_epoch": 0.5}}, search={"trials": 200})
    ran = cli("run", "sim.toml", "--hours", 4 / 3600, "--workers", 1)
    assert ran.code == 0, ran.err
    status = cli("status", "sim.toml", "--json").json()
    assert status["stage"] == "search"
    assert sum(counts(status).values()) < 400
    assert sum(arm["running"] for arm in status["arms"].values()) == 0


def test_interrupted_is_130_and_the_same_command_resumes(study_file: StudyFile, cli: Cli, tmp_path: Path) -> None:
    study_file(task={"data": {"seconds_per_epoch": 0.3}}, confirm={"top": 1, "seeds": 2})
    process = start(tmp_path)
    wait_for_epochs(tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 130
    assert "stopping; saving the state of the running trials…" in errors
    assert "error" not in errors
    assert "\ninterrupted; everything is saved; resume with: " in errors
    status = cli("status", "sim.toml", "--json").json()
    assert sum(arm["running"] for arm in status["arms"].values()) == 0
    assert cli("run", "sim.toml", "--quiet").code == 0
    assert counts(cli("status", "sim.toml", "--json").json()) == {"monotone": 4, "ralr": 4}


def test_a_killed_worker_loses_nothing_and_is_counted(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    study_file(task={"data": {"seconds_per_epoch": 0.3}}, confirm={"top": 1, "seeds": 2}, storage={"lease_s": 5})
    process = start(tmp_path)
    rows = wait_for_epochs(tmp_path)
    owner = next(row.owner for row in rows if row.state == "held" and row.epoch)
    assert owner is not None
    os.kill(int(owner.split(":")[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, errors
    found = Ledger(open_storage(f"sqlite:///{tmp_path}/runs/sim/study.db"), "sim").rows()
    assert all(row.state == "done" and row.outcome != "failed" for row in found)
    assert max(row.attempt for row in found) == 2
    for row in found:
        if row.outcome == "complete" and row.stage != "test":
            assert [record.epoch for record in row.curve] == [1, 2, 3, 4]
    shown = cli("status", "sim.toml").out
    assert "failures so far: 1 lost" in shown
    assert f"{owner} is gone" in shown
    assert "INFO ralr_tune.launch.worker: row 1" in shown  # the end of its log


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_workers_leave_with_their_launcher(study_file: StudyFile, tmp_path: Path, how: signal.Signals) -> None:
    study_file(task={"data": {"seconds_per_epoch": 0.3}}, training={"epochs": 400}, search={"pruner": "none"})
    process = start(tmp_path)
    wait_for_epochs(tmp_path)
    workers = [worker.pid for worker in psutil.Process(process.pid).children()]  # one may not hold a row yet
    assert len(workers) == 2
    process.send_signal(how)
    process.communicate(timeout=LONG_S)
    until(lambda: not any(map(alive, workers)), "the workers leave with their launcher")
    found = Ledger(open_storage(f"sqlite:///{tmp_path}/runs/sim/study.db"), "sim").rows()
    assert {row.state for row in found} == {"free"}  # released, with their epochs
    assert max(row.epoch for row in found) > 0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_file_with_the_name_of_another_study(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    """The workers of `run x.toml` (study sim) must not load studies/sim.toml (study other)."""
    study_file(search={"trials": 1}, confirm={"top": 1, "seeds": 2}).rename(tmp_path / "x.toml")
    (tmp_path / "studies").mkdir()
    study_file(study={"name": "other"}).rename(tmp_path / "studies" / "sim.toml")
    assert cli("run", "x.toml", "--workers", 1, "--quiet").code == 0


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ralr_tune", "run", "sim.toml", "--workers", "2"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(folder: Path) -> list[Any]:
    """Wait until a worker is in the middle of a trial; returns the rows at that time."""

    def started() -> list[Any]:
        try:
            rows = Ledger(open_storage(f"sqlite:///{folder}/runs/sim/study.db"), "sim").rows(curves=False)
        except StorageError:  # not there yet, or still being created
            return []
        return rows if any(row.state == "held" and row.epoch for row in rows) else []

    return until(started, "a worker begins a trial")


BROKEN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        if self.seen > 100:  # not in the few images with which a network is tried before the study
            raise ZeroDivisionError("my own bug\\n\\tover two lines")
        return self.layers(images)
"""


def test_a_bug_in_the_users_code_ends_the_study_and_is_shown_once(
    cli: Cli, study_file: StudyFile, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    study_file(task={"kind": "classification", "data": {"source": "digits"}, "model": "broken:Net"})
    ran = cli("run", "sim.toml", "--workers", 1)
    assert ran.code == 1
    assert ran.err.count("Traceback") == 1
    assert 'raise ZeroDivisionError("my own bug' in ran.err  # the line of the user's code
    (said,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert r"failed 3 times: ZeroDivisionError: my own bug\n\tover two lines (log: " in said
    status = cli("status", "sim.toml", "--json").json()
    assert sum(arm["failed"] for arm in status["arms"].values()) == 1
    assert status["failures"]["counts"] == {"bug": 3}
    shown = cli("status", "sim.toml").out
    assert "failures so far: 3 bug" in shown
    assert "ZeroDivisionError: my own bug" in shown
    assert "broken.py" in shown  # the end of the traceback


def test_unreadable_data_ends_the_study(cli: Cli, study_file: StudyFile, tmp_path: Path) -> None:
    images = np.zeros((8, 4, 4), dtype=np.uint8)
    labels = np.array([0, 1] * 3 + [0, 7])
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    np.savez(tmp_path / "classes.npz", **dict(np.load(tmp_path / "x.npz")), classes=np.array(["a", "b"]))
    data = {"source": "arrays", "path": str(tmp_path / "classes.npz")}
    study_file(task={"kind": "classification", "data": data, "model": "small_cnn"})
    ran = cli("run", "sim.toml", "--workers", 1)
    assert ran.code == 1
    assert "train_labels go from 0 to 7; allowed: 0 to 1" in ran.err


def deleted(folder: Path) -> bool:
    """Whether the folder was deleted; False if the run wrote a file into it meanwhile."""
    try:
        shutil.rmtree(folder)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("lost", ["checkpoints", "logs", "whole"])
def test_an_out_folder_that_is_deleted_during_a_run(study_file: StudyFile, tmp_path: Path, lost: str) -> None:
    """The folder is created again if possible; a missing database is reported immediately."""
    study_file(task={"data": {"seconds_per_epoch": 0.3}}, search={"trials": 1}, confirm={"top": 1, "seeds": 2})
    process = start(tmp_path)
    wait_for_epochs(tmp_path)
    folder = tmp_path / "runs/sim"
    until(lambda: deleted(folder if lost == "whole" else folder / lost), "the folder's deletion")
    _, errors = process.communicate(timeout=LONG_S)
    if lost == "whole":
        assert process.returncode == 1
        assert "study.db: was deleted while it was in use" in errors
    else:
        assert process.returncode == 0, errors
        found = Ledger(open_storage(f"sqlite:///{folder}/study.db"), "sim").rows()
        assert all(row.state == "done" and row.outcome != "failed" for row in found)


def test_a_read_only_out_folder_is_reported_before_anything_starts(
    cli_inside: Cli, study_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study_file().parent / "shut"
    folder.mkdir(mode=0o555)
    if os.getuid() == 0:  # root ignores permissions, so replace the system call
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    ran = cli_inside("run", "sim.toml", "--out", folder)
    assert ran.code == 2
    assert ran.err.startswith(f"error: --out {folder}: the folder is not writable")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("place", "is_folder"), [("logs", False), ("report.html", True), ("best", False)])
def test_an_output_that_cannot_be_written_is_reported_and_nothing_is_lost(
    cli: Cli, study_file: StudyFile, tmp_path: Path, place: str, is_folder: bool
) -> None:
    study_file(search={"trials": 1}, confirm={"top": 1})
    way = tmp_path / "runs/sim" / place
    way.parent.mkdir(parents=True)
    way.mkdir() if is_folder else way.touch()
    once = ("run", "sim.toml", "--workers", 1, "--no-confirm", "--quiet")
    ran = cli(*once)
    assert ran.code == 1
    (said,) = ran.err.splitlines()
    assert f"runs/sim/{place}" in said
    assert "cannot be written: " in said
    assert said.endswith("give another folder with --out, then run again: nothing is lost")
    way.rmdir() if is_folder else way.unlink()
    assert cli(*once).code == 0


def test_sqlite_on_a_network_file_system_needs_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    spec = simulated(search={"trials": 1}, confirm={"top": 1, "seeds": 2})
    with pytest.raises(StorageError, match=r"network file system \(nfs4\)"):
        run(spec, out=tmp_path, launcher="inprocess", workers=1)
    assert not (tmp_path / "study.db").exists()
    url = f"sqlite:///{tmp_path}/study.db"
    with pytest.raises(StorageError, match=r"network file system \(nfs4\)"):
        work(Job("sim", url, tmp_path), Place(0, "cpu", 1))
    assert run(spec, out=tmp_path, launcher="inprocess", workers=1, force=True).answer
    with opened(StudyLocation("sim", spec, url, tmp_path)) as storage:  # as `status` and the other commands do
        assert len(Ledger(storage, "sim").rows()) > 0
    (said,) = [line for line in caplog.messages if "network file system (nfs4)" in line]
    assert said.endswith("open it only on the machine that runs its workers")


def test_an_out_folder_that_is_a_file(cli: Cli, study_file: StudyFile) -> None:
    study_file()
    ran = cli("run", "sim.toml", "--out", "sim.toml")
    assert (ran.code, ran.err) == (
        2,
        "error: --out sim.toml: the folder cannot be created: File exists; give another with --out\n",
    )


@pytest.mark.slow
def test_digits_from_file_to_answer(cli: Cli, tmp_path: Path) -> None:
    facts = cli("run", "digits", "--json", timeout_s=900).json()
    assert facts["arms"]["ralr"]["confirm"]["mean"] > 0.9
    assert facts["arms"]["monotone"]["confirm"]["mean"] > 0.9
    assert json.loads(json.dumps(facts)) == facts
    assert (tmp_path / "runs/digits/report.html").stat().st_size > 1_000_000
