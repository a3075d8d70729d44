"""Audited prunings: which prunings are audited, and that search, choice and files are the same as without audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from optuna.trial import TrialState

from ralr_tune.analysis.facts import study_facts
from ralr_tune.analysis.notes import notes
from ralr_tune.errors import TrialError
from ralr_tune.kinds.simulated.kind import SimulatedKind
from ralr_tune.kinds.simulated.trial import SimulatedTrial
from ralr_tune.records import Row, Stage
from ralr_tune.search import trial as trials
from ralr_tune.search.audits import AUTO_MIN_TRIALS, AUTO_SHARE, is_sampled, sampled, share, waiting
from ralr_tune.search.failing import MAX_BUGS
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance, pending_stage, withdraw_audits
from ralr_tune.search.telling import settle
from ralr_tune.search.trial import work_on
from ralr_tune.store import studies
from ralr_tune.store.ledger import Ledger
from ralr_tune.store.reading import read_study
from ralr_tune.studyfile import StudySpec
from ralr_tune.training.checkpoint import Checkpoints
from tests.search.conftest import MakeSession
from tests.studies import simulated

EPOCHS = 6
ARMS = ("monotone", "ralr")


class Killed(BaseException):
    """Simulates SIGKILL: no handler of this package catches it."""


def audited(audit: object = 1.0, **changes: Any) -> StudySpec:
    """A study of which most trials are pruned, at various epochs."""
    search = {"trials": 14, "sampler": "random", "pruner_options": {"n_startup_trials": 2}, "audit": audit}
    return simulated(
        task={"data": {"jitter": 0.05, "epoch_noise": 0.03} | changes.pop("data", {})},
        training={"epochs": EPOCHS},
        search=search | changes.pop("search", {}),
        confirm={"top": 1, "seeds": 2},
        **changes,
    )


def work_until_done(session: Session, until: Stage = "test") -> None:
    """What a worker does."""
    while (stage := advance(session.ledger, session.storage, session.spec, until)) is not None:
        while (row := session.ledger.claim(session.owner, stage)) is not None:
            work_on(session, row)
        settle(session)
        session.artifacts.tidy(lambda: session.ledger.rows(curves=False))


def searched(session: Session) -> None:
    """Does the search and nothing else."""
    while (row := session.ledger.claim(session.owner, "search")) is not None:
        work_on(session, row)
    settle(session)


def expire(session: Session) -> None:
    short = Ledger(session.storage, session.spec.name, lease_s=-1)
    for row in session.ledger.rows():
        if row.state == "held":
            short.renew_lease(row)


def place(row: Row) -> tuple[str, int, int]:
    return row.arm, row.block, row.ordinal


def pruned_rows(session: Session) -> dict[tuple[str, int, int], Row]:
    rows = read_study(session.storage, session.spec.name).rows()
    return {place(row): row for row in rows if row.stage == "search" and row.outcome == "pruned"}


def audits(session: Session) -> dict[tuple[str, int, int], Row]:
    return {place(row): row for row in session.ledger.rows("audit")}


def files(session: Session) -> list[str]:
    return sorted(path.name for path in (session.out / "checkpoints").glob("*"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, int]]:
    """How often each epoch of each configuration and seed is trained."""
    counts: Counter[tuple[bytes, int]] = Counter()
    epoch_of = SimulatedTrial._epoch

    def counting(self: SimulatedTrial, epoch: int) -> Any:
        counts[self._checkpoints._identity, epoch + 1] += 1
        return epoch_of(self, epoch)

    monkeypatch.setattr(SimulatedTrial, "_epoch", counting)
    return counts


# ---------------------------------------------------------------- which prunings


def a_row(ordinal: int, arm: str = "ralr", **changes: Any) -> Row:
    fields: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__)
    fields |= {"id": ordinal, "block": 1, "ordinal": ordinal, "arm": arm, "stage": "search", "trial": ordinal}
    return Row(**fields | {"state": "done", "outcome": "pruned"} | changes)


def ordinals(spec: StudySpec, rows: list[Row]) -> list[int]:
    return [row.ordinal for row in sampled(spec, rows)]


def test_auto_audits_a_tenth_if_there_are_enough_trials_for_a_rate() -> None:
    spec = audited("auto")
    assert (share(spec, AUTO_MIN_TRIALS - 1), share(spec, AUTO_MIN_TRIALS)) == (0.0, AUTO_SHARE)
    assert share(audited("auto", search={"pruner": "none", "pruner_options": {}}), AUTO_MIN_TRIALS) == 0.0
    assert share(audited(0.3), 1) == 0.3


def test_the_sample_has_its_share_and_a_larger_share_includes_it() -> None:
    rows = [a_row(ordinal) for ordinal in range(4000)]
    none, some, more, every = (ordinals(audited(audit), rows) for audit in (0, 0.1, 0.5, 1))
    assert (none, every) == ([], list(range(4000)))
    assert 330 < len(some) < 470  # 400, sd 19
    assert set(some) < set(more)
    assert some == ordinals(audited("auto"), rows)


def test_the_sample_is_the_same_in_all_arms_and_differs_between_seeds_and_blocks() -> None:
    rows = [a_row(ordinal, arm) for ordinal in range(200) for arm in ARMS]
    found = sampled(audited(0.3), rows)
    assert [row.ordinal for row in found if row.arm == "ralr"] == [row.ordinal for row in found if row.arm != "ralr"]
    mine = ordinals(audited(0.3), rows)
    assert mine != ordinals(audited(0.3, study={"seed": 1}), rows)
    assert mine != ordinals(audited(0.3), [replace(row, block=2) for row in rows])


def test_only_pruned_rows_are_audited_and_they_wait_until_the_audit_is_done() -> None:
    complete = a_row(0, outcome="complete")
    running = a_row(1, state="held", outcome=None)
    first, second = a_row(2), a_row(3)
    rows = [complete, running, first, second]
    assert sampled(audited(), rows) == [first, second]
    done = a_row(2, stage="audit", outcome="complete", trial=None)
    begun = a_row(3, stage="audit", state="held", outcome=None, trial=None)
    assert waiting(audited(), [*rows, done, begun]) == [second]


def test_the_number_of_trials_is_that_of_the_largest_arm() -> None:
    """`run --trials` may leave an arm one started trial more: the sample stays the same in all arms."""
    spec = audited("auto")
    rows = [a_row(ordinal) for ordinal in range(AUTO_MIN_TRIALS)]
    fewer = [a_row(ordinal, "monotone") for ordinal in range(AUTO_MIN_TRIALS - 1)]
    found = sampled(spec, [*rows, *fewer])
    assert {row.arm for row in found} == set(ARMS)
    assert sampled(spec, fewer) == []
    assert [is_sampled(spec, row, AUTO_MIN_TRIALS) for row in fewer].count(True) == sum(
        row.arm == "monotone" for row in found
    )


# ---------------------------------------------------------------- a whole study


def test_every_pruned_trial_is_trained_to_its_end_once(
    make_session: MakeSession, storage_url: str, trained: Counter[tuple[bytes, int]]
) -> None:
    session = make_session(audited(), url=storage_url)
    work_until_done(session)
    stopped, found = pruned_rows(session), audits(session)
    assert len(stopped) >= 12
    assert len({row.epoch for row in stopped.values()}) > 1
    assert found.keys() == stopped.keys()
    for where, row in found.items():
        pruned = stopped[where]
        assert (row.outcome, row.epoch, row.seed, row.source) == ("complete", EPOCHS, pruned.seed, pruned.trial)
        assert row.params == pruned.params
        assert [record.epoch for record in row.curve] == list(range(1, EPOCHS + 1))
        assert row.curve[: pruned.epoch] == pruned.curve  # bit for bit, seconds included: it resumed from there
        assert row.value == row.curve[-1].value
        assert row.seconds == pytest.approx(sum(record.seconds for record in row.curve[pruned.epoch :]))
    assert set(trained.values()) == {1}
    assert files(session) == []


@pytest.mark.parametrize("pruner", [{"pruner": "median"}, {"pruner": "asha", "prune_on": "smoothed"}])
def test_search_choice_and_judging_are_the_same_without_audits(
    make_session: MakeSession, tmp_path: Path, pruner: dict[str, Any]
) -> None:
    """With TPE, which models what is reported of pruned trials."""
    search = {"sampler": "tpe", "sampler_options": {"n_startup_trials": 4}, "pruner_options": {}, **pruner}
    with_audits = make_session(audited(1.0, search=search))
    without = make_session(audited(0, search=search), url=f"sqlite:///{tmp_path}/without.db")
    told, rows = [], []
    for session in (with_audits, without):
        work_until_done(session)
        places = [studies.optuna_name("sim", arm) for arm in ARMS]
        found = [studies.optuna_trials(session.storage, name) for name in places]
        told.append(
            [
                (trial.number, trial.state, trial.value, trial.params, trial.intermediate_values)
                for trials in found
                for trial in trials.values()
            ]
        )
        rows.append(
            [
                (row.arm, row.stage, row.block, row.ordinal, row.role, row.source, row.seed, row.outcome, row.value)
                for row in session.ledger.rows()
                if row.stage != "audit"
            ]
        )
    assert audits(with_audits)
    assert not audits(without)
    assert told[0] == told[1]
    assert TrialState.PRUNED in {trial[1] for trial in told[0]}
    assert rows[0] == rows[1]


def test_the_report_states_the_cost_of_pruning(make_session: MakeSession) -> None:
    session = make_session(audited(1.0, search={"trials": 24}))
    work_until_done(session, until="search")
    assert advance(session.ledger, session.storage, session.spec) == "judge"  # the audits belong to the search
    record = read_study(session.storage, "sim")
    facts = study_facts(record)
    assert [audit.audited for audit in facts.pruning] == [facts.arms[arm].counts["pruned"] for arm in ARMS]
    assert all(facts.arms[arm].counts["budget"] == 24 for arm in ARMS)
    said = " ".join(notes(facts))
    assert f"Of ralr's {facts.pruning[1].audited} audited prunings {facts.pruning[1].wrong} were wrong" in said
    middle = median(row.value or 0 for row in record.arms["ralr"].search() if row.outcome == "complete")
    ended = [row.value or 0 for row in audits(session).values() if row.arm == "ralr"]
    assert facts.pruning[1].wrong == sum(value > middle for value in ended)


def test_a_share_of_the_pruned_trials_is_audited(make_session: MakeSession) -> None:
    session = make_session(audited(0.4))
    work_until_done(session)
    expected = {place(row) for row in sampled(session.spec, session.ledger.rows())}
    assert audits(session).keys() == expected
    assert 0 < len(expected) < len(pruned_rows(session))
    assert files(session) == []


def test_an_audited_network_resumes_where_it_was_pruned_and_ends_as_without_pruning(make_session: MakeSession) -> None:
    search = {"trials": 2, "start": [{"lr": 0.1}, {"lr": 0.001}], "pruner_options": {"n_startup_trials": 1}}
    spec = simulated(
        task={"kind": "classification", "data": {"source": "digits", "limit": 200}, "model": "small_cnn"},
        training={"epochs": 3},
        search=search | {"audit": 1},
    )
    session = make_session(spec)
    work_until_done(session, until="search")
    pruned, audit = pruned_rows(session)["ralr", 1, 1], audits(session)["ralr", 1, 1]
    assert audit.curve[: pruned.epoch] == pruned.curve
    undisturbed = spec.kind.trial(session.tasks.only(), spec.configuration("ralr", pruned.params), seed=pruned.seed)
    assert [replace(record, seconds=0.0) for record in audit.curve] == [
        replace(record, seconds=0.0) for record in undisturbed.epochs()
    ]
    assert files(session) == []


# ---------------------------------------------------------------- crashes and missing files


@pytest.mark.parametrize("epoch", [1, 2])
def test_another_worker_resumes_an_audit_that_was_killed(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch, trained: Counter[tuple[bytes, int]], epoch: int
) -> None:
    first = make_session(audited(), owner="first")
    searched(first)
    assert advance(first.ledger, first.storage, first.spec) == "audit"
    row = first.ledger.claim("first", "audit")
    assert row is not None
    save, saved = Checkpoints.save, []

    def killing(self: Checkpoints, content: bytes) -> None:
        save(self, content)
        saved.append(1)
        if len(saved) == epoch:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killing)
        with pytest.raises(Killed):
            work_on(first, row)
    expire(first)
    second = make_session(audited(), owner="second")
    work_until_done(second)
    done = second.ledger.row(row.id)
    assert (done.attempt, done.outcome, done.epoch) == (2, "complete", EPOCHS)
    assert done.curve[: pruned_rows(second)[place(row)].epoch] == pruned_rows(second)[place(row)].curve
    assert set(trained.values()) == {1}
    assert files(second) == []


def test_without_checkpoints_an_audit_trains_again_to_the_same_result(
    make_session: MakeSession, tmp_path: Path
) -> None:
    here = make_session(audited())
    work_until_done(here)
    session = make_session(audited(), url=f"sqlite:///{tmp_path}/elsewhere.db")
    searched(session)
    for path in (session.out / "checkpoints").iterdir():
        path.unlink()
    work_until_done(session)

    def curves(found: Session) -> dict[Any, list[tuple[int, float, float]]]:
        return {where: [(r.epoch, r.value, r.lr) for r in row.curve] for where, row in audits(found).items()}

    assert curves(session) == curves(here)


def test_only_checkpoints_of_audited_prunings_are_kept(make_session: MakeSession) -> None:
    session = make_session(audited(0.4))
    searched(session)
    wanted = {row.id for row in sampled(session.spec, session.ledger.rows())}
    kept = {int(name.removeprefix("sim-row").split(".")[0]) for name in files(session)}
    assert kept == wanted
    assert session.artifacts.leftovers(session.ledger.rows) == []
    row = next(row for row in session.ledger.rows() if row.id in wanted)
    trials._remove_files_if_done(session, row)  # an earlier attempt that wakes up
    assert len(files(session)) == len(wanted)
    work_until_done(session)
    session.artifacts.checkpoint(row).touch()
    trials._remove_files_if_done(session, row)
    assert files(session) == []


def test_auto_keeps_no_checkpoints_if_it_audits_nothing(make_session: MakeSession) -> None:
    session = make_session(audited("auto"))
    searched(session)
    assert pruned_rows(session)
    assert files(session) == []


# ---------------------------------------------------------------- audits that fail


def test_an_audit_that_diverges_has_an_outcome_and_is_no_wrong_pruning(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(audited())
    searched(session)
    epoch_of = SimulatedTrial._epoch

    def diverging(self: SimulatedTrial, epoch: int) -> Any:
        if epoch + 1 == EPOCHS:
            raise TrialError("diverged", "training loss nan")
        return epoch_of(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedTrial, "_epoch", diverging)
        work_until_done(session, until="search")
    assert {row.outcome for row in audits(session).values()} == {"diverged"}
    facts = study_facts(read_study(session.storage, "sim"))
    assert [(audit.wrong, audit.audited) for audit in facts.pruning] == [
        (0, facts.arms[arm].counts["pruned"]) for arm in ARMS
    ]
    assert files(session) == []
    assert advance(session.ledger, session.storage, session.spec) == "judge"


def test_an_audit_that_runs_out_of_memory_has_an_outcome_too(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(audited())
    searched(session)
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedKind, "trial", raising(TrialError("oom", "no room")))
        work_until_done(session, until="search")
    assert {(row.outcome, row.failure) for row in audits(session).values()} == {("diverged", "oom")}
    assert files(session) == []
    assert advance(session.ledger, session.storage, session.spec) == "judge"


def test_a_bug_in_an_audit_ends_the_study_and_says_how_to_continue_without_audits(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(audited())
    searched(session)
    way_out = "with audit = 0 under"
    with monkeypatch.context() as patch:
        patch.setattr(SimulatedKind, "trial", raising(ZeroDivisionError("mine")))
        with pytest.raises(TrialError, match=f"audit .* failed {MAX_BUGS} times: ZeroDivisionError: mine.*{way_out}"):
            work_until_done(session)
    with pytest.raises(TrialError, match=way_out):
        advance(session.ledger, session.storage, session.spec)
    without = make_session(audited(0))
    without.ledger.reopen_failed()
    withdraw_audits(without.ledger, without.spec)
    work_until_done(without)
    assert not audits(without)
    assert all(row.state == "done" for row in without.ledger.rows())
    assert files(without) == []


def raising(error: Exception) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise error

    return call


# ---------------------------------------------------------------- another share, later


def test_a_larger_share_audits_more_and_a_smaller_one_keeps_finished_audits(make_session: MakeSession) -> None:
    some = make_session(audited(0.4))
    work_until_done(some)
    done = {place(row): row for row in audits(some).values()}
    every = make_session(audited(1.0))
    assert pending_stage(every.spec, every.ledger.rows()) == "audit"
    assert advance(every.ledger, every.storage, every.spec) == "audit"
    begun = every.ledger.claim("me", "audit")
    assert begun is not None
    fewer = make_session(audited(0.4))
    withdraw_audits(fewer.ledger, fewer.spec)
    assert audits(fewer).keys() == done.keys() | {place(begun)}
    work_on(fewer, begun)
    work_until_done(fewer)
    assert {where: row for where, row in audits(fewer).items() if where in done} == done
    assert files(fewer) == []


def test_a_study_that_grows_audits_its_new_prunings(make_session: MakeSession) -> None:
    session = make_session(audited(1.0))
    work_until_done(session)
    before = len(audits(session))
    larger = make_session(audited(1.0, search={"trials": 20}))
    work_until_done(larger)
    assert len(audits(larger)) == len(pruned_rows(larger)) > before
