"""Find, rehearse and fix everything that can be stuck: while workers run, and on tables of the first release."""

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
    """A study that the tests break."""

    def __init__(self, url: str, out: Path, spec: StudySpec) -> None:
        self.url, self.out, self.spec = url, out, spec
        self.storage: Storage = open_storage(url, create=True)
        self.ledger = Ledger(self.storage, spec.name, lease_s=60)
        self.expiring = Ledger(self.storage, spec.name, lease_s=-1)
        studies.register(self.storage, name=spec.name, text=spec.text, fingerprint=spec.fingerprint)
        for arm in spec.arms:
            studies.optuna_study(self.storage, f"{spec.name}/{arm}", metric=ACCURACY)
        plan_search(self.ledger, spec, spec.search.trials)

    def claimed(self, *, alive: bool = False) -> Row:
        row = (self.ledger if alive else self.expiring).claim("box:1:0", "search")
        assert row is not None
        return row

    def asked(self, row: Row, *, attach: bool = True) -> int:
        trial = studies.ask(self.study(row.arm), self.storage, row.id)
        if attach:
            self.expiring.attach(row, trial.number)
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
    """Arms monotone and ralr with four trials each; their rows alternate, with ids 1 to 8."""
    made = Broken(sqlite_url, tmp_path / "out", simulated())
    yield made
    made.storage.dispose()


def lapsed(broken: Broken) -> None:
    broken.asked(broken.claimed())


def orphan(broken: Broken) -> None:
    broken.asked(broken.claimed(), attach=False)


def unreported(broken: Broken) -> None:
    row = broken.claimed()
    broken.asked(row)
    broken.expiring.finish(
        row, outcome="diverged", value=None, curve=(), seconds=1.0, failure="diverged", message="nan"
    )


def stray(broken: Broken) -> None:
    row = broken.claimed()
    broken.asked(row)
    broken.asked(row, attach=False)
    broken.expiring.release(row)


def ended(broken: Broken) -> None:
    row = broken.claimed()
    broken.study(row.arm).tell(broken.asked(row), state=TrialState.FAIL)
    broken.expiring.release(row)


def deleted(broken: Broken) -> None:
    optuna.delete_study(study_name="sim/ralr", storage=broken.storage.optuna)


def hole(broken: Broken) -> None:
    broken.storage.change(delete(tables.ledger).where(tables.ledger.c.id == 4))


FIXES: dict[Callable[[Broken], None], list[tuple[str, str, str]]] = {
    lapsed: [
        (
            "search monotone 0 (row 1)",
            "held by box:1:0 (attempt 1, epoch 0), whose lease expired N s ago",
            "freed: the next worker resumes from its checkpoint",
        )
    ],
    orphan: [
        (
            "search monotone 0 (row 1)",
            "held by box:1:0 (attempt 1, epoch 0), whose lease expired N s ago",
            "freed: the next worker resumes from its checkpoint",
        ),
        (
            "search monotone 0 (row 1)",
            "it does not name its Optuna trial 0",
            "attached: the next worker resumes it",
        ),
    ],
    unreported: [
        ("search monotone 0 (row 1)", "diverged, but Optuna's trial 0 is still running", "reported to Optuna")
    ],
    stray: [("sim/monotone trial 1", "running without a row: its row has another trial, or is gone", "ended as FAIL")],
    ended: [
        (
            "search monotone 0 (row 1)",
            "not done, but its Optuna trial 0 is FAIL",
            "detached: the next worker asks for another trial",
        )
    ],
    deleted: [("sim/ralr", "its Optuna study is missing", "created again, without trials")],
    hole: [("search ralr 1", "has no row", "planned")],
}


def ago(text: str) -> str:
    """Replace times, which depend on the speed of this machine."""
    return re.sub(r"\d+ s ago", "N s ago", text)


@pytest.mark.parametrize("break_it", FIXES)
def test_each_finding_is_rehearsed_without_a_change_then_fixed_once(
    broken: Broken, break_it: Callable[[Broken], None]
) -> None:
    break_it(broken)
    before, expected = dump(broken.url), FIXES[break_it]
    rehearsed = broken.repair(dry_run=True)
    assert dump(broken.url) == before
    assert [(each.where, ago(each.what), each.fix) for each in rehearsed.findings] == expected
    assert ago(rehearsed.as_text()).splitlines() == [
        f"{where}: {what} -> would be {fix}" for where, what, fix in expected
    ]
    repaired = broken.repair()
    assert ago(repaired.as_text()).splitlines() == [f"{where}: {what} -> {fix}" for where, what, fix in expected]
    assert all(each["mended"] for each in repaired.as_json()["findings"])
    after = dump(broken.url)
    assert after != before
    again = broken.repair()
    assert again.as_text() == "nothing to fix"
    assert dump(broken.url) == after


@pytest.mark.parametrize("break_it", FIXES)
def test_the_study_resumes_after_the_fix(broken: Broken, break_it: Callable[[Broken], None]) -> None:
    break_it(broken)
    broken.repair()
    run(broken.spec, storage=broken.url, out=broken.out, workers=1, launcher="inprocess", confirm=False)
    assert finished(broken.url) == {("monotone", ordinal) for ordinal in range(4)} | {("ralr", n) for n in range(4)}
    assert broken.repair().as_text() == "nothing to fix"


def finished(url: str) -> set[tuple[str, int]]:
    """(arm, ordinal) of correctly ended search rows whose Optuna trial has ended, too."""
    storage = open_storage(url)
    rows = Ledger(storage, "sim").rows("search")
    reported = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = {arm: studies.optuna_trials(storage, f"sim/{arm}") for arm in ("monotone", "ralr")}
    numbers = {arm: {n for n, trial in found.items() if trial.state in reported} for arm, found in trials.items()}
    storage.dispose()
    ends = ("complete", "pruned", "diverged")
    return {(row.arm, row.ordinal) for row in rows if row.outcome in ends and row.trial in numbers[row.arm]}


def test_findings_that_only_the_user_can_fix_are_listed(broken: Broken) -> None:
    done = broken.claimed()
    broken.study(done.arm).tell(broken.asked(done), 0.9)
    broken.expiring.finish(done, outcome="complete", value=0.5, curve=(), seconds=1.0)
    failed = broken.claimed()
    broken.asked(failed)
    broken.expiring.fail(failed, kind="bug", message="ZeroDivisionError: mine\nand more", retry=False)
    broken.study("ralr").ask()
    broken.study("ralr").enqueue_trial({"lr": 0.1})
    ArtifactStore(broken.out / "checkpoints", broken.spec, "sim").checkpoint(done).parent.mkdir(parents=True)
    ArtifactStore(broken.out / "checkpoints", broken.spec, "sim").checkpoint(done).write_bytes(b"x" * 2048)
    before = dump(broken.url)
    lines = broken.repair().as_text().splitlines()
    assert lines == [
        "search monotone 0 (row 1): complete with 0.5, but its Optuna trial 0 is COMPLETE with 0.9 -> left: the report "
        "uses the ledger, the sampler uses Optuna",
        "sim/ralr trial 1: running, asked for by another program -> left: that program can end it",
        "sim/ralr trial 2: waiting, enqueued by another program -> left: workers ignore enqueued trials",
        "search ralr 0 (row 2): failed at attempt 1 (bug): ZeroDivisionError: mine -> left: `run` tries it again",
        f"{broken.out / 'checkpoints'}: 1 unneeded file (2.0 KiB) -> left: `{broken.where.command('gc')}` removes it",
    ]
    assert dump(broken.url) == before


def test_the_lost_trial_of_a_done_row_is_listed(broken: Broken) -> None:
    row = broken.claimed()
    broken.study(row.arm).tell(broken.asked(row), 0.5)
    broken.expiring.finish(row, outcome="complete", value=0.5, curve=(), seconds=1.0)
    optuna.delete_study(study_name="sim/monotone", storage=broken.storage.optuna)
    lost, contradictory = broken.repair(dry_run=True).findings
    assert lost.what == "its Optuna study is missing"
    assert contradictory.what == "complete with 0.5, but its Optuna trial 0 is gone"
    assert "its parameters are lost with it" in contradictory.fix


def test_a_row_of_a_living_worker_is_left_alone(broken: Broken) -> None:
    row = broken.claimed(alive=True)
    trial = studies.ask(broken.study(row.arm), broken.storage, row.id)
    before = dump(broken.url)
    assert broken.repair().as_text() == "nothing to fix"  # its worker is about to attach its trial
    assert dump(broken.url) == before
    broken.ledger.attach(row, trial.number)
    broken.study(row.arm).tell(trial.number, state=TrialState.FAIL)
    before = dump(broken.url)
    (found,) = broken.repair().findings
    assert (found.what, found.act) == ("not done, but its Optuna trial 0 is FAIL", None)
    assert found.fix == "left to its worker, box:1:0; run repair again once it has ended"
    assert dump(broken.url) == before


def test_a_smaller_budget_leaves_no_missing_rows(broken: Broken) -> None:
    """A started row stays, although rows before it are withdrawn."""
    rows = [row for row in broken.ledger.rows("search") if (row.arm, row.ordinal) != ("ralr", 1)]
    assert budget(rows) == 4
    assert unplanned(broken.spec, rows) == [("ralr", 1, 1)]
    started = [replace(row, attempt=1) for row in rows]
    assert budget(started) == 1
    assert unplanned(broken.spec, started) == []


def test_repair_while_workers_run_disturbs_none(broken: Broken) -> None:
    over = threading.Event()

    def repair_repeatedly() -> list[str]:
        found: list[str] = []
        while not over.is_set():
            found.extend(each.what for each in broken.repair().findings)
        return found

    with ThreadPoolExecutor(1) as pool:
        repaired = pool.submit(repair_repeatedly)
        try:
            run(broken.spec, storage=broken.url, out=broken.out, workers=2, launcher="inprocess")
        finally:
            over.set()
    found = repaired.result()
    passing = re.compile(r".* is still running|\d+ unneeded files? .*")  # its worker is about to handle it
    assert [what for what in found if not passing.fullmatch(what)] == []
    assert len(finished(broken.url)) == 8
    rows = Ledger(broken.storage, "sim").rows()
    assert {row.attempt for row in rows} == {1}
    assert {row.outcome for row in rows} <= {"complete", "pruned", "diverged"}


def test_a_study_of_the_first_release_is_migrated_and_resumes(bare_url: str, tmp_path: Path) -> None:
    first_release.make(bare_url)
    spec = simulated()
    where = StudyLocation(spec.name, spec, bare_url, tmp_path / "out")
    before = dump(bare_url)
    with pytest.raises(StorageError, match=r"repair sim --storage .*` brings them up to date"):
        run(spec, storage=bare_url, out=where.out)
    (rehearsed,) = repair_study(where, dry_run=True).findings
    assert rehearsed.what == "its tables have version 0001, this program needs version 0004"
    assert dump(bare_url) == before
    first, lease = repair_study(where).findings
    assert first.fix == "migrated"
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
    assert repair_study(where).as_text() == "nothing to fix"


def test_the_command_prints_a_line_for_each_finding(cli_inside: Cli, broken: Broken) -> None:
    lapsed(broken)
    arguments = ("repair", "sim", "--storage", broken.url)
    rehearsed = cli_inside(*arguments, "--dry-run")
    assert (rehearsed.code, rehearsed.err) == (0, "")
    assert ago(rehearsed.out) == "search monotone 0 (row 1): held by box:1:0 (attempt 1, epoch 0), whose lease " \
        "expired N s ago -> would be freed: the next worker resumes from its checkpoint\n"  # fmt: skip
    facts = cli_inside(*arguments, "--json").json()
    assert facts["study"] == "sim"
    assert facts["dry_run"] is False
    assert [(each["where"], each["mended"]) for each in facts["findings"]] == [("search monotone 0 (row 1)", True)]
    assert cli_inside(*arguments).out == "nothing to fix\n"


def test_without_a_study_there_is_nothing_to_repair(cli_inside: Cli, broken: Broken, tmp_path: Path) -> None:
    there = cli_inside("repair", "other", "--storage", broken.url)
    assert there.code == 1
    assert "no study 'other' is stored there; stored: sim" in there.err
    nowhere = cli_inside("repair", "digits", "--out", tmp_path / "none")
    assert nowhere.code == 1
    assert "no study is stored there" in nowhere.err
    assert not (tmp_path / "none").exists()
