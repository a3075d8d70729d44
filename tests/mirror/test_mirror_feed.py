"""What reaches a tracker, whatever happens to it, to the mirror and to the study."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ralr_tune.commands.mirror import Mirror
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.mirror import feed as feeds
from ralr_tune.mirror.feed import Feed
from ralr_tune.mirror.runs import Point, TrackedRun, TrackedStudy
from ralr_tune.mirror.tracker import Sent, Tracker
from ralr_tune.records import EpochRecord
from ralr_tune.secrecy import remember
from ralr_tune.store import generations
from ralr_tune.store.database import Storage, open_storage
from ralr_tune.store.increments import LiveRows
from ralr_tune.store.ledger import Ledger, PlannedRow
from tests.mirror.studies import Values, expected, outcomes, parameters, tracked
from tests.statements import executed


class Killed(BaseException):
    """The mirror's process ends here."""


@dataclass
class Server:
    """What a tracker has: every point that it was sent, duplicates included."""

    points: Counter[tuple[str, str, int, float]] = field(default_factory=Counter)
    outcomes: dict[str, str | None] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: list[str] = field(default_factory=list)
    faults: Callable[[str], None] = lambda what: None
    """Called before every point and every end of a run; may raise."""

    def values(self) -> Values:
        found: Values = {}
        for run, metric, step, value in self.points:
            found.setdefault((run, metric), {})[step] = value
        return found

    @property
    def duplicates(self) -> list[Any]:
        places = Counter((run, metric, step) for run, metric, step, _ in self.points.elements())
        return [place for place, times in places.items() if times > 1]


class FakeTracker(Tracker):
    kind = "fake"

    def __init__(self, study: TrackedStudy, server: Server) -> None:
        super().__init__(study)
        self._server = server

    def sent(self, run: TrackedRun) -> Sent:
        self._server.faults("asked")
        found = Sent(outcome=self._server.outcomes.get(f"{self.study.key}:{run.name}"))
        for name, metric, step, _ in self._server.points:
            if name == f"{self.study.key}:{run.name}":
                found.steps[metric] = max(step, found.steps.get(metric, -1))
        return found

    def send(self, run: TrackedRun, points: Sequence[Point]) -> None:
        name = f"{self.study.key}:{run.name}"
        for point in points:
            self._server.faults(name)
            self._server.points[name, point.metric, point.step, point.value] += 1
        self._server.faults("end")
        self._server.params[name] = dict(run.params)
        self._server.outcomes[name] = run.outcome

    def conclude(self, verdict: str, facts: Mapping[str, str]) -> None:
        if self._server.verdicts[-1:] != [verdict]:
            self._server.verdicts.append(verdict)


@dataclass(frozen=True, eq=False)
class FakeTarget:
    server: Server
    kind: str = "fake"
    place: str = "here"
    is_remote: bool = True

    def __str__(self) -> str:
        return "fake=here"

    def tracker(self, study: TrackedStudy, out: Path) -> Tracker:
        return FakeTracker(study, self.server)


def mirror_once(storage: Storage, out: Path, server: Server) -> None:
    Mirror(storage, "sim", out, [FakeTarget(server)]).run(once=True)  # type: ignore[list-item]


def of_study(found: Mapping[Any, Any], key: str = "sim") -> dict[Any, Any]:
    """Without the study's key in the names of runs."""
    return {
        (name[0].removeprefix(f"{key}:"), *name[1:]) if isinstance(name, tuple) else name.removeprefix(f"{key}:"): value
        for name, value in found.items()
    }


def check_whole(storage: Storage, server: Server) -> None:
    assert of_study(server.values()) == expected(storage)
    assert server.duplicates == []
    assert of_study(server.outcomes) == outcomes(storage)
    assert of_study(server.params) == parameters(storage)
    (verdict,) = server.verdicts
    assert "ralr's recipe by" in verdict


def test_a_finished_study_arrives_value_by_value(finished: Storage, tmp_path: Path) -> None:
    server = Server()
    assert {"complete", "pruned"} <= set(outcomes(finished).values())
    assert {run.partition("/")[2].split("-")[0] for run in outcomes(finished)} == {"search", "judge", "test"}
    mirror_once(finished, tmp_path / "out", server)
    check_whole(finished, server)


@pytest.mark.parametrize("memory", ["kept", "lost", "elsewhere", "torn"])
def test_a_mirror_that_is_killed_and_started_again_sends_nothing_twice(
    finished: Storage, tmp_path: Path, memory: str
) -> None:
    draw, server = random.Random(memory), Server()

    def may_be_killed(what: str) -> None:
        if draw.random() < 0.03:
            raise Killed

    server.faults, kills = may_be_killed, 0
    for start in range(200):
        out = tmp_path / (f"out-{start}" if memory == "elsewhere" else "out")
        try:
            mirror_once(finished, out, server)
            break
        except Killed:
            kills += 1
        for file in (out / "mirror").glob("*.json"):
            if memory in ("lost", "torn"):
                file.unlink() if memory == "lost" else file.write_text('{"done": {"1"')
    assert kills > 3
    check_whole(finished, server)
    server.faults = lambda what: pytest.fail("everything was there already") if what == "end" else None
    mirror_once(finished, tmp_path / "last", server)
    check_whole(finished, server)


@pytest.fixture
def ledger(sqlite_url: str) -> Ledger:
    made = Ledger(open_storage(sqlite_url), "sim", lease_s=300)
    made.plan(PlannedRow("ralr", "choose", 1, ordinal, seed=ordinal, params={"lr": 0.1}) for ordinal in range(6))
    return made


CURVE = [EpochRecord(epoch, epoch / 10, 1.0, 0.1, 1.0, 0.1) for epoch in range(1, 5)]


class Following:
    """A feed on a ledger, polled by the test, with a clock of its own."""

    def __init__(self, ledger: Ledger, out: Path, server: Server) -> None:
        self.now, self.said = 0.0, list[str]()
        self._live = LiveRows(ledger.storage, "sim")
        self.feed = Feed(
            ledger.storage,
            "sim",
            FakeTarget(server),  # type: ignore[arg-type]
            out,
            studies=lambda number: TrackedStudy(generations.key("sim", number), 1.0, "value"),
            say=self.said.append,
            clock=lambda: self.now,
        )
        self.feed.begin(1)

    def poll(self, after_s: float = 5.0) -> None:
        self.now += after_s
        self.feed.note(self._live.refresh(), self._live.ledger.generation)
        self.feed.send()


def test_epochs_arrive_while_the_trial_runs_and_the_rest_once_it_is_done(ledger: Ledger, tmp_path: Path) -> None:
    server = Server()
    following = Following(ledger, tmp_path, server)
    row = ledger.claim("me", "choose")
    assert row is not None
    following.poll()
    assert server.points == Counter()  # it has not begun an epoch
    for epochs in (1, 3):
        ledger.progress(row, CURVE[epochs - 1], curve=CURVE[:epochs])
        following.poll()
        assert [values for (_, metric), values in server.values().items()] == [
            {record.epoch: record.value for record in CURVE[:epochs]}
        ]
    ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
    following.poll()
    assert server.values()["sim:ralr/choose-0", "learning_rate"] == dict.fromkeys(range(1, 5), 0.1)
    assert server.outcomes == {"sim:ralr/choose-0": "complete"}
    assert server.duplicates == []


def test_a_trial_that_failed_and_was_tried_again_ends_with_its_last_outcome(ledger: Ledger, tmp_path: Path) -> None:
    server = Server()
    following = Following(ledger, tmp_path, server)
    for outcome in ("failed", "complete"):
        row = ledger.claim("me", "choose")
        assert row is not None
        ledger.progress(row, CURVE[0], curve=CURVE[:1])
        if outcome == "failed":
            ledger.fail(row, kind="bug", message="torn", retry=False)
        else:
            ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
        following.poll()
        assert server.outcomes == {"sim:ralr/choose-0": outcome}
        ledger.reopen_failed()
    assert server.duplicates == []


def test_a_tracker_that_is_away_is_said_once_and_catches_up(ledger: Ledger, tmp_path: Path) -> None:
    def away(what: str) -> None:
        remember("s3cret")
        raise ConnectionError("no route to http://me:s3cret@host\nand much more")

    server = Server(faults=away)
    following = Following(ledger, tmp_path, server)
    pauses = []
    for row in iter(lambda: ledger.claim("me", "choose"), None):
        ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
        following.poll()
        pauses.append(following.feed._retry_at - following.now)
    for _ in range(10):
        following.poll(after_s=1000.0)
    before = ledger.rows()
    (line,) = following.said
    assert line.startswith("fake=here: ConnectionError: no route to http://me:***@host; the study goes on")
    assert max(pauses) > 2 * pauses[0]
    assert following.feed._retry_at - following.now == feeds.LONGEST_PAUSE_S
    server.faults = lambda what: None
    following.poll()  # too early
    assert server.points == Counter()
    following.poll(after_s=1000.0)
    assert following.said[1:] == ["fake=here: answers again"]
    assert len(server.outcomes) == 6
    assert server.duplicates == []
    assert ledger.rows() == before


def test_a_run_that_a_tracker_refuses_does_not_hold_up_the_others(ledger: Ledger, tmp_path: Path) -> None:
    def refuse(what: str) -> None:
        if what == "sim:ralr/choose-2":
            raise ValueError("a name that this tracker does not take")

    server = Server(faults=refuse)
    following = Following(ledger, tmp_path, server)
    for row in iter(lambda: ledger.claim("me", "choose"), None):
        ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
    for _ in range(8):
        following.poll(after_s=30.0)
    assert len(server.outcomes) == 5
    assert following.feed.unsent == 1
    assert len(following.said) == 1


def test_generations_are_kept_apart(ledger: Ledger, tmp_path: Path) -> None:
    server, storage = Server(), ledger.storage
    following = Following(ledger, tmp_path, server)
    row = ledger.claim("me", "choose")
    assert row is not None
    ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
    following.poll()
    generations._store(storage, "sim", 2, identity=None)
    second = Ledger(storage, "sim", lease_s=300)
    assert second.generation == 2
    second.plan([PlannedRow("ralr", "choose", 1, 0, seed=0)])
    row = second.claim("me", "choose")
    assert row is not None
    second.finish(row, outcome="pruned", value=0.1, curve=CURVE[:1], seconds=1.0)
    following.poll()
    assert server.outcomes == {"sim:ralr/choose-0": "complete", "sim@2:ralr/choose-0": "pruned"}


def test_a_poll_only_reads_and_costs_the_same_in_a_study_of_any_size(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "BATCH", 4)
    server, counts = Server(), []
    following = Following(ledger, tmp_path, server)
    for size in (6, 40):
        ledger.plan(
            PlannedRow("ralr", "choose", 1, ordinal, seed=ordinal, params={"lr": 0.1}) for ordinal in range(size)
        )
        for row in iter(lambda: ledger.claim("me", "choose") if ledger.remaining("choose") > 1 else None, None):
            ledger.finish(row, outcome="complete", value=0.4, curve=CURVE, seconds=1.0)
        polls = 0
        while following.feed.unsent or not polls:
            before = len(server.outcomes)
            following.poll()
            polls += 1
            assert len(server.outcomes) - before <= 4
        row = ledger.claim("me", "choose")
        assert row is not None
        ledger.progress(row, CURVE[0], curve=CURVE[:1])
        with executed(ledger.storage) as statements:
            following.poll()
        assert {statement.split()[0] for statement in statements} == {"SELECT"}
        counts.append(len(statements))
        ledger.release(row)
    assert counts[0] == counts[1] <= 6


def test_two_mirrors_from_one_folder_are_refused(finished: Storage, tmp_path: Path) -> None:
    def feed() -> Feed:
        study = tracked(finished)
        target: Any = FakeTarget(Server())
        return Feed(finished, "sim", target, tmp_path, studies=lambda number: study, say=print)

    first = feed()
    first.begin(1)
    with pytest.raises(UsageError, match=r"--to fake=here: another mirror of this study feeds it from .*; stop that"):
        feed().begin(1)
    first.close()
    feed().begin(1)


def test_what_could_not_be_sent_is_said_in_the_end(
    finished: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(what: str) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr("ralr_tune.commands.mirror.PATIENCE_S", 0.0)
    with pytest.raises(
        RalrTuneError, match=r"fake=here: \d+ not sent; nothing is lost: the same command sends the rest"
    ):
        mirror_once(finished, tmp_path / "out", Server(faults=away))
    assert capsys.readouterr().err.count("ConnectionError: refused") == 1
