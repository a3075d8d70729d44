"""`mirror`: one process that shows a study in TensorBoard, MLflow or W&B while it runs; `run --mirror` starts it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread

from ralr_tune.commands.locate import StudyLocation, opened
from ralr_tune.commands.notify import Notifier, Recipient
from ralr_tune.commands.progress import IDLE_S, LONGEST_INTERVAL_S, Display, plain_console, refreshed
from ralr_tune.commands.status import LiveStatus, Status
from ralr_tune.commands.verdict import stored_card
from ralr_tune.errors import RalrTuneError, UsageError
from ralr_tune.launch.launcher import LAUNCHER_VARIABLE
from ralr_tune.machine.files import writing
from ralr_tune.mirror.feed import Feed
from ralr_tune.mirror.runs import TrackedStudy
from ralr_tune.mirror.targets import VARIABLE, Target
from ralr_tune.search.stopping import Stop
from ralr_tune.store import generations, studies
from ralr_tune.store.database import Storage
from ralr_tune.store.location import STORAGE_VARIABLE
from ralr_tune.studyfile import parse_study

log = logging.getLogger(__name__)

POLL_S = 5.0
"""Seconds between two readings of the ledger."""
SHORTEST_S = 1.0
"""What a user may ask for."""
PATIENCE_S = 600.0
"""How long a mirror of a study that has ended tries to reach a tracker that takes nothing."""
STOPPED_PATIENCE_S = 30.0
"""The same once it was asked to stop."""
LOG = "mirror.log"

Ended = Callable[[Status], None]
"""Called once, when the study has ended or failed."""


@dataclass
class Mirror:
    """Feeds trackers from one study until it ends."""

    storage: Storage
    study: str
    out: Path
    targets: Sequence[Target]
    stop: Stop = field(default_factory=Stop)
    interval_s: float = POLL_S

    def run(self, *, once: bool = False, ended: Ended | None = None) -> None:
        """Send what is stored and, unless `once`, what is added until the study ends or a stop is requested.

        Raises UsageError before anything is sent, RalrTuneError if in the end a tracker lacks something, StorageError
        if the study is gone.
        """
        self._console = Display(console=plain_console(stderr=True))
        self._live = LiveStatus(self.storage, self.study)
        with ExitStack() as stack:
            feeds = [self._feed(target, stack) for target in self.targets]
            status = self._follow(feeds, once)
            if status is not None and ended is not None and status.ended:
                ended(status)
            self._conclude(feeds, status)
            left = [f"{feed}: {feed.unsent} not sent" for feed in feeds if feed.unsent]
        if left:
            raise RalrTuneError(f"{'; '.join(left)}; nothing is lost: the same command sends the rest")

    def _feed(self, target: Target, stack: ExitStack) -> Feed:
        feed = Feed(self.storage, self.study, target, self.out, studies=self._tracked, say=self._console.say)
        stack.callback(feed.close)
        feed.begin(generations.newest(self.storage, self.study))
        return feed

    def _tracked(self, generation: int) -> TrackedStudy:
        return _tracked(self.storage, self.study, generation)

    def _follow(self, feeds: Sequence[Feed], once: bool) -> Status | None:
        """Until the study ends, a stop is requested, or (`once`) the ledger was read; the last status."""
        status, idle_s = None, 0.0
        while True:
            began = time.monotonic()
            found = self._read(feeds)
            status = found or status
            for feed in feeds:
                feed.send()
            if found is not None and (once or found.ended or idle_s >= IDLE_S):
                return found
            if self.stop.requested:
                return status
            idle_s = idle_s + self.interval_s if found and all(row.state == "done" for row in found.rows) else 0.0
            self._sleep(max(self.interval_s, 10 * (time.monotonic() - began)) if not _backlog(feeds) else 0.0)

    def _read(self, feeds: Sequence[Feed]) -> Status | None:
        """What has changed since the last time; None if the database does not answer, which is said once."""
        status = refreshed(self._live, self._console)
        if status is not None:
            for feed in feeds:
                feed.note(self._live.changed, status.generation)
        return status

    def _conclude(self, feeds: Sequence[Feed], status: Status | None) -> None:
        """Send the rest and the verdict, for as long as some tracker takes something."""
        status = self._read(feeds) or status
        if status is not None and any(row.outcome is not None for row in status.rows):
            card = stored_card(self.storage, self.study)
            facts = {"stage": status.stage, "cost": card.cost}
            for feed in feeds:
                feed.note_verdict(status.generation, " ".join(card.sentences), facts)
        left, since = sum(feed.unsent for feed in feeds), time.monotonic()
        while left:
            for feed in feeds:
                feed.send()
            before, left = left, sum(feed.unsent for feed in feeds)
            since = time.monotonic() if left < before else since
            if time.monotonic() - since > (STOPPED_PATIENCE_S if self.stop.requested else PATIENCE_S):
                return
            if left and not _backlog(feeds):
                self._sleep(1.0)

    def _sleep(self, seconds: float) -> None:
        """Returns early after a request to stop."""
        end = time.monotonic() + seconds
        while not self.stop.requested and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


def _backlog(feeds: Sequence[Feed]) -> bool:
    """Whether a tracker that answers has more to get."""
    return any(feed.unsent and not feed.is_waiting for feed in feeds)


@cache
def _tracked(storage: Storage, study: str, generation: int) -> TrackedStudy:
    stored = studies.stored(storage, study)
    metric = parse_study(stored.text, source=f"{study} (as stored)").metric
    return TrackedStudy(generations.key(study, generation), stored.created, metric.name)


def mirror_study(
    where: StudyLocation,
    targets: Sequence[Target],
    recipients: Sequence[Recipient] = (),
    *,
    stop: Stop,
    once: bool = False,
    interval_s: float = POLL_S,
) -> None:
    """Mirror a stored study, and notify when it has ended; see `Mirror.run`. Raises UsageError for wrong options."""
    if not (targets or recipients):
        raise UsageError("mirror needs --to TRACKER or --notify URL: where is the study to be shown?")
    if not SHORTEST_S <= interval_s <= LONGEST_INTERVAL_S:
        allowed = f"{SHORTEST_S:g} to {LONGEST_INTERVAL_S:g} seconds"
        raise UsageError(f"--interval {interval_s:g}: allowed: {allowed}")
    with opened(where) as storage:
        notifier = Notifier(recipients, storage, where.name, where.out)
        Mirror(storage, where.name, where.out, targets, stop, interval_s).run(once=once, ended=notifier.of_status)


# ---------------------------------------------------------------- next to the workers of `run`

_WAIT_S = 2 * STOPPED_PATIENCE_S + 30.0
"""How long `run` waits for its mirror in the end."""


def stop_with_run(stop: Stop) -> None:
    """Request a stop when the `run` that started this process ends or is killed. A signal would come too early for a
    process that is still importing."""
    if LAUNCHER_VARIABLE in os.environ:
        Thread(target=_stop_at_end, args=(stop, sys.stdin.fileno()), name="run-watch", daemon=True).start()


def _stop_at_end(stop: Stop, channel: int) -> None:
    while os.read(channel, 1):
        pass
    stop.request()


@contextmanager
def mirrored(study: str, storage_url: str, out: Path, targets: Sequence[Target]) -> Iterator[None]:
    """Inside, one process mirrors the study; afterwards it sends the rest and ends. It never fails the run."""
    if not targets:
        yield
        return
    file = out / "logs" / LOG
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        output = file.open("ab")
    secret = {STORAGE_VARIABLE: storage_url, VARIABLE: "\n".join(f"{each.kind}={each.place}" for each in targets)}
    with output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ralr_tune", "mirror", study, "--out", str(out.absolute())],
            stdin=subprocess.PIPE,  # its end means: send the rest, and end; also if `run` is killed
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | secret | {LAUNCHER_VARIABLE: str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches `run` alone, which lets it send the rest
        )
    try:
        yield
    finally:
        _end(process, file)


def _end(process: subprocess.Popen[bytes], file: Path) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        code = process.wait(_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code:
        log.warning("the mirror has not sent everything (log: %s); the same command sends the rest", file)
