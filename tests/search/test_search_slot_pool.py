"""Several rows in one worker's slots: each ends by itself, and none stays held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.errors import Interrupted, StorageError, TrialError
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.launch.devices import Place
from ralr_tune.launch.launcher import Job
from ralr_tune.launch.worker import work
from ralr_tune.records import Row
from ralr_tune.search.session import Session
from ralr_tune.search.slot_pool import SlotPool
from ralr_tune.search.trial import work_on
from ralr_tune.store.ledger import Ledger
from ralr_tune.studyfile import StudySpec, parse_study
from ralr_tune.tasks.trial import Trial
from tests.search.conftest import MakeSession
from tests.studies import simulated


class Three:
    """Three slots; records how many trials they held at every epoch, and trains none itself."""

    slots = 3

    def __init__(self, train: Callable[[Sequence[Trial]], None] = lambda trials: None) -> None:
        self.widths: list[int] = []
        self.waiting: list[int] = []
        self._train = train

    def settle(self, trial: Trial, waiting: Callable[[], int]) -> None:
        self.waiting.append(waiting())

    def train(self, trials: Sequence[Trial]) -> None:
        self.widths.append(len(trials))
        self._train(trials)


def work_until_done(session: Session, trainer: Three, max_steps: int = 1000) -> None:
    slots = SlotPool(session, trainer, lambda: session.ledger.remaining("search"))
    with slots.held():
        for _ in range(max_steps):
            row = None if slots.full else session.ledger.claim(session.owner, "search")
            if row is not None:
                slots.take(row)
            elif slots:
                slots.train()
            else:
                return


def spec_of(**search: Any) -> StudySpec:
    return simulated(search={"trials": 4, "sampler": "random", "pruner": "none"} | search)


def states(session: Session) -> set[str]:
    return {row.state for row in session.ledger.rows()}


def test_rows_in_slots_end_as_rows_trained_alone(make_session: MakeSession, tmp_path: Path) -> None:
    alone = make_session(spec_of(), url=f"sqlite:///{tmp_path}/alone.db")
    while (row := alone.ledger.claim("me", "search")) is not None:
        work_on(alone, row)
    session, trainer = make_session(spec_of()), Three()
    work_until_done(session, trainer)
    assert trainer.widths == [3] * 4 + [3] * 4 + [2] * 4  # of eight trials with four epochs each
    assert trainer.waiting == [8, 8, 8, 5, 5, 5, 2, 2]

    def facts(row: Row) -> Any:
        return row.id, row.outcome, row.params, row.value, [(record.epoch, record.value) for record in row.curve]

    assert [facts(row) for row in session.ledger.rows()] == [facts(row) for row in alone.ledger.rows()]


def test_a_slot_whose_trial_is_pruned_gets_the_next_row(make_session: MakeSession) -> None:
    options = {"n_startup_trials": 1, "n_warmup_steps": 0}
    session, trainer = make_session(spec_of(trials=8, pruner="median", pruner_options=options)), Three()
    work_until_done(session, trainer)
    rows = session.ledger.rows()
    assert {row.outcome for row in rows} == {"complete", "pruned"}
    assert sum(trainer.widths) == sum(len(row.curve) for row in rows)
    assert set(trainer.widths[:-4]) == {3}  # the batch stays full


def test_an_interrupt_frees_all_rows(make_session: MakeSession) -> None:
    session = make_session(spec_of())

    def asked_to_stop(trials: Sequence[Trial]) -> None:
        if trials[0].curve:
            session.stop.request()

    with pytest.raises(Interrupted):
        work_until_done(session, Three(asked_to_stop))
    assert states(session) == {"free"}
    session.stop.requested = False
    work_until_done(session, trainer := Three())
    assert states(session) == {"done"}
    assert sum(trainer.widths) == 8 * 4 - 3  # the first epochs are not trained again


def test_a_row_that_ends_the_study_frees_the_others(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(spec_of())
    epoch = SimulatedTrial._epoch

    def broken(self: SimulatedTrial, number: int) -> Any:
        if number == 2:
            raise TrialError("data", "unreadable")
        return epoch(self, number)

    monkeypatch.setattr(SimulatedTrial, "_epoch", broken)
    with pytest.raises(TrialError, match="unreadable"):
        work_until_done(session, Three())
    rows = session.ledger.rows()
    assert sorted(row.outcome for row in rows if row.outcome) == ["failed"]
    assert not any(row.state == "held" for row in rows)


def test_a_row_that_another_worker_claimed_leaves_its_slot(make_session: MakeSession) -> None:
    session, thief = make_session(spec_of()), make_session(spec_of(), owner="thief")
    stolen: list[Row] = []

    def steal(trials: Sequence[Trial]) -> None:
        if trials[0].curve and not stolen:
            held = next(row for row in session.ledger.rows() if row.state == "held")
            Ledger(session.storage, session.spec.name, lease_s=-1).renew_lease(held)
            claimed = thief.ledger.claim("thief", "search")
            assert claimed is not None
            stolen.append(claimed)

    work_until_done(session, Three(steal))
    rows = {row.id: row for row in session.ledger.rows()}
    assert rows.pop(stolen[0].id).owner == "thief"
    assert {row.outcome for row in rows.values()} == {"complete"}


def test_without_a_database_rows_wait_until_their_leases_expire(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = make_session(spec_of())

    def away(*arguments: Any, **options: Any) -> None:
        raise StorageError("the database is away")

    def pull_the_plug(trials: Sequence[Trial]) -> None:
        for name in ("progress", "release", "renew_lease"):
            monkeypatch.setattr(Ledger, name, away)

    with pytest.raises(StorageError, match="is away"):
        work_until_done(session, Three(pull_the_plug))
    assert caplog.text.count("could not be freed") == 2


@pytest.mark.parametrize("slots", [3, "auto"])
def test_a_worker_trains_real_trials_together(make_session: MakeSession, tmp_path: Path, slots: Any) -> None:
    text = Path("studies/digits.toml").read_text()
    for usual, short in (("epochs = 12", "epochs = 2"), ("trials = 24", "trials = 3")):
        text = text.replace(usual, short)
    session = make_session(parse_study(text, source="digits"))
    work(Job("digits", session.storage.url, tmp_path / "out", "search", slots=slots), Place(0, "cpu", 1))
    rows = session.ledger.rows()
    assert {row.outcome for row in rows} <= {"complete", "pruned"}
    assert max(row.value or 0 for row in rows) > 0.5
