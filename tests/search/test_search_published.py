"""Machines that share a database and a store of objects, and no folder: what one has recorded, another resumes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

from ralr_tune.commands.status import study_status
from ralr_tune.errors import DiskError, Interrupted
from ralr_tune.objects import patience
from ralr_tune.objects.opening import create_store
from ralr_tune.objects.stores import FolderStore, StoreError
from ralr_tune.objects.url import StoreUrl
from ralr_tune.records import Row
from ralr_tune.search import offline, published
from ralr_tune.search.published import MARKER, open_published
from ralr_tune.search.session import Session
from ralr_tune.search.trial import work_on
from ralr_tune.store import artifacts, incidents
from ralr_tune.store.artifacts import Artifact, StoredPlace
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.training.checkpoint import Checkpoints
from tests.faults.test_faults_storm import DIGITS
from tests.search.conftest import MakeSession
from tests.search.test_search_audits import audited, work_until_done
from tests.search.test_search_trial import Killed, claim, expire
from tests.studies import simulated

Machine = Callable[..., Session]

SPEC = simulated(search={"pruner": "none"}, confirm={"top": 1, "seeds": 2})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of the objects of one study."""
    create_store(StoreUrl("file", str(tmp_path / "store")), "sim-1", MARKER)
    return tmp_path / "store" / "sim-1"


@pytest.fixture
def machine(make_session: MakeSession, store: Path, tmp_path: Path) -> Iterator[Machine]:
    """`machine(name)`: a worker with a database that all share, and a folder that no other has."""

    def make(name: str, spec: StudySpec = SPEC, **more: str) -> Session:
        session = make_session(spec, owner=name, **more)
        artifacts.set_place(session.storage, spec.name, StoredPlace(str(store.parent), store.name))
        session.out = tmp_path / name
        session.published = open_published(session.storage, session.artifacts)
        return session

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for long."""
    monkeypatch.setattr(patience, "wait_s", lambda failures: 0.01)


def undisturbed(make_session: MakeSession, tmp_path: Path, spec: StudySpec = SPEC) -> Session:
    """The same study without a store."""
    session = make_session(spec, url=f"sqlite:///{tmp_path}/undisturbed.db")
    session.out = tmp_path / "undisturbed"
    return session


def curve(row: Row) -> list[object]:
    """Everything of a curve that a training determines."""
    return [replace(record, seconds=0.0) for record in row.curve]


def objects(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


def on_put(monkeypatch: pytest.MonkeyPatch, act: Callable[[str, Callable[[], None]], None]) -> None:
    """`act(name, write)` in place of writing an object."""
    put = FolderStore.put
    monkeypatch.setattr(FolderStore, "put", lambda self, name, content: act(name, lambda: put(self, name, content)))


def counting_saves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every epoch that is trained."""
    saved: list[int] = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, content: (saved.append(len(content)), save(self, content))[1])
    return saved


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_another_machine_resumes_after_the_last_recorded_epoch(
    epoch: int,
    is_written: bool,
    machine: Machine,
    make_session: MakeSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one is killed before, or after, the object of an epoch is written; that epoch is not recorded yet."""

    def killed(name: str, write: Callable[[], None]) -> None:
        is_this = name.endswith(f"-{epoch}.ckpt")
        if is_written or not is_this:
            write()
        if is_this:
            raise Killed

    whole = undisturbed(make_session, tmp_path)
    work_on(whole, claim(whole))
    first = machine("first")
    row = claim(first)
    with monkeypatch.context() as patch:
        on_put(patch, killed)
        with pytest.raises(Killed):
            work_on(first, row)
    assert first.ledger.row(row.id).epoch == epoch - 1
    expire(first)
    second = machine("second")
    saved = counting_saves(monkeypatch)
    work_on(second, claim(second))
    assert len(saved) == 4 - (epoch - 1)
    assert curve(second.ledger.row(row.id)) == curve(whole.ledger.row(row.id))


def test_the_database_names_one_object_which_exists(machine: Machine, store: Path, monkeypatch: Any) -> None:
    session, seen = machine("one"), []
    progress = Ledger.progress

    def recorded(self: Ledger, row: Row, record: Any, **more: Any) -> None:
        progress(self, row, record, **more)
        valid = artifacts.valid_of(self.storage, row.id)
        assert valid is not None
        content = (store / valid.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (valid.sha256, valid.bytes)
        seen.append((valid.epoch, [name for name in objects(store) if name != MARKER]))

    monkeypatch.setattr(Ledger, "progress", recorded)
    work_on(session, claim(session))
    name = "row1/1-{}.ckpt".format
    assert seen == [(1, [name(1)]), (2, [name(1), name(2)]), (3, [name(2), name(3)]), (4, [name(3), name(4)])]
    assert objects(store) == [MARKER]
    assert artifacts.valid(session.storage, "sim") == {}


def test_a_network_continues_bit_for_bit_on_another_machine(
    machine: Machine, make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_study(DIGITS.replace('"storm"', '"sim"').replace("epochs = 12", "epochs = 3"))
    whole = undisturbed(make_session, tmp_path, spec)
    work_on(whole, claim(whole))

    def killed(name: str, write: Callable[[], None]) -> None:
        if name.endswith("-3.ckpt"):
            raise Killed
        write()

    first = machine("first", spec)
    row = claim(first)
    with monkeypatch.context() as patch:
        on_put(patch, killed)
        with pytest.raises(Killed):
            work_on(first, row)
    expire(first)
    second = machine("second", spec)
    saved = counting_saves(monkeypatch)
    work_on(second, claim(second))
    assert len(saved) == 1
    assert curve(second.ledger.row(row.id)) == curve(whole.ledger.row(row.id))
    assert second.ledger.row(row.id).train_value == whole.ledger.row(row.id).train_value


PROGRAM = """
import hashlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
from ralr_tune import client
trial = client.trial()
state = pathlib.Path(trial.checkpoint, "state").read_text() if trial.checkpoint else str(trial.seed)
for epoch in range(trial.first_epoch, trial.epochs + 1):
    state = hashlib.sha256(f"{state}/{epoch}".encode()).hexdigest()
    folder = pathlib.Path(trial.folder, "latest")
    folder.mkdir(exist_ok=True)
    (folder / "state").write_text(state)
    if client.report(epoch, int(state[:8], 16) / 2**32, checkpoint=folder) != client.CONTINUE:
        sys.exit()
"""


def program(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> StudySpec:
    """A study of this program, as a file of its own."""
    script = tmp_path / "train.py"
    script.write_text(text)
    monkeypatch.chdir(tmp_path)
    task = {
        "kind": "command",
        "command": [sys.executable, "-S", str(script), str(Path(__file__).parents[2]), str(tmp_path)],
        "files": ["train.py"],
        "metric": {"name": "accuracy", "direction": "maximize", "unit": "share"},
    }
    tables = {
        "study": {"name": "sim", "baseline": "monotone"},
        "task": task,
        "training": {"epochs": 3, "lr": 0.1},
        "arms": {"monotone": {}},
        "search": {"trials": 1, "pruner": "none"},
    }
    return parse_study(tomli_w.dumps(tables))


def test_a_program_continues_from_the_checkpoint_that_it_reported(
    machine: Machine, make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = program(tmp_path, PROGRAM, monkeypatch)
    whole = undisturbed(make_session, tmp_path, spec)
    work_on(whole, claim(whole))

    def killed(name: str, write: Callable[[], None]) -> None:
        write()
        if name.endswith("-3.tar"):
            raise Killed

    first = machine("first", spec)
    row = claim(first)
    with monkeypatch.context() as patch:
        on_put(patch, killed)
        with pytest.raises(Killed):
            work_on(first, row)
    expire(first)
    second = machine("second", spec)
    saved = counting_saves(monkeypatch)
    work_on(second, claim(second))
    assert len(saved) == 1
    found = second.ledger.row(row.id)
    assert [record.value for record in found.curve] == [r.value for r in whole.ledger.row(row.id).curve]
    assert len(found.curve) == 3


FAILING = PROGRAM.replace("state = pathlib", 'print("attempt begins", flush=True)\nstate = pathlib').replace(
    "for epoch", 'if len(list(pathlib.Path(sys.argv[2]).glob("again"))) == 0: sys.exit("no luck")\nfor epoch'
)


def test_the_output_of_a_program_that_failed_is_in_the_store_until_its_trial_is_done(
    machine: Machine, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = program(tmp_path, FAILING, monkeypatch)
    first = machine("first", spec)
    row = claim(first)
    work_on(first, row)
    assert first.published is not None
    first.published.background.close()
    log = f"row{row.id}/1.log"
    assert (store / log).read_text() == "attempt begins\nno luck\n"
    failure = incidents.latest(first.storage, "sim")
    assert failure is not None
    assert failure.message.endswith(f"(a copy of its output: {store}/{log})")
    second = machine("second", spec)
    first.published.tidy(first.ledger.rows)
    assert log in objects(store)
    (tmp_path / "again").touch()
    work_on(second, claim(second))
    assert second.published is not None
    second.published.background.close()
    assert objects(store) == [MARKER]


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_an_object_that_is_lost_costs_time_and_changes_nothing(
    harm: str,
    machine: Machine,
    make_session: MakeSession,
    store: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = undisturbed(make_session, tmp_path)
    work_on(whole, claim(whole))
    first = machine("first")
    row = claim(first)
    _train_and_leave(first, row, epochs=2)
    (found,) = store.glob("row*/*.ckpt")
    found.write_bytes(b"damaged") if harm == "damaged" else found.unlink()
    second = machine("second")
    work_on(second, claim(second))
    assert any(f"row{row.id}/1-2.ckpt is missing or damaged" in each for each in caplog.messages)
    assert curve(second.ledger.row(row.id)) == curve(whole.ledger.row(row.id))
    assert objects(store) == [MARKER]


def _train_and_leave(session: Session, row: Row, epochs: int) -> None:
    """Trains so many epochs; then the worker is asked to stop, and releases the row."""
    with pytest.MonkeyPatch.context() as patch:
        progress = Ledger.progress

        def recorded(self: Ledger, row: Row, record: Any, **more: Any) -> None:
            progress(self, row, record, **more)
            if record.epoch == epochs:
                session.stop.requested = True

        patch.setattr(Ledger, "progress", recorded)
        with pytest.raises(Interrupted):
            work_on(session, row)
    session.stop.requested = False
    assert session.ledger.row(row.id).state == "free"


# ---------------------------------------------------------------- the store is away


def test_a_trial_waits_for_the_store_and_status_says_so(
    quick: None, machine: Machine, store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, shown, gone = machine("one"), [], store.with_name("unmounted")
    sleep = type(session.stop).sleep

    def wait(self: Any, seconds: float) -> None:
        sleep(self, seconds)
        shown.append(study_status(session.storage, "sim").as_text())
        if len(shown) == 8:
            gone.rename(store)

    def vanish(name: str, write: Callable[[], None]) -> None:
        if name.endswith("-2.ckpt") and not shown:
            store.rename(gone)
        write()

    monkeypatch.setattr(type(session.stop), "sleep", wait)
    on_put(monkeypatch, vanish)
    row = claim(session)
    work_on(session, row)
    line = f"paused: artifacts {store}: there is no folder {store} on this machine"
    assert line not in shown[0]  # a short failure is not worth a line
    assert line in shown[-1]
    done = session.ledger.row(row.id)
    assert (done.outcome, done.message, done.epoch) == ("complete", None, 4)
    assert sum("paused" in each for each in caplog.messages) == 1


def test_no_connection_to_the_database_is_held_while_the_store_takes_long(
    quick: None, machine: Machine, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(offline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    session, held, waited = machine("one", url=new_database("postgresql")), [], []

    def connections() -> int:
        pool: Any = session.storage.engine.pool
        return int(pool.checkedin() + pool.checkedout())

    def slow(name: str, write: Callable[[], None]) -> None:
        held.append((name.rpartition("-")[2], connections()))
        if name.endswith("-2.ckpt"):
            now[0] += offline.KEEP_S
        if name.endswith("-4.ckpt") and not waited:
            raise StoreError("no answer")
        write()

    sleep = type(session.stop).sleep
    monkeypatch.setattr(type(session.stop), "sleep", lambda *given: (waited.append(connections()), sleep(*given)))
    on_put(monkeypatch, slow)
    work_on(session, claim(session))
    assert held == [("1.ckpt", 0), ("2.ckpt", 1), ("3.ckpt", 0), ("4.ckpt", 1), ("4.ckpt", 0)]
    assert waited == [0]


def test_a_worker_that_is_stopped_while_it_waits_frees_its_row_without_the_epoch(
    quick: None, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine("first")
    row = claim(first)

    def away(name: str, write: Callable[[], None]) -> None:
        if name.endswith("-3.ckpt"):
            first.stop.requested = True
            raise StoreError("no answer")
        write()

    with monkeypatch.context() as patch:
        on_put(patch, away)
        with pytest.raises(Interrupted):
            work_on(first, row)
    found = first.ledger.row(row.id)
    assert (found.state, found.epoch) == ("free", 2)
    second = machine("second")
    saved = counting_saves(monkeypatch)
    work_on(second, claim(second))
    assert len(saved) == 2


def test_a_worker_that_lost_its_row_while_it_waited_records_nothing(
    quick: None, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine("first"), machine("second")
    row = claim(first)

    def away(name: str, write: Callable[[], None]) -> None:
        if name.endswith("-2.ckpt"):
            expire(first)
            claim(second)
        write()

    on_put(monkeypatch, away)
    work_on(first, row)  # leaves quietly
    found = second.ledger.row(row.id)
    assert (found.owner, found.epoch) == ("second", 1)
    valid = artifacts.valid_of(second.storage, row.id)
    assert valid is not None
    assert valid.name == f"row{row.id}/1-1.ckpt"


def test_a_checkpoint_that_is_too_large_is_refused_in_one_line(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "MAX_BYTES", 100)
    session = machine("one")
    with pytest.raises(DiskError, match=r"the checkpoint of row 1 has [\d,]+ bytes; allowed: at most 100; save less"):
        work_on(session, claim(session))


# ---------------------------------------------------------------- a whole study


def test_a_study_on_changing_machines_equals_one_on_one_machine(
    machine: Machine, make_session: MakeSession, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audits resume from another machine's checkpoint, and tests use another machine's weights."""
    spec = audited(search={"trials": 5})
    whole = undisturbed(make_session, tmp_path, spec)
    work_until_done(whole)
    expected = [(row.stage, row.outcome, row.value, curve(row)) for row in whole.ledger.rows()]
    trained = _epochs_by_stage(whole)
    for stage in ("search", "audit", "judge", "test"):
        session = machine(f"for-{stage}", spec)
        _work_until_after(session, stage)
    assert [(row.stage, row.outcome, row.value, curve(row)) for row in session.ledger.rows()] == expected
    assert _epochs_by_stage(session) == trained
    assert objects(store) == [MARKER]
    assert artifacts.valid(session.storage, "sim") == {}


def _epochs_by_stage(session: Session) -> dict[str, int]:
    """Rows whose time counts: tests that had to train again would have some."""
    return {
        stage: sum((row.seconds or 0.0) > 0 for row in session.ledger.rows(stage))
        for stage in ("search", "audit", "choose", "judge", "test")
    }


def _work_until_after(session: Session, last: Any) -> None:
    from ralr_tune.search.stages import advance
    from ralr_tune.search.telling import settle

    while (stage := advance(session.ledger, session.storage, session.spec, "test")) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)
        session.tidy()
        if stage == last:
            return


def test_only_what_no_worker_will_read_is_removed(machine: Machine, store: Path) -> None:
    """Left by killed workers: of rows that are done, of earlier attempts, and older than what the database names."""
    session = machine("one")
    done, open_row = claim(session), claim(session)
    work_on(session, done)
    session.ledger.progress(open_row, _record(2), artifact=Artifact(f"row{open_row.id}/1-2.ckpt", 2, "", 1))
    kept = [f"row{open_row.id}/1-2.ckpt", f"row{open_row.id}/1-3.ckpt", "notes.txt"]  # the second may be recorded next
    logs = [f"examples/row{done.id}.json", "logs/a-0-1-20261130T010203.log", f"row{open_row.id}/1.log"]
    left = [f"row{done.id}/1-4.ckpt", f"row{open_row.id}/1-1.ckpt", f"row{done.id}/.1-4.ckpt.77", "row99/1-1.tar"]
    left += [f"row{done.id}/1.log", "examples/row99.json", "row99/.2.log.77"]
    for name in (*kept, *logs, *left):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_bytes(b"x")
    assert session.published is not None
    session.published.tidy(session.ledger.rows)
    assert objects(store) == sorted([MARKER, *kept, *logs])
    assert session.published.finished_logs(session.ledger.rows) == {}
    expire(session)
    again = claim(session)
    assert again.id == open_row.id
    session.published.tidy(session.ledger.rows)
    assert objects(store) == sorted([MARKER, *kept[::2], *logs])  # attempt 1 can record nothing any more


def _record(epoch: int) -> Any:
    from ralr_tune.records import EpochRecord

    return EpochRecord(epoch, 0.5, 0.5, 0.1, 1.0, 1.0)


def test_a_store_that_is_away_does_not_keep_a_row_from_its_end(
    machine: Machine, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: FolderStore, name: str) -> None:
        raise StoreError("no answer")

    session = machine("one")
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "remove", away)
        work_on(session, claim(session))
    assert session.ledger.rows()[0].outcome == "complete"
    assert len(objects(store)) == 5
    session.tidy()
    assert objects(store) == [MARKER]
