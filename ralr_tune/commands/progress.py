"""Progress of a run: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ralr_tune.analysis.rows import searched_epochs
from ralr_tune.commands.status import ArmStatus, Status, study_status
from ralr_tune.commands.terminal import readable
from ralr_tune.records import Inventory, Row
from ralr_tune.report.inventory import inventory_text
from ralr_tune.report.words import duration
from ralr_tune.store.database import Storage

REFRESH_S = 0.5
MAX_QUERY_SHARE = 0.02
"""Maximum share of the time spent on status queries: a study of 10,000 trials is queried every 15 s."""
PLAIN_S = 15.0
"""Time between two plain lines, unless a stage ends."""
IDLE_S = 10.0
"""A study without unfinished rows for this long has ended: it will not be confirmed."""
WINDOW_S = 30.0
"""Speed is averaged over this window."""

_BARS = "▁▂▃▄▅▆▇█"


class Display:
    """Shows a study's progress; if `quiet`, it shows nothing."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or plain_console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._speed = _Speed()
        self._curves = _Curves()
        self._query_at = 0.0
        self._shown_at = 0.0
        self._stage = ""

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
        """Prints the table of the data, above whatever is live."""
        if not self._quiet:
            self._console.print(readable(inventory_text(inventory)), soft_wrap=True)

    def update(self, storage: Storage, study: str) -> None:
        """Query the study and show it; may be called often, but rarely queries the database."""
        now = time.monotonic()
        if self._quiet or now < self._query_at:
            return
        status = study_status(storage, study)
        self._query_at = now + _pause_s(time.monotonic() - now)
        self.show(status)

    def show(self, status: Status) -> None:
        """Redraw the live table; without a terminal, print a line if one is due."""
        now = time.monotonic()
        self._speed.note(now, status.epochs)
        self._curves.note(status)
        if self._live:
            self._live.update(self._tables(status), refresh=True)
        elif status.stage != self._stage or now - self._shown_at >= PLAIN_S:
            self._console.print(readable(self._line(status)), soft_wrap=True)
            self._stage, self._shown_at = status.stage, now

    def _tables(self, status: Status) -> Group:
        parts = [_arms_table(status)]
        if status.running:
            parts.append(self._running_table(status))
        return Group(*parts, Text(self._footer(status), style="dim"))

    def _running_table(self, status: Status) -> Table:
        table = Table("running", "epoch", "value", "curve", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in status.running:
            value = "" if row.value is None else f"{row.value:.4f}"
            table.add_row(_title(row), f"{row.epoch}/{status.epochs_per_trial}", value, self._curves.sparkline(row))
        return table

    def _footer(self, status: Status) -> str:
        speed = self._speed.epochs_per_second
        left = _epochs_left(status)
        time_left = f", about {duration(left / speed)} left in {status.stage}" if speed and left else ""
        return f"{status.study}: {status.stage}, {speed:.2g} epochs/s{time_left}"

    def _line(self, status: Status) -> str:
        arms = "; ".join(f"{name} {_done(arm)}/{arm.budget}{_best(arm)}" for name, arm in status.arms.items())
        later = "".join(f"; {stage} {done}/{planned}" for stage, done, planned in status.confirm_progress())
        return f"{self._footer(status)} | {arms}{later}"


class StepBar:
    """A bar of training steps on a terminal; elsewhere, or if `quiet`, it shows nothing."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        console = console or plain_console(stderr=True)
        shown = console.is_terminal and not quiet
        self._live = Live(Text("reading the data", style="dim"), console=console, transient=True) if shown else None

    def __enter__(self) -> StepBar:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, done: int, planned: int) -> None:
        """The steps done and the steps planned."""
        if self._live:
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_row(ProgressBar(total=planned, completed=done, width=40), f"{done}/{planned} steps")
            self._live.update(table)


def watch_study(storage: Storage, study: str) -> None:
    """Show a study until it is done, has failed, has no unfinished rows for IDLE_S, or the user presses Ctrl-C."""
    idle_s = 0.0
    with Display() as display:
        began = time.monotonic()
        while not (status := study_status(storage, study)).ended and idle_s < IDLE_S:
            display.show(status)
            pause = _pause_s(time.monotonic() - began)
            time.sleep(pause)
            # all rows are also done between two stages, until a worker plans the next one
            idle_s = 0.0 if any(row.state != "done" for row in status.rows) else idle_s + pause
            began = time.monotonic()
    plain_console().print(readable(status.as_text()), soft_wrap=True)


def _pause_s(query_s: float) -> float:
    """How long to wait after a query that took `query_s`."""
    return max(REFRESH_S, query_s / MAX_QUERY_SHARE)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text literally: brackets or colons in a message are not markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def _arms_table(status: Status) -> Table:
    table = Table(
        "arm", "search", "", "pruned", "diverged", "best so far", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for name, arm in status.arms.items():
        bar = ProgressBar(total=max(arm.budget, 1), completed=_done(arm), width=24)
        counts = f"{_done(arm)}/{arm.budget}"
        table.add_row(name, bar, counts, str(arm.pruned), str(arm.diverged), _best(arm).strip(" ,"))
    for stage, done, planned in status.confirm_progress():
        table.add_row(stage, ProgressBar(total=planned, completed=done, width=24), f"{done}/{planned}", "", "", "")
    return table


def _title(row: Row) -> str:
    number = row.ordinal if row.trial is None else row.trial
    return f"{row.arm} {row.part or row.stage} {number}"


def _done(arm: ArmStatus) -> int:
    return arm.complete + arm.pruned + arm.diverged


def _best(arm: ArmStatus) -> str:
    return "" if arm.best_value is None else f", best {arm.best_value:.4f}"


def _epochs_left(status: Status) -> float:
    """Epochs left in this stage; estimates pruning from the search so far."""
    rows = [row for row in status.rows if row.state != "done" and row.stage != "test"]
    ended = [row.epoch for row in status.rows if row.stage == "search" and row.state == "done"]
    typical = sum(ended) / len(ended) if ended else status.epochs_per_trial
    already_trained = searched_epochs(status.rows)
    return sum(
        max(typical - row.epoch, 0)
        if row.stage == "search"
        else status.epochs_per_trial - max(row.epoch, already_trained.get(row.id, 0))
        for row in rows
    )


class _Speed:
    """Epochs per second, over the last WINDOW_S."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, epochs: int) -> None:
        self._seen.append((now, epochs))
        while now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    @property
    def epochs_per_second(self) -> float:
        (began, first), (now, last) = self._seen[0], self._seen[-1]
        return max(0.0, (last - first) / (now - began)) if now > began else 0.0


class _Curves:
    """The values of running rows, for a sparkline; epochs between two queries are missing."""

    def __init__(self) -> None:
        self._values: dict[int, dict[int, float]] = {}

    def note(self, status: Status) -> None:
        running = {row.id for row in status.running}
        self._values = {row_id: values for row_id, values in self._values.items() if row_id in running}
        for row in status.running:
            if row.value is not None:
                self._values.setdefault(row.id, {})[row.epoch] = row.value

    def sparkline(self, row: Row) -> str:
        values = list(self._values.get(row.id, {}).values())[-24:]
        if len(values) < 2 or max(values) == min(values):
            return _BARS[3] * len(values)
        low, high = min(values), max(values)
        return "".join(_BARS[int((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)
