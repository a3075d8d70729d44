"""`--artifacts` in the commands: recorded with the study, refused in one line, known to gc, repair and doctor."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ralr_tune.commands import doctor
from ralr_tune.commands import run as runs
from ralr_tune.commands.doctor import diagnose
from ralr_tune.commands.gc import collect_garbage
from ralr_tune.commands.health.artifacts import artifact_checks
from ralr_tune.commands.locate import locate
from ralr_tune.commands.repair import repair_study
from ralr_tune.commands.run import init, run
from ralr_tune.commands.run.options import RunOptions
from ralr_tune.commands.status import study_status, worker_log_end
from ralr_tune.errors import DataError, TrialError, UsageError
from ralr_tune.launch.devices import Place
from ralr_tune.launch.folder import TOKEN_FILE
from ralr_tune.launch.launcher import Job, Launcher
from ralr_tune.launch.local import LocalProcesses
from ralr_tune.launch.worker import work
from ralr_tune.records import Row
from ralr_tune.search.published import MARKER
from ralr_tune.store import artifacts
from ralr_tune.store.artifacts import Artifact, StoredPlace
from ralr_tune.store.database import open_storage
from ralr_tune.store.ledger import Ledger
from tests.studies import simulated

SPEC = simulated(training={"epochs": 2}, search={"trials": 1}, confirm={"top": 1, "seeds": 2})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(here: Path, **more: object) -> RunOptions:
    made = RunOptions(storage=f"sqlite:///{here}/study.db", out=here / "out", workers=1, launcher="inprocess")
    return replace(made, **more)  # type: ignore[arg-type]


def held(here: Path, store: Path) -> tuple[Row, Path]:
    """A row of which the database names an object, and the folder of the study's objects."""
    storage = open_storage(f"sqlite:///{here}/study.db")
    ledger = Ledger(storage, "sim")
    row = ledger.claim("box:1:0", "search")
    assert row is not None
    place = artifacts.place_of(storage, "sim")
    assert place is not None
    folder = store / place.folder
    (folder / f"row{row.id}").mkdir()
    (folder / f"row{row.id}/1-1.ckpt").write_bytes(b"x" * 10)
    storage.transact(
        lambda connection: [
            connection.execute(each)
            for each in artifacts.set_valid("sim", row, Artifact(f"row{row.id}/1-1.ckpt", 1, "0" * 64, 10))
        ]
    )
    storage.dispose()
    return row, folder


def test_the_store_is_recorded_and_the_next_run_and_workers_elsewhere_find_it(here: Path) -> None:
    store = here / "store"
    init(SPEC, options(here, launcher="local", workers=None, artifacts=store))
    work(Job("sim", f"sqlite:///{here}/study.db", here / "elsewhere", until="search"), Place(0, "cpu", 1))
    report = run(SPEC, options(here), progress=False)
    assert report.answer
    (folder,) = store.iterdir()
    assert {path.name for path in folder.iterdir()} - {"logs"} == {MARKER}
    assert folder.name.startswith("sim-")
    for out in (here / "elsewhere", here / "out"):
        assert list((out / "checkpoints").glob("*")) == []


def test_the_logs_of_workers_are_read_elsewhere_until_gc_removes_those_of_a_finished_study(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ralr_tune.launch.worker.node", lambda: "node/7")
    monkeypatch.setattr(logging.getLogger("ralr_tune"), "level", logging.INFO)  # as `worker` has it
    url = f"sqlite:///{here}/study.db"
    init(SPEC, options(here, launcher="local", workers=None, artifacts=here / "store"))
    with monkeypatch.context() as patch:
        patch.setattr("ralr_tune.search.trial._start", refuse)
        with pytest.raises(TrialError):
            work(Job("sim", url, here / "elsewhere"), Place(3, "cpu", 1))
    storage = open_storage(url)
    owner = f"node/7:{os.getpid()}:3"
    found = worker_log_end(storage, "sim", here / "out" / "logs", owner)
    assert any("row 1: arm" in line for line in found)
    assert found[-1].startswith("error: arm monotone, search 0 failed")
    assert worker_log_end(storage, "sim", here / "out" / "logs", "node/7:1:3") == []
    (folder,) = (here / "store").iterdir()
    assert f"artifacts and logs: {folder}" in study_status(storage, "sim").as_text()
    (log,) = folder.glob("logs/node_7-3-*.log")
    assert collect_garbage("sim", storage=url, out=here / "out").files == []
    run(SPEC, options(here), progress=False)
    removed = collect_garbage("sim", storage=url, out=here / "out").files
    assert {(each.path, each.why) for each in removed} >= {(str(log), "log of a worker of a finished study")}
    assert not log.exists()
    shutil.rmtree(here / "store")
    assert worker_log_end(storage, "sim", here / "out" / "logs", owner) == []


def refuse(*given: object, **more: object) -> None:
    raise DataError("image 3 is torn")


def test_without_the_option_nothing_is_recorded(here: Path) -> None:
    run(SPEC, options(here), progress=False)
    storage = open_storage(f"sqlite:///{here}/study.db")
    assert artifacts.place_of(storage, "sim") is None
    assert artifacts.valid(storage, "sim") == {}


def test_another_store_is_refused_while_trials_resume_from_the_first(here: Path) -> None:
    first, second = here / "first", here / "second"
    init(SPEC, options(here, launcher="local", workers=None, artifacts=first))
    init(SPEC, options(here, launcher="local", workers=None, artifacts=second))  # nothing was kept in the first
    held(here, second)
    with pytest.raises(
        UsageError, match=rf"--artifacts {first}: study sim keeps its artifacts in {second}, from where 1"
    ):
        init(SPEC, options(here, launcher="local", workers=None, artifacts=first))
    init(SPEC, options(here, launcher="local", workers=None, artifacts=second))


def test_a_store_whose_objects_are_gone_is_refused_before_a_row_is_claimed(here: Path) -> None:
    init(SPEC, options(here, launcher="local", workers=None, artifacts=here / "store"))
    (here / "store").rename(here / "unmounted")
    job = Job("sim", f"sqlite:///{here}/study.db", here / "elsewhere")
    for call in (lambda: work(job, Place(0, "cpu", 1)), lambda: run(SPEC, options(here), progress=False)):
        with pytest.raises(UsageError, match=rf"--artifacts {here}/store: cannot be written: there is no folder"):
            call()
    storage = open_storage(f"sqlite:///{here}/study.db")
    assert {row.attempt for row in Ledger(storage, "sim").rows()} == {0}


@pytest.mark.parametrize(
    ("given", "more", "line"),
    [
        ("ftp://host", {}, "protocol 'ftp' is not supported"),
        ("s3://key:secret@bucket/p", {}, "holds credentials or options"),
        ("none/of/these", {}, "there is no folder"),
        ("relative", {"start_workers": False}, "workers on other machines need the full path of a folder"),
        ("", {}, "allowed: the URL or the folder of a store, or None"),
        (7, {}, "allowed: the URL or the folder of a store, or None"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_created(
    given: object, more: dict[str, object], line: str, here: Path
) -> None:
    with pytest.raises(UsageError) as raised:
        run(SPEC, options(here, artifacts=given, **more), progress=False)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert list(here.iterdir()) == []


def test_gc_and_repair_know_the_objects(here: Path) -> None:
    init(SPEC, options(here, launcher="local", workers=None, artifacts=here / "store"))
    row, folder = held(here, here / "store")
    (folder / "row77").mkdir()
    (folder / "row77/1-1.tar").write_bytes(b"x" * 2048)
    where = replace(locate("sim", storage=f"sqlite:///{here}/study.db", out=here / "out"), spec=SPEC)
    assert "1 unneeded object (2.0 KiB)" in repair_study(where).as_text()
    for dry_run in (True, False):
        found = collect_garbage("sim", storage=where.storage_url, out=where.out, dry_run=dry_run)
        assert [each.path for each in found.files] == [f"{folder}/row77/1-1.tar"]
        assert (folder / "row77").exists() == dry_run
    assert (folder / f"row{row.id}/1-1.ckpt").exists()
    folder.rename(here / "gone")
    found = collect_garbage("sim", storage=where.storage_url, out=where.out)
    assert found.left == [f"artifacts of study sim in {here}/store: there is no folder {folder} on this machine"]
    assert "its artifacts cannot be reached: there is no folder" in repair_study(where).as_text()


def test_doctor_checks_the_store_of_a_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(SPEC, options(here, launcher="local", workers=None, artifacts=here / "store"))
    where = locate("sim", storage=f"sqlite:///{here}/study.db", out=here / "out")
    (check,) = artifact_checks(where)
    assert check.verdict == "ok"
    assert f"{here}/store/sim-" in str(check)
    (here / "store").rename(here / "unmounted")
    (check,) = artifact_checks(where)
    assert (check.name, check.verdict) == ("artifacts", "problem")
    monkeypatch.setattr(doctor, "Probe", lambda *given: SimpleNamespace(facts=lambda: "not asked"))
    assert check in diagnose("sim", storage=where.storage_url, out=where.out).checks


def test_workers_elsewhere_need_no_shared_folder_with_a_store(here: Path) -> None:
    """Otherwise they compare the token of the folder."""

    class Remote(LocalProcesses):
        remote = True

    class Scripts(Remote):
        needs_out = True

    storage = open_storage(f"sqlite:///{here}/study.db", create=True)
    place = StoredPlace(str(here), "sim-1")

    def token(launcher: Launcher, place: StoredPlace | None) -> str | None:
        return runs._token(storage, SPEC, here / "out", launcher, place)

    assert token(Remote(), place) is None
    assert not (here / "out" / TOKEN_FILE).exists()
    assert token(Remote(), None) == token(Scripts(), place) is not None
