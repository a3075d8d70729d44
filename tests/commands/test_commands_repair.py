"""Everything that can be stuck, found, rehearsed and mended; beside workers, and on tables of the first release."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import delete

from ralr_tune.commands.locate import StudyLocation
from ralr_tune.commands.repair import Repair, budget, repair_study, unplanned
from ralr_tune.commands.run import run
from ralr_tune.errors import StorageError
from ralr_tune.records import Row
from ralr_tune.search.artifacts import ArtifactStore
from ralr_tune.search.stages import plan_search
from ralr_tune.store import studies, tables
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec
from tests.commands.conftest import Cli
from tests.databases import dump
from tests.metrics import ACCURACY
from tests.store import first_release
from tests.studies import simulated


class Broken:
    """A study in the hands of somebody who breaks it."""

    def __init__(self, url: str, out: Path, spec: StudySpec) -> None:
        self.url, self.out, self.spec = url, out, spec
        self.storage: Storage = open_storage(url, create=True)
        self.ledger = Ledger(self.storage, spec.name, lease_s=60)
        self.dying = Ledger(self.storage, spec.name, lease_s=-1)
        studies.register(self.storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        for arm in spec.arms:
            studies.optuna_study(self.storage, f"{spec.name}/{arm}", metric=ACCURACY)
        plan_search(self.ledger, spec, spec.search.trials)

    def claimed(self, *, alive: bool = False) -> Row:
        row = (self.ledger if alive else self.dying).claim("box:1:0", "search")
        assert row is not None
        return row

    def asked(self, row: Row, *, attach: bool = True) -> int:
        trial = studies.ask(self.study(row.arm), self.storage, row.id)
        if attach:
            self.dying.attach(row, trial.number)
        return trial.number

    def study(self, arm: str) -> optuna.Study:
        return studies.optuna_study(self.storage, f"{self.spec.name}/{arm}")

    def repair(self, *, dry_run: bool = False) -> Repair:
        return repair_study(self.where, dry_run=dry_run)

    @property
    def where(self) -> StudyLocation:
        return StudyLocation(self.spec.name, self.spec, self.url, self.out)


@pytest.fixture
def broken(sqlite_url: str, tmp_path: Path) -> Iterator[Broken]:
    """Monotone and ralr, four trials each; their rows have the ids 1 to 8, in turn."""
    made = Broken(sqlite_url, tmp_path / "out", simulated())
    yield made
    made.storage.dispose()


def lapsed(broken: Broken) -> None:
    broken.asked(broken.claimed())


def orphan(broken: Broken) -> None:
    broken.asked(broken.claimed(), attach=False)


def untold(broken: Broken) -> None:
    row = broken.claimed()
    broken.asked(row)
    broken.dying.finish(row, outcome="diverged", value=None, curve=(), seconds=1.0, failure="diverged", message="nan")


def stray(broken: Broken) -> None:
    row = broken.claimed()
    broken.asked(row)
    broken.asked(row, attach=False)
    broken.dying.release(row)


def ended(broken: Broken) -> None:
    row = broken.claimed()
    broken.study(row.arm).tell(broken.asked(row), state=TrialState.FAIL)
    broken.dying.release(row)


def deleted(broken: Broken) -> None:
    optuna.delete_study(study_name="sim/ralr", storage=broken.storage.optuna)


def hole(broken: Broken) -> None:
    broken.storage.change(delete(tables.ledger).where(tables.ledger.c.id == 4))


MENDED: dict[Callable[[Broken], None], list[tuple[str, str, str]]] = {
    lapsed: [
        (
            "search monotone 0 (row 1)",
            "held by box:1:0 (attempt 1, epoch 0), whose lease ran out N s ago",
            "freed: the next worker goes on from its checkpoint",
        )
    ],
    orphan: [
        (
            "search monotone 0 (row 1)",
            "held by box:1:0 (attempt 1, epoch 0), whose lease ran out N s ago",
            "freed: the next worker goes on from its checkpoint",
        ),
        (
            "search monotone 0 (row 1)",
            "trial 0 was asked for it, and it does not name it",
            "noted: the next worker goes on with it",
        ),
    ],
    untold: [("search monotone 0 (row 1)", "diverged, and Optuna's trial 0 still runs", "told to Optuna")],
    stray: [("sim/monotone trial 1", "runs for nobody: its row has another trial, or is gone", "ended as FAIL")],
    ended: [("search monotone 0 (row 1)", "not done, and its Optuna trial 0 is FAIL", "made to ask for another")],
    deleted: [("sim/ralr", "its Optuna study is gone", "made anew, without trials")],
    hole: [("search ralr 1", "no row plans it", "planned")],
}


def ago(text: str) -> str:
    """The same however long it took to get here."""
    return re.sub(r"\d+ s ago", "N s ago", text)


@pytest.mark.parametrize("break_it", MENDED)
def test_each_thing_is_rehearsed_without_a_trace_then_mended_once(
    broken: Broken, break_it: Callable[[Broken], None]
) -> None:
    break_it(broken)
    before, expected = dump(broken.url), MENDED[break_it]
    rehearsed = broken.repair(dry_run=True)
    assert dump(broken.url) == before
    assert [(each.where, ago(each.what), each.mend) for each in rehearsed.findings] == expected
    assert ago(rehearsed.as_text()).splitlines() == [
        f"{where}: {what} -> would be {mend}" for where, what, mend in expected
    ]
    mended = broken.repair()
    assert ago(mended.as_text()).splitlines() == [f"{where}: {what} -> {mend}" for where, what, mend in expected]
    assert all(each["mended"] for each in mended.as_json()["findings"])
    after = dump(broken.url)
    assert after != before
    again = broken.repair()
    assert again.as_text() == "nothing to mend"
    assert dump(broken.url) == after


@pytest.mark.parametrize("break_it", MENDED)
def test_the_study_goes_on_after_the_mend(broken: Broken, break_it: Callable[[Broken], None]) -> None:
    break_it(broken)
    broken.repair()
    run(broken.spec, storage=broken.url, out=broken.out, workers=1, launcher="inprocess", confirm=False)
    assert finished(broken.url) == {("monotone", ordinal) for ordinal in range(4)} | {("ralr", n) for n in range(4)}
    assert broken.repair().as_text() == "nothing to mend"


def finished(url: str) -> set[tuple[str, int]]:
    """(arm, ordinal) of search rows that ended as they should, each with a trial that says so."""
    storage = open_storage(url)
    rows = Ledger(storage, "sim").rows("search")
    told = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = {arm: studies.optuna_trials(storage, f"sim/{arm}") for arm in ("monotone", "ralr")}
    numbers = {arm: {n for n, trial in found.items() if trial.state in told} for arm, found in trials.items()}
    storage.dispose()
    ends = ("complete", "pruned", "diverged")
    return {(row.arm, row.ordinal) for row in rows if row.outcome in ends and row.trial in numbers[row.arm]}


def test_what_only_people_can_mend_is_said(broken: Broken) -> None:
    done = broken.claimed()
    broken.study(done.arm).tell(broken.asked(done), 0.9)
    broken.dying.finish(done, outcome="complete", value=0.5, curve=(), seconds=1.0)
    failed = broken.claimed()
    broken.asked(failed)
    broken.dying.fail(failed, kind="bug", message="ZeroDivisionError: mine\nand more", retry=False)
    broken.study("ralr").ask()
    broken.study("ralr").enqueue_trial({"lr": 0.1})
    ArtifactStore(broken.out / "checkpoints", broken.spec).checkpoint(done).parent.mkdir(parents=True)
    ArtifactStore(broken.out / "checkpoints", broken.spec).checkpoint(done).write_bytes(b"x" * 2048)
    before = dump(broken.url)
    lines = broken.repair().as_text().splitlines()
    assert lines == [
        "search monotone 0 (row 1): complete with 0.5, and its Optuna trial 0 is COMPLETE with 0.9 -> left: the report "
        "goes by the ledger, the sampler by Optuna",
        "sim/ralr trial 1: runs, asked for by somebody else -> left: who asked for it can end it",
        "sim/ralr trial 2: waits, enqueued by somebody -> left: no worker takes up what others enqueue",
        "search ralr 0 (row 2): failed at attempt 1 (bug): ZeroDivisionError: mine -> left: `run` opens it again",
        f"{broken.out / 'checkpoints'}: 1 file that nobody will read (2.0 KiB) -> "
        f"left: `{broken.where.command('gc')}` removes it",
    ]
    assert dump(broken.url) == before


def test_the_lost_trial_of_a_done_row_is_said(broken: Broken) -> None:
    row = broken.claimed()
    broken.study(row.arm).tell(broken.asked(row), 0.5)
    broken.dying.finish(row, outcome="complete", value=0.5, curve=(), seconds=1.0)
    optuna.delete_study(study_name="sim/monotone", storage=broken.storage.optuna)
    lost, said = broken.repair(dry_run=True).findings
    assert lost.what == "its Optuna study is gone"
    assert said.what == "complete with 0.5, and its Optuna trial 0 is gone"
    assert "its parameters are gone with it" in said.mend


def test_a_row_in_a_living_workers_hands_is_left_alone(broken: Broken) -> None:
    row = broken.claimed(alive=True)
    trial = studies.ask(broken.study(row.arm), broken.storage, row.id)
    before = dump(broken.url)
    assert broken.repair().as_text() == "nothing to mend"  # about to note its trial
    assert dump(broken.url) == before
    broken.ledger.attach(row, trial.number)
    broken.study(row.arm).tell(trial.number, state=TrialState.FAIL)
    before = dump(broken.url)
    (found,) = broken.repair().findings
    assert (found.what, found.act) == ("not done, and its Optuna trial 0 is FAIL", None)
    assert found.mend == "left to its worker, box:1:0; repair again once that is gone"
    assert dump(broken.url) == before


def test_a_smaller_budget_is_no_hole(broken: Broken) -> None:
    """A row that was begun stays when others are withdrawn before it."""
    rows = [row for row in broken.ledger.rows("search") if (row.arm, row.ordinal) != ("ralr", 1)]
    assert budget(rows) == 4
    assert unplanned(broken.spec, rows) == [("ralr", 1, 1)]
    begun = [replace(row, attempt=1) for row in rows]
    assert budget(begun) == 1
    assert unplanned(broken.spec, begun) == []


def test_repairing_beside_workers_disturbs_none(broken: Broken) -> None:
    over = threading.Event()

    def repair_on_and_on() -> list[str]:
        found: list[str] = []
        while not over.is_set():
            found.extend(each.what for each in broken.repair().findings)
        return found

    with ThreadPoolExecutor(1) as beside:
        repaired = beside.submit(repair_on_and_on)
        try:
            run(broken.spec, storage=broken.url, out=broken.out, workers=2, launcher="inprocess")
        finally:
            over.set()
    found = repaired.result()
    passing = re.compile(r".* still runs|\d+ files? that nobody will read .*")  # its worker is about to see to it
    assert [what for what in found if not passing.fullmatch(what)] == []
    assert len(finished(broken.url)) == 8
    rows = Ledger(broken.storage, "sim").rows()
    assert {row.attempt for row in rows} == {1}
    assert {row.outcome for row in rows} <= {"complete", "pruned", "diverged"}


def test_a_study_of_the_first_release_is_brought_up_to_date_and_goes_on(bare_url: str, tmp_path: Path) -> None:
    first_release.make(bare_url)
    spec = simulated()
    where = StudyLocation(spec.name, spec, bare_url, tmp_path / "out")
    before = dump(bare_url)
    with pytest.raises(StorageError, match=r"repair sim --storage .*` brings them up to date"):
        run(spec, storage=bare_url, out=where.out)
    (rehearsed,) = repair_study(where, dry_run=True).findings
    assert rehearsed.what == "its tables are of version 0001, this program's of version 0002"
    assert dump(bare_url) == before
    first, lease = repair_study(where).findings
    assert first.mend == "brought up to date"
    assert lease.where == "search monotone 1 (row 3)"
    run(spec, storage=bare_url, out=where.out, workers=1, launcher="inprocess", confirm=False)
    assert finished(bare_url) == {(arm, ordinal) for arm in ("monotone", "ralr") for ordinal in range(4)}
    after = [row[1:] for row in dump(bare_url)["ralr_tune_ledger"]]
    done = [row[1:] for row in before["ralr_tune_ledger"] if "done" in row]
    assert len(done) == 2
    assert all(row in after for row in done)
    storage = open_storage(bare_url)
    assert studies.optuna_trials(storage, "sim/monotone")[1].params == first_release.PARAMS["monotone"]
    storage.dispose()
    assert repair_study(where).as_text() == "nothing to mend"


def test_the_command_prints_a_line_for_each_finding(cli_inside: Cli, broken: Broken) -> None:
    lapsed(broken)
    arguments = ("repair", "sim", "--storage", broken.url)
    rehearsed = cli_inside(*arguments, "--dry-run")
    assert (rehearsed.code, rehearsed.err) == (0, "")
    assert ago(rehearsed.out) == "search monotone 0 (row 1): held by box:1:0 (attempt 1, epoch 0), whose lease ran " \
        "out N s ago -> would be freed: the next worker goes on from its checkpoint\n"  # fmt: skip
    facts = cli_inside(*arguments, "--json").json()
    assert facts["study"] == "sim"
    assert facts["dry_run"] is False
    assert [(each["where"], each["mended"]) for each in facts["findings"]] == [("search monotone 0 (row 1)", True)]
    assert cli_inside(*arguments).out == "nothing to mend\n"


def test_without_a_study_there_is_nothing_to_repair(cli_inside: Cli, broken: Broken, tmp_path: Path) -> None:
    there = cli_inside("repair", "other", "--storage", broken.url)
    assert there.code == 1
    assert "no study 'other' is stored there; stored: sim" in there.err
    nowhere = cli_inside("repair", "digits", "--out", tmp_path / "none")
    assert nowhere.code == 1
    assert "no study is stored there" in nowhere.err
    assert not (tmp_path / "none").exists()
