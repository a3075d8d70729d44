"""Progress of a run: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

import math
import time
from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ralr_tune.commands.preloading import report_s
from ralr_tune.commands.status import ArmStatus, LiveStatus, Status
from ralr_tune.commands.terminal import readable, wrapped
from ralr_tune.errors import StorageError
from ralr_tune.records import Inventory, Row, Stage
from ralr_tune.report.inventory import inventory_text
from ralr_tune.report.words import duration
from ralr_tune.store.database import Storage
from ralr_tune.store.failures import retry_for, transient

REFRESH_S = 0.5
LONGEST_INTERVAL_S = 3600.0
"""What a user may ask for."""
MAX_QUERY_SHARE = 0.02
"""Maximum share of the time spent on status queries, so that a slow database is asked rarely ..."""
LONGEST_PAUSE_S = 120.0
"""... but no less often than this, unless the user asked for a longer interval."""
AWAY_S = 2.0
"""How long one refresh retries before it says that the database is away; it is then asked again after the pause."""
PLAIN_S = 15.0
"""Time between two plain lines, unless a stage ends."""
IDLE_S = 10.0
"""A study without unfinished rows for this long has ended: it will not be confirmed."""
WINDOW_S = 30.0
"""Speed is averaged over this window, or over half of the time since the first epoch if that is longer."""
BAR = 24
"""Largest width of a progress bar and of a running trial's curve, in columns."""
MIN_BAR = 5
"""On a terminal that leaves fewer columns, they are not shown."""
GAP = 2
"""Columns between two columns of a table."""

_BARS = "▁▂▃▄▅▆▇█"


class Display:
    """Shows a study's progress up to the stage `until`; if `quiet`, it shows nothing."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None, until: Stage = "test") -> None:
        self._console = console or plain_console(stderr=True)
        self._quiet = quiet
        self._until = until
        self._live: Live | None = None
        self._live_status: LiveStatus | None = None
        self._speed = _Speed()
        self._waiting = "waiting for the first epoch"
        self._query_at = 0.0
        self._shown_at = 0.0
        self._stage = ""
        self._is_away = False
        self._began = time.monotonic()

    def __enter__(self) -> Display:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                Text("reading the data", style="dim"), console=self._console, auto_refresh=False, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show_data(self, inventory: Inventory) -> None:
        """Print the table of the data, above whatever is live."""
        self.say(inventory_text(inventory))

    def starting(self, workers: int) -> None:
        """Show that this many workers start, until one trains; 0: they are started elsewhere."""
        here = f"starting {workers} {'worker' if workers == 1 else 'workers'}…"
        self._waiting = here if workers else "waiting for workers started elsewhere…"
        if self._live:
            self._live.update(Text(self._waiting, style="dim"), refresh=True)

    def stopping(self) -> None:
        """Answer Ctrl-C at once: workers need a moment to save their state."""
        self.say("stopping; saving the state of the running trials…")

    def ended(self, cost: str) -> None:
        """Print the last line: how long this run took, and what the study has cost."""
        self.say(f"took {duration(time.monotonic() - self._began)}; the study so far: {cost}")

    def update(self, storage: Storage, study: str) -> None:
        """Query the study and show it; may be called often, but rarely queries the database."""
        now = time.monotonic()
        if self._quiet or now < self._query_at:
            return
        if self._live_status is None or (self._live_status.storage, self._live_status.name) != (storage, study):
            self._live_status = LiveStatus(storage, study)
        status = self._live_status.refresh()
        self._query_at = now + _pause_s(time.monotonic() - now)
        self.show(status)

    def show(self, status: Status) -> None:
        """Redraw the live table; without a terminal, print a line if one is due."""
        now = time.monotonic()
        self._speed.note(now, status.epochs, running=len(status.running))
        if self._live:
            self._live.update(self._tables(status), refresh=True)
        elif status.stage != self._stage or now - self._shown_at >= PLAIN_S:
            self.say(self._line(status))
            self._stage, self._shown_at = status.stage, now

    def away(self, why: str) -> None:
        """Say once that the database does not answer."""
        if not self._is_away:
            self.say(f"the database does not answer; waiting for it ({why})")
        self._is_away = True

    def back(self) -> None:
        """Say that the database answers, if it did not before."""
        if self._is_away:
            self.say("the database answers again")
        self._is_away = False

    def say(self, text: str) -> None:
        """Print lines above whatever is live; only a terminal gets them wrapped, between words."""
        if not self._quiet:
            width = self._console.width if self._console.is_terminal else None
            self._console.print(wrapped(readable(text), width), soft_wrap=True)

    def _tables(self, status: Status) -> Group:
        parts = [_arms_table(status, self._console.width)]
        if status.running:
            parts.append(_running_table(status, self._console.width))
        return Group(*parts, Text(self._footer(status), style="dim"))

    def _footer(self, status: Status) -> str:
        return f"{status.study}: {status.stage}, {self._pace(status)}"

    def _pace(self, status: Status) -> str:
        """Speed and time left of the whole study, as far as they are known."""
        left, most = status.left(self._until)
        if not left:
            return "writing the report"
        speed = self._speed.epochs_per_second
        if speed is None:
            return "timing the first epochs…" if status.running else self._waiting
        expected = duration(left / speed + report_s())
        bound = f", at most {duration(most / speed + report_s())}" if status.is_adaptive else ""
        return f"{_rate_text(speed)}, about {expected} left{bound}"

    def _line(self, status: Status) -> str:
        arms = "; ".join(f"{name} {_done(arm)}/{arm.budget}{_best(arm)}" for name, arm in status.arms.items())
        later = "".join(f"; {stage} {done}/{planned}" for stage, done, planned in status.confirm_progress())
        return f"{self._footer(status)} | {arms}{later}"


class StepBar(Progress):
    """A bar of training steps on a terminal; elsewhere, or if `quiet`, it shows nothing."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        console = console or plain_console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        super().__init__(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._steps = self.add_task("reading the data", total=None)

    def show(self, done: int, planned: int) -> None:
        """The steps done and the steps planned."""
        self.update(self._steps, description="training", completed=done, total=planned)


def watch_study(storage: Storage, study: str, *, interval_s: float = REFRESH_S) -> None:
    """Show a study until it is done, has failed, has no unfinished rows for IDLE_S, or the user presses Ctrl-C.

    `interval_s`: at least so many seconds between two queries. A database that is away is waited for.
    """
    idle_s, live, status = 0.0, LiveStatus(storage, study), None
    with Display() as display:
        while True:
            began = time.monotonic()
            found = refreshed(live, display)
            pause = _pause_s(time.monotonic() - began, interval_s)
            if found is not None:
                status = found
                if status.ended or idle_s >= IDLE_S:
                    break
                display.show(status)
                # all rows are also done between two stages, until a worker plans the next one
                idle_s = 0.0 if any(row.state != "done" for row in status.rows) else idle_s + pause
            time.sleep(pause)
    plain_console().print(readable(status.as_text()), soft_wrap=True)


def refreshed(live: LiveStatus, display: Display) -> Status | None:
    """The status now; None if the database does not answer, which is said once. Raises StorageError otherwise."""
    try:
        with retry_for(AWAY_S):
            status = live.refresh()
    except StorageError as error:
        if not transient(error):
            raise
        display.away(str(error))
        return None
    display.back()
    return status


def _pause_s(query_s: float, interval_s: float = REFRESH_S) -> float:
    """How long to wait after a query that took `query_s`."""
    return max(interval_s, min(query_s / MAX_QUERY_SHARE, LONGEST_PAUSE_S))


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text literally: brackets or colons in a message are not markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _arms_table(status: Status, width: int) -> Table:
    rows = [
        (name, _done(arm), arm.budget, str(arm.pruned), str(arm.diverged), _best(arm).removeprefix(", best "))
        for name, arm in status.arms.items()
    ]
    rows += [(stage, done, planned, "", "", "") for stage, done, planned in status.confirm_progress()]
    cells = [(name, f"{done}/{budget}", *rest) for name, done, budget, *rest in rows]
    heads = ("arm", "done", "pruned", "diverged", "best")
    bar = _room(width, heads, cells)
    table = _table(heads[0], *([""] if bar else []), *heads[1:])
    for (name, done, budget, *_), (_, *rest) in zip(rows, cells, strict=True):
        drawn = [ProgressBar(total=max(budget, 1), completed=done, width=bar)] if bar else []
        table.add_row(name, *drawn, *rest)
    return table


def _running_table(status: Status, width: int) -> Table:
    cells = [(_title(row), f"{row.epoch}/{status.epochs_per_trial}", _value(row)) for row in status.running]
    heads = ("running", "epoch", "value")
    room = _room(width, heads, cells)
    table = _table(*heads, *(["curve"] if room else []))
    for row, shown in zip(status.running, cells, strict=True):
        table.add_row(*shown, *([sparkline([epoch.value for epoch in row.curve], room)] if room else []))
    return table


def _table(*heads: str) -> Table:
    """A table whose first column alone gives way on a narrow terminal; no word is broken."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=bool(number), overflow="ellipsis")
    return table


def _room(width: int, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Columns that a table of this width leaves for a bar or a curve; 0 if they are too few."""
    needed = sum(GAP + max(map(cell_len, column)) for column in zip(heads, *cells, strict=True))
    room = min(BAR, width - needed - GAP)
    return room if room >= MIN_BAR else 0


def _value(row: Row) -> str:
    if row.paused:
        return "paused"  # `status` has the reason
    return "" if row.value is None else f"{row.value:.4f}"


def _title(row: Row) -> str:
    number = row.ordinal if row.trial is None else row.trial
    return f"{row.arm} {row.part or row.stage} {number}"


def _done(arm: ArmStatus) -> int:
    return arm.complete + arm.pruned + arm.diverged


def _best(arm: ArmStatus) -> str:
    return "" if arm.best_value is None else f", best {arm.best_value:.4f}"


def _rate_text(speed: float) -> str:
    """Epochs per second, or per minute if they are few: two digits."""
    if speed < 0.5:
        return f"{60 * speed:.2g} epochs/min"
    return f"{speed:.0f} epochs/s" if speed >= 10 else f"{speed:.1f} epochs/s"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in at most `width` columns: every epoch, or the mean of as many as share a column."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [len(finite) * column // count for column in range(count + 1)] if count else []
    shown = [fmean(finite[begin:end]) for begin, end in pairwise(edges)]
    if not shown or max(shown) == min(shown):
        return _BARS[3] * len(shown)
    low, high = min(shown), max(shown)
    return "".join(_BARS[int((value - low) / (high - low) * (len(_BARS) - 1))] for value in shown)


class _Speed:
    """Epochs per second since the first one, over a window that grows with the run.

    The window holds at least one epoch of each running trial: trials that began together end their epochs together, and
    a shorter one would count them as fast as they happen to follow each other.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._running = 1

    def note(self, now: float, epochs: int, *, running: int = 1) -> None:
        """Only changes are kept: the time before the first epoch, and that since the last one, tell no speed."""
        self._running = max(1, running)
        if not self._seen or epochs != self._seen[-1][1]:
            self._seen.append((now, epochs))

    @property
    def epochs_per_second(self) -> float | None:
        """None until enough changes were seen, the first of which may have come at any time within its epoch."""
        changes = self._seen[1:]
        if len(changes) < 2:
            return None
        now, last = changes[-1]
        began = min(now - WINDOW_S, (changes[0][0] + now) / 2)
        before = changes[: max(1, bisect(changes, (began, math.inf)))]
        whole = [each for each in before if last - each[1] >= self._running]
        rounds = [each for each in whole if (last - each[1]) % self._running == 0]  # every trial as often as the others
        since, first = (rounds or whole or [changes[-1]])[-1]
        return (last - first) / (now - since) if now > since else None
