from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from itertools import count, pairwise
from types import SimpleNamespace

import pytest
from rich.console import Console
from sqlalchemy.exc import OperationalError

from ralr_tune.commands import progress
from ralr_tune.commands.progress import Display, StepBar
from ralr_tune.commands.status import LiveStatus, Status, study_status
from ralr_tune.errors import StorageError
from ralr_tune.records import EpochRecord
from ralr_tune.search.session import Session
from ralr_tune.search.stages import advance
from ralr_tune.search.trial import work_on
from tests.commands.conftest import Cli
from tests.search.conftest import MakeSession, make_session
from tests.studies import simulated

__all__ = ["make_session"]


@pytest.fixture
def started(make_session: MakeSession) -> Session:
    """A study with one finished trial, one running, the others waiting."""
    session = make_session(simulated(search={"start": [{"lr": 0.1}]}))
    row = session.ledger.claim("me", "search")
    assert row is not None
    work_on(session, row)
    row = session.ledger.claim("me", "search")
    assert row is not None
    session.ledger.progress(row, EpochRecord(2, 0.6, 1.0, 0.1, 1.0, 0.1))
    return session


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def shown(made: Console) -> str:
    assert isinstance(made.file, io.StringIO)
    return made.file.getvalue()


def held_at(session: Session, *values: float) -> None:
    """The running row has these values, one for each epoch."""
    row = next(row for row in session.ledger.rows() if row.state == "held")
    curve = [EpochRecord(epoch, value, 1.0, 0.1, 1.0, 0.1) for epoch, value in enumerate(values, start=1)]
    session.ledger.progress(row, curve[-1], curve=curve)


def test_a_terminal_shows_arms_and_running_trials_with_all_epochs_of_their_curves(started: Session) -> None:
    made = console(terminal=True)
    held_at(started, 0.2, 0.9, 0.5)
    with Display(console=made) as display:
        display.update(started.storage, "sim")
    seen = shown(made)
    assert "monotone" in seen
    assert "1/4" in seen  # trials done of the budget
    assert "3/4" in seen  # epochs of the running trial
    assert "▁█▄" in seen  # its curve, although the display was late


def test_until_the_first_epoch_the_workers_start(started: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_pause_s", lambda took_s: 0.0)
    made = console(terminal=False)
    with Display(console=made) as display:
        display.starting(2)
        status = study_status(started.storage, "sim")
        display.show(replace(status, rows=[row for row in status.rows if row.state != "held"]))
        for values in ((0.2, 0.9, 0.5), (0.2, 0.9, 0.5, 0.6)):
            held_at(started, *values)
            display._shown_at = -1e9
            display.update(started.storage, "sim")
    first, second, third = shown(made).splitlines()
    assert "search, starting 2 workers… |" in first
    assert "search, timing the first epochs… |" in second  # one change tells no speed
    assert "epochs/s, about " in third


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_word_is_broken_on_a_narrow_terminal(started: Session, width: int) -> None:
    held_at(started, 0.2, 0.9, 0.5)
    made = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    status = study_status(started.storage, "sim")
    with Display(console=made) as display:
        display.show(replace(status, arms={"baseline_with_a_longer_name": status.arms["ralr"], **status.arms}))
    lines = [line for line in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", shown(made)).splitlines() if line.strip()]
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    heads = {"arm", "done", "pruned", "diverged", "best", "running", "epoch", "value", "curve"}
    assert {*heads, "monotone", "1/4", "0.5000"} <= set(words)
    assert ("baseline_with_a_longer_name" in words) == (width > 50)


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 8, ""),
        ([0.5], 8, "▄"),
        ([0.5, 0.5], 8, "▄▄"),
        ([0.0, math.nan, 1.0], 8, "▁█"),
        ([0.0, 0.0, 1.0, 1.0], 2, "▁█"),  # means of two
        (list(range(100)), 8, "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_curve_fits_whatever_its_length(values: list[float], width: int, drawn: str) -> None:
    assert progress.sparkline(values, width) == drawn


def test_the_speed_counts_no_time_before_the_first_epoch() -> None:
    speed = progress._Speed()
    for now in range(20):
        speed.note(now, 7)  # of an earlier run
    assert speed.epochs_per_second is None
    for now in range(20, 30):
        speed.note(now, 7 + 2 * (now - 19))
    assert speed.epochs_per_second == 2
    for now in range(30, 130):
        speed.note(now, 27 + (now - 29))
    assert speed.epochs_per_second == pytest.approx(1, rel=0.1)  # the first seconds are forgotten


def test_trials_that_end_their_epochs_together_are_not_taken_for_fast_ones() -> None:
    """Two workers with epochs of 100 s, half a second apart."""
    speed, found = progress._Speed(), []
    speed.note(0.0, 0, running=2)
    for epochs, now in enumerate([100.0, 100.5, 200.0, 200.5, 300.0, 300.5], 1):
        speed.note(now, epochs, running=2)
        found.append(speed.epochs_per_second)
    assert found[:2] == [None, None]
    assert found[2:] == [pytest.approx(2 / 100, rel=0.01)] * 4


def test_the_last_line_says_what_it_took_and_cost(started: Session) -> None:
    made = console(terminal=False)
    with Display(console=made) as display:
        display.stopping()
    display.ended("8 trials, 32 epochs, 2 s of device time")
    stopping, last = shown(made).splitlines()
    assert stopping == "stopping; saving the state of the running trials…"
    assert re.fullmatch(r"took \d s; the study so far: 8 trials, 32 epochs, 2 s of device time", last)


def test_without_a_terminal_a_plain_line_is_printed_sometimes(
    started: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_pause_s", lambda took_s: 0.0)
    made = console(terminal=False)
    with Display(console=made) as display:
        display.update(started.storage, "sim")
        display.update(started.storage, "sim")
    (line,) = shown(made).splitlines()
    assert line.startswith("sim: search, ")
    assert "monotone 1/4, best 0." in line
    assert "ralr 0/4" in line


def test_queries_take_at_most_two_percent_of_the_time(started: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    now = count()  # by this clock, every query takes a second

    class Slow(LiveStatus):
        def refresh(self) -> Status:
            looks.append(next(now))
            return super().refresh()

    monkeypatch.setattr(progress, "LiveStatus", Slow)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    with Display(console=console(terminal=False)) as display:
        for _ in range(200):
            display.update(started.storage, "sim")
    assert len(looks) > 2
    assert min(later - earlier for earlier, later in pairwise(looks)) >= 50


def test_quiet_prints_nothing(started: Session) -> None:
    made = console(terminal=True)
    with Display(quiet=True, console=made) as display:
        display.update(started.storage, "sim")
    assert shown(made) == ""


def test_status_names_the_worker_of_each_running_row(started: Session) -> None:
    text = study_status(started.storage, "sim").as_text()
    assert "monotone: 1 of 4 trials done (1 complete, 3 waiting), best" in text
    assert "ralr: 0 of 4 trials done (1 running, 3 waiting)" in text
    assert "search ralr 0: epoch 2, 0.6000, attempt 1, by me" in text


def test_status_names_failures_and_their_reason(started: Session) -> None:
    held = next(row for row in started.ledger.rows() if row.state == "held")
    started.ledger.fail(held, kind="data", message="DataError: image 3 is torn", retry=False)
    status = study_status(started.storage, "sim")
    assert "search ralr 0 failed (data): DataError: image 3 is torn" in status.as_text()
    assert status.arms["ralr"].failed == 1


@pytest.fixture
def auditing(make_session: MakeSession) -> Session:
    """A study whose search is done, with one audit running at epoch 3 and one waiting.

    monotone's was pruned after one epoch, ralr's after two, since its first was amplified.
    """
    search = {"trials": 2, "pruner_options": {"n_startup_trials": 1}, "start": [{"lr": 0.1}, {"lr": 0.001}], "audit": 1}
    session = make_session(simulated(search=search))
    while (row := session.ledger.claim("me", "search")) is not None:
        work_on(session, row)
    assert advance(session.ledger, session.storage, session.spec) == "audit"
    row = session.ledger.claim("me", "audit")
    assert row is not None
    session.ledger.progress(row, EpochRecord(3, 0.6, 1.0, 0.1, 1.0, 0.1))
    return session


def test_audits_show_as_search_and_do_not_count_as_trials(auditing: Session) -> None:
    status = study_status(auditing.storage, "sim")
    assert status.as_json()["stage"] == "search"
    assert not status.ended
    for arm in status.arms.values():
        assert (arm.budget, arm.complete, arm.pruned, arm.running, arm.waiting) == (2, 1, 1, 0, 0)
        assert arm.best_trial == 0
    assert status.confirm_progress() == [("audit", 0, 2)]
    text = status.as_text()
    assert "audit: 0 of 2 runs done" in text
    assert "audit monotone 1: epoch 3, 0.6000, attempt 1, by me" in text


def test_an_audit_counts_only_the_epochs_that_the_search_has_not_trained(auditing: Session) -> None:
    status = study_status(auditing.storage, "sim")
    searched = sum(row.epoch for row in status.rows if row.stage == "search")
    assert [row.epoch for row in status.rows if row.outcome == "pruned"] == [1, 2]
    assert status.epochs == searched + 2
    assert status.epochs_left["audit"].expected == (4 - 3) + (4 - 2)
    assert status.left("search").expected == (4 - 3) + (4 - 2)
    assert status.left("test").expected > status.left("search").expected


@pytest.mark.parametrize(("terminal", "quiet"), [(True, False), (True, True), (False, False)])
def test_a_bar_of_steps_is_shown_on_a_terminal_only(terminal: bool, quiet: bool) -> None:
    output = console(terminal=terminal)
    with StepBar(quiet=quiet, console=output) as bar:
        bar.show(30, 90)
    assert isinstance(output.file, io.StringIO)
    assert ("30/90 steps" in output.file.getvalue()) == (terminal and not quiet)


def test_watching_waits_for_a_database_that_is_away_and_says_so_once(
    started: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["here", "away", "away", "here", "away", "here", "gone"])

    class Unsteady(LiveStatus):
        def refresh(self) -> Status:
            answer = next(answers)
            if answer == "away":
                fault = OperationalError("", {}, OSError("refused"), connection_invalidated=True)
                raise StorageError("postgresql://db: refused") from fault
            if answer == "gone":
                raise StorageError("no study 'sim' is stored there")
            return super().refresh()

    made = console(terminal=False)
    monkeypatch.setattr(progress, "LiveStatus", Unsteady)
    monkeypatch.setattr(progress, "plain_console", lambda **options: made)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda pause_s: None))
    with pytest.raises(StorageError, match="no study"):  # waiting would not help
        progress.watch_study(started.storage, "sim")
    first, *said = shown(made).splitlines()
    assert first.startswith("sim: search")
    away = "the database does not answer; waiting for it (postgresql://db: refused)"
    assert said == [away, "the database answers again"] * 2


@pytest.mark.parametrize(
    ("query_s", "interval_s", "pause_s"), [(0.001, 0.5, 0.5), (0.001, 60, 60), (1, 5, 50), (9, 5, 120)]
)
def test_a_slow_database_is_asked_less_often(query_s: float, interval_s: float, pause_s: float) -> None:
    assert progress._pause_s(query_s, interval_s) == pause_s


@pytest.mark.parametrize("given", ["0", "-1", "nan", "1e9", "0.1"])
def test_an_interval_out_of_range(cli_inside: Cli, given: str) -> None:
    refused = cli_inside("status", "sim", "--watch", "--interval", given)
    assert refused.code == 2
    assert f"error: --interval {float(given):g}: allowed: 0.5 to 3600 seconds, together with --watch" in refused.err
